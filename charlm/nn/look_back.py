"""Attention of a recurrent network over the last characters: where it stood in a similar place, and what followed; in
torch, and compiled (look_back.h).

A recurrent layer keeps what it has read in a few hundred numbers, from which it can hardly spell a name again that it
has met once. Here a bounded number of places is kept beside it, each with a key, and the next symbol is the network's
or a copy of what followed one of these places (Merity et al. 2017, pointer sentinels; Grave et al. 2017, whose cache
was not trained with the network). The weights stay as they are while it reads: what is kept is state.

Axes: T steps, B lanes, M places kept, S = M + T (in `ids_BS` and `piece_BS` N - 1 more), N last characters, E their
width, K width of what is kept of a key, D features, V symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.nn.kernels import compiled
from charlm.nn.kernels.generate import Places
from charlm.nn.kernels.reference import check_floats, check_ids

CHARACTERS = 6
"""Of which a key is made."""

_BLOCK = 128
"""Steps whose scores are in memory together."""
PERIODS = 256
"""The longest period of a text that repeats itself, in which nothing is looked back on."""
_LOOP = 12
"""Characters at least that such a text has repeated."""
_NEVER = -1e9
"""The score of a place that cannot be looked at."""
_LEAST = 1e-30
"""A probability that float32 still holds."""
_SPARE = 512
"""Places more than M that a generation has room for, before it moves them."""


class LookBack(nn.Module):
    """Mixes a network's distributions with what followed at places like this one.

    The key of a place has the embedded last N characters side by side, and a linear map of the network's output there.
    A place's score is the product of its key with a query made in the same way, less a learned multiple of ln distance;
    the network itself has a score that is linear in its output. The softmax of all scores says how much each of them
    adds to the probability of its symbol. The weights begin so that a score counts, for each of the last
    characters, whether it is the same in both places.

    Where the text repeats itself (`repeating`) no place is seen: each repetition would be a place more to
    copy from, so that a text which is drawn from the network would never leave a loop.

    What is kept of a place is the linear map and the character. The product of two embeddings is looked up in a table
    of all characters, which is made once a step: a place costs N additions and K products.

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
            steps, ids_BS = len(ids_TB[part]), torch.cat([ids_BM, ids_TB[part].t()], 1)
            piece_BS = torch.zeros_like(ids_BS)
            if resets_TB is not None:
                piece_BS[:, -steps:] = resets_TB[part].t().cumsum(1)
            y_BTD = y_TBD[part].transpose(0, 1)
            key_BTK, query_BTK, own_BT = self.key_map(y_BTD), self.query_map(y_BTD), self.own(y_BTD).squeeze(-1)
            keys_BSK = torch.cat([keys_BMK, key_BTK], 1)
            table_BNVT, bias_D = self._table(ids_BS, piece_BS, steps), self._bias(-steps, steps)
            keys = keys_BMK, key_BTK, keys_BSK
            found.append(mixed(logp_TBV[part], own_BT, query_BTK, table_BNVT, bias_D, keys, ids_BS, piece_BS))
            keys_BMK = keys_BSK[:, -self.places :]
            ids_BM = ids_BS.masked_fill(piece_BS != piece_BS[:, -1:], -1)[:, steps:].contiguous()
        return (torch.cat(found) if found else logp_TBV), keys_BMK, ids_BM

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
        return bias.masked_fill((distance < 1) | (distance > self.places), _NEVER)

    @property
    def maps(self) -> list[nn.Linear]:
        """The linear maps of the network's output."""
        return [self.query_map, self.key_map, self.own]

    def open_places(self, keys_BMK: Tensor, ids_BM: Tensor, steps: int) -> Places:
        """The places that so many steps of a compiled generation go on from."""
        used = compiled.library()
        assert used is not None
        spare = min(steps, max(_SPARE, self.places))
        known_BM = torch.where(ids_BM < 0, self.symbols, ids_BM)
        key_NEV = self.key.detach().transpose(1, 2)
        return Places(
            keys=F.pad(keys_BMK.transpose(1, 2), (0, spare)).contiguous(),
            ids=F.pad(known_BM, (0, spare), value=self.symbols),
            ends=torch.full((len(ids_BM),), self.places),
            query_table=self.query.detach().contiguous(),
            key_table=F.pad(key_NEV, (0, -(self.symbols + 1) % used.floats)).contiguous(),
            distance=self._bias(1).flip(0).detach().contiguous(),
        )


