"""The compiled kernels: which targets the library holds, which one is used, and calling its functions.

Without a library, as after an installation without a compiler, `library()` is None.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.errors import OptionError


class Layer(ctypes.Structure):
    """`struct layer` of kernels.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "lanes", "hidden", "threads", "pairs", "by_units")),
        ("ids", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("input", "weight", "bias_n", "h0", "c0", "resets")),
        *((name, ctypes.c_void_p) for name in ("packed", "halves")),
        *((name, ctypes.c_void_p) for name in ("y", "gates", "extra", "y_grad", "carry", "gates_grad")),
        *((name, ctypes.c_void_p) for name in ("h0_grad", "c0_grad")),
    ]


class Product(ctypes.Structure):
    """`struct product` of kernels.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "depth", "threads", "pairs", "adding")),
        ("left", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("left_row", "left_step")),
        ("right", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("right_step", "right_column")),
        *((name, ctypes.c_void_p) for name in ("bias", "out", "room")),
    ]


class Look(ctypes.Structure):
    """`struct look` of kernels.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "lanes", "places", "width", "characters", "symbols")),
        *((name, ctypes.c_int64) for name in ("threads", "old_keys")),
        *((name, ctypes.c_void_p) for name in ("keys", "query", "table", "own", "bias", "logp", "ids", "first")),
        *((name, ctypes.c_void_p) for name in ("shares", "mass", "out", "room", "grad")),
        *((name, ctypes.c_void_p) for name in ("query_grad", "table_grad", "own_grad", "bias_grad", "logp_grad")),
        ("keys_grad", ctypes.c_void_p),
    ]


class Scatter(ctypes.Structure):
    """`struct scatter` of kernels.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "width", "stride", "threads")),
        ("ids", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("rows", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
    ]


class Memory(ctypes.Structure):
    """`struct memory` of kernels.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "threads")),
        *((name, ctypes.c_void_p) for name in ("words", "hashes")),
    ]


class Weights(ctypes.Structure):
    """`struct weights` of vector.h."""

    _fields_ = [("panels", ctypes.c_void_p), ("scales", ctypes.c_void_p), ("bits", ctypes.c_int64)]


class Generation(ctypes.Structure):
    """`struct generation` of generate.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("cell", "layers", "hidden", "symbols", "lanes", "steps")),
        *((name, ctypes.c_int64) for name in ("threads", "by_units", "top_k", "gram_rows", "recents")),
        *((name, ctypes.c_int64) for name in ("places", "keep", "key", "width", "characters")),
        *((name, ctypes.c_double) for name in ("temperature", "top_p")),
        *((name, ctypes.c_void_p) for name in ("rows", "recurrent", "below", "bias", "bias_n")),
        *((name, ctypes.c_void_p) for name in ("head", "head_bias", "h", "h_next", "c", "noise")),
        *((name, ctypes.c_void_p) for name in ("ids", "drawn", "logp", "gates", "logits", "weights", "heap")),
        *((name, ctypes.c_void_p) for name in ("grams", "recent", "query_table", "key_table", "distance")),
        *((name, ctypes.c_void_p) for name in ("back_keys", "back_ids", "ends", "room")),
    ]


def _sizes() -> int:
    """What `sizes` of a library returns that was built from the sources beside this file."""
    return sum(
        512**place * ctypes.sizeof(structure)
        for place, structure in enumerate((Layer, Scatter, Generation, Look, Memory, Product, Weights))
    )


SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
"""How the name of a function of the library ends, by the precision that it computes in."""

TARGETS = ("avx512", "avx2", "neon", "generic")
"""What the kernels may be compiled for, the fastest first; see setup.py."""


@dataclass(frozen=True)
class Library:
    """The compiled kernels of one target.

    Args:
        loaded: the shared library, which may hold several targets.
        target: one of `TARGETS`.
        vector: bytes in a vector of this target.
    """

    loaded: ctypes.CDLL
    target: str
    vector: int

    @property
    def floats(self) -> int:
        """How many float32 numbers a vector holds."""
        return self.vector // 4


def open_library(path: Path) -> list[Library]:
    """The targets of a library that run on this machine, the fastest first; none where it is of another version."""
    found = []
    try:
        loaded = ctypes.CDLL(str(path))
        for target in TARGETS:
            if hasattr(loaded, f"sizes_{target}") and loaded.charlm_runs(target.encode()):
                sizes = getattr(loaded, f"sizes_{target}")
                sizes.restype = ctypes.c_int64
                if sizes() == _sizes():
                    found.append(Library(loaded, target, getattr(loaded, f"vector_{target}")()))
    except (OSError, AttributeError):
        return []
    return found


def library_path() -> Path | None:
    """Where the compiled library lies; None where none was built."""
    paths = [Path(__file__).with_name("cpu") / name for name in ("_native.so", "_native.dll")]
    return next((path for path in paths if path.exists()), None)


@functools.cache
def libraries() -> list[Library]:
    """The targets that were compiled and run on this machine, the fastest first; none without compiled kernels."""
    path = library_path()
    return [] if path is None else open_library(path)


def reasons() -> dict[str, str]:
    """Why each target does not run here, the fastest first; empty for one that does.

    >>> list(reasons())
    ['avx512', 'avx2', 'neon', 'generic']
    """
    there = {found.target for found in libraries()}
    path = library_path()
    if path is None:
        return dict.fromkeys(TARGETS, "no library was compiled when charlm was installed")
    if not there:
        return dict.fromkeys(TARGETS, "the library is of another version or processor: install charlm again")
    loaded = libraries()[0].loaded
    lacking, absent = "the processor or the operating system lacks its vectors", "the library was compiled without it"
    why = {name: lacking if hasattr(loaded, f"sizes_{name}") else absent for name in TARGETS}
    return {**why, **dict.fromkeys(there, "")}


@functools.cache
def library() -> Library | None:
    """The kernels that are used: the fastest, or those that CHARLM_KERNELS names; None where there are none.

    Raises:
        OptionError: CHARLM_KERNELS names none that runs here.
    """
    wanted = os.environ.get("CHARLM_KERNELS", "")
    there = {found.target: found for found in libraries()}
    if wanted and wanted not in there:
        choice = f"choose {' or '.join(there)}, or unset it" if there else "unset it, as no compiled kernels are here"
        raise OptionError(f"CHARLM_KERNELS={wanted} is none of the compiled kernels that run here: {choice}")
    return there[wanted] if wanted else next(iter(there.values()), None)


def target() -> str:
    """The target of the kernels that are used, such as `avx2`; empty where there are none."""
    used = library()
    return used.target if used is not None else ""


def described() -> str:
    """Which kernels run the recurrent layers on a CPU here, in one sentence without a full stop.

    >>> described().split()[0] in ("compiled", "none")
    True
    """
    others = [found.target for found in libraries() if found.target != target()]
    if not target():
        return "none compiled; the recurrent layers run through torch on a CPU"
    return f"compiled for {target()}" + (f"; CHARLM_KERNELS can choose {' or '.join(others)}" if others else "")


def fits(tensor: Tensor) -> bool:
    """Whether the kernels are there and know this tensor's device and precision."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64) and library() is not None


