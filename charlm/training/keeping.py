"""How any run is kept in its directory: states, weights, the learning curve, and going on from what is whole.

config.json             what it is, what it was made from, how, and the figure it ended with
vocab.json              the symbols, where there are any
best.safetensors        the weights with the lowest validation loss
last.safetensors        the weights of the last state
state-STEP.safetensors  everything of one moment, the two newest; all other files can be made from one of them
metrics.jsonl           the learning curve
LOCK                    while a process writes


What a language model's run in its directory can go on from: its newest whole state."""

from __future__ import annotations

import abc
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from charlm.checkpoint import TextFacts, read_config
from charlm.errors import CharlmError, CheckpointError, StorageError
from charlm.files import sweep, unwritten, write_bytes, write_json
from charlm.tensors import read_tensors, write_tensors
from charlm.text.vocab import Vocab
from charlm.training.loop import Keeper, Loop
from charlm.training.options import Progress
from charlm.training.recipe import Plan
from charlm.training.snapshot import best_weights, group, last_weights

__all__ = [
    "DirectoryKeeper",
    "Kept",
    "Moment",
    "Saved",
    "newest_whole",
    "read_moment",
    "read_saved",
    "resumable",
    "saved_weights",
    "states",
    "take_back",
    "write_metrics",
]

T = TypeVar("T")


class Kept(abc.ABC):
    """A run as its keeper sees it."""

    directory: Path
    command: str
    """The command that goes on with it, as `charlm train`."""
    vocab: Vocab | None
    rows: list[dict[str, Any]]
    """Of the learning curve."""

    @abc.abstractmethod
    def description(self, **more: Any) -> dict[str, Any]:
        """The content of `config.json`; `more` are further values."""

    def describe(self, **more: Any) -> None:
        """Writes `config.json`; `more` are further values."""
        write_json(self.directory / "config.json", self.description(**more))


