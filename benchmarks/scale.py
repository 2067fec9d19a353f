"""What a character costs, and how that grows: training, sampling and counting over decades of size.

    python -m benchmarks.scale [--threads 2] [--json FILE] [--only training] [--quick]

Training: seconds a character of a whole step (forward, loss, backward, clip, Adam) against hidden size, layers, lanes
and vocabulary. Sampling: seconds a character against hidden size and streams. Counting: seconds a character of a
suffix index and of Kneser-Ney, in memory and past it, against the characters of the text. Medians.
An exponent is the slope of log cost against log size by least squares over the sizes shown; as some growth begins only
past some size, the slope of the upper half stands beside it. Printed as Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import sample_speed, train_speed
from charlm.lm.interface import SamplingRule
from charlm.ngrams.fit import count, count_within
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import Corpus, corpus_of_text
from charlm.text.splits import Split
from charlm.text.text import Text
from charlm.text.vocab import Vocab

Case = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the cost of a character grows with one size, all others fixed.

    Args:
        work: training, sampling or counting.
        what: which, as in a table's heading.
        against: the size that varies.
        sizes: its values.
        seconds: of one character, at each.
    """

    work: str
    what: str
    against: str
    sizes: list[int]
    seconds: list[float]

    def exponent(self, upper: bool = False) -> float:
        """The slope of log seconds against log size; of the upper half of the sizes if asked."""
        begin = (len(self.sizes) - 1) // 2 if upper else 0
        x, y = np.log(self.sizes[begin:]), np.log(self.seconds[begin:])
        return float(np.polyfit(x, y, 1)[0])


def median_seconds(case: Case, least: float = 1.0) -> float:
    """The median time of a case, after one run that warms up."""
    case()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        begun = time.perf_counter()
        case()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def training(cell: str, against: str, sizes: Sequence[int]) -> Growth:
    """Seconds a character of a training step; what does not vary is 256 units, one layer, 32 lanes, 65 symbols."""
    fixed = {"hidden": 256, "layers": 1, "lanes": 32}
    seconds = []
    for size in sizes:
        shape = {**fixed, against: size} if against != "vocabulary" else fixed
        symbols = train_speed.SYMBOLS
        train_speed.SYMBOLS = size if against == "vocabulary" else symbols
        try:
            step, _ = train_speed.ours(train_speed.Size(cell=cell, steps=64, **shape))
            seconds.append(median_seconds(step) / (64 * shape["lanes"]))
        finally:
            train_speed.SYMBOLS = symbols
    return Growth(work="training", what=cell, against=against, sizes=list(sizes), seconds=seconds)


