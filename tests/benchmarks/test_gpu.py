"""The GPU benchmarks: their arguments, their arithmetic, and what they say where there is no GPU."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from benchmarks import gpu, sample_speed, train_speed
from benchmarks.torch_side import Size

SIZE = Size(cell="gru", hidden=8, layers=1, lanes=3, steps=4)


@pytest.mark.parametrize("script", [train_speed, sample_speed])
def test_without_a_gpu_there_is_one_sentence(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["script", "--device", "cuda"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no CUDA device" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precision", "fp16"],
        ["--precision", "bf16", "--memory"],
        ["--device", "cuda", "--memory"],
        ["--device", "tpu"],
    ],
)
def test_arguments_that_do_not_go_together(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_speed", *arguments])
    with pytest.raises(SystemExit) as stopped:
        train_speed.main()
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_arguments_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(gpu, "train", lambda *given: seen.append(given))
    monkeypatch.setattr(gpu, "sample", lambda *given: seen.append(given))
    line = "train_speed --device cuda --cell rnn --size 8,1,2,3 --precision tf32 --precision bf16 --seconds 1"
    monkeypatch.setattr(sys, "argv", line.split())
    train_speed.main()
    monkeypatch.setattr(sys, "argv", ["sample_speed", "--device", "cuda", "--streams", "4", "--seconds", "2"])
    sample_speed.main()
    assert seen == [(["rnn"], [(8, 1, 2, 3)], ["tf32", "bf16"], 1.0), ([4], 2.0)]


def test_medians_are_taken_in_turns() -> None:
    order: list[str] = []
    times = iter([9.0, 9.0, 1.0, 5.0, 3.0, 4.0, 2.0, 60.0])

    def clock(step: Any) -> float:
        step()
        return next(times)

    steps = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert gpu.in_turns(steps, 0, clock, least=3) == {"a": 2.0, "b": 5.0}
    assert order == ["a", "b"] * 4


def test_the_ratio_is_torchs_time_without_a_graph_over_our_best() -> None:
    medians = {
        "charlm torch": 4e-3,
        "charlm fused graph": 2e-3,
        "torch 16": 7e-3,
        "torch 64": 6e-3,
        "torch 16 graph": 3e-3,
    }
    text, ratio = gpu.line(SIZE, "bf16", medians)
    assert ratio == pytest.approx(3.0)
    assert "charlm fused graph" in text
    assert "6.000 ms ( 3.00)" in text
    assert "3.000 ms ( 1.50)" in text


def test_what_cannot_be_made_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Any:
        raise RuntimeError("out of memory\nand more")

    assert list(gpu.prepare({"one": lambda: lambda: None, "two": fails})) == ["one"]
    assert capsys.readouterr().err == "two is left out: out of memory\n"


def test_both_flags_of_tf32_go_together() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for name, flag in (("fp32", False), ("tf32", True), ("bf16", True)):
            assert gpu.set_precision(name) == gpu.PRECISIONS[name]
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (flag, flag)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_steps_train_and_draw_on_a_cpu_too() -> None:
    where = torch.device("cpu")
    made = gpu.candidates(SIZE, where, None)
    assert len(made) == 8
    for name in ("charlm fused", "charlm torch", "torch 16"):
        step = made[name]()
        step()
        step()
    monkeys = gpu.OURS, gpu.THEIRS
    gpu.OURS, gpu.THEIRS = 5, 2
    try:
        drawn, logp, _ = gpu.sampler("gru", 1, 8, 3, where)()  # type: ignore[misc]
        assert drawn.shape == logp.shape == (5, 3)
        gpu.loop("gru", 1, 8, 3, where)()
    finally:
        gpu.OURS, gpu.THEIRS = monkeys


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_both_loops_over_torch_draw_the_same(cell: str) -> None:
    drawn = []
    for loop in sample_speed.theirs(cell, 2, 16, 5).values():
        torch.manual_seed(3)
        drawn.append(loop())
    assert torch.equal(drawn[0], drawn[1])
