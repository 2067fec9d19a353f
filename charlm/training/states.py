"""How a run is kept in its directory: states, weights, the learning curve, and reading the newest state that is whole.

config.json             what the model is, what it was made from, how, and the figures it ended with
vocab.json              the symbols, where there are any
best.safetensors        the weights with the lowest validation loss
last.safetensors        the weights of the last state
state-STEP.safetensors  everything that an exact resume needs, of the two newest states
metrics.jsonl           the learning curve
LOCK                    while a process writes

All other files can be made again from one state file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from charlm.checkpoint import read_config
from charlm.codec import decode
from charlm.errors import CharlmError, CheckpointError, OptionError, StorageError
from charlm.files import sweep, unwritten, write_bytes, write_json
from charlm.tensors import read_tensors, write_tensors
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Keeper, best_weights, group, last_weights
from charlm.training.options import LoopState

P = TypeVar("P")


def seconds_between_states(seconds: float) -> float:
    """The seconds between two saved states, checked; 0 saves one after every step.

    >>> seconds_between_states(-1)
    Traceback (most recent call last):
    charlm.errors.OptionError: --save-every is a number of seconds, 0 or more, not -1
    """
    if not isinstance(seconds, int | float) or not seconds >= 0:
        raise OptionError(f"--save-every is a number of seconds, 0 or more, not {seconds}")
    return seconds


class DirectoryKeeper(Keeper):
    """Keeps a run in its directory.

    Args:
        directory: of the run.
        command: the command that resumes such a run, for messages: `charlm train`.
        vocab: the symbols of a text input.
        rows: of the learning curve so far.
        description: makes the content of `config.json`; its arguments are further values.
    """

    def __init__(
        self,
        directory: Path,
        command: str,
        vocab: Vocab | None,
        rows: list[dict[str, Any]],
        description: Callable[..., dict[str, Any]],
    ) -> None:
        super().__init__(rows)
        self.directory, self.command, self.vocab, self.description = directory, command, vocab, description
        self._mark = None if vocab is None else {"vocab_sha256": vocab.sha256}

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Writes the files of a run that has not taken a step."""
        self._write_vocab()
        for name in ("best", "last"):
            write_tensors(self.directory / f"{name}.safetensors", weights, self._mark)
        self.describe()

    def describe(self, **more: Any) -> None:
        """Writes `config.json`; `more` are further values."""
        write_json(self.directory / "config.json", self.description(**more))

    def metrics(self, row: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        super().metrics(row)
        with self.resumable():
            self._write_metrics()

    def best(self, weights: Mapping[str, Tensor]) -> None:
        """Writes `best.safetensors`."""
        with self.resumable():
            write_tensors(self.directory / "best.safetensors", weights, self._mark)

    def state(self, tensors: Mapping[str, Tensor], progress: dict[str, Any]) -> None:
        """Writes the state into one file, then `last.safetensors`, and deletes all but the two newest states."""
        facts: dict[str, Any] = {"progress": progress, "rows": self.rows, "config": self.description()}
        if self.vocab is not None:
            facts["vocab"] = self.vocab.to_json()
        metadata = {name: json.dumps(value, allow_nan=False) for name, value in facts.items()}
        with self.resumable():
            write_tensors(self.directory / f"state-{progress['step']}.safetensors", tensors, metadata)
            write_tensors(self.directory / "last.safetensors", last_weights(tensors), self._mark)
            self.describe()
            for old in states(self.directory)[2:]:
                old.unlink(missing_ok=True)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes all other files anew from a state: those of later steps are replaced, damaged ones are repaired."""
        with self.resumable():
            sweep(self.directory)
            self._write_vocab()
            write_tensors(self.directory / "best.safetensors", best_weights(tensors), self._mark)
            write_tensors(self.directory / "last.safetensors", last_weights(tensors), self._mark)
            self._write_metrics()
            self.describe()

    @contextlib.contextmanager
    def resumable(self) -> Iterator[None]:
        """A block of writes; if one of them fails, the error says how to resume."""
        try:
            yield
        except OSError as error:
            told = error if isinstance(error, StorageError) else unwritten(self.directory, error)
            steps = [path.stem.removeprefix("state-") for path in states(self.directory)]
            way_out = (
                f"everything up to step {steps[0]} is saved: then go on with {self.command} --resume {self.directory}"
                if steps
                else "nothing was saved yet: then start the run again"
            )
            raise StorageError(f"{told}; {way_out}", error) from None

    def _write_vocab(self) -> None:
        if self.vocab is not None:
            write_json(self.directory / "vocab.json", self.vocab.to_json())

    def _write_metrics(self) -> None:
        """Writes the whole learning curve, so that it never ends in half a row."""
        path = self.directory / "metrics.jsonl"
        if self.rows:
            write_bytes(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows).encode())
        else:
            path.unlink(missing_ok=True)


# -- reading a run ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunKind(Generic[P]):
    """What the runs of one command have in common.

    Args:
        command: makes and resumes such runs: `charlm train`.
        plan: the dataclass of their plan.
        check: raises an error where a `config.json`, its plan and its vocabulary do not belong together.
        kind: of the model, as of `checkpoint.read_config`: `sequence`, or None for a language model.
    """

    command: str
    plan: type[P]
    check: Callable[[dict[str, Any], P, Vocab | None], object]
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Saved(Generic[P]):
    """A run as its newest undamaged state describes it.

    Args:
        plan: how it is trained.
        config: `config.json` at that moment.
        vocab: the symbols; None where there are none.
        changes: what was changed on the way (device, kernels, batch size, processes).
        progress: a `LoopState` as a JSON value.
        rows: of the learning curve until then.
        tensors: weights, optimizer, hidden states, generators; see `Loop.snapshot`.
        notes: sentences about newer states that are damaged and were passed over.
    """

    plan: P
    config: dict[str, Any]
    vocab: Vocab | None
    changes: list[dict[str, Any]]
    progress: dict[str, Any]
    rows: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        """Where it was trained."""
        return str(self.config["training"]["device"])

    @property
    def kernels(self) -> str:
        """What the compiled kernels that trained it were compiled for; empty where that was not written."""
        return str(self.config["training"].get("kernels", ""))

    @property
    def processes(self) -> int:
        """How many processes trained it together."""
        return int(self.config["training"].get("processes", 1))


def read_saved(directory: Path, kind: RunKind[P]) -> Saved[P]:
    """The newest state that is whole; a damaged one is passed over for the one before it.

    Args:
        directory: of the run.
        kind: of run.

    Raises:
        CheckpointError: there is no run of this kind, or no whole state of it.
    """
    if not directory.is_dir():
        raise CheckpointError(f"there is no model directory {directory}: name one such as checkpoints/NAME")
    problems: list[str] = []
    for path in states(directory):
        try:
            return _read_state(path, kind, problems)
        except _OtherCommandError:
            raise
        except (CharlmError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            problems.append(
                str(error) if isinstance(error, CharlmError) else f"{path} is not a whole state ({error!r})"
            )
    if not problems and "training" not in read_config(directory, kind=kind.kind):
        raise CheckpointError(f"{directory} is no training run: only what `{kind.command}` made can be resumed")
    reason = f" ({problems[0]})" if problems else ""
    raise CheckpointError(f"{directory} has no whole saved state to go on from{reason}: start the run again")


class _OtherCommandError(CheckpointError):
    """A run that another command resumes."""


def _read_state(path: Path, kind: RunKind[P], notes: list[str]) -> Saved[P]:
    """Reads a state file; any error means that it is not whole, and `read_saved` makes a sentence of it."""
    tensors, metadata = read_tensors(path)
    config, rows, progress = (_strict_json(metadata[name]) for name in ("config", "rows", "progress"))
    training, changes = config["training"], config["training"]["changes"]
    lists = isinstance(changes, list) and isinstance(rows, list)
    if not lists or not all(isinstance(value, dict) for value in (*rows, *changes, progress)):
        raise CheckpointError(f"{path} is not a whole state of a run")
    if (config.get("kind") == "sequence") != (kind.kind == "sequence"):
        other = "charlm fit" if config.get("kind") == "sequence" else "charlm train"
        raise _OtherCommandError(
            f"{path.parent} is a run of `{other}`, not of `{kind.command}`: go on with {other} --resume {path.parent}"
        )
    LoopState.read(progress)
    try:
        torch.device(str(training["device"]))
    except RuntimeError:
        raise CheckpointError(f"{path} was written on no device that there is") from None
    vocab = Vocab.from_json(json.loads(metadata["vocab"])) if "vocab" in metadata else None
    plan = decode(kind.plan, training, "the stored plan of training", beside=True)
    kind.check(config, plan, vocab)
    return Saved(
        plan=plan, config=config, vocab=vocab, changes=changes, progress=progress, rows=rows, tensors=tensors,
        notes=notes,
    )  # fmt: skip


def _strict_json(text: str) -> Any:
    """A value that can be written again: no infinity, no NaN."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value


def states(directory: Path) -> list[Path]:
    """The saved states, the newest first."""
    found = [path for path in directory.glob("state-*.safetensors") if path.stem.removeprefix("state-").isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("state-")), reverse=True)


