"""Generating text from any language model (prompts, stop texts, many streams, the same text for the same seed), and the
distribution of the next character: of one for a person to read, of many as their K most probable symbols (`Expected`).
Temperature, top-k and top-p are `SamplingRule` in `interface`.

Axes: B streams, V symbols, N targets, K expected symbols.
"""

from __future__ import annotations

import codecs
import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError, UnknownCharacterError, check_seed
from charlm.lm.interface import LanguageModel, OnRead, SamplingRule, State, take
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab


class Noise:
    """Uniform numbers in [0, 1), a generator of its own for each stream.

    Stream b of seed s draws the same numbers however many streams there are beside it.

    >>> alone, together = Noise(0, 1), Noise(0, 3)
    >>> bool((alone.take(5)[:, 0] == together.take(5)[:, 0]).all())
    True
    """

    def __init__(self, seed: int, streams: int, first: int = 0) -> None:
        self._generators = [np.random.default_rng([check_seed(seed), first + stream]) for stream in range(streams)]

    def take(self, steps: int) -> Tensor:
        """The next numbers of every stream, float64 [steps, B]."""
        return torch.from_numpy(np.stack([generator.random(steps) for generator in self._generators], axis=1))

    def keep(self, streams: list[int]) -> None:
        """Goes on with these streams alone."""
        self._generators = [self._generators[stream] for stream in streams]


@dataclass
class Stream:
    """One generated text as it grows.

    Args:
        ids: the symbols drawn so far.
        logps: the model's own log-probability of each.
        text: the characters they spell.
        done: whether the length is reached or the stop text came.
        stopped: whether the stop text came.
    """

    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    text: str = ""
    done: bool = False
    stopped: bool = False

    def certain(self, stop: str | None) -> str:
        """The characters that stay, whatever comes next: a stop text that has only begun is held back."""
        hidden = 0 if self.done or not stop else len(stop) - 1
        return self.text[: len(self.text) - hidden]

    @property
    def loop(self) -> int | None:
        """The length of what the text repeats until its end, at least three times and over 100 characters; else None.

        >>> Stream(text="Once more. " * 20).loop, Stream(text="Once more.").loop
        (11, None)
        """
        back, borders = self.text[:-20_001:-1], [0]  # of each beginning its longest end that is a beginning, too
        longest = None
        for at in range(1, len(back)):
            border = borders[-1]
            while border and back[at] != back[border]:
                border = borders[border - 1]
            borders.append(border + (back[at] == back[border]))
            period = at + 1 - borders[-1]
            longest = period if at >= 100 and at + 1 >= 3 * period else longest
        return longest

    @property
    def nats(self) -> float:
        """Mean negative log-probability a symbol."""
        return -math.fsum(self.logps) / len(self.logps) if self.logps else 0.0

    @property
    def score(self) -> float:
        """exp(−nats): the mean probability a symbol, in 0..1."""
        return math.exp(-self.nats)


class _Writer:
    """Turns the symbols of one stream into characters, cut at the length and the stop text."""

    def __init__(self, vocab: Vocab, length: int, stop: str | None) -> None:
        self.stream = Stream()
        self._vocab, self._length, self._stop = vocab, length, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if vocab.byte_fallback else None
        self._begun = 0

    def add(self, ids: list[int], logps: list[float]) -> str:
        """Takes drawn symbols; returns the characters that are certain to stay."""
        shown = len(self.stream.text)
        for id, logp in zip(ids, logps, strict=True):
            self._begun += bool(self._vocab.begins_character[id])
            if self._begun > self._length:
                self._finish()
                break
            self.stream.ids.append(id)
            self.stream.logps.append(logp)
            self.stream.text += self._decode(id)
            if self._stop and self.stream.text.endswith(self._stop):
                self._cut()
                break
            if self._begun == self._length and self._decoder is None:
                self._finish()
                break
        return self.stream.text[shown:]

    def _decode(self, id: int) -> str:
        if self._decoder is None:
            return self._vocab.characters[id]
        return self._decoder.decode(self._vocab.decode_bytes([id]))

    def _finish(self) -> None:
        if self._decoder is not None:
            self.stream.text += self._decoder.decode(b"", final=True)
        self.stream.done = True

    def _cut(self) -> None:
        """Takes the stop text off again."""
        assert self._stop is not None
        self.stream.text = self.stream.text[: -len(self._stop)]
        symbols = len(self._vocab.encode(self._stop))
        del self.stream.ids[-symbols:], self.stream.logps[-symbols:]
        self.stream.done = self.stream.stopped = True


