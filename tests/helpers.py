"""What several tests share beside fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charlm.lm.model import TextModel
from charlm.text.text import TextFacts

__all__ = ["keep"]


def keep(directory: Path, model: TextModel, source: TextFacts, **more: Any) -> None:
    """Saves a model that was made by hand, as if it had been made from this text; `more` goes into config.json."""
    model.source = source
    model.write_to(directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
