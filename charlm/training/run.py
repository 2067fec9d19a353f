"""A run: a model, a text and a plan, kept in a directory from which it can be sampled, evaluated and resumed.

config.json             what it is, what it was made from, how, and the figure it ended with
vocab.json              the symbols
best.safetensors        the weights with the lowest validation loss
last.safetensors        the weights of the last state
state-STEP.safetensors  everything of one moment, the two newest
metrics.jsonl           the learning curve
LOCK                    while a process writes
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from charlm.analysis.evaluate import Evaluation, evaluate
from charlm.analysis.evaluate import Progress as Reading
from charlm.checkpoint import TextFacts, load, read_tensors, write_config, write_tensors
from charlm.errors import CharlmError, CheckpointError, TextError
from charlm.files import write_bytes, write_json
from charlm.models.rnn import CharRNN
from charlm.nn.kernels.choose import fastest, for_reading
from charlm.text.corpus import Corpus
from charlm.text.lanes import Lanes
from charlm.text.splits import Split, count_targets
from charlm.training.language import LanguageObjective
from charlm.training.loop import Keeper, Loop, Observer
from charlm.training.recipe import Plan

__all__ = ["Result", "Run", "reported_part", "resume", "start"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended.

    Args:
        outcome: `finished`, `no improvement`, `interrupted` or `diverged`.
        part: the part of the text that was measured: test, or valid where there is no test part.
        evaluation: the best weights on that part, one stream; None where the run was interrupted.
    """

    outcome: str
    part: str
    evaluation: Evaluation | None


def reported_part(corpus: Corpus, split: Split) -> str:
    """The part that figures are reported on: test, or valid where the test part has no target."""
    return "test" if count_targets(corpus.parts(split)["test"]) else "valid"


class _Directory(Keeper):
    """Keeps a run in its directory."""

    def __init__(self, directory: Path, write_description: Callable[[], None]) -> None:
        self.directory, self._write_description = directory, write_description

    def metrics(self, row: dict[str, Any]) -> None:
        """Appends a line to `metrics.jsonl`."""
        with open(self.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def best(self, loop: Loop) -> None:
        """Writes `best.safetensors`."""
        write_tensors(self.directory / "best.safetensors", dict(loop.objective.module.named_parameters()))

    def state(self, loop: Loop) -> None:
        """Writes everything into one file, then `last.safetensors`, and deletes all but the two newest states."""
        tensors, progress = loop.snapshot()
        metadata = {"progress": json.dumps(progress, allow_nan=False)}
        write_tensors(self.directory / f"state-{loop.progress.step}.safetensors", tensors, metadata)
        write_tensors(self.directory / "last.safetensors", dict(loop.objective.module.named_parameters()))
        self._write_description()
        for old in _states(self.directory)[2:]:
            old.unlink(missing_ok=True)


def _states(directory: Path) -> list[Path]:
    """The saved states, the newest first."""
    found = [path for path in directory.glob("state-*.safetensors") if path.stem.removeprefix("state-").isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("state-")), reverse=True)


class Run:
    """One run in its directory; made by `start` or `resume`.

    Args:
        directory: where it is kept; it exists.
        model: the network, on its device.
        corpus: the text.
        split: its parts.
        plan: how it is trained.
    """

    def __init__(self, directory: Path, model: CharRNN, corpus: Corpus, split: Split, plan: Plan) -> None:
        self.directory, self.model, self.corpus, self.split, self.plan = directory, model, corpus, split, plan
        self.facts = TextFacts.of(corpus, split)
        self.parts = corpus.parts(split)
        self._saved: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None

    def train(
        self,
        *,
        observer: Observer | None = None,
        save_every: float = 300.0,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Reading | None = None,
    ) -> Result:
        """Trains to the end of the plan and measures the best weights once more as one stream.

        Args:
            observer: who watches.
            save_every: seconds between two saved states.
            should_stop: asked after every step; true interrupts with everything saved.
            progress: called with the number of targets read in the last measurement.
        """
        keeper = _Directory(self.directory, self.describe)
        lanes = Lanes(
            self.corpus.ids,
            self.parts["train"],
            lanes=self.plan.lanes,
            window=self.plan.window,
            seed=self.plan.optimisation.seed,
        )
        valid = self.parts["valid"] if count_targets(self.parts["valid"]) else self.parts["train"]
        objective = LanguageObjective(self.model, lanes, self.corpus.ids, valid, seed=self.plan.optimisation.seed)
        loop = Loop(
            objective,
            self.plan.optimisation,
            observer=observer,
            keeper=keeper,
            save_every=save_every,
            should_stop=should_stop,
        )
        if self._saved is not None:
            loop.load_snapshot(*self._saved)
        outcome = loop.run()
        part = reported_part(self.corpus, self.split)
        evaluation = None if outcome == "interrupted" else self._measure(part, progress)
        return Result(outcome=outcome, part=part, evaluation=evaluation)

    def _measure(self, part: str, progress: Reading | None) -> Evaluation | None:
        """Puts the best weights in, reads the reported part as one stream, and keeps the figures."""
        best = load(self.directory, device=self.model.device).model
        assert isinstance(best, CharRNN)
        self.model.load_state_dict(best.state_dict())
        self.model.eval()
        if not count_targets(self.parts[part]):
            return None
        self.model.stack.backend = for_reading(self.model.device)
        evaluation = evaluate(self.model, self.corpus.ids, self.parts[part], progress=progress)
        self.describe(result={**evaluation.to_json(), "split": str(self.split), "part": part})
        return evaluation

    def describe(self, **more: Any) -> None:
        """Writes `config.json`; `more` are further values."""
        training = self.plan.to_json()
        write_config(self.directory, "rnn", self.plan.network.to_json(), self.facts, training=training, **more)


