"""Attention over the last places of a text, as `charlm.nn.look_back` defines it: in torch, and compiled (look_back.h).

Axes: T steps, B lanes, M places kept, S = M + T (in `ids_BS` and `piece_BS` N - 1 more), N last characters, E their
width, K numbers of a key, V symbols, C places that there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.nn.kernels import compiled, loops
from charlm.nn.kernels.compiled import Look, address

PERIODS = 256
"""The longest period of a text that repeats itself, in which nothing is looked back on."""
_LOOP = 12
"""Characters at least that such a text has repeated."""
NEVER = -1e9
"""The score of a place that cannot be looked at."""
_LEAST = 1e-30
"""A probability that float32 still holds."""
_SPARE = 512
"""Places more than M that a generation has room for, before it moves them."""


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
    score_BTS = score_BTS.masked_fill(hidden_BTS, NEVER)  # whatever number a hidden key has
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
        out, *kept = _call(given, ids_BS, first_BT, keep=any(ctx.needs_input_grad))
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
            out, shares, mass = _call(tuple(given), ids_BS, first_BT, keep=True)
        ctx.used = True
        *found, keys_grad = _call_back(tuple(given), ids_BS, first_BT, (out, shares, mass), grad_TBV, old=old)
        return *found, keys_grad[:, :-steps] if old else None, keys_grad[:, -steps:], None, None, None


def _job(given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None) -> Look:
    """What both ways have in common."""
    logp_TBV, own_BT, query_BTK, table_BNVT, bias_D, keys_BSK = given
    (steps, lanes, symbols), (places, width), dtype = logp_TBV.shape, keys_BSK.shape[1:], logp_TBV.dtype
    characters = table_BNVT.shape[1]
    job = Look(steps=steps, lanes=lanes, places=places - steps, width=width, characters=characters, symbols=symbols)
    job.threads, job.first = torch.get_num_threads(), address(first_BT, torch.int64, lanes, steps)
    job.table = address(table_BNVT, dtype, lanes, characters, symbols + 1, steps)
    job.logp, job.own = address(logp_TBV, dtype, steps, lanes, symbols), address(own_BT, dtype, lanes, steps)
    job.query, job.keys = address(query_BTK, dtype, lanes, steps, width), address(keys_BSK, dtype, lanes, places, width)
    job.bias = address(bias_D, dtype, places + steps)
    job.ids = address(ids_BS, torch.int64, lanes, characters - 1 + places)
    return job


def _run(name: str, job: Look, like: Tensor) -> None:
    suffix = loops.SUFFIX[like.dtype]
    job.room = loops.room("look", job.threads * compiled.look_room(suffix, job), like).data_ptr()
    compiled.call(f"{name}_{suffix}", job)


def _call(given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None, *, keep: bool) -> tuple[Tensor, ...]:
    """Log-probabilities [T, B, V]; and to `keep` for the way back the shares of the places [B, S, T], and the mass of
    each symbol and of the network itself [B, V + 1, T]."""
    job, out = _job(given, ids_BS, first_BT), torch.empty_like(given[0])
    (steps, lanes, symbols), places = out.shape, given[5].shape[1]
    kept = (out.new_empty(lanes, places, steps), out.new_empty(lanes, symbols + 1, steps)) if keep else ()
    job.out = out.data_ptr()
    if kept:
        job.shares, job.mass = (tensor.data_ptr() for tensor in kept)
    _run("look", job, out)
    return out, *kept


def _call_back(
    given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None, kept: tuple[Tensor, Tensor, Tensor],
    grad_TBV: Tensor, *, old: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of what was given; that of the keys is of all places if `old`, else of those of these steps."""
    job, (out, shares, mass) = _job(given, ids_BS, first_BT), kept
    logp_grad, own_grad, query_grad, table_grad = (torch.empty_like(tensor) for tensor in given[:4])
    bias_grad = out.new_empty(len(ids_BS), len(given[4]))
    keys_grad = torch.empty_like(given[5] if old else query_grad)
    grad_TBV = grad_TBV.resolve_neg().contiguous()
    job.out, job.grad, job.old_keys = out.data_ptr(), address(grad_TBV, out.dtype, *out.shape), int(old)
    job.shares, job.mass = shares.data_ptr(), mass.data_ptr()
    job.logp_grad, job.own_grad, job.query_grad = logp_grad.data_ptr(), own_grad.data_ptr(), query_grad.data_ptr()
    job.table_grad, job.bias_grad, job.keys_grad = table_grad.data_ptr(), bias_grad.data_ptr(), keys_grad.data_ptr()
    _run("look_grad", job, out)
    return logp_grad, own_grad, query_grad, table_grad, bias_grad.sum(0), keys_grad


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places that a compiled generation looks back on, and what makes their scores; the first three change.

    Args:
        keys: [B, K, C].
        ids: [B, N - 1 + C], V for an unknown character.
        ends: int64 [B], behind the last place of each lane.
        query_table: [N, V + 1, E].
        key_table: [N, E, V + 1 rounded up to a vector].
        distance: [M], what is added to each score.
    """

    keys: Tensor
    ids: Tensor
    ends: Tensor
    query_table: Tensor
    key_table: Tensor
    distance: Tensor

    @classmethod
    def of(
        cls, keys_BMK: Tensor, ids_BM: Tensor, steps: int, *, query: Tensor, key: Tensor, distance: Tensor
    ) -> Places:
        """From the keys and the characters kept, for a generation of so many steps.

        Args:
            keys_BMK, ids_BM: as of `LookBack.initial_state`.
            steps: of which most are moved only once.
            query, key: embeddings [N, V + 1, E].
            distance: [M], the last place last.
        """
        used = compiled.library()
        assert used is not None
        lanes, places, width = keys_BMK.shape
        unknown, spare = key.shape[1] - 1, min(steps, max(_SPARE, places))
        keys = keys_BMK.new_zeros(lanes, width, places + spare)
        keys[:, :, :places] = keys_BMK.transpose(1, 2)
        known_BM = torch.where(ids_BM < 0, unknown, ids_BM)
        return cls(
            keys=keys,
            ids=F.pad(known_BM, (0, spare), value=unknown),
            ends=torch.full((lanes,), places),
            query_table=query.detach().contiguous(),
            key_table=F.pad(key.detach().transpose(1, 2), (0, -(unknown + 1) % used.floats)).contiguous(),
            distance=distance.detach().contiguous(),
        )

    def job(self, threads: int) -> tuple[dict[str, int], dict[str, Tensor]]:
        """The numbers and the tensors that `struct generation` has of it."""
        _, key, keep = self.keys.shape
        characters, width, wide = self.key_table.shape
        numbers = {"places": len(self.distance), "keep": keep, "key": key, "width": width, "characters": characters}
        room = self.keys.new_empty(threads, len(self.distance) + (characters + 1) * wide + 16)
        tensors = {"back_keys": self.keys, "back_ids": self.ids, "ends": self.ends, "query_table": self.query_table}
        return numbers, {**tensors, "key_table": self.key_table, "distance": self.distance, "room": room}

    def kept(self) -> tuple[Tensor, Tensor]:
        """The keys and the characters of the last M places, as `LookBack.initial_state` has them."""
        places, unknown, end = len(self.distance), self.query_table.shape[1] - 1, int(self.ends[0])
        before = self.ids.shape[1] - self.keys.shape[2]
        ids_BM = self.ids[:, end - places : end + before]
        keys_BMK = self.keys[:, :, end - places : end].transpose(1, 2).contiguous()
        return keys_BMK, ids_BM.masked_fill(ids_BM == unknown, -1)
