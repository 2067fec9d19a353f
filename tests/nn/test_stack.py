"""Stacks against torch's own layers with copied weights, in float64: outputs, final states, every gradient."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from charlm.errors import OptionError
from charlm.nn.cells import GRUCell, LSTMCell, RNNCell
from charlm.nn.stack import Stack, copy_from_torch, to_torch

CASES = list(itertools.product(["rnn", "gru", "lstm"], [1, 3], [False, True], ["reference", "torch"]))
T, B, INPUTS, HIDDEN = 7, 4, 5, 6


def pair(cell: str, layers: int, bidirectional: bool, **more: object) -> tuple[Stack, nn.RNNBase]:
    stack = Stack(cell, inputs=INPUTS, hidden=HIDDEN, layers=layers, bidirectional=bidirectional, **more).double()  # type: ignore[arg-type]
    module = to_torch(stack)
    for parameter in module.parameters():  # biases of the LSTM start at values that would hide a swapped gate
        nn.init.uniform_(parameter, -0.5, 0.5)
    copy_from_torch(stack, module)
    return stack, module


def initial(stack: Stack) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """A random state in our form and in torch's, sharing leaves."""
    state = {name: torch.randn_like(tensor).requires_grad_() for name, tensor in stack.initial_state(B).items()}
    order = [f"{{}}{layer}{suffix}" for layer in range(stack.layers) for suffix in stack.directions]
    h = torch.stack([state[name.format("h")] for name in order])
    c = torch.stack([state[name.format("c")] for name in order]) if "c0" in state else None
    return state, h, c


def final(stack: Stack, hidden: object) -> list[Tensor]:
    """Torch's final state as our list of tensors, h of each layer and direction and then c."""
    tensors = hidden if isinstance(hidden, tuple) else (hidden,)
    return [part for tensor in tensors for part in tensor]


def ours_in_order(stack: Stack, state: dict[str, Tensor]) -> list[Tensor]:
    names = [f"{layer}{suffix}" for layer in range(stack.layers) for suffix in stack.directions]
    return [state[f"{kind}{name}"] for kind in stack.cell(0).states for name in names]


