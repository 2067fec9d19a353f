"""A recurrent network that says something about a sequence: a Score in 0..1, or a Distribution over classes.

Axes: T steps, B sequences, F numbers a step, V classes, D outputs of the top layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.lm.interface import State
from charlm.nn.heads import DistributionHead, Grams, Pooling, ScoreHead, distribution_losses, score_losses
from charlm.nn.stack import Stack, drop_symbols, dropout
from charlm.recurrent.model import CharRNN
from charlm.sequences import Sequences
from charlm.sequences.config import SequenceConfig, configured
from charlm.text.vocab import Vocab


class SequenceModel(nn.Module):
    """Recurrent layers under a `ScoreHead` or a `DistributionHead`.

    Args:
        config: its shape; or give the fields of a `SequenceConfig` by name, as those of `nn.LSTM` are given
            (`proj_size` is another name of `projection`).
        vocab: the characters of a text input; None for numbers.

    It starts in evaluation mode, without dropout; the training loop switches. The kinds of tasks:

    - one to one: sequences of one step.
    - one to many: `output="every"` and one step of input with `steps=N`; in the steps after the first the layers get
      an input of zeros (zeros after scaling, the input of an unknown character).
    - many to one: `output="last"`: the top layer's state after each sequence's own last step; in both directions the
      forward cell's after the last step beside the backward cell's after the first.
    - many to many with something to say at each step: `output="every"`.
    - many to many of different lengths: two networks, as in `examples/translator.py`.

    >>> model = SequenceModel(cell="gru", mode="distribution", classes=5, hidden=8, features=3, batch_first=True)
    >>> logp, state = model(torch.randn(2, 7, 3), lengths=torch.tensor([7, 4]))
    >>> logp.shape, bool(logp.exp().sum(-1).allclose(torch.ones(2))), sorted(state)
    (torch.Size([2, 5]), True, ['h0'])
    """

    def __init__(self, config: SequenceConfig | None = None, vocab: Vocab | None = None, **options: Any) -> None:
        super().__init__()
        self.config = config = configured(config, vocab is not None, options)
        if (vocab is None) != (config.features > 0):
            raise OptionError("a text input needs a vocabulary and features=0; numbers need features above 0 and none")
        self.vocab = vocab
        self.embedding = nn.Embedding(len(vocab), config.embedding) if vocab and config.embedding else None
        self.stack = Stack(
            config.cell,
            inputs=config.features or config.embedding or len(vocab or ()),
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
            bidirectional=config.bidirectional,
            bias=config.bias,
            projection=config.projection,
            weight_dropout=config.weight_dropout,
        )
        distribution = config.mode == "distribution"
        self.pooling = Pooling(config.pooling.split("+"), self.stack.outputs)
        width = self.pooling.features
        outputs, order = config.classes if distribution else 1, config.gram_order
        self.grams = Grams(config.grams, outputs, order=order, dropout=config.gram_dropout) if config.grams else None
        self.head: ScoreHead | DistributionHead
        self.head = DistributionHead(width, config.classes) if distribution else ScoreHead(width)
        for part in (self.stack, self.embedding) if config.frozen else ():
            if part is not None:
                part.requires_grad_(False)
        self.eval()

    @classmethod
    def from_language_model(cls, model: CharRNN, *, freeze: bool = False, **options: Any) -> SequenceModel:
        """A new head on a copy of a language model's embedding and layers, so that a little labelled text goes far.

        Args:
            model: a trained language model.
            freeze: whether the copy keeps its weights and only the head is trained.
            options: `mode`, `classes`, `dropout`, `output`, `loss`, as of `SequenceConfig`.

        >>> from charlm.recurrent.model import RNNConfig
        >>> lm = CharRNN(Vocab.of("abracadabra"), RNNConfig(model="gru", hidden=8, embedding=3))
        >>> detector = SequenceModel.from_language_model(lm, mode="distribution", classes=2, freeze=True)
        >>> sorted(name for name, weights in detector.named_parameters() if weights.requires_grad)
        ['head.linear.bias', 'head.linear.weight']
        """
        shape = model.config
        copied = {name: getattr(shape, name) for name in ("layers", "hidden", "embedding", "bias", "projection")}
        taken = {"cell", "features", "bidirectional", *copied} & set(options)
        if taken:
            raise OptionError(f"{', '.join(sorted(taken))}: that is the language model's own and cannot be chosen")
        given = {"dropout": shape.dropout, **options}
        config = SequenceConfig(cell=shape.model, features=0, frozen=freeze, **copied, **given)
        made = cls(config, model.vocab).to(model.head.linear.weight)
        made.stack.load_state_dict(model.stack.state_dict())
        made.stack.backend = model.stack.backend
        if made.embedding is not None and model.embedding is not None:
            made.embedding.load_state_dict(model.embedding.state_dict())
        return made

    def reset_parameters(self, generator: torch.Generator | None = None, *, symbols: bool = False) -> None:
        """Fresh initial weights from this generator, as documented with the cells and the head; embeddings as in
        `CharRNN`; the first input weights for `symbols`, as of `Stack.reset_parameters`, or not."""
        self.head.reset_parameters(generator)
        self.pooling.reset_parameters()
        if self.grams is not None:
            nn.init.zeros_(self.grams.weight)
        self.stack.reset_parameters(generator, symbols=symbols)
        if self.embedding is not None:
            with torch.no_grad():
                self.embedding.weight.normal_(0, self.config.embedding**-0.5, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.linear.weight.device

    @property
    def parameter_count(self) -> int:
        """How many numbers the network has, frozen ones included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def initial_state(self, lanes: int) -> State:
        """Zeros, with the names of `Stack.initial_state`."""
        return self.stack.initial_state(lanes)

    def features(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        state: State | None = None,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """What the head is given: the top layer's output [B, D] or, with `output="every"`, [T, B, D]; and the state.

        Arguments as of `forward`, but always [T, B, ...].
        """
        x = self._extended(self._scaled(x), steps)
        lengths = _checked(lengths, x)
        x = x if lengths is None else _cleared(x, lengths)
        if self.training and self.config.input_dropout:
            x = _thinned(x, self.config.input_dropout, generator)
        table = None if self.embedding is None else self.embedding.weight
        fixed = self.config.frozen and not x.requires_grad
        with torch.no_grad() if fixed else contextlib.nullcontext():
            y_TBD, after = self.stack(x, state, table=table, lengths_B=lengths, generator=generator)
        if self.config.output == "last":
            top = self.stack.layers - 1
            last_BD = torch.cat([after[f"h{top}{suffix}"] for suffix in self.stack.directions], -1)
            y_TBD = self.pooling(y_TBD, last_BD, lengths)
        return dropout(y_TBD, self.config.dropout, self.training, generator), after

    def _expect(self, x: Tensor, axes: str) -> None:
        """Refuses an input of another kind or shape than the model reads; `axes` are the first two as given."""
        features = self.config.features
        if self.vocab is not None:
            if x.is_floating_point() or x.dim() != 2:
                raise OptionError(f"text goes in as whole ids [{axes}], not as {x.dtype} {list(x.shape)}")
        elif not (x.dim() == 3 and x.shape[-1] == features) and not (x.dim() == 2 and features == 1):
            raise OptionError(
                f"the input has {features} numbers a step, [{axes}, {features}], not the shape {list(x.shape)}"
            )

    def _scaled(self, x: Tensor) -> Tensor:
        """The input as the layers want it: ids as they are, numbers scaled, [T, B, F]."""
        self._expect(x, "T, B")
        if self.vocab is not None:
            return x
        x = x.unsqueeze(-1) if x.dim() == 2 else x
        if self.config.input_scale is not None:
            x = self.config.input_scale.apply(x if x.is_floating_point() else x.double())
        return x.to(self.head.linear.weight)

    def _extended(self, x: Tensor, steps: int | None) -> Tensor:
        """One step of input followed by nothing."""
        if steps is None:
            return x
        if len(x) != 1 or steps < 1 or self.config.output != "every":
            raise OptionError("steps are for an input of one step and output='every'")
        nothing = x.new_full((steps - 1, *x.shape[1:]), 0 if x.is_floating_point() else -1)
        return torch.cat([x, nothing])

    def raw(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        state: State | None = None,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """What losses are computed from: logits of a Score, log-probabilities of a Distribution; always [T, B, ...].

        Arguments as of `forward`; what stands behind a sequence's end means nothing.
        """
        features, after = self.features(x, lengths, state, steps=steps, generator=generator)
        raw = self.head.logits(features) if isinstance(self.head, ScoreHead) else self.head(features)
        if self.grams is not None:
            if self.training and not self.config.gram_dropout:
                x = _thinned(x, self.config.input_dropout, generator)
            added = self.grams(x, None if lengths is None else torch.as_tensor(lengths).to(x.device), generator)
            raw = raw + added.squeeze(-1) if self.config.mode == "score" else (raw + added).log_softmax(-1)
        if self.config.class_weights and not self.training:  # as if they had not been weighed
            shift = raw.new_tensor(self.config.class_weights).log()
            raw = raw - (shift[1] - shift[0]) if self.config.mode == "score" else (raw - shift).log_softmax(-1)
        return raw, after

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        state: State | None = None,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """Scores, or log-probabilities of the classes, and the state after each sequence's end.

        Args:
            x: numbers [T, B, F] ([T, B] where F is 1), or ids [T, B], -1 for an unknown character; batch first where
                the configuration says so.
            lengths: of padded sequences, [B] whole numbers in a tensor or list; outputs behind a sequence's end are 0
                and mean nothing.
            state: as from `initial_state` or an earlier call; zeros by default.
            steps: how many steps are to come of an input of one step; see the class.
            generator: source of the dropout masks in training; torch's own by default.

        Returns:
            [B] or [B, V]; with `output="every"` [T, B] or [T, B, V]. Scores are in 0..1, whatever `target_scale` is:
            `predict` undoes it.
        """
        turned = self.config.batch_first
        self._expect(x, "B, T" if turned else "T, B")
        raw, after = self.raw(x.transpose(0, 1) if turned else x, lengths, state, steps=steps, generator=generator)
        y = torch.sigmoid(raw) if self.config.mode == "score" else raw
        if self.config.output == "last":
            return y, after
        if lengths is not None:
            y = _cleared(y, torch.as_tensor(lengths).to(y.device))
        return y.transpose(0, 1) if turned else y, after

    def losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target.

        Args:
            raw: what `raw` gave for it: [...] or [..., V].
            targets: numbers [...] in the user's own units for a Score; labels [...] or rows [..., V].
        """
        weights = _weights(self.config.class_weights, targets, self.config.mode) if self.training else 1.0
        if self.config.mode == "distribution":
            return weights * distribution_losses(raw, targets)
        if self.config.target_scale is not None:
            targets = self.config.target_scale.apply(targets.double())
            if self.config.loss == "cross-entropy":  # a held-out target may lie outside what was fitted
                targets = targets.clamp(0, 1)
        return weights * score_losses(raw, targets, self.config.loss)

    @torch.no_grad()
    def predict(self, inputs: Sequences, *, steps: int | None = None, batch: int = 256) -> Sequences:
        """What the model says of sequences, in evaluation mode, in the order they were given.

        Args:
            inputs: see `Sequences`.
            steps: how many steps are to come of inputs of one step.
            batch: how many are read side by side; those of like lengths are.

        Returns:
            For each input one step, or with `output="every"` as many as it has: numbers [1] (Scores, or numbers in the
            targets' own units) or probabilities [V], float64 on the CPU.
        """
        training = self.training
        self.eval()
        order = torch.argsort(inputs.lengths, stable=True)
        pieces = []
        for rows in torch.split(order, batch):
            x, lengths = inputs.padded(rows)
            there = None if lengths is None else lengths.to(self.device)
            raw, _ = self.raw(x.to(self.device), there, steps=steps)
            raw = raw.unsqueeze(0) if self.config.output == "last" else raw
            pieces.append(_stepwise(self._shown(raw), None if self.config.output == "last" else lengths))
        self.train(training)
        counts = torch.cat([counts for _, counts in pieces])
        found = Sequences(values=torch.cat([values for values, _ in pieces]), lengths=counts)
        return found.take(torch.argsort(order))

    def _shown(self, raw_TBx: Tensor) -> Tensor:
        """Raw outputs as a person wants them: [T, B, 1 or V], float64."""
        raw = raw_TBx.cpu().double()
        if self.config.mode == "distribution":
            return raw.exp()
        scores = torch.sigmoid(raw).unsqueeze(-1)
        return scores if self.config.target_scale is None else self.config.target_scale.undo(scores)


def _thinned(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """The input with some of its steps as unknown characters, or as zeros."""
    if not x.is_floating_point():
        return drop_symbols(x, probability, True, generator)
    kept_TB1 = torch.empty(*x.shape[:2], 1, device=x.device).bernoulli_(1 - probability, generator=generator)
    return x * kept_TB1.to(x)


def _weights(weights: Sequence[float], targets: Tensor, mode: str) -> Tensor | float:
    """What the loss of each target counts."""
    if not weights:
        return 1.0
    w_V = torch.tensor(weights, device=targets.device)
    if mode == "score":
        return w_V[0] + (w_V[1] - w_V[0]) * targets
    return targets.to(w_V) @ w_V if targets.is_floating_point() else w_V[targets]


def _cleared(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeros behind each end, whatever stood there; ids are left alone."""
    if not x.is_floating_point():
        return x
    behind_TB = torch.arange(len(x), device=x.device).unsqueeze(-1) >= lengths
    return x.masked_fill(behind_TB.view(*behind_TB.shape, *[1] * (x.dim() - 2)), 0)


def _stepwise(y_TBx: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Batch to values end to end, and how many each sequence has."""
    steps, lanes = y_TBx.shape[:2]
    lengths = torch.full((lanes,), steps) if lengths is None else lengths
    inside_BT = torch.arange(steps) < lengths.unsqueeze(-1)
    return y_TBx.transpose(0, 1)[inside_BT], lengths


def _checked(lengths: Tensor | Sequence[int] | None, x: Tensor) -> Tensor | None:
    """Lengths of the right shape, each from 1 to T."""
    if lengths is None:
        return None
    lengths = torch.as_tensor(lengths)
    if lengths.shape != (x.shape[1],) or lengths.is_floating_point():
        raise OptionError(f"lengths are {x.shape[1]} whole numbers, one a sequence, not {list(lengths.shape)}")
    if int(lengths.min()) < 1 or int(lengths.max()) > len(x):
        raise OptionError(f"the lengths of these sequences are from 1 to {len(x)}")
    return lengths.to(x.device)
