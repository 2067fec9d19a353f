"""Generation on a CPU as one call a chunk: layers, head, draw, and the drawn symbol read again, all in C.

Weights may have 16 or 8 bits, as `charlm.tensors.quantised` defines them.
Axes: T steps, B lanes, G gates, H units, V symbols, R rows and K columns of a matrix.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from charlm.nn.kernels import compiled, loops
from charlm.nn.kernels.reference import check_draws, check_floats, check_ids, input_rows, split_biases
from charlm.tensors import Bits, made_from

_CODE: dict[type[Cell], int] = {RNNCell: 1, GRUCell: 3, LSTMCell: 4}
PIECE = 32  # steps, an even number: two buffers of h change places every step


class Pace:
    """Which team has lately been faster: one thread or all. The slower one is tried again after fifty times as
    long as it last took, so that trying costs a fiftieth at most.

    >>> pace = Pace()
    >>> pace.note(1, 9.0, 8), pace.note(2, 5.0, 8), pace.team(2)
    (None, None, 2)
    """

    def __init__(self) -> None:
        self.step: dict[int, float] = {}
        self.piece: dict[int, float] = {}
        self.since = 0.0

    def team(self, threads: int) -> int:
        """How many threads the next piece gets: 1, or this many."""
        for untried in {1, threads} - set(self.step):
            return untried
        slower, faster = sorted((1, threads), key=lambda n: -self.step[n])
        return slower if self.since > 50 * self.piece[slower] else faster

    def note(self, threads: int, seconds: float, steps: int) -> None:
        """Takes down what a piece of so many steps took with so many threads."""
        slower = max(self.step, key=lambda n: self.step[n], default=0)
        self.since = 0.0 if threads == slower else self.since + seconds
        self.step[threads], self.piece[threads] = seconds / steps, seconds


@dataclass(frozen=True, kw_only=True)
class Panels:
    """A matrix in panels, and where it holds whole numbers the scale of each of their columns."""

    numbers: Tensor
    scales: Tensor | None = None

    @property
    def job(self) -> compiled.Weights:
        """For C; valid as long as this object."""
        scales = None if self.scales is None else self.scales.data_ptr()
        return compiled.Weights(self.numbers.data_ptr(), scales, 8 * self.numbers.element_size())


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A model's weights as `generate` wants them; made by `pack`.

    Args:
        code: which cell, as in generate.h.
        hidden: H.
        symbols: V.
        rows: [V + 1, GH] the input's part of the first layer's gates.
        recurrent: a layer each, W_hh.
        below: a layer each but the first, W_ih.
        bias: a layer each but the first, [GH].
        bias_n: a layer each, the GRU's [H].
        head: the panels of the output's weights, V rows and those of what else is made of the top layer's output.
        head_bias: as many, rounded up to two vectors.
        pace: how fast its generation went lately.
    """

    code: int
    hidden: int
    symbols: int
    rows: Tensor
    recurrent: list[Panels]
    below: list[Panels | None]
    bias: list[Tensor | None]
    bias_n: list[Tensor | None]
    head: Tensor
    head_bias: Tensor
    pace: Pace = field(default_factory=Pace)

    @property
    def bytes(self) -> int:
        """What is read for every character."""
        matrices = [*self.recurrent, *(panels for panels in self.below if panels is not None)]
        return self.head.nbytes + sum(panels.numbers.nbytes for panels in matrices)


def _panels(weight_RK: Tensor, gates: int, units: int) -> Tensor:
    """[panel][k][gate][unit] of a matrix whose rows are [gate][unit], filled up with zeros."""
    width = weight_RK.shape[1]
    weight_GUK = weight_RK.view(gates, -1, width)
    padded = nn.functional.pad(weight_GUK, (0, 0, 0, -weight_GUK.shape[1] % units))
    return padded.view(gates, -1, units, width).permute(1, 3, 0, 2).contiguous().flatten()


def _packed_matrix(weight_RK: Tensor, gates: int, units: int, bits: Bits) -> Panels:
    """In whole numbers where the matrix was made from such, so that packing never changes a weight; else in float32."""
    whole = None if bits == 32 else made_from(weight_RK, bits)
    if whole is None:
        return Panels(numbers=_panels(weight_RK, gates, units))
    return Panels(numbers=_panels(whole[0], gates, units), scales=_panels(whole[1].unsqueeze(1), gates, units))


_kept: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, Packed]] = weakref.WeakKeyDictionary()


