"""`charlm train`: trains a recurrent model and shows how it goes."""

from __future__ import annotations

import math
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import note, reading_of, reading_options, reading_progress, split_option
from charlm.errors import LostProcessError, OptionError
from charlm.files import free_name

if TYPE_CHECKING:
    import torch

    from charlm.cli.watching import Watch
    from charlm.text.corpus import Corpus
    from charlm.text.reading import Reading
    from charlm.text.splits import Split
    from charlm.training.distributed import Processes
    from charlm.training.interfaces import StepReport
    from charlm.training.run import Result, Run

_BUDGET = ("epochs", "max_steps", "minutes")
_NETWORK = ("model", "layers", "hidden", "embedding", "dropout", "variational", "weight_dropout", "input_dropout")
_OPTIMISATION = ("lanes", "window", "lr", "average", "weight_decay", "patience", "seed")


@click.command("train")
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option("--model", type=click.Choice(["lstm", "gru", "rnn"]), help="Kind of recurrent cell.")
@click.option("--layers", type=int, metavar="N", help="Recurrent layers.")
@click.option("--hidden", type=int, metavar="N", help="Units in each layer.")
@click.option("--embedding", type=int, metavar="N", help="Width of a character embedding; 0 is one-hot input.")
@click.option("--dropout", type=float, metavar="P", help="Between the layers and before the output.")
@click.option("--variational", is_flag=True, default=None, help="One dropout mask for all steps of a window.")
@click.option("--weight-dropout", type=float, metavar="P", help="Of the recurrent weights, a window at a time.")
@click.option("--input-dropout", type=float, metavar="P", help="Share of the characters read as unknown.")
@click.option("--seq-length", "window", type=int, metavar="T", help="Steps between two truncations.")
@click.option(
    "--batch-size", "lanes", type=int, metavar="B", help="Pieces of text read side by side, by all processes."
)
@click.option("--lr", type=float, metavar="R", help="Peak learning rate.")
@click.option("--weight-decay", type=float, metavar="D", help="AdamW's, of the matrices.")
@click.option("--average", type=float, metavar="S", help="Average the weights over this share of the steps so far.")
@click.option("--patience", type=int, metavar="N", help="Validations without improvement to stop after; 0 for never.")
@click.option("--epochs", type=float, metavar="E", help="Stop after so many passes over the training part.")
@click.option("--max-steps", type=int, metavar="N", help="Stop after so many steps.")
@click.option("--minutes", type=float, metavar="M", help="Take so long for training and its validations.")
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
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of all chance.  [default: 0]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps", help="Where to train.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "reference", "fused", "torch"]),
    help="How layers are run; auto times them and keeps the fastest.  [default: auto]",
)
@click.option("--out", metavar="DIR", help="Where the run is kept.  [default: checkpoints/NAME]")
@click.option("--plot", metavar="FILE", help="Also draw the learning curve as .png, .svg or .pdf.")
@click.option(
    "--resume",
    metavar="DIR",
    help="Go on with this run; a new --epochs, --max-steps, --minutes, --batch-size or --device is taken.",
)
def train_command(texts: tuple[str, ...], resume: str | None, out: str | None, plot: str | None, **options: Any) -> int:
    """Train a recurrent language model on TEXT (files, a directory of files, or - for standard input).

    What is not given is chosen from the text's size, the device and the time, and printed.

    torchrun --nproc-per-node N -m charlm train ... trains in N processes, which share the --batch-size.
    """
    from charlm.figures import check_picture
    from charlm.training.distributed import joined

    if plot is not None:
        check_picture(Path(plot))
    with joined() as processes:
        if resume is not None:
            return _resume(Path(resume), texts, out, plot, options, processes)
        return _start(texts, out, plot, options, processes)


def _start(
    texts: tuple[str, ...], out: str | None, plot: str | None, options: dict[str, Any], processes: Processes
) -> int:
    """A new run; after an elastic restart the one that this launch began before."""
    from charlm.cli.together import directory_for, held, in_turn
    from charlm.training.distributed import device_here, launch_of
    from charlm.training.recipe import pick_device
    from charlm.training.run import start

    with processes.alike():
        if not texts:
            raise OptionError(
                "name a text to train on, such as data/shakespeare.txt, or a run to go on with: --resume DIR"
            )
        if "-" in texts and processes.size > 1:
            raise OptionError("several processes cannot read one standard input: name a file")
        device = device_here(pick_device(options["device"]), os.environ)
    corpus, split = in_turn(processes, lambda: _read(texts, options))
    with processes.alike():
        plan, weights = _plan(corpus, split, device, options, processes.size)
    launch = launch_of(processes, os.environ)
    directory, begun = directory_for(out, texts[0], plan.network.model, launch, processes)
    if begun:
        note(f"{directory} was begun before this restart")
        return _resume(directory, texts, None, plot, options, processes, restarted=True)
    with held(directory, processes):
        run = start(directory, corpus, split, plan, device, processes=processes, launch=launch)
        if weights is not None:
            run.model.load_state_dict(weights)
        note(f"{corpus.title}: {len(corpus):,} characters, {len(corpus.vocab)} symbols, split {split}")
        together = f", {processes.size} processes" if processes.size > 1 else ""
        note(
            f"{run.plan.line()} on {device}{together}, backend {run.plan.backend}, "
            f"{run.model.parameter_count:,} weights"
        )
        return _train(run, options["save_every"], plot)


