"""A language model's run: what is trained on what, and going on with it in its directory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.checkpoint import load
from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError, TextError
from charlm.files import describe, free_memory
from charlm.nn.kernels.choose import fastest, for_training
from charlm.recurrent.model import CharRNN
from charlm.text.splits import Split, count_targets
from charlm.text.text import Text, TextFacts, read_text
from charlm.text.vocab import Vocab
from charlm.training.distributed import ALONE, Processes
from charlm.training.graphed import stepper_for
from charlm.training.interfaces import Objective, Stepper
from charlm.training.keeping import RunKind, Saved, read_saved
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.recipe import Plan, choose, validation_limit, window_bytes, window_shape
from charlm.training.run import Run, Task, refuse_change, resume

__all__ = ["LANGUAGE", "LanguageTask", "plan_for", "resume_language", "run_text", "using_threads"]


def _check(config: Mapping[str, Any], plan: Plan, vocab: Vocab | None) -> None:
    TextFacts.read(config["text"])
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
    added: tuple[str, ...] = ()
    """Characters that the model to start from did not know."""

    def __init__(self, text: Text) -> None:
        split = text.split or Split.default(len(text))
        self.corpus, self.vocab = text.corpus, text.vocab
        self.text = text if text.split else Text(corpus=text.corpus, split=split)
        self.facts, self.parts = TextFacts.of(text.corpus, split), self.text.parts
        if not count_targets(self.parts["train"]):
            raise TextError(
                f"the training part of {text.title} has no character to predict: use a longer text or --split"
            )

    def read_under(self, vocab: Vocab) -> None:
        """Goes on with the same text in the symbols of a vocabulary that holds all its characters."""
        corpus = self.corpus.under(vocab)
        self.corpus, self.vocab = replace(corpus, ids=corpus.ids.astype(vocab.dtype)), vocab
        self.text = Text(corpus=self.corpus, split=self.facts.split)
        self.facts = TextFacts.of(self.corpus, self.facts.split)

    @property
    def reported(self) -> str:
        """The part that figures are reported on: test, or valid where the test part has no target."""
        return "test" if count_targets(self.parts["test"]) else "valid"

    @property
    def watched(self) -> str:
        """The part that validations read: valid, or train where the validation part has no target."""
        return "valid" if count_targets(self.parts["valid"]) else "train"

    def notes(self, plan: Plan) -> list[str]:
        """Sentences about the validations that a person should know of."""
        found = []
        if self.added:
            shown = " ".join(map(repr, self.added[:20])) + (" ..." if len(self.added) > 20 else "")
            found.append(f"the vocabulary has grown by {len(self.added):,} characters, which start as unknown: {shown}")
        (steps, lanes) = window_shape(self.characters, plan)
        if (steps, lanes) != (plan.window, plan.lanes):
            found.append(f"the text is shorter than a window: windows are cut to {steps:,} steps in {lanes:,} lanes")
        size, limit = count_targets(self.parts[self.watched]), validation_limit(self.characters, plan)
        if self.watched == "train":
            found.append("there is no validation part: validation and early stopping read the training part")
        if limit < size:
            found.append(f"validations read {limit:,} of {size:,} characters of the {self.watched} part")
        return found

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
        valid, seed = self.parts[self.watched], plan.optimisation.seed
        limit = validation_limit(self.characters, plan)
        lanes = self.lanes(plan)
        return LanguageObjective(model, lanes, self.corpus.ids, valid, limit=limit, seed=seed, processes=processes)

    def backend(self, model: CharRNN, plan: Plan, processes: Processes) -> str:
        """See `Task.backend`."""
        if plan.backend == "rule":
            return for_training(model.device)
        own = processes.own(plan.lanes)
        table = None if model.embedding is None else model.embedding.weight
        return fastest(model.stack, plan.window, own.stop - own.start, table=table)

    def description(self, plan: Plan, training: dict[str, Any]) -> dict[str, Any]:
        """See `Task.description`."""
        return describe("rnn", encode(plan.network), self.facts, training=training)

    def stepper(self, objective: Objective, plan: Plan) -> Stepper | None:
        """See `Task.stepper`."""
        assert isinstance(objective, LanguageObjective)
        return stepper_for(objective, plan.backend)


def plan_for(
    task: LanguageTask,
    device: torch.device,
    given: Mapping[str, Any],
    init_from: str | Path | CharRNN | None,
    processes: Processes,
) -> tuple[Plan, dict[str, Tensor] | None]:
    """The plan of a new run, and the weights to start from, if any.

    Args:
        task: the text.
        device: where it is trained.
        given: options as of `recipe.choose`; a batch size that is chosen here can be shared by the processes.
        init_from: a model, or its directory, to start from.
        processes: those that train together.

    Raises:
        OptionError: the model to start from does not fit the options or the text.
    """
    given, size = dict(given), processes.size
    if given["lanes"] is None:
        given["lanes"] = -(-choose(task.characters, device, given).lanes // size) * size
    if init_from is None:
        return _affordable(task, choose(task.characters, device, given), device), None
    model = init_from if isinstance(init_from, CharRNN) else load(init_from, device="cpu")
    if not isinstance(model, CharRNN):
        raise OptionError(f"{model.name} is not a recurrent model: --init-from needs the weights of one")
    model = _widen(task, model)
    for name in ("model", "layers", "hidden", "embedding"):
        has = getattr(model.config, name)
        if given[name] not in (None, has):
            raise OptionError(f"--{name} {given[name]} does not fit the weights of --init-from ({has} there)")
        given[name] = has
    plan = choose(task.characters, device, given)
    plan = plan.having(network=replace(model.config, dropout=plan.network.dropout))
    return _affordable(task, plan, device), dict(model.state_dict())


def _affordable(task: LanguageTask, plan: Plan, device: torch.device) -> Plan:
    """The plan; refuses one whose windows need more memory than is free.

    Raises:
        OptionError: says how much memory a window needs, and how much is free.
    """
    steps, lanes = window_shape(task.characters, plan)
    needed, free = window_bytes(plan.network, len(task.corpus.vocab), steps * lanes), free_memory()
    if device.type == "cpu" and free is not None and needed > free:
        raise OptionError(
            f"a window of {steps:,} steps in {lanes:,} lanes needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: take a smaller --seq-length or --batch-size"
        )
    return plan


def _widen(task: LanguageTask, model: CharRNN) -> CharRNN:
    """The model to start from in a vocabulary that holds the symbols of both; the task goes on in it too."""
    if unknown := task.corpus.unknown():
        raise OptionError(
            f"{task.text.title} has {unknown:,} characters that the vocabulary it was read in does not hold: read it "
            "without vocab=, which lets the model's vocabulary grow"
        )
    if (own := task.corpus.vocab) == model.vocab:
        return model
    if own.byte_fallback or model.vocab.byte_fallback:
        raise OptionError(
            f"{task.text.title} was not read in the vocabulary of {model.name}: read it with vocab=model.vocab"
        )
    vocab = Vocab.of("".join((*own.characters, *model.vocab.characters)))
    task.read_under(vocab)
    task.added = tuple(character for character in vocab.characters if character not in model.vocab)
    return grown(model, vocab) if task.added else model


@torch.no_grad()
def grown(model: CharRNN, vocab: Vocab) -> CharRNN:
    """The model with rows of input and output for the new symbols of a vocabulary, matched by character.

    A new character is read as an unknown one, an input of zeros. It gets a tenth of the
    probability that the model gives its least expected character, so that what the model knows stays almost as it is.

    Args:
        model: any network of characters.
        vocab: its characters and new ones.

    >>> from charlm.recurrent.model import RNNConfig
    >>> model = CharRNN(Vocab.of("ac"), RNNConfig(hidden=4))
    >>> before, after = (m.next("ca") for m in (model, grown(model, Vocab.of("abc"))))
    >>> abs(after["a"] / after["c"] - before["a"] / before["c"]) < 1e-4, after["b"] < 0.1
    (True, True)
    """
    found, old = CharRNN(vocab, model.config), model.state_dict()
    kept = torch.tensor([vocab.characters.index(character) for character in model.vocab.characters])
    rarest = int(model.head.linear.bias.argmin())
    for name, new in found.state_dict().items():
        if name.startswith("head.linear."):
            new[:] = old[name][rarest]
            new.sub_(math.log(10) if name.endswith("bias") else 0.0)
            new[kept] = old[name]
        elif name == "embedding.weight" or (name == "stack.cells.0.weight_ih" and model.embedding is None):
            rows, known = (new, old[name]) if name == "embedding.weight" else (new.t(), old[name].t())
            rows.zero_()
            rows[kept] = known
        else:
            new.copy_(old[name])
    return found


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
    facts = TextFacts.read(saved.config["text"])
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
        progress={**progress, "position": position, "total": None, "every": None, "due": None},
        changes=[*saved.changes, {"step": progress["step"], "lanes": lanes}],
    )


def run_text(directory: str | Path, names: Sequence[str] | None = None, given: Mapping[str, Any] | None = None) -> Text:
    """The text of a run that goes on, read again as it was the first time.

    Args:
        directory: of the run.
        names: files to read instead of those that the run was started with; their content must be the same.
        given: options of `read_text` that the user repeats.

    Raises:
        OptionError: one of these options differs from the run's; the message names it and both values.
    """
    saved = read_saved(Path(directory), LANGUAGE)
    facts = TextFacts.read(saved.config["text"])
    reading = facts.reading
    for name, value in (given or {}).items():
        refuse_change(name, facts.split if name == "split" else getattr(reading, name), value)
    return read_text(
        list(names or facts.names),
        split=facts.split,
        encoding=reading.encoding,
        newlines=reading.newlines,
        bytes=reading.bytes,
        vocab_size=reading.vocab_size,
        items=reading.items,
        weights=reading.weights,
        vocab=saved.vocab,
    )


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """A block in which torch uses so many threads."""
    before = torch.get_num_threads()
    if threads is not None and not 1 <= threads <= 1024:
        raise OptionError(f"a training uses from 1 to 1024 threads, not {threads}")
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
