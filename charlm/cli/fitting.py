"""A fit under way and its end: the bar, the figures of the held-out rows, the pictures."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charlm.cli.common import echo_json, note
from charlm.cli.tables import figure_lines
from charlm.files import free_name
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.cli.watching import Watch
    from charlm.sequences.fitting import Fit
    from charlm.sequences.metrics import Figures
    from charlm.sequences.tabular import TableTask
    from charlm.training.interfaces import StepReport

__all__ = ["train_and_report"]


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
    from charlm.cli.watching import draw, interruptible
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
    from charlm.cli.watching import draw
    from charlm.report.figures import draw_confusion, draw_reliability

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
    from charlm.cli.watching import Watch

    def shown(report: StepReport) -> str:
        return f"loss {report.loss:.3f}"

    return Watch(shown, say=note, what="squared error" if squared else "nats a label")
