"""Sequences and what is to be said of them: the objectives that the loop optimises beside language modelling.

Batches are a function of the seed and the position alone, so that a run that goes on reads what it would have read.
Axes: N examples, T steps, B of them in a batch.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.nn.heads import DistributionHead, distribution_losses
from charlm.nn.kernels import for_training
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import SequenceConfig
from charlm.sequences.model import SequenceModel
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Objective
from charlm.training.loop import Loop
from charlm.training.options import Optimisation


class Batches:
    """Every example once an epoch, in an order of the epoch's own; those of one batch have like lengths.

    The examples are shuffled, then sorted by length within every `pool` batches, and the batches are shuffled: that
    saves steps of padding and leaves chance enough.

    Args:
        lengths: of each example, [N].
        batch: how many a batch has; the last of an epoch has what is left.
        seed: of all orders.
        pool: batches that are sorted together.

    >>> batches = Batches(torch.tensor([3, 1, 3, 1, 2]), batch=2, seed=0)
    >>> batches.per_epoch, sorted(row for position in (0, 1, 2) for row in batches.at(position).tolist())
    (3, [0, 1, 2, 3, 4])
    """

    def __init__(self, lengths: Tensor, *, batch: int, seed: int = 0, pool: int = 16) -> None:
        if batch < 1:
            raise OptionError(f"a batch has at least 1 example, not {batch}")
        self._lengths = lengths.numpy()
        self._batch, self._seed, self._pool = min(batch, len(lengths)), seed, pool
        self.per_epoch = -(-len(lengths) // self._batch)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def at(self, position: int) -> Tensor:
        """The examples of the batch at a position; `per_epoch` of them are an epoch."""
        epoch, number = divmod(position, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return torch.from_numpy(self._order[number * self._batch : (number + 1) * self._batch])

    def _shuffled(self, epoch: int) -> Any:
        chance = np.random.default_rng([self._seed, epoch])
        order = chance.permutation(len(self._lengths))
        if self._lengths.min() == self._lengths.max():
            return order
        pools = np.split(order, range(self._pool * self._batch, len(order), self._pool * self._batch))
        order = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools])
        whole = len(order) // self._batch * self._batch  # the last, smaller batch stays the last
        shuffled = chance.permutation(order[:whole].reshape(-1, self._batch)).reshape(-1)
        return np.concatenate([shuffled, order[whole:]])


class ExamplesObjective(Objective):
    """The mean loss over the targets of examples that do not belong together; final classes say what a loss is.

    Args:
        train: the examples that are learned from.
        valid: the examples that early stopping watches; None takes the training examples.
        device: of the module.
        batch: examples a step.
        seed: of their order and of dropout.
    """

    def __init__(self, train: Examples, valid: Examples | None, device: torch.device, *, batch: int, seed: int) -> None:
        self.train, self.valid = train, train if valid is None else valid
        self.batch = batch
        self.batches = Batches(_lengths(train), batch=batch, seed=seed)
        self.steps_per_epoch = self.batches.per_epoch
        self.generator = torch.Generator(device=device).manual_seed(seed)

    @abc.abstractmethod
    def losses(self, part: Examples, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss of each target of some examples, padding left out before it is computed."""

    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean over the real targets of the batch at this position."""
        losses_N = self.losses(self.train, self.batches.at(position), self.generator)
        return losses_N.mean(), len(losses_N)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean loss over the targets of the validation examples."""
        order = torch.argsort(_lengths(self.valid), stable=True)
        total, count = 0.0, 0
        for rows in torch.split(order, max(self.batch, 256)):
            losses_N = self.losses(self.valid, rows)
            total, count = total + float(losses_N.double().sum()), count + len(losses_N)
        return total / count

    def carried(self) -> dict[str, Tensor]:
        """The generator of the dropout masks."""
        return {"dropout": self.generator.get_state()}

    def forget(self) -> None:
        """There is nothing to forget: no state goes from batch to batch."""

    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Takes back what `carried` gave; a generator of another device starts anew."""
        if "dropout" in carried:
            with contextlib.suppress(RuntimeError, TypeError):
                self.generator.set_state(carried["dropout"].clone())


class SequenceObjective(ExamplesObjective):
    """The mean loss of a `SequenceModel` over its targets.

    Args:
        model: the network, on its device.
        train: the examples it learns from.
        valid: the examples that early stopping watches; None takes the training examples.
        batch: examples a step.
        seed: of their order and of dropout.

    Raises:
        OptionError: targets that such a model cannot have, with the number of the example.

    >>> x, y = Sequences.of_numbers([[0.0, 1.0], [1.0]]), Sequences.of_numbers([0.0, 1.0])
    >>> model = SequenceModel(cell="gru", hidden=4)
    >>> objective = SequenceObjective(model, Examples(inputs=x, targets=y), batch=2)
    >>> loss, count = objective.loss(0)
    >>> count, loss.item() > 0
    (2, True)
    """

    def __init__(
        self, model: SequenceModel, train: Examples, valid: Examples | None = None, *, batch: int = 64, seed: int = 0
    ) -> None:
        self.module = self.model = model
        super().__init__(train, valid, model.device, batch=batch, seed=seed)
        for part in (self.train, self.valid):
            check(model.config, part)

    def losses(self, part: Examples, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss of each target of some examples."""
        device, config = self.model.device, self.model.config
        x, lengths = part.inputs.padded(rows)
        targets, target_lengths = part.targets.padded(rows)
        every = config.output == "every"
        longest = len(targets)
        steps = longest if every and len(x) == 1 and longest > 1 else None
        lengths = lengths if steps is None else target_lengths
        lengths = None if lengths is None else lengths.to(device)
        raw, _ = self.model.raw(x.to(device), lengths, steps=steps, generator=generator)
        targets = targets if config.mode == "distribution" else targets.reshape(targets.shape[:2])
        targets = targets.to(device)
        if not every:
            return self.model.losses(raw, targets[0])
        if lengths is None:
            return self.model.losses(raw.flatten(0, 1), targets.flatten(0, 1))
        inside_TB = torch.arange(longest, device=device).unsqueeze(-1) < lengths
        return self.model.losses(raw[inside_TB], targets[inside_TB])


