"""Palindromes: the last digit from the ones before it, which is the first; how long does each cell remember?

One network of each cell reads palindromes of 5 to 50 digits without their last, and says the last. The simple recurrent
cell loses the first digit on the way; GRU and LSTM learn on the short ones what to keep, and keep it over the long.

    python -m examples.palindromes
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from charlm.sequences import Examples, Sequences
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import SequenceObjective
from charlm.text.vocab import Vocab
from examples.tools import picture, script, train

DIGITS = Vocab.of("0123456789")
CELLS = ("rnn", "gru", "lstm")
SHOWN = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)


def palindromes(lengths: np.ndarray, seed: int) -> Examples:
    """Random palindromes without their last digit, and that digit."""
    chance = np.random.default_rng(seed)
    halves = [chance.integers(10, size=(length + 1) // 2) for length in lengths]
    wholes = [np.concatenate([half, half[: length // 2][::-1]]) for half, length in zip(halves, lengths, strict=True)]
    return Examples(
        inputs=Sequences.of_labels([whole[:-1] for whole in wholes]),
        targets=Sequences.of_labels([int(whole[-1]) for whole in wholes]),
    )


def remembers(cell: str, count: int, longest: int, epochs: int) -> list[float]:
    """Trains a network on palindromes of 5 to `longest` digits; its accuracy on 500 others of each length shown."""
    model = SequenceModel(cell=cell, mode="distribution", classes=10, hidden=64, vocab=DIGITS)
    known = palindromes(np.random.default_rng(0).integers(5, longest + 1, size=count), 0)
    train(SequenceObjective(model, known, batch=64), epochs=epochs, lr=3e-3)
    shares = []
    for length in SHOWN:
        if length <= longest:
            others = palindromes(np.full(500, length), 1)
            said = torch.stack(list(model.predict(others.inputs)))[:, 0].argmax(-1)
            shares.append(float((said == torch.cat(list(others.targets))).double().mean()))
    return shares


def main(small: bool = False) -> str:
    """Trains every cell and draws accuracy against length."""
    count, longest, epochs = (2000, 10, 3) if small else (20_000, 50, 4)
    lengths = [length for length in SHOWN if length <= longest]
    found, seconds = {}, {}
    for cell in CELLS:
        begun = time.perf_counter()
        found[cell] = remembers(cell, count, longest, epochs)
        seconds[cell] = time.perf_counter() - begun
    lines = [f"one layer of 64 units, {count:,} palindromes to learn from, {epochs} epochs; 500 others of each length"]
    lines.append("length" + "".join(f"{length:8}" for length in lengths) + "   seconds")
    for cell in CELLS:
        lines.append(f"{cell:6}" + "".join(f"{share:8.1%}" for share in found[cell]) + f"{seconds[cell]:10.0f}")
    if not small:

        def draw(axes: Any) -> None:
            for cell, mark in zip(CELLS, "os^", strict=True):
                axes.plot(lengths, [100 * share for share in found[cell]], marker=mark, label=cell.upper())
            axes.axhline(10, color="grey", linestyle=":", label="chance")
            axes.set(xlabel="length of the palindrome", ylabel="last digit right (%)", ylim=(0, 103))
            axes.set_title("How long a cell remembers")
            axes.legend(frameon=False)

        picture("palindromes", draw)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "palindromes")
