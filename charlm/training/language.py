"""Language modelling by truncated backpropagation through time: the objective that the loop optimises.

Each step reads the next window of all lanes; the hidden state goes from window to window and is detached there, so
gradients end at the window while memory does not (Williams and Peng 1990). Axes: T steps, B lanes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from charlm.analysis.evaluate import lane_segments, read_segments
from charlm.errors import CharlmError
from charlm.models.lm import State, detach, pick_targets
from charlm.models.rnn import CharRNN
from charlm.text.lanes import Lanes
from charlm.text.splits import Spans
from charlm.text.vocab import Ids
from charlm.training.loop import Objective

__all__ = ["LanguageObjective"]


class LanguageObjective(Objective):
    """The mean negative log-likelihood of the next character.

    Args:
        model: the network, on its device.
        lanes: the windows of the training part.
        ids: of the whole text.
        valid: the spans that are validated on; read by 32 lanes, each warmed with the 512 characters before it.
        seed: of dropout.
    """

    def __init__(self, model: CharRNN, lanes: Lanes, ids: Ids, valid: Spans, *, seed: int = 0) -> None:
        self.module = self.model = model
        self.lanes, self.ids = lanes, ids
        self.steps_per_epoch = lanes.windows_per_epoch
        self.segments = lane_segments(valid)
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        self.state: State = model.initial_state(lanes.lanes)

    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean over the targets of window `position`; the state of every lane moves on to its end."""
        window = self.lanes.window_at(*divmod(position, self.steps_per_epoch))
        device = self.model.device
        state = self.model.initial_state(self.lanes.lanes) if window.first else self.state
        inputs_TB = torch.from_numpy(window.inputs_TB).to(device)
        targets_TB = torch.from_numpy(window.targets_TB).to(device)
        resets_TB = None if window.resets_TB is None else torch.from_numpy(window.resets_TB).to(device)
        with _autocast(device):
            logp_TBV, state = self.model(inputs_TB, state, resets_TB, self.generator)
            logp_TB = pick_targets(logp_TBV, targets_TB)
        self.state = detach(state)
        return -(logp_TB * (targets_TB >= 0)).sum() / window.count, window.count

    def validate(self) -> float:
        """Nats a character on the validation spans."""
        with _autocast(self.model.device):
            logp_N, _ = read_segments(self.model, self.ids, self.segments, lanes=32, hits=False)
        return float(-logp_N.mean())

    def carried(self) -> dict[str, Tensor]:
        """The hidden state of every lane, and the generator of the dropout masks."""
        return {
            **{f"state/{name}": tensor for name, tensor in self.state.items()},
            "dropout": self.generator.get_state(),
        }

    def forget(self) -> None:
        """Sets every lane's state to zero."""
        self.state = self.model.initial_state(self.lanes.lanes)

    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Takes back what `carried` gave; a generator of another device starts anew, lanes without a state at zero."""
        state = {key.removeprefix("state/"): t for key, t in carried.items() if key.startswith("state/")}
        shapes = {name: tensor.shape for name, tensor in self.state.items()}
        if state and shapes != {name: tensor.shape for name, tensor in state.items()}:
            raise CharlmError("the saved state has hidden states of another number of lanes")
        self.state |= {name: tensor.clone().to(self.model.device) for name, tensor in state.items()}
        if "dropout" in carried:
            with contextlib.suppress(RuntimeError, TypeError):
                self.generator.set_state(carried["dropout"].clone())


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 products on a GPU that has them; full precision elsewhere."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
