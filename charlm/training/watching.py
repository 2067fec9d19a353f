"""What a person sees of a training: the progress bar and notes (`Watch`), the learning curve (`History`), and how a
model was trained (`Training`).
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from charlm.display import decimals, in_notebook, label_point, new_figure, progress_bar, save_figure, wrapped
from charlm.errors import CharlmError
from charlm.lm.evaluate import Evaluation
from charlm.training.interfaces import Observer, StepReport, ValidationReport
from charlm.training.loop import Outcome
from charlm.training.recipe import Plan


def language_step(report: StepReport) -> str:
    """What stands beside the bar of a language model: loss and speed; on a wide terminal also bits."""
    loss, speed = decimals(report.loss, 3), report.targets_per_second
    if shutil.get_terminal_size().columns >= 100:
        return f"{loss} nats, {decimals(report.loss / math.log(2), 3)} bits, {speed:,.0f} char/s"
    short = f"{speed / 1e6:.1f}M" if speed >= 1e6 else f"{speed / 1e3:.0f}k" if speed >= 1e4 else f"{speed:.0f}"
    return f"{loss} nats, {short} char/s"


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""The bar of a training, without tqdm's own speed: the postfix has a better one, and 80 columns are few."""


class Watch(Observer):
    """An observer that shows a progress bar, and says the validations and notes.

    Args:
        shown: what stands beside the bar after a step.
        say: takes the notes and the lines of validations; None says them only above a bar that is shown.
        fail: takes the sentence with which a training of several processes fails.
        after: further lines after a validation, of the model.
        measuring: what the last bar, of the measurement at the end, is called, and its unit.
        what: the unit of a loss, or a function of the model that gives it.
        show: whether bars are shown; None shows them on a terminal or in a notebook.
    """

    def __init__(
        self,
        shown: Callable[[StepReport], str] = language_step,
        *,
        say: Callable[[str], None] | None = None,
        fail: Callable[[str], None] | None = None,
        after: Callable[[Any], Iterable[str]] = lambda model: (),
        measuring: tuple[str, str] = ("measuring", "it"),
        what: str | Callable[[Any], str] = "nats",
        show: bool | None = None,
    ) -> None:
        self._shown, self._say, self._fail, self._after = shown, say, fail, after
        self._measuring, self._what, self._show = measuring, what, show
        self.model: Any = None
        self.bar: Any = None
        self.reading: Any = None

    def on_begin(self, model: nn.Module, resumed: bool) -> None:
        """Remembers the model for the lines after a validation."""
        self.model = model
        self._what = self._what(model) if callable(self._what) else self._what

    def on_step(self, report: StepReport) -> None:
        """Moves the bar on."""
        done = report.progress
        if self.bar is None:
            self.bar = progress_bar(
                done.total, "training", "step", show=self._show, initial=done.step - 1, bar_format=_BAR
            )
        if done.total != self.bar.total:
            self.bar.total = done.total
        self.bar.set_postfix_str(self._shown(report), refresh=False)
        self.bar.update()

    def on_validation(self, report: ValidationReport) -> None:
        """Says both losses in one line, and the lines after it."""
        done = report.progress
        train = "" if report.train is None else f"train {decimals(report.train, 4)}, "
        mark = " (best so far)" if report.improved else ""
        of = "" if done.total is None else f"/{done.total:,}"
        self.on_note(f"step {done.step:,}{of}: {train}valid {decimals(report.valid, 4)} {self._what}{mark}")
        if self._say is not None:
            for line in self._after(self.model):
                self.on_note(line)

    def on_note(self, message: str) -> None:
        """Says a sentence, above the bar where one is shown."""
        if self.bar is not None and not self.bar.disable:
            self.bar.write(
                wrapped(message), file=sys.stdout if in_notebook() else sys.stderr
            )  # a notebook paints stderr red
        elif self._say is not None:
            self._say(message)

    def on_measure(self, count: int) -> None:
        """Shows how far the measurement at the end has come."""
        if self.reading is None:
            self.close()
            self.reading = progress_bar(None, *self._measuring, show=self._show)
        self.reading.update(count)

    def on_failure(self, message: str) -> None:
        """Passes the sentence on."""
        if self._fail is not None:
            self._fail(message)

    def close(self) -> None:
        """Removes the bars."""
        for bar in (self.bar, self.reading):
            if bar is not None:
                bar.close()


