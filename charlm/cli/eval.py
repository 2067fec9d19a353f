"""`charlm eval`: how well a model foresees a text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from charlm.cli.common import adaptive_option, echo_json, json_option, note, other_reading_options


@click.command("eval")
@click.argument("model")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option(
    "--split-part",
    type=click.Choice(["test", "valid", "train", "all"]),
    help="Which part of the model's own text.  [default: test, else valid; all of a foreign text]",
)
@click.option(
    "--dynamic",
    is_flag=True,
    help="Also measure the network while it goes on learning from what it has read, a figure of its own.",
)
@adaptive_option
@other_reading_options
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
def eval_command(
    model: str,
    texts: tuple[str, ...],
    split_part: str | None,
    dynamic: bool,
    adaptive: Any,
    device: str,
    as_json: bool,
    **reading: Any,
) -> None:
    """Measure MODEL (a directory under checkpoints/) on TEXT: nats, bits per character, perplexity, accuracy."""
    import charlm
    from charlm.cli.common import held_out, where
    from charlm.lm.evaluate import called

    network = charlm.load(model, device=device)
    held = held_out(network, texts, split_part, **reading)
    learner = charlm.dynamic(network, held.text) if dynamic else None
    figures = network.evaluate(held)
    learned = None if learner is None else learner.evaluate(held)
    read = None
    if adaptive is not None:
        read = charlm.adaptive(network, held.text, kind=adaptive, room=len(held)).evaluate(held)
    if as_json:
        more: dict[str, Any] = {}
        if learner is not None and learned is not None:
            more["dynamic"] = {**learned.to_json(), **asdict(learner.config)}
        if read is not None:
            more["adaptive"] = {**read.to_json(), "kind": adaptive}
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
        click.echo(f"adaptive ({adaptive}), with contexts that learn from each character once it is scored:\n{read!r}")
    for sentence in figures.notes:
        note(sentence)
