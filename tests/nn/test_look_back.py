"""Attention over the last characters: against its formula one step at a time, and what it must never look at."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn.kernels import compiled
from charlm.nn.look_back import CHARACTERS, LookBack, mixed
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

V, D = 5, 7


def made(places: int = 9, *, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> LookBack:
    """One with random weights everywhere."""
    look_back, generator = (
        LookBack(places, V, D, characters=3, width=4, hidden=5).to(dtype),
        torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for parameter in look_back.parameters():
            parameter.normal_(generator=generator).mul_(scale)
    return look_back


def given(steps: int, lanes: int, *, least: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logp = torch.randn(steps, lanes, V, generator=generator, dtype=torch.float64).log_softmax(-1)
    ids = torch.randint(least, V, (steps, lanes), generator=generator)
    return logp, ids, torch.randn(steps, lanes, D, generator=generator, dtype=torch.float64)


def read(look_back: LookBack, logp: Tensor, ids: Tensor, y: Tensor, resets: Tensor | None = None) -> Tensor:
    return look_back(logp, ids, y, *look_back.initial_state(ids.shape[1]).values(), resets)[0]


@torch.no_grad()
def by_hand(look_back: LookBack, logp_TV: Tensor, ids_T: list[int], y_TD: Tensor) -> list[list[float]]:
    """The definition, for one lane and one step at a time."""

    def side(table: Tensor, linear: torch.nn.Linear, t: int) -> Tensor:
        last = [ids_T[t - n] if t >= n and ids_T[t - n] >= 0 else V for n in range(look_back.characters)]
        return torch.cat([*(table[n, id] for n, id in enumerate(last)), linear(y_TD[t])])

    rows = []
    for t in range(len(ids_T)):
        masses = [math.exp(float(look_back.own(y_TD[t])))]
        p = [masses[0] * math.exp(float(x)) for x in logp_TV[t]]
        query = side(look_back.query, look_back.query_map, t)
        for i in range(max(0, t - look_back.places), t):
            if ids_T[i] >= 0 and ids_T[i + 1] >= 0:
                score = float(query @ side(look_back.key, look_back.key_map, i)) - float(look_back.recency) * math.log(
                    t - i
                )
                masses.append(math.exp(score))
                p[ids_T[i + 1]] += masses[-1]
        rows.append([x / sum(masses) for x in p])
    return rows


@pytest.mark.parametrize("least", [0, -1])
def test_it_is_its_formula(least: int) -> None:
    look_back = made()
    logp, ids, y = given(40, 2, least=least)
    found = read(look_back, logp, ids, y).exp()
    for lane in range(2):
        expected = torch.tensor(
            by_hand(look_back, logp[:, lane], ids[:, lane].tolist(), y[:, lane]), dtype=torch.float64
        )
        assert torch.allclose(found[:, lane], expected, atol=1e-12)
    assert float((found.detach().sum(-1) - 1).abs().max()) < 1e-12


CASES: list[dict[str, Any]] = [
    {},
    {"steps": 1, "lanes": 1},
    {"steps": 64, "places": 50, "lanes": 2},
    {"steps": 29, "least": -1, "resets": True, "old": True},
    {"steps": 200, "places": 30, "lanes": 1, "resets": True},
    {"steps": 1, "repeats": True},
    {"steps": 100, "places": 40, "repeats": True, "old": True},
    {"steps": 300, "repeats": True, "least": -1, "resets": True},
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.usefixtures("target")
def test_compiled_it_is_its_formula(case: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probabilities, what is kept, and the gradients of all that goes in; without gradients the same."""
    steps, lanes = case.get("steps", 7), case.get("lanes", 3)
    small = (
        dtype == torch.float32 or "repeats" in case
    )  # scores, or only shares near the least one would be left in loops
    look_back = made(case.get("places", 20), dtype=dtype, scale=0.3 if small else 1.0)
    least = case.get("least", 0)
    logp, ids, y = (x.to(dtype) if x.is_floating_point() else x for x in given(steps, lanes, least=least))
    generator = torch.Generator().manual_seed(3)
    keys, kept = look_back.initial_state(lanes).values()
    keys = torch.randn(keys.shape, generator=generator, dtype=dtype).requires_grad_(case.get("old", False))
    kept = torch.randint(least, V, kept.shape, generator=generator)
    if case.get("repeats"):
        whole = torch.cat([kept, ids.t()], 1)
        for begin in range(5, whole.shape[1] - 1, 40):
            for place in range(begin, min(begin + 30, whole.shape[1])):
                whole[:, place] = whole[:, place - 1 - begin % 4]
        kept, ids = whole[:, :-steps], whole[:, -steps:].t()
    resets = torch.rand(steps, lanes, generator=generator) < 0.1 if case.get("resets") else None
    weight = torch.randn(logp.shape, generator=generator, dtype=dtype)
    into = [logp.requires_grad_(), y.requires_grad_(), *look_back.parameters(), *([keys] if keys.requires_grad else [])]

    def everything() -> list[Tensor]:
        found = look_back(logp, ids, y, keys, kept, resets)
        loss = (found[0] * weight).sum()
        first = torch.autograd.grad(loss, into, retain_graph=True)
        again = torch.autograd.grad(loss, into)  # the kernels overwrite what they kept for the way back
        assert all(torch.allclose(a, b) for a, b in zip(first, again, strict=True))
        with torch.no_grad():
            read_alone = look_back(logp, ids, y, keys, kept, resets)[0]
        assert torch.allclose(read_alone, found[0], rtol=1e-5)
        return [*found, *first]

    ours = everything()
    monkeypatch.setattr(compiled, "fits", lambda tensor: False)
    exact = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    for name, (a, b) in enumerate(zip(ours, everything(), strict=True)):
        assert torch.allclose(a, b, **exact), (name, (a - b).abs().max())


