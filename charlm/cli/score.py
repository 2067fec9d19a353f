"""`charlm score`: how surprising each character, line or document of a text is to a model, or to two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import finite, note
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.lm.scored import TextScore


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
    import charlm
    from charlm.cli.score_tables import write_html
    from charlm.lm.painting import may_paint

    if not 2 <= len(arguments) <= 3:
        raise OptionError(
            "name one model or two and then the text, such as charlm score checkpoints/NAME data/shakespeare.txt"
        )
    *models, text = arguments
    opened = [charlm.load(name, device=options["device"]) for name in models]
    scored = charlm.score(opened, Path(text), part=options["split_part"])
    _notes(scored)
    if html is not None:
        write_html(scored, Path(html))
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


def _notes(scored: TextScore) -> None:
    held = scored.part
    split = "" if held.text.split is None else f" of split {held.text.split}"
    targets = scored.items[0].evaluation.targets
    note(f"{scored.part.text.title}, {held.name} part{split}: {targets:,} characters")
    for number in range(len(scored.models)):
        note(scored.figure(number))
    for sentence in scored.warnings():
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


def _items(scored: TextScore, by: str, top: int | None) -> Iterator[dict[str, Any]]:
    """What `--json` prints."""
    from charlm.lm.scored import gained

    if by == "char":
        yield from _character_items(scored, scored.character_order(top))
        return
    for group in scored.stretch_order(by)[:top]:
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


def _character_items(scored: TextScore, order: list[int]) -> Iterator[dict[str, Any]]:
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


def _columns(scored: TextScore) -> Iterator[str]:
    """Every character in the order of the text: position, bits (of two models and the difference), character."""
    from charlm.cli.score_tables import number
    from charlm.lm.painting import visible

    values = [surprise.bits_N.tolist() for surprise in scored.items]
    values += [scored.order_values.tolist()] if len(values) == 2 else []
    positions = scored.items[0].position_N.tolist()
    for position, character, *bits in zip(positions, scored.characters, *values, strict=True):
        yield "\t".join([str(position), *map(number, bits), visible(character)])


def _show_painted(scored: TextScore) -> None:
    """The text itself, painted."""
    from charlm.lm.painting import DIFFERENCES, LEVELS, difference_level, legend, paint, surprise_level

    alone = len(scored.items) == 1
    level = surprise_level if alone else difference_level
    click.echo(legend(LEVELS if alone else DIFFERENCES), err=True)
    styles = [level(value) for value in scored.order_values.tolist()]
    pieces = [(scored.context, "s0"), *zip(scored.characters, styles, strict=True)]
    for line in paint(pieces):
        click.echo(line, nl=False, color=True)
    click.echo()


def _ranking(scored: TextScore, by: str, top: int | None) -> Iterator[str]:
    """The strangest first, a line each, columns apart by tabs."""
    from charlm.cli.score_tables import character_rows, stretch_rows

    heading, rows = character_rows(scored, top) if by == "char" else stretch_rows(scored, by, top)
    yield "\t".join(heading)
    for _, row in rows:
        yield "\t".join(row)
