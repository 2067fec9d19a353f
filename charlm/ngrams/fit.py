"""Counting n-gram models of a text: in memory, or past memory into a directory.

Start reading at `ngram`, which `charlm ngram` and `charlm.ngram` call.

Nothing is chosen on the part that is reported. Where there is a test part, the parameters of add-k and uniform-mix are
tuned on the valid part; where there is none, on the last twentieth of the training part, by counts of the rest of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.codec import encode
from charlm.display import progress_bar
from charlm.errors import OptionError
from charlm.files import free_name, lock, storage_errors, write_config, write_json
from charlm.ngrams.counted import Estimator, check_order
from charlm.ngrams.estimators import ESTIMATORS, TUNED, make_estimator, ngram_rows, tune, tuning_parts
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.levels import Counts
from charlm.ngrams.past_memory import Progress, count_past_memory, smallest_memory
from charlm.ngrams.suffixes import fingerprints
from charlm.ngrams.tables import CountTables
from charlm.text.corpus import Corpus
from charlm.text.splits import Spans, Split, count_targets
from charlm.text.text import Text, TextFacts, as_text
from charlm.text.vocab import Vocab

if TYPE_CHECKING:  # these import torch, which a count within a memory limit does without
    from charlm.lm.evaluate import Row
    from charlm.ngrams.model import NGramLM


def ngram(
    text: Text,
    *,
    order: int = 4,
    smoothing: str = "none",
    memory: int | str | None = None,
    processes: int = 1,
    scheduler: str | None = None,
    out: str | Path | None = None,
    arpa: str | Path | None = None,
    progress: bool | None = None,
) -> NGramLM:
    """Counts an n-gram model of the training part of a text.

    Args:
        text: what `read_text` or `Text.of` returns.
        order: n, characters of history, 0 to 32.
        smoothing: how unseen events get probability: `none` (unsmoothed maximum likelihood), `add-k`, `uniform-mix`,
            `witten-bell` or `kneser-ney`. The parameter of add-k and of uniform-mix is tuned on the valid part, or on
            the end of the training part where the split has no test part.
        memory: count within so many bytes, as 2_000_000_000 or "2G", however long the text: the rest of the work is
            on the disk in `out`, and a count that was stopped goes on when it is called again.
        processes: how many share the counting; goes with `memory`, which is that of all together. More than one are
            Dask workers on this machine, which need the extra `cluster`.
        scheduler: address of a Dask scheduler, as "tcp://host:8786", whose workers share the counting; goes with
            `memory`, which is that of each worker. All machines see the text and `out` under the same paths.
        out: directory to save the model in; a name that is taken becomes NAME-2. None keeps nothing on the disk.
        arpa: also write the model as an ARPA file that other tools read; needs Witten-Bell or Kneser-Ney.
        progress: show a bar while counting with `memory`; None shows it on a terminal or in a notebook.

    Returns:
        The model, with the text's facts in `source` and the directory it was saved in, or None, in `directory`.

    Raises:
        OptionError: an argument that is out of its range, or arguments that do not go together.
        TextError: the text has no training part.
        StorageError: the disk is full or refuses.

    >>> text = Text.of("abracadabra" * 100)
    >>> model = ngram(text, order=1)
    >>> [(symbol, round(p, 2)) for symbol, p in model.next("a").top(1)]  # after five a's: b twice, a, c, d once each
    [('b', 0.4)]
    """
    text = as_text(text)
    workers: dict[str, Any] = {"processes": processes, "scheduler": scheduler}
    limit = check_options(order=order, smoothing=smoothing, memory=memory, arpa=arpa, **workers)
    order = check_order(order)
    if text.split is None:
        raise OptionError(f"{text.title} was read without a split: name one, as split='90/5/5'")
    if limit is not None and out is None:
        raise OptionError("a count within memory keeps its work on the disk: name a directory with out=")
    _ = text.train  # refused here where there is nothing to count
    facts = TextFacts.of(text.corpus, text.split)
    directory = None if out is None else free_directory(Path(out), may_go_on=limit is not None)
    if limit is not None and directory is not None:
        options: dict[str, Any] = {"order": order, "smoothing": smoothing, "progress": progress, **workers}
        model = _model(text.vocab, count_within(limit, directory, text, **options))
    else:
        with contextlib.nullcontext() if directory is None else reserved(directory):
            model = count(text.corpus, text.parts, order=order, smoothing=smoothing)
            model.source = facts
            if directory is not None:
                model.write_to(directory)
    model.directory, model.source = directory, facts
    if arpa is not None:
        from charlm.ngrams.kneser_ney import write_arpa

        write_arpa(model.estimator, model.vocab, free_name(Path(arpa)))
    return model


def _model(vocab: Vocab, estimator: Estimator) -> NGramLM:
    from charlm.ngrams.model import NGramLM

    return NGramLM(vocab=vocab, index=estimator.index, order=estimator.order, estimator=estimator)


def check_options(
    *,
    order: int,
    smoothing: str,
    memory: int | str | None,
    arpa: str | Path | None,
    processes: int = 1,
    scheduler: str | None = None,
) -> int | None:
    """Refuses what `ngram` cannot do, before a text is read; returns the memory to count within, in bytes."""
    check_order(order)
    if smoothing not in ESTIMATORS:
        raise OptionError(f"unknown smoothing {smoothing!r}: choose one of {', '.join(ESTIMATORS)}")
    if arpa is not None and smoothing not in ("kneser-ney", "witten-bell"):
        raise OptionError("an ARPA file holds a smoothed model: add --smoothing kneser-ney or witten-bell")
    if type(processes) is not int or processes < 1:
        raise OptionError(f"processes is a whole number of 1 or more, not {processes!r}")
    if memory is None:
        if processes > 1 or scheduler is not None:
            raise OptionError(
                "--processes and --scheduler share a count on the disk: say with --memory how much they may use, as 2G"
            )
        return None
    if processes > 1 and scheduler is not None:
        raise OptionError("--processes starts workers here, --scheduler uses those of a cluster: give one of the two")
    limit, least = parse_size(memory), smallest_memory(processes, scheduler)
    if limit < least:
        whom = "one process counts" if processes == 1 else f"{processes} processes count"
        raise OptionError(f"--memory {memory} is too little, {whom} within {-(-least >> 20)}M or more")
    return limit


def free_directory(wanted: Path, *, may_go_on: bool) -> Path:
    """The directory, or the first of NAME-2, NAME-3, ... that is free, or in which a count was stopped.

    Args:
        wanted: the name to begin with.
        may_go_on: whether a directory where a count was stopped counts as free, as that count may go on.
    """
    return free_name(wanted, lambda directory: directory.exists() and not (may_go_on and was_stopped(directory)))


@contextlib.contextmanager
def reserved(directory: Path) -> Iterator[None]:
    """Locks a directory while a model is made; after an error, deletes a new one that holds no model and no work."""
    new = not directory.exists()
    with lock(directory):
        try:
            yield
        except BaseException:
            if new and not was_stopped(directory) and not (directory / "config.json").exists():
                shutil.rmtree(directory, ignore_errors=True)
            raise


def count_within(
    limit: int,
    directory: Path,
    text: Text,
    *,
    order: int,
    smoothing: str,
    progress: bool | None = None,
    **workers: Any,
) -> Estimator:
    """Counts a text within `limit` bytes into a free directory, as `ngram` does, but without importing torch."""
    form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with reserved(directory), progress_bar(100, "counting", show=progress, bar_format=form) as bar:
        return count_to_directory(
            directory,
            text.corpus,
            text.split or Split(),
            order=order,
            smoothing=smoothing,
            memory=limit,
            progress=lambda share: bar.update(100 * share - bar.n),
            **workers,
        )


def _index(corpus: Corpus, spans: Spans, parts: Mapping[str, Spans]) -> SuffixIndex:
    """The index of a part, or of pieces of it."""
    shared_N = corpus.shared_context(spans, parts)
    return SuffixIndex.build(corpus.ids, spans, symbols=len(corpus.vocab), shared_N=shared_N)


def _parameters(
    corpus: Corpus,
    parts: Mapping[str, Spans],
    smoothing: str,
    orders: Iterable[int],
    counts_of: Callable[[Spans], Counts] | None = None,
) -> dict[int, dict[str, Any]]:
    """The parameter of an estimator at each order, tuned where it has one; `counts_of` counts the spans it is given."""
    if smoothing not in TUNED:
        return {}
    counted, tuned = tuning_parts(parts)
    if not count_targets(tuned):
        return {}
    index = _index(corpus, counted, parts) if counts_of is None else counts_of(counted)
    return {order: tune(smoothing, index, order, corpus.ids, tuned) for order in orders}


def count(corpus: Corpus, parts: Mapping[str, Spans], *, order: int, smoothing: str = "none") -> NGramLM:
    """An n-gram model of the training part, its parameter tuned where it has one."""
    parameters = _parameters(corpus, parts, smoothing, [order]).get(order, {})
    index = _index(corpus, parts["train"], parts)
    return _model(corpus.vocab, make_estimator(smoothing, index, order, **parameters))


def best_order(corpus: Corpus, parts: Mapping[str, Spans], *, orders: list[int], smoothing: str) -> int:
    """The order with the lowest nats on the spans to tune on, of which none is reported."""
    counted, tuned = tuning_parts(parts)
    index = _index(corpus, counted, parts)
    rows = ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, tuned, hits=False, training=False)
    nats = {row.order: -float(row.logp_T.mean()) for row in rows}
    return min(orders, key=lambda order: nats[order])


def counted_rows(
    corpus: Corpus, parts: Mapping[str, Spans], held: Spans, *, orders: list[int], smoothings: Iterable[str]
) -> Iterator[Row]:
    """The rows of n-gram models of several orders and smoothings over held-out spans, from one index."""
    index = _index(corpus, parts["train"], parts)
    for smoothing in smoothings:
        parameters = _parameters(corpus, parts, smoothing, orders)
        yield from ngram_rows(index, corpus.vocab, smoothing, orders, corpus.ids, held, parameters=parameters)


WORK = "counting"
"""The directory, in that of the model, where a count keeps what it has done so far."""


def publish(directory: Path, estimator: Estimator, vocab: Vocab, facts: TextFacts) -> None:
    """Moves the tables into the model's directory and writes `config.json` last, which makes it a model."""
    work = directory / WORK
    with storage_errors(directory):
        for path in sorted((work / "text").glob("level-*.npy")):
            os.replace(path, directory / path.name)
        write_json(directory / "vocab.json", vocab.to_json())
        marks = {"files": fingerprints(directory), "vocab_sha256": vocab.sha256}
        write_config(directory, "ngram", estimator.describe(), facts, **marks)
        shutil.rmtree(work)


