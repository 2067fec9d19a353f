"""What a language model says of whole texts: a Score, the Distribution of what comes next, and hidden states.

Scores and Distributions are asked of any language model, hidden states of a recurrent one. Axes: N texts, T steps,
B of them side by side, D outputs of the top layer, V symbols.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError, TextError
from charlm.lm.interface import LanguageModel
from charlm.recurrent.model import CharRNN
from charlm.sequences.batches import Sequences

__all__ = ["distribution", "hidden_features", "hidden_steps", "score", "scores"]


def score(model: LanguageModel, text: str) -> float:
    """The Score of a text: its mean probability per character, exp(−nats), in 0..1.

    The first character is context, not a target. Characters that the model does not know are read and not scored; a
    text with an impossible character has the Score 0.

    Raises:
        TextError: the text has no character to score.

    >>> from charlm.recurrent.model import RNNConfig
    >>> from charlm.text.vocab import Vocab
    >>> model = CharRNN(Vocab.of("abcd"), RNNConfig(hidden=4))
    >>> for weights in model.parameters(): _ = weights.data.zero_()
    >>> round(score(model, "abba"), 6)  # uniform over four characters
    0.25
    """
    found = float(scores(model, [text])[0])
    if math.isnan(found):
        raise TextError("a Score needs a text of two characters or more that the model knows")
    return found


@torch.no_grad()
def scores(model: LanguageModel, texts: Iterable[str], *, batch: int = 64) -> NDArray[np.float64]:
    """The Score of each text, [N]; NaN for one without a character to score. See `score`.

    Texts of like lengths are read side by side, each from a fresh state; a text's Score does not depend on the others.
    """
    wanted = list(texts)
    found = np.full(len(wanted), np.nan)
    filled = [number for number, text in enumerate(wanted) if text]
    if not filled:
        return found
    begins = torch.from_numpy(model.vocab.begins_character.copy())
    for rows, ids_TB in _batches(Sequences.of_texts([wanted[number] for number in filled], model.vocab), batch):
        if len(ids_TB) < 2:
            continue
        inputs, targets = ids_TB[:-1].to(model.device), ids_TB[1:].to(model.device)
        logp_TB, _ = model.target_logprobs(inputs, targets, model.initial_state(len(rows)))
        known_TB = ids_TB[1:] >= 0  # neither unknown nor behind the end
        logp_TB = logp_TB.cpu().double().nan_to_num(nan=-torch.inf).masked_fill(~known_TB, 0)
        characters_B = (begins[ids_TB[1:].clamp(min=0)] & known_TB).sum(0)
        found[[filled[row] for row in rows]] = (logp_TB.sum(0) / characters_B).exp().numpy()
    return found


@torch.no_grad()
def distribution(model: LanguageModel, history: str) -> NDArray[np.float64]:
    """The probability of each symbol of the vocabulary after a history, [V].

    NaN throughout where the model is undefined at the history (unsmoothed maximum likelihood, never seen).

    Raises:
        TextError: an empty history.

    >>> from charlm.recurrent.model import RNNConfig
    >>> from charlm.text.vocab import Vocab
    >>> model = CharRNN(Vocab.of("abcd"), RNNConfig(hidden=4))
    >>> p = distribution(model, "abba")
    >>> p.shape, round(float(p.sum()), 6)
    ((4,), 1.0)
    """
    if not history:
        raise TextError("a Distribution is of what comes after a history: give at least one character")
    ids = torch.from_numpy(model.vocab.encode(history, unknown=True).astype(np.int64)).to(model.device)
    state = model.initial_state(1)
    for piece in torch.split(ids[:-1], 1024) if len(ids) > 1 else ():
        _, state = model.target_logprobs(piece.unsqueeze(-1), piece.unsqueeze(-1), state)
    logp_TBV, _ = model.logprobs(ids[-1:].unsqueeze(-1), state)
    found: NDArray[np.float64] = logp_TBV[0, 0].double().exp().cpu().numpy()
    return found


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
