"""Language modelling by truncated backpropagation through time: the objective that the loop optimises.

Each step reads the next window of all lanes; the hidden state goes from window to window and is detached there, so
gradients end at the window while memory does not (Williams and Peng 1990). Axes: T steps, B lanes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from charlm.errors import CharlmError
from charlm.lm.interface import State, detach, pick_targets
from charlm.lm.reading import lane_segments, read_segments
from charlm.recurrent.model import CharRNN
from charlm.text.lanes import Lanes, Window
from charlm.text.splits import Spans
from charlm.text.vocab import Ids
from charlm.training.distributed import ALONE, Processes
from charlm.training.interfaces import Objective

__all__ = ["LanguageObjective"]


class LanguageObjective(Objective):
    """The mean negative log-likelihood of the next character.

    Args:
        model: the network, on its device.
        lanes: the windows of the training part.
        ids: of the whole text.
        valid: the spans of the validation; read in 32 lanes, each after the 512 characters before it as context.
        seed: of dropout.
        processes: they share the lanes and the validation; each has dropout masks of its own.
    """

    def __init__(
        self,
        model: CharRNN,
        lanes: Lanes,
        ids: Ids,
        valid: Spans,
        *,
        seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        self.module = self.model = model
        self.lanes, self.ids, self.processes = lanes, ids, processes
        self.steps_per_epoch = lanes.windows_per_epoch
        self.untrained_loss = math.log(len(model.vocab))  # of a uniform distribution
        self.segments = lane_segments(valid)
        self.generator = torch.Generator(device=model.device).manual_seed(processes.seed(seed))
        self.own = processes.own(lanes.lanes)
        self.state: State = self._zeros()

    def _zeros(self) -> State:
        return self.model.initial_state(self.own.stop - self.own.start)

    def window(self, position: int) -> Window:
        """The data of a step, of this process's lanes."""
        return self.lanes.window_at(*divmod(position, self.steps_per_epoch), self.own)

    def loss(self, position: int) -> tuple[Tensor, int]:
        """The mean over the targets of window `position`; the state of every lane moves on to its end."""
        window = self.window(position)
        device = self.model.device
        state = self._zeros() if window.first else self.state
        inputs_TB = torch.from_numpy(window.inputs_TB).to(device)
        targets_TB = torch.from_numpy(window.targets_TB).to(device)
        resets_TB = None if window.resets_TB is None else torch.from_numpy(window.resets_TB).to(device)
        loss, self.state = self.mean_loss(inputs_TB, targets_TB, state, resets_TB, window.count)
        return loss, window.count

    def mean_loss(
        self,
        inputs_TB: Tensor,
        targets_TB: Tensor,
        state: State,
        resets_TB: Tensor | None = None,
        count: int | None = None,
    ) -> tuple[Tensor, State]:
        """The mean loss over `count` targets (by default all), and the detached state after the window."""
        with _autocast(self.model.device):
            logp_TBV, state = self.model(inputs_TB, state, resets_TB, self.generator)
            logp_TB = pick_targets(logp_TBV, targets_TB)
        count = inputs_TB.numel() if count is None else max(count, 1)
        return -(logp_TB * (targets_TB >= 0)).sum() / count, detach(state)

    def validate(self) -> float:
        """Nats a character on the validation spans."""
        segments = self.segments[self.processes.rank :: self.processes.size]
        logp_N = np.zeros(0)
        if len(segments):
            with _autocast(self.model.device):
                logp_N, _ = read_segments(self.model, self.ids, segments, lanes=32, hits=False)
        total, count = self.processes.add([float(logp_N.sum()), len(logp_N)])
        return -total / count

    def carried(self) -> dict[str, Tensor]:
        """The hidden state of every lane of every process, and the generators of their dropout masks by rank."""
        generators = self.processes.gather(self.generator.get_state())
        return {
            **{f"state/{name}": torch.cat(self.processes.gather(t)) for name, t in self.state.items()},
            **{_generator(rank): state for rank, state in enumerate(generators)},
        }

    def forget(self) -> None:
        """Sets every lane's state to zero."""
        self.state = self._zeros()

    def restore(self, carried: Mapping[str, Tensor]) -> None:
        """Goes on from what `carried` returned; each process takes its own lanes, however many processes there were.

        A generator of another device or of an additional process starts anew; lanes without a state start at zero.
        """
        state = {key.removeprefix("state/"): t for key, t in carried.items() if key.startswith("state/")}
        shapes = {name: (self.lanes.lanes, *tensor.shape[1:]) for name, tensor in self.state.items()}
        if state and shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
            raise CharlmError("the saved state has hidden states of another number of lanes")
        self.state |= {name: tensor[self.own].clone().to(self.model.device) for name, tensor in state.items()}
        own = _generator(self.processes.rank)
        if own in carried:
            with contextlib.suppress(RuntimeError, TypeError):
                self.generator.set_state(carried[own].clone())


def _generator(rank: int) -> str:
    """The name of a process's dropout generator in a state."""
    return f"dropout/{rank}" if rank else "dropout"


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 products on a GPU that has them; full precision elsewhere."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
