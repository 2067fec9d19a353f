"""What is measured for a page: about a model (`report`), or about a text that was scored (`score_page`)."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm.checkpoint import load
from charlm.display import progress_bar
from charlm.errors import CharlmError, OptionError
from charlm.info import ModelInfo, describe
from charlm.lm.compare import compare_rows
from charlm.lm.evaluate import Evaluation, Row, per_character, row_of, targets_of
from charlm.lm.model import TextModel, own_text
from charlm.lm.sampling import expected_next
from charlm.lm.scored import TextScore
from charlm.lm.surprise import read_surprise
from charlm.ngrams.fit import counted_rows
from charlm.ngrams.index import Novelty, SuffixIndex, novelty
from charlm.nn.kernels import pick_device
from charlm.pages import MOST, map_data, map_places, render
from charlm.pages.run_page import (
    RunPage,
    Sample,
    about_calibration,
    about_comparison,
    about_curves,
    about_result,
    about_samples,
    next_reliability,
    number_cell,
)
from charlm.sequences.fitted_models import load_sequence
from charlm.sequences.table_fit import COLUMNS, Wrong, most_wrong
from charlm.sequences.tabular import TableFacts, open_task_again
from charlm.text.splits import Spans, count_targets, first_of
from charlm.text.text import Part, Text
from charlm.training.watching import read_metrics

_TEMPERATURES = (0.5, 0.8, 1.0)
_LENGTH = 700  # characters of a sample
_PASSAGE = 6000  # characters of the surprise map
_PLACES = 20_000  # held-out places whose probabilities are checked
_ORDERS = range(9)
_MOST = 20_000_000  # characters that are counted for the comparison


def report(
    model: TextModel | str | Path,
    text: Text | str | Path | Sequence[str | Path] | None = None,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: bool | None = None,
) -> RunPage:
    """One page about a model: how it learned, beside counting, samples, surprise, calibration, options.

    Args:
        model: a language model, or the directory of one. Of a Score or Distribution model (its directory) the page
            shows how it learned, its figures on the test part, and its calibration.
        text: what the model was made from, as `Text` or as names of files; None reads it from its old place.
        device: where a model that is named by its directory goes: `auto`, `cpu`, `cuda` or `mps`.
        seed: of the samples.
        progress: show bars; None shows them on a terminal or in a notebook.

    Returns:
        The page; `page.save(path)` writes it as one HTML file that needs no network.

    Raises:
        OptionError: the text is not found, or is not the one that the model was made from.
        CheckpointError: the directory holds no model.
    """
    if not isinstance(model, TextModel):
        found = describe(model)
        if found.config["kind"] == "sequence":
            return _of_sequences(found, text, device)
        model = load(model, device=device)
    about = None if model.directory is None else describe(model.directory)
    rows = [] if model.directory is None else read_metrics(model.directory / "metrics.jsonl")
    whole = own_text(model, text, progress=progress)
    page = RunPage(title=f"Run {model.name}", facts=_facts(about, rows), curves=about_curves(rows))
    held = _held_out(whole)
    if held is None:
        page.notes.append("The model was made from all of its text: nothing is held out that it could be measured on.")
    else:
        _add_measured(page, model, held, progress)
    _add_samples(page, model, whole, held, seed, progress)
    return page


def _of_sequences(about: ModelInfo, table: Any, device: str) -> RunPage:
    """The page of a Score or Distribution model: of what its directory holds, and of its table where that is found."""
    rows = read_metrics(about.directory / "metrics.jsonl")
    page = RunPage(title=f"Run {about.directory.resolve().name}", facts=_facts(about, rows))
    page.curves = about_curves(rows, of="a label")
    result = about.config.get("result")
    if result is None:
        page.notes.append("The training has not ended yet: there are no figures on the test part.")
    else:
        about_result(page, result, str(about.config["data"].get("table", "the table")))
        page.models = _about_models(result)
        page.notes += filter(None, [result.get("rare")])
        _add_wrong(
            page,
            about.directory,
            None if table is None else str(table if isinstance(table, str | Path) else table[0]),
            device,
        )
    return page


def _add_wrong(page: RunPage, directory: Path, table: str | None, device: str) -> None:
    """The rows that the chosen model gets most wrong, where the table is the one that it was fitted to."""
    found = load_sequence(directory, device=pick_device(device))
    facts = TableFacts.read(found.data)
    name = table or facts.table
    if facts.every or not facts.bounded or (table is None and not (name and Path(name).exists())):
        where = f"{name} is not here" if not facts.every and facts.bounded else "that is for whole sequences"
        page.notes.append(f"The rows that it gets most wrong are not shown: {where}. Name the table with --text FILE.")
        return
    task = open_task_again(name, facts, found.model.vocab)
    if task.table.sha256 != facts.sha256:
        raise OptionError(f"{name} is not the table that {directory} was fitted to: name that one with --text FILE")
    page.wrong = _about_wrong(most_wrong(found.models, task), found.models.chosen)


def _about_models(result: dict[str, Any]) -> dict[str, Any] | None:
    """The models of a fit beside each other, from the `result` of its `config.json`; None where there is one alone."""
    rows = result.get("models")
    if not rows:
        return None
    heads = ("model", "log loss", "accuracy", "area under the curve", "calibration error", "seconds")
    cells = [
        [row["model"], *(number_cell(row[name]) for name in COLUMNS), number_cell(row["seconds"], 1)] for row in rows
    ]
    words = f"{result['verdict']} {result['model']} predicts by default: it was the best on the validation part."
    table = {"caption": "Models", "columns": [(head, head != "model") for head in heads], "rows": cells}
    return {"words": words, "table": table}


def _about_wrong(rows: Sequence[Wrong], model: str) -> dict[str, Any] | None:
    """The rows that a model gets most wrong, their characters painted by how much each moves the output."""
    if not rows:
        return None
    words = (
        f"The rows with the greatest log loss under {model}. A character is painted by how much the logarithm of the "
        "odds of what came would change if it were unknown: it speaks for what came, or against it."
    )
    most = max((abs(move) for row in rows for move in row.moves), default=0.0) or 1.0
    return {"words": words, "rows": [_painted(row, most) for row in rows]}


def _painted(row: Wrong, most: float) -> dict[str, Any]:
    def colour(move: float) -> str:
        level = math.ceil(4 * abs(move) / most - 0.2)
        return f"{'p' if move > 0 else 'n'}{min(level, 4)}" if level > 0 else "s0"

    moves = row.moves or [0.0] * len(row.text)
    characters = [(character, colour(move), f"{move:+.2f}") for character, move in zip(row.text, moves, strict=False)]
    head = f"{row.place}: {row.came} came, {row.said} was said; {row.nats:.2f} nats"
    return {"head": head, "characters": characters[:400]}


def _held_out(text: Text) -> Part | None:
    """The part that the model is measured on; None where nothing is held out."""
    for name in ("test", "valid"):
        if count_targets(text.parts[name]):
            return text.part(name)
    return None


def _add_measured(page: RunPage, model: TextModel, held: Part, progress: bool | None) -> None:
    """Everything that is measured on the held-out part."""
    corpus = held.text.corpus
    with progress_bar(len(held), "reading the held-out part", "char", show=progress) as bar:
        row = row_of(model, corpus.ids, held.spans, name=model.name, progress=bar.update)
    rows: list[Row] = []
    if len(corpus) <= _MOST:
        rows = _counted(held, progress)
    else:
        page.notes.append(f"With more than {_MOST:,} characters nothing is counted here: charlm compare does it.")
    whole = [per_character(each, corpus.ids, held.spans, corpus.vocab) for each in (*rows, row)]
    lines = compare_rows([each for each, _ in whole], whole[0][1])
    if rows:
        page.comparison = about_comparison(lines, held.name)
    page.summary.append(_figure(lines[-1].evaluation, held))
    if held.name == "valid":
        watched = "" if model.is_baseline else ", on which early stopping chose the weights"
        page.notes.append(f"There is no test part: the figures are of the valid part{watched}.")
    _add_surprise(page, model, held, progress)


def _counted(held: Part, progress: bool | None) -> list[Row]:
    """N-grams of rising order on the same part."""
    smoothings = ("none", "kneser-ney")
    rows = []
    with progress_bar(len(_ORDERS) * len(smoothings), "counting", "model", show=progress) as bar:
        text = held.text
        for row in counted_rows(text.corpus, text.parts, held.spans, orders=list(_ORDERS), smoothings=smoothings):
            rows.append(row)
            bar.update()
    return rows


def _figure(figures: Evaluation, held: Part) -> str:
    error = "" if figures.standard_error is None else f" ± {figures.standard_error:.4f}"
    bits = f"{figures.nats:.4f}{error} nats ({figures.bits_per_char:.4f} bits) a character, perplexity "
    bits += f"{figures.perplexity:.4f}, {100 * figures.accuracy:.2f} % right"
    if figures.zero_probability_targets:
        bits = f"infinitely many nats a character, as {figures.zero_probability_targets:,} characters were impossible"
    where = f"{held.name} part of {held.text.title} ({figures.targets:,} targets, split {held.text.split})"
    return f"On the {where}: {bits}."


def _add_surprise(page: RunPage, model: TextModel, held: Part, progress: bool | None) -> None:
    """The surprise map of the beginning of the held-out part, and whether the probabilities are right."""
    corpus, passage = held.text.corpus, first_of(held.spans, _PASSAGE)
    with progress_bar(_PLACES, "what was expected", "char", show=progress) as bar:
        expected = expected_next(model, corpus.ids, held.spans, limit=_PLACES, progress=bar.update)
    surprise = read_surprise(model, corpus.ids, passage)
    page.surprise = map_data(corpus, passage, model.vocab, [surprise], [model.name], expected=expected)
    page.surprise_words = (
        f"The first {len(page.surprise['ids']):,} characters of the {held.name} part, which it was not trained on."
    )
    curve = next_reliability(expected, targets_of(corpus.ids, held.spans))
    if curve is not None:
        page.calibration = about_calibration(curve, expected.ids_NK.shape[1], len(expected.ids_NK))


def _add_samples(
    page: RunPage, model: TextModel, text: Text, held: Part | None, seed: int, progress: bool | None
) -> None:
    """Texts at three temperatures, and how much of them was copied from the training text."""
    corpus, train = text.corpus, text.parts["train"]
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab))
    samples = []
    with progress_bar(len(_TEMPERATURES), "sampling", "text", show=progress) as bar:
        for temperature in _TEMPERATURES:
            try:
                samples.append(_sample(model, index, train, temperature, seed))
            except CharlmError as error:
                page.notes.append(f"There is no sample at temperature {temperature}: {error}.")
            bar.update()
    real: Novelty | None = None
    if held is not None:
        start, end = held.spans[(held.spans[:, 1] - held.spans[:, 0]).argmax()].tolist()
        real = novelty(index, corpus.ids[start : min(end, start + _LENGTH)], spans=train)
    page.samples = about_samples(samples, real, seed) if samples else None


def _sample(model: TextModel, index: SuffixIndex, train: Spans, temperature: float, seed: int) -> Sample:
    *_, (last,) = model.grow(length=_LENGTH, temperature=temperature, seed=seed)
    ids = np.array(last.ids)
    found = novelty(index, ids, spans=train)
    passage = model.vocab.decode(ids[found.begins : found.begins + found.longest])
    return Sample(temperature=temperature, text=last.text, novelty=found, passage=passage)


def _facts(about: ModelInfo | None, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Options, machine and time."""
    facts = [] if about is None else about.facts
    device = None if about is None else (about.config.get("training") or {}).get("device")
    if device is not None:
        facts.append(("device", f"trained on {device}"))
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if seconds:
        facts.append(("time", f"{seconds[-1] / 60:,.1f} minutes for {rows[-1]['step']:,} steps with their validations"))
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    return [*facts, ("page made on", machine)]


