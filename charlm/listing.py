"""All models under some directories as one table: their options, figures and times, and the means over seeds."""

from __future__ import annotations

import csv
import html
import io
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from charlm.display import html_table
from charlm.errors import CharlmError, CheckpointError
from charlm.info import ModelInfo, describe
from charlm.training.watching import read_metrics


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model directory as a row of a table; what a kind of model does not have is None.

    Args:
        name: of the directory.
        directory: where it is.
        kind: `rnn`, `ngram`, `score` or `distribution`.
        cell, layers, hidden: of a network.
        order, smoothing: of an n-gram model.
        weights: the number of trained weights.
        split: of the text or table.
        seed: of the training.
        part: that the figure was measured on.
        nats: a character; of a Distribution the log loss, nats a label.
        seconds: of training, with its validations.
        updated: when the directory was last written (ISO 8601).
    """

    name: str
    directory: str
    kind: str
    cell: str | None = None
    layers: int | None = None
    hidden: int | None = None
    order: int | None = None
    smoothing: str | None = None
    weights: int | None = None
    split: str | None = None
    seed: int | None = None
    part: str | None = None
    nats: float | None = None
    seconds: float | None = None
    updated: str | None = None

    @property
    def title(self) -> str:
        """What the model is, in few words.

        >>> Run(name="a", directory="a", kind="rnn", cell="gru", layers=3, hidden=320).title
        'gru 3x320'
        """
        if self.kind == "ngram":
            return f"{'' if self.smoothing == 'none' else f'{self.smoothing} '}{self.order}-gram"
        return f"{self.cell} {self.layers}x{self.hidden}" + ("" if self.kind == "rnn" else f" {self.kind}")


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """Runs that differ in the seed alone.

    Args:
        names: of the runs.
        title: what their models are.
        mean: of their nats.
        deviation: the standard deviation of one run's nats, with n − 1.
    """

    names: tuple[str, ...]
    title: str
    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Runs:
    """Model directories as one table; made by `runs`.

    Args:
        rows: one a directory, sorted by its path.
        seeds: means over those that differ in the seed alone.
        unread: directories whose description cannot be read, and why.
    """

    rows: tuple[Run, ...]
    seeds: tuple[SeedMean, ...]
    unread: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return "\n".join([*_table(_COLUMNS, map(_cells, self.rows)), *map(_mean_line, self.seeds)])

    def _repr_html_(self) -> str:
        means = "".join(f"<p>{html.escape(_mean_line(mean))}</p>" for mean in self.seeds)
        return html_table(_COLUMNS, map(_cells, self.rows)) + means

    def to_json(self) -> dict[str, Any]:
        """What `charlm runs --json` prints."""
        return {"runs": [asdict(row) for row in self.rows], "seeds": [asdict(mean) for mean in self.seeds]}

    def to_csv(self) -> str:
        """A line a run under one of names; what a run does not have is empty."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [field.name for field in fields(Run)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, self.rows))
        return out.getvalue()


def runs(directories: str | Path | Sequence[str | Path] = "checkpoints") -> Runs:
    """All models in some directories and below them, with their options and figures.

    Args:
        directories: one or several; a model's own directory is a list of one.

    Raises:
        CheckpointError: there is no such directory, or no model in any of them.
    """
    named = [directories] if isinstance(directories, str | Path) else list(directories)
    rows: list[Run] = []
    alike: dict[str, list[Run]] = {}
    unread = []
    for directory in _model_directories(named):
        try:
            found = describe(directory)
            rows.append(_run(found))
        except (CharlmError, OSError) as error:
            unread.append((str(directory), str(error)))
            continue
        alike.setdefault(_all_but_the_seed(found.config), []).append(rows[-1])
    if not rows and not unread:
        shown = ", ".join(map(str, named))
        raise CheckpointError(f"there is no model under {shown}: make one with `charlm train TEXT`")
    groups = [[row for row in group if row.nats is not None] for group in alike.values()]
    means = [_mean(group) for group in groups if len({row.seed for row in group}) > 1]
    return Runs(rows=tuple(rows), seeds=tuple(means), unread=tuple(unread))


