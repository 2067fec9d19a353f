"""`charlm info`: what models are and what they were made from."""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, json_option


@click.command("info")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@json_option
def info_command(models: tuple[str, ...], as_json: bool) -> None:
    """Show what MODEL is: family and shape, weights, text and split, how it was trained, the figure it ended with.

    With several models --json prints a list.
    """
    from charlm.info import describe

    found = [describe(model) for model in models]
    if as_json:
        values = [info.to_json() for info in found]
        echo_json(values[0] if len(values) == 1 else values)
        return
    for number, info in enumerate(found):
        if len(found) > 1:
            click.echo(f"{'' if number == 0 else chr(10)}{info.directory}")
        click.echo(repr(info))
