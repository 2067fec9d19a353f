"""Contexts that learn while a text is read, mixed with each other and with other models.

The construction is that of the PAQ compressors (Mahoney 2005, Adaptive weighing of context models for lossless data
compression; Mahoney 2013, Data compression explained, chapters 4.1 and 4.2): each symbol is a path of binary decisions,
here down a Huffman tree of the training part, so that frequent symbols take few. Every context remembers how each
decision went after it; logistic mixing with sets of weights, chosen by small contexts, makes one probability of all, and
adaptive maps correct it. The probability of a symbol is the product along its path, so a row sums to 1 by itself.

`adaptive.c` holds the arithmetic. Here are the tree, the memory, and the state that makes a `LanguageModel` of it.
Axes: T steps, B lanes, V symbols, E other models.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import State
from charlm.lm.model import TextModel
from charlm.nn.kernels.cpu import compiled
from charlm.tensors import write_tensors
from charlm.text.text import TextFacts
from charlm.text.vocab import Vocab

__all__ = ["AdaptiveLM"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONTEXTS, MATCHES, SELECTORS, APMS, KNOTS, HISTORIES, LENGTHS = 32, 2, 9, 2, 33, 2048, 32
NOW = 24 + CONTEXTS


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


def halved(symbols: range) -> Any:
    """A balanced tree in the order of the symbols.

    >>> halved(range(3))
    [[0, 1], 2]
    """
    if len(symbols) == 1:
        return symbols[0]
    half = (len(symbols) + 1) // 2
    return [halved(symbols[:half]), halved(symbols[half:])]


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


class _Plan:
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
        self.rate, self.rate_final = 0.005, 0.0005
        sets = self.symbols - 1 + 3 * (self.symbols + 1) + 192 + 64 + 320 + 1024 + 512
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


class _Memory:
    """What was learned so far: one block of memory, and reading on with it."""

    def __init__(self, plan: _Plan, block: Any) -> None:
        self.plan, self.block = plan, block
        flat = np.frombuffer(block, dtype=np.uint8)
        self.parts = {}
        for name, (kind, shape) in plan.shapes.items():
            size = math.prod(shape) * np.dtype(kind).itemsize
            self.parts[name] = flat[plan.offsets[name] :][:size].view(kind).reshape(shape)
        self._job = _Job(**{name: getattr(plan, name) for name, _ in _Job._fields_[:11] if name != "depth"})
        self._job.depth = plan.tree.depth
        fixed = {"child": plan.tree.child, "path": plan.tree.path, "lengths": plan.tree.lengths}
        fixed |= {"kinds": plan.kinds, "sounds": plan.sounds, "folded": plan.folded, "stretch": plan.stretch}
        for name, array in {**fixed, **self.parts}.items():
            setattr(self._job, name, array.ctypes.data)
        self._room = np.zeros(plan.symbols * (plan.models + 3))

    def begin(self) -> None:
        """Nothing was read: every context is empty, all weights are small."""
        n0, n1 = np.arange(HISTORIES) >> 6, np.arange(HISTORIES) >> 1 & 31
        self.parts["maps"][:] = (n1 + 0.4) / (n0 + n1 + 0.8)
        self.parts["lucks"][:] = 1 - 1 / (np.arange(LENGTHS) + 2)
        weights = self.parts["weights"]
        weights[:] = 0.15
        weights[:, 2 * CONTEXTS :] = 0.3
        weights[:, -1] = 0
        self.parts["finals"][:] = 1 / SELECTORS
        self.parts["finals"][:, -1] = 0
        self.parts["apms"][:] = 1 / (1 + np.exp(-(np.arange(KNOTS) - 16) / 2))

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
        rows: bool = False,
    ) -> Floats | None:
        """Reads ids; see `charlm_adaptive_read`. Returns the log-probabilities of the targets, or the rows."""
        count = len(ids_T)
        found = np.zeros((count, self.plan.symbols) if rows else count)
        ids_T = np.ascontiguousarray(ids_T, dtype=np.int64)
        given = None if models_TEV is None or not self.plan.models else np.ascontiguousarray(models_TEV)
        wanted = None if targets_T is None else np.ascontiguousarray(targets_T, dtype=np.int64)
        used = compiled.library()
        assert used is not None
        used.loaded.charlm_adaptive_read(
            ctypes.byref(self._job),
            ctypes.c_int64(count),
            *(None if array is None else ctypes.c_void_p(array.ctypes.data) for array in (ids_T, given)),
            ctypes.c_int64(foreseen),
            None if wanted is None else ctypes.c_void_p(wanted.ctypes.data),
            None if wanted is None else ctypes.c_void_p(found.ctypes.data),
            ctypes.c_void_p(found.ctypes.data) if rows else None,
            ctypes.c_void_p(self._room.ctypes.data),
        )
        return found if rows or wanted is not None else None

    def one(self, decision: int, depth: int, models_EV: Floats) -> float:
        """The probability that a decision is a one; nothing is learned."""
        used = compiled.library()
        assert used is not None
        decide = used.loaded.charlm_adaptive_one
        decide.restype = ctypes.c_double
        rows = ctypes.c_void_p(np.ascontiguousarray(models_EV).ctypes.data) if self.plan.models else None
        room = ctypes.c_void_p(self._room.ctypes.data)
        return float(decide(ctypes.byref(self._job), ctypes.c_int64(decision), ctypes.c_int64(depth), rows, room))

    def close(self) -> None:
        """Lets go of the block of memory."""
        self.parts.clear()
        del self.block


class AdaptiveLM(TextModel):
    """Contexts, a memory of repetitions, and other models, mixed by weights that learn with every character; float64.

    Args:
        vocab: the symbols; one that it does not hold is read as one never seen.
        models: language models of the same vocabulary, which are mixed in; the first is the most trusted.
        trained: ids of a text that was read before everything else, such as the training part.
        room: about how many characters will be read at once; more need a larger memory to be remembered well.

    A state holds, beside the states of `models`, the number of what was read: memory of many megabytes is not copied
    with every character. The newest state of each lane goes on at once; an older one is made again by reading its
    characters once more, which gives the same numbers. States are of use only with the model that made them.

    >>> model = AdaptiveLM(Vocab.of("ab"), room=1000)
    >>> logp_TBV, state = model.logprobs(torch.tensor([[0], [1]] * 20), model.initial_state(1))
    >>> bool(logp_TBV[-1, 0, 0].exp() > 0.9), round(float(logp_TBV[-1].exp().sum()), 9)
    (True, 1.0)
    """

    kind = "adaptive"
    is_adaptive = True

    def __init__(
        self,
        vocab: Vocab,
        models: Sequence[TextModel] = (),
        *,
        trained: Ints | None = None,
        room: int = 1 << 18,
    ) -> None:
        if any(model.vocab != vocab for model in models):
            raise OptionError("models that are mixed have one vocabulary: make them from the same text")
        self.vocab, self.models = vocab, tuple(models)
        self.trained = np.zeros(0, dtype=np.int64) if trained is None else np.asarray(trained, dtype=np.int64)
        self.room = room
        self.source = next((model.source for model in models if model.source.sha256), TextFacts())
        characters = len(self.trained) + room
        self._plan = _Plan(vocab, halved(range(len(vocab))), len(models), characters)
        self._base: mmap.mmap | None = None
        self._file: Any = None
        self._past: list[tuple[int, Ints]] = [(-1, np.zeros(0, dtype=np.int64))]
        self._live: OrderedDict[int, _Memory] = OrderedDict()

    def __repr__(self) -> str:
        return f"AdaptiveLM({', '.join(map(repr, self.models)) or f'{len(self.vocab)} symbols'})"

    @property
    def title(self) -> str:
        """The models' own titles, and the contexts."""
        return " + ".join([*(model.title for model in self.models), "contexts"])

    @property
    def device(self) -> torch.device:
        """Mixing happens on the CPU, wherever the models live."""
        return torch.device("cpu")

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`; each model is kept in a directory of its own inside this one's."""
        return {"models": len(self.models), "room": self.room}

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the models into the directories 0, 1, ... and the ids that were read first."""
        for number, model in enumerate(self.models):
            model.write_to(directory / str(number))
        write_tensors(directory / "trained.safetensors", {"trained": torch.from_numpy(self.trained)})
        return {}

    # -- states -----------------------------------------------------------------------------------------------

    def initial_state(self, lanes: int) -> State:
        """The models' states under their numbers, what they foresee (nothing yet), and the number of what was read."""
        state: State = {"read": torch.zeros(lanes, dtype=torch.int64)}
        state["foreseen"] = torch.zeros((lanes, len(self.models), len(self.vocab)), dtype=torch.float64)
        for number, model in enumerate(self.models):
            state |= {f"{number}.{name}": tensor for name, tensor in model.initial_state(lanes).items()}
        return state

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`."""
        return self._read(ids_TB, None, state)

    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.target_logprobs`; several times as fast as whole rows."""
        return self._read(ids_TB, targets_TB, state)

    def _read(self, ids_TB: Tensor, targets_TB: Tensor | None, state: State) -> tuple[Tensor, State]:
        steps, lanes = ids_TB.shape
        foreseen_TBEV, after = self._foreseen(ids_TB, state)
        found = np.zeros((steps, lanes) if targets_TB is not None else (steps, lanes, len(self.vocab)))
        numbers = []
        for lane, number in enumerate(state["read"].tolist()):
            ids_T = ids_TB[:, lane].numpy()
            if not steps:
                numbers.append(number)
                continue
            memory = self._memory(number)
            found[:, lane] = memory.read(
                ids_T,
                foreseen_TBEV[:, lane],
                foreseen=number > 0,
                targets_T=None if targets_TB is None else targets_TB[:, lane].numpy(),
                rows=targets_TB is None,
            )
            self._past.append((number, ids_T.copy()))
            numbers.append(len(self._past) - 1)
            self._live[numbers[-1]] = memory
        while len(self._live) > max(lanes, _LIVE):
            self._live.popitem(last=False)
        after["read"] = torch.tensor(numbers, dtype=torch.int64)
        return torch.from_numpy(found), after

    def _foreseen(self, ids_TB: Tensor, state: Mapping[str, Tensor]) -> tuple[Floats, State]:
        """Rows [T + 1, B, E, V] of the models before and after each id, undefined ones made uniform; their states."""
        after: State = {}
        rows = []
        for number, model in enumerate(self.models):
            own = {name.partition(".")[2]: t for name, t in state.items() if name.startswith(f"{number}.")}
            logp_TBV, own = model.logprobs(ids_TB.to(model.device), own)
            logp_TBV = logp_TBV.detach().cpu().double()
            rows.append(torch.where(logp_TBV.isnan(), -math.log(len(self.vocab)), logp_TBV))
            after |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        before_1BEV = state["foreseen"][None]
        foreseen_TBEV = torch.cat([before_1BEV, torch.stack(rows, 2)]) if rows else before_1BEV
        after["foreseen"] = foreseen_TBEV[-1].clone()
        return foreseen_TBEV.numpy(), after

    def _memory(self, number: int) -> _Memory:
        """What was learned when this number was given: the living memory, or one that reads the same ids again."""
        if number in self._live:
            return self._live.pop(number)
        if not 0 <= number < len(self._past):
            raise OptionError("this state is of another model: states of an adaptive model are of use with it alone")
        pieces = []
        while number > 0:
            number, ids_T = self._past[number]
            pieces.append(ids_T)
        memory = self._fresh()
        state = self.initial_state(1)
        for begun, ids_T in enumerate(reversed(pieces)):
            foreseen_T1EV, state = self._foreseen(torch.from_numpy(ids_T)[:, None], state)
            memory.read(ids_T, foreseen_T1EV[:, 0], foreseen=begun > 0)
        return memory

    def _fresh(self) -> _Memory:
        """A memory that has read `trained` alone: a private view of one file, of which only what changes is copied."""
        if self._base is None:
            self._file = tempfile.TemporaryFile()
            self._file.truncate(self._plan.size)
            with mmap.mmap(self._file.fileno(), self._plan.size) as block:
                memory = _Memory(self._plan, block)
                memory.begin()
                memory.read(self.trained)
                if self.models and len(self.trained):
                    memory.trust(TRUST)
                memory.close()
            self._base = mmap.mmap(self._file.fileno(), self._plan.size, access=mmap.ACCESS_READ)
        return _Memory(self._plan, mmap.mmap(self._file.fileno(), self._plan.size, access=mmap.ACCESS_COPY))

    def stepper(self) -> Stepper:
        """Reads one lane symbol by symbol from the beginning; the fastest way to code a text.

        >>> step = AdaptiveLM(Vocab.of("ab"), room=100).stepper()
        >>> [round(float(p), 2) for p in np.exp(step.read(0))]
        [0.5, 0.5]
        """
        return Stepper(self)


