"""How large the gradients of a network's weights usually are on its training part: what dynamic evaluation divides by.

Axes: T steps, V symbols, P weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from charlm.errors import OptionError
from charlm.lm.interface import State, pick_targets
from charlm.recurrent.model import CharRNN
from charlm.text.splits import Spans
from charlm.text.vocab import Ids

__all__ = ["flat", "forward_with", "gradient_sizes", "mean_nats"]


def gradient_sizes(
    network: CharRNN,
    ids: Ids,
    spans: Spans,
    *,
    segment: int = 32,
    samples: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """The usual size of each weight's gradient: its root mean square over segments of the training part, [P].

    Args:
        network: whose weights these are.
        ids: of the text.
        spans: its training part.
        segment: characters whose mean nats are differentiated, as while reading; as many are read before them.
        samples: at most so many segments, spread evenly over the part.
        progress: called with 1 after each.
    """
    frozen = copy.deepcopy(network).eval()
    leaves = list(frozen.parameters())
    length = int(min(2 * segment + 1, (spans[:, 1] - spans[:, 0]).max(initial=0)))
    if length < 2:
        raise OptionError("the training part has no character to predict: dynamic evaluation needs one to begin with")
    starts = _spread(spans, length, samples)
    squares_P = torch.zeros_like(flat(leaves))
    for start in starts.tolist():
        text = torch.from_numpy(ids[start : start + length].astype(np.int64)).to(network.device)
        before = max(0, length - 1 - segment)
        with torch.no_grad():
            _, hidden = frozen(text[:before, None], frozen.initial_state(1)) if before else (None, None)
        with torch.enable_grad():
            logp_TV, _ = forward_with(frozen, leaves, text[before:-1], hidden or frozen.initial_state(1))
            grads = torch.autograd.grad(mean_nats(logp_TV, text[before + 1 :]), leaves, materialize_grads=True)
        squares_P.addcmul_(flat(grads), flat(grads))
        if progress is not None:
            progress(1)
    return (squares_P / len(starts)).sqrt().detach()


def _spread(spans: Spans, length: int, samples: int) -> NDArray[np.int64]:
    """Where to take so many pieces of a length inside spans, evenly.

    >>> _spread(np.array([[0, 10], [20, 30], [40, 41]]), 6, 4).tolist()
    [0, 3, 21, 24]
    """
    rooms = (spans[:, 1] - spans[:, 0] - length + 1).clip(min=0)
    places = np.unique(np.linspace(0, rooms.sum() - 1, samples).astype(np.int64))
    span = np.searchsorted(rooms.cumsum(), places, side="right")
    return np.asarray(spans[span, 0] + places - (rooms.cumsum() - rooms)[span])


def forward_with(network: CharRNN, leaves: Sequence[Tensor], ids_T: Tensor, hidden: State) -> tuple[Tensor, State]:
    """Rows [T, V] and the next hidden states of one lane by these weights in place of the network's own."""
    weights = dict(zip((name for name, _ in network.named_parameters()), leaves, strict=True))
    logp_T1V, hidden = functional_call(network, weights, (ids_T[:, None], hidden))
    return logp_T1V[:, 0], hidden


def mean_nats(logp_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The mean over the known targets."""
    known_T = targets_T >= 0
    return -(pick_targets(logp_TV, targets_T) * known_T).sum() / known_T.sum().clamp(min=1)


def flat(tensors: Any) -> Tensor:
    """The numbers of several tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
