"""Commands that show what is there: each makes one call and shows what it returns, as lines or as a page.

`charlm info` and `runs` are about models, `report`, `inspect` and `export` make pages about them, `corpus` and `cache`
are about texts, `selfcheck` about this installation.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import (
    device_option,
    echo_json,
    force_option,
    held_out,
    json_option,
    note,
    note_list,
    plot_option,
    reading_options,
    seed_option,
    show,
    split_option,
    split_part_option,
    target,
)
from charlm.errors import OptionError
from charlm.text.splits import Split

if TYPE_CHECKING:
    from charlm.text.catalog import KnownText


@click.command("info")
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option("--machine", "of_machine", is_flag=True, help="Show kernels, processor, threads and torch instead.")
@json_option
def info_command(models: tuple[str, ...], of_machine: bool, as_json: bool) -> None:
    """Show what MODEL is: family and shape, weights, text and split, how it was trained, the figure it ended with.

    With several models --json prints a list.
    """
    from charlm.info import describe, machine

    if bool(models) == of_machine:
        raise OptionError("name one or more models, such as checkpoints/NAME, or --machine alone for what runs here")
    if of_machine:
        show(machine(), as_json)
        return
    found = [describe(model) for model in models]
    if as_json:
        values = [info.to_json() for info in found]
        echo_json(values[0] if len(values) == 1 else values)
        return
    for number, info in enumerate(found):
        if len(found) > 1:
            click.echo(f"{'' if number == 0 else chr(10)}{info.directory}")
        click.echo(repr(info))


@click.command("runs")
@click.argument("directories", nargs=-1, metavar="[DIR...]")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, a line a run.")
@json_option
def runs_command(directories: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    """Show all models in the directories DIR and below them: options, weights, split, nats, seconds, date.

    Of runs that differ in the seed alone, the mean and the standard deviation stand below. Without DIR: checkpoints.
    """
    from charlm.listing import runs

    if as_csv and as_json:
        raise OptionError("--csv and --json are two ways to print the same: name one of them")
    found = runs(directories or "checkpoints")
    for directory, problem in found.unread:
        note(f"left out: {directory}: {problem}")
    if as_json:
        echo_json(found.to_json())
    elif as_csv:
        click.echo(found.to_csv(), nl=False)
    else:
        click.echo(repr(found))


@click.command("report")
@click.argument("directory", metavar="DIR")
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="The run's text, where it is not in its old place."
)
@click.option("--out", metavar="FILE", help="The page.  [default: DIR/report.html]")
@device_option
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
    models: tuple[str, ...], html: Path | None, onnx: Path | None, bits: str, mixture: bool, texts: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Write MODEL, or two MODELs side by side, as one HTML page that runs them in any browser, without a network.

    In the page a person writes a beginning, generates, sees what was expected at every character, takes another way
    from there, and scores a text. What networks lose by weights of 16 or 8 bits is measured and printed.
    """
    import charlm

    opened = [charlm.load(model) for model in models]
    part = held_out(opened[0], texts, None) if texts else None
    done = charlm.export(opened, html=html, onnx=onnx, bits=int(bits), text=part, mixture=mixture)  # type: ignore[arg-type]
    show(done, as_json)


