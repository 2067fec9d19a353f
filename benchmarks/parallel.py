"""What several processes are worth: two with one thread each against one with two, and larger global batches.

    python -m benchmarks.parallel [--cell gru] [--hidden 64] [--seconds 4] [--rounds 5]
    python -m benchmarks.parallel --time-to-loss 1.9 [--text data/shakespeare.txt] [--lanes 16,32] [--rule sqrt]

The first form takes training steps (forward, loss, backward, all-reduce, clipping, AdamW) on random ids, in turns: some
by one process with two threads, some by two processes with one thread each, with the same global lanes. Printed:
medians of characters a second, the least and the greatest ratio of a round, and the ratio of the medians; above 1 two
processes are faster. Every measurement is of fresh processes, one side at a time.

The second form trains with 16, 32, 64 and 128 lanes in one process, the learning rate of 16 lanes kept (constant) or
multiplied by √(lanes / 16) (sqrt) or lanes / 16 (linear), until a validation is below the loss that is asked for.
Printed: steps, seconds and characters it took, or the lowest loss where it was not reached in time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from charlm.nn.kernels import fastest
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import read_corpus
from charlm.text.splits import Split
from charlm.text.vocab import Vocab
from charlm.training.distributed import Processes, joined
from charlm.training.interfaces import Observer, StepReport, ValidationReport
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.loop import Loop
from charlm.training.options import Optimisation

ROOT = Path(__file__).parents[1]
SYMBOLS = 65
RULES: dict[str, Callable[[float], float]] = {
    "constant": lambda times: 1.0,
    "sqrt": lambda times: times**0.5,
    "linear": lambda times: times,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained: the cell, H units, global lanes B, T steps."""

    cell: str
    hidden: int
    lanes: int
    steps: int


# -- two processes against two threads --------------------------------------------------------------------------------


class Rate(Observer):
    """Times of the steps; a run stops when they have taken long enough."""

    def __init__(self, seconds: float) -> None:
        self.times: list[float] = []
        self.seconds, self.before = seconds, time.perf_counter()

    def on_step(self, report: StepReport) -> None:
        now = time.perf_counter()
        self.times.append(now - self.before)
        self.before = now

    def enough(self) -> bool:
        return len(self.times) > 5 and sum(self.times) > self.seconds


