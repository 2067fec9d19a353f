"""The suffix index against a dict of Counters: time, memory, size, scoring, sampling.

    python -m benchmarks.ngram_speed TEXT [--rounds 3] [--order 10] [--big CHARACTERS]

Every contestant is run in a process of its own, in turns, so that memory is its own and a slow moment of the
machine hits all alike; the best of the rounds is printed. Memory is the process's peak less what it had after the
text was read.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np


def peak() -> int:
    """Most bytes this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def corpus_of(path: str):
    from charlm.text.corpus import read_corpus

    corpus = read_corpus([path])
    cut = int(0.9 * len(corpus))
    return corpus, np.array([[0, cut]]), np.array([[cut, len(corpus)]])


def dict_of_counters(text: str, order: int) -> dict[str, Counter[str]]:
    """The textbook's n-gram model of one order."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for i in range(len(text) - order):
        counts[text[i : i + order]][text[i + order]] += 1
    return counts


def run_dict(path: str, order: int) -> dict[str, float]:
    text = Path(path).read_text()
    before, since = peak(), time.perf_counter()
    counts = dict_of_counters(text, order)
    result = {"build": time.perf_counter() - since, "memory": peak() - before}
    history, made, draw = text[:order], 0, random.Random(0)
    since = time.perf_counter()
    while time.perf_counter() - since < 2:
        for _ in range(1000):
            following = counts.get(history)
            if not following:
                history = text[:order]
                continue
            x = draw.random() * following.total()
            for character, count in following.items():  # noqa: B007 - the one it stops at is drawn
                x -= count
                if x <= 0:
                    break
            history = history[1:] + character
            made += 1
    result["sampled"] = made / (time.perf_counter() - since)
    return result


def run_index(path: str, method: str) -> dict[str, float]:
    from charlm.ngrams.index import SuffixIndex

    corpus, _, _ = corpus_of(path)
    before, since = peak(), time.perf_counter()
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=len(corpus.vocab), method=method)
    result = {"build": time.perf_counter() - since, "memory": peak() - before}
    with tempfile.TemporaryDirectory() as name:
        index.save(Path(name))
        result["size"] = sum(file.stat().st_size for file in Path(name).iterdir()) / len(corpus)
        since = time.perf_counter()
        SuffixIndex.load(Path(name), symbols=len(corpus.vocab))
        result["load"] = time.perf_counter() - since
    return result


def run_levels(path: str, order: int) -> dict[str, float]:
    """The tables that scoring and sampling use, of the same order as the dict and all below."""
    from charlm.ngrams.index import SuffixIndex

    corpus, _, _ = corpus_of(path)
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=len(corpus.vocab))
    since = time.perf_counter()
    index.levels[order].total_H  # noqa: B018
    return {"levels": time.perf_counter() - since}


def run_score(path: str, estimator: str) -> dict[str, float]:
    from charlm.ngrams.estimators import ngram_rows
    from charlm.ngrams.index import SuffixIndex

    corpus, train, held_out = corpus_of(path)
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab))
    since = time.perf_counter()
    rows = list(ngram_rows(index, corpus.vocab, estimator, range(11), corpus.ids, held_out))
    assert len(rows) == 11
    return {"score": time.perf_counter() - since}


def run_sample(path: str, order: int, streams: int, estimator: str) -> dict[str, float]:
    import torch

    from charlm.lm.interface import SamplingRule
    from charlm.ngrams.index import SuffixIndex
    from charlm.ngrams.model import NGramLM

    corpus, _, _ = corpus_of(path)
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=len(corpus.vocab))
    model = NGramLM(vocab=corpus.vocab, index=index, order=order, estimator=estimator)
    noise = torch.from_numpy(np.random.default_rng(0).random((256, streams)))
    ids_B, state = torch.full((streams,), corpus.newline or 0), model.initial_state(streams)
    made, since = 0, 0.0
    while not since or time.perf_counter() - since < 2:
        ids_TB, _, state = model.generate(ids_B, state, len(noise), SamplingRule(), noise)
        ids_B = ids_TB[-1]
        made += ids_TB.numel() if since else 0
        since = since or time.perf_counter()  # the first round makes the tables
    return {"sampled": made / (time.perf_counter() - since)}


def run_kneser_ney(path: str, method: str) -> dict[str, float]:
    """From text to the held-out number, 5 characters of history."""
    from charlm.ngrams.estimators import ngram_rows
    from charlm.ngrams.index import SuffixIndex

    since = time.perf_counter()
    corpus, train, held_out = corpus_of(path)
    index = SuffixIndex.build(corpus.ids, train, symbols=len(corpus.vocab), method=method)
    (row,) = ngram_rows(index, corpus.vocab, "kneser-ney", [5], corpus.ids, held_out, hits=False, training=False)
    nats = -float(row.logp_T.mean())
    return {"seconds": time.perf_counter() - since, "perplexity": float(np.exp(nats))}


def run_big(characters: int, method: str) -> dict[str, float]:
    """A generated text of words over 60 symbols, indexed, saved, opened and asked."""
    from charlm.ngrams.index import SuffixIndex

    rng = np.random.default_rng(0)
    words = [rng.integers(0, 60, rng.integers(2, 10)) for _ in range(20_000)]
    pool = np.concatenate([np.append(word, 60) for word in words]).astype(np.uint8)
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    ids, at = np.empty(characters, dtype=np.uint8), 0
    while at < characters:
        for word in (rng.zipf(1.2, 100_000) - 1) % len(words):
            piece = pool[starts[word] : starts[word + 1]][: characters - at]
            ids[at : at + len(piece)] = piece
            at += len(piece)
    before, since = peak(), time.perf_counter()
    index = SuffixIndex.build(ids, np.array([[0, characters]]), symbols=61, method=method)
    result = {"build": time.perf_counter() - since, "memory": peak() - before}
    with tempfile.TemporaryDirectory() as name:
        index.save(Path(name))
        del index
        since = time.perf_counter()
        opened = SuffixIndex.load(Path(name), symbols=61)
        result["load"] = time.perf_counter() - since
        since = time.perf_counter()
        for _ in range(100):
            start = int(rng.integers(0, characters - 8))
            opened.followers(ids[start : start + 8].tolist())
        result["query"] = (time.perf_counter() - since) / 100
    return result


RUNS = {
    "dict": run_dict,
    "index": run_index,
    "levels": run_levels,
    "score": run_score,
    "sample": run_sample,
    "kneser-ney": run_kneser_ney,
    "big": run_big,
}


def measure(name: str, *arguments: object) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ngram_speed", "--run", json.dumps([name, *arguments])]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    """The best of several rounds: the highest rate, the lowest of all else."""
    return {key: (max if key == "sampled" else min)(run[key] for run in runs) for key in runs[0]}


def in_turns(contestants: dict[str, tuple[object, ...]], rounds: int) -> dict[str, dict[str, float]]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, arguments in contestants.items():
            runs[name].append(measure(*arguments))
    return {name: best(found) for name, found in runs.items()}


def report(path: str, order: int, rounds: int) -> None:
    from charlm.ngrams.suffixes import fast_available

    methods = ["numpy", *(["fast"] if fast_available() else [])]
    contestants: dict[str, tuple[object, ...]] = {"dict": ("dict", path, order)}
    contestants |= {method: ("index", path, method) for method in methods}
    contestants |= {"levels": ("levels", path, order)}
    contestants |= {f"score {name}": ("score", path, name) for name in ("none", "kneser-ney")}
    contestants |= {f"sample {streams}": ("sample", path, order, streams, "none") for streams in (1, 64, 1024)}
    contestants |= {f"sample kn {streams}": ("sample", path, 6, streams, "kneser-ney") for streams in (1, 64)}
    contestants |= {f"kn {method}": ("kneser-ney", path, method) for method in methods}
    found = in_turns(contestants, rounds)
    text = found["dict"]
    print(f"dict of Counters, order {order}: {text['build']:.2f} s, {text['memory'] / 1e6:.0f} MB")
    for method in methods:
        index = found[method]
        faster, smaller = text["build"] / index["build"], text["memory"] / index["memory"]
        print(
            f"index of orders 0..32, {method}: {index['build']:.2f} s ({faster:.1f} times as fast), "
            f"{index['memory'] / 1e6:.0f} MB (a {smaller:.1f}th), saved {index['size']:.3f} bytes a character, "
            f"opened in {index['load'] * 1000:.1f} ms"
        )
    print(f"tables of orders 0..{order} from the index: {found['levels']['levels']:.2f} s")
    for name in ("none", "kneser-ney"):
        print(f"the last tenth scored at orders 0..10, {name}: {found[f'score {name}']['score']:.2f} s")
    print(f"dict samples {text['sampled']:,.0f} characters a second")
    for streams in (1, 64, 1024):
        rate = found[f"sample {streams}"]["sampled"]
        print(f"index, {streams} streams: {rate:,.0f} a second ({rate / text['sampled']:.1f} times the dict)")
    for streams in (1, 64):
        print(f"Kneser-Ney of order 6, {streams} streams: {found[f'sample kn {streams}']['sampled']:,.0f} a second")
    for method in methods:
        run = found[f"kn {method}"]
        print(f"Kneser-Ney of order 5, text to number, {method}: {run['seconds']:.2f} s, {run['perplexity']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--order", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--big", type=int, help="index a generated text of so many characters instead")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *arguments = json.loads(options.run)
        print(json.dumps(RUNS[name](*arguments)))
    elif options.big:
        run = measure("big", options.big, options.method)
        print(
            f"{options.big:,} characters: {run['build']:.1f} s, {run['memory'] / options.big:.1f} bytes a character at "
            f"the peak, opened in {run['load'] * 1000:.0f} ms, asked in {run['query'] * 1000:.2f} ms"
        )
    elif options.text:
        report(options.text, options.order, options.rounds)
    else:
        parser.error("name a text, or --big CHARACTERS")


if __name__ == "__main__":
    main()
