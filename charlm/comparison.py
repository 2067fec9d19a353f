"""One table for one held-out text: n-gram models of many orders beside networks, and what learns while it reads."""

from __future__ import annotations

import html
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from charlm.checkpoint import load, read_config
from charlm.display import html_table, progress_bar, save_figure
from charlm.errors import CharlmError, OptionError
from charlm.lm.compare import Compared, compare_rows, comparison_figure, summary, tables
from charlm.lm.evaluate import Row, characters_of, per_character, places_of, row_of, targets_of
from charlm.lm.model import TextModel, as_models
from charlm.mixing.adaptive import adaptive as with_contexts
from charlm.mixing.mixture import mix
from charlm.ngrams.estimators import best_order
from charlm.ngrams.fit import count, counted_rows
from charlm.ngrams.model import NGramLM
from charlm.recurrent.dynamic import dynamic as learning
from charlm.recurrent.model import CharRNN
from charlm.text.splits import Spans, count_targets, overlap
from charlm.text.text import Part, Text, TextFacts, as_text
from charlm.text.vocab import Ids, Vocab

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """Several models on one held-out text. Its `repr` is what `charlm compare` prints.

    Args:
        part: the part that was read.
        lines: one a model, n-gram models first.
        notes: sentences about what should be known beside the table.
    """

    part: Part
    lines: list[Compared]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Which model is best, by how much, and what an unsmoothed model cannot say."""
        return summary(self.lines)

    @property
    def title(self) -> str:
        """The text, the part and the split."""
        return f"{self.part.text.title}, {self.part.name} part of split {self.part.text.split}"

    def to_json(self) -> dict[str, Any]:
        """What `charlm compare --json` prints."""
        return {
            "text": self.part.text.title,
            "split": str(self.part.text.split),
            "part": self.part.name,
            "targets": self.lines[0].evaluation.targets,
            "models": [line.to_json() for line in self.lines],
        }

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame with a row a model and the columns of `to_json`; needs pandas."""
        import pandas

        rows = [line.to_json() for line in self.lines]
        frame = pandas.DataFrame([{k: v for k, v in row.items() if k != "network_covered_nats"} for row in rows])
        return frame.set_index("name")

    def plot(self, path: str | Path | None = None) -> Figure:
        """Nats a character over the order of n-gram models, networks as horizontal lines.

        Args:
            path: also write the figure there, as .png, .svg or .pdf.
        """
        figure = comparison_figure(self.lines, title=self.title)
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    def __repr__(self) -> str:
        targets = self.lines[0].evaluation.targets
        blocks = [f"{self.title}: {targets:,} targets; nats a character"]
        for head, rows, legend in tables(self.lines):
            blocks.append("\n".join([*textwrap.wrap(legend, 80), *_aligned(head, rows)]))
        return "\n\n".join([*blocks, textwrap.fill(self.summary, 80)])

    def _repr_html_(self) -> str:
        found = [f"<p>{html.escape(self.title)}, nats a character</p>"]
        for head, rows, legend in tables(self.lines):
            found.append(html_table(head, rows, left=1))
            found.append(f"<p><small>{html.escape(legend)}</small></p>" if legend else "")
        return "".join([*found, f"<p>{html.escape(self.summary)}</p>"])


def _aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they need, the first to the left; what is wider than 80 lacks MB and s, which are in JSON."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    gap = "  " if sum(widths) + 2 * len(widths) - 2 <= 80 else " "
    kept = len(head) if sum(widths) + len(widths) - 1 <= 80 else len(head) - 2
    for row in (head, *body):
        first, *rest = zip(row[:kept], widths[:kept], strict=True)
        yield gap.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()


