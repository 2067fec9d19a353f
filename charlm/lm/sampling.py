"""Generating text from any language model: prompts, stop texts, many streams, and the same text for the same seed.

Axes: B streams.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import LanguageModel, SamplingRule, State, take
from charlm.text.vocab import Vocab

__all__ = ["Noise", "Stream", "generate_streams"]


class Noise:
    """Uniform numbers in [0, 1), a generator of its own for each stream.

    Stream b of seed s draws the same numbers however many streams there are beside it.

    >>> alone, together = Noise(0, 1), Noise(0, 3)
    >>> bool((alone.take(5)[:, 0] == together.take(5)[:, 0]).all())
    True
    """

    def __init__(self, seed: int, streams: int) -> None:
        self._generators = [np.random.default_rng([seed, stream]) for stream in range(streams)]

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
    """

    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    text: str = ""
    done: bool = False

    def certain(self, stop: str | None) -> str:
        """The characters that stay, whatever comes next: a stop text that has only begun is held back."""
        hidden = 0 if self.done or not stop else len(stop) - 1
        return self.text[: len(self.text) - hidden]

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
        self.stream.done = True


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
