"""The compiled generation draws what drawing step by step draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, State, generate_by_steps
from charlm.nn.kernels import compiled
from charlm.nn.kernels.generate import Packed, pack
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import Bits, made_from, quantised
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
        if model.grams is not None:
            model.grams.weight[:-1].normal_(0, 3, generator=torch.Generator().manual_seed(seed))
    return model


def start(model: CharRNN, lanes: int, steps: int) -> tuple[Tensor, State, Tensor]:
    """Last ids, some of them unknown, a state that is not zero, and noise."""
    random = torch.Generator().manual_seed(lanes)
    ids = torch.randint(-1, len(model.vocab), (lanes,), generator=random)
    state = {k: torch.randn(v.shape, generator=random) for k, v in model.stack.initial_state(lanes).items()}
    if model.grams is not None:
        state["recent"] = torch.randint(-1, len(model.vocab), (lanes, model.grams.order - 1), generator=random)
    return ids, state, torch.rand(steps, lanes, generator=random, dtype=torch.float64)


def rounded_by_hand(model: CharRNN, bits: Bits) -> CharRNN:
    """The model with every weight w of a row replaced by scale * n for the whole number n nearest to w / scale."""
    twin = CharRNN(model.vocab, model.config)
    for name, weight in model.state_dict().items():
        rows = weight.numpy().copy()
        for row in rows if weight.dim() == 2 else ():
            scale = np.abs(row).max() / np.float32(2 ** (bits - 1) - 1)
            row[:] = np.rint(row / scale) * scale
        twin.state_dict()[name].copy_(torch.from_numpy(rows))
    return twin


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


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_strings_are_added(kind: str) -> None:
    for lanes, order, rows in [(1, 5, 300), (5, 2, 20), (70, 4, 1000)]:
        model = make(kind, hidden=12, layers=2, grams=rows, gram_order=order)
        assert_equal_to_steps(model, SamplingRule(), lanes)
        ids, state, noise = start(model, lanes, 9)
        whole = model.generate(ids, state, 9, SamplingRule(), noise)
        first, _, middle = model.generate(ids, state, 2, SamplingRule(), noise[:2])
        second, _, after = model.generate(first[-1], middle, 7, SamplingRule(), noise[2:])
        assert torch.equal(torch.cat([first, second]), whole[0])
        assert torch.equal(after["recent"], whole[2]["recent"])
        with torch.no_grad():
            model.grams.weight.zero_()  # type: ignore[union-attr]
        assert not torch.equal(model.generate(ids, state, 9, SamplingRule(), noise)[1], whole[1])
    assert_equal_to_steps(make(kind, hidden=12, grams=50).with_bits(8), SamplingRule(temperature=0.8), 3)


def test_last_characters_of_another_shape_or_vocabulary_are_refused() -> None:
    model = make("gru", hidden=12, grams=50)
    ids, state, noise = start(model, 3, 4)
    wrong = {name: tensor for name, tensor in state.items() if name != "recent"}
    with pytest.raises(OptionError, match=r"the state recent has the shape \[3, 4\] here, not no such tensor"):
        model.generate(ids, wrong, 4, SamplingRule(), noise)
    for recent, said in [
        (state["recent"][:2], r"not \[2, 4\]"),
        (state["recent"][:, :3], r"not \[3, 3\]"),
        (torch.full((3, 4), 21), "from 0 to 20"),
        (torch.full((3, 4), -2), "not -2"),
        (torch.zeros(3, 4), "whole numbers"),
    ]:
        with pytest.raises(OptionError, match=said):
            model.generate(ids, {**state, "recent": recent}, 4, SamplingRule(), noise)
        with pytest.raises(OptionError, match=said):
            model.logprobs(ids[None], {**state, "recent": recent})
    assert model.generate(ids, {**state, "recent": state["recent"].t().contiguous().t()}, 4, SamplingRule(), noise)


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [16, 8])
def test_weights_of_few_bits_generate_what_the_numbers_they_stand_for_do(kind: str, bits: Bits) -> None:
    for layers, hidden, lanes in [(1, 5, 1), (3, 24, 2), (2, 67, 3), (2, 24, 80)]:
        model = make(kind, layers=layers, hidden=hidden)
        twin, other = model.with_bits(bits), rounded_by_hand(model, bits)
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), other.parameters(), strict=True))
        assert_equal_to_steps(twin, SamplingRule(temperature=0.9), lanes)
        assert all(panels.numbers.element_size() == bits // 8 for panels in _packed(twin).recurrent)
        ids, state, noise = start(twin, lanes, 9)
        few = twin.generate(ids, state, 9, SamplingRule(), noise)
        twin.bits = 32
        whole = twin.generate(ids, state, 9, SamplingRule(), noise)
        assert all(torch.equal(a, b) for a, b in zip(few[:2], whole[:2], strict=True))
        assert all(torch.equal(few[2][name], whole[2][name]) for name in few[2])


@pytest.mark.parametrize("bits", [16, 8])
def test_changed_weights_of_few_bits_are_seen(bits: Bits) -> None:
    twin = make(hidden=24, layers=2).with_bits(bits)
    assert_equal_to_steps(twin, SamplingRule(), 1)
    with torch.no_grad():
        twin.stack.cell(1).weight_hh[0, 0] += 1e-3  # no whole number times the scale any more: packed as float32
        twin.stack.cell(0).weight_hh.neg_()
    assert_equal_to_steps(twin, SamplingRule(), 1)
    sizes = [panels.numbers.element_size() for panels in _packed(twin).recurrent]
    assert sizes == [bits // 8, 4]


def _packed(model: CharRNN) -> Packed:
    cells = [model.stack.cell(n) for n in range(model.stack.layers)]
    return pack(model, cells, None, [model.head.linear], model.bits)


@pytest.mark.parametrize("bits", [16, 8])
def test_whole_numbers_are_found_again_in_the_rounded_matrix(bits: Bits) -> None:
    random = torch.Generator().manual_seed(bits)
    weights = torch.randn(5000, 7, generator=random) * torch.logspace(-30, 30, 5000).unsqueeze(1)
    weights[3] = 0
    whole, scale = quantised(weights, bits)
    assert int(whole.abs().max()) == 2 ** (bits - 1) - 1
    assert bool(((whole * scale.unsqueeze(1) - weights).abs() <= 0.51 * scale.unsqueeze(1)).all())
    found = made_from(whole * scale.unsqueeze(1), bits)
    assert found is not None
    assert torch.equal(found[0], whole)
    assert torch.equal(found[0] * found[1].unsqueeze(1), whole * scale.unsqueeze(1))
    assert made_from(weights, bits) is None


def test_without_the_kernels_the_same_text_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = make(hidden=24, layers=2).with_bits(8)
    text = twin.sample(length=40, seed=3)
    monkeypatch.setattr(compiled, "library", lambda: None)
    assert twin.sample(length=40, seed=3) == text


def test_bits_that_there_are_not_are_refused() -> None:
    model = make(hidden=5)
    with pytest.raises(OptionError, match="a weight has 8, 16 or 32 bits, not 4"):
        model.with_bits(4)  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.linear.weight[0, 0] = math.nan
    with pytest.raises(OptionError, match="not a finite number"):
        model.with_bits(8)
