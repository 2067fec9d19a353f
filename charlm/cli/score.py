"""`charlm score`: how surprising each character, line or document of a text is to a model, or to two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import finite, note, progress
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.cli.scored import Scored

_CONTEXT = 30  # characters on both sides of a strange one
_EXPECTED = 20_000  # characters of a page whose expected ones are kept


@click.command("score")
@click.argument("arguments", nargs=-1, required=True, metavar="MODEL [MODEL] TEXT")
@click.option(
    "--by",
    type=click.Choice(["char", "line", "document"]),
    default="char",
    show_default=True,
    help="Characters in the order of the text; lines or documents the strangest first.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N strangest only, the strangest first.")
@click.option(
    "--split-part",
    type=click.Choice(["test", "valid", "train", "all"]),
    help="Which part of the model's own text.  [default: test, else valid; all of a foreign text]",
)
@click.option("--html", metavar="FILE", help="Make a page whose characters show what was expected in their place.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
    help="Paint characters; auto paints on a terminal unless NO_COLOR is set.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines for programs: one value an item.")
def score_command(
    arguments: tuple[str, ...], by: str, top: int | None, html: str | None, color: str, as_json: bool, **options: Any
) -> None:
    """Show how surprising TEXT (a file, a directory of files, or - for standard input) is to MODEL, in bits.

    The last argument is the text. With two models the difference is shown: above 0 where the first knows more.
    Bits of a line are per character, the newline that ends it counted to it.
    """
    from charlm.cli.painting import may_paint
    from charlm.cli.scored import read_scored

    if not 2 <= len(arguments) <= 3:
        raise OptionError(
            "name one model or two and then the text, such as charlm score checkpoints/NAME data/shakespeare.txt"
        )
    *models, text = arguments
    scored = read_scored(models, text, options["split_part"], options["device"])
    _notes(scored)
    if html is not None:
        _write_html(scored, Path(html))
        if not as_json:
            return
    if as_json:
        _echo(json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in _items(scored, by, top))
    elif by != "char" or top is not None:
        _echo(line + "\n" for line in _ranking(scored, by, top))
    elif may_paint(color):
        _show_painted(scored)
    else:
        _echo(line + "\n" for line in _columns(scored))


def _notes(scored: Scored) -> None:
    from charlm.cli.scored import figure, warnings

    held = scored.held
    split = "" if held.split is None else f" of split {held.split}"
    targets = scored.items[0].evaluation.targets
    note(f"{scored.shown.title}, {held.part} part{split}: {targets:,} characters")
    for number in range(len(scored.checkpoints)):
        note(figure(scored, number))
    for sentence in warnings(scored):
        note(sentence)


def _echo(lines: Iterable[str]) -> None:
    """Prints in blocks, as there may be a million lines."""
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) == 4096:
            click.echo("".join(block), nl=False)
            block = []
    click.echo("".join(block), nl=False)


def _items(scored: Scored, by: str, top: int | None) -> Iterator[dict[str, Any]]:
    """What `--json` prints."""
    from charlm.cli.scored import character_order, gained, stretch_order

    if by == "char":
        yield from _character_items(scored, character_order(scored, top))
        return
    for group in stretch_order(scored.found(by))[:top]:
        first = group[0]
        item: dict[str, Any] = {by: first.number, **({"document": first.document} if by == "line" else {})}
        item["name"] = scored.shown.names[first.document - 1]
        item |= {"start": first.start, "end": first.end, "characters": first.characters}
        for prefix, stretch in zip(("", "second_"), group, strict=False):
            item[f"{prefix}bits_per_char"] = finite(stretch.bits_per_char)
            item[f"{prefix}zero_probability"] = stretch.zero_probability > 0
            item[f"{prefix}zero_probability_targets"] = stretch.zero_probability
            item[f"{prefix}unknown_targets"] = stretch.unknown
        if len(group) == 2:
            item["difference"] = finite(gained(*group))
        if by == "line":
            item["text"] = scored.text(first.start, first.end)
        yield item


def _character_items(scored: Scored, order: list[int]) -> Iterator[dict[str, Any]]:
    positions, characters = scored.items[0].position_N.tolist(), scored.characters
    bits = [surprise.bits_N.tolist() for surprise in scored.items]
    differences = scored.order_values.tolist()
    for i in order:
        item: dict[str, Any] = {"position": positions[i], "char": characters[i]}
        for prefix, values in zip(("", "second_"), bits, strict=False):
            item[f"{prefix}bits"] = finite(values[i])
            item[f"{prefix}zero_probability"] = math.isinf(values[i])
            item[f"{prefix}unknown"] = math.isnan(values[i])
        if len(bits) == 2:
            item["difference"] = finite(differences[i])
        yield item


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "unknown" if math.isnan(value) else f"{value:.3f}".replace("inf", "infinite")


def _columns(scored: Scored) -> Iterator[str]:
    """Every character in the order of the text: position, bits (of two models and the difference), character."""
    from charlm.report.page import visible

    values = [surprise.bits_N.tolist() for surprise in scored.items]
    values += [scored.order_values.tolist()] if len(values) == 2 else []
    positions = scored.items[0].position_N.tolist()
    for position, character, *bits in zip(positions, scored.characters, *values, strict=True):
        yield "\t".join([str(position), *map(_number, bits), visible(character)])


def _show_painted(scored: Scored) -> None:
    """The text itself, painted."""
    from charlm.cli.painting import DIFFERENCES, LEVELS, difference_level, legend, paint, surprise_level

    alone = len(scored.items) == 1
    level = surprise_level if alone else difference_level
    click.echo(legend(LEVELS if alone else DIFFERENCES), err=True)
    styles = [level(value) for value in scored.order_values.tolist()]
    for line in paint(zip(scored.characters, styles, strict=True)):
        click.echo(line, nl=False, color=True)
    click.echo()


def _ranking(scored: Scored, by: str, top: int | None) -> Iterator[str]:
    """The strangest first, a line each, columns apart by tabs."""
    heading, rows = _character_rows(scored, top) if by == "char" else _stretch_rows(scored, by, top)
    yield "\t".join(heading)
    for row in rows:
        yield "\t".join(row)


def _value_names(scored: Scored) -> list[str]:
    names = [checkpoint.name for checkpoint in scored.checkpoints]
    return ["bits"] if len(names) == 1 else [*names, "difference"]


def _character_rows(scored: Scored, top: int | None) -> tuple[list[str], Iterator[list[str]]]:
    from charlm.cli.scored import character_order
    from charlm.report.page import visible

    surprise, size = scored.items[0], len(scored.shown)

    def rows() -> Iterator[list[str]]:
        for i in character_order(scored, top):
            at, length = int(surprise.position_N[i]), int(surprise.length_N[i])
            before = scored.text(max(0, at - _CONTEXT), at)
            after = scored.text(at + length, min(size, at + length + _CONTEXT))
            values = [float(item.bits_N[i]) for item in scored.items]
            values += [float(scored.order_values[i])] if len(values) == 2 else []
            signs = [visible(text) for text in (before, scored.characters[i], after)]
            yield [*map(_number, values), str(at), signs[1], f"{signs[0]}[{signs[1]}]{signs[2]}"]

    return [*_value_names(scored), "position", "character", "context"], rows()


def _stretch_rows(scored: Scored, by: str, top: int | None) -> tuple[list[str], Iterator[list[str]]]:
    from charlm.cli.scored import gained, stretch_order
    from charlm.report.page import visible

    several = len(scored.shown.documents) > 1

    def rows() -> Iterator[list[str]]:
        for group in stretch_order(scored.found(by))[:top]:
            first, name = group[0], scored.shown.names[group[0].document - 1]
            values = [_stretch_bits(stretch.bits_per_char) for stretch in group]
            values += [_number(gained(*group))] if len(values) == 2 else []
            text = visible(scored.text(first.start, first.end).removesuffix("\n"))
            where = f"{name}:{first.number}" if several else str(first.number)
            yield [*values, where, text] if by == "line" else [*values, f"{first.characters:,}", name]

    names = [f"{name} a char" if name == "bits" else name for name in _value_names(scored)]
    return [*names, *(["line", "text"] if by == "line" else ["characters", "document"])], rows()


def _stretch_bits(bits: float | None) -> str:
    return "unknown" if bits is None else _number(bits)


def _write_html(scored: Scored, wanted: Path) -> None:
    """Makes the page and says where it is."""
    from charlm.analysis.surprise import expected_next
    from charlm.cli.scored import figure, warnings
    from charlm.report.page import write_page
    from charlm.report.surprise_page import MOST, map_data, score_page
    from charlm.text.splits import count_targets

    spans, names = scored.held.spans, [checkpoint.name for checkpoint in scored.checkpoints]
    first, ids = scored.checkpoints[0].model, scored.seen[0].ids
    with progress(min(_EXPECTED, count_targets(spans)), "what was expected", "char") as bar:
        expected = expected_next(first, ids, spans, limit=_EXPECTED, progress=bar.update)
    data = map_data(scored.shown, spans, first.vocab, scored.symbols, names, expected=expected)
    notes = list(warnings(scored))
    if len(data["ids"]) == MOST:
        notes.append(f"The page shows the first {MOST:,} characters; the tables are about all of them.")
    facts = [("Text", f"{scored.shown.title}, {scored.held.part} part"), *_figures(scored, figure)]
    page = score_page(data, title=f"Surprise of {scored.shown.title}", facts=facts, notes=notes, tables=_tables(scored))
    click.echo(f"{write_page(wanted, page)}")


def _figures(scored: Scored, figure: Any) -> list[tuple[str, str]]:
    return [("Model", figure(scored, number)) for number in range(len(scored.checkpoints))]


def _tables(scored: Scored) -> list[dict[str, Any]]:
    """The strangest lines and characters, for those who read tables and not pictures."""
    found = []
    rank = "The strangest first." if len(scored.items) == 1 else "Where the first model knows most before the second."
    for heading, by, words in (
        ("Lines", "line", f"{rank} Bits a character, the newline that ends a line counted to it."),
        ("Characters", "char", rank),
    ):
        columns, rows = _character_rows(scored, 25) if by == "char" else _stretch_rows(scored, by, 25)
        numeric = [(name, name not in ("line", "text", "character", "context")) for name in columns]
        found.append({"heading": heading, "words": words, "caption": heading, "columns": numeric, "rows": list(rows)})
    return found