def start(directory: Path, corpus: Corpus, split: Split, plan: Plan, device: torch.device) -> Run:
    """A new run in a new directory, with fresh weights from the plan's seed; call under `files.lock`.

    Raises:
        TextError: the training part has nothing to predict.
    """
    parts = corpus.parts(split)
    if not count_targets(parts["train"]):
        raise TextError(
            f"the training part of {corpus.title} has no character to predict: use a longer text or --split"
        )
    model = CharRNN(corpus.vocab, plan.network)
    model.reset_parameters(torch.Generator().manual_seed(plan.optimisation.seed))
    model.to(device)
    if plan.backend == "auto":
        table = None if model.embedding is None else model.embedding.weight
        plan = replace(plan, backend=fastest(model.stack, plan.window, plan.lanes, table=table))
    model.stack.backend = plan.backend
    write_json(directory / "vocab.json", corpus.vocab.to_json())
    for name in ("best", "last"):
        write_tensors(directory / f"{name}.safetensors", dict(model.named_parameters()))
    run = Run(directory, model, corpus, split, plan)
    run.describe()
    return run


def resume(directory: Path, corpus: Corpus, device: torch.device, *, budget: dict[str, Any] | None = None) -> Run:
    """The run in a directory, at its newest whole state; call under `files.lock`.

    Args:
        directory: a run directory.
        corpus: its text, read again.
        device: where it goes on.
        budget: new values of `epochs`, `max_steps`, `minutes`; they are recorded, and the steps planned again.

    Raises:
        CheckpointError: no run, no whole state, or another text.
    """
    checkpoint = load(directory, device=device, weights="last")
    if "training" not in checkpoint.config or not isinstance(checkpoint.model, CharRNN):
        raise CheckpointError(f"{directory} is no training run: only what `charlm train` made can be resumed")
    if corpus.sha256 != checkpoint.text.sha256:
        raise CheckpointError(
            f"the text has changed since {directory} was trained on it ({checkpoint.text.sha256[:12]} then, "
            f"{corpus.sha256[:12]} now): bring the old text back, or start a new run with --init-from"
        )
    plan = Plan.from_json(checkpoint.config["training"])
    tensors, progress = _newest_state(directory)
    if budget:
        plan = replace(plan, optimisation=replace(plan.optimisation, **budget))
        progress |= {"total": None, "every": None, "since_best": 0}
    run = Run(directory, checkpoint.model, corpus, checkpoint.text.split, plan)
    run.model.stack.backend = plan.backend
    run._saved = tensors, progress
    _forget_after(directory, int(progress["step"]), tensors)
    run.describe()
    return run


def _newest_state(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The newest state that is whole; a damaged one is passed over for the one before it."""
    problems = []
    for path in _states(directory):
        try:
            tensors, metadata = read_tensors(path)
            return tensors, json.loads(metadata["progress"])
        except (CharlmError, KeyError, ValueError) as error:
            problems.append(str(error))
    reason = f" ({problems[0]})" if problems else ""
    raise CheckpointError(f"{directory} has no whole saved state to go on from{reason}: start the run again")


def _forget_after(directory: Path, step: int, tensors: dict[str, torch.Tensor]) -> None:
    """Takes files back to the moment of a state: what was written after it will be written again."""
    metrics = directory / "metrics.jsonl"
    if metrics.exists():
        kept = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        write_bytes(metrics, "".join(line + "\n" for line in kept).encode())
    good = {name.removeprefix("good/"): tensor for name, tensor in tensors.items() if name.startswith("good/")}
    if good:
        write_tensors(directory / "best.safetensors", good)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a line that a dying process left
