"""ARPA files: the n-gram format that KenLM, SRILM and others read, with characters spelled as words.

A model of order n has strings of 1 to n + 1 characters. Each line is the base-10 logarithm of the
interpolated probability of the last character after the others, the string, and the logarithm of what is left
for shorter histories where the string itself is a history (ARPA-MIT format; SRILM's ngram-format(5)).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from charlm.errors import OptionError, TextError
from charlm.files import write_with
from charlm.ngrams.counted import Floats
from charlm.ngrams.kneser_ney import Interpolated
from charlm.ngrams.model import NGramLM
from charlm.text.vocab import Vocab

__all__ = ["symbol_of", "word_of", "write_arpa"]

_NEVER = -99.0  # the format's way to write the logarithm of 0
_MARKERS = ("<unk>", "<s>", "</s>")
_LINES = 1 << 16  # written at once


def word_of(symbol: str) -> str:
    r"""How a symbol is spelled as a word without white space.

    A visible character stands for itself; every other one, and the backslash, is written `\u` with its code
    point in braces, hexadecimal; a byte of a vocabulary of bytes keeps the form that `Vocab.symbol` gives it.

    >>> word_of("a"), word_of(" "), word_of("\\"), word_of("<C3>")
    ('a', '\\u{20}', '\\u{5c}', '<C3>')
    """
    if len(symbol) != 1:
        return symbol
    plain = symbol.isprintable() and not symbol.isspace() and symbol != "\\"
    return symbol if plain else f"\\u{{{ord(symbol):x}}}"


def symbol_of(word: str) -> str:
    r"""The symbol that `word_of` spelled.

    >>> symbol_of("\\u{20}"), symbol_of("a")
    (' ', 'a')
    """
    if len(word) == 1 or word.startswith("<"):
        return word
    if not (word.startswith("\\u{") and word.endswith("}")):
        raise TextError(f"{word!r} is not a character in an ARPA file that charlm wrote")
    return chr(int(word[3:-1], 16))


def write_arpa(model: NGramLM, path: Path) -> None:
    """Writes a smoothed model as an ARPA file, whole or not at all.

    The format's words for unknown, beginning and end are listed with probability 0, as readers want them;
    score without sentence marks. Scores agree with the model's to the seven digits written, from the first symbol on
    that has a whole history: at the beginning of a text Kneser-Ney counts occurrences at the short orders, for which
    the format has no place.

    Args:
        model: with Witten-Bell or Kneser-Ney smoothing; other estimators have no place for shorter histories.
        path: of the file, replaced if there is one.

    Raises:
        OptionError: the model's estimator is not an interpolated one.
    """
    estimator = model.estimator
    if not isinstance(estimator, Interpolated):
        raise OptionError(
            f"an ARPA file holds a model that mixes all orders, not one with smoothing {estimator.name!r}: "
            "choose --smoothing kneser-ney or witten-bell"
        )
    write_with(path, lambda file: _write(file, model.vocab, estimator))


def _write(file: IO[bytes], vocab: Vocab, estimator: Interpolated) -> None:
    words = [word_of(vocab.symbol(id)) for id in range(len(vocab))]
    counts = [len(words) + len(_MARKERS), *(estimator.levels[n].events for n in range(1, estimator.order + 1))]
    head = ["\\data\\", *(f"ngram {n + 1}={count}" for n, count in enumerate(counts))]
    file.write(("\n".join(head) + "\n").encode())
    strings: list[str] = [""]
    for order in range(estimator.order + 1):
        file.write(f"\n\\{order + 1}-grams:\n".encode())
        strings = _strings(estimator, order, strings, words)
        if order == 0:
            _write_lines(file, _unseen_lines(estimator, words))
        _write_lines(file, _lines(estimator, order, strings))
    file.write(b"\n\\end\\\n")


def _strings(estimator: Interpolated, order: int, histories: list[str], words: list[str]) -> list[str]:
    """The events of a level as words with spaces between, from those of the level below."""
    level = estimator.levels[order]
    pairs = zip(level.history_E.tolist(), level.id_E.tolist(), strict=True)
    if order == 0:
        return [words[id] for _, id in pairs]
    return [f"{histories[history]} {words[id]}" for history, id in pairs]


def _unseen_lines(estimator: Interpolated, words: list[str]) -> Iterator[str]:
    """The marker words, and the symbols of the vocabulary that the training part does not have."""
    yield from (f"{_NEVER:g}\t{marker}\t0" for marker in _MARKERS)
    seen = set(estimator.levels[0].id_E.tolist())
    left = estimator.weights(0, top=estimator.order == 0).left[0] / estimator.symbols
    tail = "\t0" if estimator.order else ""
    for id, word in enumerate(words):
        if id not in seen:
            yield f"{np.log10(left) if left > 0 else _NEVER:.7g}\t{word}{tail}"


def _lines(estimator: Interpolated, order: int, strings: list[str]) -> Iterator[str]:
    """A level's lines; the highest order has no backoff weights."""
    top = order == estimator.order
    logp_E = _log10(estimator.event_probabilities(order, top=top)).tolist()
    if top:
        yield from (f"{logp:.7g}\t{string}" for logp, string in zip(logp_E, strings, strict=True))
        return
    left_E = _log10(estimator.weights(order + 1, top=order + 1 == estimator.order).left[:-1]).tolist()
    for logp, string, left in zip(logp_E, strings, left_E, strict=True):
        yield f"{logp:.7g}\t{string}\t{left:.7g}"


def _log10(p_E: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(p_E), _NEVER)


def _write_lines(file: IO[bytes], lines: Iterator[str]) -> None:
    while block := list(islice(lines, _LINES)):
        file.write(("\n".join(block) + "\n").encode())
