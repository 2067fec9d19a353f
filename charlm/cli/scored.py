"""A text read by one model or two: what `charlm score` shows, in the order in which it shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from charlm.cli.common import reading_progress
from charlm.errors import OptionError
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from charlm.checkpoint import Checkpoint
    from charlm.cli.models import HeldOut
    from charlm.lm.scores import Stretch, Surprise
    from charlm.text.corpus import Corpus

__all__ = ["Scored", "character_order", "figure", "gained", "read_scored", "stretch_order", "warnings"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What one model or two said about a text.

    Args:
        checkpoints: the models.
        seen: the text in the symbols of each.
        shown: the text in symbols that can all be shown, at the same positions as those of the first.
        held: the part that was read.
        symbols: what each model said about each symbol.
        items: the same of each character.
    """

    checkpoints: list[Checkpoint]
    seen: list[Corpus]
    shown: Corpus
    held: HeldOut
    symbols: list[Surprise]
    items: list[Surprise]

    @cached_property
    def order_values(self) -> NDArray[np.float64]:
        """Per character what it is ranked by: its bits, or how many bits less it is to the first model."""
        from charlm.lm.scores import difference

        return self.items[0].bits_N if len(self.items) == 1 else difference(*self.items)

    @cached_property
    def characters(self) -> list[str]:
        """The text of each character."""
        from charlm.report.page import shown_symbols

        vocab, ids = self.shown.vocab, self.shown.ids
        table = shown_symbols(vocab.characters, vocab.byte_fallback)
        first = self.items[0]
        pairs = zip(first.position_N.tolist(), first.length_N.tolist(), strict=True)
        return [table[ids[at]] if n == 1 else vocab.decode(ids[at : at + n]) for at, n in pairs]

    def text(self, start: int, end: int) -> str:
        """The characters between two positions."""
        return self.shown.vocab.decode(self.shown.ids[start:end])

    def found(self, by: str) -> list[list[Stretch]]:
        """Lines or documents, for each model in the order of the text."""
        from charlm.lm.scores import line_starts, stretches

        starts = line_starts(self.shown) if by == "line" else self.shown.documents[:, 0]
        return [
            stretches(surprise, starts, seen.ids, seen.documents, seen.vocab)
            for surprise, seen in zip(self.symbols, self.seen, strict=True)
        ]


def read_scored(models: list[str], text: str, part: str | None, device: str) -> Scored:
    """Reads the text once and scores it with every model."""
    from charlm.cli.models import open_model, part_of
    from charlm.lm.scores import difference, read_surprise, recoded, whole_characters
    from charlm.text.corpus import read_corpus
    from charlm.text.splits import count_targets

    checkpoints = [open_model(name, device) for name in models]
    readings = {replace(checkpoint.text.reading, vocab_size=None) for checkpoint in checkpoints}
    if len(readings) > 1:
        raise OptionError("the two models read their texts differently (encoding, line ends or bytes): take alike ones")
    with reading_progress() as tell:
        own = read_corpus([text], readings.pop(), progress=tell)
    seen = [recoded(own, checkpoint.model.vocab) for checkpoint in checkpoints]
    home = next((i for i, c in enumerate(checkpoints) if c.text.sha256 == own.sha256), 0)
    held = part_of(checkpoints[home], seen[home], part)
    if len({len(corpus) for corpus in seen}) > 1:
        raise OptionError("the two models spell this text in different symbols: take two whose texts were read alike")
    symbols = []
    with progress_bar(count_targets(held.spans) * len(seen), "reading", "char") as bar:
        for checkpoint, corpus in zip(checkpoints, seen, strict=True):
            symbols.append(read_surprise(checkpoint.model, corpus.ids, held.spans, progress=bar.update))
    items = [whole_characters(s, c.ids, c.vocab) for s, c in zip(symbols, seen, strict=True)]
    if len(items) == 2:
        difference(*items)  # refused here where the characters are not the same ones
    shown = seen[0] if seen[0].vocab.byte_fallback else own
    return Scored(checkpoints=checkpoints, seen=seen, shown=shown, held=held, symbols=symbols, items=items)


def figure(scored: Scored, number: int) -> str:
    """The figure of one model in a sentence."""
    figures, name = scored.items[number].evaluation, scored.checkpoints[number].name
    bits = "infinitely many" if figures.zero_probability_targets else f"{figures.bits_per_char:.4f}"
    words = f"{name}: {bits} bits a character"
    if figures.zero_probability_targets:
        words += f", as {figures.zero_probability_targets:,} were impossible"
    if figures.unknown_targets:
        words += f"; {figures.unknown_targets:,} characters are unknown to it and in no figure"
    return words


def warnings(scored: Scored) -> Iterator[str]:
    """What must be said beside the figures."""
    from charlm.text.splits import overlap

    for checkpoint, corpus in zip(scored.checkpoints, scored.seen, strict=True):
        own = checkpoint.text.sha256 == corpus.sha256
        if own and overlap(corpus.parts(checkpoint.text.split)["train"], scored.held.spans):
            yield f"{checkpoint.name} was made from characters that are scored here: it remembers them"


def character_order(scored: Scored, top: int | None) -> list[int]:
    """Characters in the order of the text, or the strangest; of one model unknown ones come first, of two last."""
    values = scored.order_values
    if top is None:
        return list(range(len(values)))
    worth = np.where(np.isnan(values), np.inf if len(scored.items) == 1 else -np.inf, values)
    return np.argsort(-worth, kind="stable")[:top].tolist()  # type: ignore[no-any-return]


def stretch_order(found: list[list[Stretch]]) -> list[tuple[Stretch, ...]]:
    """Lines or documents, the strangest first; of two models the one that the first knows best before the second."""
    from charlm.lm.scores import ranked

    if len(found) == 1:
        return [(stretch,) for stretch in ranked(found[0])]
    pairs = list(zip(*found, strict=True))
    worth = [gained(*pair) for pair in pairs]
    keys = [float("inf") if value is None else -value for value in worth]
    return [pairs[i] for i in sorted(range(len(pairs)), key=keys.__getitem__)]


def gained(first: Stretch, second: Stretch) -> float | None:
    """How many bits a character less it is to the first model; None where that means nothing."""
    a, b = first.bits_per_char, second.bits_per_char
    return None if a is None or b is None or a == b == np.inf else b - a
