"""Whole items under a language model: the probability of each, how it compares with the training items, how many
guesses it takes, and drawing new ones.

An item's probability is that of its characters and its end mark, the line feed, after a begin state that has read a
line feed alone. The probabilities of all items sum to at most 1. Axes: T steps, B lanes, N items, S samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.display import progress_bar
from charlm.errors import CharlmError, OptionError
from charlm.lm.evaluate import targets_of, wide
from charlm.lm.interface import LanguageModel, SamplingRule, name_of, read_segments, source_of, span_segments, take
from charlm.lm.sampling import Noise
from charlm.text.corpus import Corpus, corpus_of_items
from charlm.text.text import HasSource, read_text
from charlm.text.units import read_items
from charlm.text.vocab import Vocab

_REFERENCE = 10_000  # training items that a percentile is taken among
_EQUAL = 1e-5  # log-probabilities that differ by less are of one item, read in other company
_LANES = 2500  # items drawn side by side
_CHUNK = 16  # steps of one call; a quarter of them for many lanes on a CPU
_IDLE = 10_000  # draws without a new item after which none is looked for any more


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ItemScores:
    """What a model said about each item of a list, in the order of the list.

    Args:
        items: their characters.
        logp_N: natural log-probability of each with its end mark; -inf where it is impossible, NaN where it has
            characters that the model does not know.
        length_N: characters of each, the end mark counted.
        unknown_N: how many of them the model does not know.
        percentile_N: per cent of the training items that are less probable; None where these are not at hand.
        guesses_N: estimated number of items that are more probable; None where it was not asked for.
        error_N: the standard error of these.
    """

    items: list[str]
    logp_N: NDArray[np.float64]
    length_N: NDArray[np.int64]
    unknown_N: NDArray[np.int64]
    percentile_N: NDArray[np.float64] | None = None
    guesses_N: NDArray[np.float64] | None = None
    error_N: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def order(self, top: int | None = None) -> list[int]:
        """All items in the order of the list, or the `top` least probable ones, those with unknown characters first."""
        if top is None:
            return list(range(len(self)))
        worth_N = np.where(np.isnan(self.logp_N), -np.inf, self.logp_N)
        return np.lexsort((np.arange(len(self)), worth_N, -self.unknown_N))[:top].tolist()  # type: ignore[no-any-return]

    def to_json(self, number: int) -> dict[str, Any]:
        """The figures of one item; None where a figure is infinite or unknown."""
        logp = float(self.logp_N[number])
        known = math.isfinite(logp)
        bits = -logp / math.log(2) + 0.0
        found: dict[str, Any] = {
            "item": self.items[number],
            "bits": bits if known else None,
            "bits_per_char": bits / int(self.length_N[number]) if known else None,
            "log10_probability": logp / math.log(10) if known else None,
            "characters": int(self.length_N[number]),
            "unknown": int(self.unknown_N[number]),
            "zero_probability": logp == -math.inf,
        }
        if self.percentile_N is not None:
            found["percentile"] = None if math.isnan(logp) else float(self.percentile_N[number])
        if self.guesses_N is not None and self.error_N is not None:
            found["guesses"] = None if math.isnan(logp) else float(self.guesses_N[number])
            found["guesses_error"] = None if math.isnan(logp) else float(self.error_N[number])
        return found

    def rows(self, top: int | None = None) -> Iterator[list[str]]:
        """The heading of a table and its rows; the item, in which there may be tabs, is the last cell."""
        names = ["bits", "bits_per_char", "log10_probability"]
        names += ["percentile"] if self.percentile_N is not None else []
        names += ["guesses", "guesses_error"] if self.guesses_N is not None else []
        yield [*names, "item"]
        for number in self.order(top):
            found = self.to_json(number)
            none = "unknown" if found["unknown"] else "infinite"
            cells = [none if found[name] is None else f"{found[name]:.6g}" for name in names]
            yield [*cells, self.items[number]]

    def __repr__(self) -> str:
        known_N = self.logp_N[np.isfinite(self.logp_N)]
        bits = -known_N.mean() / math.log(2) if len(known_N) else math.nan
        return f"ItemScores({len(self):,} items, {bits:.3f} bits an item in the mean of {len(known_N):,} finite ones)"


def end_mark(vocab: Vocab) -> int:
    """The symbol that begins and ends an item, the line feed.

    >>> end_mark(Vocab.of("\\nab"))
    0
    """
    if "\n" in vocab.characters:
        return vocab.characters.index("\n")
    if not vocab.byte_fallback:
        raise OptionError("the model knows no line end, so it knows no items: make one with --items line")
    return len(vocab.characters) + 10


def _corpus(model: LanguageModel, items: Sequence[str]) -> Corpus:
    end_mark(model.vocab)
    return corpus_of_items(items, vocab=model.vocab, arrange=False)


def _logps(model: LanguageModel, corpus: Corpus, progress: bool | None) -> NDArray[np.float64]:
    """The log-probability of each document, NaN where it has unknown characters."""
    ids, spans = corpus.ids, corpus.documents
    lanes = 1 if model.is_adaptive else wide(spans, 64)
    with progress_bar(len(ids) - len(spans), "reading items", "char", show=progress) as bar:
        logp_T, _ = read_segments(model, ids, span_segments(spans), lanes=lanes, hits=False, progress=bar.update)
    undefined_T = np.isnan(logp_T) & (targets_of(ids, spans) >= 0)
    lengths_N = spans[:, 1] - spans[:, 0] - 1
    return np.add.reduceat(np.where(undefined_T, -np.inf, logp_T), np.cumsum(lengths_N) - lengths_N)


def read_list(model: LanguageModel, path: Path, **reading: Any) -> list[str]:
    """The items of a file in its order, each once, read as the model's own list was but for what is given.

    Args:
        model: of a text that was no list, each line is an item.
        path: the file.
        reading: `encoding`, `newlines`, `bytes`, `items` and `weights`, as `read_text` takes them.
    """
    own = source_of(model).reading
    given = {name: value for name, value in reading.items() if value is not None}
    items = given.pop("items", own.items or "line")
    weights = given.pop("weights", None)
    return read_items(path, replace(own, items=items, weights=weights, **given))[0]


def training_items(model: LanguageModel) -> tuple[Corpus, list[str]] | str:
    """The list that a model was made from and the items of its training part, or why they are not at hand."""
    source, name = source_of(model), name_of(model)
    if source.reading.items is None:
        return f"{name} was not made from a list of items"
    try:
        text = read_text(list(source.names), like=cast(HasSource, model))
    except CharlmError as error:
        return f"the training items of {name} are not at hand: {error}"
    if text.corpus.sha256 != source.sha256 or text.split is None:
        return f"{text.title} has changed since {name} was made from it"
    return text.corpus, str(text.train).split("\n")[:-1]


def score_items(
    model: LanguageModel, items: Sequence[str], *, guesses: int = 0, seed: int = 0, progress: bool | None = None
) -> ItemScores:
    """The probability of each item of a list; see `TextModel.score_items`."""
    items = list(items)
    corpus = _corpus(model, items)
    logp_N = _logps(model, corpus, progress)
    unknown_N = np.array([(corpus.ids[a:b] < 0).sum() for a, b in corpus.documents.tolist()], np.int64)
    scores = ItemScores(
        items=items,
        logp_N=logp_N,
        length_N=np.array([len(item) + 1 for item in items], np.int64),
        unknown_N=unknown_N,
    )
    known = training_items(model)
    if not isinstance(known, str):
        reference = np.sort(_logps(model, _corpus(model, known[1][:_REFERENCE]), progress))
        below_N = np.searchsorted(reference, np.nan_to_num(logp_N, nan=-np.inf), side="left")
        scores = replace(scores, percentile_N=100 * below_N / len(reference))
    if guesses:
        sample = sample_items(model, guesses, seed=seed, complete=False, progress=progress)
        found, error = guess_numbers(logp_N, np.array(sample.logps), sample.drawn)
        scores = replace(scores, guesses_N=found, error_N=error)
    return scores


def guess_numbers(
    logp_N: NDArray[np.float64], sampled_S: NDArray[np.float64], drawn: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many items are more probable than each, estimated from a sample of the model, and the standard errors.

    Each sampled item that is more probable stands for 1 / probability items (Dell'Amico and Filippone 2015).

    Args:
        logp_N: log-probabilities of the items in question.
        sampled_S: of sampled items.
        drawn: how many were drawn, those without an end counted.

    >>> half = np.log(np.array([0.5, 0.5]))  # two draws of the same item, of probability 1/2
    >>> guess_numbers(np.log(np.array([0.6, 0.1])), half, 2)[0].tolist()
    [0.0, 2.0]
    """
    ordered_S = np.sort(sampled_S)[::-1]
    first, second = (np.concatenate([[0.0], np.cumsum(np.exp(-power * ordered_S))]) for power in (1, 2))
    above_N = np.searchsorted(-ordered_S, -(logp_N + _EQUAL), side="left")
    mean_N = first[above_N] / drawn
    variance_N = np.maximum(second[above_N] / drawn - mean_N**2, 0.0)
    return mean_N, np.sqrt(variance_N / drawn)


