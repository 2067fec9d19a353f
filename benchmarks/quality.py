"""The recipes behind the published figures, each reproduced by a command.

    python -m benchmarks.quality NAME... [--seeds 3] [--text PATH]       train by recipes, measure, tabulate
    python -m benchmarks.quality evaluate DIRECTORY... [--text PATH]     all figures of runs that are there
    python -m benchmarks.quality grid [--epochs 5] [--threads 1]         {rnn, gru, lstm} x {1, 2, 3} x {64, 128, 256}
    python -m benchmarks.quality minutes TEXT=SPLIT...                   nats by minutes of training, by the defaults
    python -m benchmarks.quality list

A recipe is a list of options of `charlm train`, which runs through the command line's own code. Figures are of the
test part, or of the valid part where the split has no test part; then early stopping has watched it, as it has for most
published figures. Two of them:

- one stream: the part read once from its first character on, the state never forgotten; with a standard error
  (block bootstrap);
- windows: the mean over characters of windows of 256 characters drawn at random from the part, each read from a state
  of zero, its first character context, so that the window's targets have 1 to 256 characters of history.
  nanoGPT's 1.4697 was measured so (200 batches of 64 windows); here --windows of them, seed 0.

Every run is appended to results.jsonl in --out as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality_grid import run_grid
from benchmarks.quality_minutes import MINUTES, run_minutes
from benchmarks.quality_runs import TEXT, facts, opened, train
from charlm.errors import CharlmError
from charlm.lm.evaluate import evaluate
from charlm.lm.interface import LanguageModel, Segments, read_segments
from charlm.recurrent.dynamic import dynamic
from charlm.text.splits import Spans
from charlm.text.text import Part

WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one figure is made: a split, and the options of `charlm train`."""

    split: str
    options: tuple[str, ...]


def _options(line: str) -> tuple[str, ...]:
    return tuple(line.split())


RECIPES = {
    "minutes-0.4": Recipe(split="90/10/0", options=_options("--minutes 0.4")),
    "minutes-1": Recipe(split="90/10/0", options=_options("--minutes 1")),
    "minutes-5": Recipe(split="90/10/0", options=_options("--minutes 5")),
    "best": Recipe(
        split="90/10/0",
        options=_options(
            "--model gru --layers 3 --hidden 320 --batch-size 16 --seq-length 64 --lr 2e-3 --dropout 0.1 "
            "--weight-decay 0.01 --average 0.05 --patience 0 --epochs 5.5 --grams 0 --look-back 0 --precision fp32"
        ),
    ),
    "looking-back": Recipe(
        split="90/10/0",
        options=_options(
            "--model lstm --layers 3 --hidden 320 --batch-size 16 --seq-length 64 --lr 2.07e-3 --dropout 0.2 "
            "--weight-dropout 0 --weight-decay 0.01 --average 0.05 --patience 0 --epochs 10 --grams 0 --look-back 2048"
        ),
    ),
}


def window_segments(spans: Spans, count: int, *, length: int = WINDOW, seed: int = 0) -> Segments:
    """So many windows of a length drawn from spans, every place as likely; all targets but no context scored."""
    rooms = (spans[:, 1] - spans[:, 0] - length).clip(min=0)
    if not rooms.sum():
        raise CharlmError(f"the part has no {length + 1} characters in a row: --windows needs a longer text")
    places = np.random.default_rng(seed).integers(rooms.sum(), size=count)
    span = np.searchsorted(rooms.cumsum(), places, side="right")
    starts = spans[span, 0] + places - (rooms.cumsum() - rooms)[span]
    return np.stack([starts, starts + 1, starts + length + 1], axis=1)


def windows(model: LanguageModel, held: Part, count: int) -> dict[str, float]:
    """Mean nats over random windows, and how far that mean would scatter with other windows."""
    logp_N, _ = read_segments(model, held.text.corpus.ids, window_segments(held.spans, count), lanes=64, hits=False)
    means = -np.nanmean(logp_N.reshape(count, WINDOW), axis=1)
    return {"nats": float(means.mean()), "standard_error": float(means.std(ddof=1) / count**0.5), "windows": count}


