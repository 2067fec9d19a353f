"""Many models, one held-out text, one table: what may be compared, and how an unsmoothed model is reported.

A maximum-likelihood n-gram gives unseen events probability zero, so its held-out perplexity is infinite. Beside
that stand the share of targets that it covers, its nats on those, and every network's nats on the same targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.lm.evaluate import Evaluation, Row, measure
from charlm.text.vocab import Vocab

__all__ = ["Compared", "compare", "summary"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One line of the table.

    Args:
        row: the model's own facts.
        evaluation: its figures on all targets.
        coverage: share of targets that got a probability above zero.
        unseen_histories: targets whose history was never counted, so that the model is undefined there.
        unseen_continuations: targets never counted after a history that was.
        covered_nats: nats a character on the covered targets; None where there are none.
        network_covered_nats: by the name of each network, its nats on those same targets.
    """

    row: Row
    evaluation: Evaluation
    coverage: float
    unseen_histories: int
    unseen_continuations: int
    covered_nats: float | None
    network_covered_nats: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """The line as `charlm compare --json` prints it; an infinite or undefined value is None."""
        row, figures = self.row, self.evaluation.to_json()
        return {
            "name": row.name,
            "family": row.family,
            "order": row.order,
            "smoothing": row.smoothing,
            "parameters": row.parameters,
            **{key: figures[key] for key in ("nats", "bits_per_char", "perplexity", "standard_error", "accuracy")},
            "coverage": self.coverage,
            "unseen_histories": self.unseen_histories,
            "unseen_continuations": self.unseen_continuations,
            "zero_probability_targets": figures["zero_probability_targets"],
            "covered_nats": self.covered_nats,
            "network_covered_nats": self.network_covered_nats,
            "train_nats": row.train_nats if row.train_nats is not None and math.isfinite(row.train_nats) else None,
            "ngrams": row.ngrams,
            "bytes": row.bytes,
            "seconds": row.seconds,
        }


def compare(rows: Sequence[Row], targets_N: NDArray[np.int64], vocab: Vocab) -> list[Compared]:
    """Puts rows over the same targets side by side.

    Args:
        rows: one a model, all of N targets in the same order.
        targets_N: the targets' ids, -1 where the vocabulary does not hold them.
        vocab: decides which symbols begin a character.

    >>> targets = np.array([0, 1])
    >>> counted = Row(name="order 1", family="ngram", logp_T=np.log([0.5, 0.0001]), hit_T=np.array([True, False]))
    >>> counted.logp_T[1] = -np.inf
    >>> network = Row(name="net", family="rnn", logp_T=np.log([0.25, 0.25]), hit_T=np.array([True, True]))
    >>> first, second = compare([counted, network], targets, Vocab(("a", "b")))
    >>> first.coverage, round(first.covered_nats, 4), round(first.network_covered_nats["net"], 4)
    (0.5, 0.6931, 1.3863)
    """
    networks = [row for row in rows if row.family == "rnn"]
    return [_compared(row, networks, targets_N, vocab) for row in rows]


def _compared(row: Row, networks: list[Row], targets_N: NDArray[np.int64], vocab: Vocab) -> Compared:
    known_N = targets_N >= 0
    covered_N = known_N & np.isfinite(row.logp_T)
    return Compared(
        row=row,
        evaluation=measure(row, targets_N, vocab),
        coverage=float(covered_N.sum() / known_N.sum()),
        unseen_histories=int((known_N & np.isnan(row.logp_T)).sum()),
        unseen_continuations=int((known_N & np.isneginf(row.logp_T)).sum()),
        covered_nats=_nats(row, covered_N, targets_N, vocab),
        network_covered_nats={net.name: _nats(net, covered_N, targets_N, vocab) for net in networks if net is not row},
    )


def _nats(row: Row, which_N: NDArray[np.bool_], targets_N: NDArray[np.int64], vocab: Vocab) -> float | None:
    """Nats a character on some of the targets; None where there are none or where it is not finite."""
    characters = int(vocab.begins_character[targets_N[which_N]].sum())
    total = float(-row.logp_T[which_N].sum())
    return total / characters if characters and math.isfinite(total) else None


def summary(lines: Sequence[Compared]) -> str:
    """One sentence: who is best, by how much, and what an unsmoothed model cannot say."""
    finite = [line for line in lines if math.isfinite(line.evaluation.nats)]
    counted = min((x for x in finite if x.row.family == "ngram"), key=_order, default=None)
    network = min((x for x in finite if x.row.family == "rnn"), key=_order, default=None)
    mixed = min((x for x in finite if x.row.family == "mixture"), key=_order, default=None)
    learning = min((x for x in finite if x.row.family == "dynamic"), key=_order, default=None)
    sentence = _duel(counted, network, mixed)
    if learning is not None:
        sentence += f" {learning.row.name}, that is, learning on while it reads: {learning.evaluation.nats:.4f}."
    unsmoothed = [line for line in lines if line.row.smoothing == "none" and line.coverage < 1]
    if unsmoothed:
        worst = max(unsmoothed, key=lambda line: line.row.order or 0)
        sentence += (
            f" Unsmoothed counting of order {worst.row.order} gives {100 * (1 - worst.coverage):.1f} % of the targets "
            "no probability at all, so its perplexity is infinite."
        )
    return sentence.strip()


def _order(line: Compared) -> float:
    return line.evaluation.nats


def _duel(counted: Compared | None, network: Compared | None, mixed: Compared | None) -> str:
    if counted is None and network is None:
        return "No model here gives every target a probability."
    if counted is None or network is None:
        best = counted or network
        assert best is not None
        return f"{best.row.name} is best with {best.evaluation.nats:.4f} nats a character."
    first, second = sorted((counted, network), key=_order)
    share = 100 * (1 - first.evaluation.nats / second.evaluation.nats)
    together = "" if mixed is None else f" {mixed.row.name} together reach {mixed.evaluation.nats:.4f}."
    return (
        f"{first.row.name} foresees this text best with {first.evaluation.nats:.4f} nats a character, "
        f"{share:.1f} % below {second.row.name} ({second.evaluation.nats:.4f}).{together}"
    )
