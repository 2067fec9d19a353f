"""`charlm`: the group of commands. Each command's file is imported only when that command runs or is asked for help."""

from __future__ import annotations

import importlib
import os
import sys

import click

from charlm.errors import CharlmError
from charlm.version import __version__

__all__ = ["cli", "main"]

_COMMANDS = {
    "train": "Train a recurrent model on a text.",
    "ngram": "Count an n-gram model of a text.",
    "sample": "Generate text from a model.",
    "next": "Show the distribution of the next character.",
    "eval": "Measure a model on a text: nats, bits per character, perplexity.",
    "compare": "Put n-grams and networks in one table on one held-out text.",
    "corpus": "Known corpora, downloads, and what is in a text.",
    "info": "Show what a model is and what it was made from.",
    "selfcheck": "Check that this installation computes what it should.",
}


class _LazyGroup(click.Group):
    """Knows every command's name and one line of help without importing it, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"charlm.cli.{cmd_name}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="charlm")
def cli() -> None:
    """Character-level language models: count, train, generate, score and compare."""


def main() -> None:
    """Runs the command line; every foreseen error becomes one sentence and an exit code."""
    code = 1
    try:
        code = _run()
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # the reader of our output went away, as `head` does: not an error, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _run() -> int:
    try:
        result = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CharlmError as error:
        click.echo(f"charlm: {error}", err=True)
        return 2
    except MemoryError:
        click.echo(
            "charlm: out of memory: take a shorter text, a smaller --hidden or a smaller --batch-size",
            err=True,
        )
        return 1
    return result if isinstance(result, int) else 0
