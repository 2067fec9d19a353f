"""Damaged and hostile directories of language models: opened, used and gone on with."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import torch

from charlm.checkpoint import TextFacts, load
from charlm.info import describe
from charlm.lm.interface import SamplingRule
from charlm.ngrams.fit import count
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.training.recipe import choose
from tests.fuzz.common import TEXT, Tally, change_files, restore
from tests.helpers import keep
from tests.training.runs import resume, start

CORPUS = corpus_of_text(TEXT)
SPLIT = Split.parse("80/10/10")
CPU = torch.device("cpu")


def make_run(directory: Path) -> None:
    """A run of a tiny network that was interrupted."""
    given = {
        "model": "lstm",
        "hidden": 3,
        "embedding": 2,
        "grams": 5,
        "look_back": 6,
        "lanes": 2,
        "window": 8,
        "max_steps": 6,
        "backend": "reference",
    }
    directory.mkdir()
    asked = iter([False] * 3)
    plan = choose(200, CPU, {**given, "layers": 1, "dropout": 0.1})
    start(directory, CORPUS, SPLIT, plan, CPU).train(should_stop=lambda: next(asked, True))


def make_ngram(directory: Path, smoothing: str) -> None:
    """Counts of a short text."""
    model = count(CORPUS, CORPUS.parts(SPLIT), order=3, smoothing=smoothing)
    keep(directory, model, TextFacts.of(CORPUS, SPLIT))


def use(directory: Path) -> None:
    """Opens a model, says what it is, scores and generates a few characters."""
    model = load(directory)
    repr(describe(directory))
    ids = torch.arange(6).unsqueeze(1) % len(model.vocab)
    with torch.no_grad():
        model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
        first = torch.tensor([model.start])
        model.generate(first, model.initial_state(1), 6, SamplingRule(), torch.full((6, 1), 0.5))


def go_on(directory: Path) -> None:
    """Goes on with a run for a step."""
    asked = iter([False])
    resume(directory, CORPUS, CPU).train(should_stop=lambda: next(asked, True))


def fuzz_checkpoints(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many changed directories, of each kind in turn."""
    make_run(scratch / "rnn")
    for name in ("none", "kneser-ney"):
        make_ngram(scratch / name, name)
    with contextlib.suppress(OSError):
        (scratch / "rnn" / "curve.png").unlink()
    kinds = {"network": ("rnn", use), "run": ("rnn", go_on), "n-gram": ("none", use), "Kneser-Ney": ("kneser-ney", use)}
    before = {name: {p.name: p.read_bytes() for p in (scratch / name).iterdir()} for name, _ in kinds.values()}
    for case in range(number):
        chance = random.Random(f"{seed}/{case}")
        kind = chance.choice(sorted(kinds))
        name, act = kinds[kind]
        about = change_files(scratch / name, chance)
        tally.case(kind, lambda act=act, name=name: act(scratch / name), f"case {case}: {about}")  # type: ignore[misc]
        restore(scratch / name, before[name])
