"""A fit: a sequence model and its examples as a run (`charlm.training.run`), in a directory or in memory.
`choose_fit` derives the defaults from the size of the table; every option given by hand is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError
from charlm.files import FORMAT, __version__
from charlm.nn.cells import BUILT_IN, cell_name
from charlm.nn.kernels import fastest, for_training
from charlm.recurrent.model import CharRNN
from charlm.sequences import Examples
from charlm.sequences.config import SequenceConfig, fit_scales
from charlm.sequences.model import SequenceModel
from charlm.sequences.tabular import TableFacts, TableTask
from charlm.sequences.tasks import SequenceObjective, class_weights
from charlm.text.vocab import Vocab
from charlm.training import run
from charlm.training.distributed import Processes
from charlm.training.interfaces import StepReport
from charlm.training.options import Optimisation, TrainingPlan
from charlm.training.run import Run, Task
from charlm.training.states import RunKind, read_saved

BUDGET = ("epochs", "max_steps", "minutes")
NETWORK = (
    "cell", "layers", "hidden", "bidirectional", "pooling", "grams", "dropout", "input_dropout", "weight_dropout",
    "embedding", "loss",
)  # fmt: skip
TRAINING = ("batch", "lr", "average", "patience", "seed", "pretrain", "backend")
"""Options of a fit: of its budget, its network and its training."""
SCALES = {"minmax": "min-max", "zscore": "z-score", "none": None}
"""The ways of scaling by their names in options."""


@dataclass(frozen=True, kw_only=True)
class FitPlan(TrainingPlan):
    """All that determines a fit, except its examples.

    Args:
        network: the model's shape, its scales fitted.
        optimisation: how it is trained.
        batch: examples a step.
        backend: how layers are run; see `TrainingPlan`.
        pretrain: passes over the training texts before it, in which the layers learn to foresee characters.

    >>> from charlm.codec import decode, encode
    >>> plan = FitPlan(network=SequenceConfig(hidden=8), optimisation=Optimisation(epochs=3))
    >>> decode(FitPlan, encode(plan)) == plan
    True
    """

    network: SequenceConfig
    optimisation: Optimisation
    batch: int = 64
    backend: str = "rule"
    pretrain: float = 0.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise OptionError(f"--batch-size is at least 1, not {self.batch}")
        if not 0 <= self.pretrain < math.inf:
            raise OptionError(f"--pretrain is a number of passes over the texts, 0 or more, not {self.pretrain:g}")


Fit = Run[FitPlan, SequenceModel]
"""A run that fits a sequence model."""


def _check(config: Mapping[str, Any], plan: FitPlan, vocab: Vocab | None) -> None:
    if not isinstance(config["data"], dict) or (vocab is None) != (plan.network.features > 0):
        raise CheckpointError("the state is not that of a fit")
    str(config["training"]["examples_sha256"])


FIT = RunKind(command="charlm fit", plan=FitPlan, check=_check, kind="sequence")
"""Runs that fit a sequence model."""


class SequenceTask(Task[FitPlan, SequenceModel]):
    """A sequence model on examples.

    Args:
        train: the examples that it learns from.
        valid: the examples that early stopping watches; None takes the training examples.
        vocab: of a text input.
        data: what the examples are, kept in `config.json` for who reads the model again: strict JSON.
    """

    kind = FIT

    def __init__(
        self, train: Examples, valid: Examples | None, *, vocab: Vocab | None = None, data: Mapping[str, Any]
    ) -> None:
        self.train, self.valid, self.vocab, self.data = train, valid, vocab, dict(data)
        self.digest = train.digest() if valid is None else f"{train.digest()}-{valid.digest()}"

    def model(self, plan: FitPlan) -> SequenceModel:
        """See `Task.model`."""
        return SequenceModel(plan.network, self.vocab)

    def objective(self, model: SequenceModel, plan: FitPlan, processes: Processes) -> SequenceObjective:
        """See `Task.objective`."""
        return SequenceObjective(model, self.train, self.valid, batch=plan.batch, seed=plan.optimisation.seed)

    def backend(self, model: SequenceModel, plan: FitPlan, processes: Processes) -> str:
        """See `Task.backend`; where the lengths of the examples differ, torch's layers alone skip the padding."""
        lengths = torch.maximum(self.train.inputs.lengths, self.train.targets.lengths)
        if plan.backend == "rule" or int(lengths.min()) != int(lengths.max()):
            return for_training(model.device, ragged=int(lengths.min()) != int(lengths.max()))
        steps, lanes = min(int(lengths[0]), 128), min(plan.batch, len(self.train))
        table = None if model.embedding is None else model.embedding.weight
        return fastest(model.stack, steps, lanes, table=table, dense=model.vocab is None)

    def description(self, plan: FitPlan, training: dict[str, Any]) -> dict[str, Any]:
        """See `Task.description`."""
        training = {**training, "examples": len(self.train), "examples_sha256": self.digest}
        return describe_sequence(plan.network, self.data, training=training)


