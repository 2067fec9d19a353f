"""The learning curve of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charlm.errors import CharlmError
from charlm.report.picture import save_figure

__all__ = ["draw_curve", "read_metrics"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def draw_curve(metrics: Path, picture: Path, *, title: str = "", loss: str = "nats a character") -> None:
    """Draws training and validation nats a character over the steps of a run.

    Args:
        metrics: the run's `metrics.jsonl`, with at least one row.
        picture: .png, .svg or .pdf; replaced whole or not at all.
        title: above the picture.
        loss: what is shown, for the axis.
    """
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    if not rows:
        raise CharlmError(f"{metrics} has no rows yet: nothing to draw")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for key, label in (("train_nats", "training (with dropout)"), ("valid_nats", "validation")):
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    best = min(
        (row for row in rows if row.get("valid_nats") is not None),
        key=lambda r: r["valid_nats"],
        default=None,
    )
    if best is not None:
        axes.annotate(
            f"best {best['valid_nats']:.4f}",
            (best["step"], best["valid_nats"]),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
        )
    axes.set(xlabel="step", ylabel=loss, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, picture)
