"""The cache: an n-gram model of what it has read itself, made for mixtures.

It begins with nothing and counts as it goes. It knows the names and turns of the text at hand and nothing else, which
is what a model of other texts lacks (Kuhn and De Mori 1990, A cache-based natural language model for speech
recognition).

Axes: T steps, B lanes, V symbols, N places of what was read, K + 1 orders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.lm.interface import State
from charlm.lm.model import TextModel
from charlm.text.vocab import Vocab


class CacheLM(TextModel):
    """Counts of the lane's own past, interpolated over all orders as Witten and Bell (1991) do, from uniform upwards.

    The state holds the symbols `read` [B, N], how many there are (`length` [B]), and for each place how many
    symbols before it agree with the newest ones (`match` [B, N], at most `order`): the symbols that stand at places
    of a match of k or more have followed the last k symbols, which is all that counting needs.

    Args:
        vocab: the symbols; one that it does not hold is read as one never seen, and counted nowhere.
        order: characters of history, 0 to 32.
        memory: the number of newest symbols that are kept; the time of a step grows in proportion to it.

    >>> model = CacheLM(Vocab.of("ab"), order=1)
    >>> logp, _ = model.logprobs(torch.tensor([[0], [1], [0]]), model.initial_state(1))
    >>> [round(p, 4) for p in logp.exp()[:, 0, 0].tolist()]  # of a, behind a, ab and aba
    [0.75, 0.5, 0.3]
    """

    kind = "cache"
    is_adaptive = True

    def __init__(self, vocab: Vocab, *, order: int = 5, memory: int = 1 << 18) -> None:
        if not 0 <= order <= 32:
            raise OptionError(f"a cache has an order from 0 to 32 characters of history, not {order}")
        if memory < 1:
            raise OptionError(f"a cache remembers at least 1 character, not {memory}")
        self.vocab, self.order, self.memory = vocab, order, memory

    def __repr__(self) -> str:
        return f"CacheLM(order {self.order}, {len(self.vocab)} symbols, the last {self.memory:,} read)"

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return {"order": self.order, "memory": self.memory}

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes nothing: a cache begins empty."""
        return {}

    @property
    def device(self) -> torch.device:
        """Counting happens on the CPU."""
        return torch.device("cpu")

    def initial_state(self, lanes: int) -> State:
        """Nothing read."""
        return {
            "read": torch.zeros((lanes, 0), dtype=torch.int32),
            "match": torch.zeros((lanes, 0), dtype=torch.uint8),
            "length": torch.zeros(lanes, dtype=torch.int64),
        }

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`; float64."""
        steps, lanes = ids_TB.shape
        lengths_B = state["length"].tolist()
        room = min(self.memory, max(lengths_B, default=0) + steps)
        wider = (0, max(0, room - state["read"].shape[1]))  # padding copies, so that the given state stays as it is
        read_BN, match_BN = (F.pad(state[name], wider).numpy() for name in ("read", "match"))
        rows_TBV = np.empty((steps, lanes, len(self.vocab)))
        for lane, ids_T in enumerate(ids_TB.T.tolist()):
            past = _Past(read_BN[lane], match_BN[lane], lengths_B[lane], self.order, len(self.vocab))
            for step, symbol in enumerate(ids_T):
                past.read_on(symbol)
                rows_TBV[step, lane] = past.row()
            lengths_B[lane] = past.length
        found = {"read": torch.from_numpy(read_BN), "match": torch.from_numpy(match_BN)}
        return torch.from_numpy(np.log(rows_TBV)), {**found, "length": torch.tensor(lengths_B, dtype=torch.int64)}


class _Past:
    """What one lane has read, in arrays that are changed in place."""

    def __init__(
        self, read_N: NDArray[np.int32], match_N: NDArray[np.uint8], length: int, order: int, symbols: int
    ) -> None:
        self._read_N, self._match_N, self.length = read_N, match_N, length
        self._order, self._symbols = order, symbols
        read_N = read_N[:length]
        self._single_V = np.bincount(read_N[read_N >= 0], minlength=symbols)

    def read_on(self, symbol: int) -> None:
        """Appends a symbol, and removes the oldest one where the memory is full."""
        read_N, match_N = self._read_N, self._match_N
        if self.length == len(read_N):
            if read_N[0] >= 0:
                self._single_V[read_N[0]] -= 1
            read_N[:-1], match_N[:-1] = read_N[1:].copy(), match_N[1:].copy()
            self.length -= 1
            near = min(self._order, self.length)  # what lies before the oldest symbol agrees with nothing any more
            match_N[:near] = np.minimum(match_N[:near], np.arange(near, dtype=np.uint8))
        end = self.length
        read_N[end] = symbol
        if symbol >= 0:  # place i is behind the symbol at i - 1
            self._single_V[symbol] += 1
            longer_N = np.minimum(match_N[:end] + np.uint8(1), self._order)
            match_N[1 : end + 1] = longer_N * (read_N[:end] == symbol)
        else:
            match_N[1 : end + 1] = 0
        match_N[0] = 0
        self.length = end + 1

    def row(self) -> NDArray[np.float64]:
        """The probabilities of the next symbol, [V]."""
        row_V = np.full(self._symbols, 1 / self._symbols)
        for counts_V in self._counts():
            total = counts_V.sum()
            if not total:
                break
            kinds = np.count_nonzero(counts_V)
            row_V = (counts_V + kinds * row_V) / (total + kinds)
        return row_V

    def _counts(self) -> NDArray[np.int64]:
        """How often each symbol followed the newest 0, 1, ... symbols, [K + 1, V]."""
        places = np.flatnonzero(self._match_N[: self.length])
        followed, match = self._read_N[places], self._match_N[places].astype(np.int64)
        cells = (match * self._symbols + followed)[followed >= 0]
        counts_KV = np.bincount(cells, minlength=(self._order + 1) * self._symbols).reshape(-1, self._symbols)
        counts_KV = counts_KV[::-1].cumsum(0)[::-1]  # a match of k is one of k - 1 too
        counts_KV[0] = self._single_V
        return counts_KV
