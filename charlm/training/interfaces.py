"""What the training loop works with: an objective, an observer, a keeper, averaged weights, on a GPU a stepper, and
saved states.

The loop calls these and hands them values; none of them knows the loop. A saved state holds everything that an exact
resume needs, as named tensors (`dump` and `load`): weights/NAME, optimizer/SLOT/NAME, average/NAME (averaged weights),
good/NAME (the best so far), carried/NAME (the objective's: hidden states, generators).
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from charlm.errors import CharlmError
from charlm.training.options import LoopState


class Objective(abc.ABC):
    """Something that can be optimised step by step.

    Attributes:
        module: whose parameters are optimised.
        steps_per_epoch: steps in which all training data are read once.
        untrained_loss: about the loss of fresh weights, to compare the first loss with; None where it is not known.
    """

    module: nn.Module
    steps_per_epoch: int
    untrained_loss: float | None = None

    @abc.abstractmethod
    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean loss of one step's data, differentiable, and the number of targets it is the mean of.

        Args:
            position: the number of steps whose data come before; an epoch has `steps_per_epoch` of them.
        """

    @abc.abstractmethod
    def validate(self) -> float:
        """The mean loss on the held-out data that early stopping watches."""

    @abc.abstractmethod
    def carried(self) -> dict[str, Tensor]:
        """What goes from step to step beside the weights: hidden states, random generators."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Resets the hidden states, which may not be finite after a step whose gradient was not."""

    @abc.abstractmethod
    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Goes on from what `carried` returned."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step, for a progress bar.

    Args:
        progress: where the loop stands after it.
        loss: the mean training loss of the step, in nats.
        lr: the learning rate.
        targets_per_second: the speed.
    """

    progress: LoopState
    loss: float
    lr: float
    targets_per_second: float


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """One validation, for a table, a sample and a curve.

    Args:
        progress: where the loop stands.
        train: the mean training loss since the last validation; None where no step had a finite one.
        valid: the validation loss.
        lr: the learning rate of the last step.
        improved: whether it is the lowest validation loss so far.
        seconds: the validation took.
    """

    progress: LoopState
    train: float | None
    valid: float
    lr: float
    improved: bool
    seconds: float


class Observer:
    """Is told how a training goes. It does nothing; a class of one's own overrides what it wants to know."""

    def on_begin(self, model: nn.Module, resumed: bool) -> None:
        """Before the first step of this session; `resumed` says whether the run had taken steps before it."""

    def on_step(self, report: StepReport) -> None:
        """After every step."""

    def on_validation(self, report: ValidationReport) -> None:
        """After every validation; the module holds the weights that were validated."""

    def on_note(self, message: str) -> None:
        """Something a person should know, in one sentence."""

    def on_measure(self, count: int) -> None:
        """While the best weights are measured at the end: so many further targets were read."""

    def on_failure(self, message: str) -> None:
        """Why a training of several processes cannot go on, and how to resume it; an error is raised after it."""


class Keeper:
    """Keeps what the loop makes: here the learning curve in memory, and nothing on disk.

    Args:
        rows: the list that rows of the learning curve are added to.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def metrics(self, row: dict[str, Any]) -> None:
        """Adds a row to the learning curve, a JSON value."""
        self.rows.append(row)

    def best(self, weights: Mapping[str, Tensor]) -> None:
        """Saves the weights with the lowest validation loss so far, by parameter name; the loop has them, too."""

    def state(self, tensors: Mapping[str, Tensor], progress: dict[str, Any]) -> None:
        """Saves a snapshot: the tensors of `dump` and the loop's numbers as a JSON value."""


class Average:
    """A running mean of a module's weights over a fixed share of the steps so far.

    After step t each averaged weight moves towards the weight by 1 / max(1, share · t): an average of polynomial
    decay (Shamir and Zhang 2013), which early on forgets the first steps as fast as it should, and needs no end of
    the run to be known. It does what a lower learning rate does, without slowing the optimiser (Polyak 1992).
    The module's `row_weights`, of which a step changes few, are not averaged.

    Args:
        module: whose weights are averaged.
        share: of the steps so far, from above 0 to 1.

    >>> line = nn.Linear(1, 1, bias=False)
    >>> average = Average(line, share=1.0)  # of all steps: the plain mean
    >>> for step, value in enumerate([1.0, 2.0, 6.0], start=1):
    ...     _ = line.weight.data.fill_(value)
    ...     average.update(step)
    >>> round(average.weights["weight"].item(), 6)
    3.0
    """

    def __init__(self, module: nn.Module, share: float) -> None:
        self.module, self.share = module, share
        rows = getattr(module, "row_weights", None)
        self.dense = {name: p for name, p in module.named_parameters() if p is not rows}
        self.weights = {
            name: p.detach().clone() if name in self.dense else p.detach() for name, p in module.named_parameters()
        }

    def update(self, step: int) -> None:
        """Moves the averaged weights towards the module's, after so many steps."""
        with torch.no_grad():
            means = [self.weights[name] for name in self.dense]
            torch._foreach_lerp_(means, [p.detach() for p in self.dense.values()], self.pace(step))

    def pace(self, step: int) -> float:
        """The share of the way to the module's weights that the averaged ones move, after so many steps."""
        return 1 / max(1.0, self.share * step)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Goes on from these averaged weights."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A block in which the module has the averaged weights; after it the module has its own again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self.dense.items()}
        with torch.no_grad():
            for name, parameter in self.dense.items():
                parameter.copy_(self.weights[name])
            try:
                yield
            finally:
                for name, parameter in self.dense.items():
                    parameter.copy_(own[name])


