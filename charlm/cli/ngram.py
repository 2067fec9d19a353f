"""`charlm ngram`: counts an n-gram model of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from charlm.cli.common import force_option_saying, note, note_list, reading_options, split_option, target
from charlm.errors import OptionError

SMOOTHINGS = ["none", "add-k", "uniform-mix", "witten-bell", "kneser-ney"]


@click.command("ngram")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--order", type=int, default=4, show_default=True, metavar="N", help="Characters of history, 0 to 32.")
@click.option(
    "--smoothing",
    type=click.Choice(SMOOTHINGS),
    default="none",
    show_default=True,
    help="How unseen events get probability; none is unsmoothed maximum likelihood.",
)
@split_option
@reading_options
@click.option("--arpa", metavar="FILE", help="Also write the model as an ARPA file that other tools read.")
@force_option_saying("Replace an ARPA file that is there already.")
@click.option(
    "--memory",
    metavar="SIZE",
    help="Count within so much memory, such as 500M or 2G, however long the text: the rest of the work is on the disk, "
    "and a count that was stopped goes on when the same command is given again.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Share the counting among N local workers of Dask; goes with --memory, which they share too.",
)
@click.option(
    "--scheduler",
    envvar="CHARLM_SCHEDULER",
    metavar="ADDRESS",
    help="Share the counting among the workers of this Dask scheduler, such as tcp://host:8786; goes with --memory, "
    "which is that of each. The texts, CHARLM_CACHE and --out are on disks that all machines share.",
)
@click.option(
    "--merge",
    is_flag=True,
    help="Add up the counts of the models TEXT..., directories that charlm ngram made, into one model: the one that "
    "counting all their texts would have given.",
)
@click.option("--tune-on", metavar="FILE", help="With --merge: a held-out text to tune add-k or uniform-mix on.")
@click.option("--out", metavar="DIR", help="Where the model is kept.  [default: checkpoints/NAME]")
def ngram_command(
    texts: tuple[str, ...],
    order: int,
    smoothing: str,
    split: Any,
    arpa: str | None,
    memory: str | None,
    processes: int,
    scheduler: str | None,
    merge: bool,
    tune_on: str | None,
    out: str | None,
    **reading: Any,
) -> None:
    """Count an n-gram model of TEXT (files, a directory of files, or - for standard input)."""
    import charlm
    from charlm.ngrams.fit import check_options, count_within

    context = click.get_current_context()
    if merge:
        _merge(context, texts, out, tune_on, memory)
        return
    if tune_on is not None:
        raise OptionError("--tune-on goes with --merge; a count tunes on the valid part of --split")
    if memory is None and context.get_parameter_source("scheduler") == ParameterSource.ENVIRONMENT:
        scheduler = None  # it is there for texts that are counted with --memory
    workers: dict[str, Any] = {"processes": processes, "scheduler": scheduler}
    limit = check_options(order=order, smoothing=smoothing, memory=memory, arpa=arpa, **workers)
    if memory is not None and "-" in texts:
        raise OptionError("standard input is read into memory: with --memory, name files")
    text = charlm.read_text(texts, split=split, streamed=memory is not None, **reading)
    _ = text.train  # refused here where there is nothing to count
    note(f"{text.title}: {len(text):,} {text.vocab.unit}s, {len(text.vocab)} symbols, split {text.split}")
    note_list(text)
    directory = _directory(texts, out, f"{smoothing}-{order}", may_go_on=memory is not None)
    path = None if arpa is None else target(arpa, "the ARPA file")
    if path is not None and memory is not None:
        note("the ARPA file is made in memory, --memory is for the counting")
    replaced = path if path is not None and path.exists() else None  # as --force allows; the door never replaces
    options: dict[str, Any] = {"memory": memory, "out": directory, "arpa": None if replaced else path, **workers}
    try:
        if limit is not None and path is None:  # a model in memory would need torch, which takes more than the limit
            count_within(limit, directory, text, order=order, smoothing=smoothing, **workers)
        else:
            model = charlm.ngram(text, order=order, smoothing=smoothing, **options)
            if replaced is not None:
                from charlm.ngrams.arpa import write_arpa

                write_arpa(model, replaced)
    except KeyboardInterrupt:
        if memory is not None:
            note(f"what is done is kept in {directory}: the same command goes on with it")
        raise
    if path is not None:
        click.echo(f"{path}")
    note(f"order {order}, smoothing {smoothing}, counted from {len(text.train):,} targets")
    click.echo(f"{directory}")


def _merge(
    context: click.Context, models: tuple[str, ...], out: str | None, tune_on: str | None, memory: str | None
) -> None:
    import charlm

    for option in set(context.params) - {"texts", "merge", "out", "tune_on", "memory"}:
        if context.get_parameter_source(option) == ParameterSource.COMMANDLINE:
            raise OptionError(f"--merge takes everything from the models: leave --{option.replace('_', '-')} out")
    if out is None:
        raise OptionError("name the directory of the merged model with --out")
    model = charlm.merge(models, out=out, tune_on=tune_on, memory=memory or "1G")
    note(f"{model.title}, {len(model.vocab)} symbols, added up from {len(models)} models")
    click.echo(f"{model.directory}")


def _directory(texts: tuple[str, ...], out: str | None, ending: str, *, may_go_on: bool) -> Path:
    """A free name for the model, or one where a count was stopped and may go on."""
    from charlm.ngrams.fit import free_directory

    stem = "stdin" if texts[0] == "-" else Path(texts[0]).stem or "text"
    wanted = Path(out) if out is not None else Path("checkpoints") / f"{stem}-{ending}"
    directory = free_directory(wanted, may_go_on=may_go_on)
    if directory != wanted:
        note(f"{wanted} is taken: this model goes to {directory}")
    if directory.exists():
        note(f"a count was stopped in {directory}: what is done of this one is gone on with, any other is deleted")
    return directory
