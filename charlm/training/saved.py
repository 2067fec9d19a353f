"""What a language model's run in its directory can go on from: its newest whole state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import TextFacts
from charlm.errors import CheckpointError
from charlm.text.vocab import Vocab
from charlm.training.keeping import newest_whole, read_moment
from charlm.training.recipe import Plan

__all__ = ["Saved", "read_saved"]


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
