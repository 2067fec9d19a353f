"""A run: a model, a task and a plan, trained to the end of its budget; kept in a directory, or in memory alone.

What is trained on what is a `Task`; beginning, going on bit-identically, saving and ending with the best weights: here.
"""

from __future__ import annotations

import abc
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from charlm.codec import encode
from charlm.display import several
from charlm.errors import LostProcessError, OptionError
from charlm.nn.kernels import compiled, for_reading
from charlm.nn.stack import Stack
from charlm.text.vocab import Vocab
from charlm.training.distributed import ALONE, Processes
from charlm.training.interfaces import Keeper, Objective, Observer, Stepper
from charlm.training.loop import Loop, Outcome
from charlm.training.options import TrainingPlan
from charlm.training.states import DirectoryKeeper, RunKind, Saved, saved_weights, way_on

P = TypeVar("P", bound=TrainingPlan)
M = TypeVar("M", bound=nn.Module)


class Task(abc.ABC, Generic[P, M]):
    """What is trained on what.

    Attributes:
        kind: of run.
        vocab: the symbols of a text input; None for numbers.
    """

    kind: RunKind[P]
    vocab: Vocab | None

    @abc.abstractmethod
    def model(self, plan: P) -> M:
        """A network of the plan's shape, its weights as its constructor makes them."""

    @abc.abstractmethod
    def objective(self, model: M, plan: P, processes: Processes) -> Objective:
        """What the loop optimises.

        Raises:
            CharlmError: data, model, plan and processes do not fit together.
        """

    @abc.abstractmethod
    def backend(self, model: M, plan: P, processes: Processes) -> str:
        """The backend for training: by rule, or the fastest by the clock where the plan's backend is `auto`."""

    @abc.abstractmethod
    def description(self, plan: P, training: dict[str, Any]) -> dict[str, Any]:
        """The content of `config.json`, with `training` under that name; facts about the data may be added to it."""

    def stepper(self, objective: Objective, plan: P) -> Stepper | None:
        """What takes steps in place of the loop, where there is such a thing."""
        return None