class Stepper:
    """One lane of an `AdaptiveLM`, read symbol by symbol; the numbers are those of `logprobs`.

    Attributes:
        child: [V - 1, 2] the tree of decisions: the number of the next decision for a zero and a one, or ~symbol.
    """

    def __init__(self, model: AdaptiveLM) -> None:
        self._model, self._state = model, model.initial_state(1)
        self._memory, self._begun = model._fresh(), False
        self._foreseen_EV: Floats = self._state["foreseen"][0].numpy()
        self.child = model._plan.tree.child

    def read(self, id: int, *, row: bool = True) -> Floats | None:
        """Reads a symbol; the log-probabilities [V] of the next one, or nothing, which is faster."""
        ids_11 = torch.tensor([[id]])
        foreseen_T1EV, self._state = self._model._foreseen(ids_11, self._state)
        found = self._memory.read(ids_11[:, 0].numpy(), foreseen_T1EV[:, 0], foreseen=self._begun, rows=row)
        self._foreseen_EV, self._begun = foreseen_T1EV[-1, 0], True
        return None if found is None else found[0]

    def one(self, decision: int, depth: int) -> float:
        """The probability that a decision of the next symbol is a one.

        Args:
            decision: its number, as in `child`.
            depth: how many decisions were before it.
        """
        return self._memory.one(decision, depth, self._foreseen_EV)


TRUST = 0.5
"""The share of the weight that other models have where reading begins."""

_LIVE = 4
"""Memories that are kept at hand, beside those of the lanes that were read last."""
