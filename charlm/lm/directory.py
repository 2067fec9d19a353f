"""Model directories: what `config.json` says of a model, its kind, its shape, its text, and its files' checksums.

Nothing here needs torch, so that an n-gram model is counted and kept without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from charlm.errors import OptionError
from charlm.files import write_json
from charlm.text.text import TextFacts
from charlm.version import __version__

__all__ = ["FORMAT", "describe", "fingerprint", "new_directory", "write_config"]

FORMAT = 1
"""The version of the layout that this charlm writes; later ones are refused, earlier ones are read."""

_WHOLE = 1 << 26  # bytes up to which a checksum is of the whole file


def describe(kind: str, model: Mapping[str, Any], text: TextFacts, **more: Any) -> dict[str, Any]:
    """The content of `config.json`; `more` are further JSON values under names of their own."""
    return {
        "format": FORMAT,
        "charlm": __version__,
        "kind": kind,
        "updated": datetime.now(UTC).isoformat(timespec="microseconds"),
        "model": dict(model),
        "text": text.to_json(),
        **more,
    }


def write_config(directory: Path, kind: str, model: Mapping[str, Any], text: TextFacts, **more: Any) -> None:
    """Writes `config.json`; see `describe`."""
    write_json(directory / "config.json", describe(kind, model, text, **more))


def new_directory(directory: str | Path, *, overwrite: bool) -> Path:
    """An empty directory of this name; one that is there is taken only to be overwritten.

    Raises:
        OptionError: the name is taken.
    """
    path = Path(directory)
    if path.exists() and not overwrite:
        raise OptionError(f"{path} is taken: choose another name, or replace it with overwrite=True")
    if (path / "config.json").is_file():
        for old in path.iterdir():  # the files of the model that was there
            if old.is_file():
                old.unlink()
    elif path.exists() and any(path.iterdir()):
        raise OptionError(f"{path} is not a model directory, so it is not overwritten: choose another name")
    path.mkdir(parents=True, exist_ok=True)
    return path


def fingerprint(path: Path) -> str:
    """A SHA-256 of a file's size and content; of one over 64 MB of 64 pieces, so that opening it stays quick."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as file:
        if size <= _WHOLE:
            while block := file.read(_WHOLE >> 6):
                digest.update(block)
        else:
            for piece in range(64):
                file.seek((size - (_WHOLE >> 6)) * piece // 63)
                digest.update(file.read(_WHOLE >> 6))
    return digest.hexdigest()
