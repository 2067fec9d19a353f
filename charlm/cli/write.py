"""What models write: `charlm sample` generates text as it goes, and `next` shows what may come next; `compress` and
`decompress` write files by what a model foresees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

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
    seed_option,
    target,
)
from charlm.errors import OptionError
from charlm.files import write_bytes

if TYPE_CHECKING:
    from charlm.lm.items import ItemSample
    from charlm.lm.model import TextModel
    from charlm.lm.sampling import Stream


@click.command("sample")
@click.argument("model", required=False)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 takes the most probable character.")
@click.option("--length", type=click.IntRange(1), default=1000, show_default=True, help="Characters to generate.")
@click.option("--prompt", default="", help="Begin after this text.  [default: after a line end]")
@click.option("--top-k", type=click.IntRange(1), metavar="K", help="Draw from the K most probable characters.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw from the most probable share P.")
@click.option("--streams", type=click.IntRange(1), default=1, show_default=True, help="Texts to generate.")
@click.option("--stop", metavar="TEXT", help="End a text where this would come.")
@click.option("--items", type=click.IntRange(1), metavar="N", help="Draw N whole items, a table with a row each.")
@click.option("--unique", is_flag=True, help="No item twice; goes with --items.")
@click.option("--new", is_flag=True, help="No item of the training list; goes with --items.")
@click.option("--novelty", "with_novelty", is_flag=True, help="Also say how much was copied from the training text.")
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="The training text, where --novelty does not find it."
)
@seed_option
@bits_option
@device_option
@json_option
@click.option(
    "--no-characters", is_flag=True, help="In JSON, leave out the list of characters with their probabilities."
)
def sample_command(
    model: str | None,
    prompt: str,
    as_json: bool,
    device: str,
    bits: str | None,
    with_novelty: bool,
    texts: tuple[str, ...],
    no_characters: bool,
    **options: Any,
) -> None:
    """Generate text from MODEL, by default the newest language model under checkpoints/."""
    from charlm.checkpoint import newest

    directory = Path(model) if model is not None else newest(Path("checkpoints"))
    if model is None:
        note(f"model: {directory}")
    generator = opened(directory, device, bits)
    items, unique, new = (options.pop(name) for name in ("items", "unique", "new"))
    if items is not None:
        if prompt or with_novelty or options.pop("stop") is not None or options.pop("streams") > 1:
            raise OptionError(
                "--items draws whole items: it goes with neither --prompt, --stop, --streams nor --novelty"
            )
        if generator.source.reading.items is None:
            note(f"{directory} was made from running text: its lines stand for items; a list is read with --items line")
        _show_items(generator.sample_items(items, unique=unique, new=new, **options), directory, as_json)
        return
    if unique or new:
        raise OptionError("--unique and --new are about items: add --items N")
    if texts and not with_novelty:
        raise OptionError("--text names the training text for --novelty: add --novelty")
    alone = options["streams"] == 1 and not as_json
    grown = generator.grow(prompt, **options, chunk=32 if alone else 256)
    if alone:
        last = _show_growing(prompt, grown, options["stop"])
    else:
        *_, last = grown
    _tell_of_loops(last)
    found = _novelty(generator, last, texts) if with_novelty else {}
    if as_json:
        samples = [_sample(stream, generator, characters=not no_characters) for stream in last]
        echo_json({"model": str(directory), "prompt": prompt, "samples": samples, **found})
        return
    if options["streams"] > 1:
        for number, stream in enumerate(last, 1):
            click.echo(f"=== {number} ===\n{prompt}{stream.text}")
    for line in _novelty_lines(found):
        note(line)


def _show_items(sample: ItemSample, directory: Path, as_json: bool) -> None:
    """The items with their log-probabilities, and how many were left out."""
    rows = [
        {"item": item, "log_probability": logp, "bits_per_char": -logp / math.log(2) / (len(item) + 1)}
        for item, logp in zip(sample.items, sample.logps, strict=True)
    ]
    if as_json:
        echo_json({"model": str(directory), "items": rows, "drawn": sample.drawn, "dropped": dict(sample.dropped)})
    else:
        lines = [f"{row['log_probability']:.6f}\t{row['bits_per_char']:.4f}\t{row['item']}\n" for row in rows]
        click.echo("log_probability\tbits_per_char\titem\n" + "".join(lines), nl=False)
    for why, count in sample.dropped.items():
        note(f"left out: {count:,} of {sample.drawn:,} drawn, {why}")
    if sample.said:
        note(sample.said)


def _show_growing(prompt: str, grown: Iterator[list[Stream]], stop: str | None) -> list[Stream]:
    """Prints one text piece by piece while it is made, and gives it when it is whole."""
    click.echo(prompt, nl=False)
    shown, streams = 0, []
    for streams in grown:
        certain = streams[0].certain(stop)
        click.echo(certain[shown:], nl=False)
        shown = max(shown, len(certain))
    click.echo()
    return streams


def _tell_of_loops(streams: list[Stream]) -> None:
    """Says which texts end in a loop."""
    for number, stream in enumerate(streams, 1):
        if period := stream.loop:
            which = "the text" if len(streams) == 1 else f"text {number}"
            note(f"{which} ends in a loop of {period:,} characters: a higher --temperature, such as 0.8, leaves it")


def _novelty(model: TextModel, streams: list[Stream], texts: Sequence[str]) -> dict[str, Any]:
    """How much of each text stands in the training text, and how much of real held-out text does.

    Args:
        model: with the facts of its text.
        streams: the texts that were generated.
        texts: where the training text is now; empty for the paths that the model was made from.
    """
    from charlm.lm.model import own_text
    from charlm.ngrams.index import SuffixIndex, novelty

    text = own_text(model, texts or None)
    corpus, parts = text.corpus, text.parts
    train = parts["train"]
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab))

    def described(ids: Any) -> dict[str, Any]:
        found = novelty(index, ids, spans=train)
        passage = corpus.vocab.decode(ids[found.begins : found.begins + found.longest])
        return {"longest_passage": passage, **found.to_json()}

    generated = [described(np.array(stream.ids)) for stream in streams]
    held = next((parts[name] for name in ("test", "valid") if len(parts[name])), None)
    if held is None:
        return {"novelty": generated, "held_out_novelty": None}
    longest = held[(held[:, 1] - held[:, 0]).argmax()]
    real = corpus.ids[longest[0] : min(longest[1], longest[0] + len(streams[0].ids))]
    return {"novelty": generated, "held_out_novelty": described(real)}


def _novelty_lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    texts = [(f"text {number}", item) for number, item in enumerate(found.get("novelty", ()), 1)]
    for name, item in [*texts, ("real held-out text", found.get("held_out_novelty"))]:
        if item is not None:
            share = "-" if item["share"] is None else f"{100 * item['share']:.1f} %"
            yield (
                f"{name}: {share} of its 20-character passages stand in the training text; the longest copied passage "
                f"has {item['longest']} characters (position {item['stands']:,}): {item['longest_passage']!r}"
            )


def _sample(stream: Stream, model: TextModel, *, characters: bool) -> dict[str, Any]:
    """One text with the Score of the whole, whether its stop text came, and the probability of each of its symbols."""
    vocab = model.vocab
    found = {"text": stream.text, "score": stream.score, "nats": stream.nats, "stopped": stream.stopped}
    if not characters:
        return found
    return {
        **found,
        "characters": [
            {"char": vocab.symbol(id), "probability": math.exp(logp)}
            for id, logp in zip(stream.ids, stream.logps, strict=True)
        ],
    }


@click.command("next")
@click.argument("model")
@click.argument("history")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N most probable characters only.")
@json_option
def next_command(model: str, history: str, top: int | None, as_json: bool) -> None:
    """Show how probable each character is in MODEL after the text HISTORY."""
    import charlm

    found = charlm.load(model, device="cpu").next(history)
    if not as_json:
        click.echo("\n".join(found.lines(top)))
        return
    counts = found.counts
    distribution = [
        {
            "char": found.vocab.symbol(id),
            "probability": float(found.probabilities[id]),
            "count": None if counts is None else counts.get(id, 0),
        }
        for id in found.listed[:top]
    ]
    echo_json({"history": history, "history_used": found.used, "distribution": distribution})


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