class DirectoryKeeper(Keeper):
    """Keeps a run in its directory."""

    def __init__(self, run: Kept) -> None:
        self._run, self.directory = run, run.directory

    def metrics(self, row: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        self._run.rows.append(row)
        with resumable(self.directory, self._run.command):
            write_metrics(self.directory, self._run.rows)

    def best(self, loop: Loop) -> None:
        """Writes `best.safetensors`."""
        with resumable(self.directory, self._run.command):
            write_tensors(self.directory / "best.safetensors", loop.weights())

    def state(self, loop: Loop) -> None:
        """Writes everything into one file, then `last.safetensors`, and deletes all but the two newest states."""
        tensors, progress = loop.snapshot()
        run = self._run
        facts: dict[str, Any] = {"progress": progress, "rows": run.rows, "config": run.description()}
        if run.vocab is not None:
            facts["vocab"] = run.vocab.to_json()
        metadata = {name: json.dumps(value, allow_nan=False) for name, value in facts.items()}
        with resumable(self.directory, run.command):
            write_tensors(self.directory / f"state-{loop.progress.step}.safetensors", tensors, metadata)
            write_tensors(self.directory / "last.safetensors", loop.weights())
            run.describe()
            for old in states(self.directory)[2:]:
                old.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A saved state, its frame checked.

    Args:
        config: `config.json` at that moment.
        vocab: the symbols; None where there are none.
        changes: what was changed on the way that makes it another run than one left alone.
        progress: where it stood.
        rows: of the learning curve until then.
        tensors: weights, optimizer, hidden states, generators.
    """

    config: dict[str, Any]
    vocab: Vocab | None
    changes: list[dict[str, Any]]
    progress: dict[str, Any]
    rows: list[dict[str, Any]]
    tensors: dict[str, Tensor]


def read_moment(path: Path) -> Moment:
    """Reads a state file.

    Raises:
        CharlmError, KeyError, TypeError, ValueError, AttributeError, RecursionError: it is not whole; `newest_whole`
            makes a sentence of it.
    """
    tensors, metadata = read_tensors(path)
    config, rows, progress = (_strict_json(metadata[name]) for name in ("config", "rows", "progress"))
    changes = config["training"]["changes"]
    lists = isinstance(changes, list) and isinstance(rows, list)
    if not lists or not all(isinstance(value, dict) for value in (*rows, *changes, progress)):
        raise CheckpointError(f"{path} is not a whole state of a run")
    Progress.from_json(progress)
    try:
        torch.device(str(config["training"]["device"]))
    except RuntimeError:
        raise CheckpointError(f"{path} was written on no device that there is") from None
    vocab = Vocab.from_json(json.loads(metadata["vocab"])) if "vocab" in metadata else None
    return Moment(config=config, vocab=vocab, changes=changes, progress=progress, rows=rows, tensors=tensors)


def _strict_json(text: str) -> Any:
    """A value that can be written again: no infinity, no NaN."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value


def newest_whole(
    directory: Path, read: Callable[[Path], T], command: str, kind: str | None = None
) -> tuple[T, list[str]]:
    """The newest state that is whole, and sentences about damaged ones that were passed over for it.

    Args:
        directory: of the run.
        read: makes what is wanted of a state file; any error in it means that the file is not whole.
        command: what makes such runs, for the sentence where there is none.
        kind: of the model, as of `checkpoint.read_config`.

    Raises:
        CheckpointError: there is no run, or no whole state of it.
    """
    if not directory.is_dir():
        raise CheckpointError(f"there is no model directory {directory}: name one such as checkpoints/NAME")
    problems: list[str] = []
    for path in states(directory):
        try:
            return read(path), problems
        except (CharlmError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            problems.append(
                str(error) if isinstance(error, CharlmError) else f"{path} is not a whole state ({error!r})"
            )
    if not problems and "training" not in read_config(directory, kind=kind):
        raise CheckpointError(f"{directory} is no training run: only what `{command}` made can be resumed")
    reason = f" ({problems[0]})" if problems else ""
    raise CheckpointError(f"{directory} has no whole saved state to go on from{reason}: start the run again")


def states(directory: Path) -> list[Path]:
    """The saved states, the newest first."""
    found = [path for path in directory.glob("state-*.safetensors") if path.stem.removeprefix("state-").isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("state-")), reverse=True)


@contextlib.contextmanager
def resumable(directory: Path, command: str = "charlm train") -> Iterator[None]:
    """Where something cannot be written, says how to go on: what was written before is whole."""
    try:
        yield
    except OSError as error:
        told = error if isinstance(error, StorageError) else unwritten(directory, error)
        steps = [path.stem.removeprefix("state-") for path in states(directory)]
        way_out = (
            f"everything up to step {steps[0]} is saved: then go on with {command} --resume {directory}"
            if steps
            else "nothing was saved yet: then start the run again"
        )
        raise StorageError(f"{told}; {way_out}", error) from None


def write_metrics(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the learning curve anew, so that it never ends in half a row."""
    path = directory / "metrics.jsonl"
    if rows:
        write_bytes(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())
    else:
        path.unlink(missing_ok=True)


def saved_weights(model: nn.Module, tensors: dict[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """Copies of the weights in a state, their names, shapes and types compared with the model's first."""
    weights = group(tensors, "weights")
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    kinds = {tensor.dtype for tensor in weights.values()}
    sound = len(kinds) == 1 and next(iter(kinds)).is_floating_point
    if not sound or {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise CheckpointError(f"the state in {directory} does not fit the network that it describes")
    return {name: tensor.clone() for name, tensor in weights.items()}


def take_back(run: Kept, tensors: dict[str, torch.Tensor]) -> None:
    """Makes all other files from the state: what came after it will be written again, what is damaged is mended."""
    directory = run.directory
    sweep(directory)
    if run.vocab is not None:
        write_json(directory / "vocab.json", run.vocab.to_json())
    write_tensors(directory / "best.safetensors", best_weights(tensors))
    write_tensors(directory / "last.safetensors", last_weights(tensors))
    write_metrics(directory, run.rows)
    run.describe()


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A run as its newest whole state has it.

    Args:
        text: what it is trained on.
        vocab: its symbols.
        plan: how it is trained.
        device: where it was trained.
        processes: how many trained it together.
        changes: what was changed on the way that makes it another run than one left alone.
        progress: where it stands.
        rows: of the learning curve so far.
        tensors: weights, optimizer, hidden states, generators.
        notes: of states that are damaged and were passed over.
    """

    text: TextFacts
    vocab: Vocab
    plan: Plan
    device: str
    processes: int
    changes: list[dict[str, Any]]
    progress: dict[str, Any]
    rows: list[dict[str, Any]]
    tensors: dict[str, torch.Tensor]
    notes: list[str] = field(default_factory=list)


def read_saved(directory: Path) -> Saved:
    """The newest state that is whole; a damaged one is passed over for the one before it.

    Raises:
        CheckpointError: there is no run, or no whole state of it.
    """
    saved, problems = newest_whole(directory, _saved, "charlm train")
    return replace(saved, notes=problems)


def _saved(path: Path) -> Saved:
    moment = read_moment(path)
    if moment.vocab is None:
        raise CheckpointError(f"{path} is not a whole state of a run")
    return Saved(
        text=TextFacts.from_json(moment.config["text"]),
        vocab=moment.vocab,
        plan=Plan.from_json(moment.config["training"]),
        device=str(moment.config["training"]["device"]),
        processes=int(moment.config["training"].get("processes", 1)),
        changes=moment.changes,
        progress=moment.progress,
        rows=moment.rows,
        tensors=moment.tensors,
    )
