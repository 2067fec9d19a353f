"""Training by `charlm train` and reading its runs: what the recipes of `quality` and the grid share."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import TextModel, load
from charlm.cli import cli
from charlm.cli.common import held_out
from charlm.text.text import Part
from charlm.training.watching import read_metrics

TEXT = "data/tinyshakespeare.txt"


def train(arguments: Sequence[str]) -> Path:
    """Runs `charlm train` in this process; the directory it names. Its own output goes to stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(["train", *arguments], standalone_mode=False)
    sys.stderr.write(said.getvalue())
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(f"charlm train {' '.join(arguments)} ended with {code}")
    return Path(said.getvalue().splitlines()[-1])


def opened(directory: Path, text: str | None) -> tuple[TextModel, Part]:
    """A run's best weights, and the part that its figures are of."""
    checkpoint = load(directory, device="auto")
    return checkpoint, held_out(checkpoint, [text] if text else list(checkpoint.source.names), None)


def facts(directory: Path, checkpoint: TextModel) -> dict[str, Any]:
    """What the run's own files say: weights, steps and seconds of training with its validations."""
    last = (read_metrics(directory / "metrics.jsonl") or [{}])[-1]
    count = sum(p.numel() for p in checkpoint.parameters()) if isinstance(checkpoint, torch.nn.Module) else 0
    return {"weights": count, "steps": last.get("step"), "seconds": last.get("seconds")}
