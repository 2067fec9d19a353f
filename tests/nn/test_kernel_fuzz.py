"""Some random calls of the backends (`kernel_fuzz` runs any number), and each kind of wrong argument by name."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn.cells import make_cell
from charlm.nn.kernels import BACKENDS, backend, compiled, loops
from charlm.nn.kernels import generate as generation
from charlm.nn.stack import Stack
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from tests.nn import kernel_fuzz

KINDS = ["rnn", "gru", "lstm"]
CASES = list(itertools.product(KINDS, BACKENDS))
compiled = pytest.mark.skipif(compiled.library() is None, reason="the compiled kernels were not built here")


@pytest.mark.filterwarnings("ignore")
def test_random_calls_are_equal_or_refused() -> None:
    found = Counter(kernel_fuzz.check(seed) for seed in range(200))
    assert (
        min(found[f"{kind} {what}"] for kind in ("layer", "generation", "reading") for what in ("equal", "refused")) > 5
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_random_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_fuzz.main(3000, first=200) == 0, capsys.readouterr().out


def layer(kind: str = "lstm", hidden: int = 20, inputs: int = 5) -> tuple[Any, Tensor, tuple[Tensor, ...]]:
    cell = make_cell(kind, inputs, hidden)
    return cell, torch.zeros(4, 3, dtype=torch.int64), cell.initial_state(3)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_ids_of_any_whole_type_are_ids(kind: str, name: str, dtype: torch.dtype) -> None:
    cell, _, state = layer(kind)
    ids = torch.randint(0, 5, (4, 3), generator=torch.Generator().manual_seed(1))
    given, right = (backend(name)(cell, x, state)[0] for x in (ids.to(dtype), ids))
    assert torch.equal(given, right)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": torch.full((4, 3), 5)}, "ids are from 0 to 4, or -1 for an unknown symbol, not 5"),
        ({"x": torch.full((4, 3), -2)}, "not -2"),
        ({"x": torch.zeros(4, 3, dtype=torch.bool)}, "whole numbers"),
        ({"x": torch.zeros(4, 3, 6)}, "any, any, 5"),
        ({"x": torch.zeros(4, 3, 5, dtype=torch.float64)}, "float64"),
        ({"resets_TB": torch.zeros(3, 3, dtype=torch.bool)}, r"shape \[4, 3\]"),
        ({"resets_TB": torch.zeros(4, 3)}, "truth values"),
        ({"lengths_B": [5, 1, 1]}, "from 0 to the 4 steps"),
        ({"lengths_B": [1.0, 1.0, 1.0]}, "whole numbers"),
        ({"lengths_B": [4, 4]}, r"shape \[3\]"),
        ({"table": torch.zeros(9, 4)}, "embedding"),
        ({"state": ()}, "the state of this"),
        ({"state": "lanes"}, r"\[3, 20\] here, not \[2, 20\]"),
        ({"state": "width"}, r"\[3, 20\] here, not \[3, 19\]"),
        ({"state": "type"}, "float64"),
    ],
)
def test_what_a_kernel_cannot_read_is_refused(kind: str, name: str, wrong: dict[str, Any], message: str) -> None:
    cell, ids, state = layer(kind)
    states = {
        "lanes": tuple(tensor[:2] for tensor in state),
        "width": tuple(tensor[:, :-1] for tensor in state),
        "type": tuple(tensor.double() for tensor in state),
    }
    if isinstance(wrong.get("state"), str):
        wrong = {"state": states[wrong["state"]]}
    with pytest.raises(OptionError, match=message):
        backend(name)(cell, **{"x": ids, "state": state, **wrong})


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("part", ["x", "ids", "state", "table", "resets_TB", "lengths_B", "weights", "bias_hh"])
def test_what_is_on_another_device_is_refused(kind: str, name: str, part: str) -> None:
    cell, ids, state = layer(kind)
    given = {"x": ids, "state": state}
    if part in ("weights", "bias_hh"):
        for weight in [part] if part == "bias_hh" else list(cell._parameters):
            if cell._parameters[weight] is not None:
                setattr(cell, weight, torch.nn.Parameter(cell._parameters[weight].to("meta")))
    else:
        tensors = {"x": torch.zeros(4, 3, 5), "ids": ids, "state": state, "table": torch.zeros(9, 5)}
        tensors |= {"resets_TB": torch.ones(4, 3, dtype=torch.bool), "lengths_B": torch.full((3,), 2)}
        moved = tensors[part]
        moved = tuple(tensor.to("meta") for tensor in moved) if isinstance(moved, tuple) else moved.to("meta")
        given |= {"x" if part == "ids" else part: moved}
    with pytest.raises(OptionError, match="meta"):
        backend(name)(cell, **given)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_reset_ends_nan(kind: str, name: str) -> None:
    stack = Stack(kind, inputs=5, hidden=9, layers=2)
    stack.backend = name
    ids = torch.randint(0, 5, (6, 2), generator=torch.Generator().manual_seed(1))
    state = {key: torch.full_like(tensor, torch.nan) for key, tensor in stack.initial_state(2).items()}
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[2, 0] = True
    y, after = stack(ids, state, resets_TB=resets)
    assert torch.allclose(y[2:, 0], stack(ids[2:])[0][:, 0], atol=1e-6)
    assert y[:, 1].isnan().all()
    assert all(tensor[0].isfinite().all() for tensor in after.values())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_steps_no_lanes_and_empty_sequences(kind: str, name: str) -> None:
    stack = Stack(kind, inputs=5, hidden=9, layers=2, bidirectional=True)
    stack.backend = name
    state = {key: torch.randn_like(tensor) for key, tensor in stack.initial_state(3).items()}
    y, after = stack(torch.zeros(0, 3, dtype=torch.int64), state)
    assert y.shape == (0, 3, 18)
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert stack(torch.zeros(4, 0, 5))[0].shape == (4, 0, 18)
    x = torch.randn(4, 3, 5)
    y, after = stack(x, state, lengths_B=[0, 4, 2])
    assert not y[:, 0].any()
    assert all(torch.equal(after[key][0], state[key][0]) for key in state)
    others = {key: tensor[1:] for key, tensor in state.items()}
    assert torch.allclose(y[:, 1:], stack(x[:, 1:], others, lengths_B=[4, 2])[0], atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_stands_behind_a_length_is_not_read(kind: str, name: str) -> None:
    stack = Stack(kind, inputs=5, hidden=9)
    stack.backend = name
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    lengths, spoilt = torch.tensor([2, 0, 4]), x.clone()
    spoilt[2:, 0], spoilt[:, 1] = torch.nan, torch.inf
    found = []
    for given in (x, spoilt):
        y, _ = stack(given, lengths_B=lengths)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(stack.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def model(**options: Any) -> CharRNN:
    made = CharRNN(Vocab.of("abcdefgh"), RNNConfig(model="gru", hidden=12, **options))
    made.reset_parameters(torch.Generator().manual_seed(2))
    return made


@pytest.mark.parametrize("by_steps", [False, True])
def test_generation_refuses_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch, by_steps: bool) -> None:
    made = model(layers=2)
    if by_steps:
        monkeypatch.setattr(CharRNN, "_compiled", lambda self: False)
    right = {"ids_B": torch.zeros(3, dtype=torch.int64), "state": made.initial_state(3), "steps": 5}
    right |= {"rule": SamplingRule(), "noise_TB": torch.rand(5, 3, dtype=torch.float64)}
    state = made.initial_state(3)
    assert made.generate(**{**right, "ids_B": torch.zeros(3, dtype=torch.uint8)})[0].shape == (5, 3)
    for wrong, message in [
        ({"noise_TB": torch.rand(2, 3)}, "5 steps of 3 lanes"),
        ({"noise_TB": torch.rand(5, 2)}, "5 steps of 3 lanes"),
        ({"noise_TB": torch.ones(5, 3)}, "from 0 to below 1"),
        ({"noise_TB": torch.full((5, 3), torch.nan)}, "from 0 to below 1"),
        ({"noise_TB": torch.rand(5, 3, device="meta")}, "the noise: the device meta holds no numbers"),
        ({"ids_B": torch.zeros(3, dtype=torch.int64, device="meta")}, "ids are on meta"),
        ({"ids_B": torch.full((3,), 8)}, "from 0 to 7"),
        ({"ids_B": torch.zeros(3)}, "whole numbers"),
        ({"state": made.initial_state(2)}, r"\[3, 12\] here, not \[2, 12\]"),
        ({"state": {"h0": state["h0"]}}, "h0, h1"),
        ({"state": {**state, "h1": state["h1"].double()}}, "float64"),
    ]:
        with pytest.raises(OptionError, match=message):
            made.generate(**{**right, **wrong})


@compiled
def test_the_kernel_of_generation_checks_its_own_arguments() -> None:
    made = model()
    cells = [made.stack.cell(0)]
    packed = generation.pack(made, cells, None, [made.head.linear])
    plain: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    ids, noise = torch.zeros(2, dtype=torch.int64), torch.rand(3, 2, dtype=torch.float64)
    for state in ([], [(torch.zeros(2, 11),)], [(torch.zeros(2, 12).double(),)], [(torch.zeros(1, 12),)]):
        with pytest.raises(OptionError, match="state"):
            generation.generate(packed, ids, state, noise, **plain)
    with pytest.raises(OptionError, match="ids"):
        generation.generate(packed, ids + 8, [(torch.zeros(2, 12),)], noise, **plain)


@compiled
def test_every_change_of_a_weight_is_seen_by_generation() -> None:
    """Through `.data`, of single elements, by `set_`: a version counter misses these."""
    made, rule = model(layers=2), SamplingRule()
    noise = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([0, 1])

    def swap() -> None:
        weight = made.stack.cell(1).weight_hh.data
        weight[3, 4], weight[3, 5] = float(weight[3, 5]), float(weight[3, 4])

    changes = [
        lambda: None,
        lambda: made.head.linear.weight.data.mul_(-3),
        lambda: made.head.linear.bias.data.view(-1)[5:6].fill_(4.0),
        made.stack.cell(1).weight_ih.data.neg_,
        swap,
    ]
    for change in changes:
        change()
        drawn, logp, _ = made.generate(ids, made.initial_state(2), 20, rule, noise)
        right = generate_by_steps(made, ids, made.initial_state(2), 20, rule, noise)
        assert torch.equal(drawn, right[0])
        assert torch.allclose(logp, right[1], atol=1e-5)


@compiled
@pytest.mark.parametrize("count", [1, 5, 64, 65, 1000, 200_003])
def test_the_hash_changes_with_every_single_number(count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(count))
    before = loops.hash_of(x)
    for at in {0, count // 2, count - 1, max(0, count - 3)}:
        changed = x.clone()
        changed[at] = torch.nextafter(changed[at], torch.tensor(9.0))
        assert loops.hash_of(changed) != before
    assert loops.hash_of(x.clone()) == before


@pytest.mark.parametrize("by_steps", [False, True])
@pytest.mark.parametrize(
    ("rule", "kept"), [({"top_k": 3}, {1, 3, 4}), ({"top_p": 0.5}, {1, 3, 4}), ({"top_k": 1}, {3})]
)
def test_of_equally_probable_symbols_the_first_are_kept(
    monkeypatch: pytest.MonkeyPatch, by_steps: bool, rule: dict[str, Any], kept: set[int]
) -> None:
    """Weights 1, 2, 1, 4, 2, 2, 1, 2 of 15: beside the fourth symbol the first ones of weight 2 are kept."""
    made = model()
    with torch.no_grad():
        made.head.linear.weight.zero_()
        made.head.linear.bias.copy_(torch.tensor([1.0, 2, 1, 4, 2, 2, 1, 2]).log())
    if by_steps:
        monkeypatch.setattr(CharRNN, "_compiled", lambda self: False)
    lanes = 400
    noise = torch.linspace(0, 1, lanes + 1, dtype=torch.float64)[None, :lanes]
    ids = torch.zeros(lanes, dtype=torch.int64)
    drawn, _, _ = made.generate(ids, made.initial_state(lanes), 1, SamplingRule(**rule), noise)
    assert set(drawn[0].tolist()) == kept
