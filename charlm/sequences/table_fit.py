"""What a fit of a table gives back: its models, and their figures on the reported part beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.display import progress_bar
from charlm.errors import OptionError
from charlm.sequences import Examples, Sequences
from charlm.sequences.figures import Figures, draw_reliability
from charlm.sequences.fit_run import FitPlan
from charlm.sequences.fitted_models import Models, best_of, shares_of
from charlm.sequences.metrics import nats_each, threshold_for
from charlm.sequences.model import SequenceModel
from charlm.sequences.predict import figures_of
from charlm.sequences.tabular import TableFacts, TableTask
from charlm.training.loop import Outcome
from charlm.training.watching import History

COLUMNS = ("log_loss", "accuracy", "area_under_curve", "expected_calibration_error")
"""The figures by which the models of a fit are put beside each other."""
_RARE = 0.1
"""The share of the rows below which a class is called rare."""
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
    part, facts = task.held, task.facts
    found = {}
    with progress_bar(len(part) * len(models.names), "measuring", "row", show=progress) as bar:
        for name in models.names:
            said = models.say(part.inputs, name, bar.update)
            nats_N = np.zeros(0)
            if facts.bounded and not facts.every:
                p = np.concatenate(said)
                p_NV = np.concatenate([1 - p, p], 1) if facts.mode == "score" else p
                shares_NV = shares_of(part.targets, facts.mode, len(facts.classes))
                nats_N = nats_each(p_NV, shares_NV)
            found[name] = Measured(figures=figures_of(said, part.targets, facts), nats_N=nats_N)
    return found


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The threshold of the chosen model that costs least on the validation part, or on the training part without one.

    Args:
        of: the class that is said from the threshold on; `yes` of a Score.
        value: the probability from which on it is said.
        false_alarm, miss: what each costs.
        cost: the mean cost of a row of the reported part; `cost_at_half` with the threshold 0.5.
    """

    of: str
    value: float
    false_alarm: float
    miss: float
    cost: float
    cost_at_half: float

    def __str__(self) -> str:
        return (
            f"with a false alarm at {self.false_alarm:g} and a miss at {self.miss:g}: say {self.of!r} from "
            f"{self.value:.4g} on; a row costs {self.cost:.4f} then, and {self.cost_at_half:.4f} from 0.5 on"
        )


def read_cost(cost: str) -> tuple[float, float]:
    """What a false alarm and a miss cost.

    >>> read_cost("1:10")
    (1.0, 10.0)
    """
    try:
        false_alarm, miss = map(float, cost.split(":"))
    except ValueError:
        raise OptionError(f"cannot read the cost {cost!r}: write it as FALSE_ALARM:MISS, as 1:10") from None
    if not (0 < false_alarm < np.inf and 0 < miss < np.inf):
        raise OptionError(f"a false alarm and a miss cost more than 0, not {cost}")
    return false_alarm, miss


