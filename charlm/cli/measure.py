"""How well models foresee a text: all of it (`charlm eval`), each part of it (`score`), several models (`compare`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import (
    adaptive_option,
    bits_option,
    device_option,
    echo_json,
    echo_json_lines,
    echo_lines,
    force_option,
    json_option,
    note,
    opened,
    other_reading_options,
    plot_option,
    reading_options,
    split_option,
    split_part_option,
    target,
)
from charlm.cli.make import SMOOTHINGS
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.lm.scored import TextScore


@click.command("eval")
@click.argument("model")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@split_part_option
@click.option(
    "--dynamic",
    is_flag=True,
    help="Also measure the network while it goes on learning from what it has read, a figure of its own.",
)
@adaptive_option
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="DIR",
    help="With --adaptive: a model of the same text that is mixed in as it is; may be given several times.",
)
@other_reading_options
@bits_option
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Of a network's products.  [default: fp32]")
@device_option
@json_option
def eval_command(
    model: str,
    texts: tuple[str, ...],
    split_part: str | None,
    dynamic: bool,
    adaptive: Any,
    others: tuple[str, ...],
    bits: str | None,
    precision: str | None,
    device: str,
    as_json: bool,
    **reading: Any,
) -> None:
    """Measure MODEL (a directory under checkpoints/) on TEXT: nats, bits per character, perplexity, accuracy."""
    import charlm
    from charlm.cli.common import held_out, where
    from charlm.lm.evaluate import called

    if others and adaptive is None:
        raise OptionError("--with names a model that is mixed in while reading adaptively: add --adaptive fast")
    network, more_models = opened(model, device, bits, precision), [charlm.load(name, device=device) for name in others]
    held = held_out(network, texts, split_part, **reading)
    learner = charlm.dynamic(network, held.text) if dynamic else None
    figures = network.evaluate(held)
    learned = None if learner is None else learner.evaluate(held)
    read = None
    if adaptive is not None:
        read = charlm.adaptive([network, *more_models], held.text, kind=adaptive, room=len(held)).evaluate(held)
    if as_json:
        more: dict[str, Any] = {} if bits is None else {"bits": int(bits)}
        more |= {} if precision is None else {"precision": precision}
        if learner is not None and learned is not None:
            more["dynamic"] = {**learned.to_json(), **asdict(learner.config)}
        if read is not None:
            more["adaptive"] = {**read.to_json(), "kind": adaptive, "models": 1 + len(others)}
        echo_json({**figures.to_json(), **where(held), **more})
        return
    split = "a text the model was not made from" if held.text.split is None else f"split {held.text.split}"
    click.echo(f"{network.name} on {called(held)} ({split}):")
    click.echo(repr(figures))
    if learner is not None and learned is not None:
        config = learner.config
        click.echo(
            f"dynamic, learning on from each {config.segment} characters once they are scored (rate {config.rate:g}, "
            f"decay {config.decay:g}):\n{learned!r}"
        )
    if read is not None:
        beside = "".join(f"{other.name}, " for other in more_models)
        click.echo(
            f"adaptive ({adaptive}), with {beside}contexts that learn from each character once it is scored:\n{read!r}"
        )
    chosen = [f"weights of {bits} bits"] if bits is not None else []
    chosen += [f"products in {precision}"] if precision is not None else []
    for sentence in [*figures.notes, *chosen]:
        note(sentence)


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
    _note_figures(scored)
    if html is not None:
        from charlm.pages import write_page
        from charlm.pages.report import score_page

        click.echo(f"{write_page(target(html, 'the page'), score_page(scored), overwrite=True)}")
    if as_json:
        echo_json_lines(scored.to_json(by, top, rank))
    elif html is None and by == "char" and top is None and may_paint(color):
        _show_painted(scored)
    elif html is None and by == "char" and top is None:
        echo_lines("\t".join(cells) + "\n" for cells in scored.columns())
    elif html is None:
        heading, rows = scored.table(by, top, rank)
        echo_lines("\t".join(cells) + "\n" for cells in itertools.chain([heading], (row for _, row in rows)))


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


def _note_figures(scored: TextScore) -> None:
    from charlm.lm.evaluate import called

    held, targets = scored.part, scored.items[0].evaluation.targets
    split = "" if held.text.split is None else f" of split {held.text.split}"
    note(f"{called(held)}{split}: {targets:,} {held.text.vocab.unit}s")
    for number in range(len(scored.models)):
        note(scored.figure(number))
    for sentence in scored.warnings():
        note(sentence)


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
@plot_option("Draw the comparison as .png, .svg or .pdf.")
@device_option
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
