"""`charlm train` and `charlm ngram`: make a model of a text, trained or counted."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charlm.cli.common import (
    force_option,
    force_option_saying,
    name_for,
    note,
    note_list,
    plot_option,
    reading_options,
    split_option,
    target,
)
from charlm.display import decimals
from charlm.errors import LostProcessError, OptionError

if TYPE_CHECKING:
    from charlm.recurrent.model import CharRNN
    from charlm.text.text import Text
    from charlm.training.distributed import Processes
    from charlm.training.watching import Watch

_READING = ("encoding", "newlines", "bytes", "vocab_size", "items", "weights")
"""The options of reading, by the names of `read_text`."""


@click.command("train")
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option("--model", type=click.Choice(["lstm", "gru", "rnn"]), help="Kind of recurrent cell.")
@click.option("--layers", type=int, metavar="N", help="Recurrent layers.")
@click.option("--hidden", type=int, metavar="N", help="Units in each layer.")
@click.option("--embedding", type=int, metavar="N", help="Width of a character embedding; 0 is one-hot input.")
@click.option(
    "--dropout", type=float, metavar="P", help="Share of units left out between layers and before the output."
)
@click.option("--variational", is_flag=True, default=None, help="One dropout mask for all steps of a window.")
@click.option(
    "--weight-dropout", type=float, metavar="P", help="Share of recurrent weights left out, a window at a time."
)
@click.option("--input-dropout", type=float, metavar="P", help="Share of the characters read as unknown.")
@click.option("--grams", type=int, metavar="R", help="Rows of weights for the last 2 to 5 characters; 0 for none.")
@click.option(
    "--look-back",
    type=int,
    metavar="M",
    help="Look back on the last M characters (2048 in a long text on a CPU); 0 for none.",
)
@click.option("--seq-length", type=int, metavar="T", help="Steps between two truncations.")
@click.option("--batch-size", type=int, metavar="B", help="Pieces of text read side by side, by all processes.")
@click.option("--lr", type=float, metavar="R", help="Peak learning rate.")
@click.option("--weight-decay", type=float, metavar="D", help="Weight decay of AdamW, for matrices only.")
@click.option("--average", type=float, metavar="S", help="Average the weights over this share of the steps so far.")
@click.option("--patience", type=int, metavar="N", help="Validations without improvement to stop after; 0 for never.")
@click.option("--epochs", type=float, metavar="E", help="Stop after so many passes over the training part.")
@click.option("--max-steps", type=int, metavar="N", help="Stop after so many steps.")
@click.option("--minutes", type=float, metavar="M", help="Train for so many minutes, validations included.")
@click.option(
    "--save-every",
    type=float,
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Time between saved states.",
)
@split_option
@click.option("--valid", metavar="FILE", help="Validate on this file instead of a part of TEXT.")
@click.option("--test", metavar="FILE", help="Test on this file instead of a part of TEXT.")
@reading_options
@click.option("--init-from", metavar="DIR", help="Start from the weights of this model.")
@click.option("--replay", metavar="TEXT", help="Keep this text of that model in the mix, so that it is not forgotten.")
@click.option("--replay-share", type=float, metavar="P", help="Share of the batch that reads it.  [default: 0.25]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of all chance.  [default: 0]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps", help="Where to train.")
@click.option("--threads", type=int, metavar="N", help="CPU threads; fewer may be faster beside other work.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "reference", "fused", "torch"]),
    help="How layers are run; auto times them and keeps the fastest.  [default: by the device]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Of products; auto is bf16 on a GPU or CPU that multiplies it, else fp32.  [default: auto]",
)
@click.option("--out", metavar="DIR", help="Where the run is kept.  [default: checkpoints/NAME]")
@plot_option("Also draw the learning curve as .png, .svg or .pdf.")
@click.option(
    "--resume",
    metavar="DIR",
    help="Go on with this run; a new budget, --batch-size, --device or --precision is taken, and the options that it "
    "had.",
)
@force_option
def train_command(
    texts: tuple[str, ...], resume: str | None, out: str | None, plot: Path | None, **options: Any
) -> int:
    """Train a recurrent language model on TEXT (files, a directory of files, or - for standard input).

    What is not given is chosen from the text's size, the device and the time, and printed.

    torchrun --nproc-per-node N -m charlm train ... trains in N processes, which share the --batch-size.
    """
    import charlm
    from charlm.training.distributed import joined

    with joined() as processes, closing(_watch()) as watch:
        text = _read(texts, resume, options, processes)
        if text is not None and resume is None:
            note_list(text)
        if out is None and resume is None:
            out = f"checkpoints/{name_for(texts[0])}-{{model}}"
        try:
            model = charlm.train(text, resume=resume, out=out, observer=watch, processes=processes, **options)
        except LostProcessError:
            return 1  # the observer has said it
    if processes.first:
        _show(model, plot)
    return {"interrupted": 130, "diverged": 1}.get(model.trained.outcome, 0)


def _read(texts: tuple[str, ...], resume: str | None, options: dict[str, Any], processes: Processes) -> Text | None:
    """The text; takes the options that belong to it out of `options`. None where a run goes on with its own text."""
    import charlm
    from charlm.training.distributed import in_turn
    from charlm.training.language_run import run_text

    reading = {name: options.pop(name) for name in _READING}
    split, valid, test, init = options.pop("split"), options.pop("valid"), options.pop("test"), options["init_from"]
    held_out = [name for name in (valid, test) if name is not None]
    if resume is not None:
        given = {name: value for name, value in reading.items() if _was_given(name)}
        chosen = {**given, **({} if split is None else {"split": split})}
        return in_turn(processes, lambda: run_text(resume, [*texts, *held_out] if texts else None, chosen))
    with processes.alike():
        if not texts:
            raise OptionError(
                "name a text to train on, such as data/shakespeare.txt, or a run to go on with: --resume DIR"
            )
        if "-" in texts and processes.size > 1:
            raise OptionError("several processes cannot read one standard input: name a file")
        own = None if init is None else charlm.load(init, device="cpu").vocab
        vocab = own if own is not None and own.byte_fallback else None

    def read() -> Text:
        return charlm.read_text(texts, split=split, valid=valid, test=test, vocab=vocab, **reading)

    return in_turn(processes, read)


def _was_given(name: str) -> bool:
    """Whether an option of reading stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _watch() -> Watch:
    """An observer that shows a progress bar, the validations, and a short sample at each."""
    from charlm.display import visible
    from charlm.training.watching import Watch

    def sample(model: CharRNN) -> list[str]:
        return ["    " + visible(" ".join(model.sample(length=100, temperature=0.8).split()))]

    measuring = ("measuring the best weights as one stream", "char")
    return Watch(say=note, fail=lambda message: click.echo(message, err=True), after=sample, measuring=measuring)


