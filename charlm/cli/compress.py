"""`charlm compress` and `charlm decompress`: files by an arithmetic coder on top of a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charlm.cli.common import adaptive_option, echo_json, force_option, force_option_saying, forced, json_option, target
from charlm.errors import OptionError
from charlm.files import write_bytes

_SUFFIX = ".charlm"
_file = click.Path(path_type=Path)


@click.command("compress")
@click.argument("arguments", nargs=-1, required=True, metavar="[MODEL] FILE")
@click.option("--out", type=_file, metavar="FILE", help="What is written.  [default: the file's name and .charlm]")
@adaptive_option
@click.option("--lanes", type=int, metavar="B", help="Pieces read side by side: faster, about two bytes each.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@force_option
@json_option
def compress_command(
    arguments: tuple[str, ...], out: Path | None, adaptive: Any, lanes: int | None, device: str, as_json: bool
) -> None:
    """Compress FILE with MODEL (a directory under checkpoints/), or without one by what it learns from FILE itself.

    Any file can be compressed and comes back bit for bit; what the model foresees well becomes small. Decompressing
    needs the same model, versions and kind of machine, which the file names.
    """
    import charlm

    if len(arguments) > 2:
        raise OptionError("name a model and one file, such as charlm compress checkpoints/NAME data/shakespeare.txt")
    path = Path(arguments[-1])
    model = charlm.load(arguments[0], device=device) if len(arguments) == 2 else None
    done = charlm.compress(_read(path), model, learning=adaptive, lanes=lanes)
    written = target(out or path.with_name(path.name + _SUFFIX), "the compressed file")
    write_bytes(written, done.packed)
    if as_json:
        echo_json({"file": str(written), **done.to_json()})
    else:
        click.echo(f"{written}: {done!r}")


@click.command("decompress")
@click.argument("path", type=_file, metavar="FILE")
@click.option("--out", type=_file, metavar="FILE", help="What is written.  [default: the name without .charlm]")
@click.option("--model", metavar="DIR", help="The model.  [default: the directory that FILE names]")
@click.option("--about", is_flag=True, help="Print what made FILE, as JSON, and write nothing.")
@force_option_saying("Replace files that are there already, and try a file that another machine or version made.")
@json_option
def decompress_command(path: Path, out: Path | None, model: str | None, about: bool, as_json: bool) -> None:
    """Write the file that `charlm compress` made FILE from, bit for bit.

    Where the model, the versions or this machine's numbers differ from those that made FILE, that is said at once, and
    nothing is written; with --force it is tried, and kept if the checksum is right.
    """
    import charlm
    from charlm.compression import made

    packed = _read(path)
    if about:
        echo_json(made(packed)[0].to_json())
        return
    content = charlm.decompress(packed, model, force=forced())
    plain = path.name.removesuffix(_SUFFIX) if path.suffix == _SUFFIX else f"{path.name}.out"
    written = target(out or path.with_name(plain), "the text")
    write_bytes(written, content)
    if as_json:
        echo_json({"file": str(written), "size": len(content), "compressed": len(packed)})
    else:
        click.echo(f"{written}: {len(content):,} bytes from {len(packed):,}")


def _read(path: Path) -> bytes:
    """The bytes of a file."""
    if path.is_dir():
        raise OptionError(f"{path} is a directory: name a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