def gradients(outputs: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    total = sum((tensor * torch.randn(tensor.shape, generator=generator).double()).sum() for tensor in outputs)
    return list(torch.autograd.grad(total, leaves))  # type: ignore[arg-type]


def assert_same(left: list[Tensor], right: list[Tensor], bound: float = 1e-12) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= bound


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize(("cell", "layers", "bidirectional", "backend"), CASES)
def test_equals_torch(cell: str, layers: int, bidirectional: bool, backend: str, given_state: bool) -> None:
    stack, module = pair(cell, layers, bidirectional)
    stack.backend = backend
    x = torch.randn(T, B, INPUTS).double().requires_grad_()
    state, h, c = initial(stack)
    y, after = stack(x, state if given_state else None)
    y_torch, hidden = module(x, None if not given_state else h if c is None else (h, c))
    ours = [y, *ours_in_order(stack, after)]
    theirs = [y_torch, *final(stack, hidden)]
    assert_same(ours, theirs)
    inputs = [x, *state.values()] if given_state else [x]
    from_ours = gradients(ours, [*inputs, *_parameters(stack)])
    from_torch = gradients(theirs, [*inputs, *_in_our_order(stack, module)])
    assert_same(from_ours, from_torch)


@pytest.mark.parametrize(("cell", "layers", "bidirectional", "backend"), CASES)
def test_packed_sequences_of_different_lengths(cell: str, layers: int, bidirectional: bool, backend: str) -> None:
    stack, module = pair(cell, layers, bidirectional)
    stack.backend = backend
    x = torch.randn(T, B, INPUTS).double().requires_grad_()
    lengths = torch.tensor([3, T, 1, 5])
    state, h, c = initial(stack)
    y, after = stack(x, state, lengths_B=lengths)
    packed, hidden = module(pack_padded_sequence(x, lengths, enforce_sorted=False), h if c is None else (h, c))
    ours = [y, *ours_in_order(stack, after)]
    theirs = [pad_packed_sequence(packed)[0], *final(stack, hidden)]
    assert_same(ours, theirs)
    leaves = [x, *state.values()]
    assert_same(
        gradients(ours, [*leaves, *_parameters(stack)]),
        gradients(theirs, [*leaves, *_in_our_order(stack, module)]),
    )


def _parameters(stack: Stack) -> list[Tensor]:
    return [p for cell in stack.cells for p in cell.parameters()]


def _in_our_order(stack: Stack, module: nn.RNNBase) -> list[Tensor]:
    names = [f"_l{layer}{suffix}" for layer in range(stack.layers) for suffix in stack.directions]
    return [getattr(module, name + end) for end in names for name, _ in stack.cell(0).named_parameters()]


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("options", [{"bias": False}, {"projection": 3}])
def test_lstm_without_bias_and_with_projection(options: dict[str, object], backend: str) -> None:
    stack, module = pair("lstm", 2, False, **options)
    stack.backend = backend
    x = torch.randn(T, B, INPUTS).double()
    y, after = stack(x)
    y_torch, hidden = module(x)
    assert_same([y, *ours_in_order(stack, after)], [y_torch, *final(stack, hidden)])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_ids_are_one_hot_input_and_unknown_is_zeros(cell: str) -> None:
    stack, module = pair(cell, 2, False)
    ids = torch.tensor([[0, 4], [-1, 2], [3, 3]])
    rows = torch.cat([torch.eye(INPUTS), torch.zeros(1, INPUTS)]).double()
    expected, _ = module(rows[ids])
    for backend in ("reference", "torch"):
        stack.backend = backend
        assert_same([stack(ids)[0]], [expected])


def test_an_embedding_is_a_table_looked_up_before_the_first_layer() -> None:
    stack, module = pair("gru", 1, False)
    table = torch.randn(9, INPUTS).double().requires_grad_()
    ids = torch.randint(0, 9, (T, B))
    y, _ = stack(ids, table=table)
    expected, _ = module(nn.functional.embedding(ids, table))
    assert_same([y], [expected])
    assert_same(gradients([y], [table]), gradients([expected], [table]))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_reset_begins_anew(cell: str, backend: str) -> None:
    stack, _ = pair(cell, 2, False)
    stack.backend = backend
    x = torch.randn(T, 2, INPUTS).double()
    resets = torch.zeros(T, 2, dtype=torch.bool)
    resets[3, 1] = True
    state, *_ = initial(stack)
    state = {name: tensor[:2].detach() for name, tensor in state.items()}
    y, after = stack(x, state, resets_TB=resets)
    whole, _ = stack(x, state)
    anew, end = stack(x[3:, 1:])
    assert_same([y[:, 0], y[:3, 1], y[3:, 1:]], [whole[:, 0], whole[:3, 1], anew])
    assert_same([tensor[1:] for tensor in after.values()], list(end.values()))


@pytest.mark.parametrize("cell", [RNNCell, GRUCell, LSTMCell])
def test_gradients_by_finite_differences(cell: type[RNNCell]) -> None:
    made = cell(3, 4).double()
    x = torch.randn(2, 3).double().requires_grad_()
    state = tuple(torch.randn_like(tensor).requires_grad_() for tensor in made.initial_state(2))
    assert torch.autograd.gradcheck(lambda *leaves: made(leaves[0], leaves[1:]), (x, *state))
    assert torch.autograd.gradgradcheck(lambda *leaves: made(leaves[0], leaves[1:]), (x, *state))


def test_dropout_between_layers_alone_and_from_its_generator() -> None:
    stack = Stack("gru", inputs=INPUTS, hidden=HIDDEN, layers=2, dropout=0.5).double().train()
    x = torch.randn(T, B, INPUTS).double()
    first, second = (stack(x, generator=torch.Generator().manual_seed(3))[0] for _ in range(2))
    other = stack(x, generator=torch.Generator().manual_seed(4))[0]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert (first != 0).all()
    stack.eval()
    assert torch.equal(stack(x)[0], stack(x)[0])


def test_other_shapes_are_refused() -> None:
    stack = Stack("gru", inputs=2, hidden=3)
    with pytest.raises(OptionError, match="different shapes"):
        copy_from_torch(stack, nn.GRU(2, 4))
    with pytest.raises(OptionError, match="tanh"):
        copy_from_torch(Stack("rnn", inputs=2, hidden=3), nn.RNN(2, 3, nonlinearity="relu"))
    with pytest.raises(OptionError, match="projection"):
        Stack("gru", inputs=2, hidden=3, projection=2)
    with pytest.raises(OptionError, match="layer"):
        Stack("gru", inputs=2, hidden=3, layers=0)


def test_lstm_starts_with_open_forget_gates_and_orthogonal_squares() -> None:
    cell = LSTMCell(3, 5)
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    assert torch.equal((cell.bias_ih + cell.bias_hh)[5:10], torch.ones(5))
    for gate in cell.weight_hh.detach().chunk(4):
        assert (gate @ gate.t() - torch.eye(5)).abs().max() < 1e-6


@pytest.mark.parametrize("bidirectional", [False, True])
def test_symbols_are_heard_from_the_start(bidirectional: bool) -> None:
    """The first layer's input weights are wide for symbols, ±1/√H for numbers; nothing else differs."""
    stack = Stack("gru", inputs=40, hidden=64, layers=2, bidirectional=bidirectional)
    stack.reset_parameters(torch.Generator().manual_seed(1))
    numbers = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
    stack.reset_parameters(torch.Generator().manual_seed(1), symbols=True)
    first = {f"cells.{number}.weight_ih" for number in range(len(stack.directions))}
    for name, tensor in stack.state_dict().items():
        if name in first:
            assert numbers[name].abs().max() <= 1 / 8
            assert 2.9 < float(tensor.abs().max()) <= 3
            assert float(tensor.mean()) == pytest.approx(0, abs=0.1)
        else:
            assert torch.equal(tensor, numbers[name])


@pytest.mark.parametrize(("cell", "layers", "factor"), [("lstm", 3, 4), ("lstm", 2, 1), ("gru", 3, 1)])
def test_upper_layers_of_a_deep_lstm_hear_symbols_from_the_start(cell: str, layers: int, factor: int) -> None:
    stack, like = (Stack(cell, inputs=5, hidden=8, layers=layers, bidirectional=True) for _ in range(2))
    stack.reset_parameters(torch.Generator().manual_seed(1), symbols=True)
    like.reset_parameters(torch.Generator().manual_seed(1))
    for name, tensor in stack.state_dict().items():
        if not name.startswith(("cells.0.", "cells.1.")):
            scale = factor if name.endswith("weight_ih") else 1
            assert torch.equal(tensor, scale * like.state_dict()[name]), name