def compare(
    text: Text,
    models: Sequence[TextModel] = (),
    *,
    part: str | None = None,
    orders: Sequence[int] = tuple(range(11)),
    smoothings: Sequence[str] = ("none", "kneser-ney"),
    mixture: bool = False,
    dynamic: bool = False,
    cache: bool = False,
    adaptive: Literal["fast", "best"] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Compares n-gram models, counted here, with other models on the held-out part of a text.

    Args:
        text: its training part is counted, its held-out part is read.
        models: further models; none may have been made from what is held out.
        part: the part that is read; by default test, else valid.
        orders: of the n-gram models, 0 to 32; none leaves them out.
        smoothings: of the n-gram models, as `--smoothing` takes them.
        mixture: also mix each model with Kneser-Ney of the best order, by weights that learn while reading.
        dynamic: also read with each network while it goes on learning.
        cache: also mix in counts of the text as it is read.
        adaptive: also read with each model and the contexts of `charlm.adaptive`, `fast` or `best`.
        progress: show bars; None shows them on a terminal or in a notebook.

    Raises:
        OptionError: a model was made from what is held out, or cannot be compared with the others.

    >>> import charlm
    >>> text = charlm.Text.of("abracadabra, alakazam! " * 40)
    >>> found = compare(text, orders=[1, 2], smoothings=["kneser-ney"])
    >>> [line.row.name for line in found.lines]
    ['Kneser-Ney, order 1', 'Kneser-Ney, order 2']
    """
    text = as_text(text)
    held = text.reported if part is None else text.part(part)
    models = as_models([models] if isinstance(models, TextModel) else models)
    if not models and not (orders and smoothings):
        raise OptionError("nothing to compare: name models, or orders and smoothings of n-gram models to count")
    notes = [said for model in models if (said := _checked(model, held)) is not None]
    rows = []
    smoothings, orders = list(dict.fromkeys(smoothings)), list(orders)
    with progress_bar(len(smoothings) * len(orders), "counting", "model", show=progress) as bar:
        for row in counted_rows(text.corpus, text.parts, held.spans, orders=orders, smoothings=smoothings):
            rows.append(row)
            bar.update()
    table = _Table(held, [model.vocab for model in models], progress)
    rows = [table.row(row, held) for row in rows]
    rows += _model_rows(models, table, orders, mixture=mixture, dynamic=dynamic, cache=cache, adaptive=adaptive)
    notes += table.notes
    if held.name == "valid" and not text.parts["test"].size and any(not model.is_baseline for model in models):
        notes.append("there is no test part: the valid part is shown, which early stopping of the networks watched")
    lines = compare_rows(rows, table.targets_N)
    return Comparison(part=held, lines=lines, notes=tuple(notes))


def _checked(model: TextModel, held: Part) -> str | None:
    """Refuses a model that was made from what is held out; says where a model was made from another text."""
    corpus, source = held.text.corpus, model.source
    if source.sha256 != corpus.sha256:
        return f"{model.name} was made from another text ({', '.join(source.names)})"
    if source.reading != corpus.reading:
        raise OptionError(f"{model.name} read this text otherwise ({source.reading}): give the same reading options")
    seen = overlap(corpus.parts(source.split)["train"], held.spans)
    if seen:
        raise OptionError(
            f"{model.name} was trained on {seen:,} of the characters that are held out here (its split is "
            f"{source.split}, this one {held.text.split}): compare with --split {source.split}"
        )
    return None


def known_models(text: Text, *, device: str = "auto") -> tuple[list[TextModel], list[str]]:
    """The networks under `checkpoints` that were trained on this text with this split, and why others are left out."""
    found, notes = [], []
    for path in sorted(Path("checkpoints").glob("*/config.json")):
        try:
            config = read_config(path.parent)
            facts = TextFacts.read(config["text"])
            if config["kind"] == "ngram" or facts.sha256 != text.corpus.sha256:
                continue
            if str(facts.split) != str(text.split) or facts.reading != text.corpus.reading:
                why = f"it was trained with split {facts.split}, this table is for {text.split}"
                notes.append(f"{path.parent} is left out: {why}")
                continue
            found.append(load(path.parent, device=device))
        except CharlmError as error:
            notes.append(f"{path.parent} is left out: {error}")
    return found, notes


class _Table:
    """The held-out part as a table of several models needs it: the same characters as targets for all of them.

    Where a vocabulary spells characters in bytes, all rows are made of whole characters. Targets that one of the models
    does not know are left out of all figures.

    Args:
        held: the part, in the text's own symbols.
        vocabs: of the models.
        progress: show bars.
    """

    def __init__(self, held: Part, vocabs: Sequence[Vocab], progress: bool | None) -> None:
        self.held, self.progress = held, progress
        own = held.text.vocab
        spelled = own.byte_fallback and any(vocab != own for vocab in vocabs)
        shown = held.under(Vocab.of(str(held.text))) if spelled and own.characters else held
        ids, places = shown.text.corpus.ids, places_of(shown.spans)
        if shown.text.vocab.byte_fallback and own.characters:
            kept, first = characters_of(places, ids, shown.text.vocab)
            places = places[kept][first]
        self.targets_N = ids[places].astype(np.int64)
        self.notes: list[str] = []
        unknown_N = np.zeros(len(self.targets_N), np.bool_)
        for vocab in dict.fromkeys(vocab for vocab in vocabs if not vocab.byte_fallback):
            seen = held.under(vocab)
            unknown_N |= targets_of(seen.text.corpus.ids, seen.spans) < 0
        if unknown_N.any():
            self.targets_N = np.where(unknown_N, -1, self.targets_N)
            self.notes.append(
                f"{int(unknown_N.sum()):,} targets are characters that one of the models does not know; they are in no "
                "figure"
            )

    def row(self, row: Row, seen: Part) -> Row:
        """A row over the targets of this table, from one over the symbols that a model read."""
        row, _ = per_character(row, seen.text.corpus.ids, seen.spans, seen.text.vocab)
        if len(row.logp_T) != len(self.targets_N):
            raise OptionError(f"{row.name} reads bytes, this table is of characters: its figures cannot stand in it")
        return row

    def read(self, model: TextModel, name: str, *, lanes: int | None = None) -> Row:
        """What one model says about the held-out part, with the time it took."""
        seen = self.held.under(model.vocab)
        begun = time.perf_counter()
        with progress_bar(len(seen), f"reading with {name}", "char", show=self.progress) as bar:
            row = row_of(
                model,
                seen.text.corpus.ids,
                seen.spans,
                name=name,
                lanes=lanes or (1 if model.is_adaptive else 64),
                progress=bar.update,
                order=getattr(model, "order", None) if model.is_baseline else None,
                **_size(model),
            )
        return self.row(replace(row, seconds=time.perf_counter() - begun), seen)

    def count(self, order: int, vocab: Vocab) -> NGramLM:
        """Kneser-Ney counts of the text's training part in the symbols of a vocabulary; histories end at characters
        that it lacks."""
        text = self.held.text
        parts = {name: text.part(name).under(vocab) for name, spans in text.parts.items() if count_targets(spans)}
        corpus = parts["train"].text.corpus
        spans = {name: _known(part.text.corpus.ids, part.spans) for name, part in parts.items()}
        none = np.zeros((0, 2), np.int64)
        if corpus.ids.dtype.kind == "i":
            corpus = replace(corpus, ids=np.maximum(corpus.ids, 0).astype(vocab.dtype))
        every = {name: spans.get(name, none) for name in text.parts}
        return count(corpus, every, order=order, smoothing="kneser-ney")


def _known(ids: Ids, spans: Spans) -> Spans:
    """The spans without unknown ids: each is cut before and after them.

    >>> _known(np.array([1, 2, -1, 3, 4]), np.array([[0, 5]])).tolist()
    [[0, 2], [3, 5]]
    """
    if ids.dtype.kind != "i" or not (ids < 0).any():
        return spans
    pieces = []
    for start, end in spans.tolist():
        edges = np.flatnonzero(np.diff(np.concatenate([[True], ids[start:end] < 0, [True]])))
        pieces.append(start + edges.reshape(-1, 2))
    return np.concatenate(pieces).astype(np.int64)


def _model_rows(
    models: Sequence[TextModel],
    table: _Table,
    orders: Sequence[int],
    *,
    mixture: bool,
    dynamic: bool,
    cache: bool,
    adaptive: Literal["fast", "best"] | None,
) -> list[Row]:
    """The rows of all models over the held-out part, in this order: static, dynamic, mixtures, with contexts."""
    text = table.held.text
    rows = [table.read(model, model.name) for model in models]
    readers = [(model.name, model) for model in models]
    if dynamic:
        networks = [model for model in models if isinstance(model, CharRNN)]
        learners = [(f"{model.name}, dynamic", learning(model, text, progress=table.progress)) for model in networks]
        rows += [table.read(model, name) for name, model in learners]
        readers += learners
    counted: dict[Vocab, NGramLM] = {}
    if mixture and models:
        order = best_order(text.corpus, text.parts, orders=list(orders) or list(range(11)), smoothing="kneser-ney")
        counted = {vocab: table.count(order, vocab) for vocab in {model.vocab for model in models}}
    for name, model in readers:
        counts = counted.get(model.vocab)
        for cached in ([False] if counts is not None else []) + ([True] if cache else []):
            mixed = mix([model] if counts is None else [model, counts], cache=cached)
            parts = [name, *([f"Kneser-Ney {counts.order}"] if counts else []), *(["cache"] if cached else [])]
            lanes = 1 if cached or model.is_adaptive else 64  # of one that learns each lane learns for itself
            rows.append(table.read(mixed, " + ".join(parts), lanes=lanes))
    for model in models if adaptive is not None else ():
        learner = with_contexts(model, text, kind=adaptive, room=len(table.held), progress=table.progress)  # type: ignore[arg-type]
        rows.append(table.read(learner, f"{model.name}, adaptive ({adaptive})"))
    return rows


def _size(model: TextModel) -> dict[str, Any]:
    """How big a model is, for one that is kept in a directory."""
    files = [] if model.directory is None or model.kind != "rnn" else [model.directory / "best.safetensors"]
    return {
        "parameters": getattr(model, "parameter_count", None),
        "bytes": sum(path.stat().st_size for path in files if path.exists()) or None,
    }
