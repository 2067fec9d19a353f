"""`charlm report`: one HTML page about a run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from charlm.cli.common import note, reading_progress, seed_option
from charlm.errors import CharlmError, OptionError
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.ngrams.index import SuffixIndex
    from charlm.ngrams.novelty import Novelty
    from charlm.pages.run_page import RunPage, Sample
    from charlm.text.corpus import Corpus
    from charlm.text.splits import Spans

_TEMPERATURES = (0.5, 0.8, 1.0)
_LENGTH = 700  # characters of a sample
_PASSAGE = 6000  # characters of the surprise map
_PLACES = 20_000  # held-out places whose probabilities are checked
_ORDERS = list(range(9))
_MOST = 20_000_000  # characters that are counted for the comparison


@click.command("report")
@click.argument("directory", metavar="DIR")
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="The run's text, where it is not in its old place."
)
@click.option("--out", metavar="FILE", help="The page.  [default: DIR/report.html]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@seed_option
def report_command(directory: str, texts: tuple[str, ...], out: str | None, device: str, seed: int) -> None:
    """Make one HTML page about the run in DIR: curves, comparison, samples, surprise, calibration, options.

    The page is a single file that needs no network. It is made with the text that the model was made from.
    """
    from charlm.checkpoint import load
    from charlm.pages.page import write_page
    from charlm.pages.run_page import RunPage, about_curves
    from charlm.training.watching import read_metrics

    checkpoint = load(directory, device=device)
    assert checkpoint.directory is not None
    corpus = _text(checkpoint, texts)
    rows = read_metrics(checkpoint.directory / "metrics.jsonl")
    page = RunPage(title=f"Run {checkpoint.name}", facts=_facts(checkpoint, rows), curves=about_curves(rows))
    part, held = _held(checkpoint, corpus)
    if held is None:
        page.notes.append("The model was made from all of its text: nothing is held out that it could be measured on.")
    else:
        _add_held_out(page, checkpoint, corpus, part, held)
    _add_samples(page, checkpoint, corpus, held, seed)
    click.echo(f"{write_page(Path(out) if out is not None else checkpoint.directory / 'report.html', page.html())}")


def _text(checkpoint: TextModel, texts: tuple[str, ...]) -> Corpus:
    """The text that the model was made from, in its symbols."""
    from charlm.text.corpus import read_corpus

    names = list(texts or checkpoint.source.names)
    shown = ", ".join(names)
    missing = [name for name in names if name == "-" or not Path(name).exists()]
    if missing and not texts:
        where = "it came from standard input" if "-" in missing else f"there is no {missing[0]} here"
        raise OptionError(f"the text of {checkpoint.name} is needed, and {where}: name it with --text FILE")
    with reading_progress() as tell:
        corpus = read_corpus(names, checkpoint.source.reading, vocab=checkpoint.vocab, progress=tell)
    if corpus.sha256 != checkpoint.source.sha256:
        raise OptionError(
            f"{shown} is not the text that {checkpoint.name} was made from ({checkpoint.source.sha256[:12]} then, "
            f"{corpus.sha256[:12]} now): name that one with --text FILE"
        )
    return corpus


def _held(checkpoint: TextModel, corpus: Corpus) -> tuple[str, Spans | None]:
    """The part that the model is measured on; None where nothing is held out."""
    from charlm.text.splits import count_targets

    parts = corpus.parts(checkpoint.source.split)
    for name in ("test", "valid"):
        if count_targets(parts[name]):
            return name, parts[name]
    return "train", None


def _add_held_out(page: RunPage, checkpoint: TextModel, corpus: Corpus, part: str, held: Spans) -> None:
    """Everything that is measured on the held-out part."""
    from charlm.lm.compare import compare_rows
    from charlm.lm.evaluate import row_of, targets_of
    from charlm.ngrams.model import NGramLM
    from charlm.pages.run_page import about_comparison
    from charlm.text.splits import count_targets

    counted = isinstance(checkpoint, NGramLM)
    with progress_bar(count_targets(held), "reading the held-out part", "char") as bar:
        row = row_of(
            checkpoint,
            corpus.ids,
            held,
            name=checkpoint.name,
            family="ngram" if counted else "rnn",
            progress=bar.update,
        )
    rows = []
    if len(corpus) <= _MOST:
        rows = _counted(checkpoint, corpus, held)
    else:
        page.notes.append(f"With more than {_MOST:,} characters nothing is counted here: charlm compare does it.")
    lines = compare_rows([*rows, row], targets_of(corpus.ids, held), corpus.vocab)
    if rows:
        page.comparison = about_comparison(lines, part)
    page.summary.append(_figure(lines[-1].evaluation, corpus, part, str(checkpoint.source.split)))
    if part == "valid":
        page.notes.append("There is no test part: the valid part is shown, which early stopping watched.")
    _add_surprise(page, checkpoint, corpus, part, held)


def _counted(checkpoint: TextModel, corpus: Corpus, held: Spans) -> list[Any]:
    from charlm.ngrams.fit import counted_rows

    parts, smoothings = corpus.parts(checkpoint.source.split), ("none", "kneser-ney")
    rows = []
    with progress_bar(len(_ORDERS) * len(smoothings), "counting", "model") as bar:
        for row in counted_rows(corpus, parts, held, orders=_ORDERS, smoothings=smoothings):
            rows.append(row)
            bar.update()
    return rows


def _figure(figures: Any, corpus: Corpus, part: str, split: str) -> str:
    error = "" if figures.standard_error is None else f" ± {figures.standard_error:.4f}"
    bits = f"{figures.nats:.4f}{error} nats ({figures.bits_per_char:.4f} bits) a character, perplexity "
    bits += f"{figures.perplexity:.4f}, {100 * figures.accuracy:.2f} % right"
    if figures.zero_probability_targets:
        bits = f"infinitely many nats a character, as {figures.zero_probability_targets:,} characters were impossible"
    return f"On the {part} part of {corpus.title} ({figures.targets:,} targets, split {split}): {bits}."


def _add_surprise(page: RunPage, checkpoint: TextModel, corpus: Corpus, part: str, held: Spans) -> None:
    """The surprise map of the beginning of the held-out part, and whether the probabilities are right."""
    from charlm.lm.evaluate import targets_of
    from charlm.lm.scores import expected_next, read_surprise
    from charlm.pages.run_page import about_calibration, next_reliability
    from charlm.pages.surprise_page import map_data

    passage, model = _first(held, _PASSAGE), checkpoint
    with progress_bar(_PLACES, "what was expected", "char") as bar:
        expected = expected_next(model, corpus.ids, held, limit=_PLACES, progress=bar.update)
    surprise = read_surprise(model, corpus.ids, passage)
    page.surprise = map_data(corpus, passage, model.vocab, [surprise], [checkpoint.name], expected=expected)
    page.surprise_words = f"The first {len(page.surprise['ids']):,} characters of the {part} part, which it never saw."
    curve = next_reliability(expected, targets_of(corpus.ids, held))
    if curve is not None:
        page.calibration = about_calibration(curve, expected.ids_NK.shape[1], len(expected.ids_NK))


def _first(spans: Spans, symbols: int) -> Spans:
    """As many spans from the beginning as have so many symbols, the last one cut, none without a target."""
    lengths = spans[:, 1] - spans[:, 0]
    before = np.cumsum(lengths) - lengths
    ends = np.minimum(spans[:, 1], spans[:, 0] + np.maximum(symbols - before, 0))
    cut: Spans = np.stack([spans[:, 0], ends], axis=1)
    return cut[cut[:, 1] - cut[:, 0] > 1]


def _add_samples(page: RunPage, checkpoint: TextModel, corpus: Corpus, held: Spans | None, seed: int) -> None:
    """Texts at three temperatures, and what they share with the training text."""
    from charlm.ngrams.index import SuffixIndex
    from charlm.ngrams.novelty import novelty
    from charlm.pages.run_page import about_samples

    train = corpus.parts(checkpoint.source.split)["train"]
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab))
    samples = []
    with progress_bar(len(_TEMPERATURES), "sampling", "text") as bar:
        for temperature in _TEMPERATURES:
            try:
                samples.append(_sample(checkpoint, index, train, temperature, seed))
            except CharlmError as error:
                note(f"no sample at temperature {temperature}: {error}")
            bar.update()
    real: Novelty | None = None
    if held is not None:
        start, end = held[(held[:, 1] - held[:, 0]).argmax()].tolist()
        real = novelty(index, corpus.ids[start : min(end, start + _LENGTH)], spans=train)
    page.samples = about_samples(samples, real, seed) if samples else None


def _sample(checkpoint: TextModel, index: SuffixIndex, train: Spans, temperature: float, seed: int) -> Sample:
    from charlm.lm.interface import SamplingRule
    from charlm.lm.sampling import generate_streams
    from charlm.ngrams.novelty import novelty
    from charlm.pages.run_page import Sample

    rule, vocab = SamplingRule(temperature=temperature), checkpoint.vocab
    *_, last = generate_streams(checkpoint, [checkpoint.start], length=_LENGTH, rule=rule, seed=seed)
    ids = np.array(last[0].ids)
    found = novelty(index, ids, spans=train)
    passage = vocab.decode(ids[found.begins : found.begins + found.longest])
    return Sample(temperature=temperature, text=last[0].text, novelty=found, passage=passage)


def _facts(checkpoint: TextModel, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Options, machine and time."""
    import torch

    from charlm.info import describe

    assert checkpoint.directory is not None
    facts = describe(checkpoint.directory).facts
    device = checkpoint.description.get("training", {}).get("device")
    if device is not None:
        facts.append(("device", f"trained on {device}"))
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if seconds:
        facts.append(("time", f"{seconds[-1] / 60:,.1f} minutes for {rows[-1]['step']:,} steps with their validations"))
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    return [*facts, ("page made on", machine)]
