"""`charlm report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from charlm.cli.common import force_option, seed_option, target


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
