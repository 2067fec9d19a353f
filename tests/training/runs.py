"""Runs of language models, as several tests begin them and go on with them."""

from pathlib import Path
from typing import Any

import torch

from charlm.recurrent.model import CharRNN
from charlm.text.corpus import Corpus
from charlm.text.splits import Split
from charlm.text.text import Text
from charlm.training import run
from charlm.training.language_run import LanguageTask, resume_language
from charlm.training.recipe import Plan
from charlm.training.run import Run

LanguageRun = Run[Plan, CharRNN]


def start(directory: Path | None, corpus: Corpus, split: Split, plan: Plan, device: torch.device) -> LanguageRun:
    """A new run on a corpus."""
    return run.start(LanguageTask(Text(corpus=corpus, split=split)), plan, device, directory=directory)


def resume(directory: Path, corpus: Corpus, device: torch.device, **options: Any) -> LanguageRun:
    """The run in a directory, at its newest whole state."""
    return resume_language(directory, Text(corpus=corpus, split=None), device, **options)


class Stop:
    """Asks a run to stop after so many questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0
