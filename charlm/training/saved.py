"""What a run in its directory can go on from: its newest whole state, and sentences that say how to go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import TextFacts, read_config, read_tensors
from charlm.errors import CharlmError, CheckpointError, StorageError
from charlm.files import unwritten, write_bytes
from charlm.text.vocab import Vocab
from charlm.training.options import Progress
from charlm.training.recipe import Plan

__all__ = ["Saved", "read_saved", "resumable", "states", "write_metrics"]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A run as its newest whole state has it.

    Args:
        text: what it is trained on.
        vocab: its symbols.
        plan: how it is trained.
        device: where it was trained.
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
    if not directory.is_dir():
        raise CheckpointError(f"there is no model directory {directory}: name one such as checkpoints/NAME")
    problems: list[str] = []
    for path in states(directory):
        try:
            return replace(_saved(path), notes=problems)
        except (CharlmError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            problems.append(
                str(error) if isinstance(error, CharlmError) else f"{path} is not a whole state ({error!r})"
            )
    if not problems and "training" not in read_config(directory):
        raise CheckpointError(f"{directory} is no training run: only what `charlm train` made can be resumed")
    reason = f" ({problems[0]})" if problems else ""
    raise CheckpointError(f"{directory} has no whole saved state to go on from{reason}: start the run again")


def _saved(path: Path) -> Saved:
    tensors, metadata = read_tensors(path)
    config, rows = json.loads(metadata["config"]), json.loads(metadata["rows"])
    progress, changes = json.loads(metadata["progress"]), config["training"]["changes"]
    lists = isinstance(changes, list) and isinstance(rows, list)
    if not lists or not all(isinstance(value, dict) for value in (*rows, *changes, progress)):
        raise CheckpointError(f"{path} is not a whole state of a run")
    Progress.from_json(progress)
    return Saved(
        text=TextFacts.from_json(config["text"]),
        vocab=Vocab.from_json(json.loads(metadata["vocab"])),
        plan=Plan.from_json(config["training"]),
        device=str(config["training"]["device"]),
        changes=changes,
        progress=progress,
        rows=rows,
        tensors=tensors,
    )


def states(directory: Path) -> list[Path]:
    """The saved states, the newest first."""
    found = [path for path in directory.glob("state-*.safetensors") if path.stem.removeprefix("state-").isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("state-")), reverse=True)


@contextlib.contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """Where something cannot be written, says how to go on: what was written before is whole."""
    try:
        yield
    except OSError as error:
        told = error if isinstance(error, StorageError) else unwritten(directory, error)
        steps = [path.stem.removeprefix("state-") for path in states(directory)]
        way_out = (
            f"everything up to step {steps[0]} is saved: then go on with charlm train --resume {directory}"
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
