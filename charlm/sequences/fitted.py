"""What a fit of a table gives back: its models, and their figures on the reported part beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.progress import progress_bar
from charlm.sequences.figures import Figures, draw_reliability
from charlm.sequences.fitting import FitPlan
from charlm.sequences.model import SequenceModel
from charlm.sequences.models import Models, best_of, shares_of
from charlm.sequences.predict import figures_of
from charlm.sequences.tabular import TableFacts, TableTask
from charlm.training.loop import Outcome
from charlm.training.watching import History

__all__ = ["Measured", "TableFit", "measured"]

_COLUMNS = ("log_loss", "accuracy", "area_under_curve", "expected_calibration_error")
_HEADS = ("log loss", "accuracy", "area under", "calibration", "seconds")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model on the reported part.

    Args:
        figures: of its predictions.
        nats_N: the log loss of each row; none where labels are no probabilities or stand at every step.
    """

    figures: Figures
    nats_N: NDArray[np.float64]


def measured(models: Models, task: TableTask, progress: bool | None = None) -> dict[str, Measured]:
    """Each model on the reported part of a table."""
    part, facts = task.part(task.reported), task.facts
    assert part is not None
    found = {}
    with progress_bar(len(part) * len(models.names), "measuring", "row", show=progress) as bar:
        for name in models.names:
            said = models.say(part.inputs, name, bar.update)
            nats_N = np.zeros(0)
            if facts.bounded and not facts.every:
                p = np.concatenate(said)
                p_NV = np.concatenate([1 - p, p], 1) if facts.mode == "score" else p
                shares_NV = shares_of(part.targets, facts.mode, len(facts.classes))
                nats_N = -(shares_NV * np.log(np.maximum(p_NV, 1e-12))).sum(1)
            found[name] = Measured(figures=figures_of(said, part.targets, facts), nats_N=nats_N)
    return found


@dataclass(frozen=True, kw_only=True, repr=False)
class TableFit:
    """What was fitted to a table, and how good it is on the reported part.

    Args:
        facts: what is remembered of the table.
        plan: the network's shape, and how it was trained.
        models: the network with its best weights, and the models beside it.
        history: the learning curve of the network.
        outcome: `finished`, `no improvement` (stopped early), `interrupted` or `diverged`.
        part: the reported part: test, or valid where there is no test part, or train.
        rows: how many rows that part has.
        compared: each model on that part, by name; none where the training was interrupted.
        directory: where the run is kept; None where it is in memory.
    """

    facts: TableFacts
    plan: FitPlan
    models: Models
    history: History
    outcome: Outcome
    part: str
    rows: int
    compared: Mapping[str, Measured]
    directory: Path | None

    @property
    def model(self) -> SequenceModel:
        """The network."""
        return self.models.network

    @property
    def figures(self) -> Figures | None:
        """The figures of the chosen model; None where the training was interrupted."""
        return self.compared[self.models.chosen].figures if self.compared else None

    @cached_property
    def best(self) -> tuple[str, list[str]]:
        """The model with the least log loss on the reported part, and those that cannot be told apart from it."""
        return best_of({name: each.nats_N for name, each in self.compared.items()})

    def __repr__(self) -> str:
        if self.figures is None:
            return f"{self.outcome}: no figures"
        watched = {"valid": ", which early stopping watched", "train": ", which it learned from"}.get(self.part, "")
        head = f"{self.part} part{watched}: {self.rows:,} rows, {self.figures.targets:,} labels"
        return "\n".join([head, *self._table(), *self.figures.lines()])

    def _table(self) -> Iterator[str]:
        """All models beside each other, where there are several."""
        if len(self.compared) < 2:
            return
        yield f"{'':12}" + "".join(f"{name:>12}" for name in _HEADS)
        for name, each in self.compared.items():
            cells = [each.figures.values.get(column) for column in _COLUMNS]
            shown = "".join(f"{'-' if value is None else f'{value:.4f}':>12}" for value in cells)
            mark = " *" if name == self.models.chosen else ""
            yield f"{name + mark:12}{shown}{self.models.seconds.get(name, 0):>12.1f}"
        yield self.verdict
        yield f"* {self.models.chosen}, which predicts by default; its figures:"

    @property
    def verdict(self) -> str:
        """Which model is the best on the reported part, if that can be said, in a sentence."""
        best, close = self.best
        if not close:
            return f"{best} has the least log loss, told apart from each other model by a paired bootstrap (95 %)."
        return f"{best} has the least log loss, but cannot be told from {', '.join(close)} (paired bootstrap, 95 %)."

    def result(self) -> dict[str, Any]:
        """What is kept with the model: the figures of the chosen model, and a few of each."""
        assert self.figures is not None
        kept: dict[str, Any] = {**self.figures.to_json(), "split": self.facts.split, "part": self.part}
        if len(self.compared) > 1:
            kept |= {"model": self.models.chosen, "models": self._rows(), "verdict": self.verdict}
        return kept

    def _rows(self) -> list[dict[str, Any]]:
        found = []
        for name, each in self.compared.items():
            figures = each.figures.to_json()
            values = {column: figures.get(column) for column in _COLUMNS}
            found.append({"model": name, **values, "seconds": round(self.models.seconds.get(name, 0.0), 3)})
        return found

    def to_json(self) -> dict[str, Any]:
        """A value for programs: what was fitted, and its figures."""
        return {
            "directory": None if self.directory is None else str(self.directory),
            "outcome": self.outcome,
            "mode": self.facts.mode,
            "split": self.facts.split,
            "part": self.part,
            **({} if self.figures is None else self.result()),
        }

    def plot(self, path: str | Path) -> None:
        """Draws how often it came against the probability that was said, as .png, .svg or .pdf.

        Raises:
            OptionError: the labels are no probabilities, or nothing was measured.
        """
        curves = {name: each.figures.reliability for name, each in self.compared.items()}
        known = {name: curve for name, curve in curves.items() if curve is not None}
        if not known:
            raise OptionError("labels that are no probabilities have no reliability: nothing was drawn")
        name = "fit" if self.directory is None else self.directory.name
        said = "probability of the class that was named" if self.facts.classes else "Score"
        shown = known if len(known) > 1 else {name: next(iter(known.values()))}
        draw_reliability(shown, Path(path), title=f"{name}, {self.part} part", said=said)
