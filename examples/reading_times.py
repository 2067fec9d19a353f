"""Reading times: do the bits of a word say more about them than its length and its frequency do?

    python -m examples.reading_times

The text is the last tenth of the drama that comes with charlm; an n-gram model and a GRU are made from the first nine.
`charlm score --by word` gives the bits of each word, with the words given as a table of an eye tracker has them
(`--tokens`), which are checked against the text.

No one has read this text under an eye tracker: the times are simulated, with effects that are known. A word takes
220 ms, 12 ms more for each character, 15 ms less for each tenfold frequency in the first nine tenths, 4 ms more for
each bit, and chance with a deviation of 60 ms. The bits are the mean of the two models, so that neither is favoured. A
linear regression then has to find the 4 ms again. Its gain is the log-likelihood over that of length and frequency
alone; the bits of another word (the control) must gain nothing. A table of real times takes the place of `simulated`.

What came out:

    5,579 words; log-likelihood of length and frequency alone -30,907.7
    order-5 Kneser-Ney             gain   161.7; 3.79 ± 0.21 ms a bit
    GRU of 128 units               gain   144.6; 3.63 ± 0.21 ms a bit
    control: bits of another word  gain     0.1; -0.05 ± 0.13 ms a bit
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import charlm
from examples.tools import script

DRAMA = Path(__file__).parents[1] / "data" / "shakespeare.txt"
Numbers = NDArray[np.float64]


def word_bits(model: charlm.TextModel, text: str, tokens: list[str]) -> Numbers:
    """The bits of each of these words of a text, the white space before it counted; the first one has no context."""
    words = charlm.score(model, text, tokens=tokens, progress=False).found("word")[0]
    found = [word.bits for word in words if text[word.start : word.end].strip()]
    assert len(found) == len(tokens)
    return np.array(found)


def simulated(length_N: Numbers, frequency_N: Numbers, bits_N: Numbers, seed: int = 0) -> Numbers:
    """Reading times in milliseconds, as the head of this file says."""
    noise_N = np.random.default_rng(seed).normal(0, 60, len(length_N))
    return 220 + 12 * length_N - 15 * frequency_N + 4 * bits_N + noise_N


def regression(time_N: Numbers, *columns: Numbers) -> tuple[float, float, float]:
    """Least squares with an intercept: log-likelihood, the last column's coefficient, and its standard error."""
    x_NK = np.stack([np.ones_like(time_N), *columns], axis=1)
    weight_K = np.linalg.lstsq(x_NK, time_N, rcond=None)[0]
    squares, size = float(((time_N - x_NK @ weight_K) ** 2).sum()), len(time_N)
    error = math.sqrt(squares / (size - x_NK.shape[1]) * np.linalg.inv(x_NK.T @ x_NK)[-1, -1])
    return -size / 2 * (math.log(2 * math.pi * squares / size) + 1), float(weight_K[-1]), error


def main(small: bool = False) -> str:
    """Measures how much the bits of words say about simulated reading times."""
    drama = DRAMA.read_text(encoding="utf-8")[: 20_000 if small else None]
    cut = drama.index("\n", len(drama) * 9 // 10) + 1
    known, text = drama[:cut], drama[cut:]
    source = charlm.Text.of(known, split="95/5/0", vocab=charlm.Vocab.of(drama))
    shape = {"model": "gru", "layers": 1, "hidden": 8 if small else 128, "max_steps": 5 if small else 1000}
    models = {
        "order-5 Kneser-Ney": charlm.ngram(source, order=5, smoothing="kneser-ney"),
        f"GRU of {shape['hidden']} units": charlm.train(source, **shape, batch_size=32, progress=False),
    }
    tokens = text.split()
    counts = Counter(known.split())
    bits = {name: word_bits(model, text, tokens)[1:] for name, model in models.items()}
    length_N = np.array([float(len(token)) for token in tokens[1:]])
    frequency_N = np.array([math.log10(1 + counts[token]) for token in tokens[1:]])
    time_N = simulated(length_N, frequency_N, np.mean(list(bits.values()), axis=0))
    before = regression(time_N, length_N, frequency_N)[0]
    bits["control: bits of another word"] = np.roll(bits["order-5 Kneser-Ney"], len(time_N) // 2)
    lines = [f"{len(time_N):,} words; log-likelihood of length and frequency alone {before:,.1f}"]
    for name, bits_N in bits.items():
        after, effect, error = regression(time_N, length_N, frequency_N, bits_N)
        lines.append(f"{name:30} gain {after - before:7.1f}; {effect:.2f} ± {error:.2f} ms a bit")
    return "\n".join(lines)


if __name__ == "__main__":
    script(main, "reading_times")
