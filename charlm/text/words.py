"""Where words, sentences and given tokens of a text begin, so that every character belongs to exactly one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from charlm.errors import OptionError, TextError
from charlm.text.reading import Reading, decode, read_content

__all__ = ["sentence_starts", "token_starts", "tokens_of", "word_starts"]

_WORD, _APART = r"\S+", r"[\w'’\-]+|[^\w\s]+"
_ENDS = re.compile(r"[.!?…][\"'”’»)\]]*\Z")


def _check(space: str) -> None:
    if space not in ("before", "after"):
        raise OptionError(f"white space goes with the word 'before' or 'after' it, not {space!r}")


def word_starts(text: str, space: str = "before", *, apart: bool = False) -> list[int]:
    """Where words begin; white space at the end (or the beginning) of a text, with no word to go with, stands alone.

    Args:
        text: any text.
        space: `before`: a word has the white space before it, as tokens of language models do; `after`: that behind it.
        apart: take runs of punctuation as words of their own.

    >>> word_starts("to be, or "), word_starts("to be, or ", "after"), word_starts("be, or", apart=True)
    ([0, 2, 6, 9], [0, 3, 7], [0, 2, 3])
    """
    _check(space)
    word = _APART if apart else _WORD
    pattern = rf"\s*(?:{word})|\s+" if space == "before" else rf"(?:{word})\s*|\s+"
    return [found.start() for found in re.finditer(pattern, text)]


def sentence_starts(text: str, space: str = "before") -> list[int]:
    r"""Where sentences begin: after a word that ends in `.`, `!`, `?` or `…`, quotes behind it counted to it, and after
    a blank line.

    >>> sentence_starts("He went. \"So?\" She\n\nAct II"), sentence_starts("He went. So", "after")
    ([0, 8, 14, 18], [0, 9])
    """
    _check(space)
    starts, ended, edge = [], True, 0
    for found in re.finditer(r"\S+", text):
        between = text[edge : found.start()]
        if ended or between.count("\n") > 1:
            starts.append(edge if space == "before" else found.start())
        ended, edge = _ENDS.search(found[0]) is not None, found.end()
    return starts if starts[:1] == [0] else [0, *starts]


def token_starts(text: str, tokens: Sequence[str], space: str = "before") -> list[int]:
    """Where tokens begin that were given, such as the words of a table of reading times.

    Args:
        text: has these tokens in this order, and nothing but white space between them.
        tokens: none of them empty.
        space: see `word_starts`.

    Raises:
        TextError: a token does not stand where it should, or text is left over.

    >>> token_starts("Well, to be", ["Well", ",", "to", "be"])
    [0, 4, 5, 8]
    """
    _check(space)
    starts, at = [], 0
    for number, token in enumerate(tokens, 1):
        begin = at
        while at < len(text) and text[at].isspace():
            at += 1
        if not token or not text.startswith(token, at):
            raise TextError(
                f"token {number} is {token[:30]!r}, but at character {at:,} the text goes on with {text[at : at + 9]!r}"
            )
        starts.append(begin if space == "before" else at)
        at += len(token)
    if text[at:].strip():
        raise TextError(f"after the last token the text goes on with {text[at:].strip()[:40]!r}")
    edge = [at] if space == "before" and at < len(text) else []
    return [*([] if starts[:1] == [0] else [0]), *starts, *edge]


def tokens_of(path: str | None) -> list[str] | None:
    """The tokens of a file, one a line; empty lines are passed over. None of no file."""
    if path is None:
        return None
    text = decode(read_content(Path(path)), Reading(newlines="normalise"), Path(path))
    return [line.strip() for line in text.split("\n") if line.strip()]
