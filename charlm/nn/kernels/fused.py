"""A layer as one call a sequence: our own loops forwards and, derived by hand, backwards; or torch's own kernels.

What can be done for all steps at once is: the input's part of the gates before the loop, the gradients of the
weights after it, each one product of matrices. Layer 0 adds no product at all, as a one-hot or embedded character
picks a row of a table.
The loop is that of `loops`, compiled or in torch, or on a GPU one launch (`triton_layers`) where that has passed
its test there; other layers on a GPU are left to torch's. First derivatives only.

Axes: T steps, B lanes, I inputs, G gates, H units, V symbols, D numbers of a lane's gate gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from charlm.errors import OptionError
from charlm.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from charlm.nn.kernels import compiled, loops, reference, triton_layers
from charlm.nn.kernels.reference import SERVES, check_layer, input_rows, on_gpu, split_biases, without_padding


def run(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Like `reference.run`, but for second derivatives, which are refused.

    torch's layers take over where lanes have lengths or the cell has a projection; the formulas where the cell is of
    another kind, or a step is read alone, which is not worth packing the weights for.
    """
    if on_gpu(cell.weight_ih) or not torch.is_autocast_enabled("cpu"):
        return _run(cell, x, state, table, resets_TB, lengths_B, False)
    pairs = in_bf16(cell.weight_ih)
    with torch.autocast("cpu", enabled=False):  # what is left to torch is in the precision of the weights
        return _run(cell, x, state, table, resets_TB, lengths_B, pairs)


def in_bf16(weight: Tensor) -> bool:
    """Whether products with this weight are of bfloat16, sums of float32: of a float32 weight on a CPU that can, where
    torch's autocast asks for it.

    >>> in_bf16(torch.zeros(1))
    False
    """
    if weight.dtype != torch.float32 or not weight.is_cpu:
        return False
    asked = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return asked and compiled.multiplies_bf16()


def _run(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None,
    resets_TB: Tensor | None,
    lengths_B: Tensor | None,
    pairs: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`run` in a precision."""
    dtype = _precision(cell)
    if type(cell) in SERVES and (lengths_B is not None or cell.projection or not _ours(cell, dtype)):
        return run_by_torch(cell, x, state, table, resets_TB, lengths_B)
    given = check_layer(cell, x, state, table, resets_TB, lengths_B)
    x, resets_TB = given.x, given.resets_TB
    alone = len(x) == 1 and x.shape[1] < 16 and not torch.is_grad_enabled()
    if alone or type(cell) not in SERVES or not (len(x) and x.shape[1]):
        return reference.loop(cell, given, table)
    dense = x.is_floating_point()
    bias_G, bias_n = split_biases(cell)
    gates = (_linear(x, cell.weight_ih, bias_G, pairs) if dense else input_rows(cell, table, bias_G)).to(dtype)
    ids_TB = None if dense else x.contiguous()
    marks_TB = None if resets_TB is None else resets_TB.to(torch.uint8).contiguous()
    if not on_gpu(cell.weight_ih):
        state = tuple(tensor.to(dtype) for tensor in given.state)  # under autocast they may be of another type
    apply: Any = _Layer.apply
    weight_hh = cell.weight_hh.to(dtype)
    y, *c = apply(cell, gates, ids_TB, weight_hh, bias_n, marks_TB, torch.is_grad_enabled(), pairs, *state)
    return y, (y[-1].clone(), *c)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b, like `torch.nn.functional.linear`: through our own product on a CPU, in float32 under autocast too.

    Args:
        x: any leading axes, the last of I numbers.
        weight_OI: one row for each output.
        bias_O: added to every output.

    >>> linear(torch.ones(2, 3), torch.ones(1, 3), torch.tensor([0.5])).tolist()
    [[3.5], [3.5]]
    """
    return _linear(x, weight_OI, bias_O, in_bf16(weight_OI))


def _linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, pairs: bool) -> Tensor:
    ours = compiled.fits(x) and x.numel() and weight_OI.is_cpu and x.dtype == weight_OI.dtype
    if not ours or torch._C._are_functorch_transforms_active():  # as autograd.Function asks itself
        return F.linear(x, weight_OI, bias_O)
    apply: Any = _Linear.apply
    found: Tensor = apply(x.reshape(-1, x.shape[-1]), weight_OI, bias_O, pairs)
    return found.view(*x.shape[:-1], len(weight_OI))