@torch.no_grad()
def generate_streams(
    model: LanguageModel,
    prompt: list[int],
    *,
    length: int = 1000,
    rule: SamplingRule | None = None,
    streams: int = 1,
    seed: int = 0,
    stop: str | None = None,
    chunk: int = 64,
) -> Iterator[list[Stream]]:
    """Generates texts side by side and gives them as they grow: the same list after every chunk, in order.

    Args:
        model: any language model.
        prompt: ids to begin after, at least one.
        length: characters to generate a stream.
        rule: how symbols are drawn; plain sampling by default.
        streams: how many texts.
        seed: of all chance; the same seed gives the same texts whatever `chunk` is.
        stop: a text that ends a stream; it is left out of the result.
        chunk: symbols between two looks.
    """
    rule = rule or SamplingRule()
    if length < 1 or streams < 1:
        raise OptionError(
            f"generation needs a length and a number of streams of at least 1, not {length} and {streams}"
        )
    if stop is not None and (not stop or bool((model.vocab.encode(stop, unknown=True) < 0).any())):
        raise OptionError(
            f"--stop {stop!r} can never come: a stop text has at least one character, and only such as the model knows"
        )
    writers = [_Writer(model.vocab, length, stop) for _ in range(streams)]
    noise, alive = Noise(seed, streams), list(range(streams))
    ids_B, state = _read_prompt(model, prompt, streams)
    while alive:
        steps = min(chunk, length) if model.vocab.byte_fallback is False else chunk
        ids_TB, logp_TB, state = model.generate(ids_B, state, steps, rule, noise.take(steps))
        for lane, stream in enumerate(alive):
            writers[stream].add(ids_TB[:, lane].tolist(), logp_TB[:, lane].tolist())
        ids_B = ids_TB[-1]
        yield [writer.stream for writer in writers]
        going = [lane for lane, stream in enumerate(alive) if not writers[stream].stream.done]
        if len(going) < len(alive):
            kept = torch.tensor(going, dtype=torch.int64)
            ids_B, state = ids_B[kept.to(ids_B.device)], take(state, kept)
            noise.keep(going)
            alive = [alive[lane] for lane in going]


