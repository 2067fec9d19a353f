"""charlm: character-level language models, counted and recurrent, on one protocol.

>>> import charlm
>>> text = charlm.Text.of("the quick brown fox jumps over the lazy dog. " * 30)
>>> model = charlm.ngram(text, order=3, smoothing="kneser-ney")
>>> model.next("the q").top(1)[0][0]
'u'

Importing this package loads nothing heavy: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.checkpoint import load
    from charlm.checks import selfcheck
    from charlm.comparison import Comparison, compare
    from charlm.compression import Compressed, compress, decompress
    from charlm.files import __version__
    from charlm.info import describe, machine
    from charlm.listing import runs
    from charlm.lm.evaluate import Evaluation
    from charlm.lm.interface import LanguageModel
    from charlm.lm.model import TextModel
    from charlm.lm.scored import score
    from charlm.mixing.adaptive import adaptive
    from charlm.mixing.mixture import mix
    from charlm.ngrams.fit import ngram
    from charlm.ngrams.model import NGramLM
    from charlm.nn.cells import Cell
    from charlm.pages.export import export
    from charlm.pages.report import report
    from charlm.recurrent.dynamic import dynamic
    from charlm.recurrent.inspection import inspect
    from charlm.sequences.estimators import SequenceClassifier, SequenceScorer
    from charlm.sequences.fit import fit_table
    from charlm.sequences.predict import predict_table
    from charlm.text.cache import cache
    from charlm.text.catalog import get
    from charlm.text.profile import profile
    from charlm.text.splits import Split
    from charlm.text.text import Part, Text, read_text
    from charlm.text.vocab import Vocab
    from charlm.training.train import train

_HOMES = {
    "Cell": "charlm.nn.cells",
    "Comparison": "charlm.comparison",
    "Compressed": "charlm.compression",
    "Evaluation": "charlm.lm.evaluate",
    "LanguageModel": "charlm.lm.interface",
    "Part": "charlm.text.text",
    "SequenceClassifier": "charlm.sequences.estimators",
    "SequenceScorer": "charlm.sequences.estimators",
    "Split": "charlm.text.splits",
    "Text": "charlm.text.text",
    "TextModel": "charlm.lm.model",
    "Vocab": "charlm.text.vocab",
    "__version__": "charlm.files",
    "adaptive": "charlm.mixing.adaptive",
    "cache": "charlm.text.cache",
    "compare": "charlm.comparison",
    "compress": "charlm.compression",
    "decompress": "charlm.compression",
    "describe": "charlm.info",
    "dynamic": "charlm.recurrent.dynamic",
    "export": "charlm.pages.export",
    "fit_table": "charlm.sequences.fit",
    "get": "charlm.text.catalog",
    "inspect": "charlm.recurrent.inspection",
    "load": "charlm.checkpoint",
    "machine": "charlm.info",
    "mix": "charlm.mixing.mixture",
    "ngram": "charlm.ngrams.fit",
    "predict_table": "charlm.sequences.predict",
    "profile": "charlm.text.profile",
    "read_text": "charlm.text.text",
    "report": "charlm.pages.report",
    "runs": "charlm.listing",
    "score": "charlm.lm.scored",
    "selfcheck": "charlm.checks",
    "train": "charlm.training.train",
}

__all__ = [
    "Cell",
    "CharlmError",
    "Comparison",
    "Compressed",
    "Evaluation",
    "LanguageModel",
    "Part",
    "SequenceClassifier",
    "SequenceScorer",
    "Split",
    "Text",
    "TextModel",
    "Vocab",
    "__version__",
    "adaptive",
    "cache",
    "compare",
    "compress",
    "decompress",
    "describe",
    "dynamic",
    "export",
    "fit_table",
    "get",
    "inspect",
    "load",
    "machine",
    "merge",
    "mix",
    "ngram",
    "predict_table",
    "profile",
    "read_text",
    "report",
    "runs",
    "score",
    "selfcheck",
    "train",
]


def merge(
    models: Sequence[NGramLM | str | Path],
    *,
    out: str | Path,
    tune_on: str | Path | None = None,
    memory: int | str = "1G",
) -> NGramLM:
    """Adds up the counts of n-gram models; the result equals counting all their training parts in one piece.

    Args:
        models: two or more of one order, smoothing and way of reading, or the directories where they are kept. Their
            vocabularies may differ: ids are matched by character.
        out: directory for the model; a taken name becomes NAME-2.
        tune_on: a held-out text on which the parameter of add-k or uniform-mix is tuned; needed where the models differ
            in it.
        memory: bytes to sort within, beside what the models that are not in files take.

    Returns:
        The model, whose counts are tables in `out`.

    Raises:
        OptionError: models whose counts cannot be added up exactly.

    >>> import tempfile, charlm
    >>> a, b = (charlm.ngram(charlm.Text.of(text, split="100/0/0"), order=1) for text in ("abab", "bcb"))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     [(symbol, round(p, 2)) for symbol, p in charlm.merge([a, b], out=directory + "/m").next("b").top(2)]
    [('a', 0.5), ('c', 0.5)]
    """
    from charlm.checkpoint import load
    from charlm.ngrams.fit import merged
    from charlm.ngrams.model import NGramLM

    opened = [load(model) if isinstance(model, (str, Path)) else model for model in models]
    model = load(merged(opened, out=out, tune_on=tune_on, memory=memory))
    assert isinstance(model, NGramLM)
    return model


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'charlm' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