class _Linear(torch.autograd.Function):
    """x W^T + b of rows."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, pairs: bool) -> Tensor:
        ctx.save_for_backward(x_RI, weight_OI)
        ctx.pairs = pairs
        x_RI, weight_OI = (tensor.resolve_neg().contiguous() for tensor in (x_RI, weight_OI))
        bias_O = None if bias_O is None else bias_O.resolve_neg().contiguous()
        return loops.product(x_RI, weight_OI.t(), bias_O, pairs=pairs)

    @staticmethod
    def backward(ctx: Any, grad_RO: Tensor) -> tuple[Tensor | None, ...]:
        x_RI, weight_OI = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            return grad_RO @ weight_OI, grad_RO.t() @ x_RI, grad_RO.sum(0) if ctx.needs_input_grad[2] else None, None
        grad_RO, x_RI, weight_OI = (tensor.resolve_neg().contiguous() for tensor in (grad_RO, x_RI, weight_OI))
        needs = ctx.needs_input_grad
        return (
            loops.product(grad_RO, weight_OI, pairs=ctx.pairs) if needs[0] else None,
            loops.product(grad_RO.t(), x_RI, pairs=ctx.pairs) if needs[1] else None,
            grad_RO.sum(0) if needs[2] else None,
            None,
        )


def _precision(cell: Cell) -> torch.dtype:
    """In which the layer is computed: that of its weights, on a GPU that of autocast where it is on."""
    weight = cell.weight_ih
    mixed = on_gpu(weight) and torch.is_autocast_enabled("cuda")
    return torch.get_autocast_dtype("cuda") if mixed else weight.dtype


def _ours(cell: Cell, dtype: torch.dtype) -> bool:
    """Whether our loops take the layer: always on a CPU; on a GPU in one launch that has passed its test, or not."""
    return not on_gpu(cell.weight_ih) or not declined(cell, dtype)


def declined(cell: Cell, dtype: torch.dtype | None = None) -> str:
    """Why torch runs this layer on a GPU though `fused` was asked for, in a sentence; empty where it does not.

    Args:
        cell: the layer.
        dtype: in which it is computed; as autocast has it now by default.
    """
    like = cell.weight_ih.new_empty(0, dtype=dtype or _precision(cell))
    if triton_layers.fits(cell, like):
        return triton_layers.verdict_on(cell, like).reason
    why = "its weights do not fit one block of threads" if triton_layers.there() else "Triton is not installed"
    return f"{cell.name} {cell.hidden} is run by torch's kernels on this GPU, as {why}"


def _loop(cell: Cell, gates: Tensor) -> Any:
    """The module whose `forward` and `backward` run the layer."""
    return triton_layers if triton_layers.fits(cell, gates) else loops


class _Layer(torch.autograd.Function):
    """y and the LSTM's last c from the gates' input part (or a table of it), W_hh, b_hn and the state."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        gates: Tensor,
        ids_TB: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor | None,
        resets_TB: Tensor | None,
        keep: bool,
        pairs: bool,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        loop = _loop(cell, gates)
        state = tuple(tensor.resolve_neg().contiguous() for tensor in state)  # a view may stand for -x
        gates, weight_hh = gates.contiguous(), weight_hh.contiguous()
        bias_n = None if bias_n is None else bias_n.contiguous()
        precision = {"pairs": pairs} if loop is loops else {}
        y, values, extra = loop.forward(cell, gates, ids_TB, weight_hh, bias_n, state, resets_TB, keep, **precision)
        ctx.cell, ctx.groups, ctx.pairs = cell, len(gates), pairs
        if keep:
            ctx.save_for_backward(ids_TB, weight_hh, resets_TB, y, values, extra, *state)
        return (y, extra[-1].clone()) if isinstance(cell, LSTMCell) and extra is not None else (y,)

    @staticmethod
    def backward(ctx: Any, y_grad: Tensor, c_grad: Tensor | None = None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise OptionError(
                "the backend `fused` has first derivatives only, so that `create_graph` cannot be met: "
                "set the stack's backend to `reference` for second ones"
            )
        ids_TB, weight_hh, resets_TB, y, values, extra, *state = ctx.saved_tensors
        cell, needs = ctx.cell, ctx.needs_input_grad
        loop = _loop(cell, y)
        wanted = any(needs[8:])
        grad, before = loop.backward(
            cell,
            weight_hh,
            (y, values, extra),
            tuple(state),
            resets_TB,
            y_grad.resolve_neg().contiguous(),
            c_grad,
            wanted,
            **({"pairs": ctx.pairs} if loop is loops else {}),
        )
        hidden = cell.hidden
        flat = grad.flatten(0, 1)
        x_part = flat[:, hidden:] if isinstance(cell, GRUCell) else flat
        h_part = flat[:, : cell.gates * hidden]
        if ids_TB is None:
            gates_grad = x_part.unflatten(0, y.shape[:2])
        else:
            gates_grad = loop.sum_rows(x_part, ids_TB.flatten(), ctx.groups)
        weight_grad = _weight_grad(cell, h_part, y, state[0], resets_TB, ctx.pairs) if needs[3] else None
        n_grad = loop.sum_rows(h_part[:, :hidden], None, 1)[0] if needs[4] else None
        return None, gates_grad, None, weight_grad, n_grad, None, None, None, *(before or [None] * len(state))


def _weight_grad(cell: Cell, grad: Tensor, y: Tensor, h0: Tensor, resets_TB: Tensor | None, pairs: bool) -> Tensor:
    """W_hh's gradient: the sum over steps of each gate's gradient times the state that the step started from."""
    lanes, h0 = len(h0), h0.to(grad.dtype)
    if resets_TB is None:
        weight_grad = loops.product(grad[:lanes].t(), h0, pairs=pairs)
        if len(y) > 1:
            loops.product(grad[lanes:].t(), y[:-1].flatten(0, 1), pairs=pairs, add_to=weight_grad)
    else:
        before = torch.cat([h0.unsqueeze(0), y[:-1]]).masked_fill_(resets_TB.bool().unsqueeze(-1), 0)
        weight_grad = loops.product(grad.t(), before.flatten(0, 1), pairs=pairs)
    return weight_grad.roll(-cell.hidden, 0) if isinstance(cell, GRUCell) else weight_grad


# -- through torch's layers --------------------------------------------------------------------------------------------

_LAYERS: dict[type[Cell], Any] = {RNNCell: torch.rnn_tanh, GRUCell: torch.gru, LSTMCell: torch.lstm}


def run_by_torch(
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...],
    table: Tensor | None = None,
    resets_TB: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Like `reference.run`, through torch's own layers (oneDNN on a CPU, cuDNN on a GPU) on the same parameters.

    Cells that torch does not have, and windows in which a lane is reset, are run by the formulas.
    """
    given = check_layer(cell, x, state, table, resets_TB, lengths_B)
    x, state, lengths_B = given.x, given.state, given.lengths_B
    if type(cell) not in _LAYERS or given.resets_TB is not None or not (len(x) and x.shape[1]):
        return reference.loop(cell, given, table)
    if not x.is_floating_point():
        x = _looked_up(cell, x, table)
    if lengths_B is None:
        return _call(cell, (x,), state)
    return _ragged(cell, x, state, lengths_B)


def _ragged(cell: Cell, x: Tensor, state: tuple[Tensor, ...], lengths_B: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Lanes of different lengths, packed. torch refuses a length of 0: such a lane reads a step that is discarded."""
    some_B = lengths_B > 0
    packed = pack_padded_sequence(without_padding(x, lengths_B), lengths_B.clamp(min=1).cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None
    assert back is not None
    data, after = _call(cell, (packed.data, packed.batch_sizes), tuple(s[order] for s in state))
    y_TBP, _ = pad_packed_sequence(packed._replace(data=data), total_length=len(x))
    after = tuple(s[back] for s in after)
    if bool(some_B.all()):
        return y_TBP, after
    some_B1 = some_B.unsqueeze(-1)
    y_TBP = torch.where(some_B1, y_TBP, torch.zeros_like(y_TBP))
    return y_TBP, tuple(torch.where(some_B1, new, old) for new, old in zip(after, state, strict=True))


def _looked_up(cell: Cell, ids: Tensor, table: Tensor | None) -> Tensor:
    """The rows that ids stand for: of the embedding, or one-hot; zeros for -1."""
    rows = torch.eye(cell.inputs, dtype=cell.weight_ih.dtype, device=ids.device) if table is None else table
    nothing = rows.new_zeros(1, cell.inputs)
    return F.embedding(torch.where(ids < 0, len(rows), ids), torch.cat([rows, nothing]))


def _call(cell: Cell, data: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer, one direction; `data` is a dense input, or a packed one with its batch sizes."""
    parameters = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, cell.weight_hr]
    flat = [parameter for parameter in parameters if parameter is not None]
    initial = tuple(tensor.unsqueeze(0).contiguous() for tensor in state)
    options: tuple[Any, ...] = (flat, cell.bias_ih is not None, 1, 0.0, torch.is_grad_enabled(), False)
    layer = _LAYERS[type(cell)]
    hidden = initial if isinstance(cell, LSTMCell) else initial[0]
    if len(data) == 1:
        y, *after = layer(data[0], hidden, *options, False)
    else:
        y, *after = layer(*data, hidden, *options)
    return y, tuple(tensor.squeeze(0) for tensor in after)
