"""The comparison of n-grams and networks as a picture: order on the x axis, networks as horizontal lines.

Pictures of probabilities: what was said against what came, and which class was taken for which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharlmError
from charlm.figures import new_figure, save_figure
from charlm.sequences.metrics import Reliability

__all__ = [
    "draw_confusion",
    "draw_reliability",
]


_MOST = 60  # classes that a confusion matrix can show


def draw_reliability(curves: Mapping[str, Reliability], picture: Path, *, title: str = "", said: str = "") -> None:
    """Draws how often it came against the probability that was said, and below it how often that was said.

    On the diagonal a prediction of 70 % comes true 7 times of 10; below it the model is too sure, above it too shy.

    Args:
        curves: by name, a model each.
        picture: .png, .svg or .pdf; replaced whole or not at all.
        title: above the picture.
        said: what the probabilities are of, for the axis.
    """
    if not curves:
        raise CharlmError("there is no curve to draw")
    figure = new_figure(5.4, 6.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="perfectly calibrated")
    for number, (name, curve) in enumerate(curves.items()):
        full = curve.count > 0
        label = f"{_plain(name)}, expected error {curve.expected_error:.3f}"
        axes.plot(curve.said[full], curve.came[full], "-", color=f"C{number}", linewidth=1, alpha=0.6)
        sizes = 12 + 150 * np.sqrt(curve.count[full] / curve.count.sum())
        axes.scatter(curve.said[full], curve.came[full], s=sizes, color=f"C{number}", label=label)
        width = np.diff(curve.edges) / len(curves)
        below.bar(curve.edges[:-1] + width * number, curve.count, width=width * 0.92, align="edge", color=f"C{number}")
    axes.set(ylabel="how often it came", title=_plain(title), xlim=(0, 1), ylim=(-0.02, 1.02))
    below.set(xlabel=said or "probability that was said", ylabel="predictions")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left")
    _save(figure, picture)


def draw_confusion(confusion_VV: NDArray[np.int64], classes: Sequence[str], picture: Path, *, title: str = "") -> None:
    """Draws the confusion matrix: shares of each row in colour, counts in figures.

    Args:
        confusion_VV: rows are the classes that came, columns those that were said.
        classes: the V names.
        picture: .png, .svg or .pdf; replaced whole or not at all.
        title: above the picture.
    """
    number = len(classes)
    if number > _MOST:
        raise CharlmError(f"a picture shows at most {_MOST} classes, not {number}")
    size = 2.4 + 0.5 * min(number, 24)
    figure = new_figure(size + 1.2, size)
    axes = figure.add_subplot()
    shares = confusion_VV / np.maximum(confusion_VV.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(100 * shares, vmin=0, vmax=100, cmap="Blues")
    figure.colorbar(image, ax=axes, label="% of the class that came", shrink=0.8)
    names = [_plain(_short(name)) for name in classes]
    axes.set_xticks(range(number), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(number), names)
    axes.set(xlabel="class that was said", ylabel="class that came", title=_plain(title))
    _write_counts(axes, confusion_VV, shares)
    _save(figure, picture)


def _write_counts(axes: Any, confusion_VV: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    if len(confusion_VV) > 24:
        return  # too small to read
    for (came, said), count in np.ndenumerate(confusion_VV):
        if count:
            colour = "white" if shares[came, said] > 0.55 else "black"
            axes.text(said, came, f"{count}", ha="center", va="center", color=colour, fontsize="small")


def _save(figure: Any, picture: Path) -> None:
    """Writes the picture; a character that the font does not have becomes a box, without a word about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph")
        save_figure(figure, picture)


def _plain(text: str) -> str:
    """Text in which a dollar is a dollar and no formula begins, and nothing breaks the line."""
    return "".join(character if character.isprintable() else " " for character in text).replace("$", r"\$")


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