def _model_directories(named: Sequence[str | Path]) -> list[Path]:
    found: set[Path] = set()
    for directory in map(Path, named):
        if not directory.is_dir():
            raise CheckpointError(f"there is no directory {directory}: name one that holds models, such as checkpoints")
        found |= {path.parent for path in directory.rglob("config.json") if (path.parent / "config.json").is_file()}
    return sorted(found)


def _run(found: ModelInfo) -> Run:
    """The row of a model."""
    config, shape = found.config, found.config["model"]
    result, training = config.get("result") or {}, config.get("training") or {}
    about = config["data"] if config["kind"] == "sequence" else config["text"]
    return Run(
        name=found.directory.resolve().name,
        directory=str(found.directory),
        kind=shape["mode"] if config["kind"] == "sequence" else config["kind"],
        cell=shape.get("cell", shape.get("model")),
        layers=shape.get("layers"),
        hidden=shape.get("hidden"),
        order=shape.get("order"),
        smoothing=shape.get("smoothing"),
        weights=found.weights,
        split=about.get("split"),
        seed=training.get("optimisation", {}).get("seed"),
        part=result.get("part"),
        nats=result.get("nats", result.get("log_loss")),
        seconds=_seconds(found.directory / "metrics.jsonl"),
        updated=config.get("updated"),
    )


def _seconds(metrics: Path) -> float | None:
    """The seconds of training by the last row of a `metrics.jsonl`."""
    rows = read_metrics(metrics)
    seconds = rows[-1].get("seconds") if rows and isinstance(rows[-1], dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _all_but_the_seed(config: dict[str, Any]) -> str:
    """Equal for runs with the same data, model and options, whatever their seeds; the backend is no option of those."""
    training = dict(config.get("training") or {})
    training["optimisation"] = {**training.get("optimisation", {}), "seed": None}
    left_out = ("backend", "device", "changes", "kernels")
    training = {name: value for name, value in training.items() if name not in left_out}
    kept = {name: config.get(name) for name in ("kind", "model", "text", "data")}
    return json.dumps({**kept, "training": training}, sort_keys=True)


def _mean(group: Sequence[Run]) -> SeedMean:
    nats = [row.nats for row in group if row.nats is not None]
    return SeedMean(
        names=tuple(row.name for row in group),
        title=group[0].title,
        mean=statistics.mean(nats),
        deviation=statistics.stdev(nats),
    )


# -- tables -----------------------------------------------------------------------------------------------------------

_COLUMNS = ("name", "model", "weights", "split", "nats", "seconds", "date")
_NUMBERS = ("weights", "nats", "seconds")
_WIDTH = 79


def _cells(row: Run) -> list[str]:
    return [
        row.name,
        row.title,
        "-" if row.weights is None else f"{row.weights:,}",
        (row.split or "-").removeprefix("tail:"),
        "-" if row.nats is None else f"{row.nats:.4f}",
        "-" if row.seconds is None else f"{row.seconds:,.0f}",
        str(row.updated or "-")[:10],
    ]


def _mean_line(mean: SeedMean) -> str:
    count, names = len(mean.names), ", ".join(mean.names)
    return f"{mean.title}, {count} seeds: {mean.mean:.4f} nats, standard deviation {mean.deviation:.4f} ({names})"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of aligned cells; long names are cut so that a line fits a terminal of 80 columns."""
    cells = [list(columns), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(12, min(widths[0], _WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = []
    for row in cells:
        row[0] = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        beside = zip(columns, row, widths, strict=True)
        padded = (cell.rjust(width) if name in _NUMBERS else cell.ljust(width) for name, cell, width in beside)
        lines.append("  ".join(padded).rstrip())
    return lines
