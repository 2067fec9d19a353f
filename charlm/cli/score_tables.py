"""The tables of `charlm score`, for a terminal and for its page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.lm.scored import TextScore

__all__ = ["character_rows", "number", "stretch_rows", "write_html"]

_CONTEXT = 30  # characters on both sides of a strange one
_EXPECTED = 20_000  # characters of a page whose expected ones are kept
_ROWS = 25  # of each table of a page
_LONGEST = 300  # characters of a line in a table of a page


def number(value: float | None) -> str:
    """Bits for a person."""
    if value is None:
        return "-"
    return "unknown" if math.isnan(value) else f"{value:.3f}".replace("inf", "infinite")


def _value_names(scored: TextScore) -> list[str]:
    names = scored.names
    return ["bits"] if len(names) == 1 else [*names, "difference"]


def character_rows(scored: TextScore, top: int | None) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Headings, and for each character where it stands and its cells, in the order of `character_order`."""
    from charlm.lm.painting import visible

    surprise, size = scored.items[0], len(scored.shown)

    def rows() -> Iterator[tuple[int, list[str]]]:
        for i in scored.character_order(top):
            at, length = int(surprise.position_N[i]), int(surprise.length_N[i])
            before = scored.text(max(0, at - _CONTEXT), at)
            after = scored.text(at + length, min(size, at + length + _CONTEXT))
            values = [float(item.bits_N[i]) for item in scored.items]
            values += [float(scored.order_values[i])] if len(values) == 2 else []
            signs = [visible(text) for text in (before, scored.characters[i], after)]
            yield at, [*map(number, values), str(at), signs[1], f"{signs[0]}[{signs[1]}]{signs[2]}"]

    return [*_value_names(scored), "position", "character", "context"], rows()


def stretch_rows(scored: TextScore, by: str, top: int | None) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The same of lines or documents, in the order of `stretch_order`."""
    from charlm.lm.painting import visible
    from charlm.lm.scored import gained

    several = len(scored.shown.documents) > 1

    def rows() -> Iterator[tuple[int, list[str]]]:
        for group in scored.stretch_order(by)[:top]:
            first, name = group[0], scored.shown.names[group[0].document - 1]
            values = [_stretch_bits(stretch.bits_per_char) for stretch in group]
            values += [number(gained(*group))] if len(values) == 2 else []
            text = visible(scored.text(first.start, first.end).removesuffix("\n"))
            where = f"{name}:{first.number}" if several else str(first.number)
            more = [where, text] if by == "line" else [f"{first.characters:,}", name]
            yield first.start, [*values, *more]

    names = [f"{name} a char" if name == "bits" else name for name in _value_names(scored)]
    return [*names, *(["line", "text"] if by == "line" else ["characters", "document"])], rows()


def _stretch_bits(bits: float | None) -> str:
    return "unknown" if bits is None else number(bits)


def write_html(scored: TextScore, wanted: Path) -> None:
    """Makes the page and says where it is."""
    from charlm.lm.scores import expected_next
    from charlm.report.page import write_page
    from charlm.report.surprise_page import MOST, map_data, score_page
    from charlm.text.splits import count_targets

    spans, names = scored.part.spans, scored.names
    first, ids = scored.models[0], scored.seen[0].ids
    with progress_bar(min(_EXPECTED, count_targets(spans)), "what was expected", "char") as bar:
        expected = expected_next(first, ids, spans, limit=_EXPECTED, progress=bar.update)
    data = map_data(scored.shown, spans, first.vocab, scored.symbols, names, expected=expected)
    notes = list(scored.warnings())
    if len(data["ids"]) == MOST:
        notes.append(f"The page shows the first {MOST:,} characters; the tables are about all of them.")
    part = "all of it" if scored.part.name == "all" else f"{scored.part.name} part"
    facts = [("Text", f"{scored.shown.title}, {part}"), *_figures(scored)]
    page = score_page(data, title=f"Surprise of {scored.shown.title}", facts=facts, notes=notes, tables=_tables(scored))
    click.echo(f"{write_page(wanted, page)}")


def _figures(scored: TextScore) -> list[tuple[str, str]]:
    return [("Model", scored.figure(number)) for number in range(len(scored.models))]


def _tables(scored: TextScore) -> list[dict[str, Any]]:
    """The strangest lines and characters, for those who read tables and not pictures."""
    from charlm.report.surprise_page import map_places

    found = []
    names = scored.names
    rank = "The strangest first." if len(names) == 1 else f"Where {names[0]} knows most that {names[1]} does not."
    for heading, by, words in (
        ("Lines", "line", f"{rank} Bits a character, the newline that ends a line counted to it."),
        ("Characters", "char", rank),
    ):
        columns, pairs = character_rows(scored, _ROWS) if by == "char" else stretch_rows(scored, by, _ROWS)
        numeric = [(name, name not in ("line", "text", "character", "context")) for name in columns]
        places, rows = [], []
        for position, cells in pairs:
            places.append(position)
            rows.append([*cells[:-1], _shortened(cells[-1])])
        table = {"heading": heading, "words": words, "caption": heading, "columns": numeric, "rows": rows}
        found.append({**table, "places": map_places(scored.part.spans, places)})
    return found


def _shortened(text: str) -> str:
    return (text or "⏎") if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
