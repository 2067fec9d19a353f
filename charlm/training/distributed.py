"""Training one model in several processes, as `torchrun` starts them (data parallelism).

Every process has the whole model and its own share of the lanes. A step adds up gradients and numbers of targets in one
flat all-reduce, so that each process has the gradient of the mean over all targets and takes the same step; the first
process's clock and the requests to stop travel in the same tensor. Without torchrun there is one process (`ALONE`).
"""

from __future__ import annotations

import abc
import contextlib
import datetime
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from charlm.errors import CharlmError, LostProcessError, OptionError

_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What all processes agree on after a step.

    Args:
        loss: mean over the targets of all processes.
        count: how many targets those are.
        stop: whether any process was asked to stop.
        seconds: the first process's clock.
    """

    loss: float = 0.0
    count: int = 0
    stop: bool = False
    seconds: float = 0.0


class Processes(abc.ABC):
    """The processes that train together. All call the same methods in the same order, except `rank`, `first` and `own`.

    Args:
        rank: this one's number, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def own(self, lanes: int) -> slice:
        """This process's share of so many lanes.

        Raises:
            OptionError: they cannot be shared equally.

        >>> Alone().own(16)
        slice(0, 16, None)
        """
        if lanes % self.size:
            raise OptionError(
                f"{lanes} lanes cannot be shared equally by {self.size} processes: choose a --batch-size that is a "
                f"multiple of {self.size} (it counts the lanes of all processes)"
            )
        share = lanes // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def seed(self, seed: int) -> int:
        """The seed of what should differ between processes; for the first one the seed itself."""
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0]) if self.rank else seed

    @abc.abstractmethod
    def step(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, count: int, *, stop: bool, seconds: float
    ) -> Agreed:
        """Makes the gradients those of the mean over all targets, and returns what all processes agree on.

        Args:
            parameters: their gradients are those of `loss`.
            loss: the mean over this process's targets.
            count: of this process's targets; 0 where it has none in this step.
            stop: whether this process was asked to stop.
            seconds: this process's clock.
        """

    @abc.abstractmethod
    def add(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all processes, in double precision."""

    @abc.abstractmethod
    def every(self, value: Any) -> list[Any]:
        """The values that the processes gave (anything JSON can say), by rank."""

    @abc.abstractmethod
    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of one shape that the processes gave, by rank, on the CPU where there are several."""

    @abc.abstractmethod
    def close(self) -> None:
        """Leaves the process group; nothing can be exchanged after it. It may be called again."""

    def agree(self, value: Any) -> Any:
        """The first process's value, a JSON value, on all of them."""
        return self.every(value if self.first else None)[0]

    def same(self, value: str, sentence: str) -> None:
        """Compares what should be the same everywhere.

        Raises:
            CharlmError: the sentence, on all processes, where it is not.
        """
        if len(set(self.every(value))) > 1:
            raise CharlmError(sentence)

    @contextlib.contextmanager
    def alike(self) -> Iterator[None]:
        """A block that fails on all processes if it fails on one; it must not communicate itself.

        Raises:
            CharlmError: this process's, or else that of the first process that has one.
        """
        error: CharlmError | None = None
        try:
            yield
        except CharlmError as raised:
            error = raised
        told = self.every(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, sentence in enumerate(told):
            if sentence is not None:
                raise CharlmError(f"process {rank}: {sentence}")


class Alone(Processes):
    """One process on its own.

    >>> Alone().add([1.5]), Alone().agree("x"), Alone().seed(7)
    ([1.5], 'x', 7)
    """

    def __init__(self) -> None:
        super().__init__(0, 1)

    def step(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, count: int, *, stop: bool, seconds: float
    ) -> Agreed:
        """See `Processes.step`."""
        return Agreed(loss=float(loss.detach()), count=count, stop=stop, seconds=seconds)

    def add(self, numbers: Sequence[float]) -> list[float]:
        """See `Processes.add`."""
        return list(numbers)

    def every(self, value: Any) -> list[Any]:
        """See `Processes.every`."""
        return [value]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """See `Processes.gather`."""
        return [tensor]

    def close(self) -> None:
        """See `Processes.close`."""


ALONE = Alone()
"""The processes of a training without torchrun."""


class Group(Processes):
    """Several processes that communicate through a torch process group.

    Args:
        group: with a backend for CPU tensors, and one for the tensors of the device that is trained on.
    """

    def __init__(self, group: Any) -> None:
        super().__init__(group.rank(), group.size())
        self._group = group

    def step(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, count: int, *, stop: bool, seconds: float
    ) -> Agreed:
        """See `Processes.step`."""
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        for parameter in trained:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        gradients = [parameter.grad.reshape(-1) for parameter in trained if parameter.grad is not None]
        mean = loss.detach().reshape(1).to(gradients[0].dtype)
        facts = mean.new_tensor([count, stop, seconds if self.first else 0.0])
        flat = torch.cat([*gradients, mean, facts])
        flat[:-3].mul_(count)  # sums, so that every target weighs the same whoever has it
        self._sum(flat)
        total, stops, now = flat[-3:].tolist()
        flat[:-3].div_(total)
        for parameter, piece in zip(trained, torch.split(flat[:-4], [p.numel() for p in trained]), strict=True):
            parameter.grad = piece.view_as(parameter)
        return Agreed(loss=float(flat[-4]), count=round(total), stop=stops > 0, seconds=now)

    def add(self, numbers: Sequence[float]) -> list[float]:
        """See `Processes.add`."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        self._sum(sums)
        return [float(number) for number in sums]

    def every(self, value: Any) -> list[Any]:
        """See `Processes.every`."""
        content = json.dumps(value).encode()
        sizes = [int(size) for size in self.gather(torch.tensor([len(content)]))]
        padded = torch.frombuffer(bytearray(content.ljust(max(sizes))), dtype=torch.uint8)
        return [json.loads(bytes(each.tolist())) for each in self.gather(padded)]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """See `Processes.gather`."""
        mine = tensor.detach().cpu().contiguous()
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with lost():
            self._group.allgather([found], [mine]).wait()
        return found

    def close(self) -> None:
        """See `Processes.close`."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _sum(self, tensor: Tensor) -> None:
        with lost():
            self._group.allreduce([tensor]).wait()


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """Turns the error that torch raises where another process does not answer into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostProcessError("another process of this training has ended or does not answer") from error


PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others before it gives up; no reading or writing takes so long."""


def several(environment: Mapping[str, str]) -> bool:
    """Whether torchrun started several processes.

    >>> several({}), several({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"})
    (False, True)
    """
    return "TORCHELASTIC_RUN_ID" in environment and int(environment.get("WORLD_SIZE", 1)) > 1


def launch_of(processes: Processes, environment: Mapping[str, str]) -> list[str]:
    """The torchrun agents that started these processes; at least one of them outlives an elastic restart.

    >>> launch_of(ALONE, {})
    []
    >>> [name.split("/")[0] for name in launch_of(ALONE, {"TORCHELASTIC_RUN_ID": "night"})]
    ['night']
    """
    run = environment.get("TORCHELASTIC_RUN_ID")
    mine = None if run is None else f"{run}/{socket.gethostname()}/{os.getppid()}"
    return sorted({name for name in processes.every(mine) if name is not None})


def device_here(device: torch.device, environment: Mapping[str, str]) -> torch.device:
    """The GPU of this process where torchrun started one for each; any other device as it is.

    Raises:
        OptionError: there are more processes than GPUs.
    """
    if device.type != "cuda" or not several(environment):
        return device
    number, there = int(environment.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= there:
        raise OptionError(f"process {number} has no GPU, there are {there}: give torchrun --nproc-per-node {there}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _attempt(environment: Mapping[str, str]) -> str:
    """What distinguishes the attempts of one launch: restarts so far, and how many processes there are."""
    return "/".join(environment.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE"))


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, including this one; `ALONE` without torchrun.

    Tensors on GPUs are exchanged through NCCL, all others through Gloo.
    """
    if not several(os.environ):
        yield ALONE
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    with lost():
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun may keep the store over a restart, with the addresses of processes that are gone
        store = dist.PrefixStore(_attempt(os.environ), store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    group = Group(dist.group.WORLD)
    try:
        yield group
    finally:
        group.close()


def in_turn(processes: Processes, read: Callable[[], _Read]) -> _Read:
    """Reads in the first process before the others, which then find a big text in the cache."""
    found: list[_Read] = []
    for first in (True, False):
        with processes.alike():
            if processes.first == first:
                found.append(read())
    return found[0]
