"""What stands above the recurrent layers: their outputs pooled, turned into probabilities, and how far these are off.

Axes: any leading ones (T steps, B lanes), D features, V classes; N targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.nn.kernels.fused import linear

POOLINGS = ("last", "mean", "max", "attention")
"""The parts that a pooling may have."""


class Pooling(nn.Module):
    """The outputs of all steps of a sequence as one vector: its parts side by side.

    Args:
        parts: of `POOLINGS`. `last` is the state after the last step of each direction; `mean` and `max` are over the
            sequence's own steps; `attention` is a mean weighted by the softmax of a linear map of each step's output.
        width: D, of the outputs.

    >>> pooling = Pooling(("last", "mean"), 1)
    >>> y_TBD, last_BD = torch.tensor([[[1.0]], [[3.0]], [[9.0]]]), torch.tensor([[3.0]])
    >>> pooling(y_TBD, last_BD, torch.tensor([2])).tolist()  # two steps, and padding
    [[3.0, 2.0]]
    """

    def __init__(self, parts: Sequence[str], width: int) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.features = width * len(self.parts)
        self.attention = nn.Linear(width, 1, bias=False) if "attention" in self.parts else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Attention begins as the mean."""
        if self.attention is not None:
            nn.init.zeros_(self.attention.weight)

    def forward(self, y_TBD: Tensor, last_BD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """The vectors [B, D × parts].

        Args:
            y_TBD: outputs of all steps.
            last_BD: the final state.
            lengths_B: of padded sequences.
        """
        steps, lanes = y_TBD.shape[:2]
        if lengths_B is None:
            lengths_B = torch.full((lanes,), steps, device=y_TBD.device)
        behind_TB1 = (torch.arange(steps, device=y_TBD.device).unsqueeze(-1) >= lengths_B).unsqueeze(-1)
        found = []
        for part in self.parts:
            if part == "last":
                found.append(last_BD)
            elif part == "mean":
                found.append(y_TBD.masked_fill(behind_TB1, 0).sum(0) / lengths_B.unsqueeze(-1))
            elif part == "max":
                found.append(y_TBD.masked_fill(behind_TB1, -torch.inf).amax(0))
            else:
                assert self.attention is not None
                weight_TB1 = self.attention(y_TBD).masked_fill(behind_TB1, -torch.inf).softmax(0)
                found.append((y_TBD * weight_TB1).sum(0))
        return torch.cat(found, -1)


class Grams(nn.Module):
    """A linear map of how often strings of one to N characters occur in a text, its boundaries included.

    The strings are hashed into buckets (Joulin et al. 2017), each of which has a weight for every output; all begin at
    zero. Beside a recurrent network it learns what stands in short strings, and leaves the rest to the network.

    Args:
        buckets: how many.
        outputs: K.
        order: N, the length of the longest strings.
        dropout: share of the occurrences that are left out while training; the others count more, so that the sum
            keeps its mean. A long string occurs once or never again: without dropout its weight learns rows by heart.

    >>> Grams(64, 2)(torch.tensor([[0, 1], [1, -1]]), torch.tensor([2, 1])).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, buckets: int, outputs: int, *, order: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.buckets, self.order, self.dropout = buckets, order, dropout
        self.weight = nn.Parameter(torch.zeros(buckets, outputs))

    def forward(self, ids_TB: Tensor, lengths_B: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
        """The sums [B, K] of the weights of all strings; an unknown character, -1, is one character of its own.

        Args:
            ids_TB: of the characters.
            lengths_B: of padded texts.
            generator: source of the dropout masks in training; torch's own by default.
        """
        steps, lanes = ids_TB.shape
        if lengths_B is None:
            lengths_B = torch.full((lanes,), steps, device=ids_TB.device)
        place_T1 = torch.arange(1, steps + 2, device=ids_TB.device).unsqueeze(-1)
        boundary_1B = ids_TB.new_zeros(1, lanes)
        inside_TB = torch.cat([ids_TB + 2, boundary_1B])  # 1 is unknown, 0 a boundary
        framed_TB = torch.cat([boundary_1B, inside_TB.masked_fill(place_T1 > lengths_B, 0)])
        known_TB = torch.cat([torch.ones_like(boundary_1B), (place_T1 <= lengths_B + 1).long()])
        key_TB, total_BK = torch.zeros_like(framed_TB), self.weight.new_zeros(lanes, self.weight.shape[1])
        for order in range(1, min(self.order, steps + 2) + 1):
            key_TB = (key_TB[: steps + 3 - order] * 1_000_003 + framed_TB[order - 1 :] + order * 7919) % 2_147_483_647
            weight_TBK = F.embedding(key_TB % self.buckets, self.weight)
            times_TB = known_TB[order - 1 :]
            if self.training and self.dropout:
                kept_TB = self.weight.new_empty(times_TB.shape).bernoulli_(1 - self.dropout, generator=generator)
                times_TB = times_TB * kept_TB / (1 - self.dropout)
            total_BK = total_BK + (weight_TBK * times_TB.unsqueeze(-1)).sum(0)
        return total_BK


class RecentGrams(nn.Module):
    """What the last two to N characters add to the logits of the next one: a row of weights for each string of them.

    These are the maximum-entropy features of an n-gram model, trained together with the network (Mikolov et al. 2011):
    short strings soon know what follows them, and the network learns what they cannot know. Strings are hashed into
    rows, as in `Grams`; all rows begin at zero. Row R stays zero, for strings with an unknown character.

    Args:
        rows: R, how many rows the strings share.
        symbols: V.
        order: N, the length of the longest strings, 2 or more.

    >>> grams = RecentGrams(100, 3, order=3)
    >>> ids_TB, before = torch.tensor([[0], [1], [2]]), grams.initial_state(1)
    >>> added_TBV, after = grams(ids_TB, before)
    >>> added_TBV.shape, before.tolist(), after.tolist()
    (torch.Size([3, 1, 3]), [[-1, -1]], [[1, 2]])
    """

    def __init__(self, rows: int, symbols: int, *, order: int) -> None:
        super().__init__()
        self.rows, self.order = rows, order
        self.weight = nn.Parameter(torch.zeros(rows + 1, symbols))

    def initial_state(self, lanes: int) -> Tensor:
        """No character has been read: -1 in [lanes, N - 1]."""
        return torch.full((lanes, self.order - 1), -1, device=self.weight.device)

    def places(self, ids_TB: Tensor, recent_BN: Tensor, resets_TB: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The rows [T, B, N - 1] of the strings that end at each step, and the last N - 1 characters after all steps.

        Args:
            ids_TB: characters read; -1 is unknown.
            recent_BN: the N - 1 characters before them, the last one last.
            resets_TB: bool; a lane forgets what it has read before the step where it is true.
        """
        steps, before = len(ids_TB), self.order - 1
        all_SB = torch.cat([recent_BN.t(), ids_TB.long()])
        key_TB, known_TB = all_SB[before:] + 2, all_SB[before:] >= 0
        marks_SB = None
        if resets_TB is not None:
            marks_SB = torch.cat([torch.zeros_like(recent_BN.t(), dtype=torch.bool), resets_TB])
        found = []
        for back in range(1, self.order):
            older_TB = all_SB[before - back : before - back + steps]
            key_TB = (key_TB * 1_000_003 + older_TB + 2) % 2_147_483_647  # exact in double precision too
            known_TB = known_TB & (older_TB >= 0)
            if marks_SB is not None:
                known_TB = known_TB & ~marks_SB[before - back + 1 : before - back + 1 + steps]
            found.append(torch.where(known_TB, key_TB % self.rows, self.rows))
        recent_NB = all_SB[-before:]
        if marks_SB is not None:  # a reset at the next place or later makes a character forgotten
            later_NB = marks_SB[-before:].flip(0).cumsum(0).flip(0)
            recent_NB = recent_NB.masked_fill(torch.cat([later_NB[1:], torch.zeros_like(later_NB[:1])]) > 0, -1)
        return torch.stack(found, -1), recent_NB.t().contiguous()

    def forward(self, ids_TB: Tensor, recent_BN: Tensor, resets_TB: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sums [T, B, V] of the rows, whose gradient has only the rows that were read, and the characters after."""
        places_TBN, recent_BN = self.places(ids_TB, recent_BN, resets_TB)
        steps, lanes, strings = places_TBN.shape
        added = F.embedding_bag(
            places_TBN.view(steps * lanes, strings), self.weight, mode="sum", sparse=True, padding_idx=self.rows
        )
        return added.view(steps, lanes, self.weight.shape[1]), recent_BN


class DistributionHead(nn.Module):
    """A linear map and a LogSoftmax: log-probabilities over V classes.

    Args:
        features: D, the width of what comes in.
        classes: V.

    >>> head = DistributionHead(4, 3)
    >>> head(torch.zeros(2, 4)).exp().sum(-1).allclose(torch.ones(2))
    True
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.log_softmax = nn.LogSoftmax(dim=-1)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weights uniform in ±1/√D, biases zero: the first loss is then near ln V."""
        bound = 1 / math.sqrt(self.linear.in_features)
        with torch.no_grad():
            self.linear.weight.uniform_(-bound, bound, generator=generator)
            self.linear.bias.zero_()

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Log-probabilities [..., V] of features [..., D]; `added` [..., V] is added to the logits."""
        logits = linear(x, self.linear.weight, self.linear.bias)
        logits = logits if added is None else logits + added
        log_probabilities: Tensor = self.log_softmax(logits)
        return log_probabilities


class ScoreHead(nn.Module):
    """A linear map and a sigmoid: one number in 0..1, a Score.

    Args:
        features: D, the width of what comes in.

    >>> head = ScoreHead(4)
    >>> head(torch.zeros(2, 4)).tolist(), head.logits(torch.zeros(2, 4)).shape
    ([0.5, 0.5], torch.Size([2]))
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weights uniform in ±1/√D, bias zero: the first Scores are then near 1/2."""
        bound = 1 / math.sqrt(self.linear.in_features)
        with torch.no_grad():
            self.linear.weight.uniform_(-bound, bound, generator=generator)
            self.linear.bias.zero_()

    def logits(self, x: Tensor) -> Tensor:
        """ln(Score / (1 − Score)) [...] of features [..., D]: what a loss is computed from without loss of digits."""
        logits: Tensor = self.linear(x)
        return logits.squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [...] of features [..., D]."""
        return torch.sigmoid(self.logits(x))


def score_losses(logits: Tensor, targets: Tensor, loss: str = "cross-entropy") -> Tensor:
    """How far each Score is off.

    Args:
        logits: as of `ScoreHead.logits`, any shape.
        targets: numbers in 0..1 of the same shape; those between are probabilities of a one.
        loss: `cross-entropy`, −t ln s − (1 − t) ln(1 − s), finite for every logit; or `squared`, (s − t)².

    >>> score_losses(torch.tensor([0.0, -200.0]), torch.tensor([1.0, 1.0])).tolist()
    [0.6931..., 200.0]
    >>> score_losses(torch.tensor([0.0]), torch.tensor([1.0]), "squared").tolist()
    [0.25]
    """
    targets = targets.to(logits.dtype)
    if loss == "squared":
        return (torch.sigmoid(logits) - targets) ** 2
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def distribution_losses(logp: Tensor, targets: Tensor) -> Tensor:
    """How far each Distribution is off, in nats.

    Args:
        logp: log-probabilities [..., V].
        targets: class labels [...], whole numbers: the loss is −ln p of the label; or rows of probabilities
            [..., V]: the loss is the Kullback-Leibler divergence Σ t (ln t − ln p), where 0 ln 0 is 0.

    >>> logp = torch.tensor([[0.25, 0.75]]).log()
    >>> distribution_losses(logp, torch.tensor([0])).tolist()  # ln 4
    [1.386...]
    >>> round(distribution_losses(logp, torch.tensor([[1.0, 0.0]])).item(), 4)  # ln 4 again
    1.3863
    """
    if targets.is_floating_point():
        return F.kl_div(logp, targets.to(logp.dtype), reduction="none").sum(-1)
    return -logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
