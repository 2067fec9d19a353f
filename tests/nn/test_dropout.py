"""Dropout in its four places: its mean, where a mask is shared, what weights and gradients a thinned layer sees."""

import pytest
import torch

from charlm.nn.stack import Stack, copy_from_torch, drop_symbols, dropout, to_torch
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shared_mask_is_one_for_all_steps() -> None:
    x = torch.ones(50, 4, 30)
    own, shared = (dropout(x, 0.5, True, seeded(), shared=shared) for shared in (False, True))
    assert (shared == shared[:1]).all()
    assert not (own == own[:1]).all()
    assert set(shared.unique().tolist()) == {0.0, 2.0}
    assert abs(dropout(torch.ones(1, 400, 400), 0.3, True, seeded(), shared=True).mean().item() - 1) < 0.01


def test_dropped_symbols_are_read_as_unknown() -> None:
    ids = torch.arange(100_000).view(1000, 100)
    thinned = drop_symbols(ids, 0.2, True, seeded())
    dropped = thinned == -1
    assert abs(dropped.float().mean().item() - 0.2) < 0.01
    assert (thinned[~dropped] == ids[~dropped]).all()


@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_weight_dropout_is_a_layer_with_those_weights(cell: str, backend: str) -> None:
    """Against torch's layer with the mask applied by hand; the gradient of a dropped weight is zero."""
    stack = Stack(cell, inputs=5, hidden=6, weight_dropout=0.4).double()
    stack.backend = backend
    x = torch.randn(7, 3, 5, generator=seeded(1), dtype=torch.float64)
    mask = torch.empty(stack.cell(0).weight_hh.shape, dtype=torch.float64).bernoulli_(0.6, generator=seeded(2)) / 0.6
    module = to_torch(stack)
    whole = module.weight_hh_l0.detach().clone()
    with torch.no_grad():
        module.weight_hh_l0.mul_(mask)
    stack.train()
    y, _ = stack(x, generator=seeded(2))
    expected, _ = module(x)
    assert (y - expected).abs().max() < 1e-12
    (grad,) = torch.autograd.grad(y.square().sum(), [stack.cell(0).weight_hh])
    (raw,) = torch.autograd.grad(expected.square().sum(), [module.weight_hh_l0])
    assert (grad - raw * mask).abs().max() < 1e-12
    assert (stack.cell(0).weight_hh == whole).all()
    stack.eval()
    copy_from_torch(stack, to_torch(stack))
    with torch.no_grad():
        module.weight_hh_l0.copy_(whole)
    assert (stack(x)[0] - module(x)[0]).abs().max() < 1e-12


def test_evaluation_drops_nothing_and_training_everywhere() -> None:
    """Each kind alone changes the training output, and none the evaluation's."""
    vocab, ids = Vocab.of("abcdefgh"), torch.arange(24).view(6, 4) % 8
    plain = CharRNN(vocab, RNNConfig(model="gru", hidden=12, layers=2))
    for option in ({"dropout": 0.5}, {"weight_dropout": 0.5}, {"input_dropout": 0.5}):
        model = CharRNN(vocab, RNNConfig(model="gru", hidden=12, layers=2, **option))  # type: ignore[arg-type]
        model.load_state_dict(plain.state_dict())
        state = model.initial_state(4)
        assert torch.equal(model(ids, state)[0], plain(ids, state)[0])
        model.train()
        first, second, other = (model(ids, state, None, seeded(seed))[0] for seed in (0, 0, 1))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
