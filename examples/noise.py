"""Memorising noise: ten steps of five random numbers to one of two random classes.

There is nothing to learn, and the training loss falls to nothing all the same: a network with 32,000 weights stores a
thousand coin flips. What it says of sequences it has not seen is chance. A low training loss alone means nothing.

    python -m examples.noise
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from charlm.sequences import Examples, Sequences
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import SequenceObjective
from examples.tools import picture, script, train


def flips(count: int, seed: int) -> Examples:
    """Sequences of ten steps of five normal numbers, each with the flip of a coin."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 10, 5, generator=chance)
    return Examples(
        inputs=Sequences.of_numbers(list(values)),
        targets=Sequences.of_labels(torch.randint(2, (count,), generator=chance).tolist()),
    )


def one(seed: int, count: int, epochs: int) -> tuple[list[float], float, float]:
    """The training loss of every epoch, and the accuracy on the training and on other sequences."""
    data, others = flips(count, seed), flips(count, 1000 + seed)
    model = SequenceModel(cell="lstm", mode="distribution", classes=2, layers=2, hidden=50, features=5)
    model.stack.backend = "fused"
    losses = train(SequenceObjective(model, data, batch=64, seed=seed), epochs=epochs, lr=0.01, seed=seed, steady=True)
    right = []
    for part in (data, others):
        said = torch.stack(list(model.predict(part.inputs)))[:, 0].argmax(-1)
        right.append(float((said == torch.cat(list(part.targets))).double().mean()))
    return losses, right[0], right[1]


def main(small: bool = False) -> str:
    """Trains on coin flips with five seeds and says how far the loss fell, and what that was worth."""
    seeds, count, epochs = (range(2), 100, 6) if small else (range(5), 1000, 40)
    runs = [one(seed, count, epochs) for seed in seeds]
    medians = [statistics.median(losses[epoch] for losses, _, _ in runs) for epoch in range(epochs)]
    shown = [epoch for epoch in (1, 5, 10, 20, 30, 40) if epoch <= epochs]
    lines = [f"{count} sequences, LSTM 2x50, batch 64, Adam 0.01; medians of {len(runs)} seeds"]
    lines += [f"epoch {epoch:2}: training loss {medians[epoch - 1]:.4f}" for epoch in shown]
    lines.append(f"right of what was trained on: {statistics.median(run[1] for run in runs):.1%}")
    lines.append(f"right of other sequences:     {statistics.median(run[2] for run in runs):.1%}, which is chance")
    if not small:

        def draw(axes: Any) -> None:
            for losses, _, _ in runs:
                axes.plot(range(1, epochs + 1), losses, color="#9bb", linewidth=0.8)
            axes.plot(range(1, epochs + 1), medians, color="#036", label="median of five seeds")
            axes.axhline(0.6931, color="#b50", linestyle=":", label="ln 2: a fair coin")
            axes.set(xlabel="epoch", ylabel="training loss (nats)", title="A network memorises coin flips")
            axes.legend(frameon=False)

        picture("noise", draw)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "noise")