def _show(model: CharRNN, plot: Path | None) -> None:
    """Draws the curve, and prints the figure that is kept."""
    trained, directory = model.trained, model.directory
    assert directory is not None
    if model.history:
        _draw(model, directory, plot)
    if trained.outcome == "interrupted":
        launcher = f"torchrun --nproc-per-node {trained.processes} -m " if trained.processes > 1 else ""
        note(f"interrupted; everything is saved: go on with {launcher}charlm train --resume {directory}")
        return
    if trained.outcome == "no improvement":
        note("stopped early: no improvement for several validations")
    if trained.evaluation is not None:
        figures = trained.evaluation
        selected = ", the part that early stopping watched" if trained.part == "valid" else ""
        nats, error, bits, perplexity = (
            decimals(value, digits)
            for value, digits in (
                (figures.nats, 6), (figures.standard_error or 0, 4), (figures.bits_per_char, 4), (figures.perplexity, 4)
            )
        )  # fmt: skip
        click.echo(
            f"{trained.part} part{selected}: {nats} nats a {figures.unit} ± {error}, {bits} bits, perplexity "
            f"{perplexity}, {100 * figures.accuracy:.2f} % right of {figures.scored:,} (split {figures.split})"
        )
    click.echo(f"{directory}")


def _draw(model: CharRNN, directory: Path, plot: Path | None) -> None:
    """The learning curve in the run's directory, and where the user wants it."""
    from charlm.display import drawn

    drawn("the curve", lambda: model.history.plot(directory / "curve.png"), note)
    if plot is not None:
        wanted = target(plot, "the picture")
        drawn("the curve", lambda: model.history.plot(wanted), note)
        if wanted.exists():
            note(f"picture: {wanted}")


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
                from charlm.ngrams.kneser_ney import write_arpa

                write_arpa(model.estimator, model.vocab, replaced)
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

    wanted = Path(out) if out is not None else Path("checkpoints") / f"{name_for(texts[0])}-{ending}"
    directory = free_directory(wanted, may_go_on=may_go_on)
    if directory != wanted:
        note(f"{wanted} is taken: this model goes to {directory}")
    if directory.exists():
        note(f"a count was stopped in {directory}: what is done of this one is gone on with, any other is deleted")
    return directory
