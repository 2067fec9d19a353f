"""`charlm fit` and `charlm predict`: a Score or a Distribution of the sequences in a table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from charlm.cli.common import (
    device_option,
    echo_json,
    force_option,
    json_option,
    name_for,
    note,
    plot_option,
    table_options,
    target,
)
from charlm.files import write_bytes


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
@click.option("--split", metavar="[KIND:]TRAIN/VALID/TEST",
              help="Per cent of the rows, shuffled[:SEED]: or ordered:.  [default: shuffled:0:80/10/10]")  # fmt: skip
@click.option("--group", metavar="COLUMN", help="Rows with equal values in it fall into one part of the split.")
@click.option("--cell", type=click.Choice(["rnn", "gru", "lstm"]), help="Kind of recurrent cell.  [default: gru]")
@click.option("--layers", type=int, metavar="N", help="Recurrent layers.")
@click.option("--hidden", type=int, metavar="N", help="Units in each layer and direction.")
@click.option("--bidirectional/--one-way", default=None, help="Read from both ends.  [default: for a label a sequence]")
@click.option("--pooling", metavar="PARTS", help="Of last, mean, max, attention, joined by +.")
@click.option("--grams", type=int, metavar="N", help="Buckets of short strings beside the layers; 0 for none.")
@click.option("--input-dropout", type=float, metavar="P", help="Share of the steps read as unknown in training.")
@click.option("--weight-dropout", type=float, metavar="P", help="Share of the recurrent weights left out in training.")
@click.option("--dropout", type=float, metavar="P", help="Between the layers and before the output.")
@click.option("--embedding", type=int, metavar="N", help="Width of a character embedding; 0 is one-hot input.")
@click.option("--batch-size", type=int, metavar="B", help="Rows a step.")
@click.option("--lr", type=float, metavar="R", help="Peak learning rate.")
@click.option("--average", type=float, metavar="S", help="Average the weights over this share of the steps.")
@click.option("--class-weights", type=click.Choice(["balanced", "none"]), help="balanced: rare classes count as much.")
@click.option("--pretrain", type=float, metavar="E", help="Passes that first learn to foresee characters.")
@click.option("--epochs", type=float, metavar="E", help="Stop after so many passes over the training part.")
@click.option("--max-steps", type=int, metavar="N", help="Stop after so many steps.")
@click.option("--minutes", type=float, metavar="M", help="Take so long for training and its validations.")
@click.option("--patience", type=int, metavar="N", help="Validations without improvement until it stops; 0 never does.")
@click.option("--save-every", type=float, default=300, show_default=True, metavar="SECONDS", help="Between two states.")
@click.option("--init-from", metavar="MODEL", help="Start from the layers of this language model.")
@click.option("--freeze", is_flag=True, help="Keep those layers as they are and train the output alone.")
@click.option(
    "--model",
    type=click.Choice(["auto", "rnn", "counted", "linear", "trees", "mix"]),
    default="auto",
    show_default=True,
    help="Which model predicts; auto takes the best on the validation part, rnn fits no other.",
)
@click.option("--cost", metavar="ALARM:MISS", help="Suggest the threshold that costs least, as for 1:10.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of weights, order and dropout.  [default: 0]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps", help="Where to train.")
@click.option("--backend", type=click.Choice(["auto", "reference", "fused", "torch"]), help="How layers are run.")
@click.option("--out", metavar="DIR", help="Where the run is kept.  [default: checkpoints/NAME]")
@click.option(
    "--resume",
    metavar="DIR",
    help="Go on with this fit; a new budget or --device is taken, and the options that it had.",
)
@plot_option("Draw the reliability as .png, .svg or .pdf, beside the run's own picture.")
@json_option
@force_option
def fit_command(
    table: str | None, resume: str | None, out: str | None, plot: Path | None, as_json: bool, **options: Any
) -> int:
    """Fit a Score (one number in 0..1) or a Distribution (a probability for each class) to TABLE.

    TABLE is CSV, TSV, JSON Lines, .npy or .npz: a row an example, with a column of sequences (text, or numbers
    separated by spaces) and one of labels. What is not given is chosen from the table and printed.
    """
    from charlm.sequences.fit import fit_table
    from charlm.sequences.fit_run import loss_unit, step_loss
    from charlm.training.watching import Watch

    if out is None and resume is None and table is not None:
        out = f"checkpoints/{name_for(table)}-{{cell}}"
    given = {_NAMES.get(name, name): value for name, value in options.items() if name != "no_header"}
    with closing(Watch(step_loss, say=note, what=loss_unit)) as watch:
        found = fit_table(table, header=not options["no_header"], out=out, resume=resume, observer=watch, **given)
    if found.figures is None:
        note(f"interrupted; everything is saved: go on with charlm fit --resume {found.directory}")
        return 130
    if found.outcome == "no improvement":
        note("stopped early: no improvement for several validations")
    if plot is not None:
        _plot(found, plot)
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(f"{found!r}\n{found.directory}")
    return 0 if found.outcome != "diverged" else 1


_NAMES = {"sequence_column": "sequence", "label_column": "label"}
"""Options by their names in Python, where these are others."""


def _plot(found: Any, plot: Path) -> None:
    from charlm.display import drawn
    from charlm.errors import OptionError

    try:
        drawn("the reliability", lambda: found.plot(target(plot, "the picture")), note)
    except OptionError as error:
        note(str(error))


@click.command("predict")
@click.argument("model")
@click.argument("table")
@table_options
@click.option(
    "--model",
    "using",
    type=click.Choice(["rnn", "counted", "linear", "trees", "mix"]),
    help="Which of its models predicts.  [default: the one that was best on the validation part]",
)
@click.option("--no-labels", is_flag=True, help="Do not look at the labels, even if the table has some.")
@click.option("--out", metavar="FILE", help="Write the table here: its own format, or .npz or .csv of arrays.")
@device_option
@json_option
@force_option
def predict_command(
    model: str,
    table: str,
    sequence_column: str | None,
    label_column: str | None,
    encoding: str | None,
    no_header: bool,
    no_labels: bool,
    using: str | None,
    out: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Add to TABLE what MODEL (a directory that charlm fit made) says of each row: a score, or a class and p_CLASS.

    The table is printed in the format it came in, with its own columns as they were; a row without a sequence keeps
    the new columns empty. If it has labels, the figures of the predictions are shown too. With --json the predictions
    are printed as JSON, and --out writes the table all the same.
    """
    from charlm.sequences.predict import predict_table

    found = predict_table(
        model,
        table,
        sequence=sequence_column,
        label=label_column,
        labels=not no_labels,
        using=using,
        encoding=encoding,
        header=not no_header,
        out=out,
        device=device,
    )
    for said in found.notes:
        note(said)
    if not as_json or out is not None:
        content, notes = found.render(out)
        for said in notes:
            note(said)
        if out is None:
            click.echo(content, nl=False)
        else:
            path = target(out, "the table")
            write_bytes(path, content)
            (note if as_json else click.echo)(f"{path}")
    if as_json:
        echo_json(found.to_json())
        return
    for said in () if found.figures is None else found.figures.lines():
        note(said)
