"""A cell of one's own: one class, and everything that the built-in cells can do through the formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import charlm
from charlm.checkpoint import load
from charlm.errors import CharlmError, OptionError
from charlm.nn.cells import BUILT_IN, CELLS, Cell, cell_name, find_cell
from charlm.nn.stack import Stack, to_torch
from charlm.recurrent.dynamic import dynamic
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences.model import SequenceModel
from charlm.text.text import Text
from charlm.text.vocab import Vocab
from charlm.training.recipe import choose
from tests.training.runs import Stop, resume, start

CPU = torch.device("cpu")
TEXT = Text.of("the quick brown fox jumps over the lazy dog; the dog sleeps.\n" * 40, split="80/10/10")


class MinimalGatedUnit(Cell):
    """f = σ(W_f x + U_f h), n = tanh(W_n x + U_n (f * h)), h' = (1 - f) * h + f * n (Zhou et al. 2016)."""

    name = "mgu"
    gates = 2

    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h_BH,) = state
        f_x, n_x = gates_BG.chunk(2, -1)
        to_f, to_n = self.weight_hh.chunk(2)
        f_BH = torch.sigmoid(f_x + F.linear(h_BH, to_f))
        n_BH = torch.tanh(n_x + F.linear(f_BH * h_BH, to_n))
        return (h_BH + f_BH * (n_BH - h_BH),)


class SimpleRecurrentUnit(Cell):
    """c' = f * c + (1 - f) * x~, h' = r * tanh(c') (after Lei et al. 2018): no recurrent matrix, a state that begins
    with a number that is learned."""

    gates = 3
    states = ("h", "c")
    weight_c: Tensor
    c0: Tensor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        rows = 3 * self.hidden
        return {"weight_ih": (rows, self.inputs), "bias_ih": (rows,), "weight_c": (self.hidden,), "c0": (self.hidden,)}

    def initial_state(self, lanes: int) -> tuple[Tensor, ...]:
        h_BH, _ = super().initial_state(lanes)
        return h_BH, self.c0.expand(lanes, -1)

    def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x_BH, f_BH, r_BH = gates_BG.chunk(3, -1)
        f_BH = torch.sigmoid(f_BH + self.weight_c * state[1])
        c_BH = f_BH * state[1] + (1 - f_BH) * x_BH
        return torch.sigmoid(r_BH) * torch.tanh(c_BH), c_BH


MINE: list[type[Cell]] = [MinimalGatedUnit, SimpleRecurrentUnit]


def run(directory: Path, cell: type[Cell], *stops: int) -> dict[str, Tensor]:
    """The last weights of a run that was interrupted after so many steps each and resumed."""
    given: dict[str, Any] = {"model": cell_name(cell), "layers": 2, "hidden": 16, "lanes": 4, "window": 12, "lr": 0.02}
    plan = choose(len(TEXT), CPU, {**given, "dropout": 0.1, "max_steps": 40, "backend": "fused", "average": 0.1})
    directory.mkdir()
    assert TEXT.split is not None
    made = start(directory, TEXT.corpus, TEXT.split, plan, CPU)
    for after in stops:
        assert made.train(should_stop=Stop(after)) == "interrupted"
        made = resume(directory, TEXT.corpus, CPU)
    assert made.train() == "finished"
    assert made.model.evaluate(TEXT).nats < 2.9  # ln 30 = 3.4 at the beginning
    return {name: tensor.detach().clone() for name, tensor in made.model.named_parameters()}


@pytest.mark.parametrize("cell", MINE)
def test_trains_resumes_to_the_bit_is_loaded_and_samples(tmp_path: Path, cell: type[Cell]) -> None:
    whole, pieces = run(tmp_path / "whole", cell), run(tmp_path / "pieces", cell, 7, 20)
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    model = load(tmp_path / "whole", device="cpu")
    assert isinstance(model, CharRNN)
    assert type(model.stack.cell(0)) is cell
    model.save(tmp_path / "again")
    again = load(tmp_path / "again", device="cpu")
    assert again.evaluate(TEXT) == model.evaluate(TEXT)
    text = model.sample("the ", length=30, seed=3)
    assert isinstance(text, str)
    assert len(text) >= 30
    assert again.sample("the ", length=30, seed=3) == text
    assert dynamic(model, TEXT).evaluate(TEXT).nats < 3


