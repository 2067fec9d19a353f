"""`charlm compare`: one table, one held-out text, n-grams and networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option, note, reading_of, reading_options, split_option
from charlm.cli.ngram import SMOOTHINGS
from charlm.errors import CharlmError, OptionError
from charlm.files import free_name
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from charlm.checkpoint import Checkpoint
    from charlm.lm.compare import Compared
    from charlm.lm.evaluate import Row
    from charlm.text.corpus import Corpus
    from charlm.text.splits import Spans, Split


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
@click.option("--plot", metavar="FILE", help="Draw the comparison as .png, .svg or .pdf.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
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
    from charlm.cli.compared import network_rows
    from charlm.figures import check_picture
    from charlm.lm.compare import compare, summary
    from charlm.lm.evaluate import targets_of
    from charlm.text.corpus import read_corpus
    from charlm.text.splits import Split, count_targets

    if options["plot"] is not None:
        check_picture(Path(options["plot"]))
    reading = reading_of(*(options[name] for name in ("encoding", "newlines", "as_bytes", "vocab_size")))
    corpus = read_corpus([text], reading)
    networks = [_open(name, options["device"]) for name in models]
    split = split or next((n.text.split for n in networks if n.text.sha256 == corpus.sha256), None)
    split = split or Split.default(len(corpus))
    part = "test" if count_targets(corpus.parts(split)["test"]) else "valid"
    held = corpus.part(split, part)
    networks = networks or _known(corpus, split, options["device"])
    for network in networks:
        _refuse_overlap(network, corpus, split, part)
    rows = _counted(corpus, split, held, orders, list(dict.fromkeys(smoothings)))
    extra = {name: options[name] for name in ("dynamic", "mixture", "cache")}
    rows += network_rows(networks, text, corpus, split, held, orders, **extra)
    lines = compare(rows, targets_of(corpus.ids, held), corpus.vocab)
    _show(lines, corpus, split, part, summary(lines), options["as_json"])
    if options["plot"] is not None:
        _plot(lines, Path(options["plot"]), f"{corpus.title}, {part} part, split {split}")


def _counted(corpus: Corpus, split: Split, held: Spans, orders: list[int], smoothings: list[str]) -> list[Row]:
    from charlm.ngrams.fit import counted_rows

    rows = []
    with progress_bar(len(smoothings) * len(orders), "counting", "model") as bar:
        for row in counted_rows(corpus, corpus.parts(split), held, orders=orders, smoothings=smoothings):
            rows.append(row)
            bar.update()
    return rows


def _open(directory: str, device: str) -> Checkpoint:
    from charlm.cli.models import open_model

    return open_model(directory, device)


def _known(corpus: Corpus, split: Split, device: str) -> list[Checkpoint]:
    """The networks under checkpoints/ that were trained on this text with this split."""
    from charlm.checkpoint import TextFacts, read_config

    found = []
    for path in sorted(Path("checkpoints").glob("*/config.json")):
        try:
            config = read_config(path.parent)
            facts = TextFacts.from_json(config["text"])
            if config["kind"] == "ngram" or facts.sha256 != corpus.sha256:
                continue
            if str(facts.split) != str(split) or facts.reading != corpus.reading:
                note(f"{path.parent} is left out: it was trained with split {facts.split}, this table is for {split}")
                continue
            found.append(_open(str(path.parent), device))
        except CharlmError as error:
            note(f"{path.parent} is left out: {error}")
    return found


def _refuse_overlap(network: Checkpoint, corpus: Corpus, split: Split, part: str) -> None:
    """A model that was trained on what is to be foreseen cannot be compared."""
    from charlm.text.splits import overlap

    if network.text.sha256 != corpus.sha256:
        note(f"{network.name} was made from another text ({', '.join(network.text.names)})")
        return
    if network.text.reading != corpus.reading:
        raise OptionError(
            f"{network.name} read this text otherwise ({network.text.reading}): give the same reading options"
        )
    seen = overlap(corpus.parts(network.text.split)["train"], corpus.parts(split)[part])
    if seen:
        raise OptionError(
            f"{network.name} was trained on {seen:,} of the characters that are held out here (its split is "
            f"{network.text.split}, this one {split}): compare with --split {network.text.split}"
        )


def _show(lines: Sequence[Compared], corpus: Corpus, split: Split, part: str, sentence: str, as_json: bool) -> None:
    targets = lines[0].evaluation.targets
    if as_json:
        head = {"text": corpus.title, "split": str(split), "part": part, "targets": targets}
        echo_json({**head, "models": [line.to_json() for line in lines]})
        return
    click.echo(f"{corpus.title}, {part} part of split {split}: {targets:,} targets; nats a character\n")
    unsmoothed = [line for line in lines if line.row.smoothing == "none"]
    if unsmoothed:
        click.echo(_LEGEND)
        _table(_UNSMOOTHED, [_unsmoothed(line) for line in unsmoothed])
        click.echo()
    _table(_FINITE, [_finite(line) for line in lines if line.row.smoothing != "none"])
    click.echo(f"\n{sentence}")
    if part == "valid":
        note("there is no test part: the valid part is shown, which early stopping of the networks watched")


_UNSMOOTHED = (
    "order", "n-grams", "perplex.", "cover %", "no hist", "no next", "nats*", "net*", "train", "right %", "MB", "s",
)  # fmt: skip
_LEGEND = """maximum likelihood, unsmoothed. cover: share of targets with a probability above 0; no hist, no next:
targets whose history was never counted, or that never followed it; nats*, net*: on the covered targets, by counting and
by the best network; train: on the training text"""
_FINITE = ("model", "size", "nats", "±", "bits", "perplex.", "train", "right %", "MB", "s")


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _unsmoothed(line: Compared) -> list[str]:
    row, figures = line.row, line.evaluation
    there = [value for value in line.network_covered_nats.values() if value is not None]
    return [
        f"{row.order}",
        f"{row.ngrams or 0:,}",
        "infinite" if figures.zero_probability_targets else f"{figures.perplexity:.4f}",
        f"{100 * line.coverage:.2f}",
        f"{line.unseen_histories:,}",
        f"{line.unseen_continuations:,}",
        _number(line.covered_nats),
        _number(min(there, default=None)),
        _number(row.train_nats),
        f"{100 * figures.accuracy:.1f}",
        _number(None if row.bytes is None else row.bytes / 1e6, 1),
        _number(row.seconds, 2),
    ]


def _finite(line: Compared) -> list[str]:
    row, figures = line.row, line.evaluation.to_json()
    size = row.parameters if row.parameters is not None else row.ngrams
    return [
        row.name,
        "-" if size is None else f"{size:,}",
        *(_number(figures[key]) for key in ("nats", "standard_error", "bits_per_char", "perplexity")),
        _number(row.train_nats),
        f"{100 * figures['accuracy']:.1f}",
        _number(None if row.bytes is None else row.bytes / 1e6, 1),
        _number(row.seconds, 2),
    ]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    for row in (head, *body):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _plot(lines: Sequence[Compared], wanted: Path, title: str) -> None:
    from charlm.report.figures import draw_comparison

    picture = free_name(wanted)
    draw_comparison(lines, picture, title=title)
    note(f"picture: {picture}")
