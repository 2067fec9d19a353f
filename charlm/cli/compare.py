"""`charlm compare`: one table, one held-out text, n-grams and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import (
    adaptive_option,
    echo_json,
    force_option,
    json_option,
    note,
    reading_options,
    split_option,
    target,
)
from charlm.cli.ngram import SMOOTHINGS
from charlm.errors import OptionError


class _Orders(click.ParamType[list[int]]):
    name = "orders"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        orders: set[int] = set()
        for piece in str(value).split(","):
            low, _, high = piece.partition("-")
            if not (low.strip().isdecimal() and (high or low).strip().isdecimal()):
                raise OptionError(f"cannot read the orders {value!r}: write them as 0-10 or 1,2,4")
            orders |= set(range(int(low), int(high or low) + 1)) if int(high or low) <= 32 else {33}
        if not orders or max(orders) > 32:
            raise OptionError(f"orders go from 0 to 32 characters of history, not {value!r}")
        return sorted(orders)


@click.command("compare")
@click.argument("text")
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@click.option("--orders", type=_Orders(), default="0-10", show_default=True, help="Orders of the n-grams.")
@click.option(
    "--smoothing",
    "smoothings",
    type=click.Choice(SMOOTHINGS),
    multiple=True,
    default=("none", "kneser-ney"),
    show_default=True,
    help="May be given several times.",
)
@split_option
@reading_options
@click.option(
    "--mixture", is_flag=True, help="Also mix each network with Kneser-Ney, by weights learned while reading."
)
@click.option(
    "--dynamic", is_flag=True, help="Also read with each network while it goes on learning, in rows of their own."
)
@click.option("--cache", is_flag=True, help="Also mix in counts of the text as it is read, in rows of their own.")
@adaptive_option
@click.option("--plot", metavar="FILE", help="Draw the comparison as .png, .svg or .pdf.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
@force_option
def compare_command(
    text: str,
    models: tuple[str, ...],
    orders: list[int],
    smoothings: tuple[str, ...],
    split: Any,
    **options: Any,
) -> None:
    """Compare n-gram models with networks on the held-out part of TEXT.

    With no MODEL, every network under checkpoints/ that was trained on this text with this split is taken.
    """
    import charlm
    from charlm.comparison import known_models
    from charlm.drawing import check_picture

    if options["plot"] is not None:
        check_picture(Path(options["plot"]))
    opened = [charlm.load(name, device=options["device"]) for name in models]
    reading = {name: options[name] for name in ("encoding", "newlines", "bytes", "vocab_size", "items", "weights")}
    read = charlm.read_text(text, split=split, **reading)
    own = next((m.source.split for m in opened if m.source.sha256 == read.corpus.sha256), None)
    if split is None and own is not None:
        read = charlm.Text(corpus=read.corpus, split=own)
    if not opened:
        opened, said = known_models(read, device=options["device"])
        for sentence in said:
            note(sentence)
    extra = {name: options[name] for name in ("dynamic", "mixture", "cache", "adaptive")}
    found = charlm.compare(read, opened, orders=orders, smoothings=smoothings, **extra)
    if options["as_json"]:
        echo_json(found.to_json())
    else:
        click.echo(repr(found))
    for sentence in found.notes:
        note(sentence)
    if options["plot"] is not None:
        picture = target(options["plot"], "the picture")
        found.plot(picture)
        note(f"picture: {picture}")
