"""Steps played from a record are the loop's own steps, with a graph in whose place the callable is run again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.nn.kernels.graphs import Graph
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from charlm.training.graphed import GraphedStepper, stepper_for
from charlm.training.interfaces import Observer, StepReport, ValidationReport
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.loop import Loop
from charlm.training.options import Optimisation

TEXT = "the cat sat on the mat and the dog sat on the log. " * 8


class Again(Graph):
    """Runs the callable instead of playing a record of it; keeps what was asked."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.fails = fails

    def warm(self, body: Callable[[], None]) -> None:
        self.calls.append("warm")
        body()

    def capture(self, body: Callable[[], None]) -> None:
        self.calls.append("capture")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore words")
        self.body = body

    def replay(self) -> None:
        self.calls.append("replay")
        self.body()


class Watcher(Observer):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.trained: list[float | None] = []
        self.notes: list[str] = []

    def on_step(self, report: StepReport) -> None:
        self.losses.append(report.loss)

    def on_validation(self, report: ValidationReport) -> None:
        self.trained.append(report.train)

    def on_note(self, message: str) -> None:
        self.notes.append(message)


def make(
    graph: Graph | None, *, steps: int = 23, spans: Any = None, every: int = 4, **options: Any
) -> tuple[Loop, Watcher, GraphedStepper | None]:
    vocab = Vocab.of(TEXT)
    ids = vocab.encode(TEXT)
    model = CharRNN(vocab, RNNConfig(model="lstm", hidden=9, layers=2, dropout=0.2))
    model.reset_parameters(torch.Generator().manual_seed(3))
    model.stack.backend = "fused"
    whole = np.array([[0, len(ids)]])
    lanes = Lanes(ids, whole if spans is None else np.array(spans), lanes=3, window=10, seed=1)
    objective = LanguageObjective(model, lanes, ids, whole, seed=5)
    stepper = None if graph is None else GraphedStepper(objective, graph, every=every)
    watcher = Watcher()
    chosen = Optimisation(**{"max_steps": steps, "validations": 2, "warmup": 3, "patience": 0, **options})
    return Loop(objective, chosen, observer=watcher, stepper=stepper), watcher, stepper


def weights(loop: Loop) -> list[Tensor]:
    return [p.detach().clone() for p in loop.objective.module.parameters()]


@pytest.mark.parametrize("options", [{"average": 0.0}, {"average": 0.3, "hold": 0.5, "symbol_rate": 4.0}])
def test_the_weights_are_those_of_the_loops_own_steps(options: dict[str, float]) -> None:
    own, told, _ = make(None, **options)
    ours, heard, _ = make(Again(), **options)
    assert own.run() == ours.run() == "finished"
    for a, b in zip(weights(ours), weights(own), strict=True):
        assert torch.allclose(a, b, atol=2e-6)
    for name, tensor in own.weights().items():
        assert torch.allclose(ours.weights()[name], tensor, atol=2e-6)
    assert heard.trained == pytest.approx(told.trained, abs=1e-5)  # every loss was counted, none twice
    assert ours.progress.best == pytest.approx(own.progress.best, abs=1e-5)
    assert (ours.progress.step, ours.progress.targets) == (own.progress.step, own.progress.targets)
    for name, tensor in own.objective.carried().items():
        assert torch.allclose(ours.objective.carried()[name].double(), tensor.double(), atol=1e-5), name


def test_what_is_recorded_and_what_is_not() -> None:
    graph = Again()
    loop, _, _ = make(graph)
    an_epoch = loop.objective.steps_per_epoch
    loop.run()
    # 407 pairs in 3 lanes of 136: thirteen whole windows and a ragged one an epoch; the second epoch begins in the
    # middle of the text, and in one of its windows a lane passes the text's end
    assert an_epoch == 14
    taken = graph.calls.count("warm") + graph.calls.count("replay")
    assert graph.calls[:5] == ["warm", "warm", "warm", "capture", "replay"]
    assert graph.calls.count("capture") == 1
    assert 23 - 3 <= taken < 23


