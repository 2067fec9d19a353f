"""`charlm eval`: how well a model foresees a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from charlm.cli.common import echo_json, json_option, note
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.cli.models import HeldOut
    from charlm.lm.evaluate import Evaluation
    from charlm.recurrent.dynamic import DynamicConfig


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
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@json_option
def eval_command(
    model: str, texts: tuple[str, ...], split_part: str | None, dynamic: bool, device: str, as_json: bool
) -> None:
    """Measure MODEL (a directory under checkpoints/) on TEXT: nats, bits per character, perplexity, accuracy."""
    from charlm.cli.models import dynamic_of, held_out, open_model
    from charlm.lm.evaluate import evaluate
    from charlm.text.splits import count_targets

    checkpoint = open_model(model, device)
    held = held_out(checkpoint, list(texts), split_part)
    learner = dynamic_of(checkpoint, held.corpus) if dynamic else None
    with progress_bar(count_targets(held.spans), "reading", "char") as bar:
        figures = evaluate(checkpoint.model, held.corpus.ids, held.spans, progress=bar.update)
    learned = None
    if learner is not None:
        with progress_bar(count_targets(held.spans), "reading and learning", "char") as bar:
            found = evaluate(learner, held.corpus.ids, held.spans, lanes=1, progress=bar.update)
            learned = found, learner.config
    if as_json:
        more = {} if learned is None else {"dynamic": {**learned[0].to_json(), **learned[1].to_json()}}
        echo_json({**figures.to_json(), **held.to_json(), **more})
        return
    split = "a text the model was not made from" if held.split is None else f"split {held.split}"
    click.echo(f"{checkpoint.name} on the {held.part} part of {held.corpus.title} ({split}):")
    click.echo(_line(figures))
    if learned is not None:
        _show_dynamic(*learned)
    _notes(figures, held)


def _line(figures: Evaluation) -> str:
    error = "" if figures.standard_error is None else f" ± {figures.standard_error:.4f}"
    return (
        f"{figures.nats:.6f}{error} nats a character, {figures.bits_per_char:.4f} bits, "
        f"perplexity {figures.perplexity:.4f}, {100 * figures.accuracy:.2f} % right of {figures.targets:,}"
    )


def _show_dynamic(figures: Evaluation, config: DynamicConfig) -> None:
    """The figure of the network that goes on learning, said to be another than the static one."""
    click.echo(
        f"dynamic, learning on from each {config.segment} characters once they are scored (rate {config.rate:g}, "
        f"decay {config.decay:g}):\n{_line(figures)}"
    )


def _notes(figures: Evaluation, held: HeldOut) -> None:
    """What stands in the way of a figure, or makes it easier than it looks."""
    if figures.zero_probability_targets:
        note(f"{figures.zero_probability_targets:,} targets got probability zero, so nats and perplexity are infinite")
    if figures.unknown_targets:
        note(f"{figures.unknown_targets:,} targets are characters that the model does not know; they are in no figure")
    if held.split is not None and held.part == "valid":
        note("early stopping watched this part: a test part would be stricter")
    if held.part in ("train", "all") and held.split is not None:
        note("the model was made from this: the figure says how much it remembers, not how well it foresees")
