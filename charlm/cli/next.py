"""`charlm next`: the distribution of the next character after a history."""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, json_option


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
