"""A language model's run: what is trained on what, and going on with it in its directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.checkpoint import grown, load
from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError, TextError
from charlm.files import describe, still_there
from charlm.nn.kernels import check_precision, fastest, for_training
from charlm.recurrent.model import CharRNN
from charlm.text.splits import Split, count_targets
from charlm.text.text import Part, Text, TextFacts, read_text
from charlm.text.vocab import Vocab
from charlm.training.distributed import ALONE, Processes
from charlm.training.graphed import stepper_for
from charlm.training.interfaces import Objective, Stepper
from charlm.training.language import Lanes, LanguageObjective, Ring
from charlm.training.recipe import Plan, affordable, choose, validation_limit, window_shape
from charlm.training.run import Run, Task, refuse_change, resume
from charlm.training.states import RunKind, Saved, read_saved


def _check(config: Mapping[str, Any], plan: Plan, vocab: Vocab | None) -> None:
    TextFacts.read(config["text"])
    if vocab is None:
        raise CheckpointError("the state has no vocabulary, so it is not that of a language model")


REPLAY_SHARE = 0.25
"""The share of the lanes that read the older text where none is given."""

LANGUAGE = RunKind(command="charlm train", plan=Plan, check=_check)
"""Runs that train a language model."""


class LanguageTask(Task[Plan, CharRNN]):
    """A recurrent language model on the training part of a text.

    Args:
        text: with a split.
        replay: a part of an older text that is kept in the mix.

    Raises:
        TextError: the training part has no character to predict.
    """

    kind = LANGUAGE
    added: tuple[str, ...] = ()
    """Characters that the model to start from did not know."""

    def __init__(self, text: Text, replay: Part | None = None) -> None:
        self.replay = replay
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
        if repeated := self.corpus.repeated(self.facts.split):
            found.append(repeated)
        if self.replay is not None:
            cut, title = self.lanes(plan), f"{self.replay.text.title}, {self.replay.name} part"
            found.append(f"{cut.replayed:,} of {cut.lanes:,} lanes replay {title} ({len(self.replay):,} characters)")
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
        seed, shape = plan.optimisation.seed, {"lanes": plan.lanes, "window": plan.window}
        old = None if self.replay is None else self.replay.under(self.corpus.vocab)
        ring = None if old is None else Ring(old.text.corpus.ids, old.spans)
        train = self.parts["train"]
        return Lanes(self.corpus.ids, train, **shape, seed=seed, replay=ring, share=plan.replay_share)

    def objective(self, model: CharRNN, plan: Plan, processes: Processes) -> LanguageObjective:
        """See `Task.objective`."""
        valid, seed = self.parts[self.watched], plan.optimisation.seed
        limit = validation_limit(self.characters, plan)
        lanes = self.lanes(plan)
        shared: dict[str, Any] = {"limit": limit, "seed": seed, "processes": processes, "precision": plan.precision}
        return LanguageObjective(model, lanes, self.corpus.ids, valid, **shared)

    def backend(self, model: CharRNN, plan: Plan, processes: Processes) -> str:
        """See `Task.backend`."""
        if plan.backend == "rule":
            return for_training(model.device)
        own = processes.own(plan.lanes)
        table = None if model.embedding is None else model.embedding.weight
        return fastest(model.stack, plan.window, own.stop - own.start, table=table)

    def description(self, plan: Plan, training: dict[str, Any]) -> dict[str, Any]:
        """See `Task.description`."""
        more = {} if self.replay is None else {"replay": _facts_of(self.replay)}
        return describe("rnn", encode(plan.network), self.facts, training=training, **more)

    def stepper(self, objective: Objective, plan: Plan) -> Stepper | None:
        """See `Task.stepper`."""
        assert isinstance(objective, LanguageObjective)
        return stepper_for(objective, plan.backend)


def load_network(model: str | Path | CharRNN | None) -> CharRNN | None:
    """The model to start from, or that of its directory; anything but a recurrent one is refused."""
    found = model if model is None or isinstance(model, CharRNN) else load(model, device="cpu")
    if found is not None and not isinstance(found, CharRNN):
        raise OptionError(f"{found.name} is not a recurrent model: --init-from needs the weights of one")
    return found


def plan_for(
    task: LanguageTask, device: torch.device, given: Mapping[str, Any], model: CharRNN | None, processes: Processes
) -> tuple[Plan, dict[str, Tensor] | None]:
    """The plan of a new run, and the weights to start from, if any.

    Args:
        task: the text.
        device: where it is trained.
        given: options as of `recipe.choose`; a batch size that is chosen here can be shared by the processes.
        model: to start from.
        processes: those that train together.

    Raises:
        OptionError: the model to start from does not fit the options or the text.
    """
    given, size = dict(given), task.characters
    if task.replay is not None:
        given["replay_share"] = given.get("replay_share") or REPLAY_SHARE
    if given["lanes"] is None:
        given["lanes"] = -(-choose(size, device, given).lanes // processes.size) * processes.size
    if processes.size > 1 and given["grams"] is None:
        given["grams"] = 0  # their gradients would be sent whole
    if model is None:
        symbols, pieces = len(task.corpus.vocab), len(task.parts["train"])
        return affordable(choose(size, device, given, symbols, pieces), size, symbols, device), None
    model = _widen(task, model)
    for name in ("model", "layers", "hidden", "embedding", "grams", "gram_order", "look_back"):
        has = getattr(model.config, name)
        if given.get(name) not in (None, has):
            raise OptionError(
                f"--{name.replace('_', '-')} {given[name]} does not fit the weights of --init-from ({has} there)"
            )
        given[name] = has
    plan = choose(size, device, given)
    plan = plan.having(network=replace(model.config, dropout=plan.network.dropout))
    return affordable(plan, size, len(task.corpus.vocab), device), dict(model.state_dict())


def _widen(task: LanguageTask, model: CharRNN) -> CharRNN:
    """The model to start from in a vocabulary that holds the symbols of all texts; the task goes on in it too."""
    texts = [task.text, *([] if task.replay is None else [task.replay.text])]
    for text in texts:
        if unknown := text.corpus.unknown():
            raise OptionError(
                f"{text.title} has {unknown:,} characters that the vocabulary it was read in does not hold: read it "
                "without vocab=, which lets the model's vocabulary grow"
            )
    if all(text.vocab == model.vocab for text in texts):
        return model
    for text in texts:
        if text.vocab != model.vocab and (text.vocab.byte_fallback or model.vocab.byte_fallback):
            raise OptionError(
                f"{text.title} was not read in the vocabulary of {model.name}: read it with vocab=model.vocab"
            )
    vocab = Vocab.of("".join(c for known in (model.vocab, *(t.vocab for t in texts)) for c in known.characters))
    task.read_under(vocab)
    task.added = tuple(character for character in vocab.characters if character not in model.vocab)
    return grown(model, vocab) if task.added else model


def resume_language(
    directory: Path,
    text: Text,
    device: torch.device,
    *,
    replay: Part | None = None,
    saved: Saved[Plan] | None = None,
    budget: Mapping[str, Any] | None = None,
    lanes: int | None = None,
    precision: str | None = None,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run[Plan, CharRNN]:
    """The language model's run in a directory, at its newest whole state; call it under `files.lock`.

    Args:
        directory: of the run.
        text: its text, read again with the run's vocabulary.
        device: where it goes on.
        replay: the older text that it keeps in the mix.
        saved: the state; by default it is read.
        budget: see `run.resume`.
        lanes: a new batch size; the run goes on at the same share of the epoch with hidden states of zero.
        precision: another one of products; `auto` keeps the run's.
        processes, launch: see `Run`.

    Raises:
        CheckpointError: no run, no whole state, or another text.
        OptionError: the processes cannot share the lanes equally.
    """
    saved = saved or read_saved(directory, LANGUAGE)
    facts, corpus = TextFacts.read(saved.config["text"]), text.corpus
    if corpus.sha256 != facts.sha256:
        raise CheckpointError(
            f"the text has changed since {directory} was trained on it ({facts.sha256[:12]} then, "
            f"{corpus.sha256[:12]} now): bring the old text back, or start a new run with --init-from"
        )
    if corpus.vocab != saved.vocab:
        raise CheckpointError(f"the text was read with another vocabulary than that of {directory}")
    if (None if replay is None else _facts_of(replay)["sha256"]) != saved.config.get("replay", {}).get("sha256"):
        raise CheckpointError(f"the text of --replay is not the one that {directory} was trained with: bring it back")
    task = LanguageTask(Text(corpus=corpus, split=facts.split), replay)
    if lanes is not None and lanes != saved.plan.lanes:
        saved = _with_lanes(saved, task, lanes)
    if precision not in (None, "auto", saved.plan.precision):
        change = {"step": saved.progress["step"], "precision": precision}
        saved = replace(saved, plan=saved.plan.having(precision=precision), changes=[*saved.changes, change])
    backend = saved.plan.backend if device.type == torch.device(saved.device).type else "rule"  # as `resume` has it
    check_precision(saved.plan.precision, device, saved.plan.network.model, backend)
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
    for name, value in (given or {}).items():
        refuse_change(name, facts.split if name == "split" else getattr(facts.reading, name), value)
    return _read_again(directory, facts, names, saved.vocab)


def run_replay(
    directory: str | Path, saved: Saved[Plan] | None = None, names: Sequence[str] | None = None
) -> Part | None:
    """The older text that a run keeps in the mix, read again as it was the first time; None where there is none.

    Args:
        directory: of the run.
        saved: its state; by default it is read.
        names: files to read instead of those that the run was started with.

    Raises:
        OptionError: files are named, and the run has no such text.
    """
    saved = saved or read_saved(Path(directory), LANGUAGE)
    if (stored := saved.config.get("replay")) is None:
        refuse_change("replay", None, names[0] if names else None)
        return None
    text = _read_again(directory, TextFacts.read(stored), names, saved.vocab)
    return text.part(str(stored["part"]))


def replay_of(model: CharRNN, path: str | Path) -> Part:
    """A file that is kept in the mix: the training part of the model's own text, all of another one, read like it."""
    vocab = model.vocab if model.vocab.byte_fallback else None
    text = read_text(path, vocab=vocab, **vars(model.source.reading))
    own = (text.corpus.sha256, text.corpus.reading.items) == (model.source.sha256, model.source.reading.items)
    return Text(corpus=text.corpus, split=model.source.split).train if own else text.all


def _facts_of(replay: Part) -> dict[str, Any]:
    """What `config.json` says about an older text that is kept in the mix."""
    facts = TextFacts.of(replay.text.corpus, replay.text.split or Split.default(len(replay.text)))
    return {**encode(facts), "part": replay.name}


def _read_again(directory: str | Path, facts: TextFacts, names: Sequence[str] | None, vocab: Vocab | None) -> Text:
    still_there(() if names else facts.names, f"charlm train NEW_PATH --resume {directory}")
    return read_text(list(names or facts.names), split=facts.split, vocab=vocab, **vars(facts.reading))
