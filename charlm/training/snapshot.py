"""Everything of one moment of a run as named tensors, and back: what an exact resume needs.

weights/NAME, optimizer/SLOT/NAME, average/NAME (averaged weights), good/NAME (the best so far), carried/NAME
(the objective's: hidden states, generators).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from charlm.errors import CharlmError

__all__ = ["best_weights", "digest", "dump", "group", "last_weights", "load"]

_SLOTS = ("step", "exp_avg", "exp_avg_sq")


def dump(
    module: nn.Module, optimizer: torch.optim.Optimizer, groups: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of a moment; `groups` are the ones beside weights and optimizer, by their first name."""
    tensors = {f"weights/{name}": p.detach() for name, p in module.named_parameters()}
    names = {id(p): name for name, p in module.named_parameters()}
    for parameter, slots in optimizer.state.items():
        for slot, tensor in slots.items():
            tensors[f"optimizer/{slot}/{names[id(parameter)]}"] = tensor
    for kind, members in groups.items():
        tensors |= {f"{kind}/{name}": tensor for name, tensor in members.items()}
    return tensors


def load(tensors: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and the optimizer's running means back, onto whatever device the module is on.

    Raises:
        CharlmError: the tensors are those of another network.
    """
    parameters = dict(module.named_parameters())
    if not _fits(tensors, parameters):
        raise CharlmError("the saved state belongs to a network of another shape")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
    for key, tensor in group(tensors, "optimizer").items():
        slot, name = key.split("/", 1)
        optimizer.state[parameters[name]][slot] = tensor.clone().to(parameters[name].device)


def group(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of one first name, without it.

    >>> group({"good/a": torch.ones(1), "weights/a": torch.zeros(1)}, "good")
    {'a': tensor([1.])}
    """
    return {key.removeprefix(f"{kind}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{kind}/")}


def last_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights to use of this moment: averaged where there is an average."""
    return group(tensors, "average") or group(tensors, "weights")


def best_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The best weights so far; those of this moment where nothing has been validated yet."""
    return group(tensors, "good") or last_weights(tensors)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the numbers, one tensor after the other.

    >>> digest({"a": torch.ones(2)}) == digest({"a": torch.ones(2)}) != digest({"a": torch.zeros(2)})
    True
    """
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _fits(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> bool:
    """Whether a state has all weights, and nothing that does not belong to one of them."""
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        slot, _, name = rest.partition("/") if kind == "optimizer" else ("", "", rest)
        if kind == "carried":
            continue  # looked at by the objective
        if name not in parameters:
            return False
        like = torch.zeros(()) if slot == "step" else parameters[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            return False
        if slot and not {f"optimizer/{each}/{name}" for each in _SLOTS} <= set(tensors):
            return False
    whole = set(parameters)
    return all(set(group(tensors, kind)) in (whole, maybe) for kind, maybe in _WHOLE)


_WHOLE: tuple[tuple[str, set[str]], ...] = (("weights", {""}), ("average", set()), ("good", set()))
"""Groups that are there for every parameter, or (the last two) for none."""
