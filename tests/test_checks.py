"""The self-check passes, and each fault that it is there for makes it fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.checks import CHECKS, run_checks
from charlm.lm.interface import SamplingRule
from charlm.nn.cells import GRUCell, LSTMCell
from charlm.nn.kernels import BACKENDS, reference
from charlm.nn.stack import Stack
from charlm.recurrent.model import CharRNN
from charlm.training.language import Lanes, LanguageObjective, Window


def problems() -> dict[str, str]:
    return {outcome.name: outcome.problem for outcome in run_checks() if outcome.problem is not None}


@pytest.mark.slow
def test_all_is_well() -> None:
    assert problems() == {}
    assert [outcome.name for outcome in run_checks()] == list(CHECKS)


def swapped_gates(self: LSTMCell, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    h, c = state
    f, i, g, o = (gates_BG + F.linear(h, self.weight_hh, self.bias_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def early_reset(self: GRUCell, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (h,) = state
    r_x, z_x, n_x = gates_BG.chunk(3, -1)
    r_h, z_h, _ = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n_h = F.linear(r * h, self.weight_hh, self.bias_hh).chunk(3, -1)[2]
    return (n_x.add(n_h).tanh() * (1 - z) + z * h,)


@pytest.mark.parametrize(("cell", "step"), [(LSTMCell, swapped_gates), (GRUCell, early_reset)])
@pytest.mark.slow
def test_a_swapped_gate_is_found(monkeypatch: pytest.MonkeyPatch, cell: type, step: Callable[..., Any]) -> None:
    monkeypatch.setattr(cell, "step", step)
    assert "cells equal torch.nn" in problems()


@pytest.mark.slow
def test_a_dropped_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Stack.forward
    monkeypatch.setattr(Stack, "forward", lambda self, x, state=None, **options: forward(self, x, None, **options))
    found = problems()
    assert "a text is its pieces" in found
    assert "training carries its state" in found


@pytest.mark.slow
def test_a_state_dropped_between_windows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = LanguageObjective.loss

    def forgetful(self: LanguageObjective, step: int) -> tuple[Tensor, int]:
        self.forget()
        return loss(self, step)

    monkeypatch.setattr(LanguageObjective, "loss", forgetful)
    assert "training carries its state" in problems()


@pytest.mark.slow
def test_a_model_without_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def memoryless(cell: Any, x: Tensor, state: Any, *rest: Any) -> Any:
        pieces = [reference.run(cell, piece, cell.initial_state(x.shape[1]), *rest) for piece in x.split(1)]
        return torch.cat([y for y, _ in pieces]), pieces[-1][1]

    for name in BACKENDS:
        monkeypatch.setitem(BACKENDS, name, memoryless)
    assert "the past counts, the future does not" in problems()


@pytest.mark.slow
def test_a_look_into_the_future_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = CharRNN.forward

    def foresighted(self: CharRNN, ids_TB: Tensor, *rest: Any) -> tuple[Tensor, Any]:
        return forward(self, ids_TB.roll(-1, 0), *rest)

    monkeypatch.setattr(CharRNN, "forward", foresighted)
    assert "the past counts, the future does not" in problems()


@pytest.mark.slow
def test_a_target_shifted_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    window_at = Lanes.window_at

    def shifted(self: Lanes, epoch: int, number: int) -> Window:
        window = window_at(self, epoch, number)
        values = {**vars(window), "targets_TB": np.where(window.targets_TB >= 0, window.inputs_TB, -1)}
        return Window(**values)

    monkeypatch.setattr(Lanes, "window_at", shifted)
    assert "windows ask for the next character" in problems()


@pytest.mark.slow
def test_a_wrong_sampler_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(self: CharRNN, ids_B: Tensor, state: Any, steps: int, rule: SamplingRule, noise_TB: Tensor) -> Any:
        with torch.no_grad():
            logp, state = self.logprobs(ids_B[None], state)
        hot = SamplingRule(temperature=(rule.temperature or 1) * 1.3, top_k=rule.top_k)
        drawn = hot.draw(logp[0], noise_TB[0])[None]
        return drawn, logp.gather(-1, drawn[..., None])[..., 0], state

    monkeypatch.setattr(CharRNN, "generate", lazy)
    assert "the sampler follows the distribution" in problems()
