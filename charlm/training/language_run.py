"""A language model's run: what is trained on what, and going on with it in its directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from charlm.errors import CheckpointError, TextError
from charlm.lm.directory import describe
from charlm.nn.kernels.choose import fastest, for_training
from charlm.recurrent.model import CharRNN
from charlm.text.lanes import Lanes
from charlm.text.splits import Split, count_targets
from charlm.text.text import Text, TextFacts
from charlm.text.vocab import Vocab
from charlm.training.distributed import ALONE, Processes
from charlm.training.graphed import stepper_for
from charlm.training.interfaces import Objective, Stepper
from charlm.training.keeping import RunKind, Saved, read_saved
from charlm.training.language import LanguageObjective
from charlm.training.recipe import Plan
from charlm.training.run import Run, Task, resume

__all__ = ["LANGUAGE", "LanguageTask", "resume_language"]


def _check(config: Mapping[str, Any], plan: Plan, vocab: Vocab | None) -> None:
    TextFacts.from_json(config["text"])
    if vocab is None:
        raise CheckpointError("the state has no vocabulary, so it is not that of a language model")


LANGUAGE = RunKind(command="charlm train", plan=Plan, check=_check)
"""Runs that train a language model."""


class LanguageTask(Task[Plan, CharRNN]):
    """A recurrent language model on the training part of a text.

    Args:
        text: with a split.

    Raises:
        TextError: the training part has no character to predict.
    """

    kind = LANGUAGE

    def __init__(self, text: Text) -> None:
        split = text.split or Split.default(len(text))
        self.corpus, self.vocab = text.corpus, text.vocab
        self.text = text if text.split else Text(corpus=text.corpus, split=split)
        self.facts, self.parts = TextFacts.of(text.corpus, split), self.text.parts
        if not count_targets(self.parts["train"]):
            raise TextError(
                f"the training part of {text.title} has no character to predict: use a longer text or --split"
            )

    @property
    def reported(self) -> str:
        """The part that figures are reported on: test, or valid where the test part has no target."""
        return "test" if count_targets(self.parts["test"]) else "valid"

    @property
    def measurable(self) -> bool:
        """Whether the reported part has a character to predict."""
        return count_targets(self.parts[self.reported]) > 0

    @property
    def characters(self) -> int:
        """The number of characters to predict in the training part."""
        return count_targets(self.parts["train"])

    def model(self, plan: Plan) -> CharRNN:
        """See `Task.model`."""
        return CharRNN(self.corpus.vocab, plan.network)

    def lanes(self, plan: Plan) -> Lanes:
        """The training part as the plan cuts it."""
        seed = plan.optimisation.seed
        return Lanes(self.corpus.ids, self.parts["train"], lanes=plan.lanes, window=plan.window, seed=seed)

    def objective(self, model: CharRNN, plan: Plan, processes: Processes) -> LanguageObjective:
        """See `Task.objective`."""
        valid = self.parts["valid"] if count_targets(self.parts["valid"]) else self.parts["train"]
        seed = plan.optimisation.seed
        return LanguageObjective(model, self.lanes(plan), self.corpus.ids, valid, seed=seed, processes=processes)

    def backend(self, model: CharRNN, plan: Plan, processes: Processes) -> str:
        """See `Task.backend`."""
        if plan.backend == "rule":
            return for_training(model.device)
        own = processes.own(plan.lanes)
        table = None if model.embedding is None else model.embedding.weight
        return fastest(model.stack, plan.window, own.stop - own.start, table=table)

    def description(self, plan: Plan, training: dict[str, Any]) -> dict[str, Any]:
        """See `Task.description`."""
        return describe("rnn", plan.network.to_json(), self.facts, training=training)

    def stepper(self, objective: Objective, plan: Plan) -> Stepper | None:
        """See `Task.stepper`."""
        assert isinstance(objective, LanguageObjective)
        return stepper_for(objective, plan.backend)


def resume_language(
    directory: Path,
    text: Text,
    device: torch.device,
    *,
    saved: Saved[Plan] | None = None,
    budget: Mapping[str, Any] | None = None,
    lanes: int | None = None,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run[Plan, CharRNN]:
    """The language model's run in a directory, at its newest whole state; call it under `files.lock`.

    Args:
        directory: of the run.
        text: its text, read again with the run's vocabulary.
        device: where it goes on.
        saved: the state; by default it is read.
        budget: see `run.resume`.
        lanes: a new batch size; the run goes on at the same share of the epoch with hidden states of zero.
        processes, launch: see `Run`.

    Raises:
        CheckpointError: no run, no whole state, or another text.
        OptionError: the processes cannot share the lanes equally.
    """
    saved = saved or read_saved(directory, LANGUAGE)
    facts = TextFacts.from_json(saved.config["text"])
    corpus = text.corpus
    if corpus.sha256 != facts.sha256:
        raise CheckpointError(
            f"the text has changed since {directory} was trained on it ({facts.sha256[:12]} then, "
            f"{corpus.sha256[:12]} now): bring the old text back, or start a new run with --init-from"
        )
    if corpus.vocab != saved.vocab:
        raise CheckpointError(f"the text was read with another vocabulary than that of {directory}")
    task = LanguageTask(Text(corpus=corpus, split=facts.split))
    if lanes is not None and lanes != saved.plan.lanes:
        saved = _with_lanes(saved, task, lanes)
    return resume(task, saved, device, directory=directory, budget=budget, processes=processes, launch=launch)


def _with_lanes(saved: Saved[Plan], task: LanguageTask, lanes: int) -> Saved[Plan]:
    """The state with another number of lanes: the same share of the epoch, without the hidden states."""
    plan, progress = saved.plan.having(lanes=lanes), saved.progress
    before, after = (task.lanes(each).windows_per_epoch for each in (saved.plan, plan))
    epoch, window = divmod(int(progress.get("position", progress["step"])), before)
    tensors = {name: tensor for name, tensor in saved.tensors.items() if not name.startswith("carried/state/")}
    position = epoch * after + round(window / before * after)
    return replace(
        saved,
        plan=plan,
        tensors=tensors,
        progress={**progress, "position": position, "total": None, "every": None},
        changes=[*saved.changes, {"step": progress["step"], "lanes": lanes}],
    )
