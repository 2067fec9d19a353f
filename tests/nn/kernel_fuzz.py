"""Random calls of every backend: all give the numbers of the formulas, or all refuse with the same sentence.

    python -m tests.nn.kernel_fuzz 100000 [FIRST_SEED]

One call in three is as documented; the others have an argument or two of another type, shape, range, layout or
device, or weights of which one is of another type or on another device.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from charlm.errors import CharlmError
from charlm.lm.interface import SamplingRule
from charlm.nn.cells import BUILT_IN, Cell, make_cell
from charlm.nn.kernels import BACKENDS, backend
from charlm.nn.kernels import compiled as kernels
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from tests.nn.changes import changed, spoil_weights


def outcome(call: Callable[[], list[Tensor]]) -> list[Tensor] | str:
    """What a call gives, or the sentence by which it is refused; any other exception is the fuzz's find."""
    try:
        return call()
    except CharlmError as error:
        return f"{type(error).__name__}: {error}"


def same(a: list[Tensor] | str, b: list[Tensor] | str, tolerance: float) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    if [x.shape for x in a] != [x.shape for x in b]:
        return False
    pairs = [(x.double(), y.double()) for x, y in zip(a, b, strict=True)]
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True) for x, y in pairs)


def tame(value: Any) -> bool:
    """Whether gradients can be compared: where a gate is saturated, what is left of its slope is rounding; and a row of
    the embedding that is not read spoils the weights' gradient if it is not finite, as it is multiplied with 0."""
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool((value.abs() < 1e3).all())


def run_layer(cell: Cell, name: str, arguments: dict[str, Any], wanted: list[bool]) -> list[Tensor]:
    """Outputs, final state, and some of the gradients where there is anything to differentiate."""
    with torch.set_grad_enabled(any(wanted)):
        y, after = backend(name)(cell, **arguments)
    found = [y.detach(), *(tensor.detach() for tensor in after)]
    whole = [tensor for tensor in (y, *after) if tensor.requires_grad]
    if not any(wanted) or not y.numel() or not whole or not all(bool(tensor.isfinite().all()) for tensor in found):
        return found
    leaves = [*cell.parameters(), *(t for t in (arguments["x"], *arguments["state"]) if t.requires_grad)]
    leaves = [leaf for leaf, want in zip(leaves, wanted * len(leaves), strict=False) if want]
    weights = [torch.linspace(-1, 1, tensor.numel()).to(tensor).view(tensor.shape) for tensor in whole]
    if not leaves or not all(tame(value) for value in (arguments["x"], arguments["table"], *arguments["state"])):
        return found
    grads = torch.autograd.grad(whole, leaves, weights, allow_unused=True, materialize_grads=True)
    return [*found, *grads]


def layer_case(chance: random.Random, seed: int) -> str:
    """One call of one layer through all backends; says what came of it."""
    draw = torch.Generator().manual_seed(seed)
    kind, dtype = chance.choice(BUILT_IN), chance.choice([torch.float32, torch.float64])
    inputs, hidden, symbols = chance.randint(1, 6), chance.choice([1, 3, 8, 9, 17]), chance.randint(1, 9)
    projection = chance.choice([0, 0, 2]) if kind == "lstm" and hidden > 2 else 0
    cell = make_cell(kind, inputs, hidden, bias=chance.random() < 0.7, projection=projection)
    cell.reset_parameters(draw)
    cell.to(dtype)
    steps, lanes = chance.choice([0, 1, 1, 2, 5]), chance.choice([0, 1, 2, 5, 17])

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    embedded, dense = chance.random() < 0.4, chance.random() < 0.4
    ids = torch.randint(-1, symbols if embedded else inputs, (steps, lanes), generator=draw)
    marks, ends = torch.rand(steps, lanes, generator=draw) < 0.3, torch.randint(0, steps + 1, (lanes,), generator=draw)
    arguments = {
        "x": numbers(steps, lanes, inputs) if dense else ids,
        "state": tuple(numbers(lanes, cell.state_width(name)) for name in cell.states),
        "table": numbers(symbols, inputs) if embedded and not dense else None,
        "resets_TB": marks if chance.random() < 0.4 else None,
        "lengths_B": ends if chance.random() < 0.3 else None,
    }
    if chance.random() < 0.67:
        arguments = changed(chance, arguments)
    if chance.random() < 0.1:
        spoil_weights(chance, cell)
    wanted = [chance.random() < 0.7 for _ in range(9)] if chance.random() < 0.6 else [False]
    if any(wanted):
        for tensor in (arguments["x"], *(arguments["state"] if isinstance(arguments["state"], tuple) else ())):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.layout == torch.strided:
                tensor.requires_grad_()
    found = {name: outcome(lambda name=name: run_layer(cell, name, arguments, wanted)) for name in BACKENDS}  # type: ignore[misc]
    for name in BACKENDS:
        tolerance = 3e-4 if dtype == torch.float32 else 1e-9
        assert same(found[name], found["reference"], tolerance), (
            f"seed {seed}: {name} differs: {found[name]} against {found['reference']}"
        )
    return "refused" if isinstance(found["reference"], str) else "equal"


