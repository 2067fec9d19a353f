"""The whole training step as one CUDA graph: layers, loss, gradients, clipping, AdamW and averaging in one launch.

A step is recorded once, on buffers that stay where they are, and replayed with new numbers in them. Windows that do
not fit the recording (a shorter last window, a window in which a lane is reset) are left to the loop. No step waits for
the device: the losses of several steps are read back together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.lm.interface import State, copy_into
from charlm.nn.kernels.graphs import CudaGraph, Graph
from charlm.training.interfaces import Average, KnownLoss, Stepper, Taken
from charlm.training.language import LanguageObjective, Window

EVERY = 16
"""Steps whose losses are read back together."""
WARM = 3
"""Steps before the recording, in which libraries make their choices and take their memory."""


@dataclass(frozen=True, kw_only=True)
class _Buffers:
    """What a recorded step reads and writes: always the same memory.

    `result` is the loss, and 1 where the step was not finite and changed nothing.
    """

    inputs_TB: Tensor
    targets_TB: Tensor
    state: State
    lr: Tensor
    share: Tensor
    result: Tensor


class GraphedStepper(Stepper):
    """Steps of a language objective as a graph.

    Args:
        objective: what is optimised.
        graph: records and plays; made for the objective's device.
        every: after so many steps their losses are read back.
        warm: steps that are run before the recording.
    """

    def __init__(self, objective: LanguageObjective, graph: Graph, *, every: int = EVERY, warm: int = WARM) -> None:
        self.objective, self.graph, self.every, self.warm = objective, graph, every, warm
        self._shape = (objective.lanes.window, objective.own.stop - objective.own.start)
        self._buffers = self._make()
        self._losses = self._buffers.result.new_zeros(every, 2)
        self._pending: list[tuple[int, int]] = []  # step and targets of each loss that is not known yet
        self._ran, self._recorded, self._given_up = 0, False, False
        self._seconds, self._began, self._loss = 0.0, 0.0, float("nan")
        self._gradients: list[Tensor | None] = []
        self._optimizer: torch.optim.Optimizer
        self._mean: Average | None = None
        self._clip = 1.0
        self._note: Callable[[str], None] = lambda message: None

    def _make(self) -> _Buffers:
        device, lanes = self.objective.model.device, self._shape[1]
        ids = torch.zeros(2, *self._shape, dtype=torch.int64, device=device)
        numbers = torch.zeros(4, device=device)
        state = {name: tensor.clone() for name, tensor in self.objective.model.initial_state(lanes).items()}
        return _Buffers(
            inputs_TB=ids[0], targets_TB=ids[1], state=state, lr=numbers[0], share=numbers[1], result=numbers[2:]
        )

    def begin(
        self, optimizer: torch.optim.Optimizer, average: Average | None, clip: float, note: Callable[[str], None]
    ) -> None:
        """See `Stepper.begin`; a recording holds the memory of its optimizer, so a new optimizer needs a new one."""
        if self._ran:
            note("the training step is recorded anew, as the optimiser begins again")
        self._optimizer, self._mean, self._clip, self._note = optimizer, average, clip, note
        self._pending.clear()
        self._ran, self._recorded = 0, False

    def step(self, position: int, step: int, lr: float) -> Taken | None:
        """See `Stepper.step`."""
        window = None if self._given_up else self.objective.window(position)
        if window is None or not self._suits(window):
            return None
        if not self._pending:
            self._began = time.perf_counter()
        self._fill(window, lr, step)
        if not self._run():
            return None
        self.objective.state = dict(self._buffers.state)
        self._losses[len(self._pending)].copy_(self._buffers.result)
        self._pending.append((step, window.count))
        bundle = self._ran <= self.warm or len(self._pending) == self.every
        known = self.settle() if bundle else []
        return Taken(count=window.count, loss=self._loss, seconds=self._seconds, known=known)

    def _suits(self, window: Window) -> bool:
        whole = window.inputs_TB.shape == self._shape and window.count == window.inputs_TB.size
        return whole and window.resets_TB is None

    def _fill(self, window: Window, lr: float, step: int) -> None:
        """Puts the numbers of this step into the buffers, without waiting for the device."""
        buffers = self._buffers
        _send(buffers.inputs_TB, window.inputs_TB)
        _send(buffers.targets_TB, window.targets_TB)
        if window.first:
            for tensor in buffers.state.values():
                tensor.zero_()
        elif any(self.objective.state[name] is not tensor for name, tensor in buffers.state.items()):
            copy_into(buffers.state, self.objective.state)  # the loop's own step, or a saved state, was in between
        buffers.lr.fill_(lr)
        if self._mean is not None:
            buffers.share.fill_(self._mean.pace(step + 1))

    def _run(self) -> bool:
        """Runs the step, or records and replays it, or replays it; False where it cannot be recorded."""
        self.objective.module.train()
        if self._ran < self.warm:
            self.graph.warm(self._body)
        else:
            if not self._recorded and not self._record():
                return False
            self.graph.replay()
        self._ran += 1
        return True

    def _record(self) -> bool:
        try:
            self.graph.capture(self._body)
        except RuntimeError as error:
            self._given_up = True
            why = str(error).strip().partition("\n")[0]
            self._note(f"the training step cannot be recorded as a graph ({why}): it runs piece by piece")
            return False
        self._recorded, self._began = True, time.perf_counter()
        self._gradients = [p.grad for p in self.objective.module.parameters()]  # their memory belongs to the record
        return True

    def _body(self) -> None:
        """One whole step on the buffers; no branch in it depends on a number that the device computes."""
        buffers, optimizer, module = self._buffers, self._optimizer, self.objective.module
        for group in optimizer.param_groups:
            group["lr"], group["capturable"] = buffers.lr * group["factor"], buffers.lr.is_cuda
        loss, state = self.objective.mean_loss(buffers.inputs_TB, buffers.targets_TB, buffers.state)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(module.parameters(), self._clip)
        with torch.no_grad():
            bad = (~(loss.isfinite() & norm.isfinite())).float()
            _step_unless(optimizer, bad)
            if self._mean is not None:
                _average(self._mean, buffers.share * (1 - bad))
            for name, tensor in state.items():
                buffers.state[name].copy_(torch.where(bad > 0, torch.zeros_like(tensor), tensor))
            buffers.result.copy_(torch.stack([loss.detach().float(), bad]))

    def settle(self) -> list[KnownLoss]:
        """See `Stepper.settle`; it waits for the device."""
        if not self._pending:
            return []
        known = self._losses[: len(self._pending)].tolist()
        self._seconds = (time.perf_counter() - self._began) / len(known)
        self._loss = known[-1][0]
        found = [
            KnownLoss(step=step, loss=loss, count=count, finite=not bad)
            for (step, count), (loss, bad) in zip(self._pending, known, strict=True)
        ]
        self._pending.clear()
        return found


def _send(buffer: Tensor, numbers: NDArray[Any]) -> None:
    """Copies an array into a buffer; to a GPU from pinned memory, without waiting."""
    tensor = torch.from_numpy(numbers)
    buffer.copy_(tensor.pin_memory() if buffer.is_cuda else tensor, non_blocking=True)


def _step_unless(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """A step of fused AdamW that changes nothing where `bad` is 1; the fused kernels look at it on the device."""
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _average(average: Average, share: Tensor) -> None:
    for mean, now in zip(average.weights.values(), average.module.parameters(), strict=True):
        mean.lerp_(now.detach(), share.to(mean.dtype))


def stepper_for(objective: LanguageObjective, backend: str) -> Stepper | None:
    """The way of stepping for a device and a backend: a graph where `fused` was asked for on a GPU.

    None, the loop's own steps, everywhere else, where several processes train together, and where strings have weights
    or the network looks back.
    """
    alone = objective.processes.size == 1
    plain = objective.model.grams is None and objective.model.look_back is None
    if objective.model.device.type != "cuda" or backend != "fused" or not (alone and plain):
        return None
    return GraphedStepper(objective, CudaGraph([objective.generator]))
