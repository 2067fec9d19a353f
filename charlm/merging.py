"""Adding up the counts of n-gram models, exactly: the model that counting all their texts would have given.

Each model's levels give back the strings of n + 1 symbols and the shorter ones that end a span: a string ends as many
spans as its count exceeds the counts of what followed it. These strings are packed with the ids of the union of the
vocabularies, and then merged and written as in counting past memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.checkpoint import load
from charlm.errors import OptionError
from charlm.ngrams.estimators import make_estimator, tune
from charlm.ngrams.fit import WORK, free_directory, parse_size, publish, reserved
from charlm.ngrams.levels import Counts, pick
from charlm.ngrams.model import NGramLM
from charlm.ngrams.past_memory import Job, capacity_of, make_tables
from charlm.ngrams.strings import Packing, Strings, added_up
from charlm.text.corpus import read_corpus
from charlm.text.vocab import Vocab, smallest_dtype


def merge(
    models: Sequence[NGramLM | str | Path],
    *,
    out: str | Path,
    tune_on: str | Path | None = None,
    memory: int | str = "1G",
) -> NGramLM:
    """Adds up the counts of n-gram models; the result equals counting all their training parts in one piece.

    Args:
        models: two or more of one order, smoothing and way of reading, or the directories where they are kept. Their
            vocabularies may differ: ids are matched by character.
        out: directory for the model; a taken name becomes NAME-2.
        tune_on: a held-out text on which the parameter of add-k or uniform-mix is tuned; needed where the models differ
            in it.
        memory: bytes to sort within, beside what the models that are not in files take.

    Returns:
        The model, whose counts are tables in `out`.

    Raises:
        OptionError: models whose counts cannot be added up exactly.

    >>> import tempfile, charlm
    >>> a, b = (charlm.ngram(charlm.Text.of(text, split="100/0/0"), order=1) for text in ("abab", "bcb"))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     [(symbol, round(p, 2)) for symbol, p in charlm.merge([a, b], out=directory + "/m").next("b").top(2)]
    [('a', 0.5), ('c', 0.5)]
    """
    opened = [load(model) if isinstance(model, (str, Path)) else model for model in models]
    shards = [model for model in opened if isinstance(model, NGramLM)]
    if len(shards) < len(opened) or len(shards) < 2:
        raise OptionError("a merge adds up two or more n-gram models, made by charlm ngram")
    vocab, parameters = _agreed(shards, tune_on)
    order, symbols, name = shards[0].order, len(vocab), shards[0].smoothing
    tables_V = [  # the new id of each id of a model
        vocab.encode("".join(shard.vocab.characters)).astype(np.int64) if shard.vocab != vocab else np.arange(symbols)
        for shard in shards
    ]
    packing = Packing(symbols=symbols, depth=order + 1)
    size = capacity_of(parse_size(memory), 1, packing.words)
    source = _TableBlocks([shard.index for shard in shards], tables_V, packing, size)
    context_V, openings = np.zeros(symbols, np.int64), []
    for shard, table_V in zip(shards, tables_V, strict=True):
        context_V[table_V] += shard.index.levels.context_V
        codes = np.append(np.zeros(1, np.int64), table_V + 1)
        openings.append(codes[shard.index.levels.begins(order + 1)].astype(smallest_dtype(symbols + 1)))
    directory = free_directory(Path(out), may_go_on=False)
    with reserved(directory):
        job = Job(source, packing=packing, capacity=size, directory=directory / WORK / "text")
        job.claim({})
        characters = sum(len(shard.index) for shard in shards)
        tables = make_tables(job, characters, np.concatenate(openings), context_V, job.make_all())
        if tune_on is not None:
            held_out = read_corpus([tune_on], shards[0].source.reading, vocab=vocab)
            parameters = tune(name, tables, order, held_out.ids, held_out.documents)
        facts = _facts(shards, tables_V)
        publish(directory, make_estimator(name, tables, order, **parameters), vocab, facts)
    model = load(directory)
    assert isinstance(model, NGramLM)
    return model


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


def _facts(shards: list[NGramLM], tables_V: list[NDArray[np.int64]]) -> Any:
    """The facts about all texts; their hash is that of no text, so that no later text is taken for one of them."""
    facts = [shard.source for shard in shards]
    return replace(
        facts[0],
        names=tuple(name for fact in facts for name in fact.names),
        sha256=hashlib.sha256(" ".join(["merged", *(fact.sha256 for fact in facts)]).encode()).hexdigest(),
        characters=sum(fact.characters for fact in facts),
        first=int(tables_V[0][facts[0].first]),
    )


@dataclass(frozen=True, eq=False)
class _TableBlocks:
    """The strings of several models, in pieces.

    Args:
        counts: of each model.
        tables_V: the new id of each of its ids.
        packing: of the new strings.
        size: strings in a piece.
    """

    counts: list[Counts]
    tables_V: list[NDArray[np.int64]]
    packing: Packing
    size: int

    @cached_property
    def _pieces(self) -> list[tuple[int, int, int]]:
        """Model, order of the level, and first event of each piece."""
        return [
            (model, order, at)
            for model, counts in enumerate(self.counts)
            for order in range(self.packing.depth)
            for at in range(0, counts.levels[order].events, self.size)
        ]

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, number: int) -> Strings:
        model, order, at = self._pieces[number]
        levels, table_V = self.counts[model].levels, self.tables_V[model]
        level = levels[order]
        event = np.arange(at, min(at + self.size, level.events))
        count = level.count_E[event].astype(np.int64)
        if order == 0:
            count += levels.context_V[level.id_E[event]]
        if order < self.packing.depth - 1:  # those that were followed by anything are part of longer strings
            count -= pick(levels[order + 1].total_H, event)
        event, count = event[count > 0], count[count > 0]
        words = [np.zeros(len(event), dtype=np.uint64) for _ in range(self.packing.words)]
        for depth in range(order, -1, -1):
            level = levels[depth]
            self.packing.put(words, depth, (table_V[level.id_E[event]] + 1).astype(np.uint64))
            event = np.searchsorted(level.first_H, event, side="right") - 1
        return added_up(words, count)
