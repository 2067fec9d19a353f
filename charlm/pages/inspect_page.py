"""The page of `charlm inspect --html`: a text painted by hidden units, what comes next, and the gates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.pages.page import render
from charlm.recurrent.agreement import Finding
from charlm.recurrent.atlas import Atlas, Saturation, Unit
from charlm.recurrent.inspection import Inspection
from charlm.recurrent.unit_figure import GATE_WORDS

__all__ = ["inspect_page", "picked_units", "quantised"]

_BYTES = 1_500_000  # of unit values in a page: two thirds of its 3 MB, as base64 takes a third more


def quantised(values_UT: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Each row in whole 127ths of its largest absolute value, and that value.

    >>> numbers, largest = quantised(np.array([[0.5, -0.25, 0.0]]))
    >>> numbers.tolist(), largest.tolist()
    ([[127, -64, 0]], [0.5])
    """
    values = values_UT.astype(np.float64)
    largest_U = np.abs(values).max(axis=1, initial=0.0)
    numbers = np.rint(127 * values / np.where(largest_U > 0, largest_U, 1)[:, None])
    return numbers.astype(np.int8), largest_U


def picked_units(
    atlas: Atlas, findings: Sequence[Finding], chosen: Sequence[Unit], steps: int, most: int = _BYTES
) -> list[Unit]:
    """The units that go into a page: those asked for, those found, and as many others as there is room for."""
    wanted = [*chosen, *(finding.unit for finding in findings if finding.found)]
    spread = atlas.values_UT[:, -steps:].astype(np.float32).std(axis=1)
    wanted += [atlas.units[u] for u in np.argsort(-spread, kind="stable").tolist()]
    room = max(1, len(set(chosen)), most // max(1, steps))
    return list(dict.fromkeys(wanted))[:room]


def inspect_page(inspection: Inspection) -> str:
    """The HTML of the page; under 3 MB while some thousands of characters are shown.

    The first unit that was asked for is painted at the start, else the first one found.
    """
    atlas, findings, chosen, steps = inspection.atlas, inspection.findings, inspection.chosen, len(inspection.ids)
    units = picked_units(atlas, findings, chosen, steps)
    numbers, largest = quantised(np.stack([inspection.values(unit) for unit in units]))
    data: dict[str, Any] = {
        "symbols": list(inspection.symbols),
        "ids": list(inspection.ids),
        "units": [str(unit) for unit in units],
        "largest": [round(float(value), 4) for value in largest],
        "values": base64.b64encode(numbers.tobytes()).decode(),
        "follows": _words(findings),
        "top": atlas.top_SK.ravel().tolist(),
        "parts": np.rint(1e6 * atlas.chance_SK.astype(np.float64)).astype(np.int64).ravel().tolist(),
    }
    listed = [finding for finding in findings if finding.found and finding.unit in units]
    listed_names = {str(finding.unit) for finding in listed} | {str(unit) for unit in chosen}
    return render(
        "inspect.html",
        title=f"Hidden units of {inspection.name}",
        data={"inspect": data},
        scripts=("textmap.js", "inspect.js"),
        facts=[
            ("Model", f"{inspection.name} ({inspection.kind})"),
            ("Text", inspection.where),
            ("Read", f"{len(atlas.ids):,} characters, of which the last {steps:,} are shown"),
        ],
        findings=listed,
        chosen=[str(unit) for unit in dict.fromkeys(chosen)],
        others=[name for name in sorted(data["units"], key=_order) if name not in listed_names],
        missing=sorted({f.follows for f in findings} - {f.follows for f in findings if f.found}),
        gates=_charts(atlas.gates),
    )


def _order(name: str) -> tuple[int, int, str]:
    layer, number, signal = name.split(":")
    return int(layer), int(number), signal


def _words(findings: Sequence[Finding]) -> dict[str, str]:
    """What each found unit follows best, in words."""
    words: dict[str, str] = {}
    for finding in findings:
        if finding.found:
            words.setdefault(str(finding.unit), finding.follows + ("" if finding.rises else " (falls there)"))
    return words


def _charts(gates: Sequence[Saturation]) -> list[dict[str, Any]]:
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
