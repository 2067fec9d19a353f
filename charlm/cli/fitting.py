"""What `charlm train`, `fit` and `predict` share: Ctrl-C, where a run is kept, options of tables, figures as lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.cli.common import note
from charlm.errors import OptionError
from charlm.files import free_name
from charlm.training.run import interruptible
from charlm.training.watching import Watch

if TYPE_CHECKING:
    import torch
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from charlm.sequences.metrics import Figures
from contextlib import closing
from functools import partial

from charlm.cli.common import echo_json
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.sequences.fitting import Fit
    from charlm.sequences.metrics import Figures
    from charlm.sequences.tabular import TableTask
    from charlm.training.interfaces import StepReport

__all__ = [
    "Watch",
    "device_of",
    "draw",
    "figure_lines",
    "interruptible",
    "run_directory",
    "table_options",
    "train_and_report",
]


def run_directory(out: str | None, source: str, kind: str) -> Path:
    """A directory that no run has yet.

    Args:
        out: what the user named; a taken name becomes NAME-2, and that is said.
        source: the file that the run learns from, which it is called by otherwise; - for standard input.
        kind: of cell.
    """
    stem = "stdin" if source == "-" else Path(source).stem or "text"
    directory = free_name(Path(out) if out is not None else Path("checkpoints") / f"{stem}-{kind}")
    if out is not None and directory != Path(out):
        note(f"{out} is taken: this run goes to {directory}")
    return directory


def device_of(before: str, wanted: str) -> torch.device:
    """The device asked for; for `auto` the one that the run had, where there is one."""
    from charlm.nn.kernels.choose import pick_device

    if wanted != "auto":
        return pick_device(wanted)
    try:
        return pick_device(before)
    except OptionError:
        device = pick_device("auto")
        note(f"the run was on {before}, which is not here: it goes on on {device}")
        return device


def draw(what: str, act: Callable[[], object]) -> None:
    """Draws a picture; where it cannot be written, says so, so that the figures are printed all the same."""
    try:
        act()
    except OSError as error:
        note(f"no picture of {what}: {error}")


_Command = TypeVar("_Command", bound=Callable[..., Any])

_NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss, nats",
    "brier": "Brier score",
    "expected_calibration_error": "calibration error",
    "area_under_curve": "area under the curve",
    "precision": "precision",
    "recall": "recall",
    "mean_squared_error": "mean squared error",
    "r_squared": "R²",
}
_OF_RARE = ("area_under_curve", "precision", "recall")
_MOST = 16  # classes whose confusion is printed


def table_options(command: _Command) -> _Command:
    """Adds --sequence-column, --label-column, --encoding and --no-header."""
    options = [
        click.option("--sequence-column", metavar="NAME", help="Column of the sequences.  [default: guessed]"),
        click.option(
            "--label-column",
            metavar="NAME",
            help="Column of the labels; for a .npy table a .npy file of them.  [default: guessed]",
        ),
        click.option("--encoding", metavar="E", help="How the table's bytes spell characters.  [default: utf-8]"),
        click.option("--no-header", is_flag=True, help="The first row is data: columns are column1, column2, ..."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def figure_lines(figures: Figures) -> Iterator[str]:
    """The figures beside the base rate's, and the confusion matrix of a few classes."""
    guess = figures.guess
    said = f"always {guess[:24]!r}" if isinstance(guess, str) else f"always {guess:.4g}"
    yield f"{'':22}{'model':>10}  base rate ({said})"
    for name, value in figures.values.items():
        base = _number(figures.base[name]) if name in figures.base else "-"
        of = f" of {figures.rare[:24]!r}" if figures.rare and name in _OF_RARE else ""
        yield f"{_NAMES[name]:22}{_number(value):>10}  {base}{of}"
    if figures.confusion is not None and len(figures.classes) <= _MOST:
        yield from _confusion(figures)


def _number(value: float | None) -> str:
    return "undefined" if value is None else "infinite" if value == float("inf") else f"{value:.4f}"


