"""Counting n-gram models of a text, in memory or past memory into a directory, and adding up the counts of several.

Start reading at `ngram`, which `charlm ngram` and `charlm.ngram` call; `charlm.merge` calls `merged`.

Nothing is chosen on the part that is reported. Where there is a test part, the parameters of add-k and uniform-mix are
tuned on the valid part; where there is none, on the last twentieth of the training part, by counts of the rest of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.codec import encode
from charlm.display import progress_bar
from charlm.errors import OptionError
from charlm.files import free_name, lock, storage_errors, write_config, write_json
from charlm.ngrams.counted import Estimator, check_order
from charlm.ngrams.estimators import ESTIMATORS, TUNED, index_of, make_estimator, ngram_rows, tune, tuning_parts
from charlm.ngrams.levels import Counts, LevelBlocks
from charlm.ngrams.past_memory import Job, Progress, capacity_of, check_memory, count_past_memory, make_tables
from charlm.ngrams.strings import Packing
from charlm.ngrams.suffixes import fingerprints
from charlm.ngrams.tables import CountTables
from charlm.text.corpus import Corpus, read_corpus
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
    return check_memory(memory, processes, scheduler)


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
    """Counts a text within `limit` bytes into a free directory, as `ngram` does, but without importing torch.

    What is done is kept in `counting/` until the model is whole, so that a count that was stopped goes on.

    Args:
        limit: bytes.
        directory: of the model.
        text: best with its ids mapped; its training part is counted.
        order: characters of history, 0 to 32.
        smoothing: as `--smoothing` takes it; its parameter is tuned where it has one.
        progress: show a bar; None shows it on a terminal or in a notebook.
        workers: `processes` or `scheduler` of `count_past_memory`.
    """
    corpus, parts = text.corpus, text.parts
    about = [corpus.sha256, encode(corpus.reading), corpus.vocab.to_json()]  # tells these ids from all others
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def counts_of(spans: Spans, name: str, progress: Progress | None = None) -> CountTables:
        return count_past_memory(
            corpus.ids,
            spans,
            symbols=len(corpus.vocab),
            order=order,
            directory=directory / WORK / name,
            memory=limit,
            **workers,
            identity=identity,
            shared_N=corpus.shared_context(spans, parts),
            progress=progress,
        )

    form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with reserved(directory), progress_bar(100, "counting", show=progress, bar_format=form) as bar:
        parameters = _parameters(corpus, parts, smoothing, [order], partial(counts_of, name="tuning")).get(order, {})
        tables = counts_of(parts["train"], "text", lambda share: bar.update(100 * share - bar.n))
        estimator = make_estimator(smoothing, tables, order, **parameters)
        publish(directory, estimator, corpus.vocab, TextFacts.of(corpus, text.split or Split()))
    return estimator


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
    index = index_of(corpus, counted, parts) if counts_of is None else counts_of(counted)
    return {order: tune(smoothing, index, order, corpus.ids, tuned) for order in orders}


def count(corpus: Corpus, parts: Mapping[str, Spans], *, order: int, smoothing: str = "none") -> NGramLM:
    """An n-gram model of the training part, its parameter tuned where it has one."""
    parameters = _parameters(corpus, parts, smoothing, [order]).get(order, {})
    index = index_of(corpus, parts["train"], parts)
    return _model(corpus.vocab, make_estimator(smoothing, index, order, **parameters))


def counted_rows(
    corpus: Corpus, parts: Mapping[str, Spans], held: Spans, *, orders: list[int], smoothings: Iterable[str]
) -> Iterator[Row]:
    """The rows of n-gram models of several orders and smoothings over held-out spans, from one index."""
    index = index_of(corpus, parts["train"], parts)
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


# -- counts of several models ------------------------------------------------------------------------------------------


def merged(models: Sequence[object], *, out: str | Path, tune_on: str | Path | None, memory: int | str) -> Path:
    """Adds up the counts of models that have been opened, as `charlm.merge` does; returns the new model's directory.

    The strings that their levels give back are packed with the ids of the union of the vocabularies, and then merged
    and written as in counting past memory.
    """
    from charlm.ngrams.model import NGramLM

    shards = [model for model in models if isinstance(model, NGramLM)]
    if len(shards) < len(models) or len(shards) < 2:
        raise OptionError("a merge adds up two or more n-gram models, made by charlm ngram")
    vocab, parameters = _agreed(shards, tune_on)
    first, symbols = shards[0], len(vocab)
    tables_V = [  # the new id of each id of a model
        vocab.encode("".join(shard.vocab.characters)).astype(np.int64) if shard.vocab != vocab else np.arange(symbols)
        for shard in shards
    ]
    packing = Packing(symbols=symbols, depth=first.order + 1)
    size, counts = capacity_of(memory, 1, packing.words), [shard.index for shard in shards]
    source = LevelBlocks(counts=counts, tables_V=tables_V, packing=packing, size=size)
    directory, characters = free_directory(Path(out), may_go_on=False), sum(map(len, counts))
    with reserved(directory):
        job = Job(source, packing=packing, capacity=size, directory=directory / WORK / "text")
        job.claim({})
        tables = make_tables(job, characters, source.openings(), source.context(), job.make_all())
        if tune_on is not None:
            held_out = read_corpus([tune_on], first.source.reading, vocab=vocab)
            parameters = tune(first.smoothing, tables, first.order, held_out.ids, held_out.documents)
        estimator = make_estimator(first.smoothing, tables, first.order, **parameters)
        publish(directory, estimator, vocab, _facts(shards, tables_V))
    return directory


def _agreed(shards: list[NGramLM], tune_on: str | Path | None) -> tuple[Vocab, dict[str, Any]]:
    """The union of the vocabularies and the parameters; refuses what cannot be added up exactly."""
    first, parameters = shards[0], shards[0].estimator.parameters()
    for shard in shards[1:]:
        for what in ("order", "smoothing"):
            if (one := getattr(first, what)) != (two := getattr(shard, what)):
                raise OptionError(
                    f"the models differ in --{what}, {one} and {two}: count their texts with the same one"
                )
        ways = [replace(model.source.reading, encoding="utf-8", vocab_size=None) for model in (first, shard)]
        if ways[0] != ways[1]:
            raise OptionError("the models' texts were read in different ways: count them with the same reading options")
        if (first.vocab.byte_fallback or shard.vocab.byte_fallback) and first.vocab != shard.vocab:
            raise OptionError(
                "the models spell different characters in bytes, so their counts cannot be added up exactly: count "
                "their texts without --vocab-size"
            )
        if (other := shard.estimator.parameters()) != parameters and tune_on is None:
            raise OptionError(
                f"the models differ in the parameter of {first.smoothing}, {parameters} and {other}: name a held-out "
                "text to tune it on, with --tune-on"
            )
    characters = tuple(sorted(set().union(*(shard.vocab.characters for shard in shards))))
    return Vocab(characters, byte_fallback=first.vocab.byte_fallback), parameters


def _facts(shards: list[NGramLM], tables_V: list[NDArray[np.int64]]) -> TextFacts:
    """The facts about all texts; their hash is that of no text, so that no later text is taken for one of them."""
    facts = [shard.source for shard in shards]
    return replace(
        facts[0],
        names=tuple(name for fact in facts for name in fact.names),
        sha256=hashlib.sha256(" ".join(["merged", *(fact.sha256 for fact in facts)]).encode()).hexdigest(),
        characters=sum(fact.characters for fact in facts),
        first=int(tables_V[0][facts[0].first]),
    )