def _read_prompt(model: LanguageModel, prompt: list[int], streams: int) -> tuple[Tensor, State]:
    """The last symbol of the prompt, and the state in which all before it have been read."""
    state = model.initial_state(1)
    ids = torch.tensor(prompt, dtype=torch.int64, device=model.device)
    for piece in torch.split(ids[:-1], 1024) if len(prompt) > 1 else ():
        _, state = model.target_logprobs(piece.unsqueeze(-1), piece.unsqueeze(-1), state)
    return ids[-1:].expand(streams).clone(), take(state, torch.zeros(streams, dtype=torch.int64))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class NextCharacter:
    """How probable each character is after a history.

    Args:
        history: what was read.
        used: the part of it that the model uses; an n-gram model uses the last characters alone.
        vocab: the symbols.
        probabilities: float64[V], the probability of each symbol; NaN throughout where the model is undefined.
        counts: how often each symbol followed the history that was used, by id; None for a model that does not count.
        listed: the ids that are shown, the most probable first, equals in the order of the vocabulary.

    >>> import charlm
    >>> after = charlm.ngram(charlm.Text.of("hello yellow jello " * 9), order=3).next("ell")
    >>> after["o"], after.top(1)
    (1.0, [('o', 1.0)])
    """

    history: str
    used: str
    vocab: Vocab
    probabilities: NDArray[np.float64]
    counts: dict[int, int] | None = None
    listed: list[int] = field(default_factory=list)

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """The k most probable symbols (all by default) with their probabilities; equals in the vocabulary's order."""
        return [(self.vocab.symbol(id), float(self.probabilities[id])) for id in self.listed[:k]]

    def __getitem__(self, character: str) -> float:
        """The probability of one character."""
        if len(character) != 1:
            raise OptionError(f"the probability of one character is asked for by that character, not by {character!r}")
        if character not in self.vocab.characters:
            raise UnknownCharacterError(character[:1] or "\0", 0, len(self.vocab))
        return float(self.probabilities[self.vocab.characters.index(character)])

    def lines(self, top: int | None = None) -> list[str]:
        """The lines that `charlm next` prints."""
        found = []
        if self.used != self.history:
            found.append(f"after {self.used!r}, as much of {self.history!r} as the model uses:")
        total = 0 if self.counts is None else sum(self.counts.values())
        for id in self.listed[:top]:
            counted = "" if self.counts is None else f"  {self.counts.get(id, 0):>9,} of {total:,}"
            found.append(f"{self.vocab.symbol(id)!r:>6}  {self.probabilities[id]:.6f}{counted}")
        return found

    def __repr__(self) -> str:
        lines = self.lines(10)
        left = len(self.listed) - 10
        return "\n".join([*lines, *([f"... {left} more"] if left > 0 else [])])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(repr(symbol))}</code></td><td>{p:.4f}</td>"
            f'<td style="text-align:left"><div style="background:#4c78a8;height:.8em;width:{200 * p:.1f}px">'
            "</div></td></tr>"
            for symbol, p in self.top(10)
        )
        return f"<table><caption>after {html.escape(repr(self.history))}</caption>{rows}</table>"


@torch.no_grad()
def next_character(model: LanguageModel, history: str) -> NextCharacter:
    """Asks a model for the distribution after a history; see `TextModel.next`."""
    if not history:
        raise OptionError("name a history of at least one character, such as ello")
    ids_B, state = _read_prompt(model, model.vocab.encode(history).tolist(), 1)
    logp_TBV, _ = model.logprobs(ids_B.unsqueeze(0), state)
    p_V = logp_TBV[-1, 0].double().exp().cpu().numpy()
    listed = np.argsort(-p_V, kind="stable").tolist()
    return NextCharacter(history=history, used=history, vocab=model.vocab, probabilities=p_V, listed=listed)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The most probable symbols in the place of the first N targets.

    Args:
        ids_NK: int32; the most probable first.
        probability_NK: float32; NaN in the whole row where the model is undefined.
    """

    ids_NK: NDArray[np.int32]
    probability_NK: NDArray[np.float32]


@torch.no_grad()
def expected_next(
    model: LanguageModel,
    ids: Ids,
    spans: Spans,
    *,
    k: int = 5,
    limit: int = 20_000,
    chunk: int = 256,
    progress: OnRead | None = None,
) -> Expected:
    """The k most probable symbols at each of the first `limit` targets; memory grows with k·limit, not with the text.

    Symbols of equal probability come in the order of their ids.
    """
    k = min(k, len(model.vocab))
    found: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
    left = limit
    for start, end in spans.tolist():
        state = model.initial_state(1)
        stop = min(end - 1, start + left)
        for begin in range(start, stop, chunk):
            inputs_T = ids[begin : min(begin + chunk, stop)].astype(np.int64)
            logp_TBV, state = model.logprobs(torch.from_numpy(inputs_T).unsqueeze(-1).to(model.device), state)
            found.append(_most_probable(logp_TBV[:, 0], k))
            if progress is not None:
                progress(len(inputs_T))
        left -= max(0, stop - start)
        if left <= 0:
            break
    ids_NK = np.concatenate([np.zeros((0, k), np.int32), *(ids for ids, _ in found)])
    return Expected(
        ids_NK=ids_NK, probability_NK=np.concatenate([np.zeros((0, k), np.float32), *(p for _, p in found)])
    )


def _most_probable(logp_TV: Tensor, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    order_TK = (-logp_TV).argsort(dim=-1, stable=True)[:, :k]
    probability_TK = logp_TV.gather(-1, order_TK).exp()
    return order_TK.int().cpu().numpy(), probability_TK.float().cpu().numpy()
