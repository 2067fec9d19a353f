"""What looking back costs: training steps, reading and sampling with and without it, interleaved in one process.

    python -m benchmarks.look_back [--places 2048] [--seconds 4]

Random ids over 65 symbols. A training step is forward, loss, backward, clipping and Adam of 16 lanes of 64 steps; `by
torch` has the attention by its formulas in torch, which the compiled one is tested against. Reading is one stream of
16,384 characters, sampling 400 characters of 1 and 64 streams. Printed: medians, and the ratio to the same network
without looking back.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.torch_side import SYMBOLS, Size, Step
from benchmarks.train_speed import interleaved, step_of
from charlm.lm.interface import SamplingRule
from charlm.nn import look_back
from charlm.nn.kernels import fastest
from charlm.recurrent import RNNConfig
from charlm.recurrent.model import CharRNN
from charlm.text.vocab import Vocab

SIZES = ((2, 160), (2, 256), (3, 256))
READ, DRAWN = 16_384, 400


def network(layers: int, hidden: int, places: int) -> CharRNN:
    """A GRU with its fastest backend."""
    vocab = Vocab.of("".join(chr(256 + i) for i in range(SYMBOLS)))
    model = CharRNN(vocab, RNNConfig(model="gru", layers=layers, hidden=hidden, look_back=places))
    model.stack.backend = fastest(model.stack, 64, 16)
    return model


def training(layers: int, hidden: int, places: int) -> Step:
    """A whole training step, whose state is carried on to the next one."""
    model = network(layers, hidden, places).train()
    state = model.initial_state(16)

    def forward(ids_TB: Tensor) -> Tensor:
        nonlocal state
        logp_TBV: Tensor
        logp_TBV, after = model(ids_TB, state)
        state = {name: tensor.detach() for name, tensor in after.items()}
        return logp_TBV

    return step_of(model, forward, Size(cell="gru", hidden=hidden, layers=layers, lanes=16, steps=64))


def by_torch(step: Step) -> Step:
    """The same with attention by its formulas."""

    def formulas(*given: Any) -> Tensor:
        return look_back._mixed(*given[:5], given[5][2], *given[6:])

    def run() -> None:
        with patch.object(look_back, "mixed", formulas):
            step()

    return run


def reading(layers: int, hidden: int, places: int) -> Step:
    """One stream, read in one call."""
    model, ids_T1 = network(layers, hidden, places), torch.randint(SYMBOLS, (READ, 1))
    return torch.no_grad()(lambda: model.logprobs(ids_T1, model.initial_state(1)))


def sampling(streams: int) -> Callable[[int, int, int], Step]:
    """Draws so many characters a stream in one call."""

    def made(layers: int, hidden: int, places: int) -> Step:
        model, ids_B = network(layers, hidden, places), torch.zeros(streams, dtype=torch.long)
        _, state = model.logprobs(torch.randint(SYMBOLS, (4096, streams)), model.initial_state(streams))
        noise_TB = torch.rand(DRAWN, streams, dtype=torch.float64)
        return lambda: model.generate(ids_B, state, DRAWN, SamplingRule(), noise_TB)

    return made


def main() -> None:
    """Prints a line for each network and kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    threads = torch.get_num_threads()
    works = {"training": training, "reading": reading, "1 stream": sampling(1), "64 streams": sampling(64)}
    for layers, hidden in SIZES:
        for name, made in works.items():
            steps = [made(layers, hidden, 0), made(layers, hidden, args.places)]
            steps += [by_torch(made(layers, hidden, args.places))] if name == "training" else []
            times = interleaved([(step, threads) for step in steps], args.seconds)
            plain, *others = (statistics.median(each) for each in times)
            shown = ", ".join(f"{other * 1e3:.2f} ms ({other / plain:.2f} times)" for other in others)
            print(f"GRU {layers}x{hidden}  {name:10}  {plain * 1e3:.2f} ms without, {shown}", flush=True)


if __name__ == "__main__":
    main()
