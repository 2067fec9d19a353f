"""On a GPU: the same equalities as on a CPU, for kernels, graphs and generation; skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn.kernels import triton_layers
from charlm.nn.kernels import triton_layers as selftest
from charlm.nn.stack import Stack
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from charlm.training.graphed import GraphedStepper, stepper_for
from charlm.training.interfaces import Observer
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.loop import Loop
from charlm.training.options import Optimisation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

CELLS = ["rnn", "gru", "lstm"]
TEXT = "the cat sat on the mat and the dog sat on the log. " * 40
WIDEST = {"rnn": 256, "gru": 128, "lstm": 128}


class Notes(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_note(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_kernels_pass_their_own_test(cell: str, precision: str) -> None:
    for hidden in (20, 64, *([] if precision == "float32" else [WIDEST[cell]])):
        found = selftest.verdict("cuda:0", cell, hidden, precision)
        assert found.usable, found.reason


def outputs_and_gradients(kind: str, backend: str, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Outputs, states and all gradients of one layer on random numbers."""
    random = torch.Generator().manual_seed(7)
    stack = Stack(kind, inputs=13, hidden=61)
    stack.reset_parameters(random)
    stack = stack.to(device, dtype)
    stack.backend = backend
    ids = torch.randint(-1, 13, (40, 37), generator=random).to(device)
    resets = (torch.rand(40, 37, generator=random) < 0.05).to(device) if backend != "torch" else None
    to_y = torch.randn(40, 37, 61, generator=random, dtype=torch.float64).to(device, dtype)
    y, after = stack(ids, resets_TB=resets)
    gradients = torch.autograd.grad((y * to_y).sum(), list(stack.parameters()))
    return [t.detach().double().cpu() for t in (y, *after.values(), *gradients)]


@pytest.mark.parametrize("cell", CELLS)
def test_float32_layers_equal_the_formulas_in_float64(cell: str) -> None:
    right = outputs_and_gradients(cell, "reference", "cpu", torch.float64)
    ours = outputs_and_gradients(cell, "fused", "cuda", torch.float32)
    formulas = outputs_and_gradients(cell, "reference", "cuda", torch.float32)
    for a, b, c in zip(ours, formulas, right, strict=True):
        error, allowed = (a - c).square().mean().sqrt(), (b - c).square().mean().sqrt()
        assert error <= 1.5 * allowed + 1e-7


def run(backend: str, dropout: float, graphed: bool, steps: int = 60) -> tuple[Loop, Notes, Any]:
    vocab = Vocab.of(TEXT)
    ids = vocab.encode(TEXT)
    model = CharRNN(vocab, RNNConfig(model="lstm", hidden=64, layers=2, dropout=dropout))
    model.reset_parameters(torch.Generator().manual_seed(3))
    model.to("cuda")
    model.stack.backend = backend
    whole = np.array([[0, len(ids)]])
    objective = LanguageObjective(model, Lanes(ids, whole, lanes=8, window=16, seed=1), ids, whole, seed=5)
    stepper = stepper_for(objective, "fused") if graphed else None
    watcher = Notes()
    options = Optimisation(max_steps=steps, validations=2, warmup=3, patience=0, average=0.3, hold=0.5, symbol_rate=2.0)
    loop = Loop(objective, options, observer=watcher, stepper=stepper)
    assert loop.run() == "finished"
    return loop, watcher, stepper


@pytest.mark.parametrize("backend", ["fused", "torch"])
def test_a_graph_trains_like_the_loop(backend: str) -> None:
    own, _, _ = run(backend, 0.0, False)
    ours, watcher, stepper = run(backend, 0.0, True)
    assert isinstance(stepper, GraphedStepper)
    assert not watcher.said  # nothing was declined
    assert stepper._recorded
    assert ours.progress.best == pytest.approx(own.progress.best, rel=0.01)


@pytest.mark.parametrize("backend", ["fused", "torch"])
def test_two_runs_are_the_same_to_the_bit(backend: str) -> None:
    (first, _, _), (second, _, _) = run(backend, 0.2, True), run(backend, 0.2, True)
    for name, tensor in first.weights().items():
        assert torch.equal(tensor, second.weights()[name]), name


def test_many_windows_need_no_more_memory() -> None:
    run("fused", 0.2, True, steps=100)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loop, _, _ = run("fused", 0.2, True, steps=1000)
    assert torch.cuda.max_memory_allocated() - before < 64 << 20
    assert loop.progress.best < 1.0


@pytest.mark.parametrize("cell", CELLS)
def test_recorded_generation_draws_what_single_steps_draw(cell: str) -> None:
    model = CharRNN(Vocab.of(TEXT), RNNConfig(model=cell, hidden=48, layers=2))
    model.reset_parameters(torch.Generator().manual_seed(4))
    model.to("cuda")
    model.stack.backend = "fused"
    assert model._graphed()
    noise = torch.rand(150, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ids = torch.zeros(5, dtype=torch.int64, device="cuda")
    drawn, logp, _ = model.generate(ids, model.initial_state(5), 150, SamplingRule(), noise)
    model.stack.backend = "reference"
    with torch.inference_mode():
        right = generate_by_steps(model, ids, model.initial_state(5), 150, SamplingRule(), noise)
    same = (drawn == right[0]).all(0)
    assert same.float().mean() >= 0.8  # a draw may stand on an edge that rounding moves
    assert torch.allclose(logp[:, same], right[1][:, same], atol=1e-4)


def test_which_layers_go_to_which_kernels() -> None:
    assert triton_layers.there(), "torch's CUDA builds bring Triton"
