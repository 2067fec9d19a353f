"""The distribution of the next character after a history, for a person to read."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import OptionError, UnknownCharacterError
from charlm.lm.interface import LanguageModel
from charlm.text.vocab import Vocab

__all__ = ["NextCharacter", "next_character"]


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
    ids = torch.tensor(model.vocab.encode(history).tolist(), device=model.device).unsqueeze(-1)
    state = model.initial_state(1)
    for piece in torch.split(ids[:-1], 1024) if len(ids) > 1 else ():
        _, state = model.target_logprobs(piece, piece, state)
    logp_TBV, _ = model.logprobs(ids[-1:], state)
    p_V = logp_TBV[-1, 0].double().exp().cpu().numpy()
    listed = np.argsort(-p_V, kind="stable").tolist()
    return NextCharacter(history=history, used=history, vocab=model.vocab, probabilities=p_V, listed=listed)
