"""Commands that make one call and show what it returns: `charlm info`, `runs`, `next`, `cache` and `selfcheck`."""

from __future__ import annotations

from datetime import datetime

import click

from charlm.cli.common import echo_json, json_option, note


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


@click.command("cache")
@click.option("--clear", is_flag=True, help="Delete every entry.")
@json_option
def cache_command(clear: bool, as_json: bool) -> None:
    """Show the encoded copies of big texts that charlm keeps, or delete them.

    A text of more than 64 MB is encoded once and kept as a file of numbers, so that the next start is quick. Whoever
    can read these files can read the texts. CHARLM_CACHE names another directory, CHARLM_CACHE_GB another bound than
    10 gigabytes: beyond it, the entries that were not used for the longest time are deleted.
    """
    from charlm.text.cache import cache

    found = cache()
    freed = found.size if clear else None
    if clear:
        found = found.clear()
    if as_json:
        entries = [{"file": str(entry.path), "bytes": entry.size, "used": entry.used} for entry in found.entries]
        echo_json(
            {"directory": str(found.directory), "bytes": found.size, "bound": found.bound, "entries": entries}
            | ({"freed": freed} if clear else {})
        )
        return
    if freed is not None:
        click.echo(f"deleted      {freed:,} bytes")
    click.echo(f"directory    {found.directory}")
    click.echo(f"size         {found.size:,} bytes in {len(found.entries):,} entries, at most {found.bound:,}")
    for entry in found.entries:
        click.echo(f"{'':12} {entry.size:>15,} bytes, last used {datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}")
