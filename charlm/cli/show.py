"""`charlm info`, `runs`, `next`, `cache`, `selfcheck` and `corpus`: each makes one call and shows what it returns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option, note, note_list, reading_options, split_option
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
        about = machine()
        if as_json:
            echo_json(about.to_json())
        else:
            click.echo(repr(about))
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
    from charlm.errors import OptionError
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


@click.command("next")
@click.argument("model")
@click.argument("history")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N most probable characters only.")
@json_option
def next_command(model: str, history: str, top: int | None, as_json: bool) -> None:
    """Show how probable each character is in MODEL after the text HISTORY."""
    import charlm

    found = charlm.load(model, device="cpu").next(history)
    if not as_json:
        click.echo("\n".join(found.lines(top)))
        return
    counts = found.counts
    distribution = [
        {
            "char": found.vocab.symbol(id),
            "probability": float(found.probabilities[id]),
            "count": None if counts is None else counts.get(id, 0),
        }
        for id in found.listed[:top]
    ]
    echo_json({"history": history, "history_used": found.used, "distribution": distribution})


@click.command("selfcheck")
@json_option
def selfcheck_command(as_json: bool) -> int:
    """Check cells, kernels, windows, evaluation, checkpoints and sampling against something independent.

    The exit status is 1 where a check fails.
    """
    from charlm.checks import selfcheck

    found = selfcheck()
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(repr(found))
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
    return {
        "name": text.name,
        "about": text.about,
        "bytes": _size(text),
        "licence": text.licence,
        "source": text.source,
        "file": f"data/{text.file}",
        "bundled": text.bundled,
        "url": text.url,
        "checksum": text.checksum,
    }


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
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(repr(found))
