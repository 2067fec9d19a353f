"""The kernels' test of themselves: what it makes of every way in which kernels can fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from charlm.nn import kernels
from charlm.nn.cells import make_cell
from charlm.nn.kernels import fused, triton_layers
from charlm.nn.kernels.triton_layers import Verdict, judge
from charlm.nn.stack import Stack

WHAT = ["cuda:0", "lstm", "128", "bfloat16"]


def test_kernels_that_are_right_are_used() -> None:
    asked: list[Any] = []

    def start(what: Sequence[str], seconds: float) -> tuple[int, str]:
        asked.append((list(what), seconds))
        return 0, "a warning that means nothing"

    assert judge(WHAT, start, 7) == Verdict(usable=True)
    assert asked == [(WHAT, 7)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((1, "wrong by 0.3"), "wrong by 0.3"),
        ((-6, ""), "ended with status -6"),
        (TimeoutError(), "longer than 7 seconds"),
        (OSError("no such file"), "could not be started: no such file"),
    ],
)
def test_kernels_that_fail_are_left_alone_and_the_reason_is_said(answer: Any, why: str) -> None:
    def start(what: Sequence[str], seconds: float) -> tuple[int, str]:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    found = judge(WHAT, start, 7)
    assert not found.usable
    assert why in found.reason
    assert "lstm 128 in bfloat16" in found.reason


@pytest.mark.parametrize(("error", "status"), [(1e-6, 0), (0.5, 1), (float("nan"), 1)])
def test_the_program_says_whether_the_numbers_are_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: float, status: int
) -> None:
    monkeypatch.setattr(triton_layers, "error_of", lambda *what: error)
    assert triton_layers.main(["cuda:0", "gru", "8", "float32"]) == status
    assert ("wrong by" in capsys.readouterr().err) == bool(status)


def test_a_test_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any, timeout: float, **more: Any) -> None:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(triton_layers.subprocess, "run", run)
    assert "longer than 3 seconds" in judge(WHAT, triton_layers._start, 3).reason


@pytest.mark.slow
def test_the_program_runs_as_one_and_a_missing_device_is_a_reason() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    found = judge(["cuda:0", "gru", "8", "float32"], triton_layers._start, 120)
    assert not found.usable
    assert len(found.reason) > 80  # with torch's own words


def test_the_error_is_that_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the loops in their place it is rounding, with a wrong one it is large."""
    from charlm.nn.kernels import loops

    monkeypatch.setattr(triton_layers, "backward", loops.backward)
    monkeypatch.setattr(triton_layers, "forward", lambda cell, gates, *rest: loops.forward(cell, gates.clone(), *rest))
    for cell in ("rnn", "gru", "lstm"):
        assert triton_layers.error_of("cpu", cell, 11, "float32") < 1e-5
    monkeypatch.setattr(triton_layers, "backward", lambda *a: (2 * loops.backward(*a)[0], None))
    assert triton_layers.error_of("cpu", "gru", 11, "float32") > 1e-2


def test_on_a_cpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_layers, "verdict", lambda *what: pytest.fail("asked"))
    stack = Stack("gru", inputs=3, hidden=4)
    stack.backend = "fused"
    stack(torch.tensor([[1], [2]]))
    assert fused._ours(make_cell("lstm", 3, 900), torch.float32)
    assert kernels.notes(stack) == []


def test_notes_name_each_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack("gru", inputs=3, hidden=16, layers=3)
    stack.backend = "fused"
    monkeypatch.setattr(kernels, "_on_gpu", lambda stack: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(triton_layers, "fits", lambda cell, like: True)
    monkeypatch.setattr(triton_layers, "verdict_on", lambda cell, like: Verdict(usable=False, reason="they are wrong"))
    assert kernels.notes(stack) == ["they are wrong"]
    monkeypatch.setattr(triton_layers, "fits", lambda cell, like: False)
    (note,) = kernels.notes(stack)
    assert "gru 16" in note
    assert "torch" in note
    stack.backend = "torch"
    assert kernels.notes(stack) == []
