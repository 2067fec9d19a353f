"""Many models, one held-out text, one table: what may be compared, and how an unsmoothed model is reported.

A maximum-likelihood n-gram gives unseen events probability zero, so its held-out perplexity is infinite. Beside
that stand the share of targets that it covers, its nats on those, and every network's nats on the same targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import new_figure
from charlm.lm.evaluate import Evaluation, Row, finite, measure, standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One line of the table.

    Args:
        row: the model's own facts.
        evaluation: its figures on all targets.
        coverage: share of targets that got a probability above zero.
        unseen_histories: targets whose history was never counted, so that the model is undefined there.
        unseen_continuations: targets never counted after a history that was.
        covered_nats: nats a character on the covered targets; None where there are none.
        network_covered_nats: by the name of each network, its nats on those same targets.
    """

    row: Row
    evaluation: Evaluation
    coverage: float
    unseen_histories: int
    unseen_continuations: int
    covered_nats: float | None
    network_covered_nats: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """The line as `charlm compare --json` prints it; an infinite or undefined value is None."""
        row, figures = self.row, self.evaluation.to_json()
        return {
            "name": row.name,
            "family": row.family,
            "order": row.order,
            "smoothing": row.smoothing,
            "parameters": row.parameters,
            **{key: figures[key] for key in ("nats", "bits_per_char", "perplexity", "standard_error", "accuracy")},
            "coverage": self.coverage,
            "unseen_histories": self.unseen_histories,
            "unseen_continuations": self.unseen_continuations,
            "zero_probability_targets": figures["zero_probability_targets"],
            "covered_nats": self.covered_nats,
            "network_covered_nats": self.network_covered_nats,
            "train_nats": finite(row.train_nats),
            "ngrams": row.ngrams,
            "bytes": row.bytes,
            "seconds": row.seconds,
        }


def compare_rows(rows: Sequence[Row], targets_N: NDArray[np.int64]) -> list[Compared]:
    """Puts rows over the same targets side by side.

    Args:
        rows: one a model, all of N targets in the same order.
        targets_N: the targets' ids, characters all of them, -1 where the vocabulary does not hold them.

    >>> targets = np.array([0, 1])
    >>> logp, hit = np.array([np.log(0.5), -np.inf]), np.array([True, False])
    >>> counted = Row(name="order 1", family="ngram", logp_T=logp, hit_T=hit, is_baseline=True)
    >>> network = Row(name="net", family="rnn", logp_T=np.log([0.25, 0.25]), hit_T=np.array([True, True]))
    >>> first, second = compare_rows([counted, network], targets)
    >>> first.coverage, round(first.covered_nats, 4), round(first.network_covered_nats["net"], 4)
    (0.5, 0.6931, 1.3863)
    """
    networks = [row for row in rows if not (row.is_baseline or row.is_adaptive)]
    return [_compared(row, networks, targets_N) for row in rows]


def _compared(row: Row, networks: list[Row], targets_N: NDArray[np.int64]) -> Compared:
    known_N = targets_N >= 0
    covered_N = known_N & np.isfinite(row.logp_T)
    return Compared(
        row=row,
        evaluation=measure(row, targets_N),
        coverage=float(covered_N.sum() / known_N.sum()),
        unseen_histories=int((known_N & np.isnan(row.logp_T)).sum()),
        unseen_continuations=int((known_N & np.isneginf(row.logp_T)).sum()),
        covered_nats=_nats(row, covered_N),
        network_covered_nats={net.name: _nats(net, covered_N) for net in networks if net is not row},
    )


def _nats(row: Row, which_N: NDArray[np.bool_]) -> float | None:
    """Nats a character on some of the targets; None where there are none or where it is not finite."""
    total = float(-row.logp_T[which_N].sum())
    return total / int(which_N.sum()) if which_N.any() and math.isfinite(total) else None


def summary(lines: Sequence[Compared]) -> str:
    """One or two sentences: which model is best and by how much, and what an unsmoothed model cannot say."""
    finite = [line for line in lines if math.isfinite(line.evaluation.nats)]
    counted = min((x for x in finite if x.row.is_baseline), key=_order, default=None)
    network = min((x for x in finite if not (x.row.is_baseline or x.row.is_adaptive)), key=_order, default=None)
    sentences = [_duel(counted, network)]
    adaptive = min((x for x in finite if x.row.is_adaptive), key=_order, default=None)
    if adaptive is not None:
        sentences.append(f"{adaptive.row.name}, learning while it reads, reaches {adaptive.evaluation.nats:.4f}.")
    unsmoothed = [line for line in lines if line.row.smoothing == "none" and line.coverage < 1]
    if unsmoothed:
        worst = max(unsmoothed, key=lambda line: line.row.order or 0)
        sentences.append(
            f"Unsmoothed counting of order {worst.row.order} gives {100 * (1 - worst.coverage):.1f} % of the targets "
            "no probability at all, so its perplexity is infinite."
        )
    return " ".join(sentences)


