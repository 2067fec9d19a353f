"""Characters a second that charlm draws against a loop over torch's layers, interleaved in one process.

    python -m benchmarks.sample_speed [--streams 1] [--streams 64] [--seconds 3] [--device cuda]
        [--bits] [--model lstm,3,512]

Both draw from the whole distribution at temperature 1, in float32. torch's side is the faster of two loops that one
writes with it: `nn.LSTMCell` (`nn.GRUCell`, `nn.RNNCell`) of every layer for one step ("cells"), or `nn.LSTM` called
for one step ("layers"). Around either stand an embedding, a linear map, softmax, `multinomial`, the ids read again
without leaving torch. Each side runs with the thread count that suits it best. Printed: the medians, and their ratio.
With --bits charlm's weights of 32, 16 and 8 bits run in turn with torch; printed are the ratios of each to float32 and
to torch.
"""

from __future__ import annotations

import argparse
import os
import statistics

import torch
from torch import nn

from benchmarks import gpu
from benchmarks.torch_side import SYMBOLS, Size, Step, TorchModel
from benchmarks.train_speed import best, ceiling, interleaved
from charlm.lm.interface import SamplingRule
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import Bits
from charlm.text.vocab import Vocab

Model = tuple[str, int, int]
MODELS: list[Model] = [("lstm", 1, 128), ("gru", 2, 256), ("lstm", 3, 512), ("rnn", 1, 128), ("gru", 1, 512)]
OURS, THEIRS = 400, 40  # characters a measurement


def ours(cell: str, layers: int, hidden: int, streams: int, steps: int = OURS, bits: Bits = 32) -> Step:
    """Draws so many characters a stream in one call."""
    vocab = Vocab.of("".join(chr(256 + i) for i in range(SYMBOLS)))
    model = CharRNN(vocab, RNNConfig(model=cell, layers=layers, hidden=hidden)).with_bits(bits)
    ids, state = torch.zeros(streams, dtype=torch.long), model.initial_state(streams)
    noise = torch.rand(steps, streams, dtype=torch.float64)
    return lambda: model.generate(ids, state, steps, SamplingRule(), noise)


def theirs(cell: str, layers: int, hidden: int, streams: int) -> dict[str, Step]:
    """Loops that draw THEIRS characters a stream one by one, by name."""
    model = TorchModel(Size(cell=cell, hidden=hidden, layers=layers, lanes=streams, steps=1), 64).eval()
    return {"cells": by_cells(model, streams), "layers": by_layers(model, streams)}


def by_cells(model: TorchModel, streams: int) -> Step:
    """Every layer as torch's cell with the weights of the model's layer."""
    layers = model.layers
    kind = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[type(layers)]
    cells = []
    for number in range(layers.num_layers):
        cell = kind(layers.hidden_size if number else layers.input_size, layers.hidden_size)
        own = {name: getattr(layers, f"{name}_l{number}") for name in dict(cell.named_parameters())}
        cell.load_state_dict(own)
        cells.append(cell)

    def step() -> torch.Tensor:
        with torch.inference_mode():
            ids, states = torch.zeros(streams, dtype=torch.long), [None] * len(cells)
            for _ in range(THEIRS):
                x = model.embedding(ids)
                for number, cell in enumerate(cells):
                    states[number] = cell(x, states[number])
                    x = states[number][0] if kind is nn.LSTMCell else states[number]
                ids = torch.multinomial(model.linear(x).softmax(-1), 1)[:, 0]
            return ids

    return step


def by_layers(model: TorchModel, streams: int) -> Step:
    """The model's layers for one step at a time."""

    def step() -> torch.Tensor:
        with torch.inference_mode():
            ids, state = torch.zeros(1, streams, dtype=torch.long), None
            for _ in range(THEIRS):
                y, state = model.layers(model.embedding(ids), state)
                ids = torch.multinomial(model.linear(y[0]).softmax(-1), 1).t()
            return ids[0]

    return step


def flops(cell: str, layers: int, hidden: int) -> float:
    """Of the products that every character needs."""
    return Size(cell=cell, hidden=hidden, layers=layers, lanes=1, steps=1).flops / 3


def compare_bits(models: list[Model], streams: int, seconds: float) -> None:
    """Prints a line a model: float32's speed, that of 16 and 8 bits against it, and each against torch."""
    sides: list[Bits] = [32, 16, 8]
    count = OURS if streams < 16 else 64  # characters a measurement
    for model in models:
        others = best([*theirs(*model, streams).values()])
        steps = [*(best([ours(*model, streams, count, bits)]) for bits in sides), others]
        *mine, other = (statistics.median(times) for times in interleaved(steps, seconds))
        against = "  ".join(
            f"{bits:2} bits {mine[0] / time:5.2f} ({other * count / THEIRS / time:5.2f} torch)"
            for bits, time in zip(sides, mine, strict=True)
        )
        name = f"{model[0]:5} {model[1]} x {model[2]:3}  {streams:3} streams"
        print(f"{name}  float32 {count * streams / mine[0]:10,.0f} characters/s   {against}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=3, help="at least so long for a model")
    parser.add_argument("--model", action="append", metavar="CELL,LAYERS,HIDDEN", help="measure only this one")
    parser.add_argument("--bits", action="store_true", help="compare weights of 32, 16 and 8 bits")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        gpu.sample(arguments.streams or [], arguments.seconds)
        return
    named = [name.split(",") for name in arguments.model or []]
    models = [(cell, int(layers), int(hidden)) for cell, layers, hidden in named] or MODELS
    top = ceiling()
    print(f"load {os.getloadavg()[0]:.1f}; matrix product {top / 1e9:.0f} GFLOP/s")
    for streams in arguments.streams or [1, 64]:
        if arguments.bits:
            compare_bits(models, streams, arguments.seconds)
            continue
        for model in models:
            loops = theirs(*model, streams)
            pair = [best([ours(*model, streams)]), best([*loops.values()])]
            loop = next(name for name, step in loops.items() if step is pair[1][0])
            mine, other = (statistics.median(times) for times in interleaved(pair, arguments.seconds))
            speeds = OURS * streams / mine, THEIRS * streams / other
            print(
                f"{model[0]:5} {model[1]} x {model[2]:3}  {streams:3} streams  {speeds[0]:10,.0f} characters/s "
                f"({speeds[0] * flops(*model) / top:4.0%})   torch, {loop:6} {speeds[1]:10,.0f}   "
                f"ratio {speeds[0] / speeds[1]:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
