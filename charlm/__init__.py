"""charlm: character-level language models, counted and recurrent, on one protocol.

Importing this package loads nothing heavy: names are looked up when they are first used.

>>> import charlm
>>> vocab = charlm.Vocab.of("abracadabra")
>>> vocab.characters
('a', 'b', 'c', 'd', 'r')
"""

from __future__ import annotations

import importlib
from typing import Any

from charlm.errors import CharlmError
from charlm.version import __version__

_HOMES = {
    "Vocab": "charlm.text.vocab",
    "Corpus": "charlm.text.corpus",
    "read_corpus": "charlm.text.corpus",
    "Split": "charlm.text.splits",
    "SequenceModel": "charlm.sequences.model",
}

__all__ = ["CharlmError", "Corpus", "SequenceModel", "Split", "Vocab", "__version__", "read_corpus"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'charlm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