def _order(line: Compared) -> float:
    return line.evaluation.nats


def _duel(counted: Compared | None, network: Compared | None) -> str:
    if counted is None and network is None:
        return "No model here gives every target a probability."
    if counted is None or network is None:
        best = counted or network
        assert best is not None
        return f"{best.row.name} is best with {best.evaluation.nats:.4f} nats a character."
    first, second = sorted((counted, network), key=_order)
    error = paired_error(first.row, second.row)
    if error is not None and second.evaluation.nats - first.evaluation.nats < 2 * error:
        return (
            f"{first.row.name} ({first.evaluation.nats:.4f} nats a character) and {second.row.name} "
            f"({second.evaluation.nats:.4f}) are not told apart by this text: the difference has a standard error of "
            f"{error:.4f}."
        )
    share = 100 * (1 - first.evaluation.nats / second.evaluation.nats)
    return (
        f"{first.row.name} foresees this text best with {first.evaluation.nats:.4f} nats a character, "
        f"{share:.1f} % below {second.row.name} ({second.evaluation.nats:.4f})."
    )


def paired_error(first: Row, second: Row) -> float | None:
    """The standard error of the difference of two models' nats on the same targets; None where it is infinite."""
    both = ~(np.isnan(first.logp_T) | np.isnan(second.logp_T))
    return standard_error(first.logp_T[both] - second.logp_T[both])


_UNSMOOTHED = (
    "order", "n-grams", "perplex.", "cover %", "no hist", "no next", "nats*", "net*", "train", "right %", "MB", "s",
)  # fmt: skip
_LEGEND = (
    "maximum likelihood, unsmoothed. cover: share of targets with a probability above 0; no hist, no next: targets "
    "whose history was never counted, or that never followed it; nats*, net*: on the covered targets, by counting and "
    "by the best network; train: on the training text"
)
_FINITE = ("model", "size", "nats", "±", "bits", "perplex.", "train", "right %", "MB", "s")

Cells = tuple[Sequence[str], list[list[str]], str]
"""The heads of a table's columns, its rows, and a sentence that explains it."""


def tables(lines: Sequence[Compared]) -> list[Cells]:
    """The tables of a comparison: unsmoothed models, whose perplexity is infinite, apart from all others."""
    unsmoothed = [_unsmoothed(line) for line in lines if line.row.smoothing == "none"]
    finite = [_finite(line) for line in lines if line.row.smoothing != "none"]
    found: list[Cells] = [(_UNSMOOTHED, unsmoothed, _LEGEND)] if unsmoothed else []
    return [*found, *([(_FINITE, finite, "")] if finite else [])]


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _unsmoothed(line: Compared) -> list[str]:
    row, figures = line.row, line.evaluation
    there = [value for value in line.network_covered_nats.values() if value is not None]
    return [
        f"{row.order}",
        f"{row.ngrams or 0:,}",
        "infinite" if figures.zero_probability_targets else f"{figures.perplexity:.4f}",
        f"{100 * line.coverage:.2f}",
        f"{line.unseen_histories:,}",
        f"{line.unseen_continuations:,}",
        _number(line.covered_nats),
        _number(min(there, default=None)),
        _number(row.train_nats),
        f"{100 * figures.accuracy:.1f}",
        _number(None if row.bytes is None else row.bytes / 1e6, 1),
        _number(row.seconds, 2),
    ]


def _finite(line: Compared) -> list[str]:
    row, figures = line.row, line.evaluation.to_json()
    size = row.parameters if row.parameters is not None else row.ngrams
    return [
        row.name,
        "-" if size is None else f"{size:,}",
        *(_number(figures[key]) for key in ("nats", "standard_error", "bits_per_char", "perplexity")),
        _number(row.train_nats),
        f"{100 * figures['accuracy']:.1f}",
        _number(None if row.bytes is None else row.bytes / 1e6, 1),
        _number(row.seconds, 2),
    ]


def comparison_figure(lines: Sequence[Compared], *, title: str = "") -> Figure:
    """Draws held-out and training nats and coverage against the order, and each network as a level.

    Args:
        lines: the table.
        title: above the picture.
    """
    figure = new_figure(8, 5)
    from matplotlib.ticker import MaxNLocator  # after `new_figure`, which imports matplotlib safely

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
    return figure


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
