"""What several tests share beside fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.lm.model import TextModel
from charlm.text.text import TextFacts

__all__ = ["keep", "looping"]


def keep(directory: Path, model: TextModel, source: TextFacts, **more: Any) -> None:
    """Saves a model that was made by hand, as if it had been made from this text; `more` goes into config.json."""
    model.source = source
    model.write_to(directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def looping(seed: int, symbols: int) -> Tensor:
    """Ids [T] at random, and in them strings of 1, 3, 14, 40 and 256 symbols that are repeated for a while."""
    draw = torch.Generator().manual_seed(seed)
    parts = []
    for period in (1, 3, 14, 40, 256):
        string = torch.randint(0, symbols, (period,), generator=draw)
        parts += [torch.randint(0, symbols, (9,), generator=draw), string.repeat(2 + max(30 // period, 1))]
    return torch.cat(parts)
