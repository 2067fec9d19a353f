"""How torchrun's processes find each other, and what its environment says: nothing here where it did not start them."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator, Mapping

import torch
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from charlm.errors import OptionError
from charlm.training.distributed import ALONE, Group, Processes, lost

__all__ = ["device_here", "joined", "launch_of", "several"]

PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others before it gives up: longer than any of them reads or writes."""


def several(environment: Mapping[str, str]) -> bool:
    """Whether torchrun started several processes.

    >>> several({}), several({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"})
    (False, True)
    """
    return "TORCHELASTIC_RUN_ID" in environment and int(environment.get("WORLD_SIZE", 1)) > 1


def launch_of(processes: Processes, environment: Mapping[str, str]) -> list[str]:
    """The torchrun processes that started all of these; an elastic restart leaves at least one of them alive.

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
    """The processes that torchrun started, this one among them; this one alone where it did not.

    They talk through NCCL about what is on GPUs and through Gloo about all else.
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