def _confusion(figures: Figures) -> Iterator[str]:
    assert figures.confusion is not None
    names = ["".join(c if c.isprintable() else "?" for c in name)[:12] for name in figures.classes]
    widths = [max(len(name), 5) for name in names]
    corner = "came, said:"
    left = max(len(corner), *map(len, names))
    yield corner.ljust(left) + "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))
    for name, row in zip(names, figures.confusion.tolist(), strict=True):
        yield name.ljust(left) + "".join(f"  {count:>{width}}" for count, width in zip(row, widths, strict=True))


def train_and_report(fit: Fit, task: TableTask, plot: str | None, as_json: bool, save_every: float) -> int:
    """Trains, measures the best weights on held-out rows, draws, and prints the figures.

    Args:
        fit: begun or gone on with, its directory locked.
        task: the table that it is fitted to.
        plot: where the reliability is drawn once more.
        as_json: print JSON, not lines.
        save_every: seconds between two saved states.

    Returns:
        The exit code: 130 where it was interrupted, 1 where it diverged.
    """
    from charlm.training.watching import draw_curve

    assert fit.directory is not None
    watch = _watcher(fit.model.config.mode == "score" and fit.model.config.loss == "squared")
    with closing(watch), interruptible() as stopped:
        outcome = fit.train(observer=watch, save_every=save_every, should_stop=stopped)
    metrics, picture = fit.directory / "metrics.jsonl", fit.directory / "curve.png"
    if fit.rows:
        name = fit.directory.name
        draw("the curve", lambda: draw_curve(metrics, picture, title=name, loss="loss"))
    if outcome == "interrupted":
        note(f"interrupted; everything is saved: go on with charlm fit --resume {fit.directory}")
        return 130
    if outcome == "no improvement":
        note("stopped early: no improvement for several validations")
    figures = _measure(fit, task)
    _draw(fit, task, figures, plot)
    part = task.reported
    if as_json:
        about = {"directory": str(fit.directory), "outcome": outcome, "mode": task.facts.mode}
        echo_json({**about, "split": task.facts.split, "part": part, **figures.to_json()})
    else:
        watched = {"valid": ", which early stopping watched", "train": ", which it learned from"}.get(part, "")
        click.echo(f"{part} part{watched}: {len(task.parts[part]):,} rows, {figures.targets:,} labels")
        for said in figure_lines(figures):
            click.echo(said)
        click.echo(f"{fit.directory}")
    return 0 if outcome != "diverged" else 1


def _measure(fit: Fit, task: TableTask) -> Figures:
    """The figures of the reported part, which are also kept with the model."""
    from charlm.sequences.tabular import figures_of, predict_rows

    part = task.part(task.reported)
    assert part is not None
    with progress_bar(len(part), "measuring", "row") as bar:
        said = predict_rows(fit.model, part.inputs, bar.update)
    figures = figures_of(said, part.targets, task.facts)
    fit.describe(result={**figures.to_json(), "split": task.facts.split, "part": task.reported})
    if part.inputs.ids and bool((part.inputs.values < 0).any()):
        share = float((part.inputs.values < 0).double().mean())
        note(f"{100 * share:.2g} % of the characters of the {task.reported} part never stood in the training part")
    return figures


def _draw(fit: Fit, task: TableTask, figures: Figures, plot: str | None) -> None:
    from charlm.sequences.figures import draw_confusion, draw_reliability

    assert fit.directory is not None
    name = fit.directory.name
    title, curve, confusion = f"{name}, {task.reported} part", figures.reliability, figures.confusion
    said = "probability of the class that was named" if figures.classes else "Score"
    pictures = [fit.directory / "reliability.png"] + ([] if plot is None else [free_name(Path(plot))])
    if curve is not None:
        for picture in pictures:
            draw("the reliability", partial(draw_reliability, {name: curve}, picture, title=title, said=said))
    if curve is None and plot is not None:
        note("labels that are no probabilities have no reliability: nothing was drawn")
    if confusion is not None and len(figures.classes) <= 60:
        target = fit.directory / "confusion.png"
        draw("the confusion", partial(draw_confusion, confusion, figures.classes, target, title=title))


def _watcher(squared: bool) -> Watch:

    def shown(report: StepReport) -> str:
        return f"loss {report.loss:.3f}"

    return Watch(shown, say=note, what="squared error" if squared else "nats a label")
