"""The budget by a clock of the test: minutes become steps, which are planned again as the machine changes its speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from charlm.training.distributed import ALONE
from charlm.training.options import Budget, LoopState, Optimisation


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
            budget.validated(0.0)
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
            budget.validated(50.0)
    assert (progress.total, validations) == (100, list(range(10, 101, 10)))


def test_an_old_state_validates_where_it_would_have() -> None:
    progress = LoopState(step=13, total=100, every=10)  # saved without `due`
    budget = Budget(Optimisation(max_steps=100), progress, 50, ALONE)
    due = []
    for _ in range(20):
        progress.step += 1
        if budget.validation_due():
            due.append(progress.step)
            budget.validated(0.0)
    assert due == [20, 30]