def pack(
    model: nn.Module, cells: list[Cell], table: Tensor | None, heads: Sequence[nn.Linear], bits: Bits = 32
) -> Packed:
    """The packed weights of a model; made again only when a weight has changed since the last call.

    A hash of all weights decides, whoever has changed them and how: it costs what one step of one lane costs.

    Args:
        model: whose weights these are; what is kept is kept for it.
        cells: the layers, from the ids upwards; one direction, no projection, float32 on the CPU.
        table: the embedding; None for one-hot.
        heads: the map to V logits, and others of the same input.
        bits: of the recurrent layers' weights, where `rounded` has made them of so many; the numbers are the same.
    """
    weights = [*(p for module in (*cells, *heads) for p in module.parameters()), *([] if table is None else [table])]
    hashes = ((p.shape, loops.hash_of(p.detach().contiguous())) for p in weights)
    key = (compiled.target(), bits, *hashes)
    if model not in _kept or _kept[model][0] != key:
        _kept[model] = key, _pack(cells, table, heads, bits)
    return _kept[model][1]


def _pack(cells: list[Cell], table: Tensor | None, heads: Sequence[nn.Linear], bits: Bits) -> Packed:
    used = compiled.library()
    assert used is not None
    first, floats = cells[0], used.floats
    units = floats * (2 if isinstance(first, RNNCell) else 1)
    biases = [split_biases(cell) for cell in cells]
    bias_O = torch.cat([torch.zeros(head.out_features) if head.bias is None else head.bias for head in heads])
    return Packed(
        code=_CODE[type(first)],
        hidden=first.hidden,
        symbols=heads[0].out_features,
        rows=input_rows(first, table, biases[0][0]).contiguous(),
        recurrent=[_packed_matrix(cell.weight_hh, cell.gates, units, bits) for cell in cells],
        below=[None, *(_packed_matrix(cell.weight_ih, cell.gates, units, bits) for cell in cells[1:])],
        bias=[bias_G for bias_G, _ in biases],
        bias_n=[None if bias_n is None else bias_n.contiguous() for _, bias_n in biases],
        head=_panels(torch.cat([head.weight for head in heads]), 1, 2 * floats),
        head_bias=nn.functional.pad(bias_O, (0, -len(bias_O) % (2 * floats))).contiguous(),
    )


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places that a compiled generation looks back on, and what makes their scores, as of `LookBack.open_places`;
    the first three change. Axes: M places kept, C that there is room for, N last characters, E their width, K numbers
    of a key.

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


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where they lie, as a C array; the caller keeps it as long as it is used."""
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def generate(
    packed: Packed,
    ids_B: Tensor,
    state: list[tuple[Tensor, ...]],
    noise_TB: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    grams: tuple[Tensor, Tensor] | None = None,
    places: Places | None = None,
) -> tuple[Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """Draws a symbol a lane and step, by inversion of the noise.

    Args:
        packed: from `pack`.
        ids_B: of any integer type, the symbols last seen and not yet read; -1 for an unknown one.
        state: the state of each layer, each [B, H].
        noise_TB: floating-point numbers in [0, 1).
        temperature, top_k, top_p: how a symbol is drawn, as of `SamplingRule`.
        grams: the weights [R + 1, V] of `RecentGrams`, and the characters [B, N - 1] last read, which change.
        places: those that `LookBack` looks back on, which change.

    Returns:
        The drawn ids [T, B], the log-probability of each in the model's own distribution, and the state in
        which the last has not been read.

    Raises:
        OptionError: an argument of another type, shape or device, or a number out of range.
    """
    ids_B = check_ids(ids_B, packed.symbols, packed.head.device, dim=1)
    noise_TB = check_draws(len(noise_TB), len(ids_B), noise_TB)
    steps, lanes = noise_TB.shape
    one_core_is_enough = packed.bytes * lanes < 100_000  # it reads all weights before two could meet
    threads = 1 if one_core_is_enough else torch.get_num_threads()
    _check_state(packed, state, lanes)
    whole: Any = {"dtype": torch.float32, "copy": True, "memory_format": torch.contiguous_format}
    h, c = ([layer[i].to(**whole) for layer in state] for i in (0, -1))
    h_next = [torch.empty_like(tensor) for tensor in h]
    drawn, logp = ids_B.new_empty(steps, lanes), h[0].new_empty(steps, lanes)
    tensors = {
        "rows": packed.rows,
        "head": packed.head,
        "head_bias": packed.head_bias,
        "noise": noise_TB.to("cpu", torch.float64).contiguous(),
        "ids": ids_B.clone(memory_format=torch.contiguous_format),
        "drawn": drawn,
        "logp": logp,
        "gates": torch.empty(lanes, packed.rows.shape[1]),
        "logits": torch.empty(lanes, len(packed.head_bias)),
        "weights": torch.empty(threads, 2 * packed.symbols + 16, dtype=torch.float64),
        "heap": torch.empty(threads, packed.symbols, dtype=torch.int64),
    }
    lists: dict[str, Sequence[Tensor | None]] = {"bias": packed.bias, "bias_n": packed.bias_n, "h": h, "h_next": h_next}
    arrays: dict[str, Any] = {name: _pointers(many) for name, many in {**lists, "c": c}.items()}
    for name, matrices in (("recurrent", packed.recurrent), ("below", packed.below)):
        jobs = [compiled.Weights() if panels is None else panels.job for panels in matrices]
        arrays[name] = (compiled.Weights * len(jobs))(*jobs)
    if grams is not None:
        tensors |= _checked(packed, grams, lanes)
    numbers: dict[str, int] = {}
    if places is not None:
        numbers, more = places.job(threads)
        tensors |= more
    job = compiled.Generation(
        cell=packed.code,
        layers=len(state),
        hidden=packed.hidden,
        symbols=packed.symbols,
        lanes=lanes,
        top_k=top_k,
        temperature=temperature,
        top_p=top_p,
        gram_rows=0 if grams is None else len(grams[0]) - 1,
        recents=0 if grams is None else grams[1].shape[1],
        **numbers,
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        **{name: ctypes.addressof(array) for name, array in arrays.items()},
    )
    _in_pieces(job, packed, steps, threads)
    last = h if steps % 2 == 0 else h_next
    return drawn, logp, [(a, b)[: len(layer)] for a, b, layer in zip(last, c, state, strict=True)]


def _check_state(packed: Packed, state: list[tuple[Tensor, ...]], lanes: int) -> None:
    """Refuses a state that is not that of these weights."""
    if len(state) != len(packed.recurrent) or any(len(layer) != (2 if packed.code == 4 else 1) for layer in state):
        raise OptionError(f"the state is not that of {len(packed.recurrent)} layers of this cell")
    for tensor in (tensor for layer in state for tensor in layer):
        check_floats("the state of a layer", tensor, (lanes, packed.hidden), packed.rows)


def _checked(packed: Packed, grams: tuple[Tensor, Tensor], lanes: int) -> dict[str, Tensor]:
    """The weights of strings and the last characters for C, after a check."""
    weight, recent_BN = grams[0].contiguous(), grams[1]
    kinds = (weight.dtype, recent_BN.dtype, weight.is_cpu and recent_BN.is_cpu)
    whole = weight.is_contiguous() and recent_BN.is_contiguous() and weight.dim() == 2 and len(weight) > 1
    if kinds != (torch.float32, torch.int64, True) or not whole or weight.shape[1] != packed.symbols:
        raise OptionError("weights of strings are torch.float32 [R + 1, V] on the CPU, the last characters torch.int64")
    if recent_BN.dim() != 2 or len(recent_BN) != lanes or not 1 <= recent_BN.shape[1] < 16:
        raise OptionError(f"the last characters are [{lanes}, 1 to 15] here, not {list(recent_BN.shape)}")
    check_ids(recent_BN, packed.symbols, weight.device, dim=2)
    return {"grams": weight, "recent": recent_BN}


def _in_pieces(job: compiled.Generation, packed: Packed, steps: int, threads: int) -> None:
    """The whole call; where threads would share the units, in pieces, each with the team that was faster lately.

    Threads that meet several times a character gain much on a quiet machine, and lose more on a busy one, where
    each waits for a core in turn. The numbers are the same either way.
    """
    job.by_units = int(job.lanes < 4 * threads)
    piece = steps if threads == 1 or not job.by_units else PIECE
    for done in range(0, steps, piece):
        job.steps = min(piece, steps - done)
        job.threads = packed.pace.team(threads) if job.by_units else threads
        started = time.perf_counter()
        compiled.call("generate", job)
        packed.pace.note(job.threads, time.perf_counter() - started, job.steps)
        for name, size in (("noise", 8), ("drawn", 8), ("logp", 4)):
            setattr(job, name, getattr(job, name) + job.steps * job.lanes * size)
