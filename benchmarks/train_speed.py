"""A training step through charlm's layers against one through torch's, interleaved in one process.

    python -m benchmarks.train_speed [--cell lstm] [--size 128,1,64,64] [--seconds 4] [--memory] [--precision bf16]
    python -m benchmarks.train_speed --device cuda [--precision bf16] [--cell lstm] [--size 512,2,64,128]

A step is forward, cross-entropy, backward, clipping and Adam, on random ids over 65 symbols, in float32. charlm
runs `auto`; torch's side has an embedding of the width at which it is fastest. Each side runs with the thread
count that suits it best. Printed: medians, their ratio (above 1: charlm is faster), and the share of the
fastest matrix product that was measured on this machine just before. With `--precision bf16` charlm's step with
products of bfloat16 stands beside its own float32 step, and torch's layers under autocast beside both. On a GPU (`gpu`)
both sides run with and without a CUDA graph, in several precisions.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks import gpu
from benchmarks.torch_side import SYMBOLS, TORCH, WIDTHS, Size, Step, TorchModel
from charlm.nn.kernels import check_precision, fastest
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

SIZES = [
    (128, 1, 64, 64),
    (128, 2, 50, 50),
    (256, 1, 16, 32),
    (256, 1, 32, 64),
    (256, 2, 64, 64),
    (512, 1, 16, 64),
    (512, 3, 64, 64),
]


def ours(size: Size, backend: str = "auto") -> tuple[Step, str]:
    """A step of charlm's, and the backend that it goes through."""
    vocab = Vocab.of("".join(chr(256 + i) for i in range(SYMBOLS)))
    model = CharRNN(vocab, RNNConfig(model=size.cell, layers=size.layers, hidden=size.hidden)).train()
    model.stack.backend = fastest(model.stack, size.steps, size.lanes) if backend == "auto" else backend
    state = model.initial_state(size.lanes)
    return step_of(model, lambda ids: model(ids, state)[0], size), model.stack.backend


def theirs(size: Size, width: int) -> Step:
    """A step of torch's."""
    model = TorchModel(size, width)
    return step_of(model, model, size)


