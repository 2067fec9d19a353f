"""The budget by a clock of the test: minutes become steps, which are planned again as the machine changes its speed.
The learning rate by arithmetic, step by step and group by group.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from charlm.codec import decode, encode
from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from charlm.training.distributed import ALONE
from charlm.training.options import Budget, LoopState, Optimisation, adamw


class Clock:
    """Counts the seconds that the test lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def trained(clock: Clock, minutes: float, seconds_of: Callable[[float], float]) -> tuple[LoopState, float, list[int]]:
    """A training whose steps take `seconds_of(seconds so far)`; the state at its end, its seconds, its validations."""
    progress, begun = LoopState(), clock.now
    budget = Budget(Optimisation(minutes=minutes), progress, 100, ALONE)
    budget.plan(lambda: None)
    validations = []
    while not budget.reached() and not budget.late(budget.seconds()):
        took = seconds_of(clock.now - begun)
        clock.now += took
        progress.step += 1
        budget.add_step(took)
        budget.calibrate(budget.seconds())
        if budget.validation_due():
            validations.append(progress.step)
            budget.validated()
            budget.add_validation(0.0)
    return progress, clock.now - begun, validations


def slow_at_first(seconds: float) -> float:
    """Ten times slower for the first ten seconds, as beside another program."""
    return 0.5 if seconds < 10 else 0.05


def slow_later(seconds: float) -> float:
    """Five times slower after forty seconds."""
    return 0.05 if seconds < 40 else 0.25


@pytest.mark.parametrize("speed", [slow_at_first, slow_later, lambda seconds: 0.1], ids=["first", "later", "steady"])
def test_the_minutes_that_were_given_are_used(speed: Callable[[float], float], monkeypatch: pytest.MonkeyPatch) -> None:
    progress, seconds, validations = trained(Clock(monkeypatch), 3.0, speed)
    assert 0.85 * 180 < seconds <= 181  # planned once, the first one ends after 40 seconds
    assert progress.step == progress.total  # so the learning rate has fallen to its end
    assert 10 <= len(validations) <= 40
    assert validations[-1] == progress.total


def test_a_budget_of_steps_never_asks_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = LoopState()
    budget = Budget(Optimisation(max_steps=100, validations=10), progress, 50, ALONE)
    budget.plan(lambda: None)
    validations = []
    for _ in range(100):
        progress.step += 1
        clock.now += 1000.0
        budget.calibrate(budget.seconds())
        if budget.validation_due():
            validations.append(progress.step)
            budget.validated()
            budget.add_validation(50.0)
    assert (progress.total, validations) == (100, list(range(10, 101, 10)))


def test_an_old_state_validates_where_it_would_have() -> None:
    progress = LoopState(step=13, total=100, every=10)  # saved without `due`
    budget = Budget(Optimisation(max_steps=100), progress, 50, ALONE)
    due = []
    for _ in range(20):
        progress.step += 1
        if budget.validation_due():
            due.append(progress.step)
            budget.validated()
            budget.add_validation(0.0)
    assert due == [20, 30]


def test_the_rate_is_held_and_then_falls_in_a_straight_line() -> None:
    options = Optimisation(max_steps=110, lr=0.004, warmup=10, lr_final=0.0, hold=0.5)
    assert [options.rate(step, 110) for step in (0, 4)] == pytest.approx([0.0004, 0.002])
    assert {options.rate(step, 110) for step in range(10, 61)} == {0.004}
    falls = [options.rate(step, 110) - options.rate(step + 1, 110) for step in range(60, 110)]
    assert falls == pytest.approx([0.004 / 50] * 50)
    assert options.rate(110, 110) == options.rate(200, 110) == 0.0
    options = Optimisation(max_steps=4, lr=1.0, warmup=0, lr_final=0.2, hold=1.0)
    assert options.rate(4, 4) == 1.0  # never falls
    assert replace(options, hold=0.0).rate(2, 4) == pytest.approx(0.6)


def test_the_rate_falls_as_a_cosine_and_stays_up_while_the_end_is_not_known() -> None:
    options = Optimisation(max_steps=110, lr=1.0, warmup=10, lr_final=0.0, hold=None)
    assert [options.rate(step, None) for step in (0, 9, 10, 500)] == pytest.approx([0.1, 1.0, 1.0, 1.0])
    assert [options.rate(step, 110) for step in (10, 60, 85, 110)] == pytest.approx([1.0, 0.5, (2 - 2**0.5) / 4, 0.0])


def test_a_run_without_the_newer_options_keeps_the_cosine_and_one_rate() -> None:
    stored = encode(Optimisation(max_steps=100, warmup=0, lr=1.0))
    old = {name: value for name, value in stored.items() if name != "hold" and not name.endswith("_rate")}
    options = decode(Optimisation, old)
    assert (options.hold, options.symbol_rate, options.head_rate, options.look_back_rate) == (None, 1.0, 1.0, 1.0)
    falling = [replace(options, lr_final=0.0).rate(step, 100) for step in (25, 50, 100)]
    assert falling == pytest.approx([(2 + 2**0.5) / 4, 0.5, 0.0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"hold": 1.1},
        {"hold": -0.1},
        {"symbol_rate": 0.0},
        {"symbol_rate": float("nan")},
        {"symbol_rate": -1.0, "row_rate": -1.0},
        {"head_rate": 0.0},
        {"look_back_rate": -0.5},
        {"row_rate": float("inf")},
    ],
)
def test_a_share_and_a_factor_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="hold is a share"):
        Optimisation(max_steps=1, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("embedding", "symbols"), [(0, "stack.cells.0.weight_ih"), (5, "embedding.weight")])
def test_some_weights_have_a_rate_of_their_own(embedding: int, symbols: str) -> None:
    config = RNNConfig(model="gru", hidden=4, layers=2, embedding=embedding, look_back=8)
    model = CharRNN(Vocab.of("abc"), config)
    names = {id(p): name for name, p in model.named_parameters()}
    options = Optimisation(max_steps=1, symbol_rate=4.0, head_rate=2.0, look_back_rate=0.5)
    groups = adamw(model, options).param_groups
    factors = {names[id(p)]: group["factor"] for group in groups for p in group["params"]}
    expected = {name: {"head": 2.0, "look_back": 0.5}.get(name.split(".")[0], 1.0) for name in names.values()}
    assert factors == {**expected, symbols: 4.0}
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {name: 0.01 if p.dim() > 1 else 0.0 for name, p in model.named_parameters()}
    assert groups[0]["factor"] == 1.0  # its rate is the one that is reported
    assert {
        group["factor"] for group in adamw(nn.Linear(2, 2), Optimisation(max_steps=1, symbol_rate=4.0)).param_groups
    } == {1.0}


def test_a_step_of_the_symbols_weights_is_longer_by_the_factor() -> None:
    """The first step of Adam moves every weight by the learning rate against the sign of its gradient."""
    model = CharRNN(Vocab.of("abc"), RNNConfig(model="gru", hidden=4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, Optimisation(max_steps=1, symbol_rate=3.0, weight_decay=0.0))
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["factor"]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = 0.03 if name == "stack.cells.0.weight_ih" else 0.01
        assert torch.allclose(before[name] - parameter, torch.full_like(parameter, moved), rtol=1e-3), name