def start(
    directory: Path | None,
    train: Examples,
    valid: Examples | None,
    plan: FitPlan,
    *,
    device: torch.device,
    vocab: Vocab | None = None,
    data: Mapping[str, Any] | None = None,
    model: SequenceModel | None = None,
) -> Fit:
    """A new fit; `Run.train` of it fits the model.

    Args:
        directory: a new and empty one, locked (`files.lock`); None keeps the fit in memory alone.
        train, valid: the examples.
        plan: how it is trained.
        device: where.
        vocab: of a text input.
        data: what the examples are; kept in `config.json`.
        model: the network to begin with (`SequenceModel.from_language_model`); by default one with fresh weights from
            the plan's seed. Its configuration replaces the plan's.

    Raises:
        OptionError: examples that do not fit the model; nothing has been written then.
    """
    if model is None:
        model = SequenceModel(plan.network, vocab)
        generator = torch.Generator().manual_seed(plan.optimisation.seed)
        model.reset_parameters(generator, symbols=vocab is not None)
    plan, vocab = plan.having(network=model.config), model.vocab
    task = SequenceTask(train, valid, vocab=vocab, data=data or {})
    return run.start(task, plan, device, directory=directory, model=model)


def resume(
    directory: Path,
    train: Examples,
    valid: Examples | None,
    *,
    device: torch.device,
    budget: Mapping[str, Any] | None = None,
) -> Fit:
    """The fit in a directory, at its newest whole state; call it under `files.lock`.

    Args:
        directory: of the fit.
        train, valid: its examples, read again.
        device: where it goes on.
        budget: see `run.resume`.

    Raises:
        CheckpointError: no fit, no whole state, or other examples.
    """
    saved = read_saved(directory, FIT)
    task = SequenceTask(train, valid, vocab=saved.vocab, data=saved.config["data"])
    if task.digest != saved.config["training"]["examples_sha256"]:
        raise CheckpointError(
            f"the examples have changed since {directory} was fitted to them: bring the old table back, or start anew"
        )
    return run.resume(task, saved, device, directory=directory, budget=budget)