def rule_of(chance: random.Random) -> SamplingRule:
    temperature = chance.choice([0.0, 0.3, 1.0, 1.0, 2.0])
    return SamplingRule(
        temperature=temperature, top_k=chance.choice([0, 0, 1, 2, 3, 50]), top_p=chance.choice([1.0, 0.6])
    )


def near_an_edge(model: CharRNN, given: dict[str, Any], drawn: Tensor, rule: SamplingRule) -> bool:
    """Whether other draws come from rounding: the first one that differs stands, or its rule stands, on an edge."""
    before, ids, state = given["noise_TB"].double(), given["ids_B"].long(), given["state"]
    for step, own in enumerate(drawn):
        logp, state = model.logprobs(ids.unsqueeze(0), state)
        right = rule.draw(logp[0], before[step])
        for lane in (own != right).nonzero().flatten().tolist():
            for shift in (-1e-4, 1e-4):  # the same with the draw's own symbol a little more probable
                moved = logp[0, lane : lane + 1].clone()
                moved[0, own[lane]] += shift
                for noise in (before[step, lane] - 1e-4, before[step, lane], before[step, lane] + 1e-4):
                    if int(rule.draw(moved, noise.clamp(0, 1 - 1e-9).view(1))) == int(own[lane]):
                        return True
            return False
        ids = own
    return True


def network_of(chance: random.Random, draw: torch.Generator, look_back: int) -> CharRNN:
    """A small language model with weights that are not their initial ones where those are zeros."""
    symbols, hidden = chance.choice([1, 2, 5, 12, 20]), chance.choice([1, 3, 8, 9, 17])
    options: dict[str, Any] = {"layers": chance.randint(1, 2), "embedding": chance.choice([0, 0, 3])}
    options |= {"grams": chance.choice([0, 0, 4]), "gram_order": chance.choice([2, 3, 5]), "look_back": look_back}
    config = RNNConfig(model=chance.choice(BUILT_IN), hidden=hidden, bias=chance.random() < 0.7, **options)
    model = CharRNN(Vocab.of("".join(chr(65 + i) for i in range(symbols))), config)
    model.reset_parameters(draw)
    with torch.no_grad():
        if chance.random() < 0.4:  # equally probable symbols
            model.head.linear.weight.zero_()
            model.head.linear.bias.copy_(torch.randint(0, 3, (symbols,), generator=draw))
        else:
            model.head.linear.weight.mul_(8)
        if model.grams is not None:
            model.grams.weight[:-1].normal_(generator=draw)
    return model


def state_of(model: CharRNN, lanes: int, draw: torch.Generator) -> dict[str, Tensor]:
    """As if something had been read: any numbers, any characters."""
    state = model.initial_state(lanes)
    for name, value in state.items():
        whole = not value.is_floating_point()
        state[name] = torch.randn(value.shape, generator=draw)
        if whole:
            state[name] = torch.randint(-1, len(model.vocab), value.shape, generator=draw)
    return state


