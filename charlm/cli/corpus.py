"""`charlm corpus`: the known texts, getting one of them, and what is in a text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option, note, reading_of, reading_options, split_option
from charlm.errors import OptionError
from charlm.progress import progress_bar
from charlm.text.catalog import CATALOG, KnownText, bundled_names, known
from charlm.text.splits import Split

if TYPE_CHECKING:
    from charlm.text.corpus import Corpus
    from charlm.text.profile import Leak, Portrait

_SHOWN = 60


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
    from charlm.text.download import get

    text = known(name)
    if text.bundled:
        path = Path("data") / text.file
        note(f"{name} comes with charlm, there is nothing to download")
    else:
        with progress_bar(text.download_size or text.size, text.name, "B", unit_scale=True) as bar:

            def tell(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            path = get(text, directory, tell)
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
    from charlm.text.corpus import read_corpus
    from charlm.text.profile import portrait

    if not texts:
        raise OptionError(f"name a text, for example one that comes with charlm: {bundled_names()}")
    with progress_bar(None, "reading", "B", unit_scale=True) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        corpus = read_corpus(texts, reading_of(**reading), progress=tell)
    split = split or Split.default(len(corpus))
    found = portrait(corpus, split)
    if as_json:
        echo_json(_as_json(corpus, split, found))
        return
    for name, value in _facts(corpus, split, found):
        click.echo(f"{name:12} {value}")


def _facts(corpus: Corpus, split: Split, found: Portrait) -> list[tuple[str, str]]:
    unit = corpus.vocab.unit
    documents = f" in {found.documents:,} documents" if found.documents > 1 else ""
    of = f" (first {found.measured:,} symbols)" if found.measured < len(corpus) else ""
    facts = [
        ("text", corpus.title),
        ("sha256", corpus.sha256),
        (f"{unit}s", f"{found.characters:,}{documents}, {found.lines:,} lines"),
        ("vocabulary", f"{found.symbols:,} symbols, kept as {corpus.ids.dtype.name}: {_symbols(corpus)}"),
        ("rare", _rare(found)),
        ("", f"order   nats   bits   perplexity{of}"),
    ]
    facts += [
        (
            "entropy" if order == 0 else "",
            f"{order:5}  {nats:.3f}  {nats / math.log(2):.3f}  {math.exp(nats):7.2f}",
        )
        for order, nats in enumerate(found.entropies)
    ]
    return [
        *facts,
        ("compressed", f"{found.compressed_bits:.3f} bits per {unit} by xz -9{of}"),
        ("passages", f"{found.distinct:.2%} of those of 40 symbols are distinct{of}"),
        ("repeated", f"the longest passage that occurs twice has {found.repeat:,}: {_short(found.repeated)}"),
        ("split", f"{split}: " + ", ".join(f"{name} {size:,}" for name, size in found.parts.items())),
        ("leak", _leak(found.leak)),
    ]


def _symbols(corpus: Corpus) -> str:
    return _short("".join(corpus.vocab.characters) or "every byte")


def _rare(found: Portrait) -> str:
    if not found.rare:
        return "no symbol occurs less than 10 times"
    shown = " ".join(f"{symbol!r}:{count}" for symbol, count in found.rare[:12])
    more = f" and {len(found.rare) - 12:,} more" if len(found.rare) > 12 else ""
    return f"{len(found.rare):,} symbols occur less than 10 times: {shown}{more}"


def _leak(leak: Leak | None) -> str:
    if leak is None:
        return "nothing is held out"
    common = (
        f"the longest passage that the training and held-out parts share has {leak.longest:,} symbols: "
        f"{_short(leak.passage)}; {leak.share:.2%} of the held-out passages of 40 symbols are in training"
    )
    return f"LEAK: {common}" if leak.found else f"none: {common}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _as_json(corpus: Corpus, split: Split, found: Portrait) -> dict[str, Any]:
    leak = found.leak
    return {
        "texts": list(corpus.names),
        "sha256": corpus.sha256,
        "unit": corpus.vocab.unit,
        "characters": found.characters,
        "symbols": len(corpus),
        "lines": found.lines,
        "documents": found.documents,
        "vocabulary": found.symbols,
        "vocabulary_characters": list(corpus.vocab.characters),
        "rare": [{"symbol": symbol, "count": count} for symbol, count in found.rare],
        "measured_symbols": found.measured,
        "entropy_nats": found.entropies,
        "compressed_bits_per_char": found.compressed_bits,
        "distinct_passages": found.distinct,
        "longest_repeat": found.repeat,
        "split": str(split),
        "parts": found.parts,
        "longest_shared": leak.longest if leak else None,
        "shared_passages": leak.share if leak else None,
        "leak": leak.found if leak else None,
    }
