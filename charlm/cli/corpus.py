"""`charlm corpus`: the known texts, getting one of them, and what is in a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import echo_json, json_option, note, note_list, reading_options, split_option
from charlm.errors import OptionError
from charlm.text.catalog import CATALOG, KnownText, bundled_names, known
from charlm.text.splits import Split


@click.group("corpus")
def corpus_command() -> None:
    """Known texts, downloads, and what is in a text."""


@corpus_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show the known texts with size, licence and source."""
    if as_json:
        echo_json([_entry(text) for text in CATALOG])
        return
    width = max(len(text.name) for text in CATALOG)
    for text in CATALOG:
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
    from charlm.text import download

    path = download.get(name, directory)
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
def info_command(texts: tuple[str, ...], split: Split | None, as_json: bool, **reading: Any) -> None:
    """Show what is in TEXT (files, a directory of files, or - for standard input).

    That is its size, its vocabulary, how predictable it is, what repeats, and whether the split leaks.
    """
    import charlm
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
