"""`charlm score`: how surprising each character, word, line, item or document is to a model, or to two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import (
    adaptive_option,
    device_option,
    echo_json_lines,
    echo_lines,
    finite,
    force_option,
    note,
    other_reading_options,
    split_part_option,
    target,
)
from charlm.display import progress_bar
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.lm.scored import TextScore


@click.command("score")
@click.argument("arguments", nargs=-1, required=True, metavar="MODEL [MODEL] TEXT")
@click.option(
    "--by",
    type=click.Choice(["char", "word", "sentence", "line", "document", "item"]),
    default="char",
    show_default=True,
    help="Lines and documents come the strangest first, all others in the order of the text.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N strangest only, the strangest first.")
@click.option(
    "--rank",
    type=click.Choice(["mean", "total", "max"]),
    default="mean",
    show_default=True,
    help="Rank lines or documents by bits a character, bits in all, or the most surprising character.",
)
@split_part_option
@click.option(
    "--guesses",
    type=click.IntRange(100),
    metavar="N",
    help="With --by item: how many items are more probable than each, estimated from a sample of N.",
)
@click.option(
    "--space", type=click.Choice(["before", "after"]), default="before", show_default=True,
    help="Whether a word has the white space before or after it.",
)  # fmt: skip
@click.option("--apart", is_flag=True, help="With --by word: punctuation stands apart from words.")
@click.option("--tokens", metavar="FILE", help="With --by word: the words of TEXT, one a line.")
@adaptive_option
@click.option("--html", metavar="FILE", help="Make a page whose characters show what was expected in their place.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
    help="Paint characters; auto paints on a terminal unless NO_COLOR is set.",
)  # fmt: skip
@other_reading_options
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines for programs: one value an item.")
@force_option
def score_command(
    arguments: tuple[str, ...],
    by: str,
    top: int | None,
    rank: str,
    html: str | None,
    color: str,
    as_json: bool,
    guesses: int | None,
    **options: Any,
) -> None:
    """Show how surprising TEXT (a file, a directory of files, or - for standard input) is to MODEL, in bits.

    The last argument is the text. With two models the difference is shown: above 0 where the first knows more.
    Bits of a line are per character, the newline that ends it counted to it. Lines with characters that the model does
    not know come first, blank lines last.
    """
    import charlm
    from charlm.display import may_paint
    from charlm.text.reading import tokens_of

    if not 2 <= len(arguments) <= 3:
        raise OptionError("name one model or two and then the text: charlm score checkpoints/NAME data/shakespeare.txt")
    *models, text = arguments
    reading = {name: options[name] for name in ("encoding", "newlines", "bytes", "items", "weights")}
    opened = [charlm.load(name, device=options["device"]) for name in models]
    kind = options["adaptive"]
    if by == "item":
        if kind is not None:
            raise OptionError("each item is scored by itself, so nothing would be learned: leave --adaptive away")
        _show_items(opened, Path(text), top, guesses, reading, as_json)
        return
    if guesses is not None:
        raise OptionError("--guesses is about whole items: add --by item")
    opened = [charlm.adaptive(model, kind=kind) for model in opened] if kind is not None else opened
    words = {"space": options["space"], "apart": options["apart"], "tokens": tokens_of(options["tokens"])}
    scored = charlm.score(opened, Path(text), part=options["split_part"], **reading, **words)
    _notes(scored)
    if html is not None:
        write_html(scored, Path(html))
        if not as_json:
            return
    if as_json:
        echo_json_lines(_items(scored, by, top, rank))
    elif by != "char" or top is not None:
        echo_lines(line + "\n" for line in _ranking(scored, by, top, rank))
    elif may_paint(color):
        _show_painted(scored)
    else:
        echo_lines(line + "\n" for line in _columns(scored))


def _show_items(
    models: Sequence[TextModel],
    text: Path,
    top: int | None,
    guesses: int | None,
    reading: dict[str, Any],
    as_json: bool,
) -> None:
    """The probability of each item of a list."""
    from charlm.lm.items import read_list, training_items

    if len(models) > 1:
        raise OptionError("items are scored by one model: name it and the list")
    model = models[0]
    items = read_list(model, text, **reading)
    scores = model.score_items(items, guesses=guesses or 0)
    note(f"{text}: {len(items):,} items, each with its end mark")
    if scores.percentile_N is None and isinstance(why := training_items(model), str):
        note(f"no percentiles: {why}")
    if as_json:
        echo_json_lines(map(scores.to_json, scores.order(top)))
    else:
        echo_lines("\t".join(row) + "\n" for row in scores.rows(top))


def _notes(scored: TextScore) -> None:
    from charlm.lm.evaluate import called

    held, targets = scored.part, scored.items[0].evaluation.targets
    split = "" if held.text.split is None else f" of split {held.text.split}"
    note(f"{called(held)}{split}: {targets:,} {held.text.vocab.unit}s")
    for number in range(len(scored.models)):
        note(scored.figure(number))
    for sentence in scored.warnings():
        note(sentence)


def _items(scored: TextScore, by: str, top: int | None, rank: str) -> Iterator[dict[str, Any]]:
    """What `--json` prints."""
    from charlm.lm.scored import gained

    if by == "char":
        yield from _character_items(scored, scored.character_order(top))
        return
    for group in scored.stretch_order(by, rank, top)[:top]:
        first = group[0]
        item: dict[str, Any] = {by: first.number, **({"document": first.document} if by == "line" else {})}
        item["name"] = scored.shown.name_of(first.document - 1)
        item |= {"start": scored.place(first.start), "end": scored.place(first.end), "characters": first.characters}
        for prefix, stretch in zip(("", "second_"), group, strict=False):
            item[f"{prefix}bits_per_char"] = finite(stretch.bits_per_char)
            item[f"{prefix}bits"] = finite(stretch.bits)
            item[f"{prefix}highest_bits"] = finite(stretch.highest)
            item[f"{prefix}zero_probability"] = stretch.zero_probability > 0
            item[f"{prefix}zero_probability_targets"] = stretch.zero_probability
            item[f"{prefix}unknown_targets"] = stretch.unknown
        if len(group) == 2:
            item["difference"] = finite(gained(*group))
        if by != "document":
            item["text"] = scored.text(first.start, first.end)
        yield item


def _character_items(scored: TextScore, order: list[int]) -> Iterator[dict[str, Any]]:
    positions, characters = scored.items[0].position_N.tolist(), scored.characters
    bits = [surprise.bits_N.tolist() for surprise in scored.items]
    differences = scored.order_values.tolist()
    for i in order:
        item: dict[str, Any] = {"position": scored.place(positions[i]), "char": characters[i]}
        for prefix, values in zip(("", "second_"), bits, strict=False):
            item[f"{prefix}bits"] = finite(values[i])
            item[f"{prefix}zero_probability"] = math.isinf(values[i])
            item[f"{prefix}unknown"] = math.isnan(values[i])
        if len(bits) == 2:
            item["difference"] = finite(differences[i])
        yield item


def _columns(scored: TextScore) -> Iterator[str]:
    """Every character in the order of the text: position, bits (of two models and the difference), character."""
    from charlm.display import visible

    values = [surprise.bits_N.tolist() for surprise in scored.items]
    values += [scored.order_values.tolist()] if len(values) == 2 else []
    positions = scored.items[0].position_N.tolist()
    for position, character, *bits in zip(positions, scored.characters, *values, strict=True):
        yield "\t".join([str(scored.place(position)), *map(number, bits), visible(character)])


def _show_painted(scored: TextScore) -> None:
    """The text itself, painted."""
    from charlm.display import DIFFERENCES, LEVELS, difference_level, legend, paint, surprise_level

    alone = len(scored.items) == 1
    level = surprise_level if alone else difference_level
    click.echo(legend(LEVELS if alone else DIFFERENCES), err=True)
    styles = [level(value) for value in scored.order_values.tolist()]
    pieces = [(scored.context, "s0"), *zip(scored.characters, styles, strict=True)]
    for line in paint(pieces):
        click.echo(line, nl=False, color=True)
    click.echo()


def _ranking(scored: TextScore, by: str, top: int | None, rank: str) -> Iterator[str]:
    """The strangest first, a line each, columns apart by tabs."""
    heading, rows = character_rows(scored, top) if by == "char" else stretch_rows(scored, by, top, rank)
    yield "\t".join(heading)
    for _, row in rows:
        yield "\t".join(row)


# -- tables, for a terminal and for the page ------------------------------------------------------------------------

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
    from charlm.display import visible

    surprise, size = scored.items[0], len(scored.shown)

    def rows() -> Iterator[tuple[int, list[str]]]:
        for i in scored.character_order(top):
            at, length = int(surprise.position_N[i]), int(surprise.length_N[i])
            before = scored.text(max(0, at - _CONTEXT), at)
            after = scored.text(at + length, min(size, at + length + _CONTEXT))
            values = [float(item.bits_N[i]) for item in scored.items]
            values += [float(scored.order_values[i])] if len(values) == 2 else []
            signs = [visible(text) for text in (before, scored.characters[i], after)]
            yield at, [*map(number, values), str(scored.place(at)), signs[1], f"{signs[0]}[{signs[1]}]{signs[2]}"]

    return [*_value_names(scored), "position", "character", "context"], rows()


def stretch_rows(
    scored: TextScore, by: str, top: int | None, rank: str = "mean"
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The same of lines or documents, in the order of `stretch_order`."""
    from charlm.display import visible
    from charlm.lm.scored import gained

    several = len(scored.shown.names) > 1

    def rows() -> Iterator[tuple[int, list[str]]]:
        for group in scored.stretch_order(by, rank, top)[:top]:
            first, name = group[0], scored.shown.name_of(group[0].document - 1)
            if by in ("word", "sentence"):
                bits = [number(stretch.bits if stretch.characters else None) for stretch in group]
                bits += [number(group[1].bits - first.bits)] if len(group) == 2 else []
                text = visible(scored.text(first.start, first.end))
                yield first.start, [*bits, str(scored.place(first.start)), str(first.characters), text]
                continue
            means = [stretch.bits_per_char for stretch in group]
            values = ["unknown" if bits is None else number(bits) for bits in means]
            values += [number(gained(*group))] if len(values) == 2 else []
            text = visible(scored.text(first.start, first.end).removesuffix("\n"))
            where = f"{name}:{first.number}" if several else str(first.number)
            more = [where, text] if by == "line" else [f"{first.characters:,}", name]
            yield first.start, [*values, *more]

    if by in ("word", "sentence"):
        return [*_value_names(scored), "position", "characters", by], rows()
    names = [f"{name} a char" if name == "bits" else name for name in _value_names(scored)]
    return [*names, *(["line", "text"] if by == "line" else ["characters", "document"])], rows()


def write_html(scored: TextScore, wanted: Path) -> None:
    """Makes the page and says where it is."""
    from charlm.lm.surprise import expected_next
    from charlm.pages.page import MOST, map_data, score_page, write_page
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
    figures = [("Model", scored.figure(number)) for number in range(len(scored.models))]
    facts = [("Text", f"{scored.shown.title}, {part}"), *figures]
    page = score_page(data, title=f"Surprise of {scored.shown.title}", facts=facts, notes=notes, tables=_tables(scored))
    click.echo(f"{write_page(target(wanted, 'the page'), page, overwrite=True)}")


def _tables(scored: TextScore) -> list[dict[str, Any]]:
    """The strangest lines and characters, for those who read tables and not pictures."""
    from charlm.pages.page import map_places

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
