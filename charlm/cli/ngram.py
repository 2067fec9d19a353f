"""`charlm ngram`: counts an n-gram model of a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import note, reading_of, reading_options, reading_progress, split_option
from charlm.errors import OptionError
from charlm.files import free_name, lock
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.ngrams.counted import Estimator
    from charlm.text.corpus import Corpus
    from charlm.text.splits import Split

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
@click.option(
    "--memory",
    metavar="SIZE",
    help="Count within so much memory, such as 500M or 2G, however long the text: the rest of the work is on the disk, "
    "and a count that was stopped goes on when the same command is given again.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Share the counting; goes with --memory, which they share too.",
)
@click.option("--out", metavar="DIR", help="Where the model is kept.  [default: checkpoints/NAME]")
def ngram_command(
    texts: tuple[str, ...],
    order: int,
    smoothing: str,
    split: Any,
    arpa: str | None,
    memory: str | None,
    processes: int,
    out: str | None,
    **reading: Any,
) -> None:
    """Count an n-gram model of TEXT (files, a directory of files, or - for standard input)."""
    from charlm.text.corpus import read_corpus
    from charlm.text.splits import Split, count_targets

    if arpa is not None and smoothing == "none":
        raise OptionError("an ARPA file holds a smoothed model: add --smoothing kneser-ney or witten-bell")
    limit = _limit(memory, processes, order, texts)
    with reading_progress() as tell:
        corpus = read_corpus(list(texts), reading_of(**reading), progress=tell, streamed=limit is not None)
    split = split or Split.default(len(corpus))
    corpus.part(split, "train")  # refused here where there is nothing to count
    note(f"{corpus.title}: {len(corpus):,} characters, {len(corpus.vocab)} symbols, split {split}")
    directory = _directory(texts, out, f"{smoothing}-{order}", stopped=limit is not None)
    with lock(directory):
        if limit is None:
            estimator = _count(directory, corpus, split, order, smoothing)
        else:
            estimator = _count_within(limit, processes, directory, corpus, split, order, smoothing)
    if arpa is not None:
        _write_arpa(corpus, estimator, Path(arpa), limit)
    targets = count_targets(corpus.parts(split)["train"])
    note(f"order {order}, smoothing {smoothing}, counted from {targets:,} targets")
    click.echo(f"{directory}")


def _limit(memory: str | None, processes: int, order: int, texts: tuple[str, ...]) -> int | None:
    """The memory to count within, in bytes; what cannot be kept to is refused before the text is read."""
    from charlm.ngrams.counted import check_order
    from charlm.ngrams.past_memory.external import smallest_memory

    check_order(order)
    if memory is None:
        if processes > 1:
            raise OptionError("--processes shares a count on the disk: say with --memory how much they may use, as 2G")
        return None
    limit, least = parse_size(memory), smallest_memory(processes)
    if limit < least:
        whom = "one process counts" if processes == 1 else f"{processes} processes count"
        raise OptionError(f"--memory {memory} is too little, {whom} within {-(-least >> 20)}M or more")
    if "-" in texts:
        raise OptionError("standard input is read into memory: with --memory, name files")
    return limit


def parse_size(text: str) -> int:
    """Bytes written as a number with K, M, G or T behind it, powers of 1024.

    >>> parse_size("2G"), parse_size("1.5m"), parse_size("640")
    (2147483648, 1572864, 640)
    """
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)i?b?", text.strip(), re.IGNORECASE)
    if found is None:
        raise OptionError(f"cannot read the size {text[:40]!r}: write it as 500M or 2G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _directory(texts: tuple[str, ...], out: str | None, ending: str, *, stopped: bool) -> Path:
    """A free name for the model, or one where a count was stopped and may go on."""
    from charlm.ngrams.fit import was_stopped

    stem = "stdin" if texts[0] == "-" else Path(texts[0]).stem or "text"
    wanted = Path(out) if out is not None else Path("checkpoints") / f"{stem}-{ending}"
    if not wanted.name:
        free_name(wanted)  # refuses it
    directory, number = wanted, 1
    while directory.exists() and not (stopped and was_stopped(directory)):
        number += 1
        directory = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    if directory != wanted:
        note(f"{wanted} is taken: this model goes to {directory}")
    if directory.exists():
        note(f"a count was stopped in {directory}: what is done of this one is gone on with, any other is deleted")
    return directory


def _count(directory: Path, corpus: Corpus, split: Split, order: int, smoothing: str) -> Estimator:
    from charlm.ngrams.fit import count
    from charlm.text.text import TextFacts

    model = count(corpus, corpus.parts(split), order=order, smoothing=smoothing)
    model.source = TextFacts.of(corpus, split)
    model.write_to(directory)
    return model.estimator


def _count_within(
    limit: int, processes: int, directory: Path, corpus: Corpus, split: Split, order: int, smoothing: str
) -> Estimator:
    from charlm.ngrams.fit import count_to_directory

    form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with progress_bar(100, "counting", bar_format=form) as bar:
        try:
            return count_to_directory(
                directory,
                corpus,
                split,
                order=order,
                smoothing=smoothing,
                memory=limit,
                processes=processes,
                progress=lambda share: bar.update(100 * share - bar.n),
            )
        except KeyboardInterrupt:
            note(f"what is done is kept in {directory}: the same command goes on with it")
            raise


def _write_arpa(corpus: Corpus, estimator: Estimator, wanted: Path, limit: int | None) -> None:
    from charlm.ngrams.arpa import write_arpa
    from charlm.ngrams.model import NGramLM

    if limit is not None:
        note("the ARPA file is made in memory, --memory is for the counting")
    path = free_name(wanted)
    model = NGramLM(vocab=corpus.vocab, index=estimator.index, order=estimator.order, estimator=estimator)
    write_arpa(model, path)
    click.echo(f"{path}")
