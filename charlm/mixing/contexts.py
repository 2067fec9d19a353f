"""What an adaptive model remembers, as one block of memory: the tree of decisions, the sizes, and reading on.

`adaptive.c` holds the arithmetic, `formulas.py` the same in Python for a reader, and for machines without a compiler.
Axes: T steps, E other models, V symbols.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.mixing.formulas import Formulas
from charlm.nn.kernels import compiled
from charlm.text.vocab import Vocab

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONTEXTS, MATCHES, SELECTORS, APMS, KNOTS, HISTORIES, LENGTHS = 32, 2, 13, 2, 33, 2048, 32
DEEPEST = 32
NOW = 23 + CONTEXTS

RATE = 0.00175
"""The step of the first mixing's weights; chosen, as the other numbers here and in adaptive.c, on the validation part
of a bundled text (benchmarks/RESULTS.md)."""

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


def balanced(weights: Ints, deepest: int = DEEPEST) -> Any:
    """A tree in the order of the symbols, which splits them again and again into parts of nearly equal weight.

    Frequent symbols take few decisions then (Fano 1949), and symbols that stand beside each other in the vocabulary,
    as lower-case letters do, stay together.

    Args:
        weights: of the symbols, each 1 or more.
        deepest: most decisions of a symbol.

    >>> balanced(np.array([9, 1, 1, 2])), balanced(np.array([1, 1, 1]))
    ([0, [[1, 2], 3]], [[0, 1], 2])
    """
    sums = np.append(0, weights.cumsum())

    def split(first: int, end: int, left: int) -> Any:
        if end - first == 1:
            return first
        most = 1 << (left - 1)  # symbols that fit below one branch
        places = np.arange(max(first + 1, end - most), min(end - 1, first + most) + 1)
        unequal = abs(2 * sums[places] - sums[first] - sums[end])
        cut = int(places[len(places) - 1 - unequal[::-1].argmin()])
        return [split(first, cut, left - 1), split(cut, end, left - 1)]

    return split(0, len(weights), deepest)


class _Tree:
    """A tree as arrays: `child` of each decision, `path` and number of decisions of each symbol."""

    def __init__(self, tree: Any, symbols: int) -> None:
        self.child = np.zeros((max(symbols - 1, 1), 2), dtype=np.int32)
        self.lengths = np.zeros(symbols, dtype=np.int32)
        paths: list[list[int]] = [[] for _ in range(symbols)]
        queue: list[tuple[Any, list[int]]] = [(tree, [])]
        number, decisions = 0, 1
        for node, path in queue:  # breadth first: a child has a larger number than its decision
            if not isinstance(node, list):
                paths[node], self.lengths[node] = path, len(path)
                continue
            for bit, child in enumerate(node):
                self.child[number, bit] = decisions if isinstance(child, list) else ~child
                decisions += isinstance(child, list)
                queue.append((child, [*path, 2 * number + bit]))
            number += 1
        self.depth = max(1, int(self.lengths.max()))
        self.path = np.zeros((symbols, self.depth), dtype=np.int32)
        for symbol, path in enumerate(paths):
            self.path[symbol, : len(path)] = path


def _kinds(vocab: Vocab) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Of each symbol, and of the unknown one: its kind and its sound (see adaptive.c), and its lower-case form."""
    symbols = [vocab.symbol(id) for id in range(len(vocab))]
    ids = {symbol: id for id, symbol in enumerate(symbols)}
    kinds, sounds = (np.zeros(len(symbols) + 1, dtype=np.int32) for _ in range(2))
    folded = np.arange(len(symbols) + 1, dtype=np.int32)
    for id, symbol in enumerate(symbols):
        letter, digit = symbol.isalpha() or symbol == "'", symbol.isdigit()
        kinds[id] = 4 if symbol == "\n" else 1 if letter else 2 if digit else 3 if symbol.isspace() else 0
        sounds[id] = (symbol.lower() in "aeiouy") + 2 * symbol.isupper()
        folded[id] = ids.get(symbol.lower(), id)
    return kinds, sounds, folded


@functools.cache
def _library() -> Any:
    """The compiled library; None where there is none, or one that was built for another version of this file."""
    used = compiled.library()
    if used is None or not hasattr(used.loaded, "charlm_adaptive_sizes"):
        return None
    sizes = (ctypes.c_int64 * 9)()
    used.loaded.charlm_adaptive_sizes(sizes)
    used.loaded.charlm_adaptive_one.restype = ctypes.c_double
    own = [CONTEXTS, MATCHES, SELECTORS + 1, APMS, KNOTS, HISTORIES, LENGTHS, NOW, ctypes.sizeof(_Job)]
    return used.loaded if list(sizes) == own else None


class Plan:
    """All that stays the same while reading: the tree, the sizes, and where in one block of memory everything lies."""

    def __init__(self, vocab: Vocab, tree: Any, models: int, characters: int) -> None:
        self.symbols, self.models = len(vocab), models
        self.tree = _Tree(tree, self.symbols)
        self.kinds, self.sounds, self.folded = _kinds(vocab)
        self.stretch = np.array([math.log((i + 0.5) / (4095.5 - i)) for i in range(4096)])
        self.inputs = 2 * CONTEXTS + MATCHES + models + 1
        self.table_bits = min(25, max(18, math.ceil(math.log2(64 * max(1, characters)))))
        self.ring_bits = min(26, max(16, math.ceil(math.log2(2 * max(1, characters)))))
        self.match_bits, self.apm_bits, self.follow_bits, self.limit = min(22, self.ring_bits), 14, 16, 255
        self.rate, self.rate_final = RATE, 0.00025
        sets = self.symbols - 1 + 128 + 192 + 2048 + 320 + 256 + 1024 + 1024 + 512 + 2 * 1024 + 2048 + 128
        self.shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "table": (np.uint64, (1 << self.table_bits,)),
            "maps": (np.float64, (CONTEXTS, HISTORIES)),
            "lucks": (np.float64, (MATCHES, LENGTHS)),
            "weights": (np.float64, (sets, self.inputs)),
            "finals": (np.float64, (max(1, self.symbols - 1), SELECTORS + 1)),
            "apms": (np.float64, (APMS, 1 << self.apm_bits, KNOTS)),
            "ring": (np.int32, (1 << self.ring_bits,)),
            "followers": (np.int32, (3, 1 << self.follow_bits)),
            "places": (np.int32, (MATCHES, 1 << self.match_bits)),
            "now": (np.int64, (NOW,)),
        }
        self.offsets, self.size = {}, 0
        for name, (kind, shape) in self.shapes.items():
            self.offsets[name] = self.size
            self.size += -(-math.prod(shape) * np.dtype(kind).itemsize // 64) * 64


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
    """What was learned so far, in one block of memory, and reading on with it; `large`: of `large_pages`."""

    def __init__(self, plan: Plan, block: Any, *, large: bool = False) -> None:
        self.plan, self.block, self.large = plan, block, large
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
        given = (
            None if models_TEV is None or not self.plan.models else np.ascontiguousarray(models_TEV, dtype=np.float64)
        )
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
