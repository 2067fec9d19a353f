"""Products of matrices, and layers whose products are of bfloat16, against float64 on the same rounded numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.cells import make_cell
from charlm.nn.kernels import check_precision, compiled, fused, loops, multiplying
from charlm.nn.stack import Stack

KINDS = ["rnn", "gru", "lstm"]
SHAPES = [(1, 1, 1), (3, 5, 7), (2, 3, 33), (13, 129, 16), (12, 31, 17), (65, 600, 65), (121, 1100, 40), (130, 70, 540)]
CPU = torch.device("cpu")

needs_kernels = pytest.mark.skipif(compiled.library() is None, reason="the compiled kernels were not built here")
needs_bf16 = pytest.mark.skipif(not compiled.multiplies_bf16(), reason="this processor has no AVX512-BF16")


def rounded(x: Tensor) -> Tensor:
    """The nearest bfloat16 numbers, in double precision."""
    return x.float().bfloat16().double()


def matrices(rows: int, depth: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows + depth + columns)
    shapes = ((rows, depth), (depth, columns), (columns,))
    left, right, bias = (torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes)
    return left, right, bias


def laid(matrix: Tensor, by_columns: bool) -> Tensor:
    """The same matrix with its columns one behind the other, or its rows."""
    return matrix.t().contiguous().t() if by_columns else matrix.contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_that_of_float64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    left, right, bias = matrices(*shape, dtype)
    want, tolerance = left.double() @ right.double(), 40 * torch.finfo(dtype).eps * shape[1] ** 0.5
    for first, second in itertools.product([False, True], repeat=2):
        a, b = laid(left, first), laid(right, second)
        assert (loops.product(a, b) - want).abs().max() < tolerance
        assert (loops.product(a, b, bias) - want - bias).abs().max() < tolerance
        sums = bias.expand(shape[0], -1).clone()
        assert loops.product(a, b, add_to=sums) is sums
        assert (sums - want - bias).abs().max() < tolerance


@needs_bf16
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_of_bfloat16_is_that_of_the_rounded_numbers(shape: tuple[int, int, int]) -> None:
    left, right, bias = matrices(*shape, torch.float32)
    want = rounded(left) @ rounded(right) + bias
    for first, second in itertools.product([False, True], repeat=2):
        found = loops.product(laid(left, first), laid(right, second), bias, pairs=True)
        assert (found - want).abs().max() < 40 * torch.finfo(torch.float32).eps * shape[1] ** 0.5


@needs_kernels
def test_a_part_of_wider_rows_is_multiplied_in_place() -> None:
    wide, right = torch.arange(48.0).view(4, 12), torch.arange(10.0).view(5, 2)
    part = wide[:, 3:8]
    assert torch.equal(loops.product(part, right), part @ right)
    assert torch.equal(loops.product(part.t(), torch.ones(4, 3)), part.t() @ torch.ones(4, 3))


@needs_kernels
def test_the_number_of_threads_changes_no_bit() -> None:
    left, right, bias = matrices(65, 600, 65, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(loops.product(left, right, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@needs_kernels
def test_what_c_would_misread_is_refused() -> None:
    square = torch.ones(4, 4)
    for left, right in ((square[::2, ::2], torch.ones(2, 2)), (square, square.double())):
        with pytest.raises(OptionError, match="a product needs matrices"):
            loops.product(left, right)
    with pytest.raises(OptionError, match="without gaps"):
        loops.product(square, square, torch.ones(3))
    with pytest.raises(OptionError, match="without gaps"):
        loops.product(square, square, add_to=torch.ones(4, 3))
    with pytest.raises(OptionError, match="do not fit"):
        loops.product(square, torch.ones(3, 4))
    with pytest.raises(OptionError, match="bfloat16"):
        loops.product(square.double(), square.double(), pairs=True)


def test_linear_is_torchs_with_its_derivatives() -> None:
    draw = torch.Generator().manual_seed(3)
    x, weight, bias = (
        torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in ((3, 2, 5), (4, 5), (4,))
    )
    assert (fused.linear(x, weight, bias) - torch.nn.functional.linear(x, weight, bias)).abs().max() < 1e-13
    assert torch.autograd.gradcheck(fused.linear, (x, weight, bias))
    assert torch.autograd.gradgradcheck(fused.linear, (x, weight, bias))


def states(kind: str, weight_hh: Tensor, gates_TBG: Tensor, bias_n: Tensor) -> Tensor:
    """The outputs of a layer in double precision, whose products are of rounded numbers."""
    h, c, found = torch.zeros(gates_TBG.shape[1], weight_hh.shape[1]).double(), None, []
    for gates_BG in gates_TBG.double():
        product = rounded(h) @ rounded(weight_hh).t()
        if kind == "rnn":
            h = torch.tanh(gates_BG + product)
        elif kind == "gru":
            (i_r, i_z, i_n), (h_r, h_z, h_n) = gates_BG.chunk(3, -1), product.chunk(3, -1)
            z = torch.sigmoid(i_z + h_z)
            n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * (h_n + bias_n))
            h = (1 - z) * n + z * h
        else:
            i, f, g, o = (gates_BG + product).chunk(4, -1)
            c = torch.sigmoid(f) * (0 if c is None else c) + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


@needs_bf16
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [1, 5, 16, 33, 48])
@pytest.mark.parametrize("lanes", [1, 3, 25])
def test_a_layer_in_bfloat16_is_that_of_rounded_states_and_weights(kind: str, hidden: int, lanes: int) -> None:
    cell, draw = make_cell(kind, 4, hidden), torch.Generator().manual_seed(hidden)
    gates = torch.randn(5, lanes, cell.gates * hidden, generator=draw)
    weight = torch.randn(cell.gates * hidden, hidden, generator=draw) / hidden**0.5
    bias_n = torch.randn(hidden, generator=draw)
    state = tuple(torch.zeros(lanes, hidden) for _ in cell.states)
    given = (cell, gates.clone(), None, weight, bias_n if kind == "gru" else None, state, None, False)
    y, _, _ = loops.forward(*given, pairs=True)
    # a sum that is rounded otherwise in float32 may round a state to the next bfloat16, which is 1/256 away
    assert (y[0] - states(kind, weight, gates, bias_n)[0]).abs().max() < 1e-6
    assert (y - states(kind, weight, gates, bias_n)).abs().mean() < 1e-4


@needs_bf16
@pytest.mark.parametrize("hidden", [1, 5, 16, 33])
def test_the_way_back_in_bfloat16_is_that_of_rounded_gradients(hidden: int) -> None:
    cell, draw = make_cell("rnn", 4, hidden), torch.Generator().manual_seed(hidden)
    y, y_grad = (torch.randn(6, 3, hidden, generator=draw).tanh() for _ in range(2))
    weight, state = torch.randn(hidden, hidden, generator=draw) / hidden**0.5, (torch.zeros(3, hidden),)
    grad, before = loops.backward(cell, weight, (y, None, None), state, None, y_grad, None, True, pairs=True)
    carried = torch.zeros(3, hidden).double()
    for t in range(5, -1, -1):
        want = (y_grad[t].double() + carried) * (1 - y[t].double() ** 2)
        assert (grad[t] - want).abs().max() < 2e-2
        assert (grad[t] - want).abs().mean() < 1e-4
        carried = rounded(grad[t]) @ rounded(weight)
    assert before is not None
    assert (before[0] - carried).abs().max() < 1e-5


@needs_bf16
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resets", [False, True])
def test_gradients_in_bfloat16_are_near_those_in_float32(kind: str, resets: bool) -> None:
    stack = Stack(kind, inputs=6, hidden=33, layers=2)
    stack.reset_parameters(torch.Generator().manual_seed(1))
    stack.backend = "fused"
    draw = torch.Generator().manual_seed(2)
    ids, resets_TB = torch.randint(-1, 6, (7, 9), generator=draw), torch.rand(7, 9, generator=draw) < 0.3
    found = []
    for precision in ("fp32", "bf16", "bf16"):
        with multiplying(CPU, precision):
            y, state = stack(ids, resets_TB=resets_TB if resets else None)
        assert y.dtype == torch.float32
        loss = (y * torch.linspace(-1, 1, 33)).sum() + sum(tensor.sum() for tensor in state.values())
        found.append([y.detach(), *torch.autograd.grad(loss, list(stack.parameters()))])
    for single, half, again in zip(*found, strict=True):
        assert 0 < (single - half).abs().max() < 0.02 * single.abs().max()
        assert torch.equal(half, again)


@needs_bf16
def test_double_precision_stays_double_under_autocast() -> None:
    stack = Stack("gru", inputs=6, hidden=5).double()
    stack.backend = "fused"
    ids = torch.tensor([[1, 2], [3, 4]])
    with multiplying(CPU, "bf16"):
        assert torch.equal(stack(ids)[0], stack(ids)[0])
        rounded_or_not = stack(ids)[0]
    assert torch.equal(rounded_or_not, stack(ids)[0])


def test_a_precision_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="unknown precision"):
        check_precision("half", CPU)
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: False)
    with pytest.raises(OptionError, match="choose --precision fp32"):
        check_precision("bf16", CPU)
    assert check_precision("fp32", CPU) == "fp32"
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: True)
    assert check_precision("bf16", CPU) == "bf16"
    with pytest.raises(OptionError, match="not for mine"):
        check_precision("bf16", CPU, "mine")