def multiplies_bf16() -> bool:
    """Whether products of bfloat16 are there: the kernels for avx512, on a processor with AVX512-BF16."""
    used = library()
    return used is not None and _multiplies_bf16(used)


@functools.cache
def _multiplies_bf16(used: Library) -> bool:
    if used.target != "avx512":
        return False
    return bool(used.loaded.bf16_avx512() and used.loaded.charlm_runs(b"bf16"))


_scratch = threading.local()


def scratch(name: str, size: int, like: Tensor) -> Tensor:
    """Room for so many numbers, kept from call to call."""
    kept: Tensor | None = getattr(_scratch, name, None)
    if kept is None or kept.numel() < size or kept.dtype != like.dtype:
        kept = like.new_empty(size)
        setattr(_scratch, name, kept)
    return kept


def product_room(suffix: str) -> int:
    """Numbers of room that a product needs for each thread; `suffix` is f32 or f64."""
    return _number(f"room_{suffix}")


def _number(name: str, *given: Any) -> int:
    """What a function of the library returns."""
    used = library()
    assert used is not None
    function = getattr(used.loaded, f"{name}_{used.target}")
    function.restype = ctypes.c_int64
    return int(function(*given))


def call(name: str, job: ctypes.Structure) -> None:
    """Calls a function of the library with the address of a structure."""
    used = library()
    assert used is not None
    getattr(used.loaded, f"{name}_{used.target}")(ctypes.byref(job))


def address(tensor: Tensor | None, dtype: torch.dtype, *shape: int) -> int | None:
    """Where a tensor's numbers lie, one behind the other; refused where C would read something else there.

    >>> address(torch.zeros(2, 3), torch.float32, 3, 2)
    Traceback (most recent call last):
    ...
    charlm.errors.OptionError: the compiled kernels need a torch.float32 of [3, 2] without gaps on the CPU here, not ...
    """
    if tensor is None:
        return None
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous() or not tensor.is_cpu:
        raise OptionError(
            f"the compiled kernels need a {dtype} of {list(shape)} without gaps on the CPU here, "
            f"not a {tensor.dtype} of {list(tensor.shape)} with strides {tensor.stride()} on {tensor.device}"
        )
    return tensor.data_ptr()


def _looking(given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None) -> Look:
    """What both ways of attention have in common."""
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
    suffix = SUFFIX[like.dtype]
    job.room = scratch("look", job.threads * _number(f"look_room_{suffix}", ctypes.byref(job)), like).data_ptr()
    call(f"{name}_{suffix}", job)


def look(given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None, *, keep: bool) -> tuple[Tensor, ...]:
    """Attention over the last places (look_back.h).

    Args:
        given: log-probabilities [T, B, V], own scores [B, T], queries [B, T, K], what characters add to the scores
            [B, N, V + 1, T], what distances add [M + 2 T], keys [B, M + T, K], without gaps; see `look_back.mixed`.
        ids_BS: characters, N - 1 + M + T a lane.
        first_BT: the first place that each step sees; None for all.
        keep: whether there will be a way back.

    Returns:
        Log-probabilities [T, B, V]; and for the way back the shares of the places [B, S, T], and the mass of each
        symbol and of the network itself [B, V + 1, T].
    """
    job, out = _looking(given, ids_BS, first_BT), torch.empty_like(given[0])
    (steps, lanes, symbols), places = out.shape, given[5].shape[1]
    kept = (out.new_empty(lanes, places, steps), out.new_empty(lanes, symbols + 1, steps)) if keep else ()
    job.out = out.data_ptr()
    if kept:
        job.shares, job.mass = (tensor.data_ptr() for tensor in kept)
    _run("look", job, out)
    return out, *kept


def look_grad(
    given: tuple[Tensor, ...], ids_BS: Tensor, first_BT: Tensor | None, kept: tuple[Tensor, Tensor, Tensor],
    grad_TBV: Tensor, *, old: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of what was given; that of the keys is of all places if `old`, else of those of these steps."""
    job, (out, shares, mass) = _looking(given, ids_BS, first_BT), kept
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
