"""The one idea: a language model reads ids with a state, and returns log-probabilities and the next state.

Counted and neural models both are `LanguageModel`s; evaluating, sampling, scoring and comparing know only this
file. Axes: T steps in time, B lanes (independent streams side by side), V symbols of the vocabulary.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping

import torch
from torch import Tensor

from charlm.models.rule import SamplingRule
from charlm.text.vocab import Vocab

__all__ = ["LanguageModel", "State", "copy_into", "detach", "generate_by_steps", "pick_targets", "take"]

State = dict[str, Tensor]
"""What a model remembers: flat, a tensor a name, lanes on axis 0."""


class LanguageModel(abc.ABC):
    """A model of the next character given all characters so far. Log-probabilities are natural logarithms.

    Every method takes the state and returns the next one; the model itself remembers nothing. Reading a text
    whole or in pieces with the state carried gives the same numbers; a lane never affects its neighbour.

    Ids are int64 tensors on `device`. The id -1 stands for a character that the vocabulary does not hold: it
    may be read, as a symbol never seen before, and is never a target.

    An impossible next character has log-probability -inf. Where the history was never seen and the model is
    undefined there (unsmoothed maximum likelihood), the whole row is NaN; every other row sums to 1.
    """

    vocab: Vocab

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Where ids are expected and states live."""

    @abc.abstractmethod
    def initial_state(self, lanes: int) -> State:
        """The state before anything was read, for so many lanes."""

    @abc.abstractmethod
    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads ids; row [t, b] of `logp_TBV` is log P(next symbol | all that lane b has read up to step t)."""

    @abc.abstractmethod
    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """Like `logprobs`, but only the log-probability of the symbol that came: `logp_TB`.

        Targets of -1 (unknown symbols and padding) get an arbitrary finite value or NaN; callers mask them.
        """

    @abc.abstractmethod
    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """Draws `steps` symbols a lane.

        Args:
            ids_B: the last symbol of each lane, not yet read.
            state: the state before that symbol.
            steps: how many symbols to draw.
            rule: temperature, top-k, top-p.
            noise_TB: uniform numbers in [0, 1), float64, on the CPU or the device; number [t, b] decides draw t
                of lane b, so the same noise gives the same text however the steps are cut into calls.

        Returns:
            The drawn ids [steps, B]; the model's own log-probability of each (at temperature 1, nothing left
            out); and the state in which the last drawn symbol has not been read.
        """


def pick_targets(logp_TBV: Tensor, targets_TB: Tensor) -> Tensor:
    """The log-probability of each target out of full rows; targets of -1 pick symbol 0 (callers mask them).

    >>> logp = torch.tensor([[[0.25, 0.75]]]).log()
    >>> pick_targets(logp, torch.tensor([[1]])).exp().item()
    0.75
    """
    return logp_TBV.gather(-1, targets_TB.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def generate_by_steps(
    model: LanguageModel, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
) -> tuple[Tensor, Tensor, State]:
    """`LanguageModel.generate` by asking for one row at a time: right for any model, fast for none."""
    if not steps:
        return ids_B.new_zeros((0, len(ids_B))), noise_TB.new_zeros((0, len(ids_B))), state
    drawn, logps = [], []
    for step in range(steps):
        logp_TBV, state = model.logprobs(ids_B.unsqueeze(0), state)
        ids_B = rule.draw(logp_TBV[0], noise_TB[step])
        drawn.append(ids_B)
        logps.append(pick_targets(logp_TBV, ids_B.unsqueeze(0))[0])
    return torch.stack(drawn), torch.stack(logps), state


def take(state: Mapping[str, Tensor], lanes: Tensor) -> State:
    """The state of some lanes, in the order asked for (an id may be asked for twice)."""
    return {name: tensor.index_select(0, lanes.to(tensor.device)) for name, tensor in state.items()}


def copy_into(destination: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copies one state into the tensors of another of the same shape."""
    for name, tensor in destination.items():
        tensor.copy_(source[name])


def detach(state: Mapping[str, Tensor]) -> State:
    """The same numbers without a past to differentiate: what truncates backpropagation through time."""
    return {name: tensor.detach() for name, tensor in state.items()}
