"""The compiled generation draws what drawing step by step draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from charlm.lm.interface import SamplingRule, State, generate_by_steps
from charlm.nn.kernels import compiled
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

KINDS = ["rnn", "gru", "lstm"]
RULES = [
    SamplingRule(),
    SamplingRule(temperature=0),
    SamplingRule(temperature=1.7),
    SamplingRule(temperature=0.5, top_k=5),
    SamplingRule(top_k=1),
    SamplingRule(top_p=0.8),
    SamplingRule(temperature=1.3, top_k=9, top_p=0.7),
    SamplingRule(top_k=500),
]
pytestmark = pytest.mark.skipif(compiled.library() is None, reason="the compiled kernels were not built here")


def make(kind: str = "lstm", symbols: int = 21, seed: int = 0, **options: object) -> CharRNN:
    """A model with random weights whose distributions are far from even."""
    model = CharRNN(Vocab.of("".join(chr(65 + i) for i in range(symbols))), RNNConfig(model=kind, **options))
    model.reset_parameters(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.head.linear.weight.mul_(12)
        model.head.linear.bias.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def start(model: CharRNN, lanes: int, steps: int) -> tuple[Tensor, State, Tensor]:
    """Last ids, some of them unknown, a state that is not zero, and noise."""
    random = torch.Generator().manual_seed(lanes)
    ids = torch.randint(-1, len(model.vocab), (lanes,), generator=random)
    state = {k: torch.randn(v.shape, generator=random) for k, v in model.initial_state(lanes).items()}
    return ids, state, torch.rand(steps, lanes, generator=random, dtype=torch.float64)


def assert_equal_to_steps(model: CharRNN, rule: SamplingRule, lanes: int, steps: int = 12) -> None:
    ids, state, noise = start(model, lanes, steps)
    before = {name: tensor.clone() for name, tensor in state.items()}
    drawn, logp, after = model.generate(ids, state, steps, rule, noise)
    with torch.no_grad():
        right, right_logp, right_after = generate_by_steps(model, ids, state, steps, rule, noise)
    assert torch.equal(drawn, right)
    assert torch.allclose(logp, right_logp, atol=1e-4)
    assert sorted(after) == sorted(right_after)
    assert all(torch.allclose(after[name], right_after[name], atol=1e-4) for name in after)
    assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.slow
def test_the_drawn_ids_are_those_of_drawing_by_steps(kind: str, layers: int) -> None:
    for hidden, embedding, lanes, bias in itertools.product([5, 24], [0, 6], [1, 3, 17], [True, False]):
        model = make(kind, layers=layers, hidden=hidden, embedding=embedding, bias=bias)
        assert_equal_to_steps(model, RULES[(hidden + lanes) % 3 - 1], lanes)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.slow
def test_every_rule_draws_what_it_draws_by_steps(rule: SamplingRule) -> None:
    for symbols, lanes in itertools.product([1, 2, 21, 64, 100], [1, 20]):
        assert_equal_to_steps(make("gru", symbols, hidden=12), rule, lanes, 20)


def test_tied_weights() -> None:
    assert_equal_to_steps(make("lstm", hidden=12, embedding=12, tied=True, layers=2), SamplingRule(), 3)


@pytest.mark.parametrize(
    ("options", "train"), [({"projection": 4}, False), ({"dropout": 0.5, "layers": 2}, True), ({}, False)]
)
def test_what_the_kernels_do_not_serve_goes_by_steps(options: dict[str, int], train: bool) -> None:
    model = make("lstm", hidden=12, **options).train(train)
    model = model if options else model.double()
    ids, state, noise = start(model, 3, 5)
    state = {name: tensor.to(model.head.linear.weight) for name, tensor in state.items()}
    drawn, _, _ = model.generate(ids, state, 5, SamplingRule(), noise)
    assert drawn.shape == (5, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_greedy_for_two_thousand_characters(kind: str) -> None:
    model = make(kind, 65, hidden=64, layers=2)
    ids, state, noise = start(model, 1, 2000)
    drawn, logp, _ = model.generate(ids, state, 2000, SamplingRule(temperature=0), noise)
    with torch.no_grad():
        right, right_logp, _ = generate_by_steps(model, ids, state, 2000, SamplingRule(temperature=0), noise)
    assert torch.equal(drawn, right)
    assert torch.allclose(logp, right_logp, atol=1e-3)


def test_chunks_are_the_whole() -> None:
    model = make(hidden=24, layers=2)
    ids, state, noise = start(model, 4, 11)
    whole, _, after = model.generate(ids, state, 11, SamplingRule(), noise)
    first, _, state = model.generate(ids, state, 4, SamplingRule(), noise[:4])
    second, _, state = model.generate(first[-1], state, 7, SamplingRule(), noise[4:])
    assert torch.equal(torch.cat([first, second]), whole)
    assert all(torch.equal(state[name], after[name]) for name in after)


def test_changed_weights_are_packed_again() -> None:
    model = make(hidden=24)
    ids, state, noise = start(model, 4, 11)
    model.generate(ids, state, 11, SamplingRule(), noise)
    with torch.no_grad():
        model.stack.cell(0).weight_hh.mul_(-1)
        model.head.linear.weight.neg_()
    assert_equal_to_steps(model, SamplingRule(), 4)


@pytest.mark.parametrize(
    "rule",
    [
        SamplingRule(),
        SamplingRule(temperature=0.6),
        SamplingRule(temperature=1.5),
        SamplingRule(top_k=4),
        SamplingRule(top_p=0.7),
        SamplingRule(temperature=1.2, top_k=8, top_p=0.9),
    ],
    ids=str,
)
def test_the_draws_have_the_distribution_of_the_rule(rule: SamplingRule) -> None:
    """Pearson's chi-square of 40,000 draws; 45 is beyond the 0.9999 quantile at 15 degrees of freedom."""
    model, lanes = make("gru", 16, hidden=10, seed=3), 40_000
    with torch.no_grad():
        model.head.linear.weight.div_(12)
    ids, state = torch.zeros(lanes, dtype=torch.long), model.initial_state(lanes)
    noise = torch.rand(1, lanes, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    drawn, _, _ = model.generate(ids, state, 1, rule, noise)
    with torch.no_grad():
        logp, _ = model.logprobs(ids[:1].unsqueeze(0), model.initial_state(1))
    expected = rule.probabilities(logp[0])[0] * lanes
    counts = torch.bincount(drawn[0], minlength=16)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    assert ((counts - expected)[possible].square() / expected[possible]).sum() < 45


def test_weights_changed_by_a_fused_optimiser_are_seen() -> None:
    model = CharRNN(Vocab.of("abcdefgh"), RNNConfig(model="gru", hidden=16, layers=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    rule, noise = SamplingRule(temperature=0), torch.zeros(40, 1, dtype=torch.float64)
    for _ in range(4):
        start = torch.tensor([1])
        drawn, logp, _ = model.generate(start, model.initial_state(1), 40, rule, noise)
        with torch.no_grad():
            expected, wanted, _ = generate_by_steps(model, start, model.initial_state(1), 40, rule, noise)
        assert torch.equal(drawn, expected)
        assert torch.allclose(logp, wanted, atol=1e-5)
        ids = torch.randint(0, 8, (30, 3))
        optimizer.zero_grad()
        (-model(ids, model.initial_state(3))[0].gather(-1, ids.roll(1, 0).unsqueeze(-1)).mean()).backward()
        optimizer.step()