def last_characters(ids_BS: Tensor, piece_BS: Tensor, places: int, characters: int, unknown: int) -> Tensor:
    """The last N characters at each of the last places [B, places, N]; `unknown` where none is known.

    >>> last_characters(torch.tensor([[7, 8, -1, 9]]), torch.zeros(1, 4), 2, 3, 99).tolist()
    [[[99, 8, 7], [9, 99, 8]]]
    """
    found, before = [], ids_BS.shape[1] - places
    for back in range(characters):
        ids, piece = (x[:, before - back : before - back + places] for x in (ids_BS, piece_BS))
        found.append(torch.where((ids >= 0) & (piece == piece_BS[:, before:]), ids, unknown))
    return torch.stack(found, -1)


def repeating(ids_BS: Tensor, piece_BS: Tensor, most: int) -> Tensor:
    """Whether the text up to each place repeats itself [B, S]: its last max(p, 12) characters also stand p places
    before, for a period p of at most 256.

    Args:
        ids_BS: characters; -1 is unknown, and equals none.
        piece_BS: only characters of the same piece are looked at.
        most: characters that are looked at, back from each place.

    >>> ids = torch.tensor([[1, 2] * 7 + [3]])
    >>> repeating(ids, torch.zeros_like(ids), 99).int().tolist()
    [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]]
    """
    place_S, found_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device), torch.zeros_like(ids_BS, dtype=torch.bool)
    for period in range(1, PERIODS + 1):
        needed = max(period, _LOOP)
        if needed + period > min(most, len(place_S)):
            break
        same_BS = torch.zeros_like(found_BS)
        same_BS[:, period:] = (ids_BS[:, period:] == ids_BS[:, :-period]) & (ids_BS[:, period:] >= 0)
        same_BS[:, period:] &= piece_BS[:, period:] == piece_BS[:, :-period]
        other_BS = torch.where(same_BS, -1, place_S).cummax(1).values  # the last place that differs
        found_BS |= place_S - other_BS >= needed
    return found_BS


def mixed(
    logp_TBV: Tensor, own_BT: Tensor, query_BTK: Tensor, table_BNVT: Tensor, bias_D: Tensor,
    keys: tuple[Tensor, Tensor, Tensor], ids_BS: Tensor, piece_BS: Tensor,
) -> Tensor:  # fmt: skip
    """Log-probabilities [T, B, V] of the network and of what followed the places, compiled where that is there.

    Args:
        logp_TBV: by the network alone.
        own_BT: its own score.
        query_BTK: of the steps.
        table_BNVT: what a character n places before a place adds to its score.
        bias_D: what is added to the score of a place d steps before, [M + 2 T], at d + T.
        keys: of the M places kept before, of these steps, and all of them side by side.
        ids_BS: the characters read at the places, and N - 1 before them; the caller has checked that they are in range.
        piece_BS: whole numbers that never fall; a place can be seen from those of the same number.
    """
    given = logp_TBV, own_BT, query_BTK, table_BNVT, bias_D
    if not compiled.fits(logp_TBV) or torch._C._are_functorch_transforms_active():  # as autograd.Function asks itself
        return _mixed(*given, keys[2], ids_BS, piece_BS)
    apply: Any = _Compiled.apply
    found: Tensor = apply(*given, *keys[:2], keys[2].detach(), ids_BS, piece_BS)
    return found


