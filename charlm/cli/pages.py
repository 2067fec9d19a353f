"""Commands that write pages: `charlm report` about a run, `export` of a model, `inspect` about hidden units."""

from __future__ import annotations

from pathlib import Path

import click

from charlm.cli.common import echo_json, force_option, json_option, note, seed_option, target


@click.command("report")
@click.argument("directory", metavar="DIR")
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="The run's text, where it is not in its old place."
)
@click.option("--out", metavar="FILE", help="The page.  [default: DIR/report.html]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@seed_option
@force_option
def report_command(directory: str, texts: tuple[str, ...], out: str | None, device: str, seed: int) -> None:
    """Make one HTML page about the run in DIR: curves, comparison, samples, surprise, calibration, options.

    The page is a single file that needs no network. It is made with the text that the model was made from. Of a run of
    `charlm fit` it shows how it learned, its figures on the test part, and its calibration.
    """
    from charlm.pages.report import report

    page = report(directory, texts or None, device=device, seed=seed)
    wanted = target(Path(directory) / "report.html" if out is None else out, "the page")
    click.echo(page.save(wanted, overwrite=True))


@click.command("export")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page that runs the model.")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="Write an ONNX file of one network.")
@click.option(
    "--bits",
    type=click.Choice(["8", "16", "32"]),
    default="16",
    show_default=True,
    help="Of a weight in the page; 32 keeps float32.",
)
@click.option("--mixture", is_flag=True, help="Put two MODELs into the page as one that learns how far to trust each.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="TEXT",
    help="Measure the loss by --bits on this text.  [default: the held-out part of the first model's own text]",
)
@json_option
def export_command(
    models: tuple[str, ...],
    html: Path | None,
    onnx: Path | None,
    bits: str,
    mixture: bool,
    texts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL, or two MODELs side by side, as one HTML page that runs them in any browser, without a network.

    In the page a person writes a beginning, generates, sees what was expected at every character, takes another way
    from there, and scores a text. What networks lose by weights of 16 or 8 bits is measured and printed.
    """
    import charlm
    from charlm.cli.common import held_out

    opened = [charlm.load(model) for model in models]
    part = held_out(opened[0], texts, None) if texts else None
    done = charlm.export(opened, html=html, onnx=onnx, bits=int(bits), text=part, mixture=mixture)  # type: ignore[arg-type]
    if as_json:
        echo_json(done.to_json())
    else:
        click.echo(repr(done))


@click.command("inspect")
@click.argument("model")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one page to look at in a browser.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the best units: .png, .svg or .pdf."
)
@click.option("--layer", type=click.IntRange(0), metavar="N", help="Look at one layer only, counted from 0.")
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="L:N[:h|c]",
    help="Show this unit over the text instead of the tables: colours on a terminal, else a table. Can be repeated.",
)
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First character to read.")
@click.option(
    "--length", type=click.IntRange(1), default=50_000, show_default=True, metavar="N", help="Characters to read."
)
@click.option(
    "--shown",
    type=click.IntRange(1),
    metavar="N",
    help="Of these the last N are shown.  [default: 1000; in a page 4000]",
)
@click.option(
    "--split-part",
    type=click.Choice(["test", "valid", "train", "all"]),
    help="Which part of the model's own text.  [default: test, else valid; all of a foreign text]",
)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@seed_option
@json_option
@force_option
def inspect_command(
    model: str,
    texts: tuple[str, ...],
    html: Path | None,
    plot: Path | None,
    layer: int | None,
    units: tuple[str, ...],
    start: int,
    length: int,
    shown: int | None,
    split_part: str | None,
    color: str,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Search the hidden units of MODEL over TEXT for those that follow something with a name.

    The area is that under the ROC curve among positions of the same character: 0.5 is chance, 1 is perfect. The unit is
    chosen on the first half of what is read and reported on the second; the control is the highest area of any unit
    when the property is shifted along the text. Layers and units are counted from 0; in an LSTM `c` is the cell state
    and `h` the output.
    """
    import charlm
    from charlm.cli.common import held_out
    from charlm.drawing import check_picture, may_paint
    from charlm.pages.model_pages import inspect_page
    from charlm.pages.page import write_page
    from charlm.recurrent.inspection import inspect

    if plot is not None:
        check_picture(plot)
    network = charlm.load(model, device=device)
    found = inspect(
        network,
        held_out(network, texts, split_part),
        layer=layer,
        units=units,
        start=start,
        length=length,
        shown=shown or (4000 if html else 1000),
        seed=seed,
    )
    if as_json:
        echo_json(found.to_json())
    elif units and html is None:
        click.echo(found.painted() if may_paint(color) else found.unit_table(), color=True)
    elif html is None:
        click.echo(repr(found))
        for sentence in found.notes:
            note(sentence)
    if plot is not None:
        picture = target(plot, "the picture")
        found.plot(picture)
        note(f"picture in {picture}")
    if html is not None:
        click.echo(write_page(target(html, "the page"), inspect_page(found), overwrite=True), err=as_json)
