"""HTML pages that work without a network: how each is made of templates, its charts, and its maps of surprise.

Templates, style and scripts are files of their own and stand inside the finished page. A Content-Security-Policy
forbids every connection, and allows no style and no script but those whose hashes it names, so that a text that holds
markup stays text. Charts are computed as numbers (`chart`): where a template draws lines, dots and ticks, in the
colours of the page. So is the map of surprise (`map_data`), a text whose characters are painted by their bits.

`run_page.py` has the page of a run and that of hidden units, `report.py` what is measured for a page; `export.py`
writes models as pages that run them, and as ONNX files (`onnx_file.py`).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import visible
from charlm.files import __version__, free_name, write_bytes
from charlm.lm.sampling import Expected
from charlm.lm.surprise import Surprise
from charlm.text.corpus import Corpus
from charlm.text.splits import Spans
from charlm.text.vocab import Vocab

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str,
    *,
    title: str,
    data: Any = None,
    scripts: Sequence[str] = (),
    worker: Sequence[str] = (),
    **values: Any,
) -> str:
    """The HTML of a page.

    Args:
        template: a file in `templates/` that extends `base.html`.
        title: of the page; plain text, like every other value: it is escaped where it is put in.
        data: strict JSON for the scripts, where they find it as `charlm.data`.
        scripts: files in `templates/` that run after `page.js`, in this order.
        worker: files in `templates/` that a worker runs, which the page starts from its own text.
        values: what the template names besides; a name that is missing is an error.
    """
    style = _asset("page.css")
    sources = [_asset(name) for name in ("page.js", *scripts)]
    page = _environment().get_template(template)
    return page.render(
        title=title,
        data={} if data is None else data,
        style=style,
        sources=sources,
        worker="\n".join(_asset(name) for name in worker),
        policy=_policy(style, sources, worker="worker-src blob:; " if worker else ""),
        version=__version__,
        **values,
    )


def write_page(wanted: Path, html: str, *, overwrite: bool = False) -> Path:
    """Writes a page whole or not at all, and returns its name: one that is free, unless a file may be replaced."""
    path = wanted if overwrite else free_name(wanted)
    write_bytes(path, html.encode("utf-8", "replace"))
    return path


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_bytes().decode("utf-8").replace("\r\n", "\n")


def _policy(style: str, sources: Sequence[str], worker: str) -> str:
    """Nothing may be loaded or sent; this style and these scripts may run."""
    scripts = " ".join(map(_hash, sources))
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {scripts}; img-src data:; "
        f"{worker}base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `tojson` writes <, >, & and ' as escapes, so that no text can end the element that holds it
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["visible"] = visible
    return environment


# -- charts -----------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 720, 392
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 672, 18, 326

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Args:
        name: in the legend.
        points: (x, y) pairs; those with a y that is None or not finite are left out, and the line is broken there.
        style: `solid`, `dashed` or `dotted`.
        dots: whether each point gets a dot.
        color: 0 to 5, one of the page's colours.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    style: str = "solid"
    dots: bool = True
    color: int = 0


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that cover low..high, at most so many: steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(0.13, 1.9, 5)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    >>> ticks(3, 3)
    [3.0, 4.0]
    """
    if not high > low:
        return [float(low), float(low) + 1]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            break
    return [round(number * step, 12) for number in range(first, last + 1)]


def chart(
    series: Sequence[Series], *, x: str, y: str, words: str, x_range: Ends | None = None, y_range: Ends | None = None
) -> dict[str, Any]:
    """The values that the macro `chart` of the templates draws.

    Args:
        series: the lines; those without a point are left out.
        x: what the x axis is.
        y: what the y axis is.
        words: the chart in a sentence, for readers who cannot see it.
        x_range: ends of the x axis; by default from the points.
        y_range: the same of the y axis.

    >>> drawn = chart([Series(name="a", points=[(0, 1.0), (1, None), (2, 3.0), (4, 2.0)])], x="x", y="y", words="w")
    >>> [len(line) for line in drawn["series"][0]["lines"]], [tick["text"] for tick in drawn["y_ticks"]]
    ([1, 2], ['1', '1.5', '2', '2.5', '3'])
    """
    kept = [(one, _runs(one.points)) for one in series]
    kept = [(one, runs) for one, runs in kept if runs]
    points = [point for _, runs in kept for run in runs for point in run]
    x_ticks = _axis([at for at, _ in points], x_range)
    y_ticks = _axis([value for _, value in points], y_range)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return _scale(point[0], x_ticks, _LEFT, _RIGHT), _scale(point[1], y_ticks, _BOTTOM, _TOP)

    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM,
        "x": x, "y": y, "words": words,
        "x_ticks": [{"at": _scale(tick, x_ticks, _LEFT, _RIGHT), "text": _text(tick)} for tick in x_ticks],
        "y_ticks": [{"at": _scale(tick, y_ticks, _BOTTOM, _TOP), "text": _text(tick)} for tick in y_ticks],
        "series": [
            {"name": one.name, "style": one.style, "color": one.color, "dots": one.dots,
             "lines": [[place(point) for point in run] for run in runs]}
            for one, runs in kept
        ],
    }  # fmt: skip


def _runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """The points in runs without a gap: a point without a finite y ends a run."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is not None and math.isfinite(value):
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _axis(values: Sequence[float], ends: Ends | None) -> list[float]:
    low, high = ends or (min(values, default=0.0), max(values, default=1.0))
    return ticks(low, high)


def _scale(value: float, axis: Sequence[float], first: float, last: float) -> float:
    return round(first + (value - axis[0]) / (axis[-1] - axis[0]) * (last - first), 2)


def _text(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


# -- maps of surprise --------------------------------------------------------------------------------------------------

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
) -> dict[str, Any]:
    """What `surprise.js` draws: the text of the spans, its bits, and what was expected.

    Args:
        shown: the text in symbols that can be shown, at the positions of the model's own.
        spans: what was read; their first characters are context.
        vocab: of the first model, whose symbols `expected` speaks of.
        surprises: of one or two models, a symbol each (not `whole_characters`).
        names: of the models.
        expected: of the first model, for the first targets.
    """
    place_M = np.concatenate([np.arange(start, end) for start, end in spans.tolist()])[:MOST]
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
    symbols = list(model.shown)
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    if shown == model:
        return symbols, np.arange(len(symbols))
    table = [numbers.setdefault(symbol, len(numbers)) for symbol in shown.shown]
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
