"""The figures of a fit: measured on held-out rows beside those of the base rate, written in lines, and drawn.

N predictions, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.display import new_figure, save_figure
from charlm.errors import CharlmError
from charlm.lm.evaluate import finite
from charlm.sequences.metrics import (
    Floats,
    Reliability,
    accuracy,
    area_under_curve,
    average_precision,
    brier_score,
    detection,
    log_loss,
    r_squared,
    reliability,
)

_NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss, nats",
    "brier": "Brier score",
    "expected_calibration_error": "calibration error",
    "area_under_curve": "area under the curve",
    "average_precision": "area, precision-recall",
    "detection_at_0.01": "found at 1 % alarms",
    "detection_at_0.001": "found at 0.1 % alarms",
    "precision": "precision",
    "recall": "recall",
    "mean_squared_error": "mean squared error",
    "r_squared": "R²",
}
_OF_TWO: dict[str, Callable[[Any, Any], float | None]] = {
    "area_under_curve": area_under_curve,
    "average_precision": average_precision,
    "detection_at_0.01": partial(detection, false_alarms=0.01),
    "detection_at_0.001": partial(detection, false_alarms=0.001),
}
_OF_RARE = (*_OF_TWO, "precision", "recall")
_MOST_PRINTED = 16  # classes whose confusion is printed


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured.

    Args:
        targets: how many labels were predicted.
        values: the figures by name; one that is undefined (no positive, all labels equal) is None.
        base: those that the base rate has, by the same names.
        guess: what the base rate says: a mean, or the most frequent class.
        reliability: what was said and what came; None for numbers that are no probabilities.
        confusion: classes that came (rows) and were said (columns); None for Scores.
        classes: their names.
        rare: of two classes the rarer one, which the area under the curve, precision and recall are of; else empty.
    """

    targets: int
    values: dict[str, float | None]
    base: dict[str, float | None]
    guess: float | str
    reliability: Reliability | None = None
    confusion: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    rare: str = ""

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: what is infinite or undefined is None."""
        return {
            "targets": self.targets,
            **{name: finite(value) for name, value in self.values.items()},
            "base": {"guess": self.guess, **{name: finite(value) for name, value in self.base.items()}},
            "reliability": None if self.reliability is None else self.reliability.to_json(),
            "classes": list(self.classes),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            **({"rare_class": self.rare} if self.rare else {}),
        }

    def lines(self) -> Iterator[str]:
        """The figures beside the base rate's in lines, and the confusion matrix of a few classes."""
        guess = self.guess
        said = f"always {guess[:24]!r}" if isinstance(guess, str) else f"always {guess:.4g}"
        yield f"{'':22}{'model':>10}  base rate ({said})"
        for name, value in self.values.items():
            base = _number(self.base[name]) if name in self.base else "-"
            of = f" of {self.rare[:24]!r}" if self.rare and name in _OF_RARE else ""
            yield f"{_NAMES[name]:22}{_number(value):>10}  {base}{of}"
        if self.confusion is not None and len(self.classes) <= _MOST_PRINTED:
            yield from _confusion(self.confusion, self.classes)


def score_figures(said_N: ArrayLike, came_N: ArrayLike, *, base: float, bounded: bool = True) -> Figures:
    """Figures of Scores.

    Args:
        said_N: what was predicted.
        came_N: the labels. All 0 or 1: accuracy and the area under the curve are among the figures.
        base: the mean label of the training part.
        bounded: whether labels and Scores are probabilities; numbers in other units have squared errors alone.

    >>> figures = score_figures([0.9, 0.2], [1, 0], base=0.5)
    >>> figures.values["accuracy"], figures.values["area_under_curve"], round(figures.base["brier"], 3)
    (1.0, 1.0, 0.25)
    """
    said, came = np.asarray(said_N, dtype=np.float64), np.asarray(came_N, dtype=np.float64)
    _check(said)
    flat = np.full_like(came, base)
    measures: dict[str, Callable[[Any, Any], float | None]] = {}
    if bounded and bool(((came == 0) | (came == 1)).all()):
        measures = {"accuracy": accuracy, **_OF_TWO}
    if bounded:
        measures |= {"log_loss": log_loss, "brier": brier_score, "expected_calibration_error": _expected_error}
    else:
        measures |= {"mean_squared_error": _mean_squared_error}
    measures["r_squared"] = r_squared
    return Figures(
        targets=len(came),
        values={name: measure(said, came) for name, measure in measures.items()},
        base={name: measure(flat, came) for name, measure in measures.items()},
        guess=base,
        reliability=reliability(said, came) if bounded else None,
    )