@click.command("inspect")
@click.argument("model")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one page to look at in a browser.")
@plot_option("Draw the best units: .png, .svg or .pdf.")
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
@split_part_option
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@device_option
@seed_option
@json_option
@force_option
def inspect_command(
    model: str, texts: tuple[str, ...], html: Path | None, plot: Path | None, units: tuple[str, ...],
    shown: int | None, split_part: str | None, color: str, device: str, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Search the hidden units of MODEL over TEXT for those that follow something with a name.

    The area is that under the ROC curve among positions of the same character: 0.5 is chance, 1 is perfect. The unit is
    chosen on the first half of what is read and reported on the second; the control is the highest area of any unit
    when the property is shifted along the text. Layers and units are counted from 0; in an LSTM `c` is the cell state
    and `h` the output.
    """
    import charlm
    from charlm.display import may_paint
    from charlm.pages import write_page
    from charlm.pages.run_page import inspect_page
    from charlm.recurrent.inspection import inspect

    network = charlm.load(model, device=device)
    part, shown = held_out(network, texts, split_part), shown or (4000 if html else 1000)
    found = inspect(network, part, units=units, shown=shown, **options)
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


@click.command("selfcheck")
@json_option
def selfcheck_command(as_json: bool) -> int:
    """Check cells, kernels, windows, evaluation, checkpoints and sampling against something independent.

    The exit status is 1 where a check fails.
    """
    from charlm.checks import selfcheck

    found = selfcheck()
    show(found, as_json)
    return 0 if found.passed else 1


@click.command("cache")
@click.option("--clear", is_flag=True, help="Delete every entry.")
@json_option
def cache_command(clear: bool, as_json: bool) -> None:
    """Show the encoded copies of big texts that charlm keeps, or delete them.

    A text of more than 64 MB is encoded once and kept as a file of numbers, so that the next start is quick. Whoever
    can read these files can read the texts. CHARLM_CACHE names another directory, CHARLM_CACHE_GB another bound than
    10 gigabytes: beyond it, the entries that were not used for the longest time are deleted.
    """
    from charlm.text.cache import cache

    found = cache()
    freed = found.size if clear else None
    if clear:
        found = found.clear()
    if as_json:
        entries = [{"file": str(entry.path), "bytes": entry.size, "used": entry.used} for entry in found.entries]
        echo_json(
            {"directory": str(found.directory), "bytes": found.size, "bound": found.bound, "entries": entries}
            | ({"freed": freed} if clear else {})
        )
        return
    if freed is not None:
        click.echo(f"deleted      {freed:,} bytes")
    click.echo(f"directory    {found.directory}")
    click.echo(f"size         {found.size:,} bytes in {len(found.entries):,} entries, at most {found.bound:,}")
    for entry in found.entries:
        click.echo(f"{'':12} {entry.size:>15,} bytes, last used {datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}")


@click.group("corpus")
def corpus_command() -> None:
    """Known texts, downloads, and what is in a text."""


@corpus_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show the known texts with size, licence and source."""
    from charlm.text.catalog import catalog

    if as_json:
        echo_json([_entry(text) for text in catalog()])
        return
    width = max(len(text.name) for text in catalog())
    for text in catalog():
        size = _size(text)
        click.echo(f"{text.name:{width}}  {f'{size:,} bytes' if size else 'not here':>17}  {text.about}")
        place = f"data/{text.file}, comes with charlm" if text.bundled else text.source
        click.echo(f"{'':{width}}  {'':>17}  {text.licence}; {place}")
    click.echo("\n`charlm corpus get NAME` downloads one to data/; what comes with charlm is there already.")


def _size(text: KnownText) -> int | None:
    """The known size, or that of the bundled file where the repository is at hand."""
    if text.size is not None:
        return text.size
    path = Path("data") / text.file
    return path.stat().st_size if path.is_file() else None


def _entry(text: KnownText) -> dict[str, Any]:
    more = {"bundled": text.bundled, "url": text.url, "checksum": text.checksum}
    about = {"name": text.name, "about": text.about, "bytes": _size(text), "licence": text.licence}
    return {**about, "source": text.source, "file": f"data/{text.file}", **more}


@corpus_command.command("get")
@click.argument("name")
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Directory to put the text in.",
)
@json_option
def get_command(name: str, directory: Path, as_json: bool) -> None:
    """Download the known text NAME; a broken download is resumed, and only a whole one is put in place."""
    from charlm.text.catalog import get, known

    path = get(name, directory)
    if known(name).bundled:
        note(f"{name} comes with charlm, there is nothing to download")
    if as_json:
        echo_json({"name": name, "file": str(path)})
    else:
        click.echo(str(path))


@corpus_command.command("info")
@click.argument("texts", nargs=-1, metavar="TEXT...")
@split_option
@reading_options
@json_option
def corpus_info_command(texts: tuple[str, ...], split: Split | None, as_json: bool, **reading: Any) -> None:
    """Show what is in TEXT (files, a directory of files, or - for standard input).

    That is its size, its vocabulary, how predictable it is, what repeats, and whether the split leaks.
    """
    import charlm
    from charlm.text.catalog import bundled_names
    from charlm.text.profile import profile

    if not texts:
        raise OptionError(f"name a text, for example one that comes with charlm: {bundled_names()}")
    text = charlm.read_text(texts, split=split, **reading)
    note_list(text)
    found = profile(text)
    show(found, as_json)
