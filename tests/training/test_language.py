"""Truncated backpropagation through time: against the whole text at once, and by what is carried."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.recipe import choose, validation_limit

TEXT = "she sells sea shells by the sea shore; the shells she sells are sea shells, surely"


def objective(window: int, lanes: int = 1, cell: str = "lstm") -> LanguageObjective:
    corpus = corpus_of_text(TEXT)
    model = CharRNN(corpus.vocab, RNNConfig(model=cell, hidden=7, layers=2)).double()
    model.reset_parameters(torch.Generator().manual_seed(0))
    cut = Lanes(corpus.ids, corpus.documents, lanes=lanes, window=window)
    return LanguageObjective(model, cut, corpus.ids, corpus.documents)


def gradient(model: CharRNN, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_window_over_the_whole_text_is_full_bptt(cell: str) -> None:
    task = objective(len(TEXT), cell=cell)
    loss, count = task.loss(0)
    ids = torch.from_numpy(task.ids.astype(np.int64))
    logits = task.model.head.linear(task.model.stack(ids[:-1, None])[0])[:, 0]
    expected = F.cross_entropy(logits, ids[1:])
    assert count == len(TEXT) - 1
    assert abs(loss - expected) < 1e-12
    assert (gradient(task.model, loss) - gradient(task.model, expected)).abs().max() < 1e-12


def test_windows_carry_the_state_and_cut_the_gradient() -> None:
    task = objective(20)
    whole = objective(len(TEXT))
    with torch.no_grad():
        pieces = [task.loss(step) for step in range(task.steps_per_epoch)]
        total, count = whole.loss(0)
    assert abs(sum(loss * n for loss, n in pieces) / count - total) < 1e-12
    loss, _ = task.loss(0)
    before = {name: tensor.clone() for name, tensor in task.state.items()}
    second, _ = task.loss(1)
    assert not any(tensor.requires_grad for tensor in before.values())
    ids = torch.from_numpy(task.ids.astype(np.int64))[:, None]
    expected = -task.model(ids[20:40], before)[0].gather(-1, ids[21:41, :, None]).mean()
    assert (gradient(task.model, second) - gradient(task.model, expected)).abs().max() < 1e-12


def test_ragged_lanes_weigh_every_target_the_same() -> None:
    task = objective(16, lanes=3)
    with torch.no_grad():
        pieces = [task.loss(step) for step in range(task.steps_per_epoch)]
    assert sum(n for _, n in pieces) == len(TEXT) - 1
    ids = torch.from_numpy(task.ids.astype(np.int64))
    edges = np.arange(4) * (len(TEXT) - 1) // 3
    with torch.no_grad():
        nats = sum(
            -task.model(ids[a:b, None], task.model.initial_state(1))[0][:, 0].gather(-1, ids[a + 1 : b + 1, None]).sum()
            for a, b in itertools.pairwise(edges)
        )
    assert abs(sum(loss * n for loss, n in pieces) - nats) < 1e-10


def test_what_is_carried_comes_back() -> None:
    first, second = objective(10, lanes=2), objective(10, lanes=2)
    first.loss(0)
    second.restore(first.carried())
    assert torch.equal(first.loss(1)[0], second.loss(1)[0])


def test_a_validation_reads_a_bounded_number_of_characters_from_all_over() -> None:
    whole = objective(20)
    corpus = corpus_of_text(TEXT * 200)
    lanes = Lanes(corpus.ids, corpus.documents, lanes=2, window=20)
    segments = [
        LanguageObjective(whole.model, lanes, corpus.ids, corpus.documents, limit=limit).segments
        for limit in (None, 320)
    ]
    sizes = [(rows[:, 2] - rows[:, 1]).tolist() for rows in segments]
    assert sum(sizes[0]) == len(corpus) - 1
    assert sum(sizes[1]) <= 320
    assert set(sizes[1]) == {9, 10}
    assert (segments[0][:, :2] == segments[1][:, :2]).all()


def test_validations_cost_about_a_tenth_of_a_training_whatever_the_text() -> None:
    """Of 51 MB, 2.5 of them held out, as of a text of any size: reading costs a third of what learning costs."""
    for characters, steps in ((51_000_000, 50), (51_000_000, 5000), (10**9, 10**6), (10**6, 10**5)):
        plan = choose(characters, torch.device("cpu"), {"max_steps": steps, "lanes": 32, "window": 128})
        limit = validation_limit(characters, plan)
        learned = steps * 32 * 128
        assert limit == 50_000 or limit * plan.optimisation.validations / 3 <= 0.11 * learned
        if steps == 50:
            assert limit * plan.optimisation.validations < 2_500_000  # less than one reading of the whole part


def test_some_lanes_forget_what_they_look_back_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a window but the first, a share of the lanes, the same ones each time; the layers' state goes on."""
    corpus = corpus_of_text("the lazy dog sleeps; the quick fox jumps.\n" * 40)
    span = np.array([[0, len(corpus.ids)]])
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=5, look_back=20))
    model.reset_parameters(torch.Generator().manual_seed(0))
    trained = LanguageObjective(model, Lanes(corpus.ids, span, lanes=40, window=8, seed=0), corpus.ids, span)
    trained.loss(0)
    kept = dict(trained.state)
    assert bool((kept["back_ids"][:, -8:] >= 0).all())
    monkeypatch.setattr("charlm.training.language.FORGETTING", 0.0)
    remembered, _ = trained.loss(1)
    monkeypatch.undo()
    gone_B = np.random.default_rng([0, 1]).random(40) < 1 / 16
    assert 0 < gone_B.sum() < 10
    trained.state = dict(kept)
    found, _ = trained.loss(1)
    ids = kept["back_ids"].clone()
    ids[torch.from_numpy(gone_B)] = -1
    window = trained.window(1)
    inputs, targets = torch.from_numpy(window.inputs_TB), torch.from_numpy(window.targets_TB)
    expected, _ = trained.mean_loss(inputs, targets, {**kept, "back_ids": ids}, None, window.count)
    assert torch.equal(found, expected)
    assert not torch.equal(found, remembered)