def saved_weights(model: nn.Module, tensors: Mapping[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """Copies of the weights in a state.

    Raises:
        CheckpointError: their names, shapes or types are not the model's.
    """
    weights = group(tensors, "weights")
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    kinds = {tensor.dtype for tensor in weights.values()}
    sound = len(kinds) == 1 and next(iter(kinds)).is_floating_point
    if not sound or {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise CheckpointError(f"the state in {directory} does not fit the network that it describes")
    return {name: tensor.clone() for name, tensor in weights.items()}


# -- runs in several processes ---------------------------------------------------------------------------------


def way_on(directory: Path) -> str:
    """How to resume a run of several processes that broke off."""
    saved = states(directory)
    if not saved:
        return "nothing was saved yet, so start the run again"
    step = saved[0].stem.removeprefix("state-")
    return f"everything up to step {step} is saved, go on with torchrun ... -m charlm train --resume {directory}"


def left_by(directory: Path, launch: Collection[str]) -> Path | None:
    """The run that an earlier attempt of this launch began under this name (or NAME-2, ...); None where there is none.

    Args:
        directory: the name that was asked for.
        launch: what started the processes, see `distributed.launch_of`.
    """
    found, number, candidate = None, 1, directory
    while candidate.name and candidate.exists():
        if not set(launch).isdisjoint(_launch(candidate)):
            found = candidate
        number += 1
        candidate = directory.with_name(f"{directory.stem}-{number}{directory.suffix}")
    return found


def _launch(directory: Path) -> list[Any]:
    """What started the processes of the run in a directory; empty where that is not known."""
    try:
        found = read_config(directory)["training"]["launch"]
    except (CharlmError, KeyError, TypeError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
