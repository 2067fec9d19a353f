"""`charlm selfcheck`: whether this installation computes correctly."""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, json_option


@click.command("selfcheck")
@json_option
def selfcheck_command(as_json: bool) -> int:
    """Check cells, kernels, windows, evaluation, checkpoints and sampling against something independent.

    The exit status is 1 where a check fails.
    """
    from charlm.checks import selfcheck

    found = selfcheck()
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(repr(found))
    return 0 if found.passed else 1
