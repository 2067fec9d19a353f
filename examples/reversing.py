"""Reversing a string: an encoder reads it, and a decoder that begins with the encoder's last state writes it backwards.

Source and target have lengths of their own; the target ends when the decoder writes its end.

    python -m examples.reversing
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.text.vocab import Vocab
from examples.tools import picture, script, train
from examples.translator import TranslationConfig, TranslationObjective, Translator

LETTERS = "abcdefghij"


def words(count: int, longest: int, seed: int) -> list[str]:
    """Random strings of 1 to `longest` letters."""
    chance = np.random.default_rng(seed)
    return ["".join(chance.choice(list(LETTERS), size=chance.integers(1, longest + 1))) for _ in range(count)]


def main(small: bool = False) -> str:
    """Trains on random strings and says how many others come out exactly reversed."""
    count, longest, hidden, epochs = (400, 4, 32, 10) if small else (20_000, 12, 128, 20)
    known = words(count, longest, 0)
    vocab = Vocab.of(LETTERS)
    model = Translator(vocab, vocab, TranslationConfig(cell="gru", hidden=hidden))
    examples = model.examples(known, [word[::-1] for word in known])
    train(TranslationObjective(model, examples, batch=128), epochs=epochs, lr=5e-3)
    others = [word for word in words(2000, longest, 1) if word not in set(known) or len(word) < 4]
    made = model.translate(others)
    right = {length: [] for length in range(1, longest + 1)}
    for word, back in zip(others, made, strict=True):
        right[len(word)].append(back == word[::-1])
    whole = np.mean([good for goods in right.values() for good in goods])
    lines = [f"GRU encoder and decoder of {hidden} units, {count:,} strings of 1 to {longest} letters, {epochs} epochs"]
    lines += [f"{word} -> {back}" for word, back in list(zip(others, made, strict=True))[:5]]
    lines.append(
        f"exactly reversed: {whole:.1%} of {len(others):,} strings (those of four letters and more were never seen)"
    )
    shares = {length: 100 * float(np.mean(goods)) for length, goods in right.items() if goods}
    lines.append("by length: " + ", ".join(f"{length}: {share:.0f} %" for length, share in shares.items()))
    if not small:

        def draw(axes: Any) -> None:
            axes.bar(list(shares), list(shares.values()), color="#47a")
            axes.set(xlabel="letters", ylabel="exactly reversed (%)", ylim=(0, 103), title="Reversing strings")

        picture("reversing", draw)
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "reversing")
