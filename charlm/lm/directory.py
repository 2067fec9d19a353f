"""What a model's directory says of it, in `config.json`: its kind, its shape, its text, and its files' checksums.

Nothing here needs torch, so that an n-gram model is counted and kept without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from charlm.errors import CheckpointError
from charlm.files import write_json
from charlm.text.corpus import Corpus
from charlm.text.reading import Reading
from charlm.text.splits import Split
from charlm.version import __version__

__all__ = ["FORMAT", "TextFacts", "describe", "fingerprint", "write_config"]

FORMAT = 1
"""The version of the layout that this charlm writes; later ones are refused, earlier ones are read."""

_WHOLE = 1 << 26  # bytes up to which a checksum is of the whole file


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """What a model was made from: enough to find its text and its parts again.

    Args:
        names: files, as the user named them.
        sha256: of the text's bytes.
        characters: how many symbols it has.
        split: which of them train, validate and test.
        reading: how the files became text.
        first: the id of the text's first symbol, where generation starts when there is no line feed.
    """

    names: tuple[str, ...]
    sha256: str
    characters: int
    split: Split
    reading: Reading
    first: int = 0

    @classmethod
    def of(cls, corpus: Corpus, split: Split) -> TextFacts:
        """The facts about a corpus under a split."""
        return cls(
            names=corpus.names,
            sha256=corpus.sha256,
            characters=len(corpus),
            split=split,
            reading=corpus.reading,
            first=int(corpus.ids[0]),
        )

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`."""
        return {
            "names": list(self.names),
            "sha256": self.sha256,
            "characters": self.characters,
            "split": str(self.split),
            "reading": self.reading.to_json(),
            "first": self.first,
        }

    @classmethod
    def from_json(cls, value: Any) -> TextFacts:
        """Reads what `to_json` made."""
        try:
            return cls(
                names=tuple(str(name) for name in value["names"]),
                sha256=str(value["sha256"]),
                characters=int(value["characters"]),
                split=Split.parse(str(value["split"])),
                reading=Reading.from_json(value["reading"]),
                first=int(value["first"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the stored facts about the text are not whole ({error!r})") from None


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
