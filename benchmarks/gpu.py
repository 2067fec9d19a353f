"""The GPU's side of `train_speed` and `sample_speed`: whole steps with and without a graph, in several precisions.

Times are those of the device: several steps, then one wait. fp16 runs under autocast without loss scaling, which
would add the same to both sides.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_side import SYMBOLS, WIDTHS, Size, Step, TorchModel
from charlm.lm.interface import SamplingRule
from charlm.nn.kernels import facts, notes, precision
from charlm.nn.kernels.graphs import CudaGraph
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = [(h, layers, lanes, 128) for h, layers, lanes in itertools.product((256, 512, 1024), (1, 2, 3), (64, 256))]
MODELS = [("lstm", 2, 512), ("gru", 2, 256), ("lstm", 1, 128), ("rnn", 1, 128)]
OURS, THEIRS = 640, 64  # characters a measurement
STEPS = 10  # of a measurement


def device() -> torch.device:
    """The GPU, or one sentence and exit status 2."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    sys.stderr.write("there is no CUDA device on this machine: run this without --device cuda, or where there is one\n")
    raise SystemExit(2)


def set_precision(name: str) -> torch.dtype | None:
    """Sets both flags of TF32 alike, so that layers and products are compared in one precision; autocast's dtype."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != "fp32"
    return PRECISIONS[name]


def alphabet() -> Vocab:
    return Vocab.of("".join(chr(256 + i) for i in range(SYMBOLS)))


def whole_step(
    model: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    size: Size,
    where: torch.device,
    dtype: torch.dtype | None,
) -> Step:
    """Forward, cross-entropy, backward, clipping and Adam on the same random ids; it can be recorded."""
    random = torch.Generator().manual_seed(0)
    ids, targets = torch.randint(SYMBOLS, (2, size.steps, size.lanes), generator=random).to(where)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True, capturable=where.type == "cuda")

    def step() -> None:
        with torch.autocast(where.type, dtype=dtype, enabled=dtype is not None):
            logp = forward(ids).flatten(0, 1).float()
        loss = functional.nll_loss(logp, targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def recorded(step: Step) -> Step:
    """The step as a graph."""
    graph = CudaGraph()
    for _ in range(3):
        graph.warm(step)
    graph.capture(step)
    return graph.replay


def candidates(size: Size, where: torch.device, dtype: torch.dtype | None) -> dict[str, Callable[[], Step]]:
    """What is timed, by name: each makes its step. Names that begin with `torch` are the baseline."""
    made: dict[str, Callable[[], Step]] = {}
    for backend in ("fused", "torch"):
        made[f"charlm {backend}"] = lambda backend=backend: ours(size, backend, where, dtype)
        made[f"charlm {backend} graph"] = lambda backend=backend: recorded(ours(size, backend, where, dtype))
    for width in WIDTHS:
        made[f"torch {width}"] = lambda width=width: theirs(size, width, where, dtype)
        made[f"torch {width} graph"] = lambda width=width: recorded(theirs(size, width, where, dtype))
    return made


def ours(size: Size, backend: str, where: torch.device, dtype: torch.dtype | None) -> Step:
    config = RNNConfig(model=size.cell, layers=size.layers, hidden=size.hidden)
    model = CharRNN(alphabet(), config).train().to(where)
    model.stack.backend = backend
    for sentence in notes(model.stack):
        sys.stderr.write(sentence + "\n")
    state = model.initial_state(size.lanes)
    return whole_step(model, lambda ids: model(ids, state)[0], size, where, dtype)


def theirs(size: Size, width: int, where: torch.device, dtype: torch.dtype | None) -> Step:
    model = TorchModel(size, width).to(where)
    return whole_step(model, model, size, where, dtype)


def seconds_of(step: Step, steps: int = STEPS) -> float:
    """Of one step, on the device."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def in_turns(
    steps: Mapping[str, Step], seconds: float, clock: Callable[[Step], float] = seconds_of, least: int = 5
) -> dict[str, float]:
    """The median time of each step, taken in turns after a round that only warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        clock(step)
    started = time.perf_counter()
    while min(map(len, times.values())) < least or time.perf_counter() - started < seconds:
        for name, step in steps.items():
            times[name].append(clock(step))
    return {name: statistics.median(some) for name, some in times.items()}


def prepare(made: Mapping[str, Callable[[], Step]]) -> dict[str, Step]:
    """The steps that can be made; one that cannot (memory, a graph that is refused) is left out and named."""
    steps = {}
    for name, make in made.items():
        try:
            steps[name] = make()
        except RuntimeError as error:
            sys.stderr.write(f"{name} is left out: {str(error).strip().partition(chr(10))[0]}\n")
    return steps


def line(size: Size, name: str, medians: Mapping[str, float]) -> tuple[str, float]:
    """A line about one size, and how many times faster charlm's best is than torch's without a graph."""
    mine = {key: t for key, t in medians.items() if key.startswith("charlm")}
    plain = min(t for key, t in medians.items() if key.startswith("torch") and not key.endswith("graph"))
    graphs = [t for key, t in medians.items() if key.startswith("torch") and key.endswith("graph")]
    best = min(mine, key=lambda key: mine[key])
    graph = f"{min(graphs) * 1e3:8.3f} ms ({min(graphs) / mine[best]:5.2f})" if graphs else "none"
    text = (
        f"{size.cell:5}{size.hidden:5} x {size.layers} {size.lanes:4} lanes {size.steps:4} steps  {name:5}"
        f"{best:20}{mine[best] * 1e3:8.3f} ms   torch {plain * 1e3:8.3f} ms ({plain / mine[best]:5.2f})   "
        f"its graph {graph}"
    )
    return text, plain / mine[best]


def train(cells: Sequence[str], sizes: Sequence[tuple[int, ...]], precisions: Sequence[str], seconds: float) -> None:
    """Prints a line for each size and precision, and geometric means."""
    where = device()
    print(facts(where))
    for name in precisions or ("tf32", "bf16", "fp16"):
        dtype = set_precision(name)
        print(f"{name}: {precision(where)}")
        for cell in cells:
            ratios = []
            for hidden, layers, lanes, steps in sizes or SIZES:
                size = Size(cell=cell, hidden=hidden, layers=layers, lanes=lanes, steps=steps)
                text, ratio = line(size, name, in_turns(prepare(candidates(size, where, dtype)), seconds))
                print(text, flush=True)
                ratios.append(ratio)
            print(f"{cell} {name}: geometric mean {math.exp(statistics.mean(map(math.log, ratios))):.2f}", flush=True)


def sampler(cell: str, layers: int, hidden: int, streams: int, where: torch.device, backend: str = "fused") -> Step:
    """Draws OURS characters a stream in one call."""
    model = CharRNN(alphabet(), RNNConfig(model=cell, layers=layers, hidden=hidden)).to(where)
    model.stack.backend = backend
    ids, state = torch.zeros(streams, dtype=torch.long, device=where), model.initial_state(streams)
    noise = torch.rand(OURS, streams, dtype=torch.float64).to(where)
    return lambda: model.generate(ids, state, OURS, SamplingRule(), noise)


def loop(cell: str, layers: int, hidden: int, streams: int, where: torch.device) -> Step:
    """Draws THEIRS characters a stream one by one with torch's layers and `multinomial`."""
    size = Size(cell=cell, hidden=hidden, layers=layers, lanes=streams, steps=1)
    model = TorchModel(size, 64).eval().to(where)

    def step() -> None:
        with torch.inference_mode():
            ids, state = torch.zeros(1, streams, dtype=torch.long, device=where), None
            for _ in range(THEIRS):
                y, state = model.layers(model.embedding(ids), state)
                ids = torch.multinomial(model.linear(y[0]).softmax(-1), 1).t()

    return step


def sample(streams: Sequence[int], seconds: float) -> None:
    """Prints a line for each model and number of streams."""
    where = device()
    set_precision("fp32")
    print(facts(where))
    print(precision(where))
    for many, model in itertools.product(streams or (1, 64, 4096), MODELS):
        steps = {"charlm": sampler(*model, many, where), "torch": loop(*model, many, where)}
        medians = in_turns(steps, seconds, lambda step: seconds_of(step, 1))
        speeds = OURS * many / medians["charlm"], THEIRS * many / medians["torch"]
        print(
            f"{model[0]:5} {model[1]} x {model[2]:3}  {many:4} streams  {speeds[0]:12,.0f} characters/s   "
            f"torch {speeds[1]:12,.0f}   ratio {speeds[0] / speeds[1]:6.2f}",
            flush=True,
        )
