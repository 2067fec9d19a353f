"""A noisy sine with jumps: the Distribution of the next value over bins, and the Score of "a jump comes next".

The sine jumps up or down by 1.5 one step after its noise has been six times as loud for four steps. So the Score
can be right, and the Distribution, where a jump is near, has two peaks: which way it goes is a coin flip.

    python -m examples.sine
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from charlm.sequences import Examples, Sequences
from charlm.sequences.metrics import area_under_curve, brier_score, log_loss, reliability
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import SequenceObjective
from examples.tools import picture, script, train

EDGES = np.linspace(-3, 3, 31)
STEPS = 120


def waves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values [count, STEPS + 1] and whether each is the first after a jump."""
    chance = np.random.default_rng(seed)
    time = np.arange(STEPS + 1)
    jumps = chance.random((count, STEPS + 1)) < 0.03
    jumps[:, :8] = False
    loud = np.zeros_like(jumps)
    for lag in range(1, 5):
        loud[:, :-lag] |= jumps[:, lag:]
    level = np.cumsum(jumps * chance.choice([-1.5, 1.5], size=jumps.shape), axis=1)
    level = np.abs((level + 1.5) % 6 - 3) - 1.5  # comes back rather than leave the picture
    wave = np.sin(time * 0.12 + chance.uniform(0, 6.3, (count, 1)))
    noise = chance.normal(0, np.where(loud, 0.3, 0.05))
    return np.clip(wave + level * 0.9 + noise, -2.99, 2.99), jumps


def examples(values: np.ndarray, targets: np.ndarray) -> Examples:
    """A target for each step: what comes after it."""
    made = Sequences.of_labels(list(targets)) if targets.dtype == np.int64 else Sequences.of_numbers(list(targets))
    return Examples(inputs=Sequences.of_numbers(list(values[:, :-1])), targets=made)


def fitted(mode: str, train_part: Examples, epochs: int) -> SequenceModel:
    """A GRU that says something at every step."""
    model = SequenceModel(cell="gru", mode=mode, classes=len(EDGES) - 1, hidden=64, output="every")
    model.stack.backend = "fused"
    train(SequenceObjective(model, train_part, batch=32), epochs=epochs, lr=5e-3)
    return model


def main(small: bool = False) -> str:
    """Fits both and compares them with what knowing nothing would give."""
    count, epochs, more = (60, 3, 3) if small else (1500, 25, 60)
    (values, jumps), (others, other_jumps) = waves(count, 0), waves(300, 1)
    bins, other_bins = (np.digitize(part[:, 1:], EDGES[1:-1]).astype(np.int64) for part in (values, others))
    ahead = fitted("distribution", examples(values, bins), epochs)
    warning = fitted("score", examples(values, jumps[:, 1:].astype(float)), more)
    inputs = Sequences.of_numbers(list(others[:, :-1]))
    p = torch.stack(list(ahead.predict(inputs))).numpy()
    score = torch.stack(list(warning.predict(inputs)))[..., 0].numpy()
    came, next_bin = other_jumps[:, 1:].ravel(), other_bins.ravel()
    base = np.bincount(bins.ravel(), minlength=len(EDGES) - 1) / bins.size
    lines = [f"{count:,} waves of {STEPS} steps, GRUs of 64 units, {epochs} and {more} epochs; measured on 300 others"]
    lines.append(
        f"next value over {len(EDGES) - 1} bins: {log_loss(p.reshape(-1, p.shape[-1]), next_bin):.3f} nats; "
        f"always the same distribution: {-np.log(base[next_bin].clip(1e-9)).mean():.3f}"
    )
    rate = float(jumps[:, 1:].mean())
    always = brier_score(np.full(came.size, rate), came)
    lines.append(
        f"a jump comes next: area under the curve {area_under_curve(score.ravel(), came):.3f}, Brier score "
        f"{brier_score(score.ravel(), came):.4f} (always {rate:.3f}: {always:.4f}), "
        f"calibration error {reliability(score.ravel(), came).expected_error:.4f}"
    )
    if not small:

        def draw(axes: Any) -> None:
            shown, steps = p[0, :60].T, np.arange(1, 61)
            mesh = axes.pcolormesh(np.arange(0.5, 61), EDGES, shown**0.5, cmap="Blues", vmax=1)
            mesh.set_rasterized(True)
            axes.plot(steps, others[0, 1:61], color="#c40", linewidth=1, label="the wave")
            axes.plot(steps, score[0, :60] * 1.5 - 4.7, color="#060", label="Score: a jump comes next (0 to 1)")
            axes.axhline(-4.7, color="grey", linewidth=0.5)
            axes.set(xlabel="step", ylim=(-4.8, 3), title="What comes next: a Distribution at every step")
            axes.set_yticks([-3, -1.5, 0, 1.5, 3])
            axes.legend(frameon=False, loc="upper right")

        picture("sine", draw, width=8, height=4.4)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "sine")
