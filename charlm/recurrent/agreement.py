"""Which hidden units follow something that has a name.

The current character alone decides much of a unit's value, so a unit is compared with a property among positions of the
same character only. Of all pairs of such positions of which one has the property and the other has not, the share in
which the unit is higher at the one that has it (a tie is half) is the area under the ROC curve within strata: Mann and
Whitney's statistic (1947; as an area Hanley and McNeil 1982) summed over strata. 1/2 is chance. A property with more or
less of it is taken as "more than the median of its character".

The unit is chosen on the first half of the text and reported on the second, so that the best of many is not flattered.
Beside it stands a control: the highest area of any unit on the second half when the property is shifted round by a
random large offset, which keeps how the property clusters and breaks its tie to the text.

`unit_figure` draws units: a text coloured by their values, and how often their gates are nearly closed or open.
Axes: T positions, U units, P properties, K shifts, N positions of one character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import new_figure, visible
from charlm.lm.interface import OnRead
from charlm.recurrent.atlas import Atlas, Saturation, Unit
from charlm.recurrent.properties import PROPERTIES, Property, code_points_of
from charlm.text.vocab import Vocab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLOCK = 256  # units that are ranked at once


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A unit and the property that it was compared with.

    Args:
        unit: which.
        follows: the property's name.
        area: within strata on the second half, in the direction that the first half showed; 1/2 is chance.
        rises: whether the unit is higher where there is (more of) the property.
        control: the highest area of any unit, in either direction, with the property shifted.
        searched: the area on the first half, by which the unit was chosen.
    """

    unit: Unit
    follows: str
    area: float
    rises: bool
    control: float
    searched: float

    @property
    def found(self) -> bool:
        """Whether the unit agrees with the property better than any unit did with any shift of it."""
        return self.area > self.control

    def to_json(self) -> dict[str, Any]:
        """A value for programs, under the names that the documentation uses."""
        return {
            "unit": str(self.unit),
            "property": self.follows,
            "area": self.area,
            "control": self.control,
            "found": self.found,
            "rises": self.rises,
            "searched_area": self.searched,
        }


