"""Pages that show a text: the map of surprise (`charlm score --html`), and hidden units (`charlm inspect --html`)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.drawing import shown_symbols
from charlm.lm.surprise import Expected, Surprise
from charlm.pages.page import render
from charlm.recurrent.agreement import GATE_WORDS, Finding
from charlm.recurrent.atlas import Atlas, Saturation, Unit
from charlm.recurrent.inspection import Inspection
from charlm.text.corpus import Corpus
from charlm.text.splits import Spans
from charlm.text.vocab import Vocab

MOST = 200_000
"""Symbols that a page shows at most, so that a browser opens it at once."""

_IMPOSSIBLE, _UNKNOWN, _CONTEXT, _UNDEFINED = -1, -2, -3, -4  # as in surprise.js


def map_data(
    shown: Corpus,
    spans: Spans,
    vocab: Vocab,
    surprises: Sequence[Surprise],
    names: Sequence[str],
    *,
    expected: Expected | None = None,
    most: int = MOST,
) -> dict[str, Any]:
    """What `surprise.js` draws: the text of the spans, its bits, and what was expected.

    Args:
        shown: the text in symbols that can be shown, at the positions of the model's own.
        spans: what was read; their first characters are context.
        vocab: of the first model, whose symbols `expected` speaks of.
        surprises: of one or two models, a symbol each (not `whole_characters`).
        names: of the models.
        expected: of the first model, for the first targets.
        most: symbols to show.
    """
    place_M = np.concatenate([np.arange(start, end) for start, end in spans.tolist()])[:most]
    starts = np.cumsum(np.concatenate([[0], spans[:, 1] - spans[:, 0]]))[:-1]
    symbols, table = _symbols(shown.vocab, vocab)
    return {
        "symbols": symbols,
        "ids": table[shown.ids[place_M]].tolist(),
        "breaks": starts[starts < len(place_M)].tolist(),
        "models": list(names),
        "bits": [_thousandths(surprise, place_M).tolist() for surprise in surprises],
        "top": None if expected is None else _top(expected, surprises[0], place_M),
    }


def map_places(spans: Spans, positions: Sequence[int], most: int = MOST) -> list[int | None]:
    """Where positions of a text stand in the map of some spans; None where that does not show them.

    A position before a span (the beginning of a line that the span cuts) stands at the span's beginning.

    >>> map_places(np.array([[10, 20], [30, 40]]), [12, 25, 33, 50], most=15)
    [2, 10, 13, None]
    """
    lengths = spans[:, 1] - spans[:, 0]
    offsets = np.cumsum(lengths) - lengths
    found: list[int | None] = []
    for position in positions:
        span = int(np.searchsorted(spans[:, 1], position, side="right"))
        place = most if span == len(spans) else int(offsets[span]) + max(0, position - int(spans[span, 0]))
        found.append(place if place < most else None)
    return found


def _symbols(shown: Vocab, model: Vocab) -> tuple[list[str], NDArray[np.int64]]:
    """The model's symbols and after them those it lacks, and the table from the text's ids into these."""
    symbols = shown_symbols(model.characters, model.byte_fallback)
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    wanted = shown_symbols(shown.characters, shown.byte_fallback)
    if shown == model:
        return symbols, np.arange(len(symbols))
    table = [numbers.setdefault(symbol, len(numbers)) for symbol in wanted]
    return list(numbers), np.array(table, dtype=np.int64)


def _thousandths(surprise: Surprise, place_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Thousandths of bits of the symbols at these places, or the code that says why there are none."""
    index_M, there_M = _find(surprise.position_N, place_M)
    bits_M, undefined_M = surprise.bits_N[index_M], surprise.undefined_N[index_M]
    finite_M = np.where(np.isfinite(bits_M), bits_M, 0)
    found: NDArray[np.int64] = np.rint(1000 * finite_M).astype(np.int64)
    found[np.isinf(bits_M)] = _IMPOSSIBLE
    found[undefined_M] = _UNDEFINED
    found[np.isnan(bits_M)] = _UNKNOWN
    found[~there_M] = _CONTEXT
    return found


def _find(position_N: NDArray[np.int64], place_M: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where places stand among positions, and whether they do."""
    index_M = np.minimum(np.searchsorted(position_N, place_M), len(position_N) - 1)
    return index_M, position_N[index_M] == place_M


def _top(expected: Expected, surprise: Surprise, place_M: NDArray[np.int64]) -> dict[str, Any]:
    """The expected symbols as flat lists, probabilities in millionths, -1 where there are none."""
    index_M, there_M = _find(surprise.position_N, place_M)
    n = len(expected.ids_NK)
    steps = int(np.searchsorted(np.maximum.accumulate(np.where(there_M, index_M, -1)), n))
    index, there = index_M[:steps], there_M[:steps]
    probability = expected.probability_NK[np.where(there, index, 0)].astype(np.float64)
    parts = np.where(np.isnan(probability) | ~there[:, None], -1, np.rint(1e6 * np.nan_to_num(probability)))
    ids = expected.ids_NK[np.where(there, index, 0)]
    return {"steps": steps, "ids": ids.ravel().tolist(), "parts": parts.astype(np.int64).ravel().tolist()}


def score_page(
    data: dict[str, Any],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    tables: Sequence[dict[str, Any]],
) -> str:
    """The HTML of a surprise map.

    Args:
        data: from `map_data`.
        title: of the page.
        facts: names and values at its head.
        notes: sentences below them.
        tables: each with `heading`, `words`, `caption`, `columns` (heading, whether it is a number), `rows` and
            `places` (where each row stands in the map, or None).
    """
    return render(
        "score.html",
        title=title,
        data={"surprise": data},
        scripts=("textmap.js", "surprise.js"),
        facts=facts,
        notes=notes,
        models=data["models"],
        tables=tables,
    )


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