@pytest.mark.usefixtures("target")
def test_derivatives_are_those_of_finite_differences() -> None:
    look_back = made(8, scale=0.4)
    logp, ids, y = given(5, 2)
    keys, kept = look_back.initial_state(2).values()
    kept = torch.randint(0, V, kept.shape, generator=torch.Generator().manual_seed(4))

    def looked(logp: Tensor, y: Tensor, keys: Tensor, *_: Tensor) -> Tensor:
        return look_back(logp, ids, y, keys, kept)[0]

    into = (logp.requires_grad_(), y.requires_grad_(), keys.requires_grad_(), *look_back.parameters())
    assert torch.autograd.gradcheck(looked, into)
    assert torch.autograd.gradgradcheck(looked, into[:3])


@pytest.mark.parametrize(("kind", "places", "grams", "lanes", "steps"), [
    ("gru", 30, 0, 3, 700), ("lstm", 37, 500, 1, 90), ("rnn", 64, 0, 70, 100), ("gru", 6, 0, 2, 40),
])  # fmt: skip
@pytest.mark.usefixtures("target")
def test_compiled_generation_draws_what_steps_draw(
    kind: str, places: int, grams: int, lanes: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a state with places and an unknown character; in two pieces to the bit what one gives."""
    generator = torch.Generator().manual_seed(1)
    letters = "".join(chr(97 + i) for i in range(26)) + "".join(chr(65 + i) for i in range(26))
    model = CharRNN(Vocab.of(letters), RNNConfig(model=kind, hidden=24, layers=2, look_back=places, grams=grams))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
        before = torch.randint(-1, 52, (places + 9, lanes), generator=generator)
        _, state = model.logprobs(before, model.initial_state(lanes))
    ids = torch.randint(0, 52, (lanes,), generator=generator)
    ids[0] = -1
    noise = torch.rand(steps, lanes, generator=generator)
    for rule in (SamplingRule(), SamplingRule(temperature=0.8, top_k=5), SamplingRule(temperature=0)):
        drawn, logp, after = model.generate(ids, state, steps, rule, noise)
        with torch.inference_mode():
            expected, expected_logp, expected_after = generate_by_steps(model, ids, state, steps, rule, noise)
        same = (drawn == expected).all(0)  # a draw may fall on the other side of a border, after which texts part
        assert same.float().mean() > 0.9
        assert torch.allclose(logp[:, same], expected_logp[:, same], atol=1e-4)
        assert all(torch.allclose(after[name][same], x[same], atol=1e-3) for name, x in expected_after.items())
        first = model.generate(ids, state, 33, rule, noise[:33])
        second = model.generate(first[0][-1], first[2], steps - 33, rule, noise[33:])
        assert torch.equal(torch.cat([first[0], second[0]]), drawn)
        assert torch.equal(torch.cat([first[1], second[1]]), logp)
        assert all(torch.equal(second[2][name], x) for name, x in after.items())
    steps_taken: list[int] = []
    monkeypatch.setattr(CharRNN, "logprobs", lambda *_: steps_taken.append(1))
    model.generate(ids, state, 5, SamplingRule(), noise)
    assert not steps_taken, "it was not generated by the compiled kernels"


@pytest.mark.usefixtures("target")
def test_the_kernel_checks_what_it_is_handed() -> None:
    """Ids out of range and tensors that do not fit each other never reach C."""
    look_back = made(6)
    logp, ids, y = given(4, 2)
    state = look_back.initial_state(2)
    with pytest.raises(OptionError, match="ids are from 0 to 4"):
        look_back(logp, ids + 3, y, *state.values())
    with pytest.raises(OptionError, match="ids are from 0 to 4"):
        look_back(logp, ids, y, state["back_keys"], state["back_ids"] + 9)
    table, bias = torch.zeros(2, 3, V + 1, 4, dtype=torch.float64), torch.zeros(14, dtype=torch.float64)
    keys = [torch.zeros(2, n, 5, dtype=torch.float64) for n in (6, 4, 10)]
    pieces = torch.zeros(2, 12, dtype=torch.int64)
    fitting = [logp, torch.zeros(2, 4, dtype=torch.float64), keys[1], table, bias]
    mixed(*fitting, tuple(keys), pieces, pieces)  # type: ignore[arg-type]
    for at, wrong in enumerate([logp[:, :1], logp[:3], keys[1][:, :, :4], table[:, :2], bias[:13]]):
        with pytest.raises((OptionError, RuntimeError)):
            mixed(*[wrong if n == at else x for n, x in enumerate(fitting)], tuple(keys), pieces, pieces)  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [2, 9, 300])
def test_pieces_give_the_whole(places: int) -> None:
    """However the steps are cut, also where a call is longer than one block of scores."""
    look_back = made(places)
    logp, ids, y = given(331, 2, least=-1)
    whole = read(look_back, logp, ids, y)
    keys, kept = look_back.initial_state(2).values()
    found = []
    for part in torch.arange(331).split([1, 2, 30, 0, 250, 48]):
        piece, keys, kept = look_back(logp[part], ids[part], y[part], keys, kept)
        found.append(piece)
    assert torch.allclose(torch.cat(found), whole, atol=1e-12)
    assert kept.shape == (2, places + 2)
    assert kept[:, 2:].tolist() == ids[-places:].t().tolist()


def test_a_reset_is_a_new_beginning() -> None:
    """In its lane alone, for what comes in the same call and for what comes after it."""
    look_back = made()
    logp, ids, y = given(30, 2)
    resets = torch.zeros(30, 2, dtype=torch.bool)
    resets[[0, 11], 1] = True
    found, keys, kept = look_back(logp, ids, y, *look_back.initial_state(2).values(), resets)
    plain = read(look_back, logp, ids, y)
    assert torch.allclose(found[:, 0], plain[:, 0], atol=1e-12)
    assert torch.allclose(found[:11], plain[:11], atol=1e-12)
    fresh, fresh_keys, fresh_kept = look_back(logp[11:], ids[11:], y[11:], *look_back.initial_state(2).values())
    assert torch.allclose(found[11:, 1], fresh[:, 1], atol=1e-12)
    after = [look_back(logp, ids, y, *state)[0] for state in ((keys, kept), (fresh_keys, fresh_kept))]
    assert torch.allclose(after[0][:, 1], after[1][:, 1], atol=1e-12)
    assert not torch.allclose(found[12:, 1], plain[12:, 1])


def test_a_place_beyond_the_last_ones_is_not_seen() -> None:
    look_back = made(6)
    logp, ids, y = given(20, 1)
    y[0], ids[0] = (
        100.0,
        (ids[0] + 1) % V,
    )  # in the key of step 0, and its character in two more
    other = read(look_back, logp, ids, y)
    y[0] = -100.0
    again = read(look_back, logp, ids, y)
    assert not torch.allclose(again[1:7], other[1:7])
    assert torch.equal(again[7:], other[7:])


def test_a_name_met_once_is_spelled_again() -> None:
    """Before any training: an untrained network that looks back expects what followed the same characters."""
    text = "xqzjkvw. some other words in between, and then xqzjkv"
    model = CharRNN(Vocab.of(text), RNNConfig(model="gru", hidden=8, look_back=60))
    model.reset_parameters(torch.Generator().manual_seed(3))
    (symbol, p), (_, second) = model.next(text).top(2)
    assert symbol == "w"
    assert p > 3 * second


def test_extreme_scores_stay_finite() -> None:
    look_back = made(dtype=torch.float32)
    with torch.no_grad():
        look_back.query.mul_(1e4)
    logp, ids, y = (x.float() if x.is_floating_point() else x for x in given(30, 2))
    for own in (1e5, -1e5):
        with torch.no_grad():
            look_back.own.bias.fill_(own)
        found = read(look_back, logp, ids, y)
        assert bool(found.isfinite().all())
        (gradient,) = torch.autograd.grad(found.sum(), look_back.key)
        assert bool(gradient.isfinite().all())


def test_states_and_shapes_that_do_not_fit_are_refused() -> None:
    model = CharRNN(Vocab.of("abc"), RNNConfig(model="gru", hidden=4, look_back=8))
    ids, state = torch.tensor([[0], [1]]), model.initial_state(1)
    short = state["back_ids"][:, 1:]
    for wrong, said in [
        ({name: x for name, x in state.items() if name != "back_ids"}, "the tensors back_keys and back_ids"),
        ({**state, "back_ids": short}, r"back_ids has the shape \[1, 13\] here, not \[1, 12\]"),
        ({**state, "back_ids": state["back_ids"] + 9}, "ids are from 0 to 2"),
        ({**state, "back_keys": state["back_keys"].double()}, "back_keys is torch.float64"),
    ]:
        with pytest.raises(OptionError, match=said):
            model(ids, wrong)
    for places in (-1, 1, CHARACTERS - 1, 10**6):
        with pytest.raises(OptionError, match="look_back"):
            RNNConfig(look_back=places)
