"""When a training ends and how often it validates: a budget of steps, epochs or minutes as a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable

from charlm.training.distributed import Processes
from charlm.training.options import LoopState, Optimisation

__all__ = ["Budget", "affordable", "step_limit"]


class Budget:
    """Plans `LoopState.total` and `LoopState.every`, and keeps the time of one session.

    Where no minutes are given the plan depends on nothing but the options and the data. A number of minutes is turned
    into a number of steps once, after the first steps have shown what a step takes.

    Args:
        options: the budget.
        progress: where the loop stands; its `total` and `every` are set.
        steps_per_epoch: of the data.
        processes: they agree on one plan.
    """

    def __init__(self, options: Optimisation, progress: LoopState, steps_per_epoch: int, processes: Processes) -> None:
        self.options, self.progress, self.processes = options, progress, processes
        self.steps_per_epoch = steps_per_epoch
        self._before, self._started = progress.seconds, time.perf_counter()
        self._step_seconds: list[float] = []
        self._validation_seconds = 0.0

    def seconds(self) -> float:
        """Seconds of training and validation that are used, earlier sessions included."""
        return self._before + time.perf_counter() - self._started

    def plan(self, validate: Callable[[], object]) -> None:
        """Fixes the number of steps where no minutes are given; else measures what a validation takes."""
        if self.progress.total is not None:
            return
        limit = self._limit()
        if limit is not None and self.options.minutes is None:
            self._fix(limit, self.options.validations)
        else:
            begun = time.perf_counter()
            validate()
            self._validation_seconds = time.perf_counter() - begun

    def add_step(self, seconds: float) -> None:
        """Counts what a step took; the last fifty are kept."""
        self._step_seconds = [*self._step_seconds[-49:], seconds]

    def calibrate(self, used: float) -> None:
        """Turns minutes into steps, once, while the learning rate still warms up.

        Args:
            used: seconds by the clock that all processes agree on.
        """
        progress, options = self.progress, self.options
        if progress.total is not None or options.minutes is None:
            return
        budget = options.minutes * 60
        enough = progress.step >= 5 and used >= 0.03 * budget
        if not enough and progress.step < max(5, options.warmup - 1) and used < 0.2 * budget:
            return
        seconds = sorted(self._step_seconds)[len(self._step_seconds) // 2]
        steps, validations = affordable(options, used, seconds, self._validation_seconds)
        total, limit = progress.step + steps, self._limit()
        self._fix(*self.processes.agree([total if limit is None else min(total, limit), validations]))

    def late(self, used: float) -> bool:
        """Whether so many seconds are more than the minutes of the budget."""
        return self.options.minutes is not None and used > self.options.minutes * 60

    def reached(self) -> bool:
        """Whether the planned steps are taken."""
        return self.progress.total is not None and self.progress.step >= self.progress.total

    def validation_due(self) -> bool:
        """Whether to validate after the step that was taken last."""
        progress = self.progress
        if progress.every is None:
            return False
        return progress.step % progress.every == 0 or progress.step == progress.total

    def _limit(self) -> int | None:
        return step_limit(self.options, self.progress.step, self.progress.position, self.steps_per_epoch)

    def _fix(self, total: int, validations: int) -> None:
        self.progress.total = total
        self.progress.every = max(1, -(-total // validations))


def step_limit(options: Optimisation, step: int, position: int, steps_per_epoch: int) -> int | None:
    """The step at which a budget of steps or epochs ends; None where it is one of minutes alone.

    Args:
        options: the budget.
        step: steps taken so far.
        position: steps' worth of data read so far.
        steps_per_epoch: of the data.

    >>> step_limit(Optimisation(epochs=2.0), 5, 5, 10)
    20
    """
    limits = [] if options.max_steps is None else [options.max_steps]
    if options.epochs is not None:
        limits.append(max(1, step + round(options.epochs * steps_per_epoch) - position))
    return min(limits, default=None)


def affordable(options: Optimisation, used: float, step_seconds: float, validation_seconds: float) -> tuple[int, int]:
    """How many further steps, and how many validations, fit into what is left of the minutes.

    Args:
        options: the budget.
        used: seconds of it that are used.
        step_seconds, validation_seconds: what one of each takes; validations get a tenth of the time at most.

    >>> affordable(Optimisation(minutes=1.0, validations=20), 7.0, 0.1, 0.5)  # (57 - 7 - 12 · 0.5) / 0.1 steps
    (440, 12)
    """
    budget = (options.minutes or 0) * 60
    validations = int(min(options.validations, max(2, 0.1 * budget / max(validation_seconds, 1e-9))))
    left = budget * 0.95 - used - validations * validation_seconds
    return max(1, int(left / max(step_seconds, 1e-9))), validations
