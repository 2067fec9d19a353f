"""`charlm info`: what a model is and what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import echo_json, json_option
from charlm.errors import CharlmError, CheckpointError
from charlm.files import read_json

__all__ = ["facts_of", "info_command"]


@click.command("info")
@click.argument("model")
@json_option
def info_command(model: str, as_json: bool) -> None:
    """Show what MODEL is: family and shape, text and split, how it was trained, and the figure it ended with."""
    from charlm.checkpoint import read_config, read_vocab

    directory = Path(model)
    config = read_config(directory, kind=_kind(directory))
    vocab = read_vocab(directory) if config["kind"] != "sequence" or config["model"].get("features") == 0 else ()
    size = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
    if as_json:
        echo_json({"directory": str(directory), "symbols": len(vocab), "bytes": size, **config})
        return
    for name, value in facts_of(config, len(vocab), size):
        click.echo(f"{name:12} {value}")


def _kind(directory: Path) -> str | None:
    """`sequence` where the description says so; what is wrong with one is found by who reads it."""
    try:
        found = read_json(directory / "config.json", limit=1 << 24)
    except CharlmError:
        return None
    return "sequence" if isinstance(found, dict) and found.get("kind") == "sequence" else None


def facts_of(config: dict[str, Any], symbols: int, size: int) -> list[tuple[str, str]]:
    """What a `config.json` says, as names and values for a person; what is not whole is refused."""
    try:
        return (_sequence_facts if config["kind"] == "sequence" else _facts)(config, symbols, size)
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


def _sequence_facts(config: dict[str, Any], symbols: int, size: int) -> list[tuple[str, str]]:
    """What a Score or Distribution model is."""
    shape, data, training, result = config["model"], config["data"], config.get("training"), config.get("result")
    left = ("input_scale", "target_scale", "mode", "classes")
    says = f"{shape['classes']} classes" if shape["mode"] == "distribution" else "one number"
    facts = [
        ("kind", f"{shape['mode']} ({says}), format {config['format']}, written by charlm {config.get('charlm', '?')}"),
        ("updated", str(config.get("updated", "?"))),
        ("model", ", ".join(f"{name} {value}" for name, value in shape.items() if name not in left)),
    ]
    if "table" in data:
        what = f"text of {symbols} different symbols" if symbols else f"numbers, {data['features']} a step"
        facts += [
            ("table", f"{data['table']}: {data['rows']:,} rows of {what}"),
            ("columns", f"sequences {data['sequence']!r}, labels {data['label']!r}"),
            ("classes", ", ".join(map(str, data["classes"])))
            if data["classes"]
            else ("base rate", f"{data['base'][0]:g}"),
            ("sha256", data["sha256"]),
            ("split", data["split"]),
        ]
    if training is not None:
        facts.append(("training", f"batches of {training['batch']}, backend {training['backend']}"))
        chosen = {name: value for name, value in training["optimisation"].items() if value is not None}
        facts.append(("", ", ".join(f"{name} {value}" for name, value in chosen.items())))
    if result is not None:
        figures = {name: value for name, value in result.items() if isinstance(value, float)}
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        facts.append(("result", f"{told} on the {result['part']} part"))
    facts.append(("on disk", f"{size:,} bytes"))
    return facts
