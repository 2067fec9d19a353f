"""Hidden states of a recurrent language model as features of whole texts.

Axes: N texts, T steps, B of them side by side, D outputs of the top layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN
from charlm.sequences.batches import Sequences

__all__ = ["hidden_features", "hidden_steps"]


def hidden_features(
    model: CharRNN, texts: Iterable[str], *, kind: Literal["last", "mean"] = "last", batch: int = 64
) -> NDArray[np.float32]:
    """A vector for each text, [N, D]: the top layer's output after its last character, or its mean over all.

    Raises:
        OptionError: an empty text, or another kind.

    >>> from charlm.recurrent.model import RNNConfig
    >>> from charlm.text.vocab import Vocab
    >>> hidden_features(CharRNN(Vocab.of("abcd"), RNNConfig(hidden=4)), ["ab", "dada"], kind="mean").shape
    (2, 4)
    """
    if kind not in ("last", "mean"):
        raise OptionError(f"the features of a text are last or mean, not {kind!r}: for one vector a step, hidden_steps")
    steps = hidden_steps(model, texts, batch=batch)
    return np.stack([y_TD[-1] if kind == "last" else y_TD.mean(0) for y_TD in steps])


@torch.no_grad()
def hidden_steps(model: CharRNN, texts: Iterable[str], *, batch: int = 64) -> list[NDArray[np.float32]]:
    """A matrix for each text, [T, D]: the top layer's output after each character, dropout left out."""
    sequences = Sequences.of_texts(texts, model.vocab)
    table = None if model.embedding is None else model.embedding.weight
    training = model.training
    model.eval()
    found: dict[int, NDArray[np.float32]] = {}
    for rows, ids_TB in _batches(sequences, batch):
        y_TBD, _ = model.stack(ids_TB.to(model.device), table=table)  # what is behind an end is cut off below
        for lane, row in enumerate(rows):
            found[row] = y_TBD[: int(sequences.lengths[row]), lane].float().cpu().numpy()
    model.train(training)
    return [found[row] for row in range(len(sequences))]


def _batches(sequences: Sequences, batch: int) -> Iterator[tuple[list[int], Tensor]]:
    """Texts of like lengths side by side: their numbers, and their ids with -1 behind each end."""
    for rows in torch.split(torch.argsort(sequences.lengths, stable=True), batch):
        yield rows.tolist(), sequences.padded(rows)[0]