class ForesightObjective(ExamplesObjective):
    """Pretraining: each step foresees the next character, and in the other direction the one before.

    The forward cell's output after a character gives the next one, the backward cell's the one before it. Padding and
    unknown characters are no targets.

    Args:
        model: of texts, with one layer or one direction; its embedding and layers are trained, its head is not.
        train, valid: its examples, whose labels are not looked at.
        batch, seed: as of `SequenceObjective`.

    Raises:
        OptionError: a model of numbers, or of several layers in both directions, which would see what is to come.
    """

    def __init__(
        self, model: SequenceModel, train: Examples, valid: Examples | None, *, batch: int = 64, seed: int = 0
    ) -> None:
        stack = model.stack
        if model.vocab is None or (stack.layers > 1 and len(stack.directions) > 1):
            raise OptionError("pretraining is for texts, and for one layer where they are read in both directions")
        self.model, self.width = model, stack.outputs // len(stack.directions)
        generator = torch.Generator().manual_seed(seed)
        self.heads = heads = nn.ModuleList(DistributionHead(self.width, len(model.vocab)) for _ in stack.directions)
        for head in heads:
            head.reset_parameters(generator)  # type: ignore[operator]
        self.module = nn.ModuleDict({"stack": stack, "heads": heads.to(model.device)})
        if model.embedding is not None:
            self.module["embedding"] = model.embedding
        super().__init__(train, valid, model.device, batch=batch, seed=seed)

    def losses(self, part: Examples, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss of each character that is foreseen, in both directions."""
        ids_TB, lengths = part.inputs.padded(rows)
        ids_TB = ids_TB.to(self.model.device)
        table = None if self.model.embedding is None else self.model.embedding.weight
        y_TBD, _ = self.model.stack(
            ids_TB, table=table, lengths_B=None if lengths is None else lengths.to(ids_TB.device), generator=generator
        )
        steps = torch.arange(len(ids_TB)).unsqueeze(-1)
        inside_TB = (steps < part.inputs.lengths[rows]).to(ids_TB.device)
        found = []
        for number, head in enumerate(self.heads):
            y_TBH = y_TBD[..., number * self.width : (number + 1) * self.width]
            y_TBH, targets_TB = (y_TBH[1:], ids_TB[:-1]) if number else (y_TBH[:-1], ids_TB[1:])
            known_TB = (targets_TB >= 0) & inside_TB[1:]  # the later of both steps is no padding
            found.append(distribution_losses(head(y_TBH[known_TB]), targets_TB[known_TB]))
        losses = torch.cat(found)
        return losses if len(losses) else y_TBD.sum().reshape(1) * 0


def pretrained(
    config: SequenceConfig,
    vocab: Vocab | None,
    train: Examples,
    valid: Examples | None,
    options: Optimisation,
    *,
    batch: int,
    device: torch.device,
) -> SequenceModel:
    """A network whose layers have learned to foresee the characters of the training texts.

    Args:
        config, vocab: of the network.
        train, valid: its examples.
        options: how long it is pretrained, and how.
        batch: examples a step.
        device: where.
    """
    model = SequenceModel(config, vocab)
    model.reset_parameters(torch.Generator().manual_seed(options.seed), symbols=True)
    model.to(device).stack.backend = for_training(device, ragged=True)
    objective = ForesightObjective(model, train, valid, batch=batch, seed=options.seed)
    loop = Loop(objective, options)
    loop.run()
    with torch.no_grad():
        for name, parameter in objective.module.named_parameters():
            parameter.copy_(loop.best_weights()[name])
    return model.eval()


def _lengths(part: Examples) -> Tensor:
    return torch.maximum(part.inputs.lengths, part.targets.lengths)


def check(config: SequenceConfig, part: Examples) -> None:
    """Refuses inputs and targets that a model of this shape cannot have, with the number of the example (from 1)."""
    inputs, targets = part.inputs, part.targets
    _check_inputs(config, inputs)
    if config.output == "last":
        _refuse(targets.lengths != 1, "has more than one target: use output='every'")
    elif not (bool((inputs.lengths == 1).all()) or torch.equal(inputs.lengths, targets.lengths)):
        _refuse(targets.lengths != inputs.lengths, "has another number of targets than of steps")
    values = targets.values
    wide = values.shape[-1] if values.dim() == 2 else 0
    owner = torch.arange(len(targets)).repeat_interleave(targets.lengths)
    if config.mode == "score":
        if wide > 1 or targets.ids:
            raise OptionError("the target of a Score is one number: give numbers with one for each step")
        wrong = (values < 0) | (values > 1)
        if config.target_scale is None and bool(wrong.any()):
            number, value = int(owner[wrong.reshape(-1)][0]), float(values[wrong][0])
            raise OptionError(
                f"example {number + 1} has the target {value:g}: a Score is from 0 to 1; scale the targets"
            )
    elif targets.ids:
        _refuse(((values < 0) | (values >= config.classes)), f"has no label from 0 to {config.classes - 1}", owner)
    else:
        if wide != config.classes:
            raise OptionError(f"a row of probabilities has {config.classes} numbers, one for each class, not {wide}")
        _refuse((values < 0).any(-1) | ((values.sum(-1) - 1).abs() > 1e-4), "has no row of probabilities", owner)


def _check_inputs(config: SequenceConfig, inputs: Sequences) -> None:
    width = 0 if inputs.ids else inputs.values.flatten(1).shape[1]
    if width != config.features:
        came = f"{width} numbers a step" if width else "characters"
        read = f"{config.features} numbers a step" if config.features else "characters"
        raise OptionError(f"the sequences are of {came}, the model reads {read}")


def _refuse(wrong_N: Tensor, what: str, owner_N: Tensor | None = None) -> None:
    if bool(wrong_N.any()):
        number = int(wrong_N.nonzero()[0, 0])
        raise OptionError(f"example {(number if owner_N is None else int(owner_N[number])) + 1} {what}")


def class_weights(wanted: str | None, train: Examples, mode: str, classes: int) -> tuple[float, ...] | None:
    """What the loss of each class counts: for `balanced` N / (V n_v), so that each class counts the same.

    Args:
        wanted: `balanced`, or `none` or None for no weights.
        train: the training part; of a Score labels from 0 to 1, which are shares of no and of yes.
        mode, classes: of the model.
    """
    if wanted in (None, "none"):
        return None
    values = train.targets.values
    if wanted != "balanced" or (mode == "score" and not bool(((values >= 0) & (values <= 1)).all())):
        raise OptionError("class weights are `balanced` or `none`, for classes and for labels from 0 to 1")
    if mode == "score":
        counts = torch.stack([(1 - values).sum(), values.sum()])
    else:
        counts = torch.bincount(values, minlength=classes) if train.targets.ids else values.sum(0)
    shares = counts.double().clamp(min=0.5) / counts.sum()
    return tuple((1 / (len(counts) * shares)).tolist())
