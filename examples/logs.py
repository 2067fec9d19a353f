"""Strange lines in a log: a language model that has read ordinary lines finds those that are not.

The log is made here: a few kinds of lines of a small server, with times, users, paths and sizes. The strange ones are
of five kinds: an action that the user's role never does, a size far out of range, words in the wrong order, a path
with characters that do not belong, a mistyped word. The language model has never seen one.

    python -m examples.logs

Three detectors: the Score of a line alone (its mean probability per character); its least likely character; and a
small network on both and on the line's hidden features, trained on forty labelled lines.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import fit_scales
from charlm.sequences.metrics import area_under_curve
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import SequenceObjective
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.training.language import Lanes, LanguageObjective
from examples.tools import picture, script, train

READERS, WRITERS = ("ada", "ben", "cleo"), ("dora", "emil")
PAGES = ("index", "news", "prices", "contact", "archive/2024", "archive/2025")


def ordinary(chance: random.Random) -> str:
    """A line as the server writes it: readers only read, writers save, backups are counted in megabytes."""
    time = f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}"
    kind = chance.random()
    page = chance.choice(PAGES)
    if kind < 0.5:
        return f"{time} GET /{page} 200 user={chance.choice(READERS + WRITERS)} ms={chance.randrange(2, 60)}"
    if kind < 0.75:
        return f"{time} PUT /{page} 204 user={chance.choice(WRITERS)} ms={chance.randrange(20, 200)}"
    if kind < 0.9:
        address = f"10.0.{chance.randrange(4)}.{chance.randrange(256)}"
        return f"{time} login user={chance.choice(READERS + WRITERS)} from={address}"
    return f"{time} backup done files={chance.randrange(900, 1000)} size={chance.randrange(200, 300)}MB"


def strange(chance: random.Random) -> str:
    """A line with something wrong in it."""
    line = ordinary(chance)
    kind = chance.randrange(5)
    if kind == 0:
        return (
            f"{line[:8]} PUT /{chance.choice(PAGES)} 204 user={chance.choice(READERS)} ms={chance.randrange(20, 200)}"
        )
    if kind == 1:
        return f"{line[:8]} backup done files={chance.randrange(10)} size={chance.randrange(1000, 9000)}MB"
    if kind == 2:
        words = line.split(" ")
        return " ".join([words[0], *reversed(words[1:])])
    if kind == 3:
        return (
            f"{line[:8]} GET /{chance.choice(PAGES)}%27--{chance.randrange(99)} 200 user={chance.choice(READERS)} ms=9"
        )
    place = chance.randrange(9, len(line) - 3)
    return line[:place] + line[place + 1] + line[place] + line[place + 2 :]


def mixed(chance: random.Random, count: int) -> tuple[list[str], list[bool]]:
    """So many lines of which every tenth is strange, and which those are."""
    odd = [number % 10 == 0 for number in range(count)]
    return [strange(chance) if wrong else ordinary(chance) for wrong in odd], odd


def language_model(lines: list[str], epochs: int) -> CharRNN:
    """A GRU that has read the lines."""
    corpus = corpus_of_text("".join(line + "\n" for line in lines))
    parts = corpus.parts(Split.parse("90/10/0"))
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=96))
    model.stack.backend = "fused"
    lanes = Lanes(corpus.ids, parts["train"], lanes=16, window=50, seed=0)
    train(LanguageObjective(model, lanes, corpus.ids, parts["valid"]), epochs=epochs, lr=5e-3)
    return model


def told(model: CharRNN, line: str) -> tuple[float, float]:
    """The mean nats a character of a line (−ln Score), and the bits of its least likely character.

    A character that the model does not know counts for nothing in the mean, and as very unlikely in the other.
    """
    ids = torch.from_numpy(model.vocab.encode("\n" + line, unknown=True).astype(np.int64)).unsqueeze(-1)
    with torch.no_grad():
        logp_TB, _ = model.target_logprobs(ids[:-1], ids[1:].clamp(min=0), model.initial_state(1))
    known_TB = ids[1:] >= 0
    worst = torch.where(known_TB, logp_TB, torch.tensor(-12.0)).min()
    return float(-logp_TB[known_TB].double().mean()), float(-worst / np.log(2))


@torch.no_grad()
def mean_outputs(model: CharRNN, lines: list[str]) -> np.ndarray:
    """The mean of the top layer's outputs over the characters of each line, [N, D]."""
    table = None if model.embedding is None else model.embedding.weight
    outputs = [
        model.stack(torch.from_numpy(model.vocab.encode(line, unknown=True)).long()[:, None], table=table)[0]
        for line in lines
    ]
    return np.stack([y_T1D.mean(0)[0].numpy() for y_T1D in outputs])


def detector(features: np.ndarray, labels: list[bool], epochs: int) -> SequenceModel:
    """A Score from one vector a line (one step: one to one)."""
    data = Examples(
        inputs=Sequences.of_rows(features), targets=Sequences.of_numbers([float(label) for label in labels])
    )
    small = SequenceModel(cell="gru", mode="score", hidden=8, features=features.shape[1], dropout=0.3).config
    model = SequenceModel(fit_scales(small, data, inputs="z-score"))
    train(SequenceObjective(model, data, batch=20), epochs=epochs, lr=0.01, weight_decay=0.1)
    return model


def main(small: bool = False) -> str:
    """Trains the language model and compares the detectors."""
    chance = random.Random(0)
    model = language_model([ordinary(chance) for _ in range(200 if small else 4000)], 2 if small else 12)
    few = [strange(chance) if number % 2 else ordinary(chance) for number in range(40)]
    asked, odd = mixed(chance, 200 if small else 2000)

    def features(lines: list[str]) -> np.ndarray:
        return np.hstack([[told(model, line) for line in lines], mean_outputs(model, lines)[:, ::8]])

    known, found = features(few), features(asked)
    fitted = detector(known, [number % 2 == 1 for number in range(40)], 5 if small else 60)
    score = torch.stack(list(fitted.predict(Sequences.of_rows(found))))[:, 0, 0].numpy()
    ways = {
        "Score of the line": found[:, 0],
        "its least likely character": found[:, 1],
        "both and hidden features, 40 labels": score,
    }
    lines = [
        f"{len(asked):,} lines, one in ten strange; a GRU of 96 units has read {200 if small else 4000:,} ordinary ones"
    ]
    lines += [f"{name:36} area under the curve {area_under_curve(values, odd):.4f}" for name, values in ways.items()]
    lines.append("the strangest by their least likely character:")
    order = np.argsort(-found[:, 1])[:5]
    lines += [f"  {found[number, 1]:5.1f} bits  {asked[number]}" for number in order]
    if not small:

        def draw(axes: Any) -> None:
            for wanted, color, label in ((False, "#58a", "ordinary"), (True, "#c40", "strange")):
                picked = [number for number, value in enumerate(odd) if value is wanted]
                axes.scatter(found[picked, 0], found[picked, 1], s=7, color=color, label=label, alpha=0.6)
            axes.set(xlabel="nats a character (−ln Score)", ylabel="least likely character (bits)")
            axes.set_title("Lines of a log as a language model sees them")
            axes.legend(frameon=False)

        picture("logs", draw)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "logs")
