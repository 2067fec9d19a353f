"""The whole training step as one graph on a GPU: layers, loss, gradients, clipping, AdamW, averaging, one launch.

A step is recorded once, on buffers that stay where they are, and played again with new numbers in them. What does
not fit the record (the ragged last window, a window in which a lane is reset) is a step of the loop's own. Nothing is
read back in a step: losses come in bundles.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.lm.interface import State, copy_into
from charlm.nn.kernels.gpu.graphs import CudaGraph, Graph
from charlm.text.lanes import Window
from charlm.training.distributed import Heard
from charlm.training.language import LanguageObjective
from charlm.training.loop import Loop
from charlm.training.options import Average
from charlm.training.stepping import Stepper

__all__ = ["GraphedStepper", "stepper_for"]

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

    def _make(self) -> _Buffers:
        device, lanes = self.objective.model.device, self._shape[1]
        ids = torch.zeros(2, *self._shape, dtype=torch.int64, device=device)
        numbers = torch.zeros(4, device=device)
        state = {name: tensor.clone() for name, tensor in self.objective.model.initial_state(lanes).items()}
        return _Buffers(
            inputs_TB=ids[0], targets_TB=ids[1], state=state, lr=numbers[0], share=numbers[1], result=numbers[2:]
        )

    def step(self, loop: Loop) -> bool:
        """See `Stepper`."""
        window = None if self._given_up else self.objective.window(loop.progress.position)
        if window is None or not self._suits(window):
            self.settle(loop)
            return False
        if not self._pending:
            self._began = time.perf_counter()
        lr = loop.rate()
        self._fill(window, lr, loop)
        if not self._run(loop):
            self.settle(loop)
            return False
        self.objective.state = dict(self._buffers.state)
        self._losses[len(self._pending)].copy_(self._buffers.result)
        self._pending.append((loop.progress.step, window.count))
        if self._ran <= self.warm or len(self._pending) == self.every:
            self.settle(loop)
        loop.advance(Heard(loss=self._loss, count=window.count, seconds=loop.seconds()), lr, self._seconds)
        return True

    def _suits(self, window: Window) -> bool:
        whole = window.inputs_TB.shape == self._shape and window.count == window.inputs_TB.size
        return whole and window.resets_TB is None

    def _fill(self, window: Window, lr: float, loop: Loop) -> None:
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
        if loop.average is not None:
            buffers.share.fill_(loop.average.pace(loop.progress.step + 1))

    def _run(self, loop: Loop) -> bool:
        """The step itself: run, or recorded and played, or played; false where it cannot be recorded."""
        loop.objective.module.train()
        if self._ran < self.warm:
            self.graph.warm(lambda: self._body(loop))
        else:
            if not self._recorded and not self._record(loop):
                return False
            self.graph.replay()
        self._ran += 1
        return True

    def _record(self, loop: Loop) -> bool:
        try:
            self.graph.capture(lambda: self._body(loop))
        except RuntimeError as error:
            self._given_up = True
            why = str(error).strip().partition("\n")[0]
            loop.observer.on_note(f"the training step cannot be recorded as a graph ({why}): it runs piece by piece")
            return False
        self._recorded, self._began = True, time.perf_counter()
        self._gradients = [p.grad for p in loop.objective.module.parameters()]  # their memory belongs to the record
        return True

    def _body(self, loop: Loop) -> None:
        """One whole step on the buffers; nothing in it depends on a number of the device's."""
        buffers, optimizer, module = self._buffers, loop.optimizer, loop.objective.module
        for group in optimizer.param_groups:
            group["lr"], group["capturable"] = buffers.lr, buffers.lr.is_cuda
        loss, state = self.objective.mean_loss(buffers.inputs_TB, buffers.targets_TB, buffers.state)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(module.parameters(), loop.options.clip)
        with torch.no_grad():
            bad = (~(loss.isfinite() & norm.isfinite())).float()
            _step_unless(optimizer, bad)
            if loop.average is not None:
                _average(loop.average, buffers.share * (1 - bad))
            for name, tensor in state.items():
                buffers.state[name].copy_(torch.where(bad > 0, torch.zeros_like(tensor), tensor))
            buffers.result.copy_(torch.stack([loss.detach().float(), bad]))

    def settle(self, loop: Loop) -> None:
        """See `Stepper`; here the device is waited for."""
        if not self._pending:
            return
        known = self._losses[: len(self._pending)].tolist()
        self._seconds = (time.perf_counter() - self._began) / len(known)
        for (step, count), (loss, bad) in zip(self._pending, known, strict=True):
            loop.learned(loss, count, not bad, step)
            self._loss = loss
        self._pending.clear()

    def begin_again(self, loop: Loop) -> None:
        """See `Stepper`; the record holds the old optimiser's memory, so it is made anew, and that is said."""
        self._pending.clear()
        self._ran, self._recorded = 0, False
        loop.observer.on_note("the training step is recorded anew, as the optimiser begins again")


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

    None, the loop's own steps, everywhere else, and where several processes train together.
    """
    alone = objective.processes.size == 1
    if objective.model.device.type != "cuda" or backend != "fused" or not alone:
        return None
    return GraphedStepper(objective, CudaGraph([objective.generator]))
