"""`charlm selfcheck`: is this installation right?"""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, json_option


@click.command("selfcheck")
@json_option
def selfcheck_command(as_json: bool) -> int:
    """Check cells, kernels, windows, evaluation, checkpoints and sampling against something independent."""
    from dataclasses import asdict

    from charlm.selfcheck import run_checks

    outcomes = []
    for outcome in run_checks():
        outcomes.append(outcome)
        if not as_json:
            mark = "ok   " if outcome.problem is None else "WRONG"
            click.echo(f"{mark}  {outcome.name}  ({outcome.seconds:.1f} s)")
            if outcome.problem is not None:
                click.echo(f"       {outcome.problem}")
    if as_json:
        echo_json([asdict(outcome) for outcome in outcomes])
    return 0 if all(outcome.problem is None for outcome in outcomes) else 1
