"""`charlm predict`: adds what a fitted model says to a table."""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, force_option, json_option, note, table_options, target
from charlm.files import write_bytes


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
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
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
