"""A grid of networks as a picture: nats against width, a line a cell, a panel a depth, n-grams as levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.display import new_figure, save_figure
from charlm.errors import CharlmError

__all__ = ["GridCell", "draw_grid"]

_STYLES = {"rnn": ("#E69F00", "s"), "gru": ("#0072B2", "o"), "lstm": ("#009E73", "^")}
"""Colours that the colour-blind tell apart (Okabe and Ito 2008), and a marker each."""


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One network of the grid.

    Args:
        model: `rnn`, `gru` or `lstm`.
        layers: its depth.
        hidden: its width.
        nats: a character, on the held-out part.
    """

    model: str
    layers: int
    hidden: int
    nats: float


def draw_grid(cells: Sequence[GridCell], levels: Mapping[str, float], picture: Path, *, title: str = "") -> None:
    """Draws the networks' nats; lower is better.

    Args:
        cells: of any number of kinds, depths and widths; a missing one leaves a gap.
        levels: nats of what they are compared with, by name: horizontal lines through all panels, those that
            lie far outside the networks' range left out.
        picture: .png, .svg or .pdf; replaced whole or not at all.
        title: above the picture.
    """
    cells = [cell for cell in cells if math.isfinite(cell.nats)]
    if not cells:
        raise CharlmError("there is no result yet: nothing to draw")
    depths = sorted({cell.layers for cell in cells})
    figure = new_figure(2.6 * len(depths) + 2.2, 4.6)
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    shown = _near(levels, [cell.nats for cell in cells])
    for panel, depth in zip(panels, depths, strict=True):
        _draw_panel(panel, [cell for cell in cells if cell.layers == depth], depth)
        for nats in shown.values():
            panel.axhline(nats, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    panels[0].set_ylabel("nats a character, held out (lower is better)")
    _name_levels(panels[-1], shown)
    handles, labels = _handles(panels)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    if title:
        figure.suptitle(title, fontsize="medium")
    save_figure(figure, picture)


def _draw_panel(axes: Any, cells: Sequence[GridCell], depth: int) -> None:
    widths = sorted({cell.hidden for cell in cells})
    for model, (colour, marker) in _STYLES.items():
        line = sorted((cell.hidden, cell.nats) for cell in cells if cell.model == model)
        if line:
            axes.plot(*zip(*line, strict=True), color=colour, marker=marker, label=model.upper(), zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set(title=f"{depth} layer{'s' if depth > 1 else ''}", xlabel="hidden units a layer")
    axes.margins(x=0.12, y=0.08)
    axes.grid(axis="y", alpha=0.2)


def _near(levels: Mapping[str, float], nats: Sequence[float]) -> dict[str, float]:
    """The levels inside the networks' range or just beside it, the highest first."""
    room = 0.25 * (max(nats) - min(nats)) + 0.05
    inside = {name: level for name, level in levels.items() if min(nats) - room <= level <= max(nats) + room}
    return dict(sorted(inside.items(), key=lambda item: -item[1]))


def _name_levels(axes: Any, levels: Mapping[str, float]) -> None:
    """Writes the levels' names right of the last panel, moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top)
    gap, places = (top - bottom) * 0.055, list(levels.values())
    for number in range(1, len(places)):
        places[number] = min(places[number], places[number - 1] - gap)
    sunk = bottom - places[-1] if places else 0.0
    if sunk > 0:  # the lowest left the panel: push all up from below
        places[-1] = bottom
        for number in range(len(places) - 2, -1, -1):
            places[number] = max(places[number], places[number + 1] + gap)
    for (name, nats), place in zip(levels.items(), places, strict=True):
        axes.annotate(
            f"{name}, {nats:.3f}",
            xy=(1.0, nats),
            xytext=(1.07, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            fontsize="small",
            color="0.25",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.7},
            annotation_clip=False,
        )


def _handles(panels: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Each kind of cell once, in one order."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    names = [model.upper() for model in _STYLES if model.upper() in found]
    return [found[name] for name in names], names