def _mixed(
    logp_TBV: Tensor, own_BT: Tensor, query_BTK: Tensor, table_BNVT: Tensor, bias_D: Tensor, keys_BSK: Tensor,
    ids_BS: Tensor, piece_BS: Tensor,
) -> Tensor:  # fmt: skip
    """`mixed` by the formulas."""
    (steps, _, symbols), places, characters = logp_TBV.shape, keys_BSK.shape[1], table_BNVT.shape[1]
    last_BSN = last_characters(ids_BS, piece_BS, places, characters, symbols)
    alone_BT = repeating(ids_BS, piece_BS, places - steps + characters)[:, -steps:]
    ids_BS, piece_BS = ids_BS[:, -places:], piece_BS[:, -places:]
    at_TS = places + torch.arange(steps, device=bias_D.device).unsqueeze(1) - torch.arange(places, device=bias_D.device)
    hidden_BTS = (piece_BS[:, -steps:].unsqueeze(2) != piece_BS.unsqueeze(1)) | (ids_BS < 0).unsqueeze(1)
    hidden_BTS = hidden_BTS | (ids_BS.roll(-1, 1) < 0).unsqueeze(1) | alone_BT.unsqueeze(2)
    score_BTS = torch.baddbmm(bias_D[at_TS], query_BTK, keys_BSK.transpose(1, 2))
    for n in range(characters):
        rows_BST = last_BSN[..., n].unsqueeze(-1).expand(-1, -1, steps)
        score_BTS = score_BTS + table_BNVT[:, n].gather(1, rows_BST).transpose(1, 2)
    score_BTS = score_BTS.masked_fill(hidden_BTS, _NEVER)  # whatever number a hidden key has
    share_BTS = torch.cat([own_BT.unsqueeze(-1), score_BTS], -1).softmax(-1)  # its first place is the network's own
    follower_BS = F.pad(ids_BS.roll(-1, 1).clamp(min=0), (1, 0), value=symbols)
    mass_BTV = torch.bmm(share_BTS, F.one_hot(follower_BS, symbols + 1).to(share_BTS.dtype))
    log_BTV = mass_BTV.clamp(min=_LEAST).log()
    return torch.logaddexp(logp_TBV.transpose(0, 1) + log_BTV[..., -1:], log_BTV[..., :-1]).transpose(0, 1)


class _Compiled(torch.autograd.Function):
    """`_mixed` by look_back.h."""

    @staticmethod
    def forward(
        ctx: Any, logp_TBV: Tensor, own_BT: Tensor, query_BTK: Tensor, table_BNVT: Tensor, bias_D: Tensor,
        keys_BMK: Tensor, key_BTK: Tensor, keys_BSK: Tensor, ids_BS: Tensor, piece_BS: Tensor,
    ) -> Tensor:  # fmt: skip
        tensors = (logp_TBV, own_BT, query_BTK, table_BNVT, bias_D, keys_BSK)
        given = tuple(tensor.resolve_neg().contiguous() for tensor in tensors)
        first_BT = None
        if bool(piece_BS[:, -1].any()):  # a step sees the places from the last change of pieces on
            first_BT = torch.searchsorted(piece_BS, piece_BS[:, -len(logp_TBV) :].contiguous())
            first_BT -= ids_BS.shape[1] - keys_BSK.shape[1]
        out, *kept = compiled.look(given, ids_BS, first_BT, keep=any(ctx.needs_input_grad))
        ctx.used = not kept
        ctx.save_for_backward(*given, ids_BS, piece_BS, first_BT, keys_BMK, key_BTK, out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad_TBV: Tensor) -> tuple[Tensor | None, ...]:
        *given, ids_BS, piece_BS, first_BT, keys_BMK, key_BTK, out, shares, mass = ctx.saved_tensors
        old, steps = ctx.needs_input_grad[5], len(out)
        if torch.is_grad_enabled():  # a second derivative is wanted
            into = [*given[:5], keys_BMK, key_BTK]
            wanted = [tensor for tensor, needed in zip(into, ctx.needs_input_grad, strict=False) if needed]
            logp, own, query, table, bias, _ = given
            again = _mixed(logp, own, query, table, bias, torch.cat([keys_BMK, key_BTK], 1), ids_BS, piece_BS)
            second = iter(torch.autograd.grad(again, wanted, grad_TBV, create_graph=True))
            return *(next(second) if needed else None for needed in ctx.needs_input_grad[:7]), None, None, None
        if ctx.used:  # the way back was gone before, which leaves no shares behind
            out, shares, mass = compiled.look(tuple(given), ids_BS, first_BT, keep=True)
        ctx.used = True
        *found, keys_grad = compiled.look_grad(tuple(given), ids_BS, first_BT, (out, shares, mass), grad_TBV, old=old)
        return *found, keys_grad[:, :-steps] if old else None, keys_grad[:, -steps:], None, None, None
