"""A fit: a sequence model, examples and a plan, kept in a directory from which it can be used and resumed.

What the directory holds is listed in `keeping`. It begins, goes on and ends like a language model's run (`run`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.errors import CheckpointError, OptionError
from charlm.files import write_json
from charlm.nn.kernels.choose import fastest
from charlm.sequences.batches import Examples
from charlm.sequences.checkpoint import describe_sequence, load_sequence
from charlm.sequences.model import SequenceConfig, SequenceModel
from charlm.sequences.tasks import SequenceObjective
from charlm.tensors import write_tensors
from charlm.text.vocab import Vocab
from charlm.training.keeping import (
    DirectoryKeeper,
    Kept,
    newest_whole,
    read_moment,
    resumable,
    saved_weights,
    take_back,
)
from charlm.training.loop import Loop
from charlm.training.options import Optimisation
from charlm.training.watching import Observer

__all__ = ["Fit", "FitPlan", "SavedFit", "read_saved_fit", "resume", "start"]

_COMMAND = "charlm fit"


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """All that a fit is made of, but for its examples.

    Args:
        network: the model's shape, its scales fitted.
        optimisation: how it is trained.
        batch: examples a step.
        backend: how layers are run: `auto` until it has been chosen.

    >>> plan = FitPlan(network=SequenceConfig(hidden=8), optimisation=Optimisation(epochs=3))
    >>> FitPlan.from_json(plan.to_json()) == plan
    True
    """

    network: SequenceConfig
    optimisation: Optimisation
    batch: int = 64
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise OptionError(f"--batch-size is at least 1, not {self.batch}")

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`; `from_json` reads it back."""
        return {
            "network": self.network.to_json(),
            "optimisation": self.optimisation.to_json(),
            "batch": self.batch,
            "backend": self.backend,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FitPlan:
        """Reads what `to_json` made."""
        try:
            return cls(
                network=SequenceConfig.from_json(value["network"]),
                optimisation=Optimisation.from_json(value["optimisation"]),
                batch=int(value["batch"]),
                backend=str(value["backend"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(f"the stored plan of the fit is not whole ({error})") from None


class Fit(Kept):
    """One fit in its directory; made by `start` or `resume`.

    Args:
        directory: where it is kept; it exists.
        model: the network, on its device.
        train: the examples it learns from.
        valid: the examples that early stopping watches; None takes the training examples.
        plan: how it is trained.
        data: what the examples are, as whoever reads the model's directory wants to know it: strict JSON.
    """

    def __init__(
        self,
        directory: Path,
        model: SequenceModel,
        train: Examples,
        valid: Examples | None,
        plan: FitPlan,
        data: Mapping[str, Any],
    ) -> None:
        self.directory, self.model, self.plan = directory, model, plan
        self.train_part, self.valid_part = train, valid
        self.command, self.vocab = _COMMAND, model.vocab
        self.data = dict(data)
        self.digest = digest(train, valid)
        self.rows: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self._saved: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def train(
        self,
        *,
        observer: Observer | None = None,
        save_every: float = 300.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> str:
        """Trains to the end of the plan; the model has the best weights then, and is in evaluation mode.

        Args:
            observer: who watches.
            save_every: seconds between two saved states.
            should_stop: asked after every step; true interrupts with everything saved.

        Returns:
            `finished`, `no improvement`, `interrupted` or `diverged`.
        """
        seed = self.plan.optimisation.seed
        objective = SequenceObjective(self.model, self.train_part, self.valid_part, batch=self.plan.batch, seed=seed)
        loop = Loop(
            objective,
            self.plan.optimisation,
            observer=observer,
            keeper=DirectoryKeeper(self),
            save_every=save_every,
            should_stop=should_stop,
        )
        if self._saved is not None:
            loop.load_snapshot(*self._saved)
        outcome = loop.run()
        best = load_sequence(self.directory, device=self.model.device).model
        self.model.load_state_dict(best.state_dict())
        self.model.eval()
        self.model.stack.backend = best.stack.backend
        return outcome

    def description(self, **more: Any) -> dict[str, Any]:
        """The content of `config.json`; `more` are further values."""
        training = {
            **self.plan.to_json(),
            "device": str(self.model.device),
            "changes": self.changes,
            "examples": len(self.train_part),
            "examples_sha256": self.digest,
        }
        return describe_sequence(self.plan.network, self.data, training=training, **more)


def digest(train: Examples, valid: Examples | None) -> str:
    """A SHA-256 of all examples, to tell whether they have changed."""
    return train.digest() if valid is None else f"{train.digest()}-{valid.digest()}"


def start(
    directory: Path,
    train: Examples,
    valid: Examples | None,
    plan: FitPlan,
    *,
    device: torch.device,
    vocab: Vocab | None = None,
    data: Mapping[str, Any] | None = None,
    model: SequenceModel | None = None,
) -> Fit:
    """A new fit in a new directory; call under `files.lock`.

    Args:
        directory: where it is kept.
        train, valid: the examples.
        plan: how it is trained.
        device: where.
        vocab: of a text input.
        data: what the examples are; kept in `config.json`.
        model: where the weights begin (`SequenceModel.from_language_model`); fresh ones from the plan's seed by
            default. Its configuration replaces the plan's.

    Raises:
        OptionError: examples that do not fit the model.
    """
    if model is None:
        model = SequenceModel(plan.network, vocab)
        model.reset_parameters(torch.Generator().manual_seed(plan.optimisation.seed))
    plan = replace(plan, network=model.config)
    model.to(device)
    SequenceObjective(model, train, valid, batch=plan.batch)  # refuses what does not fit before anything is written
    if plan.backend == "auto":
        plan = replace(plan, backend=_fastest(model, train, plan.batch))
    model.stack.backend = plan.backend
    if model.vocab is not None:
        write_json(directory / "vocab.json", model.vocab.to_json())
    for name in ("best", "last"):
        write_tensors(directory / f"{name}.safetensors", dict(model.named_parameters()))
    fit = Fit(directory, model, train, valid, plan, data or {})
    fit.describe()
    return fit


def _fastest(model: SequenceModel, train: Examples, batch: int) -> str:
    """The backend for the examples as they are: where their lengths differ only torch's layers save the padding."""
    lengths = torch.maximum(train.inputs.lengths, train.targets.lengths)
    if int(lengths.min()) != int(lengths.max()):
        return "torch"
    steps, lanes = min(int(lengths[0]), 128), min(batch, len(train))
    table = None if model.embedding is None else model.embedding.weight
    return fastest(model.stack, steps, lanes, table=table, dense=model.vocab is None)


@dataclass(frozen=True, kw_only=True)
class SavedFit:
    """A fit as its newest whole state has it.

    Args:
        plan: how it is trained.
        vocab: of a text input.
        data: what the examples are.
        digest: of the examples.
        device: where it was trained.
        changes: what was changed on the way.
        progress: where it stands.
        rows: of the learning curve so far.
        tensors: weights, optimizer, generators.
        notes: of states that are damaged and were passed over.
    """

    plan: FitPlan
    vocab: Vocab | None
    data: dict[str, Any]
    digest: str
    device: str
    changes: list[dict[str, Any]]
    progress: dict[str, Any]
    rows: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    notes: list[str]


def read_saved_fit(directory: Path) -> SavedFit:
    """The newest state that is whole; a damaged one is passed over for the one before it.

    Raises:
        CheckpointError: there is no fit, or no whole state of it.
    """
    saved, problems = newest_whole(directory, _saved, _COMMAND, kind="sequence")
    return replace(saved, notes=problems)


def _saved(path: Path) -> SavedFit:
    moment = read_moment(path)
    training, data = moment.config["training"], moment.config["data"]
    plan = FitPlan.from_json(training)
    if not isinstance(data, dict) or (moment.vocab is None) != (plan.network.features > 0):
        raise CheckpointError(f"{path} is not a whole state of a fit")
    return SavedFit(
        plan=plan,
        vocab=moment.vocab,
        data=data,
        digest=str(training["examples_sha256"]),
        device=str(training["device"]),
        changes=moment.changes,
        progress=moment.progress,
        rows=moment.rows,
        tensors=moment.tensors,
        notes=[],
    )


def resume(
    directory: Path,
    train: Examples,
    valid: Examples | None,
    *,
    device: torch.device,
    budget: Mapping[str, Any] | None = None,
) -> Fit:
    """The fit in a directory, at its newest whole state; call under `files.lock`.

    On the same device it goes on to the bit.

    Args:
        directory: of the fit.
        train, valid: its examples, read again.
        device: where it goes on; on another one the layers are run as is fastest there and dropout draws anew.
        budget: new values of `epochs`, `max_steps`, `minutes`; they are recorded, and the steps planned again.

    Raises:
        CheckpointError: no fit, no whole state, or other examples.
    """
    saved = read_saved_fit(directory)
    if digest(train, valid) != saved.digest:
        raise CheckpointError(
            f"the examples have changed since {directory} was fitted to them: bring the old table back, or start anew"
        )
    with torch.device("meta"):
        model = SequenceModel(saved.plan.network, saved.vocab)
    model.load_state_dict(saved_weights(model, saved.tensors, directory), assign=True)
    model.to(device)
    fit = Fit(directory, model, train, valid, saved.plan, saved.data)
    fit.rows, fit.changes, progress = list(saved.rows), list(saved.changes), dict(saved.progress)
    if budget:
        fit.plan = replace(fit.plan, optimisation=replace(fit.plan.optimisation, **budget))
        progress |= {"total": None, "every": None, "since_best": 0}
    if device.type != torch.device(saved.device).type:
        fit.plan = replace(fit.plan, backend=_fastest(model, train, fit.plan.batch))
        fit.changes.append({"step": progress["step"], "device": str(device), "backend": fit.plan.backend})
    model.stack.backend = fit.plan.backend
    fit._saved = saved.tensors, progress
    with resumable(directory, _COMMAND):
        take_back(fit, saved.tensors)
    return fit
