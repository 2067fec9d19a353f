"""What is decided by the question whether a tensor is on a GPU, with the answer faked, as far as a CPU can go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn import kernels
from charlm.nn.cells import make_cell
from charlm.nn.kernels import fused, graphs, reference, triton_layers
from charlm.nn.stack import Stack
from charlm.recurrent import model as recurrent
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from tests.nn.test_graph_generate import Again


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kernels, fused, reference, recurrent, triton_layers):
        monkeypatch.setattr(module, "on_gpu", lambda thing: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def test_ids_are_checked_without_waiting_for_the_device() -> None:
    ids = torch.tensor([[0, -1, 4]])
    assert torch.equal(reference.check_ids(ids, 5, ids.device, dim=2), ids)
    for wrong in (5, -2):
        with pytest.raises(RuntimeError):  # on a device: a failed assertion in the stream
            reference.check_ids(torch.tensor([[wrong]]), 5, ids.device, dim=2)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("fits", [False, True])
def test_fused_goes_to_torch_unless_the_kernels_have_passed_their_test(
    monkeypatch: pytest.MonkeyPatch, kind: str, fits: bool
) -> None:
    called: list[str] = []

    def run(cell: Any, *arguments: Any) -> Any:
        called.append(cell.name)
        return run_by_torch(cell, *arguments)

    run_by_torch = fused.run_by_torch
    monkeypatch.setattr(fused, "run_by_torch", run)
    monkeypatch.setattr(triton_layers, "fits", lambda cell, like: fits and like.numel() == 0)
    monkeypatch.setattr(triton_layers, "verdict_on", lambda cell, like: triton_layers.Verdict(usable=True))
    stack = Stack(kind, inputs=3, hidden=4)
    stack.backend = "fused"
    y, _ = stack(torch.tensor([[0, 1], [2, -1]]))
    stack.backend = "reference"
    assert torch.allclose(y, stack(torch.tensor([[0, 1], [2, -1]]))[0], atol=1e-6)
    assert called == ([] if fits else [kind])


def test_autocast_decides_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell("gru", 3, 4)
    assert fused._precision(cell) == torch.float32
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    assert fused._precision(cell) == torch.bfloat16


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_generation_is_recorded_where_fused_was_asked_for(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made = CharRNN(Vocab.of("abcdef"), RNNConfig(model=kind, hidden=8))
    monkeypatch.setattr(made, "_compiled", lambda: False)
    calls: list[Any] = []

    def record(*arguments: Any) -> Any:
        calls.append(arguments[3])
        return graphs.generate_in_graphs(*arguments, Again)

    monkeypatch.setattr(recurrent, "generate_in_graphs", record)
    noise, ids = torch.rand(40, 2, dtype=torch.float64), torch.tensor([0, 1])
    right = generate_by_steps(made, ids, made.initial_state(2), 40, SamplingRule(), noise)
    for backend, count in (("reference", 0), ("fused", 1)):
        made.stack.backend = backend
        drawn: Tensor = made.generate(ids, made.initial_state(2), 40, SamplingRule(), noise)[0]
        assert torch.equal(drawn, right[0])
        assert len(calls) == count
