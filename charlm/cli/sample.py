"""`charlm sample`: generates text from any language model, as it goes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option, note, seed_option
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.checkpoint import Checkpoint
    from charlm.sampling import Stream


@click.command("sample")
@click.argument("model", required=False)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 takes the most probable character.")
@click.option("--length", type=click.IntRange(1), default=1000, show_default=True, help="Characters to generate.")
@click.option("--prompt", default="", help="Begin after this text.  [default: after a line end]")
@click.option("--top-k", type=click.IntRange(1), metavar="K", help="Draw from the K most probable characters.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw from the most probable share P.")
@click.option("--streams", type=click.IntRange(1), default=1, show_default=True, help="Texts to generate.")
@click.option("--stop", metavar="TEXT", help="End a text where this would come.")
@seed_option
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
def sample_command(model: str | None, prompt: str, as_json: bool, device: str, **options: Any) -> None:
    """Generate text from MODEL, by default the newest language model under checkpoints/."""
    from charlm.checkpoint import newest
    from charlm.cli.models import open_model
    from charlm.models.rule import SamplingRule
    from charlm.sampling import generate_streams

    directory = Path(model) if model is not None else newest(Path("checkpoints"))
    if model is None:
        note(f"model: {directory}")
    rule = SamplingRule(temperature=options["temperature"], top_k=options["top_k"] or 0, top_p=options["top_p"])
    if options["stop"] == "":
        raise OptionError("--stop needs a text of at least one character")
    checkpoint = open_model(directory, device)
    start = checkpoint.model.vocab.encode(prompt).tolist() if prompt else [checkpoint.start]
    grown = generate_streams(
        checkpoint.model,
        start,
        length=options["length"],
        rule=rule,
        streams=options["streams"],
        seed=options["seed"],
        stop=options["stop"],
        chunk=32 if options["streams"] == 1 and not as_json else 256,
    )
    if as_json:
        *_, last = grown
        echo_json({"model": str(directory), "prompt": prompt, "samples": [_sample(s, checkpoint) for s in last]})
    elif options["streams"] == 1:
        _show_growing(prompt, grown)
    else:
        *_, last = grown
        for number, stream in enumerate(last, 1):
            click.echo(f"=== {number} ===\n{prompt}{stream.text}")


def _show_growing(prompt: str, grown: Any) -> None:
    """Prints one text piece by piece while it is made."""
    click.echo(prompt, nl=False)
    shown = 0
    for (stream,) in grown:
        certain = len(stream.text)
        click.echo(stream.text[shown:certain], nl=False)
        shown = certain
    click.echo()


def _sample(stream: Stream, checkpoint: Checkpoint) -> dict[str, Any]:
    """One text with the probability of each of its symbols and the Score of the whole."""
    vocab = checkpoint.model.vocab
    return {
        "text": stream.text,
        "score": stream.score,
        "nats": stream.nats,
        "characters": [
            {"char": vocab.symbol(id), "probability": math.exp(logp)}
            for id, logp in zip(stream.ids, stream.logps, strict=True)
        ],
    }