@dataclass(frozen=True, kw_only=True)
class KnownLoss:
    """The loss of a step that has become known.

    Args:
        step: its number, from 0.
        loss: the mean over its targets, in nats.
        count: the number of targets.
        finite: whether loss and gradient were finite; where not, the step changed no weight.
    """

    step: int
    loss: float
    count: int
    finite: bool


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A step that a stepper took.

    Args:
        count: the number of its targets.
        loss: the last loss that is known.
        seconds: it took about so long.
        known: losses that have become known with it.
    """

    count: int
    loss: float
    seconds: float
    known: list[KnownLoss]


class Stepper(abc.ABC):
    """Takes optimisation steps in place of the loop where it can do so faster."""

    @abc.abstractmethod
    def begin(
        self, optimizer: torch.optim.Optimizer, average: Average | None, clip: float, note: Callable[[str], None]
    ) -> None:
        """Prepares for steps with this optimizer; called once at first, and again when the loop has made a new one.

        Args:
            optimizer: makes the steps.
            average: the running mean of the weights, if there is one.
            clip: the largest norm of the whole gradient.
            note: takes a sentence for the observer.
        """

    @abc.abstractmethod
    def step(self, position: int, step: int, lr: float) -> Taken | None:
        """Takes step number `step` on the data at `position`; None, with nothing changed, leaves it to the loop.

        The loss need not be known at once: `Taken.known` or `settle` returns it later.
        """

    @abc.abstractmethod
    def settle(self) -> list[KnownLoss]:
        """The losses that were not returned yet; called before a validation, a saved state and a step of the loop."""


_SLOTS = ("step", "exp_avg", "exp_avg_sq")


def dump(
    module: nn.Module, optimizer: torch.optim.Optimizer, groups: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of a moment; `groups` are the ones beside weights and optimizer, by their first name."""
    tensors = {f"weights/{name}": p.detach() for name, p in module.named_parameters()}
    names = {id(p): name for name, p in module.named_parameters()}
    for parameter, slots in optimizer.state.items():
        for slot, tensor in slots.items():
            tensors[f"optimizer/{slot}/{names[id(parameter)]}"] = tensor
    for kind, members in groups.items():
        tensors |= {f"{kind}/{name}": tensor for name, tensor in members.items()}
    return tensors


def load(tensors: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and the optimizer's running means back, onto whatever device the module is on.

    Raises:
        CharlmError: the tensors are those of another network.
    """
    parameters = dict(module.named_parameters())
    if not _fits(tensors, parameters, getattr(module, "row_weights", None)):
        raise CharlmError("the saved state belongs to a network of another shape")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
    for key, tensor in group(tensors, "optimizer").items():
        slot, name = key.split("/", 1)
        optimizer.state[parameters[name]][slot] = tensor.clone().to(parameters[name].device)


def group(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of one first name, without it.

    >>> group({"good/a": torch.ones(1), "weights/a": torch.zeros(1)}, "good")
    {'a': tensor([1.])}
    """
    return {key.removeprefix(f"{kind}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{kind}/")}


def last_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights to use of this moment: averaged where there is an average, rows of strings as they are."""
    return {**group(tensors, "weights"), **group(tensors, "average")}


def best_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The best weights so far; those of this moment where nothing has been validated yet."""
    return group(tensors, "good") or last_weights(tensors)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the numbers, one tensor after the other.

    >>> digest({"a": torch.ones(2)}) == digest({"a": torch.ones(2)}) != digest({"a": torch.zeros(2)})
    True
    """
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _fits(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], rows: Tensor | None) -> bool:
    """Whether a state has all weights, and nothing that does not belong to one of them; `rows` have no average."""
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        slot, _, name = rest.partition("/") if kind == "optimizer" else ("", "", rest)
        if kind == "carried":
            continue  # looked at by the objective
        if name not in parameters:
            return False
        like = torch.zeros(()) if slot == "step" else parameters[name]
        like = like[:, 0] if slot == "sum" and like.dim() == 2 else like
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            return False
        if slot != "sum" and slot and not {f"optimizer/{each}/{name}" for each in _SLOTS} <= set(tensors):
            return False
    whole = set(parameters)
    dense = {name for name, parameter in parameters.items() if parameter is not rows}
    allowed = {"weights": (whole,), "average": (dense, set()), "good": (whole, set())}
    return all(set(group(tensors, kind)) in sets for kind, sets in allowed.items())
