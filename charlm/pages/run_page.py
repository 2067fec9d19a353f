"""Pages about a model, whose figures become sentences, charts and tables here: about a run, and about hidden units.

That of a run (`RunPage`) says how it learned, beside counting, samples, surprise, and how right its probabilities are;
this is measured in `report.py`. That of hidden units (`charlm inspect --html`) shows an `Inspection`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.info import figures_line
from charlm.lm.compare import Compared, summary
from charlm.lm.sampling import Expected
from charlm.ngrams.index import Novelty
from charlm.pages import Series, chart, render, write_page
from charlm.recurrent.atlas import gate_charts
from charlm.recurrent.inspection import Inspection, picked_units
from charlm.sequences.metrics import Reliability, reliability
from charlm.tensors import quantised
from charlm.training.watching import History


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated text.

    Args:
        temperature: that it was drawn at.
        text: itself.
        novelty: what it has in common with the training text.
        passage: its longest passage that stands in the training text.
    """

    temperature: float
    text: str
    novelty: Novelty
    passage: str


@dataclass(kw_only=True, repr=False)
class RunPage:
    """The parts of the page; each of the sections may be missing. `save` writes it.

    Args:
        title: of the page.
        summary: sentences at its head.
        notes: what must be said beside them.
        facts: options, machine and time, as names and values.
        curves: from `about_curves`.
        comparison: from `about_comparison`.
        samples: from `about_samples`.
        calibration: from `about_calibration`.
        models: from `about_models`.
        wrong: from `about_wrong`.
        surprise: from `charlm.pages.map_data`.
        surprise_words: the sentence above the surprise map.
    """

    title: str
    summary: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    curves: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    samples: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    models: dict[str, Any] | None = None
    wrong: dict[str, Any] | None = None
    surprise: dict[str, Any] | None = None
    surprise_words: str = ""

    def __repr__(self) -> str:
        return "\n".join([self.title, *self.summary, *self.notes])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the page as one HTML file and returns its name: one that is free, unless a file may be replaced."""
        return write_page(Path(path), self.html(), overwrite=overwrite)

    def html(self) -> str:
        """The page as HTML."""
        sections = (
            (self.curves, "curves", "Learning"),
            (self.comparison, "comparison", "Beside counting"),
            (self.models, "compared", "The models beside each other"),
            (self.wrong, "wrong", "What it gets most wrong"),
            (self.samples, "samples", "What it writes"),
            (self.surprise, "surprise-heading", "Where it is surprised"),
            (self.calibration, "calibration", "Are its probabilities right?"),
            (self.facts, "facts", "How it was made"),
        )
        return render(
            "run.html",
            title=self.title,
            data={"surprise": self.surprise},
            scripts=("textmap.js", "surprise.js"),
            contents=[(id, words) for there, id, words in sections if there],
            mapped=self.surprise["models"] if self.surprise else [],
            **{name: value for name, value in vars(self).items() if name not in ("title", "surprise")},
        )


def about_curves(rows: Sequence[dict[str, Any]], *, of: str = "a character") -> dict[str, Any] | None:
    """The learning curve of the rows of a `metrics.jsonl`; None where there are none. Nats are those `of` one unit."""
    rows = [row for row in rows if row.get("valid_nats") is not None or row.get("train_nats") is not None]
    if not rows:
        return None
    best = History(rows).best
    words = f"Nats {of} over the steps, lower is better; every dot is a validation."
    if best is not None:
        words += f" The best of them, after step {best['step']:,}, is kept: {best['valid_nats']:.4f}."
    series = [
        Series(name="training (with dropout)", points=[(r["step"], r.get("train_nats")) for r in rows], style="dashed"),
        Series(name="validation", points=[(row["step"], row.get("valid_nats")) for row in rows], color=1),
    ]
    columns = [(name, True) for name in ("step", "epoch", "training nats", "validation nats", "minutes")]
    return {
        "words": words,
        "chart": chart(series, x="step", y=f"nats {of}", words=f"Learning curve. {words}"),
        "table": {"caption": "Learning curve", "columns": columns, "rows": [_curve_row(row) for row in rows]},
    }


def _curve_row(row: dict[str, Any]) -> list[str]:
    minutes = row["seconds"] / 60 if row.get("seconds") is not None else None
    return [
        f"{row['step']:,}",
        number_cell(row.get("epoch"), 2),
        *(number_cell(row.get(f"{part}_nats")) for part in ("train", "valid")),
        number_cell(minutes, 1),
    ]


def number_cell(value: float | None, digits: int = 4) -> str:
    """A number in a table."""
    if value is None:
        return "-"
    return f"{value:,.{digits}f}" if math.isfinite(value) else "infinite"


def about_comparison(lines: Sequence[Compared], part: str) -> dict[str, Any]:
    """N-grams of rising order and the model on the same held-out text.

    Args:
        lines: of n-grams, each with an order and a smoothing, and of the model, without a smoothing.
        part: of the text that they were measured on.
    """
    counted = [line for line in lines if line.row.smoothing is not None]
    orders = [line.row.order or 0 for line in counted]
    series = _counted_series(counted)
    ends = (min(orders, default=0), max(orders, default=1))
    for line in lines:
        if line.row.smoothing is None:
            level = line.evaluation.nats
            points = [(float(end), level) for end in ends]
            series.append(Series(name=f"{line.row.name}, on all targets", points=points, color=4, dots=False))
    targets = lines[0].evaluation.targets
    words = f"Nats a character on the {part} part ({targets:,} targets), lower is better. {summary(lines)}"
    names = ("model", "nats", "bits", "perplexity", "right %", "covered %", "nats on covered")
    columns = [(name, name != "model") for name in names]
    drawn = chart(series, x="order (characters of history)", y="nats a character", words=words, x_range=_wide(ends))
    return {
        "words": words,
        "chart": drawn,
        "table": {"caption": "Comparison", "columns": columns, "rows": [_compared_row(line) for line in lines]},
    }


def _wide(ends: tuple[int, int]) -> tuple[float, float]:
    return float(ends[0]), float(max(ends[1], ends[0] + 1))


def _counted_series(counted: Sequence[Compared]) -> list[Series]:
    """A line for each smoothing; unsmoothed counting stands on the targets it covers, the network beside it."""
    series = []
    for number, smoothing in enumerate(dict.fromkeys(line.row.smoothing for line in counted)):
        own = [line for line in counted if line.row.smoothing == smoothing]
        if smoothing != "none":
            points = [(float(line.row.order or 0), line.evaluation.nats) for line in own]
            series.append(Series(name=f"{smoothing}, on all targets", points=points, color=2 + number))
            continue
        covered = [(float(line.row.order or 0), line.covered_nats) for line in own]
        series.append(Series(name="unsmoothed, on the targets that it covers", points=covered, style="dotted"))
        names = dict.fromkeys(name for line in own for name in line.network_covered_nats)
        for name in names:
            there = [(float(line.row.order or 0), line.network_covered_nats.get(name)) for line in own]
            series.append(Series(name=f"{name}, on those same targets", points=there, style="dashed", color=1))
    return series


def _compared_row(line: Compared) -> list[str]:
    figures = line.evaluation
    return [
        line.row.name,
        number_cell(figures.nats),
        number_cell(figures.bits_per_char),
        number_cell(figures.perplexity),
        f"{100 * figures.accuracy:.1f}",
        f"{100 * line.coverage:.2f}",
        number_cell(line.covered_nats),
    ]


def about_samples(samples: Sequence[Sample], held_out: Novelty | None, seed: int) -> dict[str, Any]:
    """Generated texts, with how much of each was copied from the training text."""
    words = f"Drawn with seed {seed}. "
    if held_out is not None:
        words += (
            f"How much agreement is natural: of real held-out text of this length {_share(held_out)} of the passages "
            f"of 20 characters stand in the training text, and the longest common passage has {held_out.longest}."
        )
    return {
        "words": words.strip(),
        "texts": [
            {
                "temperature": f"{sample.temperature:g}",
                "lines": sample.text.split("\n"),
                "novelty": f"{_share(sample.novelty)} of its passages of 20 characters stand in the training text; the "
                f"longest copied passage has {sample.novelty.longest} characters: “{sample.passage}”",
            }
            for sample in samples
        ],
    }


def _share(found: Novelty) -> str:
    return "none" if found.share is None else f"{100 * found.share:.1f} %"


def next_reliability(expected: Expected, targets_N: NDArray[np.int64], bins: int = 15) -> Reliability | None:
    """How often an expected character came where it was given such a probability, over all expected ones.

    Args:
        expected: the most probable characters at the first targets.
        targets_N: all targets, -1 where unknown.
        bins: of equal width, as `metrics.reliability` takes them.
    """
    targets = targets_N[: len(expected.ids_NK)]
    defined = ~np.isnan(expected.probability_NK).any(axis=1) & (targets >= 0)
    if not defined.any():
        return None
    came = expected.ids_NK[defined] == targets[defined, None]
    said = np.clip(expected.probability_NK[defined].astype(np.float64), 0, 1)
    return reliability(said.ravel(), came.ravel().astype(np.float64), bins=bins)


def about_calibration(curve: Reliability, k: int, targets: int) -> dict[str, Any]:
    """A reliability curve: predicted probabilities against how often the predicted character came.

    Args:
        curve: over the `k` most probable characters at each of the `targets` places.
    """
    words = (
        f"The {k} most probable characters at each of {targets:,} held-out places: of those that were given a "
        "probability near p, the share p should come. On the diagonal a model is right about itself; below it, too "
        f"sure. The expected error is {100 * curve.expected_error:.2f} percentage points."
    )
    return _calibration(curve.to_json(), words)


def _calibration(points: Sequence[dict[str, Any]], words: str) -> dict[str, Any]:
    """The chart and table of a reliability curve, from its points as `Reliability.to_json` gives them."""
    series = [
        Series(name="right about itself", points=[(0, 0), (1, 1)], style="dashed", dots=False, color=4),
        Series(name="this model", points=[(point["said"], point["came"]) for point in points]),
    ]
    rows = [
        [f"{p['from']:.3f} to {p['to']:.3f}", f"{p['count']:,}", f"{p['said']:.4f}", f"{p['came']:.4f}"] for p in points
    ]
    columns = [("probability", False), ("predictions", True), ("predicted", True), ("came", True)]
    drawn = chart(series, x="predicted probability", y="how often it came", words=words, x_range=(0, 1), y_range=(0, 1))
    return {"words": words, "chart": drawn, "table": {"caption": "Calibration", "columns": columns, "rows": rows}}


def about_result(page: RunPage, result: dict[str, Any], table: str) -> None:
    """Puts the figures and the calibration of a Score or Distribution model into a page.

    Args:
        page: the page.
        result: the `result` of its `config.json`.
        table: the name of its table.
    """
    targets = f" ({result['targets']:,} labels)" if "targets" in result else ""
    page.summary.append(f"On the {result['part']} part of {table}{targets}: {figures_line(result)}.")
    if base := figures_line(result.get("base") or {}):
        page.summary.append(f"Without looking at the sequences one would have: {base}.")
    points = result.get("reliability")
    if points:
        words = (
            "Of the predictions that were given a probability near p, the share p should be right. On the diagonal a "
            "model is right about itself; below it, too sure."
        )
        page.calibration = _calibration(points, words)


# -- hidden units ------------------------------------------------------------------------------------------------------


def inspect_page(inspection: Inspection) -> str:
    """The HTML of the page; under 3 MB while some thousands of characters are shown.

    The first unit that was asked for is painted at the start, else the first one found.
    """
    atlas, findings, chosen, steps = inspection.atlas, inspection.findings, inspection.chosen, len(inspection.ids)
    units = picked_units(atlas, findings, chosen, steps)
    values_UT = np.stack([inspection.values(unit) for unit in units])
    numbers = quantised(torch.from_numpy(values_UT), 8)[0].numpy()
    data: dict[str, Any] = {
        "symbols": list(inspection.symbols),
        "ids": list(inspection.ids),
        "units": [str(unit) for unit in units],
        "largest": [round(float(value), 4) for value in np.abs(values_UT).max(axis=1)],
        "values": base64.b64encode(numbers.tobytes()).decode(),
        "follows": inspection.followed,
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
        missing=inspection.missing,
        gates=gate_charts(atlas.gates),
    )


def _order(name: str) -> tuple[int, int, str]:
    layer, number, signal = name.split(":")
    return int(layer), int(number), signal
