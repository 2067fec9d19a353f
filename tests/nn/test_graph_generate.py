"""Chunks that are recorded draw what the model draws step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn.kernels.graphs import Chunks, Graph, Network, chunk, generate_in_graphs
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

RULES = [SamplingRule(), SamplingRule(temperature=0), SamplingRule(temperature=0.7, top_k=5, top_p=0.8)]


class Again(Graph):
    """Runs the callable instead of playing a record of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def warm(self, body: Callable[[], None]) -> None:
        self.calls.append("warm")
        body()

    def capture(self, body: Callable[[], None]) -> None:
        self.calls.append("capture")
        self.body = body

    def replay(self) -> None:
        self.calls.append("replay")
        self.body()


def make(cell: str, embedding: int = 0, layers: int = 2) -> tuple[CharRNN, Network]:
    vocab = Vocab.of("abcdefghijkl")
    model = CharRNN(vocab, RNNConfig(model=cell, hidden=11, layers=layers, embedding=embedding)).double()
    model.reset_parameters(torch.Generator().manual_seed(4))
    with torch.no_grad():
        model.head.linear.weight.mul_(6)  # distributions that are worth drawing from
    model.stack.backend = "reference"
    table = None if model.embedding is None else model.embedding.weight
    cells = [model.stack.cell(layer) for layer in range(layers)]
    return model, Network(cells=cells, table=table, head=model.head.linear)


def split(model: CharRNN, state: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    names = model.stack.cell(0).states
    return [tuple(state[f"{name}{n}"] for name in names) for n in range(model.stack.layers)]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("embedding", [0, 5])
@torch.no_grad()
def test_any_number_of_steps_is_what_single_steps_draw(cell: str, rule: SamplingRule, embedding: int) -> None:
    model, network = make(cell, embedding)
    noise = torch.rand(19, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ids = torch.tensor([0, -1, 7])
    right = generate_by_steps(model, ids, model.initial_state(3), 19, rule, noise)
    start = split(model, model.initial_state(3))
    graph = Again()
    recorded = Chunks(network, rule.draw, start, graph, size=4)
    for found in (chunk(network, rule.draw, ids, start, noise), recorded.generate(ids, start, noise)):
        assert torch.equal(found[0], right[0])
        assert torch.allclose(found[1], right[1], atol=1e-12)
        for ours, theirs in zip(found[2], split(model, right[2]), strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert torch.allclose(a, b, atol=1e-12)
    assert graph.calls == ["warm", "capture", "replay", "replay", "replay"]  # 4 whole chunks, 3 steps are left


@torch.no_grad()
def test_calls_follow_one_another() -> None:
    model, network = make("lstm")
    rule = SamplingRule()
    noise = torch.rand(24, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ids, start = torch.tensor([1, 2]), split(model, model.initial_state(2))
    whole = chunk(network, rule.draw, ids, start, noise)
    recorded = Chunks(network, rule.draw, start, Again(), size=4)
    first = recorded.generate(ids, start, noise[:10])
    kept = [tensor.clone() for tensor in (*first[:2], *first[2][0])]
    second = recorded.generate(first[0][-1], first[2], noise[10:])
    assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
    assert torch.allclose(second[2][1][1], whole[2][1][1])
    for before, now in zip(kept, (*first[:2], *first[2][0]), strict=True):
        assert torch.equal(before, now)  # what was given away does not change with the next call


@torch.no_grad()
def test_a_record_is_kept_until_something_else_is_asked_for() -> None:
    model, network = make("gru")
    made: list[Again] = []

    def new() -> Graph:
        made.append(Again())
        return made[-1]

    def draw(rule: SamplingRule, lanes: int) -> torch.Tensor:
        noise = torch.full((40, lanes), 0.5, dtype=torch.float64)
        start = split(model, model.initial_state(lanes))
        ids = torch.zeros(lanes, dtype=torch.int64)
        drawn, _, _ = generate_in_graphs(model, network, rule.draw, rule, ids, start, noise, new)
        right = generate_by_steps(model, ids, model.initial_state(lanes), 40, rule, noise)
        assert torch.equal(drawn, right[0])
        return drawn

    draw(RULES[0], 2)
    draw(SamplingRule(), 2)
    assert len(made) == 1
    draw(RULES[2], 2)
    draw(RULES[2], 3)
    assert len(made) == 3
    network.head.weight.mul_(0.3)  # in place: the record reads the weights where they are
    draw(RULES[2], 3)
    assert len(made) == 3
    network.head.weight = torch.nn.Parameter(network.head.weight * 2)
    draw(RULES[2], 3)
    assert len(made) == 4


def test_on_a_cpu_nothing_is_recorded() -> None:
    model, _ = make("lstm")
    model.stack.backend = "fused"
    assert not model._graphed()
