"""Steps of training where strings have rows of weights: against arithmetic by hand, and runs that go on to the bit."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import charlm
from charlm.checkpoint import grown
from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import read_tensors
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Average, Observer, StepReport
from charlm.training.options import Optimisation, RowAdamW, adamw
from charlm.training.recipe import choose
from tests.conftest import Run

TEXT = charlm.Text.of("she sells sea shells by the sea shore; the shells she sells are sea shells.\n" * 40)
SMALL: dict[str, Any] = {
    "model": "gru", "hidden": 10, "layers": 1, "grams": 500, "seq_length": 12, "batch_size": 6, "lr": 0.02,
    "dropout": 0.2, "input_dropout": 0.1, "max_steps": 30,
}  # fmt: skip
ROWS = "grams.weight"


def same(first: CharRNN, second: CharRNN) -> bool:
    pairs = zip(first.named_parameters(), second.named_parameters(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_rows_have_adagrad_with_one_sum_each() -> None:
    """By hand in numpy, in double precision; a row that no step reads, and the sums, stay as they are."""
    draw = np.random.default_rng(0)
    rows = torch.nn.Parameter(torch.from_numpy(draw.normal(size=(7, 3))))
    expected, sums = rows.detach().numpy().copy(), np.zeros(7)
    optimizer = RowAdamW(rows, [{"params": [rows], "weight_decay": 0.0, "factor": 1.0}], lr=0.1, fused=True)
    for step in range(5):
        places = torch.from_numpy(draw.integers(0, 6, 8))  # with repetitions, whose gradients add up
        values = torch.from_numpy(draw.normal(size=(8, 3)))
        sparse = torch.sparse_coo_tensor(places[None], values, (7, 3), check_invariants=True)
        rows.grad = sparse if step != 3 else sparse.to_dense()  # as several processes agree on
        optimizer.param_groups[-1]["lr"] = rate = 0.1 / (step + 1)
        optimizer.step()
        gradient = np.zeros((7, 3))
        np.add.at(gradient, places.numpy(), values.numpy())
        for row in set(places.tolist()):
            sums[row] += (gradient[row] ** 2).mean()
            expected[row] -= rate * gradient[row] / math.sqrt(sums[row])
    np.testing.assert_allclose(rows.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[rows]["sum"].numpy(), sums, rtol=1e-12)
    assert sums[6] == 0.0


def test_a_row_without_a_gradient_of_its_own_stays_finite() -> None:
    rows = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = RowAdamW(rows, [{"params": [rows], "weight_decay": 0.0, "factor": 1.0}], lr=0.1, fused=True)
    rows.grad = torch.sparse_coo_tensor([[0]], torch.zeros(1, 3), (2, 3), check_invariants=True)
    optimizer.step()
    assert rows.tolist() == [[1.0] * 3] * 2


def test_all_other_weights_have_the_steps_of_adamw() -> None:
    """Against torch's own class on a twin, whose rows it does not have."""
    options = Optimisation(max_steps=9, lr=0.01, row_rate=0.2)
    models = [CharRNN(TEXT.vocab, RNNConfig(model="lstm", hidden=6, grams=40)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    dense = list(models[1].dense.values())
    groups = [
        {"params": [p for p in dense if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in dense if p.dim() <= 1], "weight_decay": 0.0},
    ]
    ours, theirs = adamw(models[0], options), torch.optim.AdamW(groups, lr=0.01, betas=options.betas, fused=True)
    assert ours.param_groups[-1]["factor"] == pytest.approx(20.0)
    assert [id(p) for p in ours.param_groups[-1]["params"]] == [id(models[0].row_weights)]
    ids = torch.from_numpy(TEXT.corpus.ids[:120].astype(np.int64)).view(4, 30).t()
    for _ in range(3):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            logp, _ = model(ids[:-1], model.initial_state(4))
            (-logp.gather(-1, ids[1:, :, None])).mean().backward()
            optimizer.step()
        with torch.no_grad():  # so that the gradients of the next step are equal
            models[1].grams.weight.copy_(models[0].grams.weight)  # type: ignore[union-attr]
    assert all(torch.equal(p, models[1].dense[name]) for name, p in models[0].dense.items())
    assert float(models[0].row_weights.detach().abs().max()) > 0  # type: ignore[union-attr]


def test_rows_are_not_averaged_and_the_average_takes_their_place_in_no_block() -> None:
    model = CharRNN(TEXT.vocab, RNNConfig(model="gru", hidden=4, grams=9))
    average = Average(model, share=1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with average.in_place():
        for name, parameter in model.named_parameters():
            expected = before[name] if name == ROWS else before[name] - 0.5
            assert torch.allclose(parameter, expected, atol=1e-6), name
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(average.weights[ROWS], before[ROWS])


class Interrupting(Observer):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, report: StepReport) -> None:
        if report.progress.step == self.after:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("average", [0.0, 0.2])
def test_a_run_with_rows_is_resumed_to_the_bit(tmp_path: Path, average: float) -> None:
    options = {**SMALL, "average": average}
    memory = charlm.train(TEXT, **options)
    disk = charlm.train(TEXT, **options, out=tmp_path / "whole")
    charlm.train(TEXT, **options, out=tmp_path / "run", observer=Interrupting(11))
    state, _ = read_tensors(tmp_path / "run" / "state-11.safetensors")
    assert [key for key in state if key.startswith("optimizer/") and key.endswith(ROWS)] == [f"optimizer/sum/{ROWS}"]
    assert state[f"optimizer/sum/{ROWS}"].shape == (501,)
    assert f"weights/{ROWS}" in state
    assert f"average/{ROWS}" not in state
    assert any(key.startswith("average/") for key in state) == bool(average)
    again = charlm.train(TEXT, resume=tmp_path / "run")
    assert same(memory, disk)
    assert same(memory, again)
    assert float(again.row_weights.detach().abs().max()) > 0
    for name in ("best", "last"):
        files = [read_tensors(tmp_path / each / f"{name}.safetensors")[0] for each in ("whole", "run")]
        assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())


def test_a_saved_network_with_rows_says_the_same(tmp_path: Path) -> None:
    model = charlm.train(TEXT, **SMALL)
    model.save(tmp_path / "net")
    loaded = charlm.load(tmp_path / "net")
    assert isinstance(loaded, CharRNN)
    assert same(model, loaded)
    assert (loaded.config.grams, loaded.config.gram_order) == (500, 5)
    assert loaded.evaluate(TEXT.test).nats == model.evaluate(TEXT.test).nats
    assert loaded.sample(length=60) == model.sample(length=60)
    with torch.no_grad():
        loaded.grams.weight.zero_()  # type: ignore[union-attr]
    assert loaded.evaluate(TEXT.test).nats != model.evaluate(TEXT.test).nats


def test_characters_read_as_unknown_stay_in_the_strings() -> None:
    """With weights of zero everywhere else, what is added does not depend on the mask."""
    model = CharRNN(TEXT.vocab, RNNConfig(model="gru", hidden=4, grams=90, input_dropout=0.9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.grams.weight[:-1].normal_()  # type: ignore[union-attr]
    ids = torch.from_numpy(TEXT.corpus.ids[:40].astype(np.int64))[:, None]
    expected, state = model(ids, model.initial_state(1))
    found, after = model.train()(ids, model.initial_state(1), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found, expected)
    assert torch.equal(after["recent"], state["recent"])
    assert after["recent"].tolist() == ids[-4:, 0].unsqueeze(0).tolist()


def test_a_run_from_a_network_keeps_its_rows_and_new_characters_clear_them() -> None:
    first = charlm.train(TEXT, **SMALL)
    start = {"init_from": first, "max_steps": 1, "lr": 1e-9, "seq_length": 12, "batch_size": 2, "average": 0.0}
    rows = first.row_weights
    assert rows is not None
    kept = charlm.train(TEXT, **start)
    assert (kept.config.grams, kept.config.gram_order) == (500, 5)
    changed = (kept.row_weights != rows).any(1)
    assert 0 < int(changed.sum()) < 100  # those that one step read
    more = grown(first, Vocab.of(str(TEXT) + "ß"))
    assert float(more.row_weights.detach().abs().max()) == 0.0  # type: ignore[union-attr]
    assert more.row_weights.shape == (501, len(first.vocab) + 1)  # type: ignore[union-attr]
    wider = charlm.train(charlm.Text.of("süße See\n" * 50), **start)
    assert (wider.row_weights != 0).any(1).sum() < 100
    with pytest.raises(OptionError, match="--grams 7 does not fit the weights of --init-from"):
        charlm.train(TEXT, **start, grams=7)


def test_plans_have_rows_where_a_long_text_is_read_few_times() -> None:
    cpu = torch.device("cpu")
    plain = {"minutes": 1.0, "look_back": 0}
    assert choose(10**6, cpu, plain).network.grams > 0
    assert "rows for strings of 2 to 5" in choose(10**6, cpu, plain).line()
    for characters, device, given, symbols in [
        (10**6, cpu, {"minutes": 1.0}, 64),  # it looks back
        (50_000, cpu, plain, 64),
        (10**6, cpu, {"epochs": 40.0, "look_back": 0}, 64),
        (10**6, cpu, plain, 3000),
        (10**6, torch.device("cuda"), plain, 64),
        (10**6, cpu, plain | {"grams": 0}, 64),
    ]:
        assert choose(characters, device, given, symbols).network.grams == 0, (characters, given)
    assert choose(5000, cpu, {"minutes": 1.0, "grams": 300}, 64).network.grams == 300


def test_the_command_asks_for_rows_and_for_none(charlm: Run, verse: Path, tmp_path: Path) -> None:
    small = ("--hidden", 8, "--layers", 1, "--seq-length", 16, "--batch-size", 4, "--max-steps", 2)
    for rows in (300, 0):
        code, _, err = charlm("train", verse, *small, "--grams", rows, "--out", f"net-{rows}")
        assert code == 0, err
        tensors, _ = read_tensors(tmp_path / f"net-{rows}" / "last.safetensors")
        assert (ROWS in tensors) == bool(rows)
        assert not rows or len(tensors[ROWS]) == rows + 1
    code, _, err = charlm("train", verse, *small, "--grams", -1)
    assert (code, err.count("\n")) == (2, 1)
    assert "grams is a number from 0" in err