def _read(texts: tuple[str, ...], options: dict[str, Any]) -> tuple[Corpus, Split]:
    """The corpus and its split; files for validation and test become documents behind the texts."""
    from charlm.text.corpus import read_corpus
    from charlm.text.reading import files_of
    from charlm.text.splits import Split

    reading = reading_of(*(options[name] for name in ("encoding", "newlines", "as_bytes", "vocab_size")))
    init = options["init_from"]
    vocab = None if init is None else _model_to_start_from(init, reading).vocab
    held_out = [name for name in (options["valid"], options["test"]) if name is not None]
    with reading_progress() as tell:
        corpus = read_corpus([*texts, *held_out], reading, vocab=vocab, progress=tell)
    _refuse_unknown(corpus, init)
    if not held_out:
        return corpus, options["split"] or Split.default(len(corpus))
    if options["split"] is not None:
        raise OptionError("--split divides TEXT itself: it does not go with --valid and --test")
    counts = [len(files_of(list(texts))), *(0 if options[part] is None else 1 for part in ("valid", "test"))]
    if len(corpus.documents) != sum(counts):
        raise OptionError("--valid and --test name one file each, not a directory")
    return corpus, Split.parse("files:" + "/".join(map(str, counts)))


def _model_to_start_from(directory: str, reading: Reading) -> Any:
    from charlm.checkpoint import load
    from charlm.recurrent.model import CharRNN

    model = load(directory).model
    if not isinstance(model, CharRNN):
        raise OptionError(f"{directory} is not a recurrent model: --init-from needs the weights of one")
    return model


def _refuse_unknown(corpus: Corpus, init: str | None) -> None:
    if corpus.unknown():
        raise OptionError(
            f"{corpus.title} has {corpus.unknown():,} characters that the vocabulary of {init} does not hold: "
            "take them out of the text, or train from the start"
        )


