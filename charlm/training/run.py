"""A run: a model, a text and a plan, kept in a directory from which it can be sampled, evaluated and resumed.

What the directory holds is listed in `keeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import TextFacts, describe, load
from charlm.errors import CheckpointError, LostProcessError, TextError
from charlm.files import write_json
from charlm.lm.evaluate import Evaluation, evaluate
from charlm.lm.reading import OnRead as Reading
from charlm.nn.kernels.choose import fastest, for_reading
from charlm.recurrent.model import CharRNN
from charlm.tensors import write_tensors
from charlm.text.corpus import Corpus
from charlm.text.lanes import Lanes
from charlm.text.splits import Split, count_targets
from charlm.training.distributed import ALONE, Processes
from charlm.training.graphed import stepper_for
from charlm.training.keeping import DirectoryKeeper, Kept, read_saved, resumable, saved_weights, take_back
from charlm.training.language import LanguageObjective
from charlm.training.loop import Loop
from charlm.training.recipe import Plan
from charlm.training.together import Follower, way_on
from charlm.training.watching import Observer

__all__ = ["Result", "Run", "reported_part", "resume", "start"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended.

    Args:
        outcome: `finished`, `no improvement`, `interrupted` or `diverged`.
        part: the part of the text that was measured: test, or valid where there is no test part.
        evaluation: the best weights on that part, one stream; None where the run was interrupted, and in every
            process but the first.
    """

    outcome: str
    part: str
    evaluation: Evaluation | None


def reported_part(corpus: Corpus, split: Split) -> str:
    """The part that figures are reported on: test, or valid where the test part has no target."""
    return "test" if count_targets(corpus.parts(split)["test"]) else "valid"


class Run(Kept):
    """One run in its directory; made by `start` or `resume`.

    Args:
        directory: where it is kept; it exists.
        model: the network, on its device.
        corpus: the text.
        split: its parts.
        plan: how it is trained.
        processes: train it together; the first one writes.
        launch: what started the processes (`launch.launch_of`), by which an elastic restart finds the run.
    """

    def __init__(
        self,
        directory: Path,
        model: CharRNN,
        corpus: Corpus,
        split: Split,
        plan: Plan,
        *,
        processes: Processes = ALONE,
        launch: Sequence[str] = (),
    ) -> None:
        self.directory, self.model, self.corpus, self.split, self.plan = directory, model, corpus, split, plan
        self.processes, self.launch = processes, list(launch)
        self.command, self.vocab = "charlm train", corpus.vocab
        self.facts = TextFacts.of(corpus, split)
        self.parts = corpus.parts(split)
        self.rows: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
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
        outcome = self.processes.agree(self._optimise(observer, save_every, should_stop))  # once all is written
        part = reported_part(self.corpus, self.split)
        self.processes.close()  # what is left to do is the first one's alone
        measured = self.processes.first and outcome != "interrupted"
        return Result(outcome=outcome, part=part, evaluation=self._measure(part, progress) if measured else None)

    def _optimise(self, observer: Observer | None, save_every: float, should_stop: Callable[[], bool]) -> str:
        """Runs the loop to its end and says how it ended."""
        valid = self.parts["valid"] if count_targets(self.parts["valid"]) else self.parts["train"]
        options, processes = self.plan.optimisation, self.processes
        objective = LanguageObjective(
            self.model, self.lanes(), self.corpus.ids, valid, seed=options.seed, processes=processes
        )
        loop = Loop(
            objective,
            options,
            observer=observer,
            keeper=DirectoryKeeper(self) if processes.first else Follower(),
            save_every=save_every,
            should_stop=should_stop,
            processes=processes,
            stepper=stepper_for(objective, self.plan.backend),
        )
        if self._saved is not None:
            loop.load_snapshot(*self._saved)
        try:
            return loop.run()
        except LostProcessError as error:
            raise LostProcessError(f"{error}: {way_on(self.directory)}") from error

    def lanes(self) -> Lanes:
        """The training part as the plan cuts it."""
        plan = self.plan
        return Lanes(
            self.corpus.ids, self.parts["train"], lanes=plan.lanes, window=plan.window, seed=plan.optimisation.seed
        )

    def _measure(self, part: str, progress: Reading | None) -> Evaluation | None:
        """Puts the best weights in, reads the reported part as one stream, and keeps the figures."""
        best = load(self.directory, device=self.model.device)
        assert isinstance(best, CharRNN)
        self.model.load_state_dict(best.state_dict())
        self.model.eval()
        if not count_targets(self.parts[part]):
            return None
        self.model.stack.backend = for_reading(self.model.device)
        evaluation = evaluate(self.model, self.corpus.ids, self.parts[part], progress=progress)
        self.describe(result={**evaluation.to_json(), "split": str(self.split), "part": part})
        return evaluation

    def description(self, **more: Any) -> dict[str, Any]:
        """The content of `config.json`; `more` are further values."""
        training = {**self.plan.to_json(), "device": str(self.model.device), "changes": self.changes}
        training |= {"processes": self.processes.size}
        training |= {"launch": self.launch} if self.launch else {}
        return describe("rnn", self.plan.network.to_json(), self.facts, training=training, **more)


