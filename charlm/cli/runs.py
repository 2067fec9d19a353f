"""`charlm runs`: all models under some directories in one table."""

from __future__ import annotations

import click

from charlm.cli.common import echo_json, json_option, note


@click.command("runs")
@click.argument("directories", nargs=-1, metavar="[DIR...]")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, a line a run.")
@json_option
def runs_command(directories: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    """Show all models in the directories DIR and below them: options, weights, split, nats, seconds, date.

    Of runs that differ in the seed alone, the mean and the standard deviation stand below. Without DIR: checkpoints.
    """
    from charlm.errors import OptionError
    from charlm.listing import runs

    if as_csv and as_json:
        raise OptionError("--csv and --json are two ways to print the same: name one of them")
    found = runs(directories or "checkpoints")
    for directory, problem in found.unread:
        note(f"left out: {directory}: {problem}")
    if as_json:
        echo_json(found.to_json())
    elif as_csv:
        click.echo(found.to_csv(), nl=False)
    else:
        click.echo(repr(found))
