"""`charlm fit`: fits a Score or a Distribution to a table of sequences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import json_option, note
from charlm.cli.fitting import table_options, train_and_report
from charlm.errors import OptionError
from charlm.files import lock
from charlm.sequences.rows import RowSplit

if TYPE_CHECKING:
    from charlm.recurrent.model import CharRNN
    from charlm.sequences.fitting import FitPlan
    from charlm.sequences.model import SequenceModel
    from charlm.sequences.tabular import TableFacts, TableTask
    from charlm.text.vocab import Vocab

_BUDGET = ("epochs", "max_steps", "minutes")
_NETWORK = ("cell", "layers", "hidden", "bidirectional", "dropout", "embedding", "loss")
_TRAINING = ("batch", "lr", "patience", "seed", "backend")
_TABLE = (
    "sequence_column",
    "label_column",
    "encoding",
    "no_header",
    "input",
    "mode",
    "output",
    "label_scale",
    "split",
    "group",
)
_SCALES = {"minmax": "min-max", "zscore": "z-score", "none": None}


class _RowSplitType(click.ParamType[RowSplit]):
    name = "split"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RowSplit:
        return value if isinstance(value, RowSplit) else RowSplit.parse(value)


@click.command("fit")
@click.argument("table", required=False)
@click.option("--mode", type=click.Choice(["score", "distribution"]), help="What is said.  [default: by the labels]")
@table_options
@click.option(
    "--input", type=click.Choice(["text", "numbers"]), help="What the sequences are.  [default: by the cells]"
)
@click.option(
    "--output", type=click.Choice(["last", "every"]), help="A label a sequence, or a step.  [default: by them]"
)
@click.option("--scale", type=click.Choice(["minmax", "zscore", "none"]), help="Of input numbers.  [default: zscore]")
@click.option("--label-scale", type=click.Choice(["minmax", "none"]), help="Of a Score's labels.  [default: none]")
@click.option("--loss", type=click.Choice(["cross-entropy", "squared"]), help="Of a Score.  [default: cross-entropy]")
@click.option("--split", type=_RowSplitType(), metavar="[KIND:]TRAIN/VALID/TEST",
              help="Per cent of the rows, shuffled[:SEED]: or ordered:.  [default: shuffled:0:80/10/10]")  # fmt: skip
@click.option("--group", metavar="COLUMN", help="Rows with equal values in it fall into one part of the split.")
@click.option("--cell", type=click.Choice(["rnn", "gru", "lstm"]), help="Kind of recurrent cell.  [default: gru]")
@click.option("--layers", type=int, metavar="N", help="Recurrent layers.")
@click.option("--hidden", type=int, metavar="N", help="Units in each layer and direction.")
@click.option("--bidirectional", is_flag=True, default=None, help="Read from both ends.")
@click.option("--dropout", type=float, metavar="P", help="Between the layers and before the output.")
@click.option("--embedding", type=int, metavar="N", help="Width of a character embedding; 0 is one-hot input.")
@click.option("--batch-size", "batch", type=int, metavar="B", help="Rows a step.")
@click.option("--lr", type=float, metavar="R", help="Peak learning rate.")
@click.option("--epochs", type=float, metavar="E", help="Stop after so many passes over the training part.")
@click.option("--max-steps", type=int, metavar="N", help="Stop after so many steps.")
@click.option("--minutes", type=float, metavar="M", help="Take so long for training and its validations.")
@click.option("--patience", type=int, metavar="N", help="Validations without improvement until it stops; 0 never does.")
@click.option("--save-every", type=float, default=300, show_default=True, metavar="SECONDS", help="Between two states.")
@click.option("--init-from", metavar="MODEL", help="Start from the layers of this language model.")
@click.option("--freeze", is_flag=True, help="Keep those layers as they are and train the output alone.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of weights, order and dropout.  [default: 0]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps", help="Where to train.")
@click.option("--backend", type=click.Choice(["auto", "reference", "fused", "torch"]), help="How layers are run.")
@click.option("--out", metavar="DIR", help="Where the run is kept.  [default: checkpoints/NAME]")
@click.option("--resume", metavar="DIR", help="Go on with this fit; a new budget or --device is taken.")
@click.option(
    "--plot", metavar="FILE", help="Draw the reliability as .png, .svg or .pdf, beside the run's own picture."
)
@json_option
def fit_command(
    table: str | None, resume: str | None, out: str | None, plot: str | None, as_json: bool, **options: Any
) -> int:
    """Fit a Score (one number in 0..1) or a Distribution (a probability for each class) to TABLE.

    TABLE is CSV, TSV, JSON Lines, .npy or .npz: a row an example, with a column of sequences (text, or numbers
    separated by spaces) and one of labels. What is not given is chosen from the table and printed.
    """
    if plot is not None:
        from charlm.figures import check_picture

        check_picture(Path(plot))
    if options["freeze"] and options["init_from"] is None:
        raise OptionError("--freeze keeps the layers of a language model: name one with --init-from")
    if resume is not None:
        return _resume(Path(resume), table, out, plot, as_json, options)
    if table is None:
        raise OptionError("name a table, such as mails.csv, or a fit to go on with: --resume DIR")
    return _begin(table, out, plot, as_json, options)


def _begin(table: str, out: str | None, plot: str | None, as_json: bool, options: dict[str, Any]) -> int:
    from charlm.cli.fitting import run_directory
    from charlm.nn.kernels.choose import pick_device
    from charlm.sequences.fitting import line, start

    device = pick_device(options["device"])
    source = None if options["init_from"] is None else _language_model(options["init_from"])
    task = _task(table, options, None if source is None else source.vocab)
    plan, model = _plan(task, options, source)
    train, valid = task.part("train"), task.part("valid")
    assert train is not None
    directory = run_directory(out, table, plan.network.cell)
    with lock(directory):
        data = task.facts.to_json()
        fit = start(directory, train, valid, plan, device=device, vocab=task.vocab, data=data, model=model)
        for said in (*_facts(task), *task.notes):
            note(said)
        note(f"{line(fit.plan)} on {device}, backend {fit.plan.backend}, {fit.model.parameter_count:,} weights")
        return train_and_report(fit, task, plot, as_json, options["save_every"])


def _task(table: str, options: dict[str, Any], vocab: Vocab | None) -> TableTask:
    from charlm.sequences.predict import open_table
    from charlm.sequences.tabular import make_task

    encoding, header = options["encoding"] or "utf-8", not options["no_header"]
    opened, label, label_file = open_table(table, encoding, header, options["label_column"])
    return make_task(
        opened,
        sequence=options["sequence_column"],
        label=label,
        label_file=label_file,
        mode=options["mode"],
        split=options["split"],
        group=options["group"],
        vocab=vocab,
        input=options["input"] or (None if vocab is None else "text"),
        every=None if options["output"] is None else options["output"] == "every",
        bounded=options["label_scale"] != "minmax",
        encoding=encoding,
        header=header,
    )


def _language_model(directory: str) -> CharRNN:
    from charlm.checkpoint import load
    from charlm.recurrent.model import CharRNN

    model = load(directory, device="cpu")
    if not isinstance(model, CharRNN):
        raise OptionError(f"{directory} is not a recurrent model: --init-from needs the layers of one")
    return model


def _plan(task: TableTask, options: dict[str, Any], source: CharRNN | None) -> tuple[FitPlan, SequenceModel | None]:
    """The plan, and the model to start from where there is one."""
    from dataclasses import replace

    from charlm.sequences.fitting import choose_fit
    from charlm.sequences.model import SequenceModel
    from charlm.sequences.tasks import fit_scales

    given = {name: options[name] for name in (*_NETWORK, *_TRAINING, *_BUDGET)}
    train = task.part("train")
    assert train is not None
    plan = choose_fit(task.facts, len(train), given)
    if source is None:
        scale = _SCALES[options["scale"] or ("zscore" if task.facts.features else "none")]
        network = fit_scales(plan.network, train, inputs=scale, targets=not task.facts.bounded)
        return replace(plan, network=network), None
    _refuse_shape(options)
    network = fit_scales(plan.network, train, targets=not task.facts.bounded)
    taken = {name: getattr(network, name) for name in ("mode", "classes", "dropout", "output", "loss", "target_scale")}
    model = SequenceModel.from_language_model(source, freeze=options["freeze"], **taken)
    return replace(plan, network=model.config), model


def _refuse_shape(options: dict[str, Any]) -> None:
    for name in ("cell", "layers", "hidden", "bidirectional", "embedding"):
        if options[name] is not None:
            raise OptionError(f"--{name} is that of the language model of --init-from: leave it out")


def _facts(task: TableTask) -> list[str]:
    facts, parts = task.facts, task.parts
    steps = sorted(task.inputs.lengths)
    what = "text" if facts.input == "text" else f"numbers, {facts.features} a step"
    span = f"{steps[0]:,} to {steps[-1]:,}" if steps[0] < steps[-1] else f"{steps[0]:,}"
    said = f"{len(facts.classes)} classes" if facts.classes else "a Score"
    divided = ", ".join(f"{part} {len(rows):,}" for part, rows in parts.items())
    return [f"{facts.table}: {facts.rows:,} rows of {what}, {span} steps, {said}; split {facts.split}: {divided}"]


# -- going on ----------------------------------------------------------------------------------------------------------


def _resume(
    directory: Path, table: str | None, out: str | None, plot: str | None, as_json: bool, options: dict[str, Any]
) -> int:
    from charlm.cli.fitting import device_of
    from charlm.sequences.fitting import line, read_saved_fit, resume
    from charlm.sequences.tabular import TableFacts

    _refuse_changes(out, options)
    saved = read_saved_fit(directory)
    for problem in saved.notes:
        note(f"{problem}; the state before it is used")
    facts = TableFacts.from_json(saved.config["data"])
    task = _task_again(table or facts.table, facts, saved.vocab)
    device = device_of(saved.device, options["device"])
    budget = {name: options[name] for name in _BUDGET if options[name] is not None}
    train, valid = task.part("train"), task.part("valid")
    assert train is not None
    with lock(directory):
        fit = resume(directory, train, valid, device=device, budget=budget)
        for said in (f"{directory} goes on: {line(fit.plan)} on {device}, backend {fit.plan.backend}", *fit.notes):
            note(said)
        return train_and_report(fit, task, plot, as_json, options["save_every"])


def _refuse_changes(out: str | None, options: dict[str, Any]) -> None:
    """Names the first option that a fit which goes on cannot take."""
    fixed = [
        name for name in (*_NETWORK, *_TRAINING, *_TABLE, "scale", "init_from") if options[name] not in (None, False)
    ]
    fixed += ["out"] if out is not None else []
    if fixed:
        name = {"batch": "batch-size"}.get(fixed[0], fixed[0]).replace("_", "-")
        raise OptionError(f"--{name} cannot be changed in a fit that goes on: start a new one")


def _task_again(table: str, facts: TableFacts, vocab: Vocab | None) -> TableTask:
    """The same table, read as it was the first time."""
    from charlm.sequences.predict import open_table
    from charlm.sequences.tabular import make_task

    if table == "standard input":
        raise OptionError("the table came from standard input: name it again, - for standard input")
    opened, label, _ = open_table(table, facts.encoding, facts.header, facts.label_file or facts.label)
    return make_task(
        opened,
        sequence=facts.sequence,
        label=label,
        label_file=facts.label_file,
        mode=facts.mode,
        split=RowSplit.parse(facts.split),
        group=facts.group or None,
        distinct=facts.distinct,
        vocab=vocab,
        input=facts.input,
        every=facts.every,
        bounded=facts.bounded,
        classes=facts.classes or None,
        encoding=facts.encoding,
        header=facts.header,
    )