def suggested(models: Models, task: TableTask, cost: str) -> Threshold:
    """The threshold for a cost, `FALSE_ALARM:MISS`.

    Raises:
        OptionError: the cost cannot be read, or there are not two classes.
    """
    facts = task.facts
    two = len(facts.classes) == 2 if facts.classes else facts.bounded
    if not two or facts.every:
        raise OptionError("--cost is for a label a sequence, of two classes or of 0 and 1")
    false_alarm, miss = read_cost(cost)
    rare = int(np.argmin(facts.base)) if facts.classes else 1

    def probabilities(part: Examples) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        came_NV = shares_of(part.targets, facts.mode, 2)
        return models.probabilities(part.inputs, models.chosen)[:, rare], came_NV[:, rare] >= 0.5

    value = threshold_for(*probabilities(task.part("valid") or task.train), false_alarm, miss)
    p_N, came_N = probabilities(task.held)

    def mean(threshold: float) -> float:
        said = p_N >= threshold
        return float((false_alarm * (said & ~came_N) + miss * (~said & came_N)).mean())

    of = facts.classes[rare] if facts.classes else "yes"
    return Threshold(of=of, value=value, false_alarm=false_alarm, miss=miss, cost=mean(value), cost_at_half=mean(0.5))


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A row that the chosen model got wrong.

    Args:
        place: of the row, as messages name it.
        text: its sequence.
        came, said: the class that came, and the one that was said; of a Score the numbers.
        nats: the log loss of the row.
        moves: for each character of a text by how much the logarithm of the odds of what came would be less if the
            character were unknown: above 0 it speaks for what came, below 0 against it.
    """

    place: str
    text: str
    came: str
    said: str
    nats: float
    moves: list[float]


def most_wrong(models: Models, task: TableTask, count: int = 12) -> list[Wrong]:
    """The rows of the reported part with the greatest log loss under the chosen model, the worst first."""
    part, facts = task.held, task.facts
    shares_NV = shares_of(part.targets, facts.mode, len(facts.classes))
    p_NV = models.probabilities(part.inputs, models.chosen)
    nats_N = nats_each(p_NV, shares_NV)
    names = facts.classes or ("0", "1")
    found = []
    for row in np.argsort(-nats_N)[:count].tolist():
        place = int(task.parts[task.reported][row])
        came = int(shares_NV[row].argmax())
        one = part.inputs[row]
        score = f"{p_NV[row, 1]:.3f}"
        found.append(
            Wrong(
                place=task.table.place(place, facts.sequence),
                text=str(task.inputs.values[place]),
                came=names[came] if facts.classes else f"{shares_NV[row, 1]:g}",
                said=f"{names[int(p_NV[row].argmax())]} ({p_NV[row].max():.3f})" if facts.classes else score,
                nats=float(nats_N[row]),
                moves=_moves(models, one, came) if one.dim() == 1 and part.inputs.ids else [],
            )
        )
    return found


def _moves(models: Models, ids_T: Tensor, came: int) -> list[float]:
    """By how much each character moves the logarithm of the odds of a class."""
    twins = ids_T.repeat(len(ids_T) + 1, 1)
    twins[torch.arange(len(ids_T)), torch.arange(len(ids_T))] = -1
    lengths = torch.full((len(twins),), len(ids_T))
    p_N = models.probabilities(Sequences(values=twins.reshape(-1), lengths=lengths), models.chosen)[:, came]
    odds_N = np.log(np.maximum(p_N, 1e-12)) - np.log(np.maximum(1 - p_N, 1e-12))
    moves: list[float] = (odds_N[-1] - odds_N[:-1]).tolist()
    return moves


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
        threshold: for the cost that was named.
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
    threshold: Threshold | None = None

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
        cost = [] if self.threshold is None else [str(self.threshold)]
        return "\n".join([head, *self._table(), *self.figures.lines(), *filter(None, [self.hidden]), *cost])

    def _table(self) -> Iterator[str]:
        """All models beside each other, where there are several."""
        if len(self.compared) < 2:
            return
        yield f"{'':12}" + "".join(f"{name:>12}" for name in _HEADS)
        for name, each in self.compared.items():
            cells = [each.figures.values.get(column) for column in COLUMNS]
            shown = "".join(f"{'-' if value is None else f'{value:.4f}':>12}" for value in cells)
            mark = " *" if name == self.models.chosen else ""
            yield f"{name + mark:12}{shown}{self.models.seconds.get(name, 0):>12.1f}"
        yield self.verdict
        yield f"* {self.models.chosen}, which predicts by default; its figures:"

    @property
    def hidden(self) -> str:
        """What the accuracy hides where the class that the figures are of is rare, in a sentence; else empty."""
        figures, share = self.figures, min(self.facts.base) if self.facts.classes else self.facts.base[0]
        found = None if figures is None else figures.values.get("detection_at_0.01")
        if figures is None or found is None or share > _RARE:
            return ""
        rare, accuracy, area = figures.rare or "1", figures.base["accuracy"], figures.values["average_precision"]
        return (
            f"{rare!r} is rare ({100 * share:.2g} % of the training rows): never saying it has the accuracy "
            f"{accuracy:.4f}. The model finds {100 * found:.0f} % of it at 1 % of false alarms, and its area under the "
            f"precision-recall curve is {area:.4f}."
        )

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
        kept |= {"rare": self.hidden} if self.hidden else {}
        return kept | ({} if self.threshold is None else {"threshold": asdict(self.threshold)})

    def _rows(self) -> list[dict[str, Any]]:
        found = []
        for name, each in self.compared.items():
            figures = each.figures.to_json()
            values = {column: figures.get(column) for column in COLUMNS}
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
