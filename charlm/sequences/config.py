"""The shape of a `SequenceModel` (`SequenceConfig`), how its numbers are scaled (`Scale`), and which rows of a table
train, validate and test (`RowSplit`).

`charlm.codec` stores them. Axes: N rows, F features.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError, TextError
from charlm.nn.cells import cell_name
from charlm.nn.heads import POOLINGS
from charlm.sequences import Examples
from charlm.text.splits import PARTS, parse_shares, show_shares

KINDS = ("min-max", "z-score")
"""The ways of scaling."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """(x − shift) / width for each feature; made by `Scale.fit`.

    Args:
        kind: `min-max`: shift is the least value and width the range, so that fitted rows lie in 0..1; or `z-score`:
            the mean and the standard deviation (of the population, Σ(x − mean)²/N).
        shift: F numbers.
        width: F numbers above 0; 1 for a feature that never changes, 0 for such a target, which is undone to its shift.

    >>> import torch
    >>> scale = Scale.fit(torch.tensor([[10.0, 5.0], [30.0, 5.0]]), "min-max")
    >>> scale.apply(torch.tensor([[20.0, 5.0], [50.0, 6.0]])).tolist()
    [[0.5, 0.0], [2.0, 1.0]]
    >>> scale.undo(torch.tensor([[0.5, 0.0]])).tolist()
    [[20.0, 5.0]]
    """

    kind: str
    shift: tuple[float, ...]
    width: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown scaling {self.kind!r}: choose one of {', '.join(KINDS)}")
        if not self.shift or len(self.shift) != len(self.width):
            raise OptionError("a scale has as many widths as shifts, one of each for every feature")
        if not all(map(math.isfinite, (*self.shift, *self.width))) or min(self.width) < 0:
            raise OptionError("the shifts of a scale are finite, its widths finite and not negative")

    @classmethod
    def fit(cls, rows_NF: Tensor, kind: str) -> Scale:
        """The scale of these rows; those of the training part, if figures on others are to mean anything.

        Args:
            rows_NF: finite numbers, at least one row; computed in float64.
            kind: `min-max` or `z-score`.
        """
        if rows_NF.dim() != 2 or not rows_NF.numel():
            raise OptionError(f"a scale is fitted to a table of rows and features, not to {tuple(rows_NF.shape)}")
        rows_NF = rows_NF.detach().cpu().double()
        if not bool(rows_NF.isfinite().all()):
            row, column = (~rows_NF.isfinite()).nonzero()[0].tolist()
            raise OptionError(f"row {row + 1}, feature {column + 1} is {rows_NF[row, column].item()}, not a number")
        if kind == "min-max":
            shift, width = rows_NF.amin(0), rows_NF.amax(0) - rows_NF.amin(0)
        else:
            shift = rows_NF.mean(0)
            width = (rows_NF - shift).square().mean(0).sqrt()
            width[rows_NF.amax(0) == rows_NF.amin(0)] = 0  # rounding of the mean is no deviation
        width[width == 0] = 1
        return cls(kind=kind, shift=tuple(shift.tolist()), width=tuple(width.tolist()))

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_tensor(self.shift), x.new_tensor(self.width)

    def apply(self, x: Tensor) -> Tensor:
        """Scaled numbers, in the type and on the device of `x` [..., F]."""
        shift, width = self._like(x)
        return (x - shift) / width.masked_fill(width == 0, 1)

    def undo(self, x: Tensor) -> Tensor:
        """The numbers before they were scaled."""
        shift, width = self._like(x)
        return x * width + shift


_CHOICES = {
    "mode": ("score", "distribution"),
    "output": ("last", "every"),
    "loss": ("cross-entropy", "squared"),
}
_LIMITS = {
    "classes": (2, 1 << 20),
    "layers": (1, 64),
    "hidden": (1, 65_536),
    "features": (0, 1 << 20),
    "embedding": (0, 65_536),
    "projection": (0, 65_536),
    "grams": (0, 1 << 24),
    "gram_order": (1, 16),
}


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The shape of a `SequenceModel`.

    Args:
        cell: `rnn`, `gru`, `lstm`, or another cell's name or class (`charlm.nn.cells.Cell`); kept as its name.
        mode: `score`, one number in 0..1, or `distribution`, a probability for each class.
        classes: V, of a Distribution.
        layers, hidden: recurrent layers, and units in each layer and direction.
        bidirectional: whether a second cell a layer reads from the end.
        dropout: between the layers and before the output, while training.
        features: F, how many numbers a step has; 0 where the input is text.
        embedding: width of the character embedding of text; 0 for one-hot.
        output: `last` says one thing after the whole sequence, `every` one after each step.
        loss: of a Score: `cross-entropy`, or `squared` error; a Distribution's follows from its targets.
        bias: whether the cells have biases.
        projection: width of an LSTM's projected output (`proj_size` of torch's); 0 for none.
        batch_first: whether tensors go in and come out as [B, T, ...] instead of [T, B, ...]; states are not concerned.
        pooling: what the output after the whole sequence is made of, joined by plus signs: `last` (the final state),
            `mean`, `max`, `attention` over all steps (`charlm.nn.heads.Pooling`).
        grams: buckets of a linear map of short strings, which is added to what the network says of a whole text
            (`charlm.nn.heads.Grams`); 0 for none.
        gram_order, gram_dropout: the length of the longest of these strings, and the share of their occurrences that
            is left out while training.
        input_dropout: share of the steps that are read as unknown, or as zeros, while training.
        weight_dropout: share of the recurrent weights that are left out, a batch at a time, while training.
        class_weights: what the loss of each class counts in training (of a Score: of no and of yes); predictions are
            corrected for it. None by default.
        frozen: whether the recurrent layers and the embedding keep their weights in training.
        input_scale: how numbers of the input are scaled; None leaves them as they are.
        target_scale: how targets of a Score are brought to 0..1 (min-max), to be undone in what is predicted.

    >>> SequenceConfig(mode="distribution", classes=5).hidden
    128
    """

    cell: str = "lstm"
    mode: str = "score"
    classes: int = 2
    layers: int = 1
    hidden: int = 128
    bidirectional: bool = False
    dropout: float = 0.0
    features: int = 1
    embedding: int = 0
    output: str = "last"
    loss: str = "cross-entropy"
    bias: bool = True
    projection: int = 0
    batch_first: bool = False
    pooling: str = "last"
    grams: int = 0
    gram_order: int = 3
    gram_dropout: float = 0.0
    input_dropout: float = 0.0
    weight_dropout: float = 0.0
    class_weights: tuple[float, ...] = ()
    frozen: bool = False
    input_scale: Scale | None = None
    target_scale: Scale | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", cell_name(self.cell))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise OptionError(f"{name} is a number from {least} to {most:,}, not {getattr(self, name)}")
        for name in ("dropout", "gram_dropout", "input_dropout", "weight_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} is a probability from 0 to below 1, not {getattr(self, name)}")
        parts = self.pooling.split("+")
        if not set(parts) <= set(POOLINGS) or len(set(parts)) < len(parts):
            raise OptionError(f"a pooling is of {', '.join(POOLINGS)}, joined by +, not {self.pooling!r}")
        if (self.output == "every" and (self.grams or self.pooling != "last")) or (self.grams and self.features):
            raise OptionError(
                "pooling and grams are for one output after a whole sequence, grams for texts alone: leave them out"
            )
        if self.class_weights and (len(self.class_weights) != self.classes or not min(self.class_weights) > 0):
            raise OptionError("class weights are numbers above 0, one for each class (of a Score: for no and for yes)")
        if self.features and self.embedding:
            raise OptionError("an embedding is for text: leave it out where the input is numbers")
        scale = self.input_scale
        if scale is not None and (len(scale.shift) != self.features or 0 in scale.width):
            has = f"{len(scale.shift)} features, the input has {self.features}"
            raise OptionError(f"the scale of the input is for {has}; each has a width above 0")
        scale = self.target_scale
        if scale is not None and (self.mode != "score" or scale.kind != "min-max" or len(scale.shift) != 1):
            raise OptionError("the targets of a Score alone can be scaled, by min-max of one number")


