"""`charlm cache`: the copies of big texts that charlm keeps."""

from __future__ import annotations

from datetime import datetime

import click

from charlm.cli.common import echo_json, json_option


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