def describe_sequence(model: SequenceConfig, data: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The content of a sequence model's `config.json`; `more` are further JSON values under names of their own."""
    return {
        "format": FORMAT,
        "charlm": __version__,
        "kind": "sequence",
        "updated": datetime.now(UTC).isoformat(timespec="microseconds"),
        "model": encode(model),
        "data": dict(data),
        **more,
    }


# -- defaults ----------------------------------------------------------------------------------------------------------

_STEPS = 2000  # that a fit of a common table takes
_ROWS_OF_FOUR = 2000  # of a class, from which on strings of four characters pay; measured in benchmarks/RESULTS.md
_LARGE = 10_000  # rows, from which on the occurrences of shorter strings are dropped; measured there too


def choose_fit(facts: TableFacts, train_rows: int, given: Mapping[str, Any]) -> FitPlan:
    """A plan for a table; values of `given` that are not None are kept.

    Args:
        facts: what the table is.
        train_rows: rows of its training part.
        given: options by the names of `SequenceConfig` and `Optimisation`, and `batch`, `backend` and `pretrain`.

    >>> facts = TableFacts(table="t", sha256="", rows=1000, sequence="x", label="y", input="numbers", features=1,
    ...     mode="score", split="80/10/10", base=(0.5,))
    >>> plan = choose_fit(facts, 800, {"hidden": 50, "lr": None})
    >>> plan.network.hidden, plan.batch, plan.optimisation.epochs
    (50, 32, 80.0)
    """
    known = {*SequenceConfig.__dataclass_fields__, *Optimisation.__dataclass_fields__, "batch", "backend", "pretrain"}
    if unknown := sorted(set(given) - known):
        raise OptionError(f"a fit has no option {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    asked = {name: value for name, value in given.items() if value is not None}
    batch = asked.get("batch", 16 if train_rows < 400 else 32 if train_rows < 4000 else 64)
    per_epoch = math.ceil(train_rows / max(batch, 1))
    if not {"epochs", "max_steps", "minutes"} & set(asked):
        asked["epochs"] = float(min(max(math.ceil(_STEPS / per_epoch), 5), 200))
    steps = min(asked.get("max_steps", 500), asked.get("epochs", 500) * per_epoch, 500)
    network = {
        "cell": "gru",
        "hidden": 32 if train_rows < 500 else 64 if train_rows < 50_000 else 128,
        "dropout": 0.2,
        "loss": "cross-entropy" if facts.bounded else "squared",
    }
    if not facts.every:
        network |= {"bidirectional": True, "pooling": "last+mean+max"}
    if facts.input == "text" and not facts.every and train_rows < 50_000:
        network |= {"dropout": 0.5, "input_dropout": 0.1, **_grams(facts, train_rows)}
        network["weight_dropout"] = 0.2 * (cell_name(asked.get("cell", "gru")) in BUILT_IN)
    fixed = {
        "mode": facts.mode,
        "classes": len(facts.classes) if facts.mode == "distribution" else 2,
        "features": facts.features,
        "output": "every" if facts.every else "last",
    }
    warmup = max(1, int(steps / 10)) if steps > 0 else 1
    optimisation = {"lr": 5e-3 if train_rows < 50_000 else 3e-3, "warmup": warmup, "average": 0.3}
    return FitPlan(
        network=SequenceConfig(**{**network, **_for(SequenceConfig, asked), **fixed}),
        optimisation=Optimisation(**{**optimisation, **_for(Optimisation, asked)}),
        batch=batch,
        backend=asked.get("backend", "rule"),
        pretrain=float(asked.get("pretrain", 0)),
    )


def _grams(facts: TableFacts, train_rows: int) -> dict[str, Any]:
    """Of the map of short strings, which have four characters where each class has so many rows that these pay.

    In another large table their occurrences are left out, not the text's characters, which the layers would miss too.
    """
    classes = len(facts.classes) if facts.mode == "distribution" else 2
    if train_rows >= _ROWS_OF_FOUR * classes:
        return {"grams": 1 << 16, "gram_order": 4, "gram_dropout": 0.3}
    large = {"gram_dropout": 0.6, "dropout": 0.3, "input_dropout": 0.0}
    return {"grams": 1 << 15, **(large if train_rows >= _LARGE else {})}


def _for(owner: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in owner.__dataclass_fields__}  # type: ignore[attr-defined]


def line(plan: FitPlan) -> str:
    """The choice in one line."""
    net, opt = plan.network, plan.optimisation
    scale = "" if net.input_scale is None else f"input by {net.input_scale.kind}"
    parts = [
        f"{net.cell} {net.layers}x{net.hidden}{' both ways' if net.bidirectional else ''}",
        "" if net.features else f"embedding {net.embedding}" if net.embedding else "one-hot",
        scale,
        "" if net.pooling == "last" else f"pooling {net.pooling}",
        f"{net.grams:,} buckets of strings of up to {net.gram_order}" if net.grams else "",
        f"dropout {net.dropout:g}",
        "" if not net.input_dropout else f"of the input {net.input_dropout:g}",
        "" if not net.weight_dropout else f"of recurrent weights {net.weight_dropout:g}",
        f"batches of {plan.batch}",
        f"lr {opt.lr:g}",
        f"loss {net.loss}" if net.mode == "score" else "",
        opt.budget(),
        f"patience {opt.patience}",
        f"seed {opt.seed}",
        "layers frozen" if net.frozen else "",
    ]
    return ", ".join(part for part in parts if part)


def plan_for(task: TableTask, given: Mapping[str, Any], source: CharRNN | None) -> tuple[FitPlan, SequenceModel | None]:
    """The plan of a fit, and the model to start from where there is one.

    Args:
        task: the table.
        given: the options of `charlm.sequences.fit.fit_table` by their names, None where not given.
        source: the language model whose layers are taken.
    """
    train = task.train
    asked = {name: given[name] for name in (*NETWORK, *TRAINING, *BUDGET)}
    asked["class_weights"] = class_weights(given["class_weights"], train, task.facts.mode, len(task.facts.classes))
    plan = choose_fit(task.facts, len(train), asked)
    if source is None:
        scale = given["scale"] or ("zscore" if task.facts.features else "none")
        if scale not in SCALES:
            raise OptionError(f"unknown scale {scale!r}: choose one of {', '.join(SCALES)}")
        network = fit_scales(plan.network, train, inputs=SCALES[scale], targets=not task.facts.bounded)
        return replace(plan, network=network), None
    for name in ("cell", "layers", "hidden", "bidirectional", "embedding"):
        if given[name] is not None:
            raise OptionError(f"--{name} is that of the language model of --init-from: leave it out")
    network = fit_scales(plan.network, train, targets=not task.facts.bounded)
    kept = {"cell", "layers", "hidden", "bidirectional", "embedding", "features", "input_scale", "bias", "projection"}
    kept |= {"frozen", "batch_first", "weight_dropout"}
    taken = {name: value for name, value in vars(network).items() if name not in kept}
    model = SequenceModel.from_language_model(source, freeze=given["freeze"], **taken)
    return replace(plan, network=model.config), model


def step_loss(report: StepReport) -> str:
    """What stands beside the progress bar."""
    return f"loss {report.loss:.3f}"


def loss_unit(model: SequenceModel) -> str:
    """What the losses of a model are."""
    return "squared error" if model.config.mode == "score" and model.config.loss == "squared" else "nats a label"
