"""One recurrent layer over a whole sequence, by one of several backends that give the same numbers.

`reference` runs the formulas step by step, for every cell, and is the file to open first; `torch` hands the same
parameters to torch's own layers; `fused` is ours, compiled where a compiler was at hand. Those two serve the built-in
cells and leave others to `reference`. This file says which backend is taken on which device, and what should be known
of a device beside a figure that was measured on it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.nn.cells import BUILT_IN, Cell
from charlm.nn.kernels import compiled, fused, reference
from charlm.nn.kernels.reference import on_gpu

LayerKernel = Callable[
    [Cell, Tensor, tuple[Tensor, ...], Tensor | None, Tensor | None, Tensor | None],
    tuple[Tensor, tuple[Tensor, ...]],
]
"""(cell, x, state, table, resets_TB, lengths_B) -> (y_TBP, state); see `reference.run`."""

BACKENDS: dict[str, LayerKernel] = {
    "reference": reference.run,
    "fused": fused.run,
    "torch": fused.run_by_torch,
}


def backend(name: str) -> LayerKernel:
    """A way to run a layer, by its name."""
    if name not in BACKENDS:
        raise OptionError(f"unknown backend {name!r}: choose auto or one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def precision(device: torch.device) -> str:
    """How products are computed on a GPU, both flags of TF32 named, as torch sets them apart; empty elsewhere.

    >>> precision(torch.device("cpu"))
    ''
    """
    if not on_gpu(device):
        return ""
    names = {True: "on", False: "off"}
    products, layers = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    mixed = "bfloat16 under autocast, " if torch.cuda.is_bf16_supported() else ""
    return f"{mixed}TF32 {names[products]} in products and {names[layers]} in cuDNN"


PRECISIONS = ("auto", "fp32", "bf16")
"""How products are computed: `auto` is bf16 under autocast on a GPU that has it, and fp32 elsewhere."""


def check_precision(name: str, device: torch.device, cell: str = "lstm", backend: str = "fused") -> str:
    """A name of `PRECISIONS`, after a check that this device computes so.

    Raises:
        OptionError: what the device, the compiled kernels of this cell or the backend cannot do.

    >>> check_precision("fp16", torch.device("cpu"))
    Traceback (most recent call last):
    ...
    charlm.errors.OptionError: unknown precision 'fp16': choose auto, fp32 or bf16
    """
    if name not in PRECISIONS:
        raise OptionError(f"unknown precision {name!r}: choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    if name != "bf16":
        return name
    if on_gpu(device):
        if not torch.cuda.is_bf16_supported():
            raise OptionError("this GPU has no products of bfloat16: choose --precision fp32")
    elif device.type != "cpu" or not compiled.multiplies_bf16():
        raise OptionError(
            "products of bfloat16 need a GPU, or the compiled kernels for avx512 on a processor with AVX512-BF16 (AMD "
            f"from Zen 4 on, Intel Xeon from Sapphire Rapids on), not {compiled.target() or 'none'} on {device}: "
            "choose --precision fp32"
        )
    elif cell not in BUILT_IN:
        raise OptionError(f"products of bfloat16 are compiled for {', '.join(BUILT_IN)}, not for {cell}: choose fp32")
    elif backend not in ("fused", "rule"):
        raise OptionError(
            f"on a CPU the backend fused alone has products of bfloat16, not {backend}: leave --backend out"
        )
    return name


def multiplying(device: torch.device, precision: str = "auto") -> AbstractContextManager[object]:
    """A block in which products are computed in a precision of `PRECISIONS`, sums always in float32.

    >>> with multiplying(torch.device("cpu")):
    ...     torch.is_autocast_enabled("cpu")
    False
    """
    if precision == "bf16" or (precision == "auto" and on_gpu(device) and torch.cuda.is_bf16_supported()):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def facts(device: torch.device) -> str:
    """Device, driver and versions in one line.

    >>> facts(torch.device("cpu")).startswith("cpu, torch 2.")
    True
    """
    versions = f"torch {torch.__version__}"
    if not on_gpu(device):
        return f"{device}, {versions}, kernels {compiled.described()}"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name(device)
    return f"{name}, driver {_driver()}, {versions}, CUDA {torch.version.cuda}, cuDNN {cudnn}, Triton {_triton()}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0]


def _triton() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


CANDIDATES = ("fused", "torch")


def fastest(
    stack: nn.Module,
    steps: int,
    lanes: int,
    *,
    training: bool = True,
    table: Tensor | None = None,
    dense: bool = False,
    seconds: float = 0.5,
) -> str:
    """The backend that runs a stack fastest: the least of a few interleaved times each.

    Args:
        stack: a `charlm.nn.stack.Stack`; it is left as it was, and no random number is drawn.
        steps: T of the windows that will be read.
        lanes: B.
        training: whether gradients will be wanted.
        table: the embedding that ids are looked up in; None for one-hot.
        dense: whether numbers are read instead of ids.
        seconds: how long to measure, at least; every candidate runs three times whatever it takes.

    >>> from charlm.nn.stack import Stack
    >>> fastest(Stack("gru", inputs=5, hidden=8), steps=4, lanes=2, seconds=0) in CANDIDATES
    True
    """
    parameters = [p for p in stack.parameters() if p.requires_grad]
    if next(stack.parameters()).device.type != "cpu":
        return "torch"  # cuDNN's kernels; ours are loops over small operations there
    x = _input(stack, steps, lanes, table, dense)

    def run() -> None:
        with torch.set_grad_enabled(training and bool(parameters)):
            y, _ = stack(x, table=table)
            if y.requires_grad:
                torch.autograd.grad(y, parameters, torch.ones_like(y), allow_unused=True)

    before = stack.backend, stack.training
    stack.eval()  # dropout costs all of them the same
    try:
        times = _times(lambda name: setattr(stack, "backend", name), run, seconds)
    finally:
        stack.backend = before[0]
        stack.train(before[1])
    return min(times, key=lambda name: times[name])


def _input(stack: nn.Module, steps: int, lanes: int, table: Tensor | None, dense: bool) -> Tensor:
    """An input of the real shape."""
    if dense:
        like = next(stack.parameters())
        return torch.linspace(-1, 1, steps * lanes * stack.cell(0).inputs).to(like).view(steps, lanes, -1)  # type: ignore[operator]
    symbols = stack.cell(0).inputs if table is None else len(table)  # type: ignore[operator]
    return (torch.arange(steps * lanes) % symbols).view(steps, lanes)


def _times(choose: Callable[[str], None], run: Callable[[], None], seconds: float) -> dict[str, float]:
    """The least time of each candidate, after a first run that only warms up."""
    best = dict.fromkeys(CANDIDATES, float("inf"))
    started, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - started < seconds:
        for name in CANDIDATES:
            choose(name)
            begun = time.perf_counter()
            run()
            if rounds:
                best[name] = min(best[name], time.perf_counter() - begun)
        rounds += 1
    return best


def for_reading(device: torch.device) -> str:
    """The backend that reads one stream fastest, by rule and not by timing, so that figures can be reproduced."""
    return "fused" if device.type == "cpu" and compiled.library() is not None else "torch"


def for_training(device: torch.device, *, ragged: bool = False) -> str:
    """The backend for training, by rule and not by the clock, so that the same command gives the same weights.

    On a CPU the compiled kernels are as fast as torch's layers or up to 2.5 times faster at every size that was
    measured (benchmarks/RESULTS.md); torch's layers alone skip the padding where lengths differ.

    Args:
        device: where it trains.
        ragged: whether the sequences of a batch differ in length.

    >>> for_training(torch.device("cpu"), ragged=True)
    'torch'
    """
    return "torch" if ragged else for_reading(device)


def notes(stack: nn.Module) -> list[str]:
    """What a person should know of a stack on a GPU: the precision, and each layer that torch runs instead of `fused`.

    The kernels test themselves for this, which takes some seconds the first time. On a CPU the list is empty.
    """
    if not _on_gpu(stack):
        return []
    found = [precision(next(stack.parameters()).device)]
    if stack.backend == "fused":
        with torch.autocast("cuda", enabled=torch.cuda.is_bf16_supported(), dtype=torch.bfloat16):
            found += [fused.declined(cell) for cell in stack.cells]  # type: ignore[union-attr]
    return list(dict.fromkeys(sentence for sentence in found if sentence))


def _on_gpu(stack: nn.Module) -> bool:
    return on_gpu(next(stack.parameters()))


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` (or `cuda:1`) or `mps`; what is not there is refused.

    `auto` takes CUDA where there is some, else the CPU; MPS only when asked for.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"unknown device {name!r}: choose auto, cpu, cuda or mps") from None
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise OptionError(f"there is no device {name!r} on this machine: choose auto or cpu")
    return device


def device_of(before: str, wanted: str, say: Callable[[str], object]) -> torch.device:
    """The device on which a run is resumed: the one asked for, or with `auto` the run's own if this machine has it.

    Args:
        before: the run's own device.
        wanted: `auto`, `cpu`, `cuda` or `mps`.
        say: called with a sentence if this machine does not have the run's own device.
    """
    if wanted != "auto":
        return pick_device(wanted)
    try:
        return pick_device(before)
    except OptionError:
        device = pick_device("auto")
        say(f"the run was on {before}, which is not here: it goes on on {device}")
        return device


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """A block in which torch uses this many threads; None leaves their number as it is."""
    before = torch.get_num_threads()
    if threads is not None and not 1 <= threads <= 1024:
        raise OptionError(f"a training uses from 1 to 1024 threads, not {threads}")
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def crowded(threads: int, *, cores: int | None = None, load: Path = Path("/proc/loadavg")) -> str:
    """A sentence for a person whose training shares its cores with other work; empty where it does not.

    Linux alone says how much is running: five looks within 20 ms all have to find other work, for which, beside these
    threads, there are not enough cores. The number of threads stays as it is, since sums are rounded otherwise by
    another number, and the same seed would give other weights.

    Args:
        threads: that the training will use.
        cores: of the machine.
        load: the file that says how many threads want to run.

    >>> crowded(1)
    ''
    """
    if threads < 2 or not load.exists():
        return ""
    cores = cores or os.cpu_count() or 1
    others = []
    for _ in range(5):
        others.append(int(load.read_text().split()[3].partition("/")[0]) - 1)  # without this thread
        time.sleep(0.004)
    if min(others) < 1 or min(others) + threads <= cores:
        return ""
    return (
        f"other work keeps {min(*others, cores)} of {cores} cores busy: training may be faster with --threads 1, "
        "whose weights differ in rounding"
    )