def configured(config: SequenceConfig | None, text: bool, options: dict[str, Any]) -> SequenceConfig:
    """The configuration, or the one that its fields by name make.

    Args:
        config: the configuration; None where there are fields by name.
        text: whether the input is text.
        options: fields of a `SequenceConfig`, and `proj_size`, torch's name of `projection`.

    >>> configured(None, False, {"hidden": 9, "proj_size": 3, "dropout": 0}).projection
    3
    """
    if config is not None:
        if options:
            raise OptionError(f"give a configuration or its fields by name, not both ({', '.join(options)})")
        return config
    if text:
        options = {"features": 0, **options}
    options = {"projection" if name == "proj_size" else name: value for name, value in options.items()}
    names = {field.name for field in fields(SequenceConfig)}
    unknown = sorted(set(options) - names)
    if unknown:
        raise OptionError(f"a sequence model has no {', '.join(unknown)}: it has {', '.join(sorted(names))}")
    if type(options.get("dropout")) is int:
        options = {**options, "dropout": float(options["dropout"])}
    return SequenceConfig(**options)


def fit_scales(
    config: SequenceConfig, train: Examples, *, inputs: str | None = None, targets: bool = False
) -> SequenceConfig:
    """A configuration whose scales are fitted on the training examples, and on nothing else.

    Args:
        config: of a model.
        train: the training part.
        inputs: `min-max` or `z-score` for numbers of the input; None leaves them as they are.
        targets: whether targets of a Score are brought to 0..1 by min-max.
    """
    if inputs is not None:
        if train.inputs.ids:
            raise OptionError("text has no scale: leave the scaling of the input out")
        config = replace(config, input_scale=Scale.fit(train.inputs.values.flatten(1), inputs))
    if targets:
        scale = Scale.fit(train.targets.values.reshape(-1, 1), "min-max")
        same = bool((train.targets.values == scale.shift[0]).all())
        config = replace(config, target_scale=replace(scale, width=(0.0,)) if same else scale)
    return config