def _plan(
    corpus: Corpus, split: Split, device: torch.device, options: dict[str, Any], processes: int
) -> tuple[Any, Any]:
    """The plan, and the weights to start from, if any; lanes that are chosen here can be shared by the processes."""
    from dataclasses import replace

    from charlm.text.splits import count_targets
    from charlm.training.recipe import choose

    given = {name: options[name] for name in (*_NETWORK, *_OPTIMISATION, *_BUDGET, "backend")}
    characters = count_targets(corpus.parts(split)["train"])
    if given["lanes"] is None:
        given["lanes"] = -(-choose(characters, device, given).lanes // processes) * processes
    if options["init_from"] is None:
        return choose(characters, device, given), None
    model = _model_to_start_from(options["init_from"], corpus.reading)
    for name in ("model", "layers", "hidden", "embedding"):
        if given[name] not in (None, getattr(model.config, name)):
            raise OptionError(
                f"--{name} {given[name]} does not fit the weights of --init-from ({getattr(model.config, name)} there)"
            )
        given[name] = getattr(model.config, name)
    plan = choose(characters, device, given)
    network = replace(model.config, dropout=plan.network.dropout)
    return replace(plan, network=network), model.state_dict()


def _resume(
    directory: Path,
    texts: tuple[str, ...],
    out: str | None,
    plot: str | None,
    options: dict[str, Any],
    processes: Processes,
    *,
    restarted: bool = False,
) -> int:
    """Goes on with a run; after a restart with the plan that it has, whatever the options say."""
    from charlm.cli.together import held, in_turn
    from charlm.cli.watching import device_of
    from charlm.text.corpus import read_corpus
    from charlm.training.distributed import device_here, launch_of
    from charlm.training.keeping import read_saved
    from charlm.training.run import resume

    with processes.alike():
        if not restarted:
            _refuse_changes(out, options)
        saved = read_saved(directory)
        for problem in saved.notes:
            note(f"{problem}; the state before it is used")
        device = device_here(device_of(saved.device, options["device"]), os.environ)

    def read() -> Corpus:
        with reading_progress() as tell:
            names = list(texts or saved.text.names)
            return read_corpus(names, saved.text.reading, vocab=saved.vocab, progress=tell)

    corpus = in_turn(processes, read)
    changed = {} if restarted else {name: options[name] for name in _BUDGET if options[name] is not None}
    lanes = None if restarted else options["lanes"]
    launch = launch_of(processes, os.environ)
    with held(directory, processes):
        run = resume(directory, corpus, device, budget=changed, lanes=lanes, processes=processes, launch=launch)
        together = f", {processes.size} processes" if processes.size > 1 else ""
        note(f"{directory} goes on: {run.plan.line()} on {device}{together}, backend {run.plan.backend}")
        if len(run.changes) > len(saved.changes):
            note(
                "with other lanes, on another device or in another number of processes it goes on well, but not to "
                "the bit as it would have been"
            )
        return _train(run, options["save_every"], plot)


def _refuse_changes(out: str | None, options: dict[str, Any]) -> None:
    """Names the first option that a run which goes on cannot take."""
    names = {"window": "seq-length", "as_bytes": "bytes"}
    kept = [name for name in (*_NETWORK, *_OPTIMISATION) if name != "lanes"]
    fixed = [name for name in (*kept, "split", "valid", "test", "init_from", "backend") if options[name] is not None]
    context = click.get_current_context()
    reading = ("encoding", "newlines", "as_bytes", "vocab_size")
    default = click.core.ParameterSource.DEFAULT
    fixed += [name for name in reading if context.get_parameter_source(name) is not default]
    fixed += ["out"] if out is not None else []
    if fixed:
        name = names.get(fixed[0], fixed[0]).replace("_", "-")
        raise OptionError(
            f"--{name} cannot be changed in a run that goes on: start a new run, with --init-from if wanted"
        )


def _train(run: Run, save_every: float, plot: str | None) -> int:
    """Trains; the first process shows how it goes and what came out."""
    from charlm.cli.watching import interruptible
    from charlm.nn.kernels.choose import notes

    for sentence in notes(run.model.stack) if run.processes.first else ():
        note(sentence)
    watch = _watcher(run)
    observer = watch if run.processes.first else None
    with closing(watch), interruptible() as stopped:
        try:
            result = run.train(observer=observer, save_every=save_every, should_stop=stopped, progress=watch.measuring)
        except LostProcessError as error:  # said here, while torchrun's SIGTERM cannot end us before it is
            click.echo(f"charlm: {error}", err=True)
            return 1
    if run.processes.first:
        _show(run, result, plot)
    return {"interrupted": 130, "diverged": 1}.get(result.outcome, 0)


def _show(run: Run, result: Result, plot: str | None) -> None:
    """Draws the curve, and prints the figure that is kept."""
    if run.rows:
        _draw(run, plot)
    if result.outcome == "interrupted":
        launcher = f"torchrun --nproc-per-node {run.processes.size} -m " if run.processes.size > 1 else ""
        note(f"interrupted; everything is saved: go on with {launcher}charlm train --resume {run.directory}")
        return
    if result.outcome == "no improvement":
        note("stopped early: no improvement for several validations")
    if result.evaluation is not None:
        figures = result.evaluation
        selected = ", the part that early stopping watched" if result.part == "valid" else ""
        click.echo(
            f"{result.part} part{selected}: {figures.nats:.6f} nats a character ± {figures.standard_error or 0:.4f}, "
            f"{figures.bits_per_char:.4f} bits, perplexity {figures.perplexity:.4f}, "
            f"{100 * figures.accuracy:.2f} % right of {figures.targets:,} (split {run.split})"
        )
    click.echo(f"{run.directory}")


def _draw(run: Run, plot: str | None) -> None:
    """The learning curve in the run's directory, and where the user wants it."""
    from charlm.cli.watching import draw
    from charlm.report.figures import draw_curve

    metrics, picture = run.directory / "metrics.jsonl", run.directory / "curve.png"
    draw("the curve", lambda: draw_curve(metrics, picture, title=run.directory.name))
    if plot is not None:
        wanted = free_name(Path(plot))
        draw("the curve", lambda: draw_curve(metrics, wanted, title=run.directory.name))
        if wanted.exists():
            note(f"picture: {wanted}")


def _watcher(run: Run) -> Watch:
    """An observer that shows a progress bar, the validations, and a short sample at each."""
    from charlm.cli.watching import Watch
    from charlm.lm.interface import SamplingRule
    from charlm.lm.sampling import generate_streams

    def shown(report: StepReport) -> str:
        bits = report.loss / math.log(2)
        return f"{report.loss:.3f} nats, {bits:.3f} bits/char, {report.targets_per_second:,.0f} char/s"

    def first(loss: float) -> str | None:
        expected = math.log(len(run.corpus.vocab))
        if abs(loss - expected) > 1 and run.model.training and not math.isnan(loss):
            return f"the first loss is {loss:.3f}; untrained weights would give ln V = {expected:.3f}"
        return None

    def sample() -> list[str]:
        start = run.corpus.newline if run.corpus.newline is not None else run.facts.first
        rule = SamplingRule(temperature=0.8)
        *_, last = generate_streams(run.model, [start], length=100, rule=rule, seed=0, chunk=100)
        return ["    " + " ".join(last[0].text.split())]

    return Watch(shown, first=first, after=sample, measuring=("measuring the best weights as one stream", "char"))