def test_losses_come_in_bundles() -> None:
    loop, watcher, stepper = make(Again(), every=4)
    loop.run()
    assert stepper is not None
    assert not stepper._pending
    assert len(watcher.losses) == 23
    assert not any(math.isnan(loss) for loss in watcher.losses)  # the first ones are known at once
    assert watcher.losses[3] == watcher.losses[2]  # and then not before the bundle is full
    assert watcher.losses[6] != watcher.losses[5]


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    loop, _, stepper = make(Again(), steps=12)
    assert stepper is not None
    before: list[list[Tensor]] = []
    objective = loop.objective
    assert isinstance(objective, LanguageObjective)
    right = objective.mean_loss

    def broken(*arguments: Any) -> Any:
        loss, state = right(*arguments)
        if loop.progress.step != 6:
            return loss, state
        before.append(weights(loop))
        return loss * math.nan, {name: tensor * math.nan for name, tensor in state.items()}

    objective.mean_loss = broken  # type: ignore[method-assign, assignment]
    after: list[list[Tensor]] = []
    loop.observer.on_step = lambda report: after.append(weights(loop)) if report.progress.step == 7 else None  # type: ignore[method-assign]
    loop.run()
    assert loop.progress.skipped == 1
    assert loop.progress.skipped_in_a_row == 0
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert all(tensor.isfinite().all() for tensor in [*weights(loop), *objective.state.values()])
    steps = {int(slots["step"]) for slots in loop.optimizer.state.values()}
    assert steps == {11}


def test_going_back_records_anew_and_says_so() -> None:
    graph = Again()
    loop, watcher, _ = make(graph, steps=60, validations=20)
    objective = loop.objective
    assert isinstance(objective, LanguageObjective)
    right = objective.mean_loss

    def broken(*arguments: Any) -> Any:
        loss, state = right(*arguments)
        return (loss * math.nan if 10 <= loop.progress.step < 40 else loss), state

    objective.mean_loss = broken  # type: ignore[method-assign, assignment]
    assert loop.run() == "finished"
    assert loop.progress.rollbacks == 1
    assert graph.calls.count("capture") == 2
    assert any("recorded anew" in note for note in watcher.notes)
    assert all(tensor.isfinite().all() for tensor in weights(loop))


def test_what_cannot_be_recorded_is_run_piece_by_piece_and_said_once() -> None:
    graph = Again(fails=True)
    ours, watcher, _ = make(graph)
    own, told, _ = make(None)
    ours.run()
    own.run()
    assert graph.calls == ["warm", "warm", "warm", "capture"]
    (note,) = [note for note in watcher.notes if "graph" in note]
    assert "not permitted" in note
    assert "more words" not in note
    for a, b in zip(weights(ours), weights(own), strict=True):
        assert torch.allclose(a, b, atol=2e-6)
    assert watcher.losses == pytest.approx(told.losses, abs=1e-5)


def test_windows_with_resets_are_the_loops_own() -> None:
    graph = Again()
    spans = [[0, 21], [21, 60], [60, 200], [200, 408]]
    ours, _, _ = make(graph, spans=spans)
    own, _, _ = make(None, spans=spans)
    ours.run()
    own.run()
    assert graph.calls.count("warm") + graph.calls.count("replay") < 23
    for a, b in zip(weights(ours), weights(own), strict=True):
        assert torch.allclose(a, b, atol=2e-6)


def test_a_saved_state_goes_on_as_it_was() -> None:
    whole, _, _ = make(Again(), steps=20)
    whole.run()
    first, _, _ = make(Again(), steps=20)
    first.should_stop = lambda: first.progress.step == 9
    assert first.run() == "interrupted"
    tensors, progress = first.snapshot()
    second, _, _ = make(Again(), steps=20)
    second.load_snapshot({name: tensor.clone() for name, tensor in tensors.items()}, progress)
    assert second.run() == "finished"
    for a, b in zip(weights(second), weights(whole), strict=True):
        assert torch.allclose(a, b, atol=2e-6)
    assert second.progress.targets == whole.progress.targets


def test_on_a_cpu_the_loop_takes_its_own_steps() -> None:
    loop, _, _ = make(None)
    assert isinstance(loop.objective, LanguageObjective)
    assert stepper_for(loop.objective, "fused") is None