# -- the page of a scored text -----------------------------------------------------------------------------------------

_ROWS = 25  # of each table
_LONGEST = 300  # characters of a line in a table


def score_page(scored: TextScore, *, progress: bool | None = None) -> str:
    """The HTML of a text whose characters are painted by their bits and show what was expected in their place.

    Args:
        scored: the text, under one model or two.
        progress: show a bar; None shows it on a terminal or in a notebook.
    """
    spans, first = scored.part.spans, scored.models[0]
    with progress_bar(min(_PLACES, count_targets(spans)), "what was expected", "char", show=progress) as bar:
        expected = expected_next(first, scored.seen[0].ids, spans, limit=_PLACES, progress=bar.update)
    data = map_data(scored.shown, spans, first.vocab, scored.symbols, scored.names, expected=expected)
    notes = list(scored.warnings())
    if len(data["ids"]) == MOST:
        notes.append(f"The page shows the first {MOST:,} characters; the tables are about all of them.")
    part = "all of it" if scored.part.name == "all" else f"{scored.part.name} part"
    figures = [("Model", scored.figure(number)) for number in range(len(scored.models))]
    return render(
        "score.html",
        title=f"Surprise of {scored.shown.title}",
        data={"surprise": data},
        scripts=("textmap.js", "surprise.js"),
        facts=[("Text", f"{scored.shown.title}, {part}"), *figures],
        notes=notes,
        models=data["models"],
        tables=[_strangest(scored, "Lines"), _strangest(scored, "Characters")],
    )


def _strangest(scored: TextScore, heading: str) -> dict[str, Any]:
    """The strangest lines or characters, for those who read tables and not pictures, and where the map shows each."""
    names, by = scored.names, "line" if heading == "Lines" else "char"
    words = "The strangest first." if len(names) == 1 else f"Where {names[0]} knows most that {names[1]} does not."
    words += " Bits a character, the newline that ends a line counted to it." if by == "line" else ""
    columns, pairs = scored.table(by, _ROWS)
    places, rows = zip(*pairs, strict=True)
    return {
        "heading": heading,
        "words": words,
        "caption": heading,
        "columns": [(name, name not in ("line", "text", "character", "context")) for name in columns],
        "rows": [[*cells[:-1], _shortened(cells[-1])] for cells in rows],
        "places": map_places(scored.part.spans, places),
    }


def _shortened(text: str) -> str:
    return (text or "⏎") if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
