"""The training loop: steps, learning rate, clipping, averaging, validation, early stopping, budget.

It knows neither texts nor tables: see `interfaces` for what it works with. Everything that decides the next step is in
`Loop.snapshot`, so that a run which goes on from one is bit-identical to a run that was never interrupted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from charlm.codec import encode
from charlm.training import interfaces as snapshot
from charlm.training.distributed import ALONE, Agreed, Processes
from charlm.training.interfaces import (
    Average,
    Keeper,
    KnownLoss,
    Objective,
    Observer,
    Stepper,
    StepReport,
    ValidationReport,
)
from charlm.training.options import Budget, LoopState, Optimisation, adamw

Outcome = Literal["finished", "no improvement", "interrupted", "diverged"]


class Loop:
    """Optimises an objective until its budget is used, it stops improving, or it is told to stop.

    Args:
        objective: what to optimise.
        options: how.
        observer: is told how it goes.
        keeper: saves metrics, weights and states; None saves nothing.
        save_every: seconds between two saved states, beside those of the validations.
        should_stop: called after every step; True ends the run as `interrupted`, with its state saved (one step later
            where several processes train).
        processes: those that train this model together, each with its share of the objective's data; all of them
            take the same steps and have the same weights after each.
        stepper: takes the steps that it can; None lets the loop take all of them.
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
        self.objective, self.options, self.processes, self.stepper = objective, options, processes, stepper
        self.observer, self.keeper = observer or Observer(), keeper or Keeper([])
        self.save_every, self.should_stop = save_every, should_stop
        self.progress = LoopState()
        self.optimizer = adamw(objective.module, options)
        self.average = Average(objective.module, options.average) if options.average else None
        self._good: dict[str, Tensor] = {}
        self._asked, self._agreed = False, Agreed()
        self._saved_at: float | None = None
        self._budget: Budget
        self._begin_stepping()

    def _begin_stepping(self) -> None:
        if self.stepper is not None:
            self.stepper.begin(self.optimizer, self.average, self.options.clip, self.observer.on_note)

    def run(self) -> Outcome:
        """Runs to the end; the module holds the optimiser's last weights afterwards."""
        self._budget = Budget(self.options, self.progress, self.objective.steps_per_epoch, self.processes)
        self._agreed = Agreed(seconds=self.progress.seconds)
        self.objective.module.eval()
        self._budget.plan(self.objective.validate)
        if self.progress.step and (self._budget.reached() or self._budget.late(self._agreed.seconds)):
            where = f"the run is at step {self.progress.step:,}, its budget is {self.options.budget()}"
            self.observer.on_note(f"there is nothing to do: {where}")
        elif self._stuck():
            self.observer.on_note("there is nothing to do: the run stopped early; --epochs or --minutes lets it go on")
            return "no improvement"
        while not self._over():
            self._step()
            if self.progress.skipped_in_a_row >= 20 and not self._roll_back():
                self._keep_state()
                return "diverged"
            self._budget.calibrate(self._agreed.seconds)
            if self._budget.validation_due() and not self._validate():
                self._keep_state()
                return self._verdict("no improvement")
            if self._told_to_stop() and not self._over():
                self._keep_state()
                return "interrupted"
            if self._saved_at is not None and self._agreed.seconds - self._saved_at > self.save_every:
                self._keep_state()
        self._keep_state()
        return self._verdict("finished")

    def _verdict(self, outcome: Outcome) -> Outcome:
        """The outcome, or `diverged` where the weights never were of any use."""
        best, first = self.progress.best, self.progress.first_loss
        if not self.progress.step or (best is not None and (first is None or best <= 10 * max(first, 1.0))):
            return outcome
        lowest = "never finite" if best is None else f"{best:.4g} at best, the first training loss {first:.4g}"
        self.observer.on_note(f"training diverged: the validation loss was {lowest}; try a lower --lr")
        return "diverged"

    def _told_to_stop(self) -> bool:
        """Whether to stop; several processes stop at the same step, one after the first of them was asked to."""
        self._asked = self.should_stop()
        return self._asked if self.processes.size == 1 else self._agreed.stop

    # -- one step ---------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.options.rate(self.progress.step, self.progress.total) * self.progress.lr_scale

    def _step(self) -> None:
        progress, lr = self.progress, self.rate()
        if self.stepper is not None:
            taken = self.stepper.step(progress.position, progress.step, lr)
            if taken is not None:
                self._learn(taken.known)
                self._advance(
                    Agreed(loss=taken.loss, count=taken.count, seconds=self._budget.seconds()), lr, taken.seconds
                )
                return
            self._settle()
        begun = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self.objective.module.train()
        loss, count = self.objective.loss(progress.position)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters, rows = list(self.objective.module.parameters()), getattr(self.objective.module, "row_weights", None)
        agreed = self.processes.step(parameters, loss, count, stop=self._asked, seconds=self._budget.seconds())
        norm = nn.utils.clip_grad_norm_([p for p in parameters if p is not rows], self.options.clip)
        finite = math.isfinite(agreed.loss) and math.isfinite(float(norm))
        if finite:
            self.optimizer.step()
            if self.average is not None:
                self.average.update(progress.step + 1)
        else:
            self.objective.forget()
        self._learn([KnownLoss(step=progress.step, loss=agreed.loss, count=agreed.count, finite=finite)])
        self._advance(agreed, lr, time.perf_counter() - begun)

    def _learn(self, losses: Iterable[KnownLoss]) -> None:
        """Adds the losses of some steps to the training loss; a step that was not finite counts as skipped."""
        progress = self.progress
        for known in losses:
            if known.finite:
                progress.skipped_in_a_row = 0
                progress.loss_sum += known.loss * known.count
                progress.loss_count += known.count
            else:
                progress.skipped += 1
                progress.skipped_in_a_row += 1
            self._check_first_loss(known.loss, known.step)

    def _settle(self) -> None:
        """Learns the losses that the stepper has not returned yet."""
        if self.stepper is not None:
            self._learn(self.stepper.settle())

    def _advance(self, agreed: Agreed, lr: float, seconds: float) -> None:
        """Counts the step that was taken, and reports it."""
        progress, self._agreed = self.progress, agreed
        if self._saved_at is None:
            self._saved_at = agreed.seconds
        progress.step += 1
        progress.position += 1
        progress.targets += agreed.count
        progress.seconds = agreed.seconds
        self._budget.add_step(seconds)
        speed = agreed.count / max(seconds, 1e-9)
        self.observer.on_step(StepReport(progress=progress, loss=agreed.loss, lr=lr, targets_per_second=speed))

    def _check_first_loss(self, value: float, step: int) -> None:
        progress = self.progress
        if progress.first_loss is None and math.isfinite(value):
            progress.first_loss = value
            expected = self.objective.untrained_loss
            if expected is not None and abs(value - expected) > 1:
                self.observer.on_note(
                    f"the first loss is {value:.3f}; untrained weights would give ln V = {expected:.3f}"
                )
        elif progress.first_loss is not None and step == 200 and value > progress.first_loss:
            self.observer.on_note(
                f"the training loss rises ({progress.first_loss:.3f} at first, {value:.3f} now): a lower --lr may help"
            )

    def _over(self) -> bool:
        progress = self.progress
        if self._budget.reached():
            return True
        late = self._budget.late(self._agreed.seconds) and progress.step > 0
        if late and self._agreed.count:  # steps were taken in this session
            of = "" if progress.total is None else f" of {progress.total}"
            self.observer.on_note(f"the time is over after {progress.step}{of} steps")
        if late and progress.loss_count:  # steps were taken since the last validation
            self._validate()
        return late

    # -- validating and keeping -------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones where there is an average, else the optimiser's."""
        if self.average is not None:
            return self.average.weights
        return {name: p.detach() for name, p in self.objective.module.named_parameters()}

    def best_weights(self) -> dict[str, Tensor]:
        """The weights with the lowest validation loss; those of now where no validation was finite."""
        return self._good or self.weights()

    def _validate(self) -> bool:
        """Validates and keeps the weights to use; False where there has been no improvement for too long."""
        begun = time.perf_counter()
        self._settle()
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            report = self._look()
            self._keep(report)
            self.observer.on_validation(report)
        self._budget.validated()
        self._keep_state()
        self._budget.add_validation(time.perf_counter() - begun)
        return not self._stuck()

    def _stuck(self) -> bool:
        """Whether as many validations as the patience allows were without improvement."""
        return 0 < self.options.patience <= self.progress.since_best

    def _look(self) -> ValidationReport:
        begun = time.perf_counter()
        progress = self.progress
        self.objective.module.eval()
        valid = self.objective.validate()
        train = progress.loss_sum / progress.loss_count if progress.loss_count else None
        improved = math.isfinite(valid) and (progress.best is None or valid < progress.best)
        if improved:
            progress.best, progress.best_step, progress.since_best = valid, progress.step, 0
            self._good = {name: tensor.clone() for name, tensor in self.weights().items()}
        else:
            progress.since_best += 1
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.seconds = self._budget.seconds()
        return ValidationReport(
            progress=progress,
            train=train,
            valid=valid,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            improved=improved,
            seconds=time.perf_counter() - begun,
        )

    def _keep(self, report: ValidationReport) -> None:
        progress = self.progress
        row = {
            "step": progress.step,
            "epoch": round(progress.position / self.objective.steps_per_epoch, 6),
            "train_nats": _finite(report.train),
            "valid_nats": _finite(report.valid),
            "lr": report.lr,
        }
        self.keeper.metrics({**row, "skipped": progress.skipped, "seconds": round(progress.seconds, 3)})
        if report.improved:
            self.keeper.best(self.weights())

    def _keep_state(self) -> None:
        self._settle()
        self.progress.seconds = self._budget.seconds()
        if self.processes.size > 1:
            self.processes.same(snapshot.digest(self.weights()), _DIFFER)
        self.keeper.state(*self.snapshot())
        self._saved_at = None  # counted from the next step on, without the time that writing took

    def _roll_back(self) -> bool:
        """Goes back to the best weights with half the learning rate, three times at most; False where it cannot."""
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
        self._begin_stepping()
        progress.rollbacks += 1
        progress.skipped_in_a_row = 0
        progress.lr_scale /= 2
        self.observer.on_note(
            f"no finite gradient for 20 steps: back to step {progress.best_step} with half the learning rate"
        )
        return True

    # -- everything of one moment -----------------------------------------------------------------------------

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON value from which `load_snapshot` goes on bit-identically."""
        averaged = {} if self.average is None else {name: self.average.weights[name] for name in self.average.dense}
        groups = {"average": averaged, "good": self._good, "carried": self.objective.carried()}
        return snapshot.dump(self.objective.module, self.optimizer, groups), encode(self.progress)

    def load_snapshot(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Goes on from what `snapshot` returned, on the module's device."""
        snapshot.load(tensors, module := self.objective.module, self.optimizer)
        if self.average:
            self.average.restore(snapshot.last_weights(tensors))
        devices = {name: p.device for name, p in module.named_parameters()}
        self._good = {name: t.clone().to(devices[name]) for name, t in snapshot.group(tensors, "good").items()}
        self.objective.restore(snapshot.group(tensors, "carried"))
        self.progress = LoopState.read(progress)


_DIFFER = (
    "the processes no longer have the same weights, which must not happen: go on from the last state with --resume, "
    "on machines of one kind"
)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
