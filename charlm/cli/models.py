"""What the commands that read a model share: opening it, and the part of a text that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.text.text import Part

__all__ = ["held_out", "where"]


def held_out(
    model: TextModel,
    texts: Sequence[str | Path],
    part: str | None,
    *,
    encoding: str | None = None,
    newlines: Any = None,
    as_bytes: bool | None = None,
) -> Part:
    """The part of a text that a model is measured on: of its own text test, else valid; of another one all.

    Args:
        model: the model.
        texts: files; they are read as the model's own text was.
        part: train, valid, test or all, where the user named one.
        encoding, newlines, as_bytes: where the text is to be read otherwise than the model's own.
    """
    from charlm.text.text import read_text

    text = read_text(list(texts), like=model, encoding=encoding, newlines=newlines, bytes=as_bytes)
    if text.split is None and part not in (None, "all"):
        raise OptionError(
            f"{text.title} is not the text that {model.name} was made from, so it has no {part} part there: "
            "leave --split-part away, or take all"
        )
    return text.reported if part is None else text.part(part)


def where(part: Part) -> dict[str, Any]:
    """The facts that stand beside a figure in JSON."""
    split = None if part.text.split is None else str(part.text.split)
    return {"split": split, "part": part.name, "text_sha256": part.text.corpus.sha256}
