"""The rows of networks in `charlm compare`: as they are, while they go on learning, and mixed with counts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from charlm.cli.models import dynamic_of
from charlm.errors import OptionError
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from charlm.checkpoint import Checkpoint
    from charlm.lm.evaluate import Row
    from charlm.lm.interface import LanguageModel
    from charlm.ngrams.model import NGramLM
    from charlm.text.corpus import Corpus
    from charlm.text.splits import Spans, Split

__all__ = ["network_rows"]


def network_rows(
    networks: Sequence[Checkpoint],
    text: str,
    corpus: Corpus,
    split: Split,
    held: Spans,
    orders: list[int],
    *,
    dynamic: bool,
    mixture: bool,
    cache: bool,
) -> list[Row]:
    """The rows of all networks over the held-out spans, in this order: static, dynamic, mixtures.

    Args:
        networks: opened.
        text: the file, read again for a network of other symbols.
        corpus: the same, read.
        split: under which n-grams are counted.
        held: the spans.
        orders: of which the best for Kneser-Ney is taken, chosen on a part that is not reported.
        dynamic: whether there is also a row of each network that goes on learning while it reads.
        mixture: whether each row has one in which Kneser-Ney is mixed in.
        cache: whether each row has one in which counts of what was just read are mixed in, with Kneser-Ney where that
            is wanted too.
    """
    rows = [static_row(network, text, held, corpus) for network in networks]
    counted = _best_counts(corpus, split, orders) if mixture and networks else None
    readers: list[tuple[str, Checkpoint, LanguageModel]] = [(net.name, net, net.model) for net in networks]
    if dynamic:
        learners = [(f"{net.name}, dynamic", net, _learner(net, corpus)) for net in networks if net.kind == "rnn"]
        rows += [_read(model, corpus, held, name, "dynamic", lanes=1, **_size(net)) for name, net, model in learners]
        readers += learners
    for reader in readers:
        rows += [_mixture_row(*reader, counted, corpus, held, cache=False)] if counted is not None else []
        rows += [_mixture_row(*reader, counted, corpus, held, cache=True)] if cache else []
    return rows


def static_row(network: Checkpoint, text: str, held: Spans, corpus: Corpus) -> Row:
    """What one model says about the held-out spans."""
    from charlm.text.corpus import read_corpus

    model = network.model
    seen = corpus if model.vocab == corpus.vocab else read_corpus([text], corpus.reading, vocab=model.vocab)
    if len(seen) != len(corpus):
        raise OptionError(f"{network.name} spells characters otherwise than this table: its figures cannot stand in it")
    family = "rnn" if network.kind == "rnn" else "ngram"
    return _read(model, seen, held, network.name, family, order=getattr(model, "order", None), **_size(network))


def _size(network: Checkpoint) -> dict[str, Any]:
    """How big a model is."""
    return {
        "parameters": getattr(network.model, "parameter_count", None),
        "bytes": sum(path.stat().st_size for path in network.directory.glob("best.safetensors")) or None,
    }


def _read(model: LanguageModel, corpus: Corpus, held: Spans, name: str, family: str, **facts: Any) -> Row:
    """The row of a model, with the time it took; `facts` as of `row_of`."""
    from charlm.lm.evaluate import row_of
    from charlm.text.splits import count_targets

    begun = time.perf_counter()
    with progress_bar(count_targets(held), f"reading with {name}", "char") as bar:
        row = row_of(model, corpus.ids, held, name=name, family=family, progress=bar.update, **facts)
    return replace(row, seconds=time.perf_counter() - begun)


def _learner(network: Checkpoint, corpus: Corpus) -> LanguageModel:
    if network.model.vocab != corpus.vocab:
        raise OptionError(f"{network.name} has another vocabulary than this text: leave --dynamic away")
    return dynamic_of(network, corpus)


def _best_counts(corpus: Corpus, split: Split, orders: list[int]) -> NGramLM:
    """The best Kneser-Ney model of the training part."""
    from charlm.ngrams.fit import best_order, count

    parts = corpus.parts(split)
    order = best_order(corpus, parts, orders=orders, smoothing="kneser-ney")
    return count(corpus, parts, order=order, smoothing="kneser-ney")


def _mixture_row(
    name: str,
    network: Checkpoint,
    model: LanguageModel,
    counted: NGramLM | None,
    corpus: Corpus,
    held: Spans,
    *,
    cache: bool,
) -> Row:
    """A network and counts as one, mixed in the logistic domain while they read."""
    from charlm.mixing.mixture import adaptive

    if network.model.vocab != corpus.vocab:
        raise OptionError(f"{network.name} has another vocabulary than this text: it cannot be mixed with its counts")
    lanes = 1 if cache or model is not network.model else 64  # of one that learns each lane learns for itself
    parts = [name] if counted is None else [name, f"Kneser-Ney {counted.order}"]
    mixed = adaptive([model] if counted is None else [model, counted], cache=cache)
    return _read(mixed, corpus, held, " + ".join([*parts, *(["cache"] if cache else [])]), "mixture", lanes=lanes)