def reproduce(name: str, seed: int, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Trains by a recipe with a seed; its row."""
    recipe = RECIPES[name]
    budget = list(recipe.options)
    if args.epochs is not None:  # to try a recipe out
        kept = [i for i in range(0, len(budget), 2) if budget[i] not in ("--epochs", "--minutes")]
        budget = [word for i in kept for word in budget[i : i + 2]] + ["--epochs", str(args.epochs)]
    where = ["--split", recipe.split, "--seed", str(seed), "--out", str(out / f"{name}-{seed}")]
    directory = train([args.text or TEXT, *budget, *where])
    checkpoint, held = opened(directory, args.text)
    stream = checkpoint.description["result"]
    row = {"name": name, "seed": seed, "part": stream["part"], "split": stream["split"], "options": " ".join(budget)}
    row |= {"nats": stream["nats"], "standard_error": stream["standard_error"]}
    row |= {"window_nats": windows(checkpoint, held, args.windows)["nats"]}
    return {**row, **facts(directory, checkpoint), "directory": str(directory)}


HEAD = "| recipe | seed | nats, one stream | nats, windows | steps | seconds | weights |\n|---|---|---|---|---|---|---|"


def line(row: dict[str, Any]) -> str:
    return (
        f"| {row['name']} | {row['seed']} | {row['nats']:.4f} ± {row['standard_error'] or 0:.4f} | "
        f"{row['window_nats']:.4f} | {row['steps']:,} | {row['seconds']:.0f} | {row['weights']:,} |"
    )


def median(rows: Sequence[dict[str, Any]]) -> str:
    """A line with the medians of a recipe's runs."""
    nats, other, seconds = (statistics.median(r[key] for r in rows) for key in ("nats", "window_nats", "seconds"))
    steps = statistics.median(row["steps"] for row in rows)
    return (
        f"| {rows[0]['name']} | median of {len(rows)} | {nats:.4f} | {other:.4f} | {steps:,.0f} | {seconds:.0f} | "
        f"{rows[0]['weights']:,} |"
    )


def keep(out: Path, row: dict[str, Any]) -> None:
    """Appends a row to results.jsonl."""
    with open(out / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def run_recipes(args: argparse.Namespace, out: Path) -> None:
    """All recipes named, all seeds, a line each, then the medians."""
    print(HEAD, flush=True)
    done: dict[str, list[dict[str, Any]]] = {}
    for name in args.names:
        for seed in range(args.seeds):
            row = reproduce(name, seed, args, out)
            keep(out, row)
            done.setdefault(name, []).append(row)
            print(line(row), flush=True)
    for rows in done.values():
        print(median(rows))


def figures_of(directory: Path, args: argparse.Namespace) -> list[tuple[str, float, float | None]]:
    """A run's figures: static as one stream and by windows, dynamic, and each mixed with counts, old and new."""
    from charlm.mixing.mixture import mix
    from charlm.ngrams.estimators import best_order
    from charlm.ngrams.fit import count

    checkpoint, held = opened(directory, args.text)
    model, corpus, ids = checkpoint, held.text.corpus, held.text.corpus.ids
    parts = corpus.parts(checkpoint.source.split)
    order = best_order(corpus, parts, orders=list(range(11)), smoothing="kneser-ney")
    counted = count(corpus, parts, order=order, smoothing="kneser-ney")
    learner = dynamic(checkpoint, held.text)
    by_windows = windows(model, held, args.windows)
    readers = {
        "static, one stream": model,
        "dynamic": learner,
        f"Kneser-Ney {order} alone": counted,
        f"static + Kneser-Ney {order}": mix([model, counted]),
        f"static + Kneser-Ney {order} + cache": mix([model, counted], cache=True),
        f"dynamic + Kneser-Ney {order}": mix([learner, counted]),
        f"dynamic + Kneser-Ney {order} + cache": mix([learner, counted], cache=True),
    }
    rows: list[tuple[str, float, float | None]] = []
    for name, reader in readers.items():
        found = evaluate(
            reader, ids, held.spans, lanes=1 if name.startswith("dynamic") or name.endswith("cache") else 64
        )
        rows.append((name, found.nats, found.standard_error))
        if reader is model:
            rows.append((f"static, {args.windows:,} windows", by_windows["nats"], by_windows["standard_error"]))
    return rows


def run_evaluate(args: argparse.Namespace) -> None:
    """A table for each run; a figure of a model that learns or mixes never stands as a static one."""
    for name in args.names[1:]:
        directory = Path(name)
        checkpoint, held = opened(directory, args.text)
        known = facts(directory, checkpoint)
        run = f"{known['weights']:,} weights, {known['steps']} steps, {known['seconds']} s"
        print(f"{directory.name}: {held.name} part of split {held.text.split}, {run}\n")
        print("| reading | nats | ± |\n|---|---|---|", flush=True)
        for reading, nats, error in figures_of(directory, args):
            print(f"| {reading} | {nats:.4f} | {error or 0:.4f} |", flush=True)
        print()


def parser() -> argparse.ArgumentParser:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("names", nargs="+", metavar="NAME", help="recipes; or evaluate, grid, minutes, list: see above")
    said.add_argument("--text", help=f"the text [default: {TEXT}; of a run that is there its own]")
    said.add_argument("--seeds", type=int, default=1, help="runs a recipe, with seeds 0, 1, ... [default: 1]")
    said.add_argument("--epochs", type=float, help="in place of a recipe's budget, to try it; of the grid [default: 5]")
    said.add_argument("--windows", type=int, default=2000, help="of 256 characters [default: 2000]")
    said.add_argument("--threads", type=int, help="torch's threads")
    said.add_argument("--out", help="where runs go [default: a new directory; of the grid checkpoints/grid]")
    said.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="of training [default: 0.2 to 10]")
    said.add_argument("--split", default="90/10/0", help="of the grid [default: 90/10/0]")
    return said


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    modes = {"list", "grid", "evaluate", "minutes"}
    unknown = [] if args.names[0] in modes else [name for name in args.names if name not in RECIPES]
    if unknown:
        raise SystemExit(f"unknown recipe {unknown[0]!r}: choose from {', '.join([*RECIPES, *sorted(modes)])}")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.names[0] == "list":
        for name, recipe in RECIPES.items():
            print(f"{name}: charlm train TEXT --split {recipe.split} {' '.join(recipe.options)}")
    elif args.names[0] == "evaluate":
        run_evaluate(args)
    elif args.names[0] == "grid":
        run_grid(args)
    elif args.names[0] == "minutes":
        run_minutes(args)
    else:
        out = Path(args.out or tempfile.mkdtemp(prefix="charlm-quality-"))
        out.mkdir(parents=True, exist_ok=True)
        run_recipes(args, out)
        print(f"\nruns and results.jsonl: {out}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except CharlmError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; grid and minutes go on where they stand with the same command") from None