_GRAMMAR = "write it as 80/10/10, shuffled:SEED:80/10/10 or ordered:80/10/10 (train/valid/test in per cent)"


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """A division of rows into train, valid and test.

    Args:
        shares: per cent of each part; they sum to 100, training has some.
        seed: rows are dealt out after shuffling with it; None takes them in their order, the test part last.

    `80/10/10` and `shuffled:80/10/10` shuffle with seed 0, `shuffled:7:80/10/10` with 7; `ordered:80/10/10` does not:
    for rows that follow each other in time.

    >>> split = RowSplit.parse("60/20/20")
    >>> str(split), {part: len(rows) for part, rows in split.parts(10).items()}
    ('shuffled:0:60/20/20', {'train': 6, 'valid': 2, 'test': 2})
    >>> RowSplit.parse("ordered:50/25/25").parts(4)["test"].tolist()
    [3]
    """

    shares: tuple[Fraction, Fraction, Fraction] = (Fraction(80), Fraction(10), Fraction(10))
    seed: int | None = 0

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or not self.shares[0]:
            raise OptionError(f"a split needs a training part and no negative share: {_GRAMMAR}")
        if sum(self.shares) != 100:
            raise OptionError(f"the shares of a split sum to 100, not to {float(sum(self.shares)):g}: {_GRAMMAR}")

    @classmethod
    def parse(cls, text: str) -> RowSplit:
        """Reads the way a split is written on the command line and in checkpoints."""
        *head, shares = text.strip().split(":")
        kind = head[0] if head else "shuffled"
        if kind not in ("shuffled", "ordered") or len(head) > (2 if kind == "shuffled" else 1):
            raise OptionError(f"cannot read the split {text[:80]!r}: {_GRAMMAR}")
        if len(head) == 2 and not re.fullmatch(r"[0-9]{1,18}", head[1]):
            raise OptionError(f"{head[1][:40]!r} in the split {text[:80]!r} is not a whole number: {_GRAMMAR}")
        seed = None if kind == "ordered" else int(head[1]) if len(head) == 2 else 0
        return cls(shares=parse_shares(shares, text, _GRAMMAR), seed=seed)

    def __str__(self) -> str:
        shares = show_shares(self.shares)
        return f"ordered:{shares}" if self.seed is None else f"shuffled:{self.seed}:{shares}"

    def parts(self, rows: int, groups: NDArray[np.int64] | None = None) -> dict[str, NDArray[np.int64]]:
        """The numbers of the rows of each part, in rising order; every row is in exactly one.

        Shares are rounded down to whole rows, but a part that was asked for gets at least one. With groups the parts
        end at the boundary of groups that is nearest to their share; in an ordered split a group stands where its
        first row does.

        Args:
            rows: how many there are.
            groups: the number of each row's group, [rows]; rows of one group fall into the same part.

        Raises:
            TextError: fewer rows, or groups, than parts.
        """
        wanted = [share > 0 for share in self.shares]
        if rows < sum(wanted):
            raise TextError(
                f"{rows} rows cannot be divided by {self}: give the table more rows, or use --split 100/0/0"
            )
        order = np.arange(rows) if self.seed is None else np.random.default_rng(self.seed).permutation(rows)
        valid, test = (max(int(rows * share / 100), int(share > 0)) for share in self.shares[1:])
        train = rows - valid - test
        while train < 1:  # many small parts of few rows
            valid, test = (valid - 1, test) if valid > test else (valid, test - 1)
            train += 1
        cut = [train, train + valid]
        if groups is not None:
            order, cut = self._grouped(order, cut, groups)
        pieces = np.split(order, cut)
        return {part: np.sort(piece).astype(np.int64) for part, piece in zip(PARTS, pieces, strict=True)}

    def _grouped(
        self, order: NDArray[np.int64], cut: list[int], groups: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[int]]:
        """The rows with those of a group side by side, and the cuts moved to where groups end."""
        _, first, place, sizes = np.unique(groups[order], return_index=True, return_inverse=True, return_counts=True)
        order = order[np.argsort(first[place.reshape(-1)], kind="stable")]
        ends = np.cumsum(sizes[np.argsort(first)])
        valid, test = (int(share > 0) for share in self.shares[1:])
        if len(ends) < 1 + valid + test:
            raise TextError(
                f"{len(order):,} rows in {len(ends)} groups of equal sequences cannot be divided by {self}, as a group "
                "falls into one part: give the table more different rows, or use --split 100/0/0"
            )
        last = len(ends) - test
        one = int(np.clip(np.abs(ends - cut[0]).argmin() + 1, 1, last - valid))
        two = (
            one if not valid else last if not test else int(np.clip(np.abs(ends - cut[1]).argmin() + 1, one + 1, last))
        )
        return order, [int(ends[one - 1]), int(ends[two - 1])]
