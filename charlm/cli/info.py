"""`charlm info`: what a model is and what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import echo_json, json_option
from charlm.errors import CheckpointError

__all__ = ["facts_of", "info_command"]


@click.command("info")
@click.argument("model")
@json_option
def info_command(model: str, as_json: bool) -> None:
    """Show what MODEL is: family and shape, text and split, how it was trained, and the figure it ended with."""
    from charlm.checkpoint import read_config, read_vocab

    directory = Path(model)
    config = read_config(directory)
    vocab = read_vocab(directory)
    size = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
    if as_json:
        echo_json({"directory": str(directory), "symbols": len(vocab), "bytes": size, **config})
        return
    for name, value in facts_of(config, len(vocab), size):
        click.echo(f"{name:12} {value}")


def facts_of(config: dict[str, Any], symbols: int, size: int) -> list[tuple[str, str]]:
    """What a `config.json` says, as names and values for a person; what is not whole is refused."""
    try:
        return _facts(config, symbols, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the description of the model is not whole ({error!r})") from None


def _facts(config: dict[str, Any], symbols: int, size: int) -> list[tuple[str, str]]:
    text, result = config["text"], config.get("result")
    facts = [
        (
            "kind",
            f"{config['kind']}, format {config['format']}, written by charlm {config.get('charlm', '?')}",
        ),
        ("updated", str(config.get("updated", "?"))),
        ("model", ", ".join(f"{name} {value}" for name, value in config["model"].items())),
        ("text", f"{', '.join(text['names'])}: {text['characters']:,} symbols, {symbols} different"),
        ("sha256", text["sha256"]),
        ("split", text["split"]),
    ]
    if "training" in config:
        training = config["training"]
        facts.append(
            (
                "training",
                f"{training['lanes']} lanes of {training['window']} steps, backend {training['backend']}",
            )
        )
        chosen = {name: value for name, value in training["optimisation"].items() if value is not None}
        facts.append(("", ", ".join(f"{name} {value}" for name, value in chosen.items())))
    if result is not None and result.get("nats") is not None:
        facts.append(
            (
                "result",
                f"{result['nats']:.6f} nats, perplexity {result['perplexity']:.4f} on the {result['part']} part",
            )
        )
    facts.append(("on disk", f"{size:,} bytes"))
    return facts
