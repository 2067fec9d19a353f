"""Which language is it? Text to a Distribution, from 96 sentences written for the example.

The network reads pieces put together from 72 sentences and is asked about 24 others, 6 of each language, of which it
sees the first 5, 10, 20, 40 or 80 characters: the longer, the surer. The same table works from the command line:

    python -m examples.languages
    charlm fit examples/languages.tsv --mode distribution
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm.sequences import Examples, Sequences
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import SequenceObjective
from charlm.text.vocab import Vocab
from examples.tools import picture, script, train

TABLE = Path(__file__).with_name("languages.tsv")
OWN = (
    "Where have you put the lamp?",
    "Wo hast du die Lampe hingestellt?",
    "Où as-tu mis la lampe ?",
    "¿Dónde está la luz?",
)


def table() -> tuple[list[str], list[str]]:
    """The sentences and their languages."""
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    return [row[0] for row in rows], [row[1] for row in rows]


def pieces(sentences: list[str], count: int, seed: int) -> list[str]:
    """Up to four words of one sentence and up to four of another, at most 40 characters: thousands from a few."""
    chance = random.Random(seed)
    words = [sentence.split(" ") for sentence in sentences]
    made = []
    for _ in range(count):
        first, second = chance.choice(words), chance.choice(words)
        i, j = chance.randrange(len(first)), chance.randrange(len(second))
        made.append(" ".join(first[i : i + chance.randrange(1, 5)] + second[j : j + chance.randrange(1, 5)])[:40])
    return made


def said(model: SequenceModel, texts: list[str], vocab: Vocab) -> np.ndarray:
    """The probabilities of the languages for each text."""
    return torch.stack(list(model.predict(Sequences.of_texts(texts, vocab))))[:, 0].numpy()


def main(small: bool = False) -> str:
    """Fits the detector and says how many sentences it knows by their first characters."""
    sentences, languages = table()
    names = sorted(set(languages))
    labels = [names.index(language) for language in languages]
    kept = [number for number in range(len(sentences)) if number % 4]
    held = [number for number in range(len(sentences)) if number % 4 == 0]
    vocab = Vocab.of("".join(sentences[number] for number in kept))
    count = 100 if small else 1500
    texts, targets = [], []
    for label in range(len(names)):
        texts += pieces([sentences[number] for number in kept if labels[number] == label], count, label)
        targets += [label] * count
    examples = Examples(inputs=Sequences.of_texts(texts, vocab), targets=Sequences.of_labels(targets))
    model = SequenceModel(cell="gru", mode="distribution", classes=len(names), hidden=64, dropout=0.4, vocab=vocab)
    train(SequenceObjective(model, examples, batch=64), epochs=2 if small else 8, lr=4e-3, weight_decay=0.05)
    lines = [
        f"GRU of 64 units; {len(kept)} sentences in {len(texts):,} pieces to learn from, {len(held)} others asked about"
    ]
    shares = {}
    for length in (5, 10, 20, 40, 80):
        p = said(model, [sentences[number][:length] for number in held], vocab)
        shares[length] = float(np.mean(p.argmax(1) == [labels[number] for number in held]))
        lines.append(f"first {length:2} characters: {shares[length]:.0%} right")
    for text, p in zip(OWN, said(model, list(OWN), vocab), strict=True):
        lines.append(f"{text:36} " + ", ".join(f"{name} {share:.2f}" for name, share in zip(names, p, strict=True)))
    if not small:

        def draw(axes: Any) -> None:
            every = said(model, [OWN[2][: n + 1] for n in range(len(OWN[2]))], vocab)
            for number, name in enumerate(names):
                axes.plot(range(len(OWN[2])), every[:, number], label=name)
            axes.set_xticks(range(len(OWN[2])), list(OWN[2]))
            axes.set(ylabel="probability", ylim=(0, 1.02), title="What the detector thinks after each character")
            axes.legend(frameon=False)

        picture("languages", draw, width=8)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "languages")