class Run(Generic[P, M]):
    """One run; made by `start` or `resume`.

    Args:
        task: what is trained on what.
        model: the network, on its device.
        plan: how it is trained.
        directory: where it is kept; None for memory alone.
        processes: those that train it together; the first one writes.
        launch: what started the processes (`distributed.launch_of`), by which an elastic restart finds the run.
        saved: the state to go on from.

    Attributes:
        rows: the learning curve: a dictionary a validation.
        changes: what was changed on the way (device, kernels, batch size, processes).
        notes: sentences about a change that a person should know of.
    """

    def __init__(
        self,
        task: Task[P, M],
        model: M,
        plan: P,
        *,
        directory: Path | None = None,
        processes: Processes = ALONE,
        launch: Sequence[str] = (),
        saved: Saved[P] | None = None,
    ) -> None:
        self.task, self.model, self.plan = task, model, plan
        self.directory, self.processes, self.launch = directory, processes, list(launch)
        self.rows = [] if saved is None else list(saved.rows)
        self.changes = [] if saved is None else list(saved.changes)
        self.saved, self.notes = saved, list[str]()
        self.objective = task.objective(model, plan, processes)
        self.keeper = Keeper(self.rows)
        if directory is not None and processes.first:
            self.keeper = DirectoryKeeper(directory, task.kind.command, task.vocab, self.rows, self.description)

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(self.model.parameters()).device

    @property
    def stack(self) -> Stack:
        """The recurrent layers of the model."""
        stack = self.model.stack
        assert isinstance(stack, Stack)
        return stack

    @property
    def kernels(self) -> str:
        """What the backend `fused` is compiled for on a CPU (`compiled.target`) or `none`; empty where another runs."""
        return compiled.target() or "none" if self.device.type == "cpu" and self.plan.backend == "fused" else ""

    def description(self, **more: Any) -> dict[str, Any]:
        """The content of `config.json`; `more` are further values."""
        training = {**encode(self.plan), "device": str(self.device), "changes": self.changes}
        training |= {"processes": self.processes.size} if self.task.kind.kind is None else {}
        training |= {"launch": self.launch} if self.launch else {}
        training |= {"kernels": self.kernels} if self.kernels else {}
        return {**self.task.description(self.plan, training), **more}

    def describe(self, **more: Any) -> None:
        """Writes `config.json` where there is a directory; `more` are further values, such as `result`."""
        if isinstance(self.keeper, DirectoryKeeper):
            self.keeper.describe(**more)

    def train(
        self,
        *,
        observer: Observer | None = None,
        save_every: float = 300.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Trains to the end of the budget. The model has the best weights then, and is ready for reading.

        Args:
            observer: is told how it goes.
            save_every: seconds between two saved states.
            should_stop: called after every step; True ends it as `interrupted`, with everything saved.

        Raises:
            LostProcessError: another process has ended; the message says how to go on.
        """
        observer = observer or Observer()
        loop = Loop(
            self.objective,
            self.plan.optimisation,
            observer=observer,
            keeper=self.keeper,
            save_every=save_every,
            should_stop=should_stop,
            processes=self.processes,
            stepper=self.task.stepper(self.objective, self.plan),
        )
        if self.saved is not None:
            loop.load_snapshot(self.saved.tensors, self.saved.progress)
        observer.on_begin(self.model, self.saved is not None)
        try:
            outcome = loop.run()
            if loop.progress.best is None:
                self.keeper.best(loop.best_weights())
            self.processes.agree(outcome)  # returns when the first process has written everything
        except LostProcessError as error:
            way_out = "" if self.directory is None else f": {way_on(self.directory)}"
            raise LostProcessError(f"{error}{way_out}") from error
        self._end(loop.best_weights())
        return outcome

    def _end(self, best: Mapping[str, Tensor]) -> None:
        """Puts the best weights into the model, and the model into evaluation mode."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(best[name])
        self.model.eval()
        self.stack.backend = for_reading(self.device)


def start(
    task: Task[P, M],
    plan: P,
    device: torch.device,
    *,
    directory: Path | None = None,
    model: M | None = None,
    weights: Mapping[str, Tensor] | None = None,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run[P, M]:
    """A new run, with fresh weights from the plan's seed.

    Args:
        task, plan: what is trained on what, and how.
        device: where.
        directory: a new and empty one, which the first process has locked (`files.lock`); None for memory alone.
        model: the network to begin with; by default one of the plan's shape with fresh weights.
        weights: the weights to begin with, by name; by default those of `model`.
        processes, launch: see `Run`; all processes call this function.

    Raises:
        CharlmError: data, plan and processes do not fit together; nothing has been written then.
    """
    if model is None:
        model = task.model(plan)
        model.reset_parameters(torch.Generator().manual_seed(plan.optimisation.seed))  # type: ignore[operator]
    model.to(device)
    run = Run(task, model, plan, directory=directory, processes=processes, launch=launch)
    if weights is not None:
        model.load_state_dict(weights)
        run.objective.untrained_loss = None
    run.plan = _with_backend(run, plan)
    with processes.alike():
        if isinstance(run.keeper, DirectoryKeeper):
            run.keeper.begin(dict(model.named_parameters()))
    return run


def _with_backend(run: Run[P, M], plan: P) -> P:
    """The plan with the backend that the first process chose for it, which the model has then too."""
    if plan.backend in ("rule", "auto"):
        chosen = run.task.backend(run.model, plan, run.processes)
        plan = plan.having(backend=run.processes.agree(chosen))
    run.stack.backend = plan.backend
    return plan


def resume(
    task: Task[P, M],
    saved: Saved[P],
    device: torch.device,
    *,
    directory: Path,
    budget: Mapping[str, Any] | None = None,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run[P, M]:
    """The run in a directory at a saved state.

    On the same device, with the same kernels and in the same number of processes it goes on bit-identically. Other
    kernels round differently. On another device that device's backend runs the layers, and dropout draws from the seed
    anew; another number of processes keeps the hidden states. Such changes are recorded in `config.json`.

    Args:
        task: what is trained on what, its data compared with what the run was trained on.
        saved: the state, from `states.read_saved`.
        device: where it goes on.
        directory: of the run, which the first process has locked (`files.lock`).
        budget: new values of `epochs`, `max_steps`, `minutes`, which replace the old budget; the steps are planned
            again.
        processes, launch: see `Run`; all processes call this function.

    Raises:
        CharlmError: data, state and processes do not fit together.
    """
    with torch.device("meta"):
        model = task.model(saved.plan)
    _put_weights(model, saved_weights(model, saved.tensors, directory))
    model.to(device)
    plan, progress = saved.plan, dict(saved.progress)
    if budget:
        bounds = {"epochs": None, "max_steps": None, "minutes": None, **budget}
        plan = plan.having(optimisation=replace(plan.optimisation, **bounds))
        progress |= {"total": None, "every": None, "due": None, "since_best": 0}
        saved = replace(saved, progress=progress)
    run = Run(task, model, plan, directory=directory, processes=processes, launch=launch, saved=saved)
    if processes.size != saved.processes:
        run.changes.append({"step": progress["step"], "processes": processes.size})
    moved = device.type != torch.device(saved.device).type
    run.plan = _with_backend(run, plan.having(backend="rule") if moved else plan)
    if moved:
        run.changes.append({"step": progress["step"], "device": str(device), "backend": run.plan.backend})
    elif saved.kernels and run.kernels != saved.kernels:
        run.changes.append({"step": progress["step"], "kernels": run.kernels})
        run.notes.append(f"compiled kernels: the run was trained with {saved.kernels}, here are {run.kernels}")
    with processes.alike():
        if isinstance(run.keeper, DirectoryKeeper):
            run.keeper.restore(saved.tensors)
    return run


def _put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Puts weights by parameter name into a model on the meta device."""
    missing = [name for name in model.state_dict() if name not in weights]
    tied = {"head.linear.weight": weights["embedding.weight"]} if missing else {}
    model.load_state_dict({**weights, **tied}, assign=True)
    if tied:
        model.tie()  # type: ignore[operator]


def refuse_change(name: str, has: object, asked: object) -> None:
    """Refuses an option of a run that goes on where it differs from what the run has.

    >>> refuse_change("hidden", 128, 64)
    Traceback (most recent call last):
    charlm.errors.OptionError: --hidden cannot be changed in a run that goes on: it has 128, not 64; start a new one
    """
    if has != asked:
        flag = name.replace("_", "-")
        raise OptionError(
            f"--{flag} cannot be changed in a run that goes on: it has {has}, not {asked}; start a new one"
        )


def same_directory(out: Path, directory: Path) -> bool:
    """Whether `--out OUT` names this directory, or began this run as NAME-2 because NAME was taken."""
    place, there = out.resolve(), directory.resolve()
    pattern = rf"{re.escape(place.stem)}(-\d+)?{re.escape(place.suffix)}"
    return place.parent == there.parent and re.fullmatch(pattern, there.name) is not None


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A block in which Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C ends it at once.

    Under torchrun a second one does not: torchrun repeats the signal that a process may have received already, and
    kills processes that take too long. Outside the main thread, which alone receives signals, nothing changes.
    """
    flag = threading.Event()

    def ask(number: int, frame: object) -> None:
        if flag.is_set() and not several():
            raise KeyboardInterrupt
        flag.set()

    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
