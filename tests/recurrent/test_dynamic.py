import copy
import math

import numpy as np
import pytest
import torch

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, take
from charlm.recurrent.dynamic import DynamicConfig, DynamicLM
from charlm.recurrent.model import CharRNN, RNNConfig, gradient_sizes
from charlm.text.vocab import Vocab

TEXT = "she sells sea shells by the sea shore; the shells she sells are surely seashells.\n" * 3
VOCAB = Vocab.of(TEXT)
IDS = VOCAB.encode(TEXT)
TRAIN = np.array([[0, 160]])
SIZE = 5  # of a segment


def network(cell="lstm", backend="fused", **options):
    model = CharRNN(VOCAB, RNNConfig(model=cell, hidden=6, layers=2, **options)).double()
    model.reset_parameters(torch.Generator().manual_seed(1))
    if model.grams is not None:
        torch.nn.init.normal_(model.grams.weight[:-1], generator=torch.Generator().manual_seed(2))
    model.stack.backend = backend
    return model


def dynamic(cell="lstm", rate=0.02, decay=0.1, floor=0.1, **options):
    model = network(cell, **options)
    sizes = gradient_sizes(model, IDS, TRAIN, segment=SIZE, samples=7)
    return DynamicLM(model, sizes, DynamicConfig(rate=rate, decay=decay, floor=floor, segment=SIZE))


def column(start, end):
    return torch.from_numpy(IDS[start:end].astype(np.int64))[:, None]


def by_hand(model, sizes, config, ids):
    """The rule of the paper with torch's own parameters, a segment after the other."""
    net = copy.deepcopy(model)
    learned = [p for name, p in net.named_parameters() if name != "grams.weight"]
    trained = [p.detach().clone() for p in learned]
    parts = list(sizes.split([p.numel() for p in trained]))
    mean = float(sizes.mean())
    state, rows = net.initial_state(1), []
    for begin in range(0, len(ids), config.segment):
        piece, targets = ids[begin : begin + config.segment], ids[begin + 1 : begin + config.segment + 1]
        logp, after = net(piece, state)
        rows.append(logp.detach())
        state = {name: tensor.detach() for name, tensor in after.items()}
        losses = [-logp[t, 0, int(c)] for t, c in enumerate(targets[:, 0]) if c >= 0]
        if len(targets) < config.segment or not losses:
            continue
        grads = torch.autograd.grad(sum(losses) / len(losses), learned)
        with torch.no_grad():
            for p, p0, g, part in zip(learned, trained, grads, parts, strict=True):
                size = part.view_as(p)
                pull = torch.minimum(torch.ones_like(size), config.decay * size / mean)
                p.copy_(p - config.rate * g / (size + config.floor * mean) + pull * (p0 - p))
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("cell", "decay", "grams"),
    [("rnn", 0.1, 0), ("gru", 0.1, 0), ("lstm", 0.1, 0), ("lstm", 5.0, 0), ("gru", 0.1, 60)],
)
def test_it_is_the_rule_of_the_paper(cell, decay, grams):
    """Weights of strings are no part of it: they stay as they are."""
    model = dynamic(cell, decay=decay, grams=grams)  # 5 pulls the greater half of the weights all the way
    ids = torch.cat([column(160, 178), torch.tensor([[-1]]), column(180, 203)])
    ids[25:32] = -1  # a whole segment teaches nothing
    logp, _ = model.logprobs(ids, model.initial_state(1))
    static = network(cell, grams=grams)
    sizes = gradient_sizes(static, IDS, TRAIN, segment=SIZE, samples=7)
    expected = by_hand(network(cell, "reference", grams=grams), sizes, model.config, ids)
    assert torch.allclose(logp, expected, atol=1e-10, rtol=0)
    assert not torch.allclose(logp[SIZE:], static(ids, static.initial_state(1))[0][SIZE:], atol=1e-3)


def test_gradient_sizes_are_root_mean_squares():
    model = network("gru", "reference")
    found = gradient_sizes(model, IDS, np.array([[3, 20], [40, 58]]), segment=4, samples=100)
    squares = []
    for start in [*range(3, 12), *range(40, 50)]:  # nine characters fit there
        state = model(column(start, start + 4), model.initial_state(1))[1]
        logp = model(column(start + 4, start + 8), {name: t.detach() for name, t in state.items()})[0]
        nats = -logp[:, 0].gather(1, column(start + 5, start + 9)).mean()
        squares.append(torch.cat([g.flatten() ** 2 for g in torch.autograd.grad(nats, list(model.parameters()))]))
    assert torch.allclose(found, torch.stack(squares).mean(0).sqrt(), atol=1e-12, rtol=1e-9)
    brief = gradient_sizes(model, IDS, np.array([[0, 3], [5, 6]]), segment=4)  # all there is
    logp = model(column(0, 2), model.initial_state(1))[0]
    (grad,) = torch.autograd.grad(-logp[:, 0].gather(1, column(1, 3)).mean(), [model.head.linear.bias])
    assert torch.allclose(brief[-len(VOCAB) :], grad.abs(), atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"embedding": 6, "tied": True, "dropout": 0.5}, {"grams": 60}])
