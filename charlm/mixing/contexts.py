"""What an adaptive model remembers, as one block of memory, and reading on with it.

`adaptive.c` holds the arithmetic, `formulas.py` the same in Python for a reader, and for machines without a compiler.
Axes: T steps, E other models, V symbols.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.mixing.formulas import Formulas
from charlm.mixing.past import CONTEXTS, HISTORIES, KNOTS, LENGTHS, MATCHES, RATE, SELECTORS, SIZES, Floats, Ints, Plan
from charlm.nn.kernels import compiled

_Found = TypeVar("_Found")

TRUST = 0.4
"""The share of the weight that other models have where reading begins."""


class _Job(ctypes.Structure):
    """`struct adaptive` of adaptive.c."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("symbols", "models", "depth", "table_bits", "ring_bits", "match_bits")),
        *((n, ctypes.c_int64) for n in ("apm_bits", "follow_bits", "limit")),
        *((n, ctypes.c_double) for n in ("rate", "rate_final")),
        *((n, ctypes.c_void_p) for n in ("child", "path", "lengths", "kinds", "sounds", "folded", "stretch")),
        *((n, ctypes.c_void_p) for n in ("table", "maps", "lucks", "weights", "finals", "apms")),
        *((n, ctypes.c_void_p) for n in ("ring", "followers", "places", "now")),
    ]


@functools.cache
def _library() -> Any:
    """The compiled library; None where there is none, or one that was built for another version of this file."""
    used = compiled.library()
    if used is None or not hasattr(used.loaded, "charlm_adaptive_sizes"):
        return None
    sizes = (ctypes.c_int64 * 9)()
    used.loaded.charlm_adaptive_sizes(sizes)
    used.loaded.charlm_adaptive_one.restype = ctypes.c_double
    return used.loaded if list(sizes) == [*SIZES, ctypes.sizeof(_Job)] else None


def large_pages(size: int) -> mmap.mmap:
    """Memory full of zeros, in large pages where the system has them.

    >>> block = large_pages(10)
    >>> len(block), block[0]
    (10, 0)
    """
    block = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


class Memory:
    """What was learned so far by the decisions of one tree, in one block of memory, and reading on with it."""

    def __init__(self, plan: Plan, block: Any) -> None:
        self.plan = plan
        flat = np.frombuffer(block, dtype=np.uint8)
        self.parts = {}
        for name, (kind, shape) in plan.shapes.items():
            size = math.prod(shape) * np.dtype(kind).itemsize
            self.parts[name] = flat[plan.offsets[name] :][:size].view(kind).reshape(shape)
        numbers = [field[0] for field in _Job._fields_[:11] if field[0] != "depth"]
        self._job = _Job(**{name: getattr(plan, name) for name in numbers})
        self._job.depth = plan.tree.depth
        fixed = {"child": plan.tree.child, "path": plan.tree.path, "lengths": plan.tree.lengths}
        fixed |= {"kinds": plan.kinds, "sounds": plan.sounds, "folded": plan.folded, "stretch": plan.stretch}
        for name, array in {**fixed, **self.parts}.items():
            setattr(self._job, name, array.ctypes.data)
        self._room = np.full(plan.symbols * (plan.models + 3), 0.5)
        self._at = ctypes.byref(self._job), ctypes.c_void_p(self._room.ctypes.data)
        self._formulas = None if _library() is not None else Formulas(plan, self.parts)

    def begin(self) -> None:
        """Nothing was read: every context is empty, all weights are small."""
        n0, n1 = np.arange(HISTORIES) >> 6, np.arange(HISTORIES) >> 1 & 31
        self.parts["maps"][:] = (n1 + 0.4) / (n0 + n1 + 0.8)
        self.parts["lucks"][:] = 1 - 1 / (np.arange(LENGTHS) + 2)
        weights = self.parts["weights"]
        weights[:] = 0.07
        weights[:, 2 * CONTEXTS :] = 0.3
        weights[:, -1] = 0
        self.parts["finals"][:] = 1 / SELECTORS
        self.parts["finals"][:, -1] = 0
        self.parts["apms"][:] = 1 / (1 + np.exp(-(np.arange(KNOTS) - 16) / 2))

    def prime(self, trained_T: Ints) -> None:
        """Reads the ids of a training part before everything else; then the other models get `TRUST` of the weight."""
        self.begin()
        self.read(trained_T, rate=2 * RATE)
        if self.plan.models and len(trained_T):
            self.trust(TRUST)

    def trust(self, share: float) -> None:
        """Gives the other models a share of the weight that the contexts had."""
        weights, first = self.parts["weights"], 2 * CONTEXTS + MATCHES
        weights[:, :first] *= 1 - share
        weights[:, first : first + self.plan.models] = share / max(1, self.plan.models)

    def read(
        self,
        ids_T: Ints,
        models_TEV: Floats | None = None,
        *,
        foreseen: bool = True,
        targets_T: Ints | None = None,
        tops_T: NDArray[np.bool_] | None = None,
        rows: bool = False,
        rate: float = RATE,
    ) -> Floats | None:
        """Reads ids, and learns from each before it goes on to the next.

        Args:
            ids_T: the symbols; -1 is one that the vocabulary does not hold.
            models_TEV: log-probabilities of the other models, [T + 1]: row t foresaw id t, the last what comes next;
                None where they say nothing.
            foreseen: whether the first id was foreseen, which nothing is before a text.
            targets_T: symbols whose log-probabilities are wanted, each after the id at its place.
            tops_T: where it is written whether each target is the most probable symbol.
            rows: whether all log-probabilities are wanted instead.
            rate: the step of the first mixing's weights.

        Returns:
            [T] of the targets, or [T, V], or None where neither was wanted.
        """
        count = len(ids_T)
        self._check(ids_T, targets_T, models_TEV)
        found = np.zeros((count, self.plan.symbols) if rows else count)
        ids_T = np.ascontiguousarray(ids_T, dtype=np.int64)
        given = np.ascontiguousarray(models_TEV, np.float64) if models_TEV is not None and self.plan.models else None
        wanted = None if targets_T is None else np.ascontiguousarray(targets_T, dtype=np.int64)
        if self._formulas is not None:
            options: dict[str, Any] = {"targets_T": wanted, "tops_T": tops_T, "rows": rows, "rate": rate}
            found = self._formulas.read(ids_T, given, foreseen=foreseen, **options)
            return found if rows or wanted is not None else None
        self._job.rate = rate
        _library().charlm_adaptive_read(
            self._at[0],
            ctypes.c_int64(count),
            *(None if array is None else ctypes.c_void_p(array.ctypes.data) for array in (ids_T, given)),
            ctypes.c_int64(foreseen),
            None if wanted is None else ctypes.c_void_p(wanted.ctypes.data),
            None if wanted is None else ctypes.c_void_p(found.ctypes.data),
            None if tops_T is None else ctypes.c_void_p(tops_T.ctypes.data),
            ctypes.c_void_p(found.ctypes.data) if rows else None,
            self._at[1],
        )
        return found if rows or wanted is not None else None

    def _check(self, ids_T: Ints, targets_T: Ints | None, models_TEV: Floats | None) -> None:
        """Refuses what the compiled code would read beyond its arrays."""
        symbols, models = self.plan.symbols, self.plan.models
        for name, wanted in (("ids", ids_T), ("targets", targets_T)):
            if wanted is not None and wanted.size and not -1 <= wanted.min() <= wanted.max() < symbols:
                raise OptionError(f"{name} are -1 for an unknown symbol, or from 0 to {symbols - 1}")
        if targets_T is not None and len(targets_T) != len(ids_T):
            raise OptionError(f"{len(ids_T)} ids need as many targets, not {len(targets_T)}")
        wanted_shape = (len(ids_T) + 1, models, symbols)
        if models and models_TEV is not None and models_TEV.shape != wanted_shape:
            raise OptionError(f"the rows of the other models have shape {wanted_shape}, not {models_TEV.shape}")

    def one(self, decision: int, depth: int) -> float:
        """The probability that a decision of the symbol after the last one is a one; nothing is learned."""
        if self._formulas is not None:
            return self._formulas.one(decision, depth)
        job, room = self._at
        found: float = _library().charlm_adaptive_one(job, ctypes.c_int64(decision), ctypes.c_int64(depth), room)
        return found


