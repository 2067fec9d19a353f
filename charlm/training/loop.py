"""The one optimisation loop: steps, learning rate, clipping, averaging, validation, early stopping, budget.

It knows neither texts nor tables. What is optimised is an `Objective`; who watches is an `Observer`; where things
are kept is a `Keeper`. Everything that decides the next step is in `Loop.snapshot`, so that a run can go on to the bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from charlm.nn.schedule import Schedule
from charlm.training import snapshot
from charlm.training.distributed import ALONE, Heard, Processes
from charlm.training.objective import Keeper, Objective
from charlm.training.options import Average, Optimisation, Progress, adamw
from charlm.training.stepping import Stepper
from charlm.training.watching import Observer, StepReport, Unobserved, ValidationReport

__all__ = ["Keeper", "Loop", "Objective", "Optimisation", "Progress"]

Outcome = Literal["finished", "no improvement", "interrupted", "diverged"]


@dataclass
class _Clock:
    """Seconds that count towards the budget: training and validating, earlier sessions included."""

    before: float
    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started


class Loop:
    """Optimises an objective until its budget is used, it stops improving, or it is told to stop.

    Args:
        objective: what to optimise.
        options: how.
        observer: who watches.
        keeper: where things are kept; None keeps nothing.
        save_every: seconds between two states beside those of the validations.
        should_stop: asked after every step; true ends the run as `interrupted`, with its state kept (one step later
            where several processes train).
        processes: train this model together, each with its part of the objective's data; all of them take the
            same steps, and have the same weights after each.
        stepper: takes the steps that it can; None takes all of them here.
    """

    def __init__(
        self,
        objective: Objective,
        options: Optimisation,
        *,
        observer: Observer | None = None,
        keeper: Keeper | None = None,
        save_every: float = 300.0,
        should_stop: Callable[[], bool] = lambda: False,
        processes: Processes = ALONE,
        stepper: Stepper | None = None,
    ) -> None:
        self.objective, self.options, self.processes = objective, options, processes
        self.stepper = stepper
        self.observer, self.keeper = observer or Unobserved(), keeper
        self.save_every, self.should_stop = save_every, should_stop
        self.progress = Progress()
        self.optimizer = adamw(objective.module, options)
        self.average = Average(objective.module, options.average) if options.average else None
        self._good: dict[str, Tensor] = {}
        self._step_seconds: list[float] = []
        self._validation_seconds = 0.0
        self._asked, self._heard = False, Heard()
        self._saved_at: float | None = None

    def run(self) -> Outcome:
        """Runs to the end; the module holds the optimiser's last weights afterwards."""
        self._clock = _Clock(self.progress.seconds)
        self._heard = Heard(seconds=self.progress.seconds)
        if self.progress.total is None:
            self._plan()
        while not self._over():
            self._step()
            if self.progress.skipped_in_a_row >= 20 and not self._roll_back():
                return "diverged"
            self._calibrate()
            if self._due() and not self._validate():
                self._keep_state()
                return "no improvement"
            if self._told_to_stop() and not self._over():
                self._keep_state()
                return "interrupted"
            if self._saved_at is not None and self._heard.seconds - self._saved_at > self.save_every:
                self._keep_state()
        self._keep_state()
        return "finished"

    def _told_to_stop(self) -> bool:
        """Asks; several processes stop at the same step, after they have told each other in one."""
        self._asked = self.should_stop()
        return self._asked if self.processes.size == 1 else self._heard.stop

    # -- one step ---------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """The learning rate of the next step."""
        return self._schedule().at(self.progress.step) * self.progress.lr_scale

    def seconds(self) -> float:
        """What has been used of the budget by now."""
        return self._clock.seconds()

    def _step(self) -> None:
        if self.stepper is not None and self.stepper.step(self):
            return
        begun = time.perf_counter()
        progress, options = self.progress, self.options
        lr = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.objective.module.train()
        loss, count = self.objective.loss(progress.position)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.objective.module.parameters())
        heard = self.processes.step(parameters, loss, count, stop=self._asked, seconds=self._clock.seconds())
        norm = nn.utils.clip_grad_norm_(parameters, options.clip)
        finite = math.isfinite(heard.loss) and math.isfinite(float(norm))
        if finite:
            self.optimizer.step()
            if self.average is not None:
                self.average.update(progress.step + 1)
        else:
            self.objective.forget()
        self.learned(heard.loss, heard.count, finite, progress.step)
        self.advance(heard, lr, time.perf_counter() - begun)

    def learned(self, loss: float, count: int, finite: bool, step: int) -> None:
        """Takes down the loss of a step, the mean over so many targets; one that was not finite changed no weight."""
        progress = self.progress
        if finite:
            progress.skipped_in_a_row = 0
            progress.loss_sum += loss * count
            progress.loss_count += count
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
        self._look_at_first_loss(loss, step)

    def advance(self, heard: Heard, lr: float, seconds: float) -> None:
        """Goes on by the step that was taken; the loss heard is the last one known."""
        progress, self._heard = self.progress, heard
        if self._saved_at is None:
            self._saved_at = heard.seconds
        progress.step += 1
        progress.position += 1
        progress.targets += heard.count
        progress.seconds = heard.seconds
        self._step_seconds = [*self._step_seconds[-49:], seconds]
        self.observer.on_step(
            StepReport(progress=progress, loss=heard.loss, lr=lr, targets_per_second=heard.count / max(seconds, 1e-9))
        )

    def _look_at_first_loss(self, value: float, step: int) -> None:
        progress = self.progress
        if progress.first_loss is None and math.isfinite(value):
            progress.first_loss = value
        elif progress.first_loss is not None and step == 200 and value > progress.first_loss:
            self.observer.on_note(
                f"the training loss rises ({progress.first_loss:.3f} at first, {value:.3f} now): a lower --lr may help"
            )

    def _schedule(self) -> Schedule:
        options = self.options
        return Schedule(peak=options.lr, warmup=options.warmup, total=self.progress.total, final=options.lr_final)

    # -- the budget -------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Fixes the number of steps: a function of the options alone where no clock is asked for."""
        limit = self._step_limit()
        if limit is not None and self.options.minutes is None:
            self._fix(limit, self.options.validations)
        else:
            begun = time.perf_counter()
            self.objective.module.eval()
            self.objective.validate()
            self._validation_seconds = time.perf_counter() - begun

    def _step_limit(self) -> int | None:
        options = self.options
        limits = [] if options.max_steps is None else [options.max_steps]
        if options.epochs is not None:
            left = round(options.epochs * self.objective.steps_per_epoch) - self.progress.position
            limits.append(max(1, self.progress.step + left))
        return min(limits, default=None)

    def _calibrate(self) -> None:
        """Turns a number of minutes into a number of steps, once, while the learning rate still warms up."""
        progress, options = self.progress, self.options
        if progress.total is not None or options.minutes is None:
            return
        budget, used = options.minutes * 60, self._heard.seconds
        enough = progress.step >= 5 and used >= 0.03 * budget
        if not enough and progress.step < max(5, options.warmup - 1) and used < 0.2 * budget:
            return
        seconds = sorted(self._step_seconds)[len(self._step_seconds) // 2]
        affordable = 0.1 * budget / max(self._validation_seconds, 1e-9)
        validations = int(min(options.validations, max(2, affordable)))
        left = budget * 0.95 - used - validations * self._validation_seconds
        total = progress.step + max(1, int(left / max(seconds, 1e-9)))
        limit = self._step_limit()
        self._fix(*self.processes.agree([total if limit is None else min(total, limit), validations]))

    def _fix(self, total: int, validations: int) -> None:
        self.progress.total = total
        self.progress.every = max(1, -(-total // validations))

    def _over(self) -> bool:
        progress, options = self.progress, self.options
        if progress.total is not None and progress.step >= progress.total:
            return True
        late = options.minutes is not None and self._heard.seconds > options.minutes * 60
        if late and progress.step > 0 and progress.step != (progress.total or 0):
            self.observer.on_note(f"the time is over after {progress.step} of {progress.total} steps")
            if self._since_validation():
                self._validate()
        return late and progress.step > 0

    # -- validating and keeping -------------------------------------------------------------------------------

    def _due(self) -> bool:
        progress = self.progress
        if progress.every is None:
            return False
        return progress.step % progress.every == 0 or progress.step == progress.total

    def _since_validation(self) -> bool:
        return self.progress.every is None or self.progress.step % self.progress.every != 0

    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones where they are averaged, else the optimiser's."""
        if self.average is not None:
            return self.average.weights
        return {name: p.detach() for name, p in self.objective.module.named_parameters()}

    def _validate(self) -> bool:
        """Validates and keeps the weights to use; false where there has been no improvement for too long."""
        if self.stepper is not None:
            self.stepper.settle(self)
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            report = self._look()
            self._keep(report)
            self.observer.on_validation(report)
        if self.keeper is not None:
            self._keep_state()
        return not (self.options.patience and self.progress.since_best >= self.options.patience)

    def _look(self) -> ValidationReport:
        begun = time.perf_counter()
        progress = self.progress
        self.objective.module.eval()
        valid = self.objective.validate()
        train = progress.loss_sum / progress.loss_count if progress.loss_count else None
        improved = valid < progress.best
        if improved:
            progress.best, progress.best_step, progress.since_best = valid, progress.step, 0
            self._good = {name: tensor.clone() for name, tensor in self.weights().items()}
        else:
            progress.since_best += 1
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.seconds = self._clock.seconds()
        return ValidationReport(
            progress=progress,
            train=train,
            valid=valid,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            improved=improved,
            seconds=time.perf_counter() - begun,
        )

    def _keep(self, report: ValidationReport) -> None:
        if self.keeper is None:
            return
        progress = self.progress
        row = {
            "step": progress.step,
            "epoch": round(progress.position / self.objective.steps_per_epoch, 6),
            "train_nats": report.train,
            "valid_nats": _finite(report.valid),
            "lr": report.lr,
        }
        self.keeper.metrics({**row, "skipped": progress.skipped, "seconds": round(progress.seconds, 3)})
        if report.improved:
            self.keeper.best(self)

    def _keep_state(self) -> None:
        if self.stepper is not None:
            self.stepper.settle(self)
        self.progress.seconds = self._clock.seconds()
        if self.processes.size > 1:
            self.processes.same(snapshot.digest(self.weights()), _DIFFER)
        if self.keeper is not None:
            self.keeper.state(self)
        self._saved_at = None  # counted from the next step on, without the time that writing took

    def _roll_back(self) -> bool:
        """After too many steps without a finite gradient: the last good weights, half the rate; three times at most."""
        progress = self.progress
        if not self._good or progress.rollbacks >= 3:
            self.observer.on_note("training diverged: no finite gradient for 20 steps; try a lower --lr")
            return False
        with torch.no_grad():
            for name, parameter in self.objective.module.named_parameters():
                parameter.copy_(self._good[name])
        if self.average is not None:
            self.average.restore(self._good)
        self.optimizer = adamw(self.objective.module, self.options)
        if self.stepper is not None:
            self.stepper.begin_again(self)
        progress.rollbacks += 1
        progress.skipped_in_a_row = 0
        progress.lr_scale /= 2
        self.observer.on_note(
            f"no finite gradient for 20 steps: back to step {progress.best_step} with half the learning rate"
        )
        return True

    # -- everything of one moment -----------------------------------------------------------------------------

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON value from which `load_snapshot` goes on to the bit."""
        averaged = {} if self.average is None else self.average.weights
        groups = {"average": averaged, "good": self._good, "carried": self.objective.carried()}
        return snapshot.dump(self.objective.module, self.optimizer, groups), self.progress.to_json()

    def load_snapshot(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Takes back what `snapshot` gave, onto whatever device the module is on."""
        module = self.objective.module
        snapshot.load(tensors, module, self.optimizer)
        if self.average is not None:
            self.average.restore(snapshot.last_weights(tensors))
        devices = {name: p.device for name, p in module.named_parameters()}
        self._good = {name: t.clone().to(devices[name]) for name, t in snapshot.group(tensors, "good").items()}
        self.objective.restore(snapshot.group(tensors, "carried"))
        self.progress = Progress.from_json(progress)


_DIFFER = (
    "the processes no longer have the same weights, which must not happen: go on from the last state with --resume, "
    "on machines of one kind"
)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
