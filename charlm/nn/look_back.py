"""Attention of a recurrent network over the last characters: where it stood in a similar place, and what followed.

A recurrent layer keeps what it has read in a few hundred numbers, from which it can hardly spell a name again that it
has met once. Here a bounded number of places is kept beside it, each with a key, and the next symbol is the network's
or a copy of what followed one of these places (Merity et al. 2017, pointer sentinels; Grave et al. 2017, whose cache
was not trained with the network). The weights stay as they are while it reads: what is kept is state.

Axes: T steps, B lanes, M places kept, S = M + T, N last characters, E their width, K width of what is kept of a key,
D features, V symbols.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.nn.kernels.attention import NEVER, Places, last_characters, mixed
from charlm.nn.kernels.reference import check_floats, check_ids

CHARACTERS = 6
"""Of which a key is made."""

_BLOCK = 128
"""Steps whose scores are in memory together."""


class LookBack(nn.Module):
    """Mixes a network's distributions with what followed at places like this one.

    The key of a place has the embedded last N characters side by side, and a linear map of the network's output there.
    A place's score is the product of its key with a query made in the same way, less a learned multiple of ln distance;
    the network itself has a score that is linear in its output. The softmax of all scores says how much each of them
    adds to the probability of its symbol. The weights begin so that a score counts, for each of the last
    characters, whether it is the same in both places.

    Where the text repeats itself (`attention.repeating`) no place is seen: each repetition would be a place more to
    copy from, so that a text which is drawn from the network would never leave a loop.

    What is kept of a place is the linear map and the character. The product of two embeddings is looked up in a table
    of all characters, which is made once a step: a place costs N additions and K products (`kernels/attention.py`).

    Args:
        places: M, how many steps it looks back.
        symbols: V.
        features: D, width of the network's output.
        characters: N, of which a key is made.
        width: E, of one character in a key.
        hidden: width of the output's part of a key.

    >>> look_back, uniform = LookBack(8, 3, 4), torch.full((5, 1, 3), 1 / 3).log()
    >>> ids_TB = torch.tensor([[0], [1], [2], [0], [1]])  # after 0, 1 there was a 2
    >>> logp, keys, ids = look_back(uniform, ids_TB, torch.zeros(5, 1, 4), *look_back.initial_state(1).values())
    >>> logp[0].allclose(uniform[0]), logp[-1].argmax().item(), ids[0, -8:].tolist()
    (True, 2, [-1, -1, -1, 0, 1, 2, 0, 1])
    """

    names = ("back_keys", "back_ids")
    """Of the tensors that it keeps from call to call."""

    def __init__(
        self,
        places: int,
        symbols: int,
        features: int,
        *,
        characters: int = CHARACTERS,
        width: int = 16,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.places, self.symbols, self.characters = places, symbols, characters
        self.query = nn.Parameter(torch.empty(characters, symbols + 1, width))
        self.key = nn.Parameter(torch.empty(characters, symbols + 1, width))
        self.query_map, self.key_map = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.own = nn.Linear(features, 1)
        self.recency = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @property
    def width(self) -> int:
        """K, of the part of a key that is kept: the other part is made of the characters."""
        return self.key_map.out_features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights: queries like keys, a match of one character 2, the network's own score that of 4 matches."""
        with torch.no_grad():
            self.key.normal_(generator=generator)
            self.key.mul_(2**0.5 / self.key.norm(dim=-1, keepdim=True))
            bound = self.key_map.in_features**-0.5
            self.key_map.weight.uniform_(-bound, bound, generator=generator)
            for bias in (self.key_map.bias, self.query_map.bias, self.own.weight):
                bias.zero_()
            self.query.copy_(self.key)
            self.query_map.weight.copy_(self.key_map.weight)
            self.own.bias.fill_(8.0)
            self.recency.fill_(0.3)

    def initial_state(self, lanes: int) -> dict[str, Tensor]:
        """No place is kept: keys [lanes, M, K] of zeros, and -1 for each character, int64 [lanes, N - 1 + M]."""
        keys = self.key.new_zeros(lanes, self.places, self.width)
        ids = torch.full((lanes, self.characters - 1 + self.places), -1, device=keys.device)
        return dict(zip(self.names, (keys, ids), strict=True))

    def without_places(self, state: Mapping[str, Tensor], lanes_B: Tensor) -> dict[str, Tensor]:
        """The characters of a state, forgotten in the lanes where `lanes_B` is true: nothing is looked back on there.

        >>> look_back = LookBack(8, 3, 4)
        >>> state = {"back_ids": torch.tensor([[0, 1], [1, 2]])}
        >>> look_back.without_places(state, torch.tensor([False, True]))["back_ids"].tolist()
        [[0, 1], [-1, -1]]
        """
        name = self.names[1]
        return {name: state[name].masked_fill(lanes_B.to(state[name].device).unsqueeze(1), -1)}

    def check_state(self, state: Mapping[str, Tensor], lanes: int) -> tuple[Tensor, Tensor]:
        """The tensors that it keeps, as a state has them, after a check.

        Raises:
            OptionError: one is missing, or has another type, shape or device.
        """
        if not isinstance(state, Mapping) or any(name not in state for name in self.names):
            raise OptionError(f"the state of this network has the tensors {' and '.join(self.names)} too")
        keys_BMK, ids_BM = (state[name] for name in self.names)
        check_floats(f"the state {self.names[0]}", keys_BMK, (lanes, self.places, self.width), self.key)
        ids_BM = check_ids(ids_BM, self.symbols, self.key.device, dim=2)
        if list(ids_BM.shape) != [lanes, self.characters - 1 + self.places]:
            raise OptionError(
                f"the state {self.names[1]} has the shape {[lanes, self.characters - 1 + self.places]} here, "
                f"not {list(ids_BM.shape)}"
            )
        return keys_BMK, ids_BM

    def forward(
        self,
        logp_TBV: Tensor,
        ids_TB: Tensor,
        y_TBD: Tensor,
        keys_BMK: Tensor,
        ids_BM: Tensor,
        resets_TB: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities [T, B, V], then the keys and the characters of the last M places.

        Args:
            logp_TBV: log-probabilities by the network alone.
            ids_TB: characters read; -1 is unknown, and is neither looked back on nor copied.
            y_TBD: the network's output.
            keys_BMK, ids_BM: the places kept so far.
            resets_TB: bool; a lane forgets all places before the step where it is true.
        """
        ids_TB = check_ids(ids_TB, self.symbols, self.key.device, dim=2)
        ids_BM = check_ids(ids_BM, self.symbols, self.key.device, dim=2)
        found = []
        for begin in range(0, len(ids_TB), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            resets = None if resets_TB is None else resets_TB[part]
            logp, keys_BMK, ids_BM = self._block(logp_TBV[part], ids_TB[part], y_TBD[part], keys_BMK, ids_BM, resets)
            found.append(logp)
        return (torch.cat(found) if found else logp_TBV), keys_BMK, ids_BM

    def _block(
        self,
        logp_TBV: Tensor,
        ids_TB: Tensor,
        y_TBD: Tensor,
        keys_BMK: Tensor,
        ids_BM: Tensor,
        resets_TB: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, ids_BS = len(ids_TB), torch.cat([ids_BM, ids_TB.t()], 1)
        piece_BS = torch.zeros_like(ids_BS)
        if resets_TB is not None:
            piece_BS[:, -steps:] = resets_TB.t().cumsum(1)
        y_BTD = y_TBD.transpose(0, 1)
        key_BTK, query_BTK = self.key_map(y_BTD), self.query_map(y_BTD)
        keys_BSK, own_BT = torch.cat([keys_BMK, key_BTK], 1), self.own(y_BTD).squeeze(-1)
        given = logp_TBV, own_BT, query_BTK, self._table(ids_BS, piece_BS, steps), self._bias(-steps, steps)
        logp_TBV = mixed(*given, (keys_BMK, key_BTK, keys_BSK), ids_BS, piece_BS)
        kept_BS = ids_BS.masked_fill(piece_BS != piece_BS[:, -1:], -1)
        return logp_TBV, keys_BSK[:, -self.places :], kept_BS[:, steps:].contiguous()

    def _table(self, ids_BS: Tensor, piece_BS: Tensor, steps: int) -> Tensor:
        """What a character n places before a place adds to its score at each step: [B, N, V + 1, T]."""
        last_BTN = last_characters(ids_BS, piece_BS, steps, self.characters, self.symbols)
        last_BTN = last_BTN + (self.symbols + 1) * torch.arange(self.characters, device=ids_BS.device)
        query_BTNE = F.embedding(last_BTN, self.query.flatten(0, 1))
        return self.key @ query_BTNE.permute(0, 2, 3, 1)

    def _bias(self, least: int, beyond: int = 1) -> Tensor:
        """What is added to the score of a place so many steps before, from the least to M + `beyond` - 1."""
        distance = torch.arange(least, self.places + beyond, device=self.recency.device)
        bias = -self.recency * distance.clamp(min=1).to(self.recency.dtype).log()
        return bias.masked_fill((distance < 1) | (distance > self.places), NEVER)

    @property
    def maps(self) -> list[nn.Linear]:
        """The linear maps of the network's output."""
        return [self.query_map, self.key_map, self.own]

    def open_places(self, keys_BMK: Tensor, ids_BM: Tensor, steps: int) -> Places:
        """The places that so many steps of a compiled generation go on from."""
        return Places.of(keys_BMK, ids_BM, steps, query=self.query, key=self.key, distance=self._bias(1).flip(0))