def start(
    directory: Path,
    corpus: Corpus,
    split: Split,
    plan: Plan,
    device: torch.device,
    *,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run:
    """A new run in a new directory, with fresh weights from the plan's seed; call under `files.lock`.

    Args:
        directory: of the run, new and empty.
        corpus, split, plan, device: see `Run`.
        processes, launch: see `Run`; all processes call it, the first one holds the lock.

    Raises:
        TextError: the training part has nothing to predict.
        OptionError: the processes cannot share the lanes equally.
    """
    parts = corpus.parts(split)
    if not count_targets(parts["train"]):
        raise TextError(
            f"the training part of {corpus.title} has no character to predict: use a longer text or --split"
        )
    model = CharRNN(corpus.vocab, plan.network)
    model.reset_parameters(torch.Generator().manual_seed(plan.optimisation.seed))
    model.to(device)
    run = Run(directory, model, corpus, split, plan, processes=processes, launch=launch)
    own = processes.own(run.lanes().lanes)
    if plan.backend == "auto":
        run.plan = replace(plan, backend=_fastest(run, own.stop - own.start))
    model.stack.backend = run.plan.backend
    with processes.alike():
        if processes.first:
            _write_first(run)
    return run


def _write_first(run: Run) -> None:
    """The files of a run that has not made a step."""
    write_json(run.directory / "vocab.json", run.corpus.vocab.to_json())
    for name in ("best", "last"):
        write_tensors(run.directory / f"{name}.safetensors", dict(run.model.named_parameters()))
    run.describe()


def _fastest(run: Run, lanes: int) -> str:
    """The backend that runs a window of so many lanes fastest, as the first process found it."""
    model = run.model
    table = None if model.embedding is None else model.embedding.weight
    return str(run.processes.agree(fastest(model.stack, run.plan.window, lanes, table=table)))


def resume(
    directory: Path,
    corpus: Corpus,
    device: torch.device,
    *,
    budget: dict[str, Any] | None = None,
    lanes: int | None = None,
    processes: Processes = ALONE,
    launch: Sequence[str] = (),
) -> Run:
    """The run in a directory, at its newest whole state; call under `files.lock`.

    With the same lanes on the same device in the same number of processes it goes on to the bit. Another number of
    lanes begins at the same share of the epoch with hidden states of zero; on another device the layers are run as is
    fastest there and dropout draws from the seed anew; other processes keep the hidden states, and sums are rounded
    otherwise. All of these are recorded in `config.json`.

    Args:
        directory: a run directory.
        corpus: its text, read again with the run's vocabulary.
        device: where it goes on.
        budget: new values of `epochs`, `max_steps`, `minutes`; they are recorded, and the steps planned again.
        lanes: a new number of lanes.
        processes, launch: see `Run`; all processes call it, the first one holds the lock.

    Raises:
        CheckpointError: no run, no whole state, or another text.
        OptionError: the processes cannot share the lanes equally.
    """
    saved = read_saved(directory)
    if corpus.sha256 != saved.text.sha256:
        raise CheckpointError(
            f"the text has changed since {directory} was trained on it ({saved.text.sha256[:12]} then, "
            f"{corpus.sha256[:12]} now): bring the old text back, or start a new run with --init-from"
        )
    if corpus.vocab != saved.vocab:
        raise CheckpointError(f"the text was read with another vocabulary than that of {directory}")
    with torch.device("meta"):
        model = CharRNN(saved.vocab, saved.plan.network)
    _put_weights(model, saved.tensors, directory)
    model.to(device)
    run = Run(directory, model, corpus, saved.text.split, saved.plan, processes=processes, launch=launch)
    run.rows, run.changes = list(saved.rows), list(saved.changes)
    progress = dict(saved.progress)
    if budget:
        run.plan = replace(run.plan, optimisation=replace(run.plan.optimisation, **budget))
        progress |= {"total": None, "every": None, "since_best": 0}
    tensors = dict(saved.tensors)
    if lanes is not None and lanes != run.plan.lanes:
        tensors, progress = _change_lanes(run, lanes, tensors, progress)
    own = processes.own(run.lanes().lanes)
    if processes.size != saved.processes:
        run.changes.append({"step": progress["step"], "processes": processes.size})
    if device.type != torch.device(saved.device).type:
        run.plan = replace(run.plan, backend=_fastest(run, own.stop - own.start))
        run.changes.append({"step": progress["step"], "device": str(device), "backend": run.plan.backend})
    model.stack.backend = run.plan.backend
    run._saved = tensors, progress
    with processes.alike(), resumable(directory):
        if processes.first:
            take_back(run, tensors)
    return run


def _put_weights(model: CharRNN, tensors: dict[str, torch.Tensor], directory: Path) -> None:
    weights = saved_weights(model, tensors, directory)
    if model.config.tied:
        weights["head.linear.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights, assign=True)
    model.tie()


def _change_lanes(
    run: Run, lanes: int, tensors: dict[str, torch.Tensor], progress: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Takes the new number; the position is the same share of the epoch, the hidden states are left out."""
    before = run.lanes().windows_per_epoch
    run.plan = replace(run.plan, lanes=lanes)
    after = run.lanes().windows_per_epoch
    epoch, window = divmod(int(progress.get("position", progress["step"])), before)
    run.changes.append({"step": progress["step"], "lanes": lanes})
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("carried/state/")}
    position = epoch * after + round(window / before * after)
    return kept, {**progress, "position": position, "total": None, "every": None}
