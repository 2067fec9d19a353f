"""What `SequenceClassifier` and `SequenceScorer` share: reading X, dividing it, training, saving and loading."""

from __future__ import annotations

import abc
from contextlib import closing, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError
from charlm.files import free_name, lock
from charlm.nn.kernels.choose import pick_device
from charlm.sequences.batches import Examples, Sequences, as_list, cut, stacked
from charlm.sequences.config import fit_scales
from charlm.sequences.fitting import SCALES, choose_fit, loss_unit, start, step_loss
from charlm.sequences.model import SequenceModel
from charlm.sequences.models import load_sequence, save_sequence
from charlm.sequences.rows import RowSplit, groups_of
from charlm.sequences.tabular import TableFacts
from charlm.text.vocab import Vocab
from charlm.training.watching import History, Watch

__all__ = ["SequenceEstimator"]

_LEAST = 20  # sequences from which on some are held out to stop training early


class SequenceEstimator(BaseEstimator, abc.ABC):  # type: ignore[misc]
    """What both estimators share: reading X, dividing, training, saving."""

    mode: str
    model_: SequenceModel
    history_: History

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
        rows = self._rows(X, lengths, reset=True)
        check_consistent_length(rows, y)
        targets = self._targets(y, rows)
        seed = self._seed()
        parts = self._parts(rows, seed)
        text = isinstance(rows[0], str)
        vocab = Vocab.of("".join(rows[row] for row in parts["train"].tolist())) if text else None
        inputs = _sequences(rows, vocab)
        whole = Examples(inputs=inputs, targets=targets)
        train, valid = (
            whole.take(torch.from_numpy(parts[part])) if len(parts[part]) else None for part in ("train", "valid")
        )
        assert train is not None
        facts = self._facts(inputs, targets, train)
        self.model_, self.history_ = _train(self, train, valid, facts, vocab, seed)
        self._described = facts
        return self

    def _seed(self) -> int:
        chance = self.seed
        if isinstance(chance, int | np.integer) and not isinstance(chance, bool):
            return int(chance)
        return int(check_random_state(chance).randint(2**31 - 1))

    def _rows(self, X: Any, lengths: ArrayLike | None, *, reset: bool) -> list[Any]:
        """X as a list of strings, or of arrays [T] or [T, F]."""
        found = as_list(X)
        if found is None or (lengths is not None and not isinstance(found[0], str)):
            padded = X if found is None else stacked(found)
            if lengths is not None or len(getattr(padded, "shape", ())) == 3:
                return cut(np.asarray(padded, dtype=np.float64), lengths)
            return list(validate_data(self, X, reset=reset, dtype=np.float64))
        if lengths is not None:
            raise OptionError("strings have their own lengths: leave lengths out")
        return found

    def _parts(self, rows: list[Any], seed: int) -> dict[str, NDArray[np.int64]]:
        """The rows that are trained on and those that early stopping watches; equal sequences stand on one side."""
        fraction = self.validation_fraction
        if not 0 <= fraction < 1:
            raise OptionError(f"validation_fraction is a share from 0 to below 1, not {fraction}")
        groups = groups_of(rows)
        held = Fraction(str(fraction)) * 100 if len(rows) >= _LEAST and groups.max() > 0 else Fraction(0)
        return RowSplit(shares=(100 - held, held, Fraction(0)), seed=seed).parts(len(rows), groups)

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
            table="",
            sha256="",
            rows=len(inputs),
            sequence="sequence",
            label="label",
            input="text" if inputs.ids else "numbers",
            features=0 if inputs.ids else int(inputs.values.shape[1]),
            mode=self.mode,
            every=self._every(),
            bounded=getattr(self, "label_scale", None) in (None, "none"),
            split="100/0/0",
            classes=classes,
            base=base,
        )

    def _said(self, X: Any, lengths: ArrayLike | None) -> Sequences:
        """What the model says: [1] or [V] numbers for each sequence or step."""
        check_is_fitted(self, "model_")
        rows = self._rows(X, lengths, reset=False)
        if isinstance(rows[0], str) != (self.model_.vocab is not None):
            read = "texts" if self.model_.vocab is not None else "numbers"
            raise OptionError(f"this {type(self).__name__} was fitted to {read}: give it {read}")
        inputs = _sequences(rows, self.model_.vocab)
        wanted = self.model_.config.features
        if not inputs.ids and inputs.values.shape[1] != wanted:
            raise OptionError(f"the sequences have {inputs.values.shape[1]} numbers a step, the model reads {wanted}")
        return self.model_.predict(inputs)

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
        save_sequence(path, self.model_, encode(self._described), estimator=kept)
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
        params = kept.get("params", {**shape, "bidirectional": config.bidirectional, "output": config.output})
        try:
            made = cls(**params)
        except TypeError as error:
            raise CheckpointError(f"{directory} holds options that this charlm does not know ({error})") from None
        made.model_, made.history_, made._described = found.model, History([]), facts
        if cls.mode == "distribution":
            made.classes_ = np.array(kept.get("classes", list(facts.classes)))
        if "n_features_in" in kept:
            made.n_features_in_ = kept["n_features_in"]
        return made


def _sequences(rows: list[Any], vocab: Vocab | None) -> Sequences:
    return Sequences.of_numbers(rows) if vocab is None else Sequences.of_texts(rows, vocab)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


# -- training ----------------------------------------------------------------------------------------------------------


def _train(
    asked: Any, train: Examples, valid: Examples | None, facts: TableFacts, vocab: Vocab | None, seed: int
) -> tuple[SequenceModel, History]:
    """The trained model and its learning curve; kept in a directory where one is asked for."""
    names = ("cell", "layers", "hidden", "embedding", "dropout", "bidirectional", "lr", "epochs", "max_steps")
    given = {name: getattr(asked, name) for name in (*names, "minutes", "patience", "backend")}
    given |= {"batch": asked.batch_size, "seed": seed}
    given |= {"loss": asked.loss} if facts.mode == "score" else {}
    plan = choose_fit(facts, len(train), given)
    wanted = asked.scale or "none"
    if wanted not in SCALES:
        raise OptionError(f"unknown scale {wanted!r}: choose one of {', '.join(SCALES)}")
    scale = SCALES[wanted] if facts.features else None
    plan = replace(plan, network=fit_scales(plan.network, train, inputs=scale, targets=not facts.bounded))
    directory = None if asked.out is None else free_name(Path(asked.out))
    device = pick_device(asked.device)
    with nullcontext() if directory is None else lock(directory):
        fit = start(directory, train, valid, plan, device=device, vocab=vocab, data=encode(facts))
        with closing(Watch(step_loss, show=asked.progress)) as watch:
            fit.train(observer=watch)
    return fit.model, History(fit.rows, loss=loss_unit(fit.model))
