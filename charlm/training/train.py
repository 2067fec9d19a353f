"""`train`: makes a recurrent language model of a text; what `charlm train` calls."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from charlm.errors import LostProcessError, OptionError
from charlm.files import free_name, lock
from charlm.lm.evaluate import Evaluation, evaluate
from charlm.nn.cells import Cell, cell_name
from charlm.nn.kernels import crowded, device_of, notes, pick_device, using_threads
from charlm.recurrent.model import CharRNN
from charlm.text.text import Part, Text, TextFacts, as_text
from charlm.training.distributed import Processes, device_here, in_turn, joined, launch_of
from charlm.training.interfaces import Observer
from charlm.training.language_run import (
    LANGUAGE,
    LanguageTask,
    load_network,
    plan_for,
    replay_of,
    resume_language,
    run_replay,
    run_text,
)
from charlm.training.recipe import Plan
from charlm.training.run import Run, interruptible, refuse_change, same_directory, start
from charlm.training.states import Saved, left_by, read_saved, seconds_between_states, states
from charlm.training.watching import History, Training, Watch

_BUDGET = ("epochs", "max_steps", "minutes")
_FLAGS = {"lanes": "batch-size", "window": "seq-length"}
"""Names of options on the command line, where they are others."""


def train(
    text: Text | None = None,
    *,
    model: str | type[Cell] | None = None,
    layers: int | None = None,
    hidden: int | None = None,
    embedding: int | None = None,
    dropout: float | None = None,
    variational: bool | None = None,
    weight_dropout: float | None = None,
    input_dropout: float | None = None,
    grams: int | None = None,
    look_back: int | None = None,
    seq_length: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    average: float | None = None,
    patience: int | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    init_from: str | Path | CharRNN | None = None,
    replay: str | Path | Text | None = None,
    replay_share: float | None = None,
    save_every: float = 300.0,
    progress: bool | None = None,
    observer: Observer | None = None,
    processes: Processes | None = None,
) -> CharRNN:
    """Trains a recurrent language model on a text. What is not given is chosen from the text's size, the device and
    the time.

    Args:
        text: from `read_text` or `Text.of`; with `resume` it may be left out, and is read again from its files.
        model: the kind of recurrent cell: `lstm`, `gru`, `rnn`, or a class of your own (`charlm.nn.cells.Cell`).
        layers, hidden: recurrent layers, and units in each.
        embedding: width of a character embedding; 0 is one-hot input.
        dropout: share of the units left out between the layers and before the output, while training.
        variational: use one dropout mask for all steps of a window.
        weight_dropout, input_dropout: shares of the recurrent weights and of the characters left out, while training.
        grams: rows of weights by which strings of the last 2 to 5 characters add to the output; 0 for none.
        look_back: characters that the network looks back on for what followed at places like this one; 0 for none. By
            default 2048 on a CPU, where the text has 50,000 characters or more, in long pieces.
        seq_length: steps between two truncations of backpropagation.
        batch_size: pieces of the text that are read side by side, by all processes together.
        lr: the peak learning rate.
        weight_decay: of AdamW, for matrices.
        average: use the mean of the weights over this share of the steps so far.
        patience: validations without improvement until it stops; 0 never stops early.
        epochs, max_steps, minutes: the budget, whichever ends first; by default 4 minutes or 24 epochs.
        seed: of initial weights, order and dropout; by default 0.
        device: `auto`, `cpu`, `cuda` or `mps`.
        backend: how layers are run: `reference`, `fused` or `torch`; `auto` times them and keeps the fastest. By
            default a rule chooses, so that the same call on the same machine gives the same weights.
        precision: of products: `fp32`; or `bf16`, bfloat16 with float32 sums and weights. By default bf16 on a GPU that
            has it, and on a CPU with AVX512-BF16 for layers of 128 units or more; fp32 elsewhere. The model that
            comes back reads in fp32.
        threads: of the CPU that each process uses while it trains; by default torch's number. Beside other work that
            keeps all cores busy, fewer threads are often faster. Another number rounds sums differently.
        out: a directory to keep the run in, so that it can be resumed; a taken name becomes NAME-2, and `{model}` in
            it stands for the kind of cell. None trains in memory.
        resume: the directory of a run to go on with. A new budget, batch size, device and precision are taken; another
            option must be as the run has it.
        init_from: a model, or its directory, to start from; characters are matched, and its vocabulary grows by those
            that it does not know. One that spells characters in bytes reads the text with `vocab=model.vocab`.
        replay: the text that the model of `init_from` was made from, or its file, which is kept in the mix so that the
            model does not forget it; of a text with a split the training part.
        replay_share: share of the batch that reads it; by default 0.25.
        save_every: seconds between two saved states.
        progress: show a progress bar; None shows it on a terminal or in a notebook.
        observer: is told how it goes, in place of the progress bar.
        processes: those that train together; by default the ones that torchrun started, if it did.

    Returns:
        The model with its best weights, ready to use. `history` is its learning curve (`History`), `trained` says how
        it was trained (`Training`). Ctrl-C ends the training early, with everything saved, and returns it so.

    Raises:
        TextError: the training part has no character to predict.
        OptionError: an option that cannot be taken, with what can.
        CheckpointError: no run that can be resumed, or another text.

    >>> text = Text.of("the quick brown fox jumps over the lazy dog. " * 40)
    >>> model = train(text, model="gru", hidden=8, max_steps=5, batch_size=4, seq_length=8, progress=False)
    >>> model.trained.outcome, len(model.history) > 0
    ('finished', True)
    """
    cell = None if model is None else cell_name(model)
    given = {
        "model": cell, "layers": layers, "hidden": hidden, "embedding": embedding, "dropout": dropout,
        "variational": variational, "weight_dropout": weight_dropout, "input_dropout": input_dropout, "grams": grams,
        "look_back": look_back, "window": seq_length, "lanes": batch_size, "lr": lr, "weight_decay": weight_decay,
        "average": average, "patience": patience, "epochs": epochs, "max_steps": max_steps, "minutes": minutes,
        "seed": seed, "backend": backend, "replay_share": replay_share, "precision": precision,
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(using_threads(threads))
        shown = observer or stack.enter_context(closing(Watch(show=progress, measuring=("measuring", "char"))))
        members = stack.enter_context(joined()) if processes is None else processes
        session = _Session(
            text=None if text is None else as_text(text),
            given=given,
            device=device,
            init_from=init_from,
            replay=replay,
            observer=shown if members.first else Observer(),
            spokesman=shown,
            processes=members,
            save_every=seconds_between_states(save_every),
        )
        if resume is not None:
            return session.resume(Path(resume), out)
        return session.begin(None if out is None else str(out))


@dataclass(frozen=True, kw_only=True)
class _Session:
    """One call of `train`: its arguments. The observer is told how it goes in the first process alone; the spokesman is
    the same observer, which says in every process why the training failed."""

    text: Text | None
    given: Mapping[str, Any]
    device: str
    init_from: str | Path | CharRNN | None
    replay: str | Path | Text | None
    observer: Observer
    spokesman: Observer
    processes: Processes
    save_every: float

    def note(self, message: str) -> None:
        self.observer.on_note(message)

    # -- a new run ---------------------------------------------------------------------------------------------

    def begin(self, out: str | None) -> CharRNN:
        """A new run; after an elastic restart the one that this launch began before."""
        with self.processes.alike():
            if self.text is None:
                raise OptionError("name a text to train on, or a run to go on with (resume)")
            start_from = load_network(self.init_from)
            if start_from is None and (self.replay is not None or self.given["replay_share"] is not None):
                raise OptionError("--replay keeps the text of an older model in the mix: name that with --init-from")
            if self.replay is None and self.given["replay_share"] is not None:
                raise OptionError("--replay-share says how much of an older text is read: name that with --replay")
        old = in_turn(self.processes, lambda: self._old(start_from))
        with self.processes.alike():
            device = device_here(pick_device(self.device), os.environ)
            task = LanguageTask(self.text, old)
            plan, weights = plan_for(task, device, self.given, start_from, self.processes)
        launch = launch_of(self.processes, os.environ)
        directory, begun = self._directory(out, plan.network.model, launch)
        if directory is not None and begun:
            self.note(f"{directory} was begun before this restart")
            return self.resume(directory, None, restarted=True)
        with self._held(directory):
            run = start(
                task, plan, device, directory=directory, weights=weights, processes=self.processes, launch=launch
            )
            text = task.text
            self.note(f"{text.title}: {len(text):,} {text.vocab.unit}s, {len(text.vocab)} symbols, split {text.split}")
            weighs = f"{run.model.parameter_count:,} weights"
            self.note(f"{run.plan.line()} on {device}{self._together}, backend {run.plan.backend}, {weighs}")
            for sentence in task.notes(run.plan):
                self.note(sentence)
            return self._train(run, task)

    def _old(self, model: CharRNN | None) -> Part | None:
        """The part of the older text that is kept in the mix."""
        if isinstance(self.replay, Text):
            return self.replay.all if self.replay.split is None else self.replay.train
        return None if self.replay is None or model is None else replay_of(model, self.replay)

    @property
    def _together(self) -> str:
        return f", {self.processes.size} processes" if self.processes.size > 1 else ""

    def _directory(self, out: str | None, cell: str, launch: list[str]) -> tuple[Path | None, bool]:
        """Where the run is kept, as the first process chose it, and whether this launch has saved a state there."""
        if out is None:
            return None, False
        chosen: list[Any] = []
        with self.processes.alike():
            if self.processes.first:
                wanted = Path(out.replace("{model}", cell))
                left = left_by(wanted, launch) if launch else None
                directory = left or free_name(wanted)
                if left is None and directory != wanted and "{model}" not in out:
                    self.note(f"{out} is taken: this run goes to {directory}")
                chosen = [str(directory), bool(left and states(left))]
        name, begun = self.processes.agree(chosen)
        return Path(name), begun

    @contextmanager
    def _held(self, directory: Path | None) -> Iterator[None]:
        """The lock of a run's directory, held by the first process for all."""
        with ExitStack() as stack:
            with self.processes.alike():
                if self.processes.first and directory is not None:
                    stack.enter_context(lock(directory))
            yield

    # -- a run that goes on --------------------------------------------------------------------------------------

    def resume(self, directory: Path, out: str | Path | None, *, restarted: bool = False) -> CharRNN:
        """Goes on with a run; after a restart with the plan that it has, whatever the options say."""
        with self.processes.alike():
            saved = read_saved(directory, LANGUAGE)
            if not restarted:
                self._refuse_changes(directory, saved, out)
            for problem in saved.notes:
                self.note(f"{problem}; the state before it is used")
            device = device_here(device_of(saved.device, self.device, self.note), os.environ)
        text = self.text or in_turn(self.processes, lambda: run_text(directory))
        named = [str(self.replay)] if isinstance(self.replay, (str, Path)) else None
        old = self._old(None) or in_turn(self.processes, lambda: run_replay(directory, saved, named))
        given = {} if restarted else self.given
        launch = launch_of(self.processes, os.environ)
        with self._held(directory):
            run = resume_language(
                directory,
                text,
                device,
                replay=old,
                saved=saved,
                budget={name: given[name] for name in _BUDGET if given.get(name) is not None},
                lanes=given.get("lanes"),
                precision=given.get("precision"),
                processes=self.processes,
                launch=launch,
            )
            self.note(f"{directory} goes on: {run.plan.line()} on {device}{self._together}, backend {run.plan.backend}")
            for sentence in run.notes:
                self.note(sentence)
            if len(run.changes) > len(saved.changes):
                self.note(
                    "with other lanes, kernels or precision, on another device or in another number of processes it "
                    "goes on well, but not to the bit as it would have been"
                )
            assert isinstance(run.task, LanguageTask)
            return self._train(run, run.task)

    def _refuse_changes(self, directory: Path, saved: Saved[Plan], out: str | Path | None) -> None:
        """Names the first option that differs from what the run has, with both values."""
        if out is not None and not same_directory(Path(out), directory):
            refuse_change("out", directory, out)
        network, optimisation = saved.plan.network, saved.plan.optimisation
        for name, value in self.given.items():
            if value is None or name in (*_BUDGET, "lanes", "precision") or (name == "backend" and value == "auto"):
                continue
            owner = next((each for each in (network, optimisation, saved.plan) if hasattr(each, name)), saved.plan)
            refuse_change(_FLAGS.get(name, name), getattr(owner, name), value)
        if self.init_from is not None:
            self.note("the run goes on from its own weights: those of --init-from were for its beginning")
        if self.text is not None:
            facts = TextFacts.read(saved.config["text"])
            if self.text.split is not None and self.text.split != facts.split:
                refuse_change("split", facts.split, self.text.split)

    # -- training and measuring ----------------------------------------------------------------------------------

    def _train(self, run: Run[Plan, CharRNN], task: LanguageTask) -> CharRNN:
        """Trains to the end, measures the best weights once more as one stream, and returns the model."""
        model = run.model
        model.source, model.directory = task.facts, run.directory
        told = notes(model.stack) if self.processes.first else []
        if run.device.type == "cpu" and self.processes.size == 1:
            told.append(crowded(torch.get_num_threads()))
        for sentence in filter(None, told):
            self.note(sentence)
        with interruptible() as stopped:
            try:
                outcome = run.train(observer=self.observer, save_every=self.save_every, should_stop=stopped)
            except LostProcessError as error:  # said here, where a SIGTERM by torchrun cannot cut it off
                self.spokesman.on_failure(f"charlm: {error}")
                raise
            self.processes.close()  # the first one alone goes on
            evaluation = None
            if self.processes.first and outcome != "interrupted":
                evaluation = self._measure(run, task)
        if run.rows and self.processes.first:
            last = run.rows[-1]
            self.note(f"{last['step']:,} steps in {last['seconds'] / 60:.1f} minutes")
        model.history = History(run.rows, title=model.name if run.directory else "")
        model.trained = Training(
            plan=run.plan, outcome=outcome, part=task.reported, evaluation=evaluation, directory=run.directory,
            device=run.device, processes=self.processes.size,
        )  # fmt: skip
        return model

    def _measure(self, run: Run[Plan, CharRNN], task: LanguageTask) -> Evaluation | None:
        """Measures the model on the reported part, and keeps the figures with it."""
        if not task.measurable:
            return None
        part = task.text.part(task.reported)
        found = evaluate(run.model, task.corpus.ids, part.spans, progress=self.observer.on_measure)
        split = str(task.text.split)
        run.describe(result={**found.to_json(), "split": split, "part": part.name})
        return replace(found, text=task.text.title, text_sha256=task.corpus.sha256, split=split, part=part.name)
