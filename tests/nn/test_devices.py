"""What is said of a device: from a GPU that is not there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm.nn import kernels as devices
from charlm.nn.kernels import crowded

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90100)


def test_both_flags_of_tf32_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backends:
        class cuda:  # noqa: N801
            class matmul:  # noqa: N801
                allow_tf32 = False

        class cudnn:  # noqa: N801
            allow_tf32 = True

    monkeypatch.setattr(devices.torch, "backends", Backends)
    assert devices.precision(GPU) == "bfloat16 under autocast, TF32 off in products and on in cuDNN"


@pytest.mark.parametrize(("answer", "driver"), [("570.1\n570.1\n", "driver 570.1,"), (None, "driver unknown,")])
def test_the_driver_is_named_where_it_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, answer: str | None, driver: str
) -> None:
    def run(command: list[str], **options: Any) -> Any:
        if answer is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    monkeypatch.setattr(devices.subprocess, "run", run)
    line = devices.facts(GPU)
    assert line.startswith("A GPU, ")
    assert driver in line
    assert f"torch {torch.__version__}" in line
    assert "cuDNN 90100" in line


@pytest.mark.parametrize(
    ("running", "threads", "said"), [(1, 2, ""), (2, 2, "1 of 2 cores"), (2, 1, ""), (9, 2, "2 of 2 cores")]
)
def test_other_work_is_said(running: int, threads: int, said: str, tmp_path: Path) -> None:
    load = tmp_path / "loadavg"
    load.write_text(f"0.50 0.40 0.30 {running}/312 4711\n")
    found = crowded(threads, cores=2, load=load)
    assert bool(found) == bool(said)
    assert said in found
    assert crowded(threads, cores=2, load=tmp_path / "none") == ""