def step_of(model: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], size: Size) -> Step:
    """A whole training step on the same random ids each time."""
    ids, targets = torch.randint(SYMBOLS, (2, size.steps, size.lanes), generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def step() -> None:
        loss = functional.nll_loss(forward(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def seconds_of(step: Step, threads: int) -> float:
    """How long one step takes now."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def interleaved(steps: list[tuple[Step, int]], seconds: float, least: int = 5) -> list[list[float]]:
    """Times of several steps, each with its thread count, taken in turns after one round of warming up."""
    times: list[list[float]] = [[] for _ in steps]
    for step, threads in steps:
        seconds_of(step, threads)
    started = time.perf_counter()
    while len(times[0]) < least or time.perf_counter() - started < seconds:
        for one, (step, threads) in zip(times, steps, strict=True):
            one.append(seconds_of(step, threads))
    return times


def best(steps: list[Step]) -> tuple[Step, int]:
    """The fastest of some steps with its best thread count, by the least of three times."""
    cores = os.cpu_count() or 1
    cases = [(step, threads) for step in steps for threads in sorted({1, max(cores // 2, 1), cores})]
    times = interleaved(cases, 0, 3)
    return cases[min(range(len(cases)), key=lambda i: min(times[i]))]


def ceiling() -> float:
    """Operations a second of the fastest float32 matrix product that torch makes here."""
    a, b, c = torch.randn(3, 1536, 1536)
    torch.set_num_threads(os.cpu_count() or 1)
    (times,) = interleaved([(lambda: torch.mm(a, b, out=c), torch.get_num_threads())], 1)
    return 2 * 1536**3 / min(times)


def compare(size: Size, seconds: float, top: float) -> float:
    """Prints a line about one size; returns the ratio of the medians."""
    step, backend = ours(size)
    pair = [best([step]), best([theirs(size, width) for width in WIDTHS])]
    mine, others = interleaved(pair, seconds)
    middle, other = statistics.median(mine), statistics.median(others)
    shares = [f"{size.flops / t / top:5.0%}" for t in (middle, other)]
    print(
        f"{size.cell:5} {size.hidden:4} x {size.layers}  {size.lanes:3} lanes  {size.steps:3} steps  "
        f"{backend:6} {middle * 1e3:9.2f} ms {shares[0]}   torch {other * 1e3:9.2f} ms {shares[1]}   "
        f"ratio {other / middle:5.2f}  (of the least times {min(others) / min(mine):5.2f})",
        flush=True,
    )
    return other / middle


def in_bf16(step: Step) -> Step:
    """The step under torch's autocast to bfloat16."""

    def cast() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step()

    return cast


def compare_precisions(size: Size, seconds: float) -> float:
    """Prints a line about one size in bfloat16; returns how much faster it is than charlm's float32."""
    single = best([ours(size, "fused")[0]])
    threes = [single, best([in_bf16(ours(size, "fused")[0])]), best([in_bf16(theirs(size, width)) for width in WIDTHS])]
    full, half, other = (statistics.median(times) for times in interleaved(threes, seconds))
    print(
        f"{size.cell:5} {size.hidden:4} x {size.layers}  {size.lanes:3} lanes  {size.steps:3} steps  "
        f"fp32 {full * 1e3:9.2f} ms   bf16 {half * 1e3:9.2f} ms   ratio {full / half:5.2f}   "
        f"torch bf16 {other * 1e3:9.2f} ms   ratio {other / half:5.2f}",
        flush=True,
    )
    return full / half


def peak(size: Size, who: str) -> int:
    """Bytes by which a process grows in three steps, measured in one of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (size, who))


def _grow(size: Size, who: str) -> int:
    torch.mm(torch.randn(64, 64), torch.randn(64, 64))
    step = theirs(size, WIDTHS[-1]) if who == "torch" else ours(size, who)[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", action="append", choices=list(TORCH))
    parser.add_argument("--size", action="append", help="hidden,layers,lanes,steps")
    parser.add_argument("--seconds", type=float, default=4, help="at least so long for a size")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--precision", action="append", choices=["fp32", "tf32", "bf16", "fp16"], help="on a CPU bf16 alone"
    )
    arguments = parser.parse_args()
    given = [tuple(map(int, text.split(","))) for text in arguments.size or []]
    if arguments.device == "cuda":
        if arguments.memory:
            parser.error("--memory is measured on a CPU alone")
        gpu.train(arguments.cell or list(TORCH), given, arguments.precision or [], arguments.seconds)
        return
    if arguments.precision and (arguments.memory or arguments.precision != ["bf16"]):
        parser.error("on a CPU --precision is bf16, beside float32, and of time alone")
    if arguments.precision:
        check_precision("bf16", torch.device("cpu"))
    sizes = given or SIZES
    top = 0.0 if arguments.memory else ceiling()
    if not arguments.memory:
        print(f"load {os.getloadavg()[0]:.1f}; matrix product {top / 1e9:.0f} GFLOP/s")
    for cell in arguments.cell or TORCH:
        ratios = []
        for hidden, layers, lanes, steps in sizes:
            size = Size(cell=cell, hidden=hidden, layers=layers, lanes=lanes, steps=steps)
            if arguments.memory:
                grown = {who: peak(size, who) / 2**20 for who in ("fused", "torch")}
                print(size, *(f"{who} {mib:.0f} MiB" for who, mib in grown.items()), flush=True)
            elif arguments.precision:
                ratios.append(compare_precisions(size, arguments.seconds))
            else:
                ratios.append(compare(size, arguments.seconds, top))
        if ratios:
            print(f"{cell}: geometric mean {math.exp(statistics.mean(map(math.log, ratios))):.2f}", flush=True)


if __name__ == "__main__":
    main()
