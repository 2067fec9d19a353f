"""Self-contained HTML pages: templates, style and scripts are files of their own and stand inside the finished page.

Charts are computed here as numbers (`chart`): where a template draws lines, dots and ticks, in the colours of the page.

A page works from the disk without a network: a Content-Security-Policy forbids every connection, and allows no style
and no script but those whose hashes it names, so that a text that holds markup stays text.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.drawing import visible
from charlm.files import __version__, free_name, write_bytes

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
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    words: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
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


def _axis(values: Sequence[float], ends: tuple[float, float] | None) -> list[float]:
    low, high = ends or (min(values, default=0.0), max(values, default=1.0))
    return ticks(low, high)


def _scale(value: float, axis: Sequence[float], first: float, last: float) -> float:
    return round(first + (value - axis[0]) / (axis[-1] - axis[0]) * (last - first), 2)


def _text(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