def was_stopped(directory: Path) -> bool:
    """Whether a count was begun in this directory and is still to be finished."""
    return (directory / WORK).is_dir() and not (directory / "config.json").exists()


def count_to_directory(
    directory: Path,
    corpus: Corpus,
    split: Split,
    *,
    order: int,
    smoothing: str,
    memory: int,
    progress: Progress | None = None,
    **workers: Any,
) -> Estimator:
    """Counts the training part of a corpus and keeps it as a model; see `count_past_memory`.

    What is done is kept in `counting/` until the model is whole, so that a count that was stopped goes on.

    Args:
        directory: of the model, locked by the caller.
        corpus: best with its ids mapped.
        split: which of them train.
        order: characters of history, 0 to 32.
        smoothing: as `--smoothing` takes it; its parameter is tuned where it has one.
        memory: bytes.
        progress: told how far the work is.
        workers: `processes` or `scheduler` of `count_past_memory`.
    """
    parts, work = corpus.parts(split), directory / WORK
    about = [corpus.sha256, encode(corpus.reading), corpus.vocab.to_json()]  # tells these ids from all others
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def counts_of(spans: Spans, name: str, progress: Progress | None = None) -> CountTables:
        return count_past_memory(
            corpus.ids,
            spans,
            symbols=len(corpus.vocab),
            order=order,
            directory=work / name,
            memory=memory,
            **workers,
            identity=identity,
            shared_N=corpus.shared_context(spans, parts),
            progress=progress,
        )

    parameters = _parameters(corpus, parts, smoothing, [order], partial(counts_of, name="tuning")).get(order, {})
    tables = counts_of(parts["train"], "text", progress)
    estimator = make_estimator(smoothing, tables, order, **parameters)
    publish(directory, estimator, corpus.vocab, TextFacts.of(corpus, split))
    return estimator


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Bytes, given as a whole number or written with K, M, G or T behind it, powers of 1024.

    >>> parse_size("2G"), parse_size("1.5m"), parse_size("640"), parse_size(640)
    (2147483648, 1572864, 640, 640)
    """
    found = _SIZE.fullmatch(str(size).strip()) if type(size) in (int, str) else None
    if found is None:
        raise OptionError(f"cannot read the size {str(size)[:40]!r}: write it as 500M or 2G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))
