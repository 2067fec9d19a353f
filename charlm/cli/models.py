"""What the commands that read a model share: opening it, its text, its backend, and what may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.checkpoint import Checkpoint
    from charlm.recurrent.dynamic import DynamicLM
    from charlm.text.corpus import Corpus
    from charlm.text.splits import Spans, Split

__all__ = ["HeldOut", "dynamic_of", "held_out", "open_model", "part_of"]


def open_model(directory: str | Path, device: str = "auto") -> Checkpoint:
    """A language model ready to read and generate, run the fastest way for one stream."""
    from charlm.checkpoint import load
    from charlm.nn.kernels.choose import for_reading
    from charlm.recurrent.model import CharRNN
    from charlm.training.recipe import pick_device

    checkpoint = load(directory, device=pick_device(device))
    if isinstance(checkpoint.model, CharRNN):
        checkpoint.model.stack.backend = for_reading(checkpoint.model.device)
    return checkpoint


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A part of a text as one model sees it.

    Args:
        corpus: the text in the model's symbols.
        split: under which it was divided; None where all of a foreign text is read.
        part: train, valid, test or all.
        spans: what is read.
    """

    corpus: Corpus
    split: Split | None
    part: str
    spans: Spans

    def to_json(self) -> dict[str, Any]:
        """The facts that stand beside a figure."""
        split = None if self.split is None else str(self.split)
        return {"split": split, "part": self.part, "text_sha256": self.corpus.sha256}


def held_out(checkpoint: Checkpoint, texts: list[str], part: str | None) -> HeldOut:
    """The part of a text that a model is measured on: of its own text test, else valid; of a foreign one all.

    Args:
        checkpoint: the model.
        texts: files; read as the model's own text was.
        part: train, valid, test or all, where the user named one.
    """
    from charlm.text.corpus import read_corpus

    return part_of(checkpoint, read_corpus(texts, checkpoint.text.reading, vocab=checkpoint.model.vocab), part)


def part_of(checkpoint: Checkpoint, corpus: Corpus, part: str | None) -> HeldOut:
    """The same of a text that was read already, in the model's symbols."""
    from charlm.text.splits import count_targets

    if corpus.sha256 != checkpoint.text.sha256:
        if part not in (None, "all"):
            raise OptionError(
                f"{corpus.title} is not the text that {checkpoint.name} was made from, so it has no {part} part there: "
                "leave --split-part away, or take all"
            )
        return HeldOut(corpus=corpus, split=None, part="all", spans=_whole(corpus))
    split = checkpoint.text.split
    if part is None:
        part = "test" if count_targets(corpus.parts(split)["test"]) else "valid"
        if not count_targets(corpus.parts(split)[part]):
            raise OptionError(
                f"{checkpoint.name} was made from all of {corpus.title}: name --split-part train, or another text"
            )
    return HeldOut(corpus=corpus, split=split, part=part, spans=corpus.part(split, part))


def _whole(corpus: Corpus) -> Spans:
    from charlm.text.splits import count_targets

    if not count_targets(corpus.documents):
        raise CharlmError(f"{corpus.title} has no character to predict: the first one is context alone")
    return corpus.documents


def dynamic_of(checkpoint: Checkpoint, corpus: Corpus) -> DynamicLM:
    """A network as one that goes on learning while it reads; its gradients are measured on its training part alone.

    Args:
        checkpoint: the network.
        corpus: what will be read, in the model's symbols. Where the network was made from another text, that one
            is read again from its files.
    """
    from charlm.recurrent.dynamic import DynamicConfig, DynamicLM, gradient_sizes
    from charlm.recurrent.model import CharRNN

    if not isinstance(checkpoint.model, CharRNN):
        raise OptionError(f"{checkpoint.name} is not a recurrent network: only those go on learning while they read")
    own = corpus if corpus.sha256 == checkpoint.text.sha256 else _own_text(checkpoint)
    config, samples = DynamicConfig(), 256
    train = own.part(checkpoint.text.split, "train")
    with progress_bar(samples, "measuring gradients on the training part", "segment") as bar:
        sizes = gradient_sizes(
            checkpoint.model, own.ids, train, segment=config.segment, samples=samples, progress=bar.update
        )
    return DynamicLM(checkpoint.model, sizes, config)


def _own_text(checkpoint: Checkpoint) -> Corpus:
    """The text that a model was made from, read again."""
    from charlm.text.corpus import read_corpus

    names, problem = list(checkpoint.text.names), "it has changed since"
    try:
        corpus = read_corpus(names, checkpoint.text.reading, vocab=checkpoint.model.vocab)
        if corpus.sha256 == checkpoint.text.sha256:
            return corpus
    except CharlmError as error:
        problem = str(error)
    raise CheckpointError(
        f"--dynamic needs the text that {checkpoint.name} was trained on, {', '.join(names)}: {problem}; bring it back"
    )
