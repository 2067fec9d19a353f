"""A layer as the loop over its cell's formula; the checks that all backends begin with.

The loop runs any cell on any device, is readable, and can be differentiated as often as wanted. The compiled kernels
read memory by address, so that nothing wrong may reach them: all backends call `check_layer`, so that they accept and
refuse the same.

Axes: T steps, B lanes, I inputs, G gates, H units, P outputs, V symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.errors import OptionError
from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell

SERVES = (RNNCell, GRUCell, LSTMCell)
"""The built-in cells, which other backends than this one run; exactly these, as a subclass may have another formula."""


@dataclass(frozen=True)
class LayerInputs:
    """A layer's arguments in the form that every backend may rely on.

    Args:
        x: dense [T, B, I] in the weights' precision, or int64 ids [T, B] from -1 to V - 1.
        state: one tensor [B, width] for each of the cell's states, in the weights' precision.
        resets_TB: bool, or None where no lane is reset.
        lengths_B: int64 from 0 to T, on the device of the weights; None where all lanes are whole.
    """

    x: Tensor
    state: tuple[Tensor, ...]
    resets_TB: Tensor | None
    lengths_B: Tensor | None


def check_layer(
    cell: Cell, x: Any, state: Any, table: Any = None, resets_TB: Any = None, lengths_B: Any = None
) -> LayerInputs:
    """Checks the arguments of a layer (see `reference.run`) and converts what can be converted.

    Ids and lengths of any integer type become int64, resets of an integer type bool; lengths may be a list. Under
    autocast dense input and states may be of any floating type.

    Raises:
        OptionError: another type, shape or device, or a number out of range.

    >>> from charlm.nn.cells import make_cell
    >>> cell = make_cell("gru", 3, 4)
    >>> check_layer(cell, torch.tensor([[0, 2]], dtype=torch.uint8), cell.initial_state(2)).x.dtype
    torch.int64
    """
    weight = cell.weight_ih
    _refuse_meta("the weights", weight.device)
    if type(cell) in SERVES:
        check_weights([cell], weight)
    if table is not None:
        check_floats("an embedding", table, (None, cell.inputs), weight)
    if _dense(x) and x.is_floating_point():
        check_floats("dense input", x, (None, None, cell.inputs), weight)
    else:
        x = check_ids(x, cell.inputs if table is None else len(table), weight.device, dim=2)
    steps, lanes = x.shape[0], x.shape[1]
    if not isinstance(state, (tuple, list)) or len(state) != len(cell.states):
        raise OptionError(f"the state of this {cell.name} is the tensors {', '.join(cell.states)}, and no others")
    for name, tensor in zip(cell.states, state, strict=True):
        check_floats(f"the state {name}", tensor, (lanes, cell.state_width(name)), weight)
    if resets_TB is not None:
        resets_TB = _whole("resets", resets_TB, (steps, lanes), weight.device)
        resets_TB = resets_TB.bool() if bool(resets_TB.any()) else None
    if lengths_B is not None:
        lengths_B = check_lengths(lengths_B, steps, lanes, weight.device)
    return LayerInputs(x, tuple(state), resets_TB, lengths_B)


def check_weights(modules: Iterable[nn.Module], like: Tensor) -> None:
    """Refuses modules whose own weights are not all in the precision and on the device of `like`.

    >>> check_weights([nn.Linear(2, 3)], torch.zeros(1))
    """
    for module in modules:
        for name, weight in module._parameters.items():
            if weight is not None and (weight.dtype != like.dtype or weight.device != like.device):
                raise OptionError(
                    f"{name} is {weight.dtype} on {weight.device} and other weights are {like.dtype} on {like.device}: "
                    "move the whole model with `.to`"
                )


def _refuse_meta(what: str, device: torch.device) -> None:
    if device.type == "meta":
        raise OptionError(f"{what}: the device meta holds no numbers, move them to the CPU or a GPU")


def check_floats(what: str, tensor: Any, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Refuses what is not of this shape (None: any size) in the precision and on the device of `like`.

    >>> check_floats("the state h0", torch.zeros(2, 3), (None, 3), torch.zeros(1))
    """
    if not _dense(tensor) or not tensor.is_floating_point():
        raise OptionError(f"{what} is a tensor of floating-point numbers, not {_said(tensor)}")
    if tensor.dim() != len(shape) or any(b is not None and a != b for a, b in zip(tensor.shape, shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise OptionError(f"{what} has the shape [{wanted}] here, not {list(tensor.shape)}")
    if tensor.device != like.device:
        raise OptionError(f"{what} is on {tensor.device} and the weights are on {like.device}: move it there")
    if tensor.dtype != like.dtype and not torch.is_autocast_enabled(like.device.type):
        raise OptionError(f"{what} is {tensor.dtype} and the weights are {like.dtype}: convert it with `.to`")


def _whole(what: str, tensor: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A tensor of whole numbers or truth values of this shape, on this device."""
    if not _dense(tensor) or tensor.is_floating_point():
        raise OptionError(f"{what} are a tensor of truth values or whole numbers, not {_said(tensor)}")
    if tuple(tensor.shape) != shape:
        raise OptionError(f"{what} have the shape {list(shape)} here, not {list(tensor.shape)}")
    _refuse_meta(what, tensor.device)
    placed: Tensor = tensor.to(device)
    return placed


def check_lengths(lengths_B: Any, steps: int, lanes: int, device: torch.device) -> Tensor:
    """Lengths as int64 on this device, after a check that there is one a lane, from 0 to T; they may be a list.

    >>> check_lengths([5, 3], 5, 2, torch.device("cpu"))
    tensor([5, 3])
    """
    if not isinstance(lengths_B, Tensor):
        try:
            lengths_B = torch.as_tensor(lengths_B)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise OptionError(f"lengths are whole numbers, one for each lane, not {lengths_B!r}") from None
        lengths_B = lengths_B.long() if not lengths_B.numel() else lengths_B
    if lengths_B.dtype == torch.bool:
        raise OptionError("lengths are whole numbers, one for each lane, not truth values")
    whole_B = _whole("lengths", lengths_B, (lanes,), device).long()
    if lanes and not 0 <= int(whole_B.min()) <= int(whole_B.max()) <= steps:
        raise OptionError(f"lengths are from 0 to the {steps} steps that are given, not {whole_B.tolist()[:8]}")
    return whole_B


def check_ids(ids: Any, symbols: int, device: torch.device, *, dim: int) -> Tensor:
    """Ids as int64, after a check that they are from -1 (unknown) to V - 1.

    Args:
        ids: any integer type.
        symbols: V.
        device: where they have to be. On a GPU the range is checked there, without waiting for the answer.
        dim: how many axes they have to have.

    >>> check_ids(torch.tensor([3]), 3, torch.device("cpu"), dim=1)
    Traceback (most recent call last):
    ...
    charlm.errors.OptionError: ids are from 0 to 2, or -1 for an unknown symbol, not 3
    """
    if not _dense(ids) or ids.is_floating_point():
        raise OptionError(f"input is floating-point numbers or ids, which are whole numbers, not {_said(ids)}")
    if ids.dtype == torch.bool or ids.dim() != dim:
        raise OptionError(f"ids are whole numbers with {dim} axes, not {ids.dtype} with {ids.dim()}")
    if ids.device != device:
        raise OptionError(f"ids are on {ids.device} and the weights are on {device}: move them there")
    _refuse_meta("the weights", device)
    whole: Tensor = ids.long()
    if on_gpu(whole):
        torch._assert_async(((whole >= -1) & (whole < symbols)).all())
    elif whole.is_cpu and whole.numel():
        least, most = (int(end) for end in torch.aminmax(whole))
        if least < -1 or most >= symbols:
            wrong = least if least < -1 else most
            raise OptionError(f"ids are from 0 to {symbols - 1}, or -1 for an unknown symbol, not {wrong}")
    return whole


def check_draws(steps: int, lanes: int, noise_TB: Any) -> Tensor:
    """The first `steps` rows of the noise, after a check that there are so many, for so many lanes, and all in [0, 1).

    >>> check_draws(1, 2, torch.zeros(3, 2, dtype=torch.float64)).shape
    torch.Size([1, 2])
    """
    if not _dense(noise_TB) or not noise_TB.is_floating_point() or noise_TB.dim() != 2:
        raise OptionError(f"noise is a tensor of floating-point numbers with 2 axes, not {_said(noise_TB)}")
    if steps < 0 or len(noise_TB) < steps or noise_TB.shape[1] != lanes:
        raise OptionError(
            f"{steps} steps of {lanes} lanes are drawn by noise of at least this shape, not {list(noise_TB.shape)}"
        )
    _refuse_meta("the noise", noise_TB.device)
    wanted: Tensor = noise_TB[:steps]
    if wanted.is_cpu and wanted.numel():
        least, most = (float(end) for end in torch.aminmax(wanted))
        if not 0 <= least <= most < 1:
            raise OptionError("noise is numbers from 0 to below 1, as `torch.rand` draws them")
    return wanted


def on_gpu(thing: Tensor | torch.device) -> bool:
    """Whether a tensor or device is on a CUDA GPU: the one place that asks.

    >>> on_gpu(torch.device("cuda:0")), on_gpu(torch.zeros(1))
    (True, False)
    """
    device = thing.device if isinstance(thing, Tensor) else thing
    return device.type == "cuda"


def _dense(thing: Any) -> TypeGuard[Tensor]:
    """Whether this is a tensor of real numbers, each with its own place in memory."""
    return (
        isinstance(thing, Tensor) and thing.layout == torch.strided and not (thing.is_complex() or thing.is_quantized)
    )


def _said(thing: Any) -> str:
    return f"a tensor of {thing.dtype}" if isinstance(thing, Tensor) else type(thing).__name__


def without_padding(x: Tensor, lengths_B: Tensor) -> Tensor:
    """Input with zeros, or ids with -1, behind the lengths: NaN there would reach the gradients, as 0 · NaN is NaN."""
    behind_TB = torch.arange(len(x), device=x.device).unsqueeze(-1) >= lengths_B
    return x.masked_fill(behind_TB.unsqueeze(-1), 0) if x.is_floating_point() else x.masked_fill(behind_TB, -1)


def split_biases(cell: Cell) -> tuple[Tensor | None, Tensor | None]:
    """What is added before the loop, and the part of b_hh that the GRU resets."""
    if cell.bias_ih is None or cell.bias_hh is None:
        return None, None
    if not isinstance(cell, GRUCell):
        return cell.bias_ih + cell.bias_hh, None
    r_z, n = cell.bias_hh[: 2 * cell.hidden], cell.bias_hh[2 * cell.hidden :]
    return cell.bias_ih + F.pad(r_z, (0, cell.hidden)), n


def input_rows(cell: Cell, table: Tensor | None, bias_G: Tensor | None) -> Tensor:
    """The input's part of the gates for each symbol, and last for one never seen: [V + 1, GH]."""
    rows = F.pad(cell.weight_ih.t() if table is None else table @ cell.weight_ih.t(), (0, 0, 0, 1))
    return rows if bias_G is None else rows + bias_G


def run(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs one layer over a sequence.

    Args:
        cell: the weights and the formula.
        x: dense input [T, B, I], or ids [T, B] that stand for one-hot input, -1 for the input of zeros.
        state: the cell's state before the first step, one tensor [B, width] each.
        table: an embedding [V, I] that the ids are looked up in; None for one-hot.
        resets_TB: bool; where true, the lane has the cell's initial state again before that step.
        lengths_B: the length of each lane, from 0 to T; what is given behind it is not read, outputs there are zero,
            the final state is that at the length.

    Returns:
        The outputs [T, B, P] and the final state.

    Raises:
        OptionError: see `check_layer`.
    """
    return loop(cell, check_layer(cell, x, state, table, resets_TB, lengths_B), table)


def loop(cell: Cell, given: LayerInputs, table: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`run` on arguments that were checked."""
    x, state, resets_TB, lengths_B = given.x, given.state, given.resets_TB, given.lengths_B
    if lengths_B is not None:
        x = without_padding(x, lengths_B)
    gates = cell.input_gates(x) if x.is_floating_point() else cell.gathered_gates(x, table)
    start = cell.initial_state(x.shape[1]) if resets_TB is not None else ()
    outputs = []
    for t, gates_BG in enumerate(gates):
        if resets_TB is not None:
            anew_B1 = resets_TB[t].unsqueeze(-1)
            state = tuple(torch.where(anew_B1, new, old) for new, old in zip(start, state, strict=True))
        after = cell.step(gates_BG, state)
        if lengths_B is None:
            state = after
            outputs.append(state[0])
        else:
            inside_B1 = (t < lengths_B).unsqueeze(-1)
            state = tuple(torch.where(inside_B1, new, old) for new, old in zip(after, state, strict=True))
            outputs.append(torch.where(inside_B1, state[0], torch.zeros_like(state[0])))
    return torch.stack(outputs) if outputs else state[0].new_zeros(0, *state[0].shape), state
