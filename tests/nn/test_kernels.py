"""Every way of running a layer gives the numbers of the formulas: outputs, states, all gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.kernels import compiled, fastest
from charlm.nn.stack import Stack

KINDS = ["rnn", "gru", "lstm"]
SHAPES = [(1, 1), (1, 3), (5, 1), (3, 2), (6, 7), (4, 25)]  # steps, lanes
HIDDEN = [1, 5, 8, 19, 32]


@pytest.fixture(params=["compiled", "torch"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two loops `fused` goes through."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "fits", lambda tensor: False)
    elif compiled.library() is None:
        pytest.skip("the compiled kernels were not built here")
    return str(request.param)


def numbers(
    kind: str,
    backend: str,
    *,
    hidden: int,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float64,
    dense: bool = False,
    embedded: bool = True,
    resets: bool = False,
    layers: int = 1,
    **options: object,
) -> list[Tensor]:
    """Outputs, final state and the gradients of a random function of both by everything that goes in."""
    random = torch.Generator().manual_seed(7)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64).to(dtype)

    stack = Stack(kind, inputs=6, hidden=hidden, layers=layers, **options).to(dtype)
    stack.reset_parameters(torch.Generator().manual_seed(1))
    for parameter in stack.parameters():
        parameter.data = draw(*parameter.shape) / hidden**0.5
    stack.backend = backend
    table = draw(9, 6).requires_grad_() if embedded and not dense else None
    ids = torch.randint(-1, 9 if table is not None else 6, shape, generator=random)
    x = draw(*shape, 6).requires_grad_() if dense else ids
    state = {k: draw(v.shape[1], v.shape[0]).t().requires_grad_() for k, v in stack.initial_state(shape[1]).items()}
    resets_TB = torch.rand(shape, generator=random) < 0.3 if resets else None
    y, after = stack(x, state, table=table, resets_TB=resets_TB)
    outputs = [y, *after.values()]
    loss = sum((output * draw(*output.shape)).sum() for output in outputs)
    inputs = [*stack.parameters(), *state.values(), *([x] if dense else [] if table is None else [table])]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(loss, inputs)]


def assert_same(ours: list[Tensor], right: list[Tensor], tolerance: float = 1e-12) -> None:
    for a, b in zip(ours, right, strict=True):
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.slow
def test_fused_equals_the_formulas(loop: str, kind: str, hidden: int) -> None:
    for shape, dense, bias, resets in itertools.product(SHAPES, [False, True], [True, False], [False, True]):
        case = {"hidden": hidden, "shape": shape, "dense": dense, "bias": bias, "resets": resets}
        assert_same(numbers(kind, "fused", **case), numbers(kind, "reference", **case))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize("options", [{"layers": 2, "bidirectional": True}, {"layers": 3}, {"embedded": False}])
def test_stacks_equal_the_formulas(kind: str, backend: str, options: dict[str, object]) -> None:
    case = {"hidden": 11, "shape": (5, 9), **options}
    assert_same(numbers(kind, backend, **case), numbers(kind, "reference", **case))


@pytest.mark.parametrize("kind", KINDS)
def test_lanes_of_different_lengths(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=5, hidden=7, layers=2, bidirectional=True).double()
    x = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for backend in ("fused", "reference"):
        stack.backend = backend
        y, state = stack(x, lengths_B=torch.tensor([6, 1, 4]))
        gradients = torch.autograd.grad(y.square().sum(), list(stack.parameters()))
        results.append([y.detach(), *(tensor.detach() for tensor in state.values()), *gradients])
    assert_same(*results)


def test_an_lstm_with_projection_equals_the_formulas(loop: str) -> None:
    case = {"hidden": 7, "shape": (4, 3), "projection": 3}
    assert_same(numbers("lstm", "fused", **case), numbers("lstm", "reference", **case))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.slow
def test_any_number_of_threads(loop: str, kind: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for lanes in (1, 2, 7, 64):  # the threads share the units of few lanes, else the lanes
            case = {"hidden": 40, "shape": (6, lanes), "resets": lanes == 7}
            assert_same(numbers(kind, "fused", **case), numbers(kind, "reference", **case))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(compiled.library() is None, reason="torch's products depend on the number of lanes")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [5, 19, 32, 40])
def test_a_lane_alone_has_the_bits_that_it_has_among_others(kind: str, hidden: int) -> None:
    stack = Stack(kind, inputs=6, hidden=hidden)
    stack.reset_parameters(torch.Generator().manual_seed(1))
    stack.backend = "fused"
    ids_TB = torch.randint(0, 6, (9, 3), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y_TBD, _ = stack(ids_TB)
        for lane in range(3):
            assert torch.equal(stack(ids_TB[:, lane : lane + 1])[0], y_TBD[:, lane : lane + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_as_good_as_torch(loop: str, kind: str) -> None:
    case = {"hidden": 48, "shape": (30, 16), "dense": True, "layers": 2}
    right = numbers(kind, "reference", **case)

    def errors(backend: str) -> list[float]:
        numbers32 = numbers(kind, backend, dtype=torch.float32, **case)
        return [float((a.double() - b).square().mean().sqrt()) for a, b in zip(numbers32, right, strict=True)]

    for ours, theirs in zip(errors("fused"), errors("torch"), strict=True):
        assert ours <= 4 * theirs + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_large_inputs_saturate(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=1, hidden=9, bias=False).double()
    for backend in ("reference", "fused"):
        stack.backend = backend
        x = torch.tensor([1e3, -1e3, 1e30, -1e30]).double().view(4, 1, 1)
        y, _ = stack(x)
        assert y.isfinite().all()
        assert y.abs().max() <= 1
    stack.backend = "fused"
    y, _ = stack(torch.full((2, 1, 1), torch.nan).double())
    assert y.isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_two_forwards_before_a_backward(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=5, hidden=12, layers=2).double()
    first, second = torch.randint(5, (2, 6, 3), generator=torch.Generator().manual_seed(3))
    gradients = {}
    for backend in ("reference", "fused"):
        stack.backend = backend
        one, two = stack(first)[0].square().sum(), stack(second)[0].square().sum()
        gradients[backend] = [torch.autograd.grad(loss, list(stack.parameters())) for loss in (one, two)]
    for ours, right in zip(gradients["fused"], gradients["reference"], strict=True):
        assert_same(list(ours), list(right))


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_is_kept_can_be_gone_back_twice(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=5, hidden=12).double()
    stack.backend = "fused"
    loss = stack(torch.tensor([[1, 2], [3, 4]]))[0].square().sum()
    once = torch.autograd.grad(loss, list(stack.parameters()), retain_graph=True)
    assert_same(list(torch.autograd.grad(loss, list(stack.parameters()))), list(once), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=5, hidden=12, layers=2).double()
    ids = torch.randint(5, (6, 3), generator=torch.Generator().manual_seed(3))
    results = []
    for backend in ("reference", "fused"):
        stack.backend = backend
        with torch.no_grad():
            y, state = stack(ids)
        with torch.inference_mode():
            again, _ = stack(ids)
        assert torch.equal(y, again)
        results.append([y, *state.values()])
    assert_same(results[1], results[0])


def test_pieces_are_the_whole(loop: str) -> None:
    stack = Stack("lstm", inputs=5, hidden=12).double()
    stack.backend = "fused"
    ids = torch.randint(5, (9, 3), generator=torch.Generator().manual_seed(3))
    whole, after = stack(ids)
    first, state = stack(ids[:4])
    second, state = stack(ids[4:], state)
    assert_same([torch.cat([first, second]), *state.values()], [whole, *after.values()])


def test_the_way_back_is_right_by_finite_differences(loop: str) -> None:
    for kind in KINDS:
        stack = Stack(kind, inputs=3, hidden=5).double()
        stack.backend = "fused"
        x = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, stack=stack: stack(x)[0], (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_are_right_or_refused(loop: str, kind: str) -> None:
    """A gradient penalty: the sum of y has a constant gradient, so that nothing before the penalty needs one."""
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    stack = Stack(kind, inputs=5, hidden=6, layers=2).double()
    penalties = {}
    for backend in ("reference", "torch"):
        stack.backend = backend
        (slope,) = torch.autograd.grad(stack(x)[0].sum(), [x], create_graph=True)
        penalties[backend] = torch.autograd.grad(slope.square().sum(), list(stack.parameters()), materialize_grads=True)
    assert_same(list(penalties["torch"]), list(penalties["reference"]))
    stack.backend = "fused"
    for loss in (stack(x)[0].sum(), stack(x)[0].square().sum(), stack(x)[1]["h1"].sum()):
        with pytest.raises(OptionError, match="first derivatives only"):
            torch.autograd.grad(loss, [x], create_graph=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_alone(loop: str, kind: str) -> None:
    stack = Stack(kind, inputs=5, hidden=12, layers=2).double()
    results = []
    for backend in ("reference", "fused"):
        stack.backend = backend
        with torch.no_grad():
            y, state = stack(torch.tensor([[1, 2, 3]]))
        results.append([y, *state.values()])
    assert_same(results[1], results[0])


def test_the_fastest_is_chosen_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack("lstm", inputs=5, hidden=12, layers=2, dropout=0.5).train()
    random = torch.get_rng_state()
    now, cost = [0.0], {"fused": 3.0, "torch": 2.0}

    def clock() -> float:
        now[0] += cost.get(stack.backend, 0.0)
        return now[0]

    monkeypatch.setattr("charlm.nn.kernels.time.perf_counter", clock)
    assert fastest(stack, 3, 2, seconds=0) == "torch"
    cost["torch"] = 4.0
    assert fastest(stack, 3, 2, seconds=0) == "fused"
    assert stack.backend == "reference"
    assert stack.training
    assert all(parameter.grad is None for parameter in stack.parameters())
    assert torch.equal(random, torch.get_rng_state())


def losses(kind: str, backend: str, dtype: torch.dtype, steps: int) -> Tensor:
    """The losses of a small training run on a random walk over 8 symbols, state carried, without dropout."""
    stack = Stack(kind, inputs=8, hidden=24, layers=2)
    stack.reset_parameters(torch.Generator().manual_seed(1))
    head = torch.nn.Linear(24, 8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.linspace(-0.3, 0.3, parameter.numel()).view_as(parameter))
    stack, head, stack.backend = stack.to(dtype), head.to(dtype), backend
    parameters = [*stack.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    strides = torch.tensor([1, 1, 1, 2, 5])[torch.randint(5, (20_000,), generator=torch.Generator().manual_seed(2))]
    ids = (strides.cumsum(0) % 8).view(4, -1).t()
    state, values = stack.initial_state(4), []
    for step in range(steps):
        window = ids[step * 8 : step * 8 + 9]
        y, state = stack(window[:-1], {name: tensor.detach() for name, tensor in state.items()})
        loss = torch.nn.functional.cross_entropy(head(y).flatten(0, 1), window[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        values.append(loss.detach())
    return torch.stack(values)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_run_is_the_same_with_every_backend(kind: str) -> None:
    right = losses(kind, "reference", torch.float64, 500)
    assert right[-100:].mean() < right[0] - 0.2
    for backend in ("fused", "torch"):
        assert (losses(kind, backend, torch.float64, 500) - right).abs().max() < 1e-8
    for backend in ("reference", "fused", "torch"):
        single = losses(kind, backend, torch.float32, 500)[400:].mean().double()
        assert abs(single / right[400:].mean() - 1) < 0.005
