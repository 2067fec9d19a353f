"""`charlm ngram`: counts an n-gram model of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import note, reading_of, reading_options, split_option
from charlm.errors import OptionError
from charlm.files import free_name, lock

SMOOTHINGS = ["none", "add-k", "uniform-mix", "witten-bell", "kneser-ney"]


@click.command("ngram")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--order", type=int, default=4, show_default=True, metavar="N", help="Characters of history, 0 to 32.")
@click.option(
    "--smoothing",
    type=click.Choice(SMOOTHINGS),
    default="none",
    show_default=True,
    help="How unseen events get probability; none is unsmoothed maximum likelihood.",
)
@split_option
@reading_options
@click.option("--arpa", metavar="FILE", help="Also write the model as an ARPA file that other tools read.")
@click.option("--out", metavar="DIR", help="Where the model is kept.  [default: checkpoints/NAME]")
def ngram_command(
    texts: tuple[str, ...],
    order: int,
    smoothing: str,
    split: Any,
    arpa: str | None,
    out: str | None,
    **reading: Any,
) -> None:
    """Count an n-gram model of TEXT (files, a directory of files, or - for standard input)."""
    from charlm.analysis.counting import count
    from charlm.checkpoint import TextFacts, save_ngram
    from charlm.text.corpus import read_corpus
    from charlm.text.splits import Split, count_targets

    if arpa is not None and smoothing == "none":
        raise OptionError("an ARPA file holds a smoothed model: add --smoothing kneser-ney or witten-bell")
    corpus = read_corpus(list(texts), reading_of(**reading))
    split = split or Split.default(len(corpus))
    parts = corpus.parts(split)
    corpus.part(split, "train")  # refused here where there is nothing to count
    note(f"{corpus.title}: {len(corpus):,} characters, {len(corpus.vocab)} symbols, split {split}")
    model = count(corpus, parts, order=order, smoothing=smoothing)
    stem = "stdin" if texts[0] == "-" else Path(texts[0]).stem or "text"
    wanted = Path(out) if out is not None else Path("checkpoints") / f"{stem}-{smoothing}-{order}"
    directory = free_name(wanted)
    if directory != wanted:
        note(f"{wanted} is taken: this model goes to {directory}")
    with lock(directory):
        save_ngram(directory, model, TextFacts.of(corpus, split))
    if arpa is not None:
        _write_arpa(model, Path(arpa))
    note(f"order {order}, smoothing {smoothing}, counted from {count_targets(parts['train']):,} targets")
    click.echo(f"{directory}")


def _write_arpa(model: Any, wanted: Path) -> None:
    from charlm.models.arpa import write_arpa

    path = free_name(wanted)
    write_arpa(model, path)
    click.echo(f"{path}")
