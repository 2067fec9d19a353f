"""Score and Distribution as estimators with scikit-learn's protocol: constructor, `fit`, `predict`, `score`.

They work in `Pipeline`, `cross_val_score` and `GridSearchCV`, and can be cloned, pickled, saved and loaded. X is:

- a list of strings, or a pandas Series or one-column DataFrame of them;
- a list of arrays, [T] or [T, F], of any lengths;
- an array [N, T, F] or [N, T]; with `lengths` [N], what stands behind each sequence's length is padding.

N sequences, T steps, F numbers a step, V classes. A table of numbers [N, T] (an array or a DataFrame) is N sequences of
T steps of one number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from charlm.errors import OptionError
from charlm.nn.cells import Cell
from charlm.sequences.batches import Sequences, ragged, stepwise
from charlm.sequences.estimator import SequenceEstimator

__all__ = ["SequenceClassifier", "SequenceScorer"]


class SequenceClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """A recurrent network that gives each sequence (or each step) a probability for every class.

    What is None is chosen by the number of sequences, as `charlm fit` does.

    Args:
        cell: `rnn`, `gru`, `lstm`, or a subclass of `charlm.Cell`.
        layers, hidden: recurrent layers, and units in each layer and direction.
        embedding: width of the character embedding of text; 0 for one-hot.
        dropout: between the layers and before the output, while training.
        bidirectional: whether the sequences are read from both ends.
        output: `last`, one label a sequence, or `every`, one a step.
        scale: how numbers are scaled: `zscore`, `minmax` or `none`; fitted on the sequences that are trained on.
        batch_size: sequences a step of training.
        lr: the peak learning rate.
        epochs, max_steps, minutes: the budget of training; whichever ends first.
        patience: validations without improvement until training stops; 0 never stops early.
        validation_fraction: share of the sequences that early stopping watches; equal sequences stay on one side. Of
            fewer than 20 sequences none is held out.
        seed: of weights, order and dropout; None draws one, a `numpy.random.RandomState` is asked for one.
        device: `auto`, `cpu`, `cuda` or `mps`.
        backend: how layers are run: `reference`, `fused` or `torch`.
        out: a directory in which the run is kept; by default nothing is written.
        progress: True or False to show a bar or not; None shows it where a person sees it.

    Attributes:
        classes_: the labels, sorted, [V].
        n_features_in_: columns of X, where X was a table [N, T] of numbers.
        model_: the trained `SequenceModel`.
        history_: the learning curve, a `History`: a row for each validation, a table in a notebook, and `plot()`.

    >>> texts, labels = ["aab", "abb", "xyx", "xxy"] * 3, ["ab", "ab", "xy", "xy"] * 3
    >>> model = SequenceClassifier(hidden=4, max_steps=30, lr=0.05).fit(texts, labels)
    >>> model.predict(["abab", "yyx"]).tolist(), model.predict_proba(["abab"]).shape
    (['ab', 'xy'], (1, 2))
    """

    mode = "distribution"
    classes_: NDArray[Any]

    def __init__(
        self,
        *,
        cell: str | type[Cell] = "gru",
        layers: int = 1,
        hidden: int | None = None,
        embedding: int = 0,
        dropout: float | None = None,
        bidirectional: bool = False,
        output: str = "last",
        scale: str | None = "zscore",
        batch_size: int | None = None,
        lr: float | None = None,
        epochs: float | None = None,
        max_steps: int | None = None,
        minutes: float | None = None,
        patience: int = 8,
        validation_fraction: float = 0.1,
        seed: int | np.random.RandomState | None = 0,
        device: str = "auto",
        backend: str | None = None,
        out: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self.cell = cell
        self.layers = layers
        self.hidden = hidden
        self.embedding = embedding
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.output = output
        self.scale = scale
        self.batch_size = batch_size
        self.lr = lr
        self.epochs = epochs
        self.max_steps = max_steps
        self.minutes = minutes
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.backend = backend
        self.out = out
        self.progress = progress

    def _targets(self, y: Any, rows: list[Any]) -> Sequences:
        steps = stepwise(y, rows) if self._every() else None
        flat = column_or_1d(y, warn=True) if steps is None else np.concatenate([np.asarray(each) for each in steps])
        check_classification_targets(flat)
        self.classes_, numbers = np.unique(flat, return_inverse=True)
        if len(self.classes_) < 2:
            raise OptionError(f"y holds one class alone, {self.classes_[0]!r}: there is nothing to tell apart")
        if steps is None:
            return Sequences.of_labels(numbers)
        return Sequences.of_labels(np.split(numbers, np.cumsum([len(each) for each in steps])[:-1]))

    def predict_proba(self, X: Any, lengths: ArrayLike | None = None) -> NDArray[np.float64]:
        """The probability of each class: [N, V] in the order of `classes_`; with `output="every"` an object array of N
        arrays [T, V]."""
        said = self._said(X, lengths)
        p = [(each / each.sum(-1, keepdim=True)).numpy() for each in said]
        return ragged(p) if self._every() else np.concatenate(p)

    def predict(self, X: Any, lengths: ArrayLike | None = None) -> NDArray[Any]:
        """The most probable class of each sequence, [N]; with `output="every"` an object array of N arrays [T]."""
        p = self.predict_proba(X, lengths)
        classes: NDArray[Any] = self.classes_
        rows: list[Any] = [classes[each.argmax(-1)] for each in p]
        return np.asarray(ragged(rows) if self._every() else rows)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, lengths: ArrayLike | None = None) -> float:
        """The accuracy: the share of sequences (or of steps) whose most probable class is their label."""
        said = self.predict(X, lengths)
        if self._every():
            y, said = np.concatenate(stepwise(y, list(said))), np.concatenate(list(said))
        return float(accuracy_score(y, said, sample_weight=sample_weight))


class SequenceScorer(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """A recurrent network that gives each sequence (or each step) one number from 0 to 1: its Score.

    What is None is chosen by the number of sequences, as `charlm fit` does. Arguments as of `SequenceClassifier`, and:

    Args:
        loss: `cross-entropy`, after which a Score is a probability, or `squared`; None takes the squared error where
            labels are scaled, else the cross-entropy.
        label_scale: `minmax` maps labels of any range to 0..1 for training and back in what is predicted.

    Attributes:
        n_features_in_, model_, history_: as of `SequenceClassifier`.

    >>> model = SequenceScorer(hidden=4, max_steps=40, lr=0.05).fit(["good", "bad", "mad", "wood"], [1, 0, 0, 1])
    >>> scores = model.predict(["good", "bad"])
    >>> scores.shape, bool(scores[0] > scores[1])
    ((2,), True)
    """

    mode = "score"

    def __init__(
        self,
        *,
        cell: str | type[Cell] = "gru",
        layers: int = 1,
        hidden: int | None = None,
        embedding: int = 0,
        dropout: float | None = None,
        bidirectional: bool = False,
        output: str = "last",
        loss: str | None = None,
        scale: str | None = "zscore",
        label_scale: str | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        epochs: float | None = None,
        max_steps: int | None = None,
        minutes: float | None = None,
        patience: int = 8,
        validation_fraction: float = 0.1,
        seed: int | np.random.RandomState | None = 0,
        device: str = "auto",
        backend: str | None = None,
        out: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self.cell = cell
        self.layers = layers
        self.hidden = hidden
        self.embedding = embedding
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.output = output
        self.loss = loss
        self.scale = scale
        self.label_scale = label_scale
        self.batch_size = batch_size
        self.lr = lr
        self.epochs = epochs
        self.max_steps = max_steps
        self.minutes = minutes
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.backend = backend
        self.out = out
        self.progress = progress

    def _targets(self, y: Any, rows: list[Any]) -> Sequences:
        each = stepwise(y, rows) if self._every() else list(column_or_1d(y, warn=True))
        try:
            found = Sequences.of_numbers(each)
        except (TypeError, ValueError) as error:
            raise OptionError(f"y is not numbers: {error} (NaN and infinity are no Scores)") from None
        values = found.values.flatten()
        if self.label_scale in (None, "none") and bool(((values < 0) | (values > 1)).any()):
            place = int(((values < 0) | (values > 1)).nonzero()[0, 0])
            raise OptionError(
                f"y holds {values[place]:g}: a Score is a number from 0 to 1; others are mapped to that range with "
                "label_scale='minmax', and classes are told apart by SequenceClassifier"
            )
        return found

    def predict(self, X: Any, lengths: ArrayLike | None = None) -> NDArray[np.float64]:
        """The Score of each sequence, [N]; with `output="every"` an object array of N arrays [T]."""
        said = [each[:, 0].numpy() for each in self._said(X, lengths)]
        return ragged(said) if self._every() else np.concatenate(said)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, lengths: ArrayLike | None = None) -> float:
        """R²: the share of the variance of the labels that is explained."""
        said = self.predict(X, lengths)
        if self._every():
            y, said = np.concatenate(stepwise(y, list(said))), np.concatenate(list(said))
        return float(r2_score(y, said, sample_weight=sample_weight))