def test_pieces_lanes_and_causality(options):
    model = dynamic("gru", **options)
    ids_TB = torch.from_numpy(np.random.default_rng(1).integers(-1, len(VOCAB), (33, 3)))
    whole, last = model.logprobs(ids_TB, model.initial_state(3))
    assert not whole.requires_grad
    assert torch.allclose(whole.exp().sum(-1), torch.ones(33, 3).double())
    for sizes in ([1] * 33, [5, 5, 6, 4, 0, 13], [2, 14, 17]):
        state, pieces = model.initial_state(3), []
        for piece in ids_TB.split(sizes):
            before = {name: tensor.clone() for name, tensor in state.items()}
            logp, after = model.logprobs(piece, state)
            assert all(torch.equal(state[name], before[name]) for name in state)
            pieces.append(logp)
            state = after
        assert torch.allclose(torch.cat(pieces), whole, atol=1e-10)
        assert {name: (t.shape, t.dtype) for name, t in state.items()} == {
            n: (t.shape, t.dtype) for n, t in last.items()
        }
        assert all(torch.allclose(state[name], last[name], atol=1e-10) for name in state)
    alone, _ = model.logprobs(ids_TB[:, 2:], model.initial_state(1))
    assert torch.allclose(alone[:, 0], whole[:, 2], atol=1e-12)
    other = ids_TB.clone()
    other[17:] = 0
    assert torch.equal(model.logprobs(other, model.initial_state(3))[0][:17], whole[:17])
    _, middle = model.logprobs(ids_TB[:18], model.initial_state(3))
    swapped, _ = model.logprobs(ids_TB[18:, [2, 0]], take(middle, torch.tensor([2, 0])))
    assert torch.allclose(swapped, whole[18:, [2, 0]], atol=1e-10)


@pytest.mark.parametrize("grams", [0, 60])
def test_it_learns_from_what_it_has_read_and_leaves_the_network_alone(grams):
    net = network(grams=grams)
    before = copy.deepcopy(net.state_dict())
    model = DynamicLM(
        net, gradient_sizes(net, IDS, TRAIN, segment=SIZE, samples=20), DynamicConfig(rate=0.05, segment=SIZE)
    )
    ids = column(0, 240)
    logp, state = model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
    with torch.no_grad():
        static, _ = net.target_logprobs(ids[:-1], ids[1:], net.initial_state(1))
    assert float(logp[160:].mean()) > float(static[160:].mean()) + 0.15
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not torch.equal(state["weights"][0], model.weights_P)
    assert torch.equal(model.network.state_dict().get("grams.weight", ids), before.get("grams.weight", ids))


def test_no_rate_is_the_static_network():
    model, ids = dynamic(rate=0.0), column(30, 90)
    logp, _ = model.logprobs(ids, model.initial_state(1))
    assert torch.allclose(logp, network()(ids, network().initial_state(1))[0], atol=1e-12)


def test_a_gradient_that_is_not_finite_teaches_nothing():
    model = dynamic()
    broken = model.initial_state(1)
    broken["h0"][:] = math.nan
    broken["start.h0"][:] = math.nan
    _, state = model.logprobs(column(0, 20), broken)
    assert torch.equal(state["weights"][0], model.weights_P)


def test_generating_does_not_learn():
    model = dynamic("gru")
    _, state = model.logprobs(torch.cat([column(0, 63), column(7, 70)], 1), model.initial_state(2))
    noise = torch.from_numpy(np.random.default_rng(0).random((20, 2)))
    start = torch.tensor([3, 5])
    ids, logp, after = model.generate(start, state, 20, SamplingRule(), noise)
    assert torch.equal(after["weights"], state["weights"])
    assert after["read"].tolist() == [0, 0]
    for lane in range(2):  # the network with this lane's weights, nothing else
        net = network("gru")
        torch.nn.utils.vector_to_parameters(state["weights"][lane], net.parameters())
        hidden = {name: state[name][lane : lane + 1] for name in ("h0", "h1")}
        inputs = torch.cat([start[lane : lane + 1], ids[:-1, lane]])[:, None]
        rows, hidden = net(inputs, hidden)
        assert torch.allclose(rows[:, 0].gather(1, ids[:, lane : lane + 1])[:, 0], logp[:, lane].double(), atol=1e-6)
        assert torch.allclose(after["h1"][lane], hidden["h1"][0], atol=1e-6)
    first, _, middle = model.generate(start, state, 8, SamplingRule(), noise[:8])
    second, _, end = model.generate(first[-1], middle, 12, SamplingRule(), noise[8:])
    assert torch.equal(torch.cat([first, second]), ids)
    assert all(torch.allclose(end[name].double(), after[name].double(), atol=1e-12) for name in after)
    none, empty, same = model.generate(start, state, 0, SamplingRule(), noise[:0])
    assert (none.shape, empty.shape, same is state) == ((0, 2), (0, 2), True)
    model.logprobs(column(0, 12).expand(-1, 2), after)  # and it learns on from there


def test_it_learns_within_inference_mode_too():
    model = dynamic()
    with torch.inference_mode():
        inside, _ = model.logprobs(column(0, 40), model.initial_state(1))
    outside, _ = model.logprobs(column(0, 40), model.initial_state(1))
    assert torch.equal(inside, outside)


def test_wrong_use_is_one_sentence():
    for bad in ({"segment": 0}, {"rate": -1.0}, {"decay": math.nan}, {"floor": math.inf}):
        with pytest.raises(OptionError):
            DynamicConfig(**bad)
    with pytest.raises(OptionError, match="gradient sizes"):
        DynamicLM(network(), torch.ones(3))
    with pytest.raises(OptionError, match="no character"):
        gradient_sizes(network(), IDS, np.array([[0, 1], [4, 5]]))