def centred_ranks(values_UN: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks along the last axis, ties at their mean, minus the mean of all.

    >>> centred_ranks(np.array([[3.0, 1.0, 3.0]])).tolist()
    [[0.5, -1.0, 0.5]]
    """
    order = np.argsort(values_UN, axis=-1)
    ordered = np.take_along_axis(values_UN, order, axis=-1)
    places = np.arange(values_UN.shape[-1])
    edge = np.ones(values_UN.shape, dtype=np.bool_)
    edge[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(edge, places, 0), axis=-1)
    ends = np.append(edge[:, 1:], np.ones((len(edge), 1), np.bool_), axis=-1)
    last = np.minimum.accumulate(np.where(ends, places, places[-1])[:, ::-1], axis=-1)[:, ::-1]
    ranks = np.empty(values_UN.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last - places[-1]) / 2, axis=-1)
    return ranks


def areas(
    values_UT: NDArray[Any],
    strata_T: NDArray[Any],
    properties_PT: NDArray[Any],
    shifts_K: Sequence[int] = (0,),
    progress: OnRead | None = None,
) -> NDArray[np.float64]:
    """The area under the ROC curve within strata of every unit for every property, [K, P, U].

    Args:
        values_UT: the units.
        strata_T: pairs are taken within positions of one value of this.
        properties_PT: what a position has more of than the median of its stratum counts as having it; of a property
            that is 0 or 1 this is meant as it is.
        shifts_K: how far round the properties are shifted, each in turn.
        progress: called with the number of positions after each stratum.

    Returns:
        NaN for a property that no two positions of one stratum differ in.

    >>> unit = np.array([[0.1, 0.9, 0.5, 0.2]])  # one pair in each stratum; the unit is right about the first
    >>> areas(unit, np.array([7, 7, 8, 8]), np.array([[0, 1, 0, 1]])).tolist()
    [[[0.5]]]
    """
    length, kinds = values_UT.shape[1], len(properties_PT)
    graded = properties_PT.max(axis=1) > 1
    won = np.zeros((len(shifts_K) * kinds, len(values_UT)))
    pairs = np.zeros(len(won))
    order = np.argsort(strata_T, kind="stable")
    cuts = np.flatnonzero(np.diff(strata_T[order])) + 1
    for places_N in np.split(order, cuts):
        sources_KN = (places_N + np.asarray(shifts_K)[:, None]) % length
        marks_KPN = np.moveaxis(properties_PT[:, sources_KN], 0, 1).astype(np.float64)
        median = np.median(marks_KPN[:, graded], axis=-1, keepdims=True)
        marks_KPN[:, graded] = marks_KPN[:, graded] > median
        marks = marks_KPN.reshape(len(won), -1)
        has = marks.sum(-1)
        pairs += has * (len(places_N) - has)
        if not ((has > 0) & (has < len(places_N))).any():
            continue
        for start in range(0, len(values_UT), _BLOCK):
            ranks_UN = centred_ranks(values_UT[start : start + _BLOCK, places_N].astype(np.float32))
            won[:, start : start + _BLOCK] += marks @ ranks_UN.T
        if progress is not None:
            progress(len(places_N))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 0.5 + won / pairs[:, None]
    return found.reshape(len(shifts_K), kinds, len(values_UT))


def search(
    atlas: Atlas,
    vocab: Vocab,
    *,
    properties: Sequence[Property] = PROPERTIES,
    shifts: int = 19,
    best: int = 3,
    seed: int = 0,
    progress: OnRead | None = None,
) -> list[Finding]:
    """The units that follow each property best, the surest first. The head of this file has the measure.

    Args:
        atlas: what was read.
        vocab: of the model.
        properties: what to look for; what the text has too little of is passed over.
        shifts: how many times a property is shifted; with 19, a unit above the control is one at the 5 % level.
        best: how many units are kept for each property.
        seed: of the shifts.
        progress: called with numbers of positions that were ranked, at most T in all.
    """
    length = len(atlas.ids)
    half = length // 2
    if half < 2:
        return []
    codes = code_points_of(vocab, atlas.ids)
    kept, rows = [], []
    for item in properties:
        values_T = np.asarray(item.of(codes), dtype=np.float32)
        if _enough(values_T[:half]) and _enough(values_T[half:]):
            kept.append(item.name)
            rows.append(values_T)
    if not rows:
        return []
    values_PT = np.stack(rows)
    offsets = _offsets(length - half, shifts, seed)
    searched_PU = areas(atlas.values_UT[:, :half], atlas.ids[:half], values_PT[:, :half], progress=progress)[0]
    shifted_KPU = areas(
        atlas.values_UT[:, half:], atlas.ids[half:], values_PT[:, half:], (0, *offsets), progress=progress
    )
    findings: list[Finding] = []
    for p, name in enumerate(kept):
        if not np.isnan(searched_PU[p]).any() and not np.isnan(shifted_KPU[:, p]).any():
            findings += _best(atlas.units, name, searched_PU[p], shifted_KPU[:, p], best)
    return sorted(findings, key=lambda finding: (-finding.found, -finding.area))


def _enough(values_T: NDArray[np.float32], stretches: int = 4) -> bool:
    """Whether a property comes and goes a few times here."""
    above = values_T > np.median(values_T)
    if above.all() or not above.any():
        above = values_T > values_T.min()
    return int((np.diff(above.astype(np.int8)) != 0).sum()) >= 2 * stretches


def _offsets(length: int, shifts: int, seed: int) -> list[int]:
    """Offsets between a tenth and nine tenths of the way round."""
    low = max(1, length // 10)
    drawn = np.random.default_rng(seed).integers(low, max(low + 1, length - low), size=shifts)
    return [int(offset) for offset in drawn]


def _best(
    units: Sequence[Unit], name: str, searched_U: NDArray[np.float64], shifted_KU: NDArray[np.float64], best: int
) -> list[Finding]:
    """The findings about one property; of a unit's two signals the better one."""
    control = float(0.5 + np.abs(shifted_KU[1:] - 0.5).max(initial=0))
    findings: list[Finding] = []
    seen: set[tuple[int, int]] = set()
    for u in np.argsort(-np.abs(searched_U - 0.5), kind="stable").tolist():
        unit = units[u]
        if len(findings) == best:
            break
        if (unit.layer, unit.number) in seen:
            continue
        seen.add((unit.layer, unit.number))
        rises = bool(searched_U[u] >= 0.5)
        area, chosen = (float(value) if rises else 1 - float(value) for value in (shifted_KU[0, u], searched_U[u]))
        findings.append(Finding(unit=unit, follows=name, area=area, rises=rises, control=control, searched=chosen))
    return findings


GATE_WORDS = {"i": "input gate", "f": "forget gate", "o": "output gate", "r": "reset gate", "z": "update gate"}
"""What the gates are called: those of an LSTM, then those of a GRU."""

_COLUMNS, _ROWS = 76, 5


def rows_of(symbols: Sequence[str], columns: int = _COLUMNS, rows: int = _ROWS) -> list[tuple[int, int]]:
    """Where each row of the picture stands in the text: a line, or a part of one that is too long.

    >>> rows_of(list("ab\\ncdefg"), columns=3)
    [(0, 3), (3, 6), (6, 8)]
    """
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(symbols) and len(found) < rows:
        end = start
        while end < min(start + columns, len(symbols)) and symbols[end] != "\n":
            end += 1
        if end < len(symbols) and symbols[end] == "\n" and end - start < columns:
            end += 1
        found.append((start, end))
        start = end
    return found


def unit_figure(
    symbols: Sequence[str],
    painted: Sequence[tuple[str, NDArray[Any]]],
    gates: Sequence[Saturation],
    *,
    title: str = "",
) -> Figure:
    """The beginning of a text once for each unit, with a key to its colours, and a point for the gates of each unit.

    Args:
        symbols: the text, a string a position.
        painted: for each unit what is written above it, and its values [T]; purple is positive, orange negative.
        gates: how often they are nearly closed or open; none for the simple cell.
        title: above the figure.
    """
    symbols, painted = _from_a_line(symbols, painted)
    rows = rows_of(symbols)
    names = sorted({item.gate for item in gates}, key=list(GATE_WORDS).index)
    heights = [0.25 * len(rows) + 0.45] * len(painted) + [3.2] * bool(names)
    figure = new_figure(9, sum(heights) + 0.5)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (label, values_T) in zip(parts, painted, strict=False):
        _draw_text(part, symbols, rows, label, values_T)
    if names:
        _draw_gates(parts[-1], names, gates)
    figure.suptitle(title, parse_math=False)
    return figure


def _from_a_line(
    symbols: Sequence[str], painted: Sequence[tuple[str, NDArray[Any]]]
) -> tuple[Sequence[str], list[tuple[str, NDArray[Any]]]]:
    """The same from the first line that is whole, where one begins soon and leaves enough."""
    first = next((n + 1 for n, symbol in enumerate(symbols[: len(symbols) // 2]) if symbol == "\n"), 0)
    return symbols[first:], [(label, values_T[first:]) for label, values_T in painted]


def _draw_text(
    part: Any, symbols: Sequence[str], rows: Sequence[tuple[int, int]], label: str, values_T: NDArray[Any]
) -> None:
    """Rows of characters on fields of colour, and beside them which colour is which value."""
    axes = part.add_subplot()
    grid = np.full((len(rows), _COLUMNS), np.nan)
    largest = float(np.abs(values_T).max(initial=0)) or 1.0
    for row, (start, end) in enumerate(rows):
        grid[row, : end - start] = values_T[start:end]
        for column, symbol in enumerate(symbols[start:end]):
            dark = abs(grid[row, column]) > 0.7 * largest
            axes.text(
                column,
                row,
                visible(symbol),
                ha="center",
                va="center",
                family="monospace",
                fontsize=8,
                color="white" if dark else "black",
                parse_math=False,
            )
    image = axes.imshow(grid, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    key = part.colorbar(image, ax=axes, ticks=[-largest, 0, largest], aspect=8, pad=0.01, fraction=0.04)
    key.ax.set_yticklabels([f"{-largest:.2f}", "0", f"{largest:.2f}"], fontsize=7)
    axes.set_title(label, fontsize=9, loc="left", parse_math=False)
    axes.set_axis_off()


def gate_charts(gates: Sequence[Saturation]) -> list[dict[str, Any]]:
    """For each kind of gate the points (layer, unit, share nearly closed, share nearly open) of a scatter plot."""
    charts = []
    for gate in dict.fromkeys(item.gate for item in gates):
        rows = [item for item in gates if item.gate == gate]
        points = [
            (item.layer, unit, float(left), float(right))
            for item in rows
            for unit, (left, right) in enumerate(zip(item.left_H, item.right_H, strict=True))
        ]
        means = [(item.layer, float(item.left_H.mean()), float(item.right_H.mean())) for item in rows]
        charts.append({"gate": gate, "words": GATE_WORDS[gate], "points": points, "means": means})
    return charts


def _draw_gates(part: Any, names: Sequence[str], gates: Sequence[Saturation]) -> None:
    """For each kind of gate the share of the time nearly closed against the share nearly open."""
    for axes, name in zip(part.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for item in gates:
            if item.gate == name:
                axes.plot(item.left_H, item.right_H, "o", markersize=3.5, alpha=0.6, label=f"layer {item.layer}")
        axes.plot([0, 1], [1, 0], color="black", linewidth=0.6)
        axes.set(xlabel="share of the time below 0.1", title=GATE_WORDS[name], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        axes.legend(fontsize="small")
    part.axes[0].set_ylabel("share of the time above 0.9")
