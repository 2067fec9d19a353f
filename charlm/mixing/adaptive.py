"""Contexts that learn while a text is read, mixed with each other and with other models.

The construction is that of the PAQ compressors (Mahoney 2005, Adaptive weighing of context models for lossless data
compression; Mahoney 2013, Data compression explained, chapters 4.1 and 4.2): each symbol is a path of binary decisions
down a tree. Every context remembers how each decision went after it; logistic mixing with sets of weights, chosen by
small contexts, makes one probability of all, and adaptive maps correct it. The probability of a symbol is the product
along its path, so a row sums to 1 by itself. `contexts` holds the memory, `adaptive.c` the arithmetic.

Axes: T steps, B lanes, V symbols, E other models.
"""

from __future__ import annotations

import math
import mmap
import os
import secrets
import tempfile
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import State
from charlm.lm.model import TextModel, as_models
from charlm.mixing.contexts import Memories, large_pages
from charlm.mixing.past import CONTEXTS, Floats, Ints, Plan, questions
from charlm.nn.kernels import using_threads
from charlm.recurrent.dynamic import dynamic, own_text
from charlm.recurrent.model import CharRNN
from charlm.tensors import write_tensors
from charlm.text.text import Text, TextFacts
from charlm.text.vocab import Vocab


class AdaptiveLM(TextModel):
    """Contexts, a memory of repetitions, and other models, mixed by weights that learn with every character; float64.

    Args:
        vocab: the symbols; one that it does not hold is read as one never seen.
        models: language models of the same vocabulary, which are mixed in; the first is the most trusted.
        trained: ids of a text that was read before everything else, such as the training part.
        room: about how many characters will be read at once; more need a larger memory to be remembered well.
        trees: 1, or 2 for the mean of two trees of decisions, which errs less and takes twice the work.

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
        trees: int = 1,
    ) -> None:
        if trees not in (1, 2):
            raise OptionError(f"an adaptive model has one tree of decisions or two, not {trees}")
        if any(model.vocab != vocab for model in models):
            raise OptionError("models that are mixed have one vocabulary: make them from the same text")
        self.vocab, self.models = vocab, tuple(models)
        self.trained = np.zeros(0, dtype=np.int64) if trained is None else np.asarray(trained, dtype=np.int64)
        self.room = room
        self.reads = 4096 if any(model.is_adaptive for model in models) else 16384  # the first block is waited for
        self.source = next((model.source for model in models if model.source.sha256), TextFacts())
        asked = questions(vocab, 1 + np.bincount(self.trained[self.trained >= 0], minlength=len(vocab)), trees)
        self._plans = [Plan(vocab, tree, len(models), len(self.trained) + room) for tree in asked]
        self._base: Any = None
        self._tag = secrets.randbits(30) + 1 << 32
        self._past: list[tuple[int, Ints]] = [(-1, np.zeros(0, dtype=np.int64))]
        self._live: OrderedDict[int, Memories] = OrderedDict()

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
        return {"models": len(self.models), "room": self.room, "trees": len(self._plans)}

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the models into the directories 0, 1, ... and the ids that were read first."""
        for number, model in enumerate(self.models):
            model.write_to(directory / str(number))
        write_tensors(directory / "trained.safetensors", {"trained": torch.from_numpy(self.trained)})
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_base": None, "_live": OrderedDict()}  # memories are made again from what was read

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

    def target_hits(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """See `LanguageModel.target_hits`; several times as fast as whole rows."""
        hit_TB = np.zeros(tuple(ids_TB.shape), dtype=np.bool_)
        logp_TB, state = self._read(ids_TB, targets_TB, state, hit_TB)
        return logp_TB, torch.from_numpy(hit_TB), state

    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.target_logprobs`; several times as fast as whole rows."""
        return self._read(ids_TB, targets_TB, state)

    def _read(
        self, ids_TB: Tensor, targets_TB: Tensor | None, state: State, hit_TB: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, State]:
        steps, lanes = ids_TB.shape
        if not steps:
            return torch.zeros((0, lanes) if targets_TB is not None else (0, lanes, len(self.vocab))).double(), state
        tickets = state["read"].tolist()
        known = [self._memory(ticket) if ticket else None for ticket in tickets]
        over = [self._live.popitem(last=False)[1] for _ in range(len(self._live) + lanes - max(lanes, _LIVE))]
        unused = [memory.block for memory in over if memory.large]
        memories: list[Memories] = []
        found = np.zeros((steps, lanes) if targets_TB is not None else (steps, lanes, len(self.vocab)))
        for begin, end, foreseen_TBEV, after in self._ahead(ids_TB, state):  # noqa: B007 (the last state is kept)
            memories = memories or [memory or self._fresh(steps, unused) for memory in known]  # models go on meanwhile
            for lane, memory in enumerate(memories):
                tops_T = None if hit_TB is None else np.zeros(end - begin, dtype=np.bool_)
                found[begin:end, lane] = memory.read(
                    ids_TB[begin:end, lane].numpy(),
                    foreseen_TBEV[:, lane],
                    foreseen=begin > 0 or tickets[lane] > 0,
                    targets_T=None if targets_TB is None else targets_TB[begin:end, lane].numpy(),
                    tops_T=tops_T,
                    rows=targets_TB is None,
                )
                if hit_TB is not None:
                    hit_TB[begin:end, lane] = tops_T
        numbers = []
        for lane, (ticket, memory) in enumerate(zip(tickets, memories, strict=True)):
            self._past.append((ticket, ids_TB[:, lane].numpy().copy()))
            numbers.append(self._tag + len(self._past) - 1)
            self._live[numbers[-1]] = memory
        after["read"] = torch.tensor(numbers, dtype=torch.int64)
        return torch.from_numpy(found), after

    def _ahead(self, ids_TB: Tensor, state: State) -> Iterator[tuple[int, int, Floats, State]]:
        """`_foreseen` block by block; another thread computes the next blocks while the contexts read this one.

        It leaves a core to the contexts, as threads that share a product would wait for that core. Shorter blocks are
        read by all threads: torch rounds products of few rows otherwise by another number of threads.
        """
        steps, threads = len(ids_TB), max(1, torch.get_num_threads() - 1)
        edges = range(0, steps, _BLOCK if self.models else steps)

        def read(begin: int) -> tuple[int, int, Floats, State]:
            nonlocal state
            end = min(begin + edges.step, steps)
            with using_threads(threads if end - begin == _BLOCK else None):
                foreseen_TBEV, state = self._foreseen(ids_TB[begin:end], state)
            return begin, end, foreseen_TBEV, state

        with ThreadPoolExecutor(1) as pool:
            coming = deque(pool.submit(read, begin) for begin in edges[:_AHEAD])
            for later in range(_AHEAD * edges.step, steps + _AHEAD * edges.step, edges.step):
                found = coming.popleft().result()
                if later < steps:
                    coming.append(pool.submit(read, later))
                yield found

    @torch.no_grad()
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

    def _memory(self, number: int) -> Memories:
        """What was learned when this number was given: the living memory, or one that reads the same ids again.

        Numbers of two models differ in their higher 32 bits, so that no state is taken for another model's.
        """
        if number in self._live:
            return self._live.pop(number)
        pieces = []
        while number != 0:
            if not 0 < number - self._tag < len(self._past):
                raise OptionError("this state is of another model: an adaptive model's states are of use with it alone")
            number, ids_T = self._past[number - self._tag]
            pieces.append(ids_T)
        memory = self._fresh(sum(map(len, pieces)))
        state = self.initial_state(1)
        for begun, ids_T in enumerate(reversed(pieces)):
            foreseen_T1EV, state = self._foreseen(torch.from_numpy(ids_T)[:, None], state)
            memory.read(ids_T, foreseen_T1EV[:, 0], foreseen=begun > 0)
        return memory

    def _fresh(self, steps: int = 0, unused: list[Any] | None = None) -> Memories:
        """A memory that has read `trained` alone; all begin with a file, in memory where there can be one.

        For so many steps that they would change most of its pages it is a copy in large pages, which are read faster,
        or in an unused block; else a private view of one file, of which only the pages that change are copied.
        """
        size = sum(plan.size for plan in self._plans)
        if self._base is None:
            file = open(os.memfd_create("charlm"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, file.close)
            file.truncate(size)
            trained = len(self.trained) > 0  # else most pages stay empty, which takes no room in the file
            block = large_pages(size) if trained else mmap.mmap(file.fileno(), size)
            self._base, memory = file, Memories(self._plans, block, large=trained)
            memory.prime(self.trained)
            if trained:
                file.write(block)
                file.flush()
                return memory
        touched = 4 * CONTEXTS * len(self._plans) * steps  # four decisions a character or more, slots in as many pages
        if touched < size // mmap.PAGESIZE:
            return Memories(self._plans, mmap.mmap(self._base.fileno(), size, access=mmap.ACCESS_COPY))
        block = unused.pop() if unused else large_pages(size)
        with mmap.mmap(self._base.fileno(), size, access=mmap.ACCESS_READ) as base:
            np.copyto(np.frombuffer(block, np.uint8), np.frombuffer(base, np.uint8))
        return Memories(self._plans, block, large=True)

    def stepper(self) -> Stepper | None:
        """Reads one lane symbol by symbol from the beginning, the fastest way to code a text; None with two trees.

        >>> step = AdaptiveLM(Vocab.of("ab"), room=100).stepper()
        >>> [round(float(p), 2) for p in np.exp(step.read(0))]
        [0.5, 0.5]
        """
        return Stepper(self) if len(self._plans) == 1 else None


class Stepper:
    """One lane of an `AdaptiveLM`, read symbol by symbol; the numbers are those of `logprobs`.

    Attributes:
        child: [V - 1, 2] the tree of decisions: the number of the next decision for a zero and a one, or ~symbol.
    """

    def __init__(self, model: AdaptiveLM) -> None:
        self._model, self._state = model, model.initial_state(1)
        self._memory, self._begun = model._fresh().each[0], False
        self.child = model._plans[0].tree.child

    def read(self, id: int, *, row: bool = True) -> Floats | None:
        """Reads a symbol; the log-probabilities [V] of the next one, or nothing, which is faster."""
        foreseen_TEV = None
        if self._model.models:
            foreseen_T1EV, self._state = self._model._foreseen(torch.tensor([[id]]), self._state)
            foreseen_TEV = foreseen_T1EV[:, 0]
        found = self._memory.read(np.array([id]), foreseen_TEV, foreseen=self._begun, rows=row)
        self._begun = True
        return None if found is None else found[0]

    def one(self, decision: int, depth: int) -> float:
        """The probability that a decision of the next symbol is a one.

        Args:
            decision: its number, as in `child`.
            depth: how many decisions were before it.
        """
        return self._memory.one(decision, depth)


def adaptive(
    models: TextModel | Sequence[TextModel],
    text: Text | None = None,
    *,
    kind: Literal["fast", "best"] = "fast",
    room: int = 1 << 18,
    progress: bool | None = None,
) -> AdaptiveLM:
    """Models as one that goes on learning from what it reads, together with contexts that have read the training part.

    Args:
        models: one or more of one vocabulary, made from the same text; the first is the most trusted.
        text: the text that they were made from, where its files are not in their old place.
        kind: `fast` leaves the models as they are; with `best` networks also take gradient steps while they read
            (`charlm.dynamic`), and contexts have two trees of decisions, which takes many times as long.
        room: about how many characters will be read at once.
        progress: show bars; None shows them on a terminal or in a notebook.

    Raises:
        OptionError: no model, or models of several vocabularies or texts.
        CheckpointError: the text has moved or changed.

    >>> import charlm
    >>> text = charlm.Text.of("abracadabra " * 40)
    >>> model = charlm.adaptive(charlm.ngram(text, order=2, smoothing="kneser-ney"), text)
    >>> model.evaluate(text.test).targets
    47
    """
    found = as_models([models] if isinstance(models, TextModel) else models)
    if not found:
        raise OptionError("an adaptive model is made of one model or more")
    if kind not in ("fast", "best"):
        raise OptionError(f"an adaptive model is fast or best, not {kind}")
    corpus, split = own_text(found[0], text)
    if kind == "best":
        found = [dynamic(model, text, progress=progress) if isinstance(model, CharRNN) else model for model in found]
    pieces = [np.append(corpus.ids[start:end].astype(np.int64), -1) for start, end in corpus.part(split, "train")]
    trained = np.concatenate([*pieces, np.zeros(0, dtype=np.int64)])
    return AdaptiveLM(found[0].vocab, found, trained=trained[:-1], room=room, trees=2 if kind == "best" else 1)


_BLOCK, _AHEAD = 512, 32
"""Steps that the other models read at once, and blocks of so many steps that they are ahead of the contexts at most."""

_LIVE = 2
"""Memories that are kept at hand, beside those of the lanes that were read last."""