class Memories:
    """Memories of one tree each in one block, which read side by side: a symbol has the mean of their probabilities.

    Args:
        plans: of the trees.
        block: as long as all of them are.
        large: whether the block is one of `large_pages`.
    """

    def __init__(self, plans: Sequence[Plan], block: Any, *, large: bool = False) -> None:
        self.block, self.large = block, large
        view, ends = memoryview(block), itertools.accumulate(plan.size for plan in plans)
        self.each = [Memory(plan, view[end - plan.size : end]) for plan, end in zip(plans, ends, strict=True)]

    def _together(self, call: Callable[[Memory], _Found]) -> list[_Found]:
        if len(self.each) == 1:
            return [call(self.each[0])]
        with ThreadPoolExecutor(len(self.each)) as pool:
            return list(pool.map(call, self.each))

    def prime(self, trained_T: Ints) -> None:
        """See `Memory.prime`."""
        self._together(lambda memory: memory.prime(trained_T))

    def read(
        self,
        ids_T: Ints,
        models_TEV: Floats | None = None,
        *,
        foreseen: bool = True,
        targets_T: Ints | None = None,
        tops_T: NDArray[np.bool_] | None = None,
        rows: bool = False,
    ) -> Floats | None:
        """See `Memory.read`."""
        many = len(self.each) > 1
        if many and tops_T is not None and targets_T is not None:  # the most probable symbol shows in whole rows alone
            found_TV = self.read(ids_T, models_TEV, foreseen=foreseen, rows=True)
            assert found_TV is not None
            tops_T[:] = found_TV.argmax(1) == targets_T
            return np.where(targets_T >= 0, found_TV[np.arange(len(ids_T)), targets_T], 0.0)

        def read(memory: Memory) -> Floats | None:
            return memory.read(
                ids_T, models_TEV, foreseen=foreseen, targets_T=targets_T, tops_T=None if many else tops_T, rows=rows
            )

        found = self._together(read)
        logps = [logp for logp in found if logp is not None]  # [T] or [T, V] of each tree
        if len(logps) < 2:
            return found[0]
        mean: Floats = np.logaddexp.reduce(logps) - math.log(len(logps))
        return mean if rows or targets_T is None else np.where(targets_T >= 0, mean, 0.0)  # 0 where nothing is asked
