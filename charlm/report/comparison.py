"""The comparison of n-grams and networks as a picture: order on the x axis, networks as horizontal lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charlm.analysis.compare import Compared
from charlm.report.picture import save_figure

__all__ = ["draw_comparison"]


def draw_comparison(lines: Sequence[Compared], picture: Path, *, title: str = "") -> None:
    """Draws held-out and training nats and coverage against the order, and each network as a level.

    Args:
        lines: the table.
        picture: .png, .svg or .pdf; replaced whole or not at all.
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    smoothings = sorted({line.row.smoothing for line in lines if line.row.smoothing is not None})
    for number, smoothing in enumerate(smoothings):
        _draw_orders(axes, [line for line in lines if line.row.smoothing == smoothing], smoothing, f"C{number + 1}")
    styles = ("-", "--", "-.", ":")
    for number, line in enumerate(line for line in lines if line.row.smoothing is None):
        label = f"{line.row.name}, {line.evaluation.nats:.3f}"
        axes.axhline(line.evaluation.nats, color="black", linestyle=styles[number % 4], linewidth=1.4, label=label)
    axes.set(xlabel="order (characters of history)", ylabel="nats a character", title=title)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _draw_coverage(axes, [line for line in lines if line.row.smoothing == "none"])
    axes.legend(fontsize="small")
    save_figure(figure, picture)


def _draw_orders(axes: Any, lines: Sequence[Compared], smoothing: str, color: str) -> None:
    orders = [line.row.order for line in lines]
    if smoothing == "none":
        covered = [math.nan if line.covered_nats is None else line.covered_nats for line in lines]
        train = [math.nan if line.row.train_nats is None else line.row.train_nats for line in lines]
        axes.plot(orders, covered, "o-", color="C0", label="unsmoothed, on the targets it covers")
        axes.plot(orders, train, "o:", color="C0", alpha=0.6, label="unsmoothed, on its training text")
        same = [[value for value in line.network_covered_nats.values() if value is not None] for line in lines]
        if any(same):
            best = [min(values, default=math.nan) for values in same]
            axes.plot(orders, best, "s--", color="black", label="best network, on those same targets")
    else:
        axes.plot(
            orders,
            [line.evaluation.nats for line in lines],
            "o-",
            color=color,
            label=f"{smoothing}, on all targets",
        )


def _draw_coverage(axes: Any, lines: Sequence[Compared]) -> None:
    if not lines:
        return
    twin = axes.twinx()
    twin.bar([line.row.order for line in lines], [100 * line.coverage for line in lines], color="C0", alpha=0.12)
    twin.set(ylabel="% of targets covered by unsmoothed counting", ylim=(0, 100))
