"""`fit_table`: fits a Score or a Distribution to a table of sequences; what `charlm fit` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from charlm.checkpoint import load
from charlm.codec import encode
from charlm.display import drawn
from charlm.errors import OptionError
from charlm.files import free_name, lock, still_there
from charlm.nn.cells import Cell, cell_name
from charlm.nn.kernels import device_of, pick_device
from charlm.recurrent.model import CharRNN
from charlm.sequences import Examples
from charlm.sequences.config import RowSplit, fit_scales
from charlm.sequences.figures import draw_confusion
from charlm.sequences.fit_run import (
    BUDGET,
    FIT,
    NETWORK,
    SCALES,
    TRAINING,
    Fit,
    FitPlan,
    choose_fit,
    line,
    loss_unit,
    plan_for,
    resume,
    start,
    step_loss,
)
from charlm.sequences.fitted_models import MODELS, Models, fit_models, refuse_model
from charlm.sequences.table_fit import TableFit, measured, read_cost, suggested
from charlm.sequences.tabular import TableFacts, TableTask, open_task, open_task_again
from charlm.sequences.tasks import pretrained
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Observer
from charlm.training.run import interruptible, refuse_change, same_directory
from charlm.training.states import read_saved, seconds_between_states
from charlm.training.watching import History, Watch

_FLAGS = {"batch": "batch-size"}
"""Names of options on the command line, where they are others."""


def fit_table(
    table: str | Path | None = None, *, sequence: str | None = None, label: str | None = None,
    encoding: str | None = None, header: bool = True, mode: str | None = None, input: str | None = None,
    output: str | None = None, scale: str | None = None, label_scale: str | None = None, loss: str | None = None,
    split: str | RowSplit | None = None, group: str | None = None, cell: str | type[Cell] | None = None,
    layers: int | None = None, hidden: int | None = None, bidirectional: bool | None = None,
    pooling: str | None = None, grams: int | None = None, dropout: float | None = None,
    input_dropout: float | None = None,
    weight_dropout: float | None = None, embedding: int | None = None, batch_size: int | None = None,
    lr: float | None = None, average: float | None = None, class_weights: str | None = None,
    epochs: float | None = None, max_steps: int | None = None, minutes: float | None = None,
    patience: int | None = None, seed: int | None = None, pretrain: float | None = None,
    init_from: str | Path | CharRNN | None = None, freeze: bool = False, device: str = "auto",
    backend: str | None = None, out: str | Path | None = None, resume: str | Path | None = None,
    save_every: float = 300.0, progress: bool | None = None, observer: Observer | None = None, model: str = "auto",
    cost: str | None = None,
) -> TableFit:  # fmt: skip
    """Fits a Score or a Distribution to the sequences of a table. What is not given is chosen from the table.

    Args:
        table: a file in CSV, TSV, JSON Lines, Parquet, .npy or .npz; - for standard input. With `resume` it may be
            left out, and is read from its old place.
        sequence, label: columns of the sequences and the labels; for a .npy table a .npy file of labels.
        encoding, header: how delimited text is read.
        mode: `score` or `distribution`.
        input: `text` or `numbers`.
        output: `last` (a label a sequence) or `every` (a label a step).
        scale: of input numbers: `zscore`, `minmax` or `none`.
        label_scale: `minmax` maps a Score's labels of any range to 0..1 and back.
        loss: of a Score: `cross-entropy` or `squared`.
        split: which rows train, validate and test, as `RowSplit.parse` reads it.
        group: a column; rows with equal values in it fall into one part of the split.
        cell: `rnn`, `gru`, `lstm`, or a class of your own.
        layers, hidden: recurrent layers, and units in each layer and direction.
        bidirectional: whether the sequences are read from both ends; by default where a label is for a whole sequence.
        pooling: what is said after a whole sequence is made of: `last`, `mean`, `max`, `attention`, joined by +.
        dropout: between the layers and before the output, while training.
        grams: buckets of a linear map of short strings beside the layers; 0 for none. The strings have one to three
            characters, or up to four where the table has at least 2,000 training rows a class.
        input_dropout, weight_dropout: shares of the steps and of the recurrent weights that are left out in training.
        embedding: width of a character embedding; 0 is one-hot input.
        batch_size: rows a step.
        lr: the peak learning rate.
        average: use the mean of the weights over this share of the steps.
        class_weights: `balanced` lets each class count the same in training, however rare; predictions are corrected.
        epochs, max_steps, minutes: the budget, whichever ends first.
        patience: validations without improvement until it stops; 0 never stops early.
        seed: of weights, order and dropout; by default 0.
        pretrain: passes over the training texts in which the layers first learn to foresee the next character, in
            both directions; 0 for none.
        init_from: a recurrent language model, or its directory, whose layers the network starts from.
        freeze: whether those layers stay as they are and the output alone is trained.
        device: `auto`, `cpu`, `cuda` or `mps`.
        backend: how layers are run: `reference`, `fused` or `torch`; `auto` times them and keeps the fastest.
        out: a directory to keep the run in; a taken name becomes NAME-2, and `{cell}` in it stands for the kind of
            cell. None keeps it in memory.
        resume: the directory of a fit to go on with. A new budget and device are taken; another option must be as
            the fit has it.
        save_every: seconds between two saved states.
        progress: show progress bars; None shows them on a terminal or in a notebook.
        observer: is told how it goes, in place of the progress bar.
        model: the model that predicts: `rnn` (the network; no other is fitted then), `counted`, `linear`, `trees`,
            `mix`, or `auto`, the one that is best on the validation part.
        cost: what a false alarm and a miss cost, as `1:10`; the threshold that costs least is suggested.

    Raises:
        TextError: no table, or one that cannot be read so; names row and column.
        OptionError: an option that cannot be taken, with what can.
        CheckpointError: no fit that can be resumed, or another table.
    """
    given = {
        "sequence": sequence, "label": label, "encoding": encoding, "header": header, "mode": mode, "input": input,
        "output": output, "scale": scale, "label_scale": label_scale, "loss": loss,
        "split": RowSplit.parse(split) if isinstance(split, str) else split, "group": group,
        "cell": None if cell is None else cell_name(cell), "layers": layers, "hidden": hidden,
        "pooling": pooling, "grams": grams, "input_dropout": input_dropout,
        "weight_dropout": weight_dropout, "average": average,
        "class_weights": class_weights, "pretrain": pretrain,
        "bidirectional": bidirectional, "dropout": dropout, "embedding": embedding, "batch": batch_size, "lr": lr,
        "epochs": epochs, "max_steps": max_steps, "minutes": minutes, "patience": patience, "seed": seed,
        "backend": backend, "freeze": freeze,
    }  # fmt: skip
    if model not in ("auto", *MODELS):
        raise OptionError(f"unknown model {model!r}: choose auto or one of {', '.join(MODELS)}")
    if freeze and init_from is None and resume is None:
        raise OptionError("--freeze keeps the layers of a language model: name one with --init-from")
    if cost is not None:
        read_cost(cost)
    save_every = seconds_between_states(save_every)
    with ExitStack() as stack:
        shown = observer or stack.enter_context(closing(Watch(step_loss, what=loss_unit, show=progress)))
        session = _Session(given, init_from, device, save_every, progress, shown, model, cost)
        if resume is not None:
            return session.resume(Path(resume), table, out)
        if table is None:
            raise OptionError("name a table, such as mails.csv, or a fit to go on with: --resume DIR")
        return session.begin(str(table), None if out is None else str(out))


@dataclass(frozen=True)
class _Session:
    """One call of `fit_table`."""

    given: Mapping[str, Any]
    init_from: str | Path | CharRNN | None
    device: str
    save_every: float
    progress: bool | None
    observer: Observer
    wanted: str
    cost: str | None

    def begin(self, table: str, out: str | None) -> TableFit:
        """A new fit."""
        device = pick_device(self.device)
        source = self._source()
        task = open_task(table, self.given, None if source is None else source.vocab)
        plan, model = plan_for(task, self.given, source)
        train, valid = task.train, task.part("valid")
        if self.given["pretrain"] and model is not None:
            raise OptionError("--pretrain makes layers of its own, and --init-from takes those of a model: choose one")
        refuse_model(self.wanted, plan.network, train, valid)
        directory = None if out is None else free_name(Path(out.replace("{cell}", plan.network.cell)))
        if directory is not None and out is not None and "{cell}" not in out and directory != Path(out):
            self.observer.on_note(f"{out} is taken: this run goes to {directory}")
        with nullcontext() if directory is None else lock(directory):
            data = encode(task.facts)
            if passes := plan.pretrain:
                self.observer.on_note(f"pretraining for {passes:g} passes over the training texts")
                budget = replace(plan.optimisation, epochs=passes, max_steps=None, minutes=None)
                model = pretrained(plan.network, task.vocab, train, valid, budget, batch=plan.batch, device=device)
            fit = start(directory, train, valid, plan, device=device, vocab=task.vocab, data=data, model=model)
            for said in (task.about, *task.notes):
                self.observer.on_note(said)
            weighs = f"{fit.model.parameter_count:,} weights"
            self.observer.on_note(f"{line(fit.plan)} on {device}, backend {fit.plan.backend}, {weighs}")
            return self._train(fit, task)

    def resume(self, directory: Path, table: str | Path | None, out: str | Path | None) -> TableFit:
        """Goes on with a fit; options that differ from what it has are refused, but for its budget."""
        saved = read_saved(directory, FIT)
        facts = TableFacts.read(saved.config["data"])
        if out is not None and not same_directory(Path(out), directory):
            refuse_change("out", directory, out)
        self._refuse_changes(facts, saved.plan)
        for problem in saved.notes:
            self.observer.on_note(f"{problem}; the state before it is used")
        if self.init_from is not None:
            self.observer.on_note("the fit goes on from its own weights: those of --init-from were for its beginning")
        if table is None:
            still_there([facts.table], f"charlm fit NEW_PATH --resume {directory}")
        task = open_task_again(facts.table if table is None else str(table), facts, saved.vocab)
        device = device_of(saved.device, self.device, self.observer.on_note)
        budget = {name: self.given[name] for name in BUDGET if self.given[name] is not None}
        train, valid = task.train, task.part("valid")
        refuse_model(self.wanted, saved.plan.network, train, valid)
        with lock(directory):
            fit = resume(directory, train, valid, device=device, budget=budget)
            said = f"{directory} goes on: {line(fit.plan)} on {device}, backend {fit.plan.backend}"
            for sentence in (said, *fit.notes):
                self.observer.on_note(sentence)
            return self._train(fit, task)

    def _refuse_changes(self, facts: TableFacts, plan: FitPlan) -> None:
        """Names the first option that differs from what the fit has, with both values."""
        given, network = self.given, plan.network
        for name in (*NETWORK, *TRAINING):
            if given[name] is not None and (name, given[name]) != ("backend", "auto"):
                owner = next(each for each in (network, plan.optimisation, plan) if hasattr(each, name))
                refuse_change(_FLAGS.get(name, name), getattr(owner, name), given[name])
        scale = None if network.input_scale is None else network.input_scale.kind
        has = {
            "sequence-column": (facts.sequence, given["sequence"]),
            "label-column": (facts.label_file or facts.label, given["label"]),
            "encoding": (facts.encoding, given["encoding"]),
            "no-header": (not facts.header, None if given["header"] else True),
            "mode": (facts.mode, given["mode"]),
            "input": (facts.input, given["input"]),
            "output": ("every" if facts.every else "last", given["output"]),
            "scale": (next(name for name, kind in SCALES.items() if kind == scale), given["scale"]),
            "label-scale": ("none" if facts.bounded else "minmax", given["label_scale"]),
            "split": (RowSplit.parse(facts.split), given["split"]),
            "group": (facts.group, given["group"]),
            "freeze": (network.frozen, given["freeze"] or None),
        }
        for name, (there, asked) in has.items():
            if asked is not None:
                refuse_change(name, there, asked)

    def _source(self) -> CharRNN | None:
        if self.init_from is None or isinstance(self.init_from, CharRNN):
            return self.init_from
        model = load(self.init_from, device="cpu")
        if not isinstance(model, CharRNN):
            raise OptionError(f"{self.init_from} is not a recurrent model: --init-from needs the layers of one")
        return model

    def _train(self, fit: Fit, task: TableTask) -> TableFit:
        """Trains to the end of the budget, and measures the best weights on the reported part."""
        with interruptible() as stopped:
            outcome = fit.train(observer=self.observer, save_every=self.save_every, should_stop=stopped)
        models, compared, threshold = Models(network=fit.model), {}, None
        if outcome != "interrupted":
            took = fit.rows[-1]["seconds"] if fit.rows else 0.0
            told: dict[str, Any] = {"wanted": self.wanted, "seconds": took, "say": self.observer.on_note}
            models = fit_models(fit.model, task.train, task.part("valid"), **told)
            compared = measured(models, task, self.progress)
            threshold = None if self.cost is None else suggested(models, task, self.cost)
        found = TableFit(
            facts=task.facts,
            plan=fit.plan,
            models=models,
            history=History(fit.rows, title=fit.directory.name if fit.directory else "", loss=loss_unit(fit.model)),
            outcome=outcome,
            part=task.reported,
            rows=len(task.parts[task.reported]),
            compared=compared,
            directory=fit.directory,
            threshold=threshold,
        )
        self._keep(fit, task, found)
        self._draw(found)
        return found

    def _keep(self, fit: Fit, task: TableTask, found: TableFit) -> None:
        """Keeps the baselines and the figures with the network."""
        if found.figures is None:
            return
        more: dict[str, Any] = {"result": found.result()}
        if fit.directory is not None and found.models.baselines:
            more["models"] = found.models.write(fit.directory)
        fit.describe(**more)
        inputs = task.held.inputs
        if inputs.ids and bool((inputs.values < 0).any()):
            share = 100 * float((inputs.values < 0).double().mean())
            of = f"{share:.2g} % of the characters of the {task.reported} part"
            self.observer.on_note(f"{of} never stood in the training part")

    def _draw(self, found: TableFit) -> None:
        """The pictures of a run that is kept: its curve, its reliability, and which class was taken for which."""
        directory, figures = found.directory, found.figures
        if directory is None:
            return
        acts: dict[str, Callable[[], object]] = {}
        if found.history:
            acts["the curve"] = partial(found.history.plot, directory / "curve.png")
        if figures is not None and figures.reliability is not None:
            acts["the reliability"] = partial(found.plot, directory / "reliability.png")
        if figures is not None and figures.confusion is not None and len(figures.classes) <= 60:
            title, picture = f"{directory.name}, {found.part} part", directory / "confusion.png"
            acts["the confusion"] = partial(draw_confusion, figures.confusion, figures.classes, picture, title=title)
        for what, act in acts.items():
            drawn(what, act, self.observer.on_note)


def fit_examples(
    asked: Any, train: Examples, valid: Examples | None, facts: TableFacts, vocab: Vocab | None, seed: int
) -> tuple[Models, History]:
    """The models of an estimator and the learning curve of the network; kept in a directory where one is asked for.

    Args:
        asked: an estimator, with its parameters.
        train, valid: the examples.
        facts: what they are.
        vocab: of texts.
        seed: of all chance.
    """
    names = ("cell", "layers", "hidden", "embedding", "dropout", "bidirectional", "lr", "epochs", "max_steps")
    given = {name: getattr(asked, name) for name in (*names, "minutes", "patience", "backend")}
    given |= {"batch": asked.batch_size, "seed": seed}
    given |= {"loss": asked.loss} if facts.mode == "score" else {}
    plan = choose_fit(facts, len(train), given)
    wanted = asked.scale or "none"
    if wanted not in SCALES:
        raise OptionError(f"unknown scale {wanted!r}: choose one of {', '.join(SCALES)}")
    scale = SCALES[wanted] if facts.features else None
    plan = replace(plan, network=fit_scales(plan.network, train, inputs=scale, targets=not facts.bounded))
    refuse_model(asked.model, plan.network, train, valid)
    directory = None if asked.out is None else free_name(Path(asked.out))
    device = pick_device(asked.device)
    with nullcontext() if directory is None else lock(directory):
        fit = start(directory, train, valid, plan, device=device, vocab=vocab, data=encode(facts))
        with closing(Watch(step_loss, show=asked.progress)) as watch:
            fit.train(observer=watch)
    took = fit.rows[-1]["seconds"] if fit.rows else 0.0
    models = fit_models(fit.model, train, valid, wanted=asked.model, seconds=took)
    if directory is not None and models.baselines:
        fit.describe(models=models.write(directory))
    return models, History(fit.rows, loss=loss_unit(fit.model))
