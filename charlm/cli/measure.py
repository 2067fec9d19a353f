"""`charlm eval`, `compare`, `compress` and `decompress`: what models make of a text, in figures or in bytes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from charlm.cli.common import (
    adaptive_option,
    bits_option,
    device_option,
    echo_json,
    force_option,
    force_option_saying,
    forced,
    json_option,
    note,
    opened,
    other_reading_options,
    reading_options,
    split_option,
    split_part_option,
    target,
)
from charlm.cli.make import SMOOTHINGS
from charlm.errors import OptionError
from charlm.files import write_bytes


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
    help="With --adaptive: a model of the same text that is mixed in, too; may be given several times.",
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
    network, *more_models = (opened(name, device, bits, precision) for name in (model, *others))
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
    from charlm.display import check_picture

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


_SUFFIX = ".charlm"
_file = click.Path(path_type=Path)


@click.command("compress")
@click.argument("arguments", nargs=-1, required=True, metavar="[MODEL] FILE")
@click.option("--out", type=_file, metavar="FILE", help="What is written.  [default: the file's name and .charlm]")
@adaptive_option
@click.option("--lanes", type=int, metavar="B", help="Pieces read side by side: faster, about two bytes each.")
@device_option
@force_option
@json_option
def compress_command(
    arguments: tuple[str, ...], out: Path | None, adaptive: Any, lanes: int | None, device: str, as_json: bool
) -> None:
    """Compress FILE with MODEL (a directory under checkpoints/), or without one by what it learns from FILE itself.

    Any file can be compressed and comes back bit for bit; what the model foresees well becomes small. Decompressing
    needs the same model, versions and kind of machine, which the file names.
    """
    import charlm

    if len(arguments) > 2:
        raise OptionError("name a model and one file, such as charlm compress checkpoints/NAME data/shakespeare.txt")
    path = Path(arguments[-1])
    model = charlm.load(arguments[0], device=device) if len(arguments) == 2 else None
    done = charlm.compress(_read(path), model, learning=adaptive, lanes=lanes)
    written = target(out or path.with_name(path.name + _SUFFIX), "the compressed file")
    write_bytes(written, done.packed)
    if as_json:
        echo_json({"file": str(written), **done.to_json()})
    else:
        click.echo(f"{written}: {done!r}")


@click.command("decompress")
@click.argument("path", type=_file, metavar="FILE")
@click.option("--out", type=_file, metavar="FILE", help="What is written.  [default: the name without .charlm]")
@click.option("--model", metavar="DIR", help="The model.  [default: the directory that FILE names]")
@click.option("--about", is_flag=True, help="Print what made FILE, as JSON, and write nothing.")
@force_option_saying("Replace files that are there already, and try a file that another machine or version made.")
@json_option
def decompress_command(path: Path, out: Path | None, model: str | None, about: bool, as_json: bool) -> None:
    """Write the file that `charlm compress` made FILE from, bit for bit.

    Where the model, the versions or this machine's numbers differ from those that made FILE, that is said at once, and
    nothing is written; with --force it is tried, and kept if the checksum is right.
    """
    import charlm
    from charlm.compression import made

    packed = _read(path)
    if about:
        echo_json(made(packed)[0].to_json())
        return
    content = charlm.decompress(packed, model, force=forced())
    plain = path.name.removesuffix(_SUFFIX) if path.suffix == _SUFFIX else f"{path.name}.out"
    written = target(out or path.with_name(plain), "the text")
    write_bytes(written, content)
    if as_json:
        echo_json({"file": str(written), "size": len(content), "compressed": len(packed)})
    else:
        click.echo(f"{written}: {len(content):,} bytes from {len(packed):,}")


def _read(path: Path) -> bytes:
    """The bytes of a file."""
    if path.is_dir():
        raise OptionError(f"{path} is a directory: name a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