def distribution_figures(said_NV: ArrayLike, came: ArrayLike, *, base_V: ArrayLike, classes: Sequence[str]) -> Figures:
    """Figures of Distributions.

    Args:
        said_NV: a probability for each class.
        came: the classes [N], or their shares [N, V]; of shares the largest counts as what came, where one is needed.
        base_V: the shares of the classes in the training part.
        classes: the V names. Of two classes that are not given as shares, the area under the curve, precision and
            recall of the rarer one (in the training part) are among the figures.

    >>> figures = distribution_figures([[0.8, 0.2], [0.6, 0.4]], [0, 1], base_V=[0.75, 0.25], classes="ab")
    >>> figures.values["accuracy"], figures.guess, figures.confusion.tolist()
    (0.5, 'a', [[1, 0], [1, 0]])
    """
    from sklearn.metrics import confusion_matrix

    said, outcomes, base = np.asarray(said_NV, dtype=np.float64), np.asarray(came), np.asarray(base_V, dtype=np.float64)
    _check(said)
    said = said / said.sum(axis=1, keepdims=True)
    flat = np.repeat(base[None], len(said), axis=0)
    shares = outcomes if outcomes.ndim == 2 else np.eye(len(classes))[outcomes]
    top = said.argmax(axis=1)
    curve = reliability(said.max(axis=1), shares[np.arange(len(said)), top])
    measures = {"accuracy": accuracy, "log_loss": log_loss, "brier": brier_score}
    values: dict[str, float | None] = {name: measure(said, shares) for name, measure in measures.items()}
    values["expected_calibration_error"] = curve.expected_error
    base_values: dict[str, float | None] = {name: measure(flat, shares) for name, measure in measures.items()}
    if len(classes) > 2:
        values["area_under_curve"] = _mean_area(said, shares.argmax(axis=1))
    rare = int(base.argmin()) if len(classes) == 2 and outcomes.ndim == 1 else None
    if rare is not None:
        values |= _rare_figures(said[:, rare], top == rare, outcomes == rare)
        base_values |= _rare_figures(flat[:, rare], flat.argmax(axis=1) == rare, outcomes == rare)
    return Figures(
        targets=len(said),
        values=values,
        base=base_values,
        guess=classes[int(base.argmax())],
        reliability=curve,
        confusion=confusion_matrix(shares.argmax(axis=1), top, labels=range(len(classes))),
        classes=tuple(classes),
        rare="" if rare is None else classes[rare],
    )


def _rare_figures(p_N: Floats, said_N: NDArray[np.bool_], came_N: NDArray[np.bool_]) -> dict[str, float | None]:
    """Figures of one class against the other; None for a share of nothing."""
    from sklearn.metrics import precision_score, recall_score

    return {
        **{name: measure(p_N, came_N) for name, measure in _OF_TWO.items()},
        "precision": float(precision_score(came_N, said_N)) if said_N.any() else None,
        "recall": float(recall_score(came_N, said_N)) if came_N.any() else None,
    }


def _mean_area(p_NV: Floats, came_N: NDArray[np.int64]) -> float | None:
    """The mean over the classes of the area under the curve of each against all others."""
    areas = [area_under_curve(p_NV[:, v], came_N == v) for v in range(p_NV.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def _mean_squared_error(said: ArrayLike, came: ArrayLike) -> float:
    return float(((np.asarray(said) - np.asarray(came)) ** 2).mean())


def _expected_error(said: ArrayLike, came: ArrayLike) -> float:
    return reliability(said, came).expected_error


def _check(said: NDArray[np.float64]) -> None:
    if not len(said):
        raise CharlmError("there is nothing to measure: no predictions")
    if not np.isfinite(said).all():
        raise CharlmError("some predictions are no numbers: the model diverged, or the input is far outside its range")


def _number(value: float | None) -> str:
    return "undefined" if value is None else "infinite" if value == float("inf") else f"{value:.4f}"


def _confusion(confusion_VV: NDArray[np.int64], classes: Sequence[str]) -> Iterator[str]:
    names = ["".join(c if c.isprintable() else "?" for c in name)[:12] for name in classes]
    widths = [max(len(name), 5) for name in names]
    corner = "came, said:"
    left = max(len(corner), *map(len, names))
    yield corner.ljust(left) + "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))
    for name, row in zip(names, confusion_VV.tolist(), strict=True):
        yield name.ljust(left) + "".join(f"  {count:>{width}}" for count, width in zip(row, widths, strict=True))


# -- pictures ----------------------------------------------------------------------------------------------------------

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
    save_figure(figure, picture)


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
    save_figure(figure, picture)


def _write_counts(axes: Any, confusion_VV: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    if len(confusion_VV) > 24:
        return  # too small to read
    for (came, said), count in np.ndenumerate(confusion_VV):
        if count:
            colour = "white" if shares[came, said] > 0.55 else "black"
            axes.text(said, came, f"{count}", ha="center", va="center", color=colour, fontsize="small")


def _plain(text: str) -> str:
    """Text in which a dollar is a dollar and no formula begins, and nothing breaks the line."""
    return "".join(character if character.isprintable() else " " for character in text).replace("$", r"\$")


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
