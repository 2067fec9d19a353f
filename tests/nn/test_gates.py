"""Gates found again from a layer's outputs: they give the outputs back, whichever kernel ran."""

import pytest
import torch

from charlm.errors import OptionError
from charlm.nn.cells import trace
from charlm.nn.kernels import BACKENDS
from charlm.nn.stack import Stack, read_layers

IDS = torch.randint(0, 5, (9, 2), generator=torch.Generator().manual_seed(1))


def stack_of(cell: str, **options: int) -> Stack:
    stack = Stack(cell, inputs=5, hidden=7, layers=2, **options).double()
    for parameter in stack.parameters():
        parameter.data.mul_(2)  # far enough from the middle of every gate
    return stack


def carried(cell: str, stack: Stack, width: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.empty_like(tensor).uniform_(-1, 1, generator=generator)
        for name, tensor in stack.initial_state(2).items()
    }


@pytest.mark.parametrize("projection", [0, 3])
def test_an_lstms_gates_and_cell_states_give_its_outputs(projection: int) -> None:
    stack = stack_of("lstm", projection=projection)
    layers, state = read_layers(stack, IDS, carried("lstm", stack))
    y, expected = stack(IDS, carried("lstm", stack))
    assert torch.equal(layers[-1]["h"], y)
    for number, layer in enumerate(layers):
        assert torch.allclose(layer["c"][-1], expected[f"c{number}"])
        h = layer["o"] * torch.tanh(layer["c"])
        if projection:
            h = h @ stack.cell(number).weight_hr.t()
        assert torch.allclose(h, layer["h"])
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_the_lstms_gates_by_a_naive_loop() -> None:
    stack = stack_of("lstm")
    cell, state = stack.cell(0), carried("lstm", stack)
    found = read_layers(stack, IDS, state)[0][0]
    h, c = state["h0"][0], state["c0"][0]
    w_ih, w_hh, bias = cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh
    for t, id in enumerate(IDS[:, 0].tolist()):
        i, f, g, o = (w_ih[:, id] + w_hh @ h + bias).split(7)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        for name, value in {"i": i, "f": f, "o": o}.items():
            assert torch.allclose(found[name][t, 0], torch.sigmoid(value))
        assert torch.allclose(found["c"][t, 0], c)


def test_a_grus_gates_give_its_outputs() -> None:
    stack = stack_of("gru")
    state = carried("gru", stack)
    layers, _ = read_layers(stack, IDS, state)
    x = torch.nn.functional.one_hot(IDS, 5).double()
    for number, layer in enumerate(layers):
        cell = stack.cell(number)
        before = torch.cat([state[f"h{number}"].unsqueeze(0), layer["h"][:-1]])
        n_x = (x @ cell.weight_ih.t() + cell.bias_ih)[..., 14:]
        n_h = (before @ cell.weight_hh.t() + cell.bias_hh)[..., 14:]
        n = torch.tanh(n_x + layer["r"] * n_h)
        assert torch.allclose((1 - layer["z"]) * n + layer["z"] * before, layer["h"])
        x = layer["h"]


def test_an_embedding_and_every_backend() -> None:
    stack = Stack("lstm", inputs=4, hidden=6, layers=2)
    table = torch.randn(5, 4)
    dense, _ = read_layers(stack, table[IDS], stack.initial_state(2))
    for name in BACKENDS:
        stack.backend = name
        with torch.no_grad():
            layers, _ = read_layers(stack, IDS, stack.initial_state(2), table)
        for layer, other in zip(layers, dense, strict=True):
            assert set(layer) == {"h", "c", "i", "f", "o"}
            assert all(torch.allclose(layer[key], other[key], atol=1e-6) for key in layer)


def test_in_pieces_is_the_same_and_two_directions_are_refused() -> None:
    stack = stack_of("rnn")
    whole, _ = read_layers(stack, IDS, stack.initial_state(2))
    first, state = read_layers(stack, IDS[:4], stack.initial_state(2))
    second, _ = read_layers(stack, IDS[4:], state)
    assert torch.allclose(torch.cat([first[1]["h"], second[1]["h"]]), whole[1]["h"])
    assert trace(stack.cell(0), IDS, whole[0]["h"], (stack.initial_state(2)["h0"],)) == {}
    both = Stack("gru", inputs=5, hidden=3, bidirectional=True)
    with pytest.raises(OptionError, match="one direction"):
        read_layers(both, IDS, both.initial_state(2))
