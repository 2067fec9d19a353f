"""Changes of what a kernel is handed: another type, shape, layout, range or device of a tensor or of a weight."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool, torch.float16, torch.float32, torch.float64]
TYPES += [torch.complex64, torch.uint16]
Change = Callable[[random.Random, Any], Any]


def with_gaps(chance: random.Random, x: Tensor) -> Tensor:
    """The same numbers laid out in another way."""
    if x.dim() < 2 or chance.random() < 0.3:
        wide = torch.stack([x, x + 1], -1) if x.dtype != torch.bool else torch.stack([x, ~x], -1)
        return wide[..., 0]
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def other_shape(chance: random.Random, x: Tensor) -> Tensor:
    axis = chance.randrange(x.dim()) if x.dim() else 0
    ways = [
        lambda: x.unsqueeze(axis),
        x.flatten,
        lambda: torch.cat([x, x], axis) if x.dim() else x,
        lambda: x.narrow(axis, 0, max(x.shape[axis] - 1, 0)) if x.dim() else x,
        lambda: x.transpose(0, -1) if x.dim() else x,
        x.sum,
    ]
    return chance.choice(ways)()


def other_thing(chance: random.Random, x: Tensor) -> Any:
    return chance.choice([None, 3, "x", x.tolist(), x.detach().numpy(), x.to_sparse(), []])


def other_type(chance: random.Random, x: Tensor) -> Tensor:
    return x.to(chance.choice(TYPES))


def out_of_range(chance: random.Random, x: Tensor) -> Tensor:
    x = x.clone()
    if x.numel():
        strange = [-2, -1, 7, 13, 255, 10**9, 2**40] if not x.is_floating_point() else [float("nan"), 1e30, -1.0, 1.0]
        x.view(-1)[chance.randrange(x.numel())] = chance.choice(strange) if x.dtype != torch.bool else True
    return x


def elsewhere(chance: random.Random, x: Tensor) -> Tensor:
    """The same on `meta`, a device that holds no numbers."""
    return x.to("meta")


def on_a_gpu(chance: random.Random, x: Tensor) -> Tensor:
    """The same on a GPU that is not there: what asks for the device alone is answered."""
    with FakeTensorMode():
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda:0")


def spoil_weights(chance: random.Random, module: nn.Module) -> None:
    """One weight, or all, of another type or layout, or on `meta`."""
    named = [(owner, name) for owner in module.modules() for name, p in owner._parameters.items() if p is not None]
    ways = [lambda x: x.to("meta"), lambda x: x.to(chance.choice(TYPES[5:8])), lambda x: with_gaps(chance, x)]
    way = chance.choice(ways)
    for owner, name in named if chance.random() < 0.2 else [chance.choice(named)]:
        owner._parameters[name] = nn.Parameter(way(owner._parameters[name].detach()))


CHANGES: list[Change] = [
    with_gaps,
    with_gaps,
    other_shape,
    other_thing,
    other_type,
    out_of_range,
    out_of_range,
    elsewhere,
    on_a_gpu,
]
MOVED = ("resets_TB", "lengths_B", "noise_TB")  # from any device to that of the weights, which needs a real one


def changed(chance: random.Random, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with some of them changed; a change that torch itself cannot make leaves them."""
    found = dict(arguments)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 2])):
        name = chance.choice([name for name, value in found.items() if isinstance(value, (Tensor, tuple))] or [None])
        change = chance.choice(CHANGES)
        if name is None or (change is on_a_gpu and name in MOVED):
            break
        try:
            if isinstance(found[name], tuple):
                state = list(found[name])
                at = chance.randrange(len(state))
                state[at] = change(chance, state[at])
                found[name] = tuple(state if chance.random() < 0.9 else state[1:])
            else:
                found[name] = change(chance, found[name])
        except (
            AttributeError,
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
        ):  # NotImplementedError is a RuntimeError
            continue
    return found
