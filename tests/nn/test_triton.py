"""The Triton kernels give the numbers of the formulas, as far as Triton's interpreter can say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from charlm.nn.cells import make_cell
from charlm.nn.kernels import loops, triton_layers


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_kernels_equal_the_formulas_in_the_interpreter(cell: str) -> None:
    if not triton_layers.there():
        pytest.skip(
            "Triton is not installed here: torch's CUDA builds bring it, the extra `dev` a version that runs on a CPU"
        )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.triton_cases", cell],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert max(found["float32"].values()) < 2e-6, found
    assert found["bfloat16"] < 2e-2
    assert found["launches"] == 2 * 2 + 2 + 2 + 2  # forward and backward of four layers, and of the self-test


@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "fits"),
    [
        ("lstm", 128, torch.bfloat16, True),
        ("lstm", 129, torch.bfloat16, False),
        ("gru", 128, torch.bfloat16, True),
        ("rnn", 256, torch.bfloat16, True),
        ("lstm", 64, torch.float32, True),
        ("lstm", 65, torch.float32, False),
        ("lstm", 64, torch.float64, False),
    ],
)
def test_which_layers_fit(
    monkeypatch: pytest.MonkeyPatch, cell: str, hidden: int, dtype: torch.dtype, fits: bool
) -> None:
    monkeypatch.setattr(triton_layers, "there", lambda: True)
    monkeypatch.setattr(triton_layers, "INTERPRETED", True)
    gates = torch.zeros(1, dtype=dtype)
    assert triton_layers.fits(make_cell(cell, 3, hidden), gates) == fits
    monkeypatch.setattr(triton_layers, "INTERPRETED", False)
    assert not triton_layers.fits(make_cell(cell, 3, hidden), gates)  # a CPU has other kernels


def test_rows_are_summed_by_their_id() -> None:
    random = torch.Generator().manual_seed(0)
    rows, ids = torch.randn(50, 3, generator=random), torch.randint(-1, 6, (50,), generator=random)
    right = loops.sum_rows(rows.double(), ids, 7)
    assert torch.allclose(triton_layers.sum_rows(rows, ids, 7).double(), right, atol=1e-6)
    assert torch.allclose(triton_layers.sum_rows(rows, None, 1).double(), rows.double().sum(0, keepdim=True), atol=1e-5)