@dataclass(kw_only=True)
class ItemSample:
    """Items that a model drew.

    Args:
        items: their characters, without the end mark.
        logps: the model's own natural log-probability of each, the end mark counted.
        drawn: how many were drawn in all.
        dropped: how many were left out, by the reason.
        said: a sentence where fewer came than were asked for, else empty.
    """

    items: list[str] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    drawn: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    said: str = ""

    def __len__(self) -> int:
        return len(self.items)


@torch.no_grad()
def sample_items(
    model: LanguageModel,
    count: int,
    *,
    rule: SamplingRule | None = None,
    unique: bool = False,
    new: bool = False,
    length: int = 1000,
    seed: int = 0,
    complete: bool = True,
    progress: bool | None = None,
) -> ItemSample:
    """Draws items side by side; see `TextModel.sample_items`. Without `complete` those left out are not made up for."""
    if count < 1 or length < 1:
        raise OptionError(f"at least one item of at least one character is drawn, not {count} of {length}")
    old: set[str] = set()
    if new:
        known = training_items(model)
        if isinstance(known, str):
            raise OptionError(f"new items are those that are not in the training list, but {known}")
        old = set(known[0].vocab.decode(known[0].ids).split("\n"))
    found, seen, last = ItemSample(), set[str](), 0
    with progress_bar(count, "drawing items", "item", show=progress) as bar:
        while len(found) < count:
            left = count - (found.drawn if not complete else len(found))
            lanes = min(_LANES, left if not complete else left * (found.drawn + 1) // (len(found) + 1) + left // 8 + 8)
            for item, logp in _draw(model, rule or SamplingRule(), length, seed, found.drawn, lanes):
                if len(found) == count:
                    break
                found.drawn += 1
                why = _fault(item, seen if unique else set(), old, length)
                if why is None and item is not None:
                    found.items.append(item)
                    found.logps.append(logp)
                    seen.add(item)
                    last = found.drawn
                    bar.update()
                else:
                    found.dropped[why or ""] += 1
            if not complete and found.drawn >= count:
                break
            if found.drawn - last >= _IDLE or found.drawn >= 100 * count + _IDLE:
                found.said = (
                    f"{len(found):,} of {count:,} items: {found.drawn:,} were drawn, and hardly any other is to be had "
                    "(a higher temperature gives rarer ones)"
                )
                break
    return found


def _fault(item: str | None, seen: set[str], old: set[str], length: int) -> str | None:
    """Why an item is left out, or None."""
    if item is None:
        return f"without an end after {length:,} characters"
    if not item:
        return "empty"
    if "\ufffd" in item:
        return "spelled in bytes that are no text"
    if item in old:
        return "in the training list"
    return "drawn before" if item in seen else None


def _draw(
    model: LanguageModel, rule: SamplingRule, length: int, seed: int, first: int, lanes: int
) -> Iterator[tuple[str | None, float]]:
    """Items `first`, `first` + 1, ... of a seed with their log-probabilities; None for one that has no end."""
    mark, vocab = end_mark(model.vocab), model.vocab
    ids_BT, logp_BT = np.full((lanes, _CHUNK), mark, np.int64), np.zeros((lanes, _CHUNK))
    ended_B, alive = np.zeros(lanes, np.bool_), np.arange(lanes)
    noise, state = Noise(seed, lanes, first), model.initial_state(lanes)
    ids_B = torch.full((lanes,), mark, dtype=torch.int64, device=model.device)
    limit, done = length if not vocab.byte_fallback else 4 * length, 0
    while len(alive) and done <= limit:
        short = model.device.type == "cpu" and len(alive) > 64  # what a lane draws after its end is lost
        steps = min(_CHUNK // 4 if short else _CHUNK, limit + 1 - done)
        drawn_TB, logp_TB, state = model.generate(ids_B, state, steps, rule, noise.take(steps))
        if done + steps > ids_BT.shape[1]:
            ids_BT = np.pad(ids_BT, ((0, 0), (0, done + _CHUNK)), constant_values=mark)
            logp_BT = np.pad(logp_BT, ((0, 0), (0, done + _CHUNK)))
        more_BT = drawn_TB.T.cpu().numpy()
        ids_BT[alive, done : done + steps] = more_BT
        logp_BT[alive, done : done + steps] = logp_TB.T.double().cpu().numpy()
        over_B = (more_BT == mark).any(1)
        ended_B[alive[over_B]] = True
        going = np.flatnonzero(~over_B)
        kept = torch.from_numpy(going)
        ids_B, state = drawn_TB[-1][kept.to(drawn_TB.device)], take(state, kept)
        noise.keep(going.tolist())
        alive, done = alive[going], done + steps
    ends_B = np.where(ended_B, (ids_BT == mark).argmax(1), done)
    for lane, end in enumerate(ends_B.tolist()):
        text = vocab.decode(ids_BT[lane, :end]) if ended_B[lane] else ""
        yield (text if ended_B[lane] and len(text) <= length else None), math.fsum(logp_BT[lane, : end + 1])
