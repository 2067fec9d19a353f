"""How a model is optimised: `Optimisation` with the learning rate of each step, and its optimizer (`adamw`); where the
loop stands (`LoopState`); the budget: steps, epochs or minutes as a number of steps, and how often to validate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from charlm.codec import decode
from charlm.errors import OptionError, check_seed
from charlm.training.distributed import Processes


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How a model is optimised.

    Args:
        lr: the peak learning rate of AdamW (Loshchilov and Hutter 2019).
        lr_final: the last learning rate as a share of the peak.
        hold: share of the steps after the warm-up that have the peak rate, before it falls in a straight line; None
            lets it fall as a cosine from the warm-up on, which is what runs of earlier versions go on with.
        symbol_rate, head_rate, look_back_rate: factors of the learning rate for the weights that the input symbol picks
            out, for those of the output layer, and for those that look back.
        row_rate: the peak learning rate of the rows of strings, by Adagrad; it rises and falls as `lr` does.
        warmup: steps of linear warm-up.
        betas: decay of AdamW's running means.
        weight_decay: of the weights that are matrices; biases are left alone.
        average: share of the steps so far that averaged weights look back over (`Average`); 0 for no averaging.
        clip: largest norm of the whole gradient (Pascanu et al. 2013).
        epochs, max_steps, minutes: budget; whichever ends first, None for no bound.
        patience: validations without improvement until it stops; 0 never stops early.
        validations: about how many are made over a run.
        seed: of initial weights, lanes and dropout.
    """

    lr: float = 2e-3
    lr_final: float = 0.02
    hold: float | None = None
    symbol_rate: float = 1.0
    head_rate: float = 1.0
    look_back_rate: float = 1.0
    row_rate: float = 0.1
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    average: float = 0.0
    clip: float = 1.0
    epochs: float | None = None
    max_steps: int | None = None
    minutes: float | None = None
    patience: int = 8
    validations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        if not 0 < self.lr < math.inf:
            raise OptionError(f"a learning rate is above 0 and finite, not {self.lr}")
        for name in ("epochs", "max_steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"--{name.replace('_', '-')} is above 0 and finite, not {value}")
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise OptionError("training needs an end: give epochs, max_steps or minutes")
        if not 0 <= self.average <= 1:
            raise OptionError(f"average is a share of the steps from 0 to 1, not {self.average}")
        rates = self.symbol_rate, self.head_rate, self.look_back_rate, self.row_rate
        if not 0 <= (self.hold or 0) <= 1 or not all(0 < rate < math.inf for rate in rates):
            raise OptionError("hold is a share of the steps from 0 to 1; rates of weights are above 0 and finite")
        if self.clip <= 0 or self.warmup < 0 or self.patience < 0 or self.validations < 1 or self.weight_decay < 0:
            raise OptionError("clip and validations are above 0; warmup, patience and weight_decay are not negative")

    def budget(self) -> str:
        """The budget in words.

        >>> Optimisation(minutes=4.0, epochs=24.0).budget()
        '4 minutes or 24 epochs'
        """
        minutes = f"{self.minutes:g} minutes" if self.minutes else ""
        epochs = f"{self.epochs:g} epochs" if self.epochs else ""
        steps = f"{self.max_steps:,} steps" if self.max_steps else ""
        return " or ".join(part for part in (minutes, epochs, steps) if part)

    def rate(self, step: int, total: int | None) -> float:
        """The learning rate of a step: a linear warm-up, the peak for the share `hold` of the other steps, then a
        straight line down (Hu et al. 2024); or, where `hold` is None, a cosine down (Loshchilov and Hutter 2017).

        Args:
            step: 0, 1, 2, ...
            total: steps until it has fallen; None while that is not known yet, which is only while it warms up.

        >>> options = Optimisation(max_steps=110, lr=1.0, warmup=10, lr_final=0.1)
        >>> [round(options.rate(step, total=110), 9) for step in (0, 10, 60, 110)]
        [0.1, 1.0, 0.55, 0.1]
        """
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if total is None or total <= self.warmup:
            return self.lr
        done = min((step - self.warmup) / (total - self.warmup), 1.0)
        if self.hold is None:
            left = (1 + math.cos(math.pi * done)) / 2
        else:
            left = 1.0 if done <= self.hold else (1 - done) / (1 - self.hold)
        return self.lr * (self.lr_final + (1 - self.lr_final) * left)


def adamw(module: nn.Module, options: Optimisation) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, as torch's fused step, which is the fastest on a CPU too.

    Each group of parameters has a `factor` of the learning rate. It is 1 but for the weights that the module's `rates`
    names, where it has such an attribute; the first group always has 1.
    """
    rows = getattr(module, "row_weights", None)
    rates: Mapping[str, list[Tensor]] = getattr(module, "rates", {})
    factors = {id(p): float(getattr(options, name)) for name, weights in rates.items() for p in weights}
    members: dict[tuple[float, float], list[Tensor]] = {}
    for p in (p for p in module.parameters() if p.requires_grad and p is not rows):
        members.setdefault((factors.get(id(p), 1.0), options.weight_decay if p.dim() > 1 else 0.0), []).append(p)
    groups: list[dict[str, Any]] = [
        {"params": members[factor, decay], "weight_decay": decay, "factor": factor}
        for factor, decay in sorted(members, key=lambda kind: kind[0] != 1)
    ]
    if rows is not None:
        groups.append({"params": [rows], "weight_decay": 0.0, "factor": options.row_rate / options.lr})
    return RowAdamW(rows, groups, lr=options.lr, betas=options.betas, fused=True)


class RowAdamW(torch.optim.AdamW):
    """AdamW for all weights but the rows of strings, which have Adagrad with one sum a row (Duchi et al. 2011).

    A step changes the rows alone that the gradient has. The sum of a row is that of its mean squared gradients.

    Args:
        rows: the weights [R, V] whose gradient is sparse; None where there are none.
    """

    def __init__(self, rows: Tensor | None, groups: list[dict[str, Any]], **options: Any) -> None:
        super().__init__(groups, **options)
        self.rows = rows

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step of both kinds."""
        rows, grad = self.rows, None if self.rows is None else self.rows.grad
        if rows is None or grad is None:
            return super().step(closure)
        rows.grad = None
        super().step(closure)
        grad = (grad if grad.is_sparse else grad.to_sparse(1)).coalesce()
        places_N, grad_NV = grad.indices()[0], grad.values()
        sums_R = self.state[rows].setdefault("sum", rows.new_zeros(len(rows)))
        sums_N = sums_R[places_N] + grad_NV.square().mean(1)
        sums_R[places_N] = sums_N
        rate = self.param_groups[-1]["lr"]
        rows.index_add_(0, places_N, grad_NV / (sums_N.sqrt() + 1e-20).unsqueeze(1), alpha=-rate)
        return None


class TrainingPlan:
    """What every plan of a training has; a frozen dataclass for each kind of run derives from it.

    Attributes:
        network: the model's shape, a frozen dataclass.
        optimisation: how it is trained.
        backend: how layers are run; `rule` until the rule has chosen, `auto` until the fastest was found by the clock.
    """

    network: Any
    optimisation: Optimisation
    backend: str

    def having(self, **changes: Any) -> Self:
        """The plan with other values of some fields."""
        return replace(self, **changes)  # type: ignore[type-var]


@dataclass(kw_only=True)
class LoopState:
    """Where the loop stands: the numbers that are saved with every state.

    Args:
        step: optimisation steps taken.
        position: steps' worth of data read; it differs from `step` where a run went on with another batch size.
        total, every: the planned number of steps, and of steps between two validations; None until they are planned.
        due: the step after which the next validation comes; None until it is planned.
        seconds: of training and validation so far.
        best, best_step: the lowest finite validation loss (None before the first one), and its step.
        since_best: validations since then.
        first_loss: the training loss of the first step.
        skipped, skipped_in_a_row: steps left out because loss or gradient was not finite.
        rollbacks: how often the loop went back to its best weights after such steps.
        lr_scale: a factor of the learning rate, halved at each of these.
        loss_sum, loss_count: the training loss summed since the last validation, and the number of its targets.
        targets: characters or labels learned from so far.
    """

    step: int = 0
    position: int = 0
    total: int | None = None
    every: int | None = None
    due: int | None = None
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    first_loss: float | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    lr_scale: float = 1.0
    loss_sum: float = 0.0
    loss_count: int = 0
    targets: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < 0:
                raise OptionError(f"{name} is {value}, below zero")
        if self.every == 0:
            raise OptionError("every is 0: validations have at least a step between them")

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> LoopState:
        """The state that a run saved; the oldest ones have no `position` of their own."""
        return decode(cls, {"position": value.get("step"), **value}, "the saved progress of the run")


class Budget:
    """Plans `LoopState.total` and `LoopState.every`, and keeps the time of one session.

    Where no minutes are given the plan depends on nothing but the options and the data. A number of minutes is turned
    into a number of steps when the first steps have shown what a step takes, and again whenever a twentieth of the time
    has passed: other work on the machine may have come or gone. After three quarters of the time the plan stays, so
    that the learning rate falls to its end without a jump. What is planned is saved with every state.

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
        self._planned_at: float | None = None

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

    def add_validation(self, seconds: float) -> None:
        """Counts what a validation took, and keeping what it found."""
        self._validation_seconds = seconds

    def validated(self) -> None:
        """Plans the next validation after one."""
        if self.progress.every is not None:
            self.progress.due = self.progress.step + self.progress.every

    def calibrate(self, used: float) -> None:
        """Turns minutes into steps: first while the learning rate still warms up, and again while time passes.

        Args:
            used: seconds by the clock that all processes agree on.
        """
        if self.options.minutes is None or not self._plan_due(used, self.options.minutes * 60):
            return
        self._planned_at = used
        progress, (steps, validations) = self.progress, self._affordable(used)
        total, limit = progress.step + steps, self._limit()
        total, validations = self.processes.agree([total if limit is None else min(total, limit), validations])
        if progress.total is None or abs(total - progress.total) > 0.05 * (progress.total - progress.step):
            self._fix(total, validations)

    def _plan_due(self, used: float, budget: float) -> bool:
        """Whether it is time to plan, for the first time or again."""
        progress = self.progress
        if progress.total is None:
            enough = progress.step >= 5 and used >= 0.03 * budget
            return enough or progress.step >= max(5, self.options.warmup - 1) or used >= 0.2 * budget
        if self._planned_at is None:  # planned in an earlier session
            self._planned_at = used
        return used >= self._planned_at + 0.05 * budget and used <= 0.75 * budget and len(self._step_seconds) >= 5

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
        if progress.due is None:  # saved by a version that did not plan it
            progress.due = -(-progress.step // progress.every) * progress.every
        return progress.step >= progress.due or progress.step == progress.total

    def _limit(self) -> int | None:
        """The step at which a budget of steps or epochs ends; None where it is one of minutes alone."""
        limits = [] if self.options.max_steps is None else [self.options.max_steps]
        if self.options.epochs is not None:
            left = round(self.options.epochs * self.steps_per_epoch) - self.progress.position
            limits.append(max(1, self.progress.step + left))
        return min(limits, default=None)

    def _fix(self, total: int, validations: int) -> None:
        progress, every = self.progress, max(1, -(-total // validations))
        last = progress.step if progress.due is None or progress.every is None else progress.due - progress.every
        progress.total, progress.every = total, every
        progress.due = max(progress.step + 1, last + every)

    def _affordable(self, used: float) -> tuple[int, int]:
        """How many further steps and validations fit into the rest of the minutes; validations get a tenth at most."""
        budget, seconds = (self.options.minutes or 0) * 60, sorted(self._step_seconds)[len(self._step_seconds) // 2]
        validations = int(min(self.options.validations, max(2, 0.1 * budget / max(self._validation_seconds, 1e-9))))
        left = budget * 0.95 - used - validations * self._validation_seconds
        return max(1, int(left / max(seconds, 1e-9))), validations