def work(size: Size, seconds: float, processes: Processes) -> float:
    """Characters a second of the middle step; the first three are not counted."""
    model = CharRNN(
        Vocab.of("".join(chr(256 + i) for i in range(SYMBOLS))), RNNConfig(model=size.cell, hidden=size.hidden)
    )
    model.reset_parameters(torch.Generator().manual_seed(0))
    model.stack.backend = processes.agree(fastest(model.stack, size.steps, size.lanes // processes.size))
    ids = np.random.default_rng(0).integers(SYMBOLS, size=size.lanes * size.steps * 50 + 1)
    spans = np.array([[0, len(ids)]])
    cut = Lanes(ids, spans, lanes=size.lanes, window=size.steps)
    rate = Rate(seconds)
    task = LanguageObjective(model, cut, ids, spans[:, :0].reshape(0, 2), processes=processes)
    options = Optimisation(max_steps=1 << 40)
    Loop(task, options, observer=rate, should_stop=rate.enough, processes=processes).run()
    return size.lanes * size.steps / statistics.median(rate.times[3:])


def rate_of(size: Size, seconds: float, *, processes: int) -> float:
    """Characters a second, measured in fresh processes: two with one thread, or one with two."""
    asked = [f"{size.cell},{size.hidden},{size.lanes},{size.steps}", str(seconds)]
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node"]
        command += [str(processes), "-m"]
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "rate"
        command += ["benchmarks.parallel", "--worker", *asked, str(answer)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(2 // processes), "GLOO_SOCKET_IFNAME": "lo"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
        return float(answer.read_text())


def worker(shape: str, seconds: float, answer: Path) -> None:
    """What a process that is measured does."""
    cell, hidden, lanes, steps = shape.split(",")
    size = Size(cell=cell, hidden=int(hidden), lanes=int(lanes), steps=int(steps))
    with joined() as processes:
        rate = work(size, seconds, processes)
        if processes.first:
            answer.write_text(str(rate))


def efficiency(size: Size, seconds: float, rounds: int) -> None:
    """Prints a line about one size."""
    one, two = [], []
    for number in range(rounds):
        for processes in (1, 2) if number % 2 == 0 else (2, 1):
            (one if processes == 1 else two).append(rate_of(size, seconds, processes=processes))
    ratios = sorted(b / a for a, b in zip(one, two, strict=True))
    middle = statistics.median(one), statistics.median(two)
    print(
        f"{size.cell:5} {size.hidden:4}  {size.lanes:3} lanes  {size.steps:3} steps   1 process, 2 threads "
        f"{middle[0]:12,.0f} char/s   2 processes, 1 thread each {middle[1]:12,.0f} char/s   "
        f"ratio {middle[1] / middle[0]:5.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


# -- larger global batches --------------------------------------------------------------------------------------------


class Goal(Observer):
    """Stops a run at the first validation below a loss."""

    def __init__(self, loss: float) -> None:
        self.loss, self.lowest, self.reached = loss, float("inf"), False

    def on_validation(self, report: ValidationReport) -> None:
        self.lowest = min(self.lowest, report.valid)
        self.reached = self.reached or report.valid < self.loss


def time_to_loss(given: argparse.Namespace, lanes: int, rule: str) -> None:
    """Trains until the loss is reached, and prints what it took."""
    corpus = read_corpus([given.text])
    parts = corpus.parts(Split.default(len(corpus)))
    model = CharRNN(corpus.vocab, RNNConfig(model=given.cell[0], hidden=given.hidden[0]))
    model.reset_parameters(torch.Generator().manual_seed(given.seed))
    model.stack.backend = fastest(model.stack, given.steps, lanes)
    cut = Lanes(corpus.ids, parts["train"], lanes=lanes, window=given.steps, seed=given.seed)
    lr = given.lr * RULES[rule](lanes / 16)
    total = -(-given.characters // (lanes * given.steps))
    # a constant rate after the warm-up, so that a loss is reached at a step that no end of the run decides
    options = Optimisation(
        lr=lr, lr_final=1.0, max_steps=total, validations=given.validations, patience=0, seed=given.seed
    )
    goal = Goal(given.time_to_loss)
    task = LanguageObjective(model, cut, corpus.ids, parts["valid"], seed=given.seed)
    loop = Loop(task, options, observer=goal, should_stop=lambda: goal.reached)
    begun = time.perf_counter()
    loop.run()
    done = loop.progress
    end = "reached" if goal.reached else f"not reached, lowest {goal.lowest:.4f}"
    print(
        f"{lanes:4} lanes  {rule:8}  lr {lr:.4g}   {done.step:7,} steps  {time.perf_counter() - begun:8.1f} s  "
        f"{done.targets:12,} characters   {end}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--cell", action="append", choices=["rnn", "gru", "lstm"])
    parser.add_argument("--hidden", action="append", type=int)
    parser.add_argument("--lanes", help="global lanes; 32, or 16,32,64,128 with --time-to-loss")
    parser.add_argument("--steps", type=int, default=64, help="of a window")
    parser.add_argument("--seconds", type=float, default=4, help="of training in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--time-to-loss", type=float, metavar="NATS", help="measure larger global batches instead")
    parser.add_argument("--text", default=str(ROOT / "data" / "shakespeare.txt"))
    parser.add_argument("--rule", action="append", choices=list(RULES))
    parser.add_argument("--lr", type=float, default=4e-3, help="with 16 lanes")
    parser.add_argument("--characters", type=int, default=20_000_000, help="to read at most")
    parser.add_argument("--validations", type=int, default=200, help="in so many characters")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.worker is not None:
        shape, seconds, answer = given.worker
        worker(shape, float(seconds), Path(answer))
        return
    given.hidden = given.hidden or ([256] if given.time_to_loss else [64, 128, 256])
    given.cell = given.cell or (["gru"] if given.time_to_loss else ["gru", "lstm"])
    lanes = [int(number) for number in (given.lanes or ("16,32,64,128" if given.time_to_loss else "32")).split(",")]
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True)
    for number in lanes:
        if given.time_to_loss:
            for rule in (given.rule or RULES) if number != 16 else ["constant"]:
                time_to_loss(given, number, rule)
            continue
        for cell in given.cell:
            for hidden in given.hidden:
                size = Size(cell=cell, hidden=hidden, lanes=number, steps=given.steps)
                efficiency(size, given.seconds, given.rounds)


if __name__ == "__main__":
    main()