@pytest.mark.parametrize("cell", MINE)
@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
def test_gradients_by_finite_differences(cell: type[Cell], backend: str) -> None:
    stack = Stack(cell, inputs=3, hidden=4, layers=2).double()
    stack.backend = backend
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    resets, lengths = torch.zeros(5, 2, dtype=torch.bool), torch.tensor([5, 3])
    resets[2, 0] = True
    names, parameters = zip(*stack.named_parameters(), strict=True)

    def loss(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        options = {"resets_TB": resets, "lengths_B": lengths}
        y, after = torch.func.functional_call(stack, given, (x,), options)
        return y.square().sum() + sum(tensor.sum() for tensor in after.values())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(loss, (x, *parameters))


@pytest.mark.parametrize("cell", MINE)
def test_pieces_are_the_whole_and_a_reset_is_the_initial_state(cell: type[Cell]) -> None:
    stack = Stack(cell, inputs=6, hidden=5).double()
    ids = torch.randint(-1, 6, (9, 2), generator=torch.Generator().manual_seed(1))
    whole, _ = stack(ids)
    first, state = stack(ids[:4])
    second, _ = stack(ids[4:], state)
    assert torch.allclose(torch.cat([first, second]), whole, atol=1e-12)
    resets = torch.zeros(9, 2, dtype=torch.bool)
    resets[4] = True
    anew, _ = stack(ids, resets_TB=resets)
    assert torch.allclose(anew[4:], stack(ids[4:])[0], atol=1e-12)


def test_serves_in_sequence_models_from_both_ends() -> None:
    model = SequenceModel(cell=MinimalGatedUnit, mode="score", features=3, hidden=4)  # type: ignore[arg-type]
    assert model.config.cell == "mgu"
    stack = Stack("mgu", inputs=3, hidden=4, bidirectional=True)
    assert stack(torch.ones(5, 2, 3), lengths_B=[5, 2])[0].shape == (5, 2, 8)


def test_a_name_or_a_class_is_kept_as_the_name() -> None:
    assert RNNConfig(model=MinimalGatedUnit) == RNNConfig(model="mgu")  # type: ignore[arg-type]
    assert RNNConfig(model="mgu").model == "mgu"
    assert find_cell("simplerecurrentunit") is SimpleRecurrentUnit


def test_a_checkpoint_of_a_cell_that_is_not_defined_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CharRNN(Vocab.of("abc"), RNNConfig(model="mgu", hidden=4)).save(tmp_path / "model")
    monkeypatch.delitem(CELLS, "mgu")
    with pytest.raises(CharlmError, match=r"'mgu' is not defined here: import the module that defines it first"):
        load(tmp_path / "model")
    with pytest.raises(OptionError, match=r"unknown cell 'mgu': choose one of rnn, gru, lstm"):
        RNNConfig(model="mgu")


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(OptionError, match=r"'lstm' belongs to charlm\.nn\.cells\.LSTMCell"):

        class LSTM(Cell):
            gates = 1

            def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return state

    def define(factor: float) -> type[Cell]:
        class Again(Cell):
            gates = 1

            def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return (gates_BG * factor,)

        return Again

    first = define(1)
    assert find_cell("again") is first
    second = define(2)  # as when the same cell of a notebook is run again
    assert find_cell("again") is second
    assert [name for name in CELLS if name in BUILT_IN] == list(BUILT_IN)


def test_a_subclass_of_a_built_in_cell_has_its_own_formula_in_every_backend() -> None:
    class Damped(find_cell("gru")):  # type: ignore[misc]
        def step(self, gates_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (super().step(gates_BG, state)[0] / 2,)

    model = CharRNN(Vocab.of("abcde"), RNNConfig(model="damped", hidden=6))
    ids = torch.tensor([[0, 1], [4, 2], [-1, 3]])
    for backend in ("reference", "fused", "torch"):
        model.stack.backend = backend
        y, _ = model.stack(ids)
        assert y[0].abs().max() <= 0.5
    assert not model._compiled()
    with pytest.raises(OptionError, match="torch has no layer of the cell damped"):
        to_torch(model.stack)


def test_weight_dropout_needs_recurrent_weights() -> None:
    assert Stack("mgu", inputs=2, hidden=3, weight_dropout=0.2).train()(torch.tensor([[1]]))[0].shape == (1, 1, 3)
    with pytest.raises(OptionError, match="weight dropout"):
        Stack(SimpleRecurrentUnit, inputs=2, hidden=3, weight_dropout=0.2)


@pytest.mark.parametrize("cell", MINE)
def test_the_door_takes_the_class(tmp_path: Path, cell: type[Cell]) -> None:
    model = charlm.train(TEXT, model=cell, hidden=12, max_steps=30, batch_size=4, seq_length=16, progress=False)
    assert type(model.stack.cell(0)) is cell
    assert model.evaluate(TEXT).nats < 3.4
    kept = charlm.train(
        TEXT, model=cell, hidden=12, max_steps=30, batch_size=4, seq_length=16, out=tmp_path / "x", progress=False
    )
    assert kept.evaluate(TEXT) == model.evaluate(TEXT)
    assert charlm.load(tmp_path / "x").sample("the ", length=20, seed=1) == kept.sample("the ", length=20, seed=1)
    texts = ["aab", "bba", "abb", "baa"] * 8
    classifier = charlm.SequenceClassifier(cell=cell, max_steps=10).fit(texts, [text[0] for text in texts])
    assert classifier.predict_proba(["aab", "bbb"]).shape == (2, 2)


@pytest.mark.parametrize("cell", MINE)
def test_its_units_are_looked_into(cell: type[Cell]) -> None:
    """Their outputs: gates and other states are known of the built-in cells alone."""
    model = CharRNN(TEXT.vocab, RNNConfig(model=cell_name(cell), hidden=6, layers=2))
    found = charlm.inspect(model, TEXT.test, units=["1:3"], length=50, shown=20)
    assert (len(found.atlas.units), found.atlas.gates) == (12, ())
    (unit,) = found.chosen
    ids = torch.from_numpy(TEXT.test.text.corpus.ids[TEXT.test.spans[0, 0] :][:50].astype("int64"))
    with torch.no_grad():
        _, state = model.logprobs(ids[:, None], model.initial_state(1))
    assert found.values(unit)[-1] == pytest.approx(float(state["h1"][0, 3]), abs=1e-3)
    with pytest.raises(OptionError, match="no cell states"):
        charlm.inspect(model, TEXT.test, units=["0:1:c"])
