"""An n-gram model of a text that is larger than memory; nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from charlm.analysis.tuning import TUNED, tuning_parts
from charlm.errors import StorageError
from charlm.files import unwritten, write_json
from charlm.models.counted import Estimator
from charlm.models.description import TextFacts, describe_ngram, fingerprints, write_config
from charlm.models.estimators import make_estimator, tune
from charlm.text.corpus import Corpus
from charlm.text.counting.external import Progress, count_past_memory
from charlm.text.splits import Spans, Split, count_targets

__all__ = ["WORK", "count_to_directory", "was_stopped"]

WORK = "counting"
"""The directory, in that of the model, where a count keeps what it has done so far."""


def was_stopped(directory: Path) -> bool:
    """Whether a count was begun in this directory and is still to be finished."""
    return (directory / WORK).is_dir() and not (directory / "config.json").exists()


def count_to_directory(
    directory: Path,
    corpus: Corpus,
    split: Split,
    *,
    order: int,
    smoothing: str,
    memory: int,
    processes: int = 1,
    progress: Progress | None = None,
) -> Estimator:
    """Counts the training part of a corpus and keeps it as a model; see `count_past_memory`.

    What is done is kept in `counting/` until the model is whole, so that a count that was stopped goes on.

    Args:
        directory: of the model, locked by the caller.
        corpus: best with its ids mapped.
        split: which of them train.
        order: characters of history, 0 to 32.
        smoothing: as `--smoothing` takes it; its parameter is tuned where it has one.
        memory: bytes, of all processes together.
        processes: how many share the work.
        progress: told how far the work is.
    """
    parts, work = corpus.parts(split), directory / WORK
    bounded = partial(
        count_past_memory,
        corpus.ids,
        symbols=len(corpus.vocab),
        order=order,
        memory=memory,
        processes=processes,
        identity=_identity(corpus),
    )
    parameters = _parameters(corpus, parts, smoothing, order, partial(bounded, directory=work / "tuning"))
    tables = bounded(parts["train"], directory=work / "text", progress=progress)
    estimator = make_estimator(smoothing, tables, order, **parameters)
    _publish(directory, estimator, corpus, split)
    return estimator


def _identity(corpus: Corpus) -> str:
    """What tells these ids from all others: the text, how it was read, the vocabulary."""
    about = [corpus.sha256, corpus.reading.to_json(), corpus.vocab.to_json()]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _parameters(corpus: Corpus, parts: Mapping[str, Spans], smoothing: str, order: int, bounded: Any) -> dict[str, Any]:
    """The estimator's parameter, tuned as it is in memory."""
    if smoothing not in TUNED:
        return {}
    counted, tuned = tuning_parts(parts)
    if not count_targets(tuned):
        return {}
    return tune(smoothing, bounded(counted), order, corpus.ids, tuned)


def _publish(directory: Path, estimator: Estimator, corpus: Corpus, split: Split) -> None:
    """Puts the tables in their places; `config.json` comes last, and makes them a model."""
    work = directory / WORK
    try:
        for path in sorted((work / "text").glob("level-*.npy")):
            os.replace(path, directory / path.name)
        write_json(directory / "vocab.json", corpus.vocab.to_json())
        files = fingerprints(directory)
        write_config(directory, "ngram", describe_ngram(estimator), TextFacts.of(corpus, split), files=files)
        shutil.rmtree(work)
    except StorageError:
        raise
    except OSError as error:
        raise unwritten(directory, error) from None
