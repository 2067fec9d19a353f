"""Score and Distribution as estimators with scikit-learn's protocol: constructor, `fit`, `predict`, `score`.

They work in `Pipeline`, `cross_val_score` and `GridSearchCV`, and can be cloned, pickled, saved and loaded. X is:

- a list of strings, or a pandas Series or one-column DataFrame of them;
- a list of arrays, [T] or [T, F], of any lengths;
- an array [N, T, F] or [N, T]; with `lengths` [N], what stands behind each sequence's length is padding.

N sequences, T steps, F numbers a step, V classes. A table [N, T] of numbers is N sequences of T steps of one number.
"""

from __future__ import annotations

import abc
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError
from charlm.files import free_name
from charlm.nn.cells import Cell
from charlm.nn.kernels import pick_device
from charlm.sequences import Examples, Sequences, ragged, refuse_missing, rows_of, stepwise
from charlm.sequences.fit import fit_examples
from charlm.sequences.fitted_models import Models, load_sequence, save_sequence
from charlm.sequences.model import SequenceModel
from charlm.sequences.tabular import TableFacts, held_out, is_bounded, seed_of
from charlm.text.vocab import Vocab
from charlm.training.watching import History


class SequenceEstimator(BaseEstimator, abc.ABC):  # type: ignore[misc]
    """What both estimators share: reading X, dividing, training, saving."""

    mode: str
    model_: SequenceModel
    models_: Models
    history_: History

    def __init__(
        self, *, cell: str | type[Cell] = "gru", layers: int = 1, hidden: int | None = None, embedding: int = 0,
        dropout: float | None = None, bidirectional: bool | None = None, output: str = "last", model: str = "rnn",
        scale: str | None = "zscore", batch_size: int | None = None, lr: float | None = None,
        epochs: float | None = None, max_steps: int | None = None, minutes: float | None = None, patience: int = 8,
        validation_fraction: float = 0.1, seed: int | np.random.RandomState | None = 0, device: str = "auto",
        backend: str | None = None, out: str | Path | None = None, progress: bool | None = None,
    ) -> None:  # fmt: skip
        self.cell, self.layers, self.hidden, self.embedding = cell, layers, hidden, embedding
        self.dropout, self.bidirectional, self.output, self.model = dropout, bidirectional, output, model
        self.scale, self.batch_size, self.lr, self.epochs = scale, batch_size, lr, epochs
        self.max_steps, self.minutes, self.patience = max_steps, minutes, patience
        self.validation_fraction, self.seed, self.device = validation_fraction, seed, device
        self.backend, self.out, self.progress = backend, out, progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.non_deterministic = self.minutes is not None
        return tags

    def fit(self, X: Any, y: Any = None, lengths: ArrayLike | None = None) -> Self:
        """Trains a network on sequences and their labels.

        Args:
            X: N sequences; see `charlm.sequences.estimators`.
            y: N labels, or with `output="every"` N lists of as many labels as the sequence has steps.
            lengths: of padded arrays, [N]; by default every sequence is as long as the array.

        Returns:
            The estimator itself, with `model_` and `history_` (a row for each validation of the training).

        Raises:
            ValueError: sequences or labels that cannot be, with the number of the first.
        """
        if y is None:
            raise OptionError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        rows = rows_of(X, lengths, partial(validate_data, self, reset=True, dtype=np.float64))
        check_consistent_length(rows, y)
        targets = self._targets(y, rows)
        seed = seed_of(self.seed)
        parts = held_out(rows, self.validation_fraction, seed)
        text = isinstance(rows[0], str)
        vocab = Vocab.of("".join(rows[row] for row in parts["train"].tolist())) if text else None
        inputs = Sequences.of_rows_or_texts(rows, vocab)
        whole = Examples(inputs=inputs, targets=targets)
        train, valid = (
            whole.take(torch.from_numpy(parts[part])) if len(parts[part]) else None for part in ("train", "valid")
        )
        assert train is not None
        facts = self._facts(inputs, targets, train)
        self.models_, self.history_ = fit_examples(self, train, valid, facts, vocab, seed)
        self.model_ = self.models_.network
        self._described = facts
        return self

    @abc.abstractmethod
    def _targets(self, y: Any, rows: list[Any]) -> Sequences:
        """The labels of the rows as targets, checked."""

    def _every(self) -> bool:
        output = self.output
        if output not in ("last", "every"):
            raise OptionError(f"output is 'last' (a label a sequence) or 'every' (a label a step), not {output!r}")
        return bool(output == "every")

    def _facts(self, inputs: Sequences, targets: Sequences, train: Examples) -> TableFacts:
        """What a saved model says of its examples, so that `charlm predict` reads it."""
        classes = tuple(map(str, getattr(self, "classes_", ())))
        if classes:
            counts = np.bincount(train.targets.values.numpy(), minlength=len(classes))
            base = tuple((counts / counts.sum()).tolist())
        else:
            base = (float(train.targets.values.mean()),)
        return TableFacts(
            table="", sha256="", rows=len(inputs), sequence="sequence", label="label", split="100/0/0",
            input="text" if inputs.ids else "numbers", features=0 if inputs.ids else int(inputs.values.shape[1]),
            mode=self.mode, every=self._every(), classes=classes, base=base,
            bounded=is_bounded(getattr(self, "label_scale", None)),
        )  # fmt: skip

    def _said(self, X: Any, lengths: ArrayLike | None) -> list[NDArray[np.float64]]:
        """What the model says: [1] or [V] numbers for each sequence or step."""
        check_is_fitted(self, "model_")
        rows = rows_of(X, lengths, partial(validate_data, self, reset=False, dtype=np.float64))
        if isinstance(rows[0], str) != (self.model_.vocab is not None):
            read = "texts" if self.model_.vocab is not None else "numbers"
            raise OptionError(f"this {type(self).__name__} was fitted to {read}: give it {read}")
        inputs = Sequences.of_rows_or_texts(rows, self.model_.vocab)
        wanted = self.model_.config.features
        if not inputs.ids and inputs.values.shape[1] != wanted:
            raise OptionError(f"the sequences have {inputs.values.shape[1]} numbers a step, the model reads {wanted}")
        return self.models_.say(inputs)

    # -- keeping -------------------------------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> Path:
        """Writes the fitted estimator as a model directory, which `load` and `charlm predict` read.

        Returns:
            The directory; a taken name becomes NAME-2.
        """
        check_is_fitted(self, "model_")
        params = {name: value for name, value in self.get_params(deep=False).items() if _is_plain(value)}
        params["cell"] = self.model_.config.cell
        classes = getattr(self, "classes_", np.zeros(0)).tolist()
        if not all(map(_is_plain, classes)):
            raise OptionError("classes that are numbers or strings can be saved; for others use pickle")
        kept = {"name": type(self).__name__, "params": params, "classes": classes}
        kept |= {"n_features_in": n} if (n := getattr(self, "n_features_in_", None)) is not None else {}
        path = free_name(Path(directory))
        path.mkdir(parents=True)
        save_sequence(path, self.models_, encode(self._described), estimator=kept)
        return path

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "auto") -> Self:
        """Reads an estimator that `save` wrote, or a model that `charlm fit` made.

        Raises:
            CheckpointError: no such model, or one of the other kind.
        """
        found = load_sequence(directory, device=pick_device(device))
        if found.model.config.mode != cls.mode:
            other = "SequenceScorer" if cls.mode == "distribution" else "SequenceClassifier"
            raise CheckpointError(f"{directory} holds a {found.model.config.mode}: load it with {other}")
        facts = TableFacts.read(found.data)
        kept = found.config.get("estimator") or {}
        config = found.model.config
        shape = {name: getattr(config, name) for name in ("cell", "layers", "hidden", "embedding", "dropout")}
        shape |= {"bidirectional": config.bidirectional, "output": config.output, "model": found.models.chosen}
        params = kept.get("params", shape)
        try:
            made = cls(**params)
        except TypeError as error:
            raise CheckpointError(f"{directory} holds options that this charlm does not know ({error})") from None
        made.models_, made.model_, made.history_, made._described = found.models, found.model, History([]), facts
        if cls.mode == "distribution":
            made.classes_ = np.array(kept.get("classes", list(facts.classes)))
        if "n_features_in" in kept:
            made.n_features_in_ = kept["n_features_in"]
        return made


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


class SequenceClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """A recurrent network that gives each sequence (or each step) a probability for every class.

    What is None is chosen by the number of sequences, as `charlm fit` does.

    Args:
        cell: `rnn`, `gru`, `lstm`, or a subclass of `charlm.Cell`.
        layers, hidden: recurrent layers, and units in each layer and direction.
        embedding: width of the character embedding of text; 0 for one-hot.
        dropout: between the layers and before the output, while training.
        bidirectional: whether the sequences are read from both ends; None does where a label is for a whole sequence.
        output: `last`, one label a sequence, or `every`, one a step.
        model: which model predicts: `rnn`, the network; `counted` (an n-gram for each class) or `linear` (logistic
            regression on strings of characters) for texts, `trees` for numbers; `mix` of all; or `auto`, the best on
            the held-out sequences. Any but `rnn` fits all of them.
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
        models_: all models, the network among them.
        history_: the learning curve, a `History`: a row for each validation, a table in a notebook, and `plot()`.

    >>> texts, labels = ["aab", "abb", "xyx", "xxy"] * 3, ["ab", "ab", "xy", "xy"] * 3
    >>> model = SequenceClassifier(hidden=4, max_steps=30, lr=0.05).fit(texts, labels)
    >>> model.predict(["abab", "yyx"]).tolist(), model.predict_proba(["abab"]).shape
    (['ab', 'xy'], (1, 2))
    """

    mode = "distribution"
    classes_: NDArray[Any]

    def _targets(self, y: Any, rows: list[Any]) -> Sequences:
        steps = stepwise(y, rows) if self._every() else None
        refuse_missing(y, steps)
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
        p = [each / each.sum(-1, keepdims=True) for each in said]
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
        label_scale: `minmax` maps labels of any range to 0..1 for training and back in what is predicted, which lies
            in the range of the labels: where all of these are one number, it is that number. `none` or None does not.

    Attributes:
        n_features_in_, model_, history_: as of `SequenceClassifier`.

    >>> model = SequenceScorer(hidden=4, max_steps=40, lr=0.05).fit(["good", "bad", "mad", "wood"], [1, 0, 0, 1])
    >>> scores = model.predict(["good", "bad"])
    >>> scores.shape, bool(scores[0] > scores[1])
    ((2,), True)
    """

    mode = "score"

    def __init__(
        self, *, cell: str | type[Cell] = "gru", layers: int = 1, hidden: int | None = None, embedding: int = 0,
        dropout: float | None = None, bidirectional: bool | None = None, output: str = "last", model: str = "rnn",
        loss: str | None = None, scale: str | None = "zscore", label_scale: str | None = None,
        batch_size: int | None = None, lr: float | None = None, epochs: float | None = None,
        max_steps: int | None = None, minutes: float | None = None, patience: int = 8,
        validation_fraction: float = 0.1, seed: int | np.random.RandomState | None = 0, device: str = "auto",
        backend: str | None = None, out: str | Path | None = None, progress: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            cell=cell, layers=layers, hidden=hidden, embedding=embedding, dropout=dropout, bidirectional=bidirectional,
            output=output, model=model, scale=scale, batch_size=batch_size, lr=lr, epochs=epochs, max_steps=max_steps,
            minutes=minutes, patience=patience, validation_fraction=validation_fraction, seed=seed, device=device,
            backend=backend, out=out, progress=progress,
        )  # fmt: skip
        self.loss = loss
        self.label_scale = label_scale

    def _targets(self, y: Any, rows: list[Any]) -> Sequences:
        steps = stepwise(y, rows) if self._every() else None
        refuse_missing(y, steps)
        try:
            found = Sequences.of_numbers(list(column_or_1d(y, warn=True)) if steps is None else steps)
        except (TypeError, ValueError) as error:
            raise OptionError(f"y is not numbers: {error} (NaN and infinity are no Scores)") from None
        values = found.values.flatten()
        if is_bounded(self.label_scale) and bool(((values < 0) | (values > 1)).any()):
            place = int(((values < 0) | (values > 1)).nonzero()[0, 0])
            raise OptionError(
                f"y holds {values[place]:g}: a Score is a number from 0 to 1; others are mapped to that range with "
                "label_scale='minmax', and classes are told apart by SequenceClassifier"
            )
        return found

    def predict(self, X: Any, lengths: ArrayLike | None = None) -> NDArray[np.float64]:
        """The Score of each sequence, [N]; with `output="every"` an object array of N arrays [T]."""
        said = [each[:, 0] for each in self._said(X, lengths)]
        return ragged(said) if self._every() else np.concatenate(said)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, lengths: ArrayLike | None = None) -> float:
        """R²: the share of the variance of the labels that is explained."""
        said = self.predict(X, lengths)
        if self._every():
            y, said = np.concatenate(stepwise(y, list(said))), np.concatenate(list(said))
        return float(r2_score(y, said, sample_weight=sample_weight))
