"""Commands that write pages: `charlm report` about a run, `charlm export` of a model (or an ONNX file)."""

from __future__ import annotations

from pathlib import Path

import click

from charlm.cli.common import echo_json, force_option, json_option, seed_option, target


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