@torch.no_grad()
def generate_case(chance: random.Random, seed: int) -> str:
    """One call of generation, compiled and by single steps; says what came of it."""
    draw = torch.Generator().manual_seed(seed)
    model = network_of(chance, draw, chance.choice([0, 0, 6, 9, 40]))
    steps, lanes = chance.choice([0, 1, 2, 4]), chance.choice([0, 1, 2, 5])
    rows = steps + chance.choice([0, 0, 0, 2, -1])
    state = state_of(model, lanes, draw)
    given = {
        "ids_B": torch.randint(-1, len(model.vocab), (lanes,), generator=draw),
        "noise_TB": torch.rand(max(rows, 0), lanes, generator=draw, dtype=torch.float64),
        **state,
    }
    if chance.random() < 0.67:
        given = changed(chance, given)
    if chance.random() < 0.1:
        spoil_weights(chance, model)
    state = {name: given.pop(name) for name in state}
    rule, found = rule_of(chance), {}
    for compiled in (True, False):
        if not compiled:
            model._compiled = lambda: False  # type: ignore[method-assign]
        arguments = {**given, "state": state, "steps": steps, "rule": rule}

        def call(arguments: dict[str, Any] = arguments) -> list[Tensor]:
            drawn, logp, after = model.generate(**arguments)
            return [drawn, logp, *(after[name] for name in sorted(after))]

        found[compiled] = outcome(call)
    ours, right = found[True], found[False]
    if not same(ours, right, 1e-3):
        assert not isinstance(ours, str), f"seed {seed}: refused with {ours}, by steps {right}"
        assert not isinstance(right, str), f"seed {seed}: by steps refused with {right}"
        assert near_an_edge(model, {**given, "state": state}, ours[0], rule), f"seed {seed}: {ours} against {right}"
        return "on an edge"
    return "refused" if isinstance(right, str) else "equal"


def reading_case(chance: random.Random, seed: int) -> str:
    """A text read by a network that looks back, compiled and by the formulas; says what came of it."""
    draw = torch.Generator().manual_seed(seed)
    model = network_of(chance, draw, chance.choice([6, 9, 40]))
    steps, lanes = chance.choice([0, 1, 2, 5, 19]), chance.choice([0, 1, 2, 5])
    state = state_of(model, lanes, draw)
    marks = torch.rand(steps, lanes, generator=draw) < 0.2 if chance.random() < 0.4 else None
    given = {"ids_TB": torch.randint(-1, len(model.vocab), (steps, lanes), generator=draw), "resets_TB": marks, **state}
    if chance.random() < 0.67:
        given = changed(chance, given)
    given["state"] = {name: given.pop(name) for name in state}
    wanted, found = chance.random() < 0.6, []

    def call() -> list[Tensor]:
        with torch.set_grad_enabled(wanted):
            logp, after = model(**given)
        read = [
            logp.detach().clamp(min=-60),
            *(after[name].detach() for name in sorted(after)),
        ]  # shares below 1e-30 differ
        if not logp.requires_grad or not logp.numel() or not all(tame(x) for x in (*read, *given["state"].values())):
            return read
        return [*read, *torch.autograd.grad(logp.mean(), model.look_back.parameters())]  # type: ignore[union-attr]

    for fits in (kernels.fits, lambda tensor: False):
        with mock.patch.object(kernels, "fits", fits):
            found.append(outcome(call))
    if not same(found[0], found[1], 1e-3):
        assert not any(isinstance(what, str) for what in found), f"seed {seed}: {found}"
        huge = not all(tame(x) for x in given["state"].values())  # a product may overflow at a place that is not seen
        assert huge, f"seed {seed}: {found[0]} against {found[1]}"
        return "out of bounds"
    return "refused" if isinstance(found[1], str) else "equal"


def check(seed: int) -> str:
    """One random call; an AssertionError, or any error but a CharlmError, is a fault."""
    chance = random.Random(seed)
    kind = chance.random()
    if kind < 0.6:
        return "layer " + layer_case(chance, seed)
    return "generation " + generate_case(chance, seed) if kind < 0.85 else "reading " + reading_case(chance, seed)


def main(count: int, first: int = 0) -> int:
    """Runs so many calls, prints what came of them, and returns how many faults there were."""
    found: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            found[check(seed)] += 1
        except Exception as error:  # a fault, whatever it is
            found["FAULT"] += 1
            sys.stdout.write(f"seed {seed}: {type(error).__name__}: {str(error)[:600]}\n")
        if found["FAULT"] > 20:
            break
    sys.stdout.write(f"{sum(found.values()):,} calls: {dict(sorted(found.items()))}\n")
    return found["FAULT"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(bool(main(*(int(argument) for argument in sys.argv[1:]))))
