"""The command line: options and printing live here and nowhere else.

`cli` is the group of commands and `main` runs it. Each command's file is imported only when that command runs or is
asked for help: `make.py` (train, ngram), `measure.py` (eval, score, compare), `write.py` (sample, next, compress),
`fit.py` (fit, predict), `show.py` (all others); `common.py` has what they share.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from typing import Any

import click

from charlm.display import follower, several
from charlm.errors import CharlmError, LostProcessError, OptionError, StorageError
from charlm.files import __version__

_COMMANDS = {
    "train": "Train a recurrent model on a text.",
    "ngram": "Count an n-gram model of a text.",
    "sample": "Generate text from a model.",
    "next": "Show the distribution of the next character.",
    "eval": "Measure a model on a text: nats, bits per character, perplexity.",
    "score": "Show how surprising each character, word, line or item of a text is.",
    "compress": "Compress a file with a language model.",
    "decompress": "Write back the file that was compressed.",
    "inspect": "Show what the hidden units of a network follow in a text.",
    "compare": "Put n-grams and networks in one table on one held-out text.",
    "fit": "Fit a Score or a Distribution to a table of sequences.",
    "predict": "Add what a fitted model says to a table.",
    "report": "Make one HTML page about a run.",
    "export": "Write a model as a page that runs it in a browser, or as an ONNX file.",
    "corpus": "Known corpora, downloads, and what is in a text.",
    "info": "Show what a model is and what it was made from.",
    "runs": "List all models with their options, figures and times.",
    "cache": "Show or delete the copies of big texts that charlm keeps.",
    "selfcheck": "Check that this installation computes what it should.",
}

_FILES = {
    **dict.fromkeys(("train", "ngram"), "make"),
    **dict.fromkeys(("eval", "score", "compare"), "measure"),
    **dict.fromkeys(("sample", "next", "compress", "decompress"), "write"),
    **dict.fromkeys(("fit", "predict"), "fit"),
    **dict.fromkeys(("info", "runs", "report", "inspect", "export", "corpus", "cache", "selfcheck"), "show"),
}
"""The file in `charlm.cli` of each command."""

_SMALLER = {
    "train": "a smaller --hidden, --batch-size or --seq-length",
    "ngram": "a smaller --order, or count on the disk with --memory",
    "sample": "fewer --streams, or a smaller --length",
    "inspect": "a smaller --length",
    "compare": "smaller --orders, or a part of the text",
    "compress": "fewer --lanes, or a part of the file",
    "fit": "a smaller --hidden or --batch-size, or shorter sequences",
    "predict": "a part of the table",
}
"""What to take less of where a command runs out of memory."""


_NO_PLACE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""What the system says to a name that cannot be one: wrong use, not a fault of a disk."""


class _LazyGroup(click.Group):
    """Knows every command's name and one line of help without importing it, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"charlm.cli.{_FILES[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if several() and name != "train":
            raise OptionError(f"only charlm train works in several processes: call charlm {name} without torchrun")
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _NobodyReadsError from None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            smaller = _SMALLER.get(str(ctx.invoked_subcommand), "a smaller model or a part of the text")
            raise _OutOfMemoryError(f"out of memory: take {smaller}") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="charlm")
def cli() -> None:
    """Character-level language models: count, train, generate, score and compare."""


class _NobodyReadsError(Exception):
    """The reader of stdout went away: as an OSError, click would make the exit code 1 of it."""


class _OutOfMemoryError(Exception):
    """There is not enough memory for what was asked; says what to take less of."""


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, numpy's and torch's ways to say so, on CPUs and GPUs, without importing them."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    message = str(error).lower()
    return any(
        words in message for words in ("not enough memory", "can't allocate memory", "out of memory", "_alloc_failed")
    )


def main() -> None:
    """Runs the command line; every foreseen error becomes one sentence and an exit code."""
    _write_anything()
    code = 1
    try:
        code = _run()
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        code = 130
    except (BrokenPipeError, _NobodyReadsError):
        _give_up_output()  # the reader went away, as `head` does: not an error, and nothing more can be said
        code = 0
    except OSError as error:
        _give_up_output()
        where = "" if error.filename is None else f"{error.filename}: "
        click.echo(f"charlm: {where}{error.strerror or error}", err=True)
        code = 2 if error.errno in _NO_PLACE else 1
    sys.exit(code)


def _write_anything() -> None:
    """Lets every character out: as UTF-8 where the locale knows ASCII alone, else escaped where it is not known."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "646")
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def _give_up_output() -> None:
    """Sends what is still buffered for stdout nowhere, so that the interpreter's end does not complain again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run() -> int:
    try:
        result = cli.main(standalone_mode=False)
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        if not follower():
            error.show()
        return error.exit_code
    except CharlmError as error:
        lost = isinstance(error, LostProcessError)  # perhaps it was the first one, which would have said it
        if lost or not follower():
            click.echo(f"charlm: {error}", err=True)
        return 1 if lost or isinstance(error, StorageError) else 2
    except _OutOfMemoryError as error:
        click.echo(f"charlm: {error}", err=True)
        return 1
    return result if isinstance(result, int) else 0