class History(Sequence[dict[str, Any]]):
    """A learning curve: a row for each validation, in order; its `repr` is a small table.

    A row has `step`, `epoch`, `train_nats` (the mean loss of the steps before it, with dropout), `valid_nats`, `lr`,
    `skipped` (steps whose gradient was not finite) and `seconds`. A loss that is not finite is None.

    Args:
        rows: the rows.
        title: above a picture.
        loss: what the losses are, for the picture.

    >>> row = {"step": 20, "epoch": 1.5, "train_nats": 2.5, "valid_nats": 2.25, "lr": 0.01, "seconds": 3.0}
    >>> History([row])
      step   epoch  training  validation       lr  seconds
        20    1.50    2.5000      2.2500     0.01      3.0
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], *, title: str = "", loss: str = "nats a character") -> None:
        self.rows = [dict(row) for row in rows]
        self.title, self.loss = title, loss

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.rows[number]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row with the lowest validation loss; None where no validation loss was finite."""
        return min(
            (row for row in self.rows if row.get("valid_nats") is not None),
            key=lambda row: float(row["valid_nats"]),
            default=None,
        )

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [_HEAD]
        for row in self.rows:
            train, valid = (_loss(row.get(key)) for key in ("train_nats", "valid_nats"))
            numbers = (f"{row['step']:,}", f"{row['epoch']:.2f}", train, valid, f"{row['lr']:.3g}")
            cells.append((*numbers, f"{row['seconds']:.1f}"))
        return cells

    def __repr__(self) -> str:
        widths = (6, 7, 9, 11, 8, 8)
        return "\n".join(
            " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in self._cells()
        )

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        names = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws both losses over the steps.

        Args:
            path: a file to write, .png, .svg or .pdf; None only returns the figure.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            CharlmError: there are no rows.
        """
        if not self.rows:
            raise CharlmError("the learning curve has no rows yet: nothing to draw")
        figure = new_figure(7, 4.2)
        axes = figure.add_subplot()
        for key, label in (("train_nats", "training (with dropout)"), ("valid_nats", "validation")):
            points = [(row["step"], row[key]) for row in self.rows if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        best = self.best
        if best is not None:
            label_point(axes, f"best {_loss(best['valid_nats'])}", best["step"], best["valid_nats"])
        axes.set(xlabel="step", ylabel=self.loss, title=self.title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        if path is not None:
            save_figure(figure, Path(path))
        return figure


_HEAD = ("step", "epoch", "training", "validation", "lr", "seconds")


def _loss(value: float | None) -> str:
    return "-" if value is None else decimals(value, 4)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model was trained.

    Args:
        plan: the shape, the options and the budget.
        outcome: `finished`, `no improvement` (stopped early), `interrupted` or `diverged`.
        part: the part of the text that was measured at the end: test, or valid where there is no test part.
        evaluation: the best weights on that part, read as one stream; None where the training was interrupted, and
            in every process but the first.
        directory: where the run is kept; None where it was in memory.
        device: where it was trained.
        processes: how many trained it together.
    """

    plan: Plan
    outcome: Outcome
    part: str
    evaluation: Evaluation | None
    directory: Path | None
    device: torch.device
    processes: int = 1

    def __repr__(self) -> str:
        kept = "in memory" if self.directory is None else f"in {self.directory}"
        measured = "" if self.evaluation is None else f"; {self.part} part: {self.evaluation!r}"
        return f"Training({self.outcome}, {kept}; {self.plan.line()}{measured})"