def sampling(cell: str, against: str, sizes: Sequence[int]) -> Growth:
    """Seconds a character that is drawn; what does not vary is 256 units, one layer, one stream."""
    fixed, seconds = {"hidden": 256, "streams": 1}, []
    vocab = Vocab.of("".join(chr(256 + i) for i in range(sample_speed.SYMBOLS)))
    for size in sizes:
        shape = {**fixed, against: size}
        model = CharRNN(vocab, RNNConfig(model=cell, hidden=shape["hidden"]))
        streams, steps = shape["streams"], max(64, 2048 // shape["streams"])
        ids, state = torch.zeros(streams, dtype=torch.long), model.initial_state(streams)
        noise = torch.rand(steps, streams, dtype=torch.float64)

        def draw(model: CharRNN = model, ids: torch.Tensor = ids, state=state, steps=steps, noise=noise) -> object:
            return model.generate(ids, state, steps, SamplingRule(), noise)

        seconds.append(median_seconds(draw) / (steps * streams))
    return Growth(work="sampling", what=cell, against=against, sizes=list(sizes), seconds=seconds)


def markov_text(characters: int, seed: int = 0) -> str:
    """Text of made-up words whose frequencies fall as Zipf's law has it: no plain repetition, 28 symbols."""
    chance = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(chance.choice(letters, chance.integers(2, 10))) for _ in range(20_000)]
    weights = 1 / np.arange(1, len(words) + 1)
    drawn = chance.choice(len(words), size=characters // 5, p=weights / weights.sum())
    text = " ".join(words[word] + ("\n" if word % 17 == 0 else "") for word in drawn)
    return text[:characters]


def counting(smoothing: str, order: int, sizes: Sequence[int], memory: int | None = None) -> Growth:
    """Seconds a character of the text to build a model: index and tables, in memory or within a limit on the disk."""
    split, seconds = Split.parse("100/0/0"), []
    whole = markov_text(max(sizes))
    for size in sizes:
        corpus = corpus_of_text(whole[:size])
        begun = time.perf_counter()
        _build(corpus, split, smoothing, order, memory)
        seconds.append((time.perf_counter() - begun) / size)
    what = f"{smoothing}, order {order}" + ("" if memory is None else f", within {memory >> 20} MiB")
    return Growth(work="counting", what=what, against="characters", sizes=list(sizes), seconds=seconds)


def _build(corpus: Corpus, split: Split, smoothing: str, order: int, memory: int | None) -> None:
    if memory is None:
        model = count(corpus, corpus.parts(split), order=order, smoothing=smoothing)
        ids = torch.from_numpy(corpus.ids[:64].astype(np.int64)).unsqueeze(-1)
        model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))  # what is made on first use is part of it
        return
    with tempfile.TemporaryDirectory() as scratch:
        text = Text(corpus=corpus, split=split)
        count_within(memory, Path(scratch) / "model", text, order=order, smoothing=smoothing)


def table(growths: Sequence[Growth]) -> str:
    """Markdown: a row a growth and size decade."""
    lines = ["| work | against | sizes | µs a character | exponent | upper half |", "|---|---|---|---|---|---|"]
    for g in growths:
        sizes, costs = " ".join(f"{size:,}" for size in g.sizes), " ".join(f"{1e6 * s:.3g}" for s in g.seconds)
        lines.append(
            f"| {g.work}, {g.what} | {g.against} | {sizes} | {costs} | {g.exponent():.2f} | {g.exponent(True):.2f} |"
        )
    return "\n".join(lines)


def plans(quick: bool) -> dict[str, list[Callable[[], Growth]]]:
    """What is measured; `quick` only shows that it runs."""
    hidden = [16, 32] if quick else [16, 32, 64, 128, 256, 512, 1024]
    lanes, layers, symbols = (
        ([1, 2], [1, 2], [8, 16]) if quick else ([1, 4, 16, 64, 256], [1, 2, 4, 8], [16, 65, 256, 1024, 8192])
    )
    texts = [2_000, 20_000] if quick else [10**5, 10**6, 10**7, 10**8]
    limited = [20_000, 40_000] if quick else [10**6, 10**7, 10**8]
    cells = ["gru"] if quick else ["rnn", "gru", "lstm"]
    return {
        "training": [
            *(lambda cell=cell: training(cell, "hidden", hidden) for cell in cells),
            lambda: training("gru", "layers", layers),
            lambda: training("gru", "lanes", lanes),
            lambda: training("gru", "vocabulary", symbols),
        ],
        "sampling": [
            *(lambda cell=cell: sampling(cell, "hidden", hidden) for cell in cells),
            lambda: sampling("gru", "streams", lanes),
        ],
        "counting": [
            lambda: counting("none", 8, texts),
            lambda: counting("kneser-ney", 5, texts[:-1] if not quick else texts),
            lambda: counting("none", 5, limited, memory=512 << 20),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", action="append", choices=["training", "sampling", "counting"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    growths = []
    for work, measures in plans(given.quick).items():
        for measure in measures if work in (given.only or [work]) else []:
            growths.append(measure())
            print(table(growths[-1:]).splitlines()[-1], flush=True)
    print(f"\n{given.threads} threads\n\n{table(growths)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(g) for g in growths], indent=1, allow_nan=False) + "\n")
    assert all(math.isfinite(g.exponent()) for g in growths)


if __name__ == "__main__":
    main()
