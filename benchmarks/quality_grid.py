"""The grid of Karpathy, Johnson and Fei-Fei (2015), small, beside n-grams: `python -m benchmarks.quality grid`.

{rnn, gru, lstm} x {1, 2, 3 layers} x {64, 128, 256 units}, each trained by `charlm train` for the same number of epochs
with the same lanes and windows, without dropout, early stopping and what stands beside the layers; then n-grams of
orders 1 to 10 and 20, unsmoothed with their coverage, and Kneser-Ney. The order counts characters of history. A cell
that grid.jsonl in --out already has is not trained again, one that was interrupted goes on where its last saved state
is.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.grid_picture import GridCell, draw_grid
from benchmarks.quality_runs import TEXT, facts, opened, train
from charlm.files import write_bytes
from charlm.lm.compare import compare_rows
from charlm.lm.evaluate import targets_of
from charlm.ngrams.fit import counted_rows
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.splits import Split, count_targets
from charlm.training.recipe import rate

MODELS, LAYERS, HIDDEN = ("rnn", "gru", "lstm"), (1, 2, 3), (64, 128, 256)
ORDERS = [*range(1, 11), 20]
OPTIONS = ("--batch-size=32", "--seq-length=64", "--dropout=0", "--weight-decay=0.01", "--patience=0", "--seed=0")
ALONE = ("--grams=0", "--look-back=0", "--precision=fp32")  # recurrent layers and nothing else, the same on any CPU

Row = dict[str, Any]


def run_grid(args: argparse.Namespace) -> None:
    """Trains what is missing, counts, and shows everything."""
    out = Path(args.out or "checkpoints/grid")
    out.mkdir(parents=True, exist_ok=True)
    text, epochs = args.text or TEXT, 5.0 if args.epochs is None else args.epochs
    corpus, split = read_corpus([text]), Split.parse(args.split)
    facts_of = {"text_sha256": corpus.sha256, "split": str(split), "epochs": epochs}
    rows = [row for row in read_rows(out / "grid.jsonl") if all(row[key] == value for key, value in facts_of.items())]
    done = {row["name"] for row in rows}
    for model, layers, hidden in itertools.product(MODELS, LAYERS, HIDDEN):
        name = f"{model}-{layers}x{hidden}"
        if name not in done:
            row = {**facts_of, **train_cell(name, model, layers, hidden, text, epochs, split, out)}
            append(out / "grid.jsonl", row)
            rows.append(row)
            print(f"{name}: {row['nats']:.4f} nats, {row['seconds']} s", flush=True)
    counted = count_orders(corpus, split)
    tables = f"{network_table(rows)}\n\n{ngram_table(counted)}\n"
    write_bytes(out / "grid.md", tables.encode())
    picture(rows, counted, out / "grid.png", f"{Path(text).name}, split {split}, {epochs:g} epochs each")
    print(f"\n{tables}\nalso in {out / 'grid.md'}, the picture in {out / 'grid.png'}")


def read_rows(path: Path) -> list[Row]:
    """The results so far; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(path: Path, row: Row) -> None:
    """Adds a result, on a line of its own even behind one that was cut off."""
    broken = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
    with open(path, "a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + json.dumps(row) + "\n")


def train_cell(
    name: str, model: str, layers: int, hidden: int, text: str, epochs: float, split: Split, out: Path
) -> Row:
    """Trains one network, or goes on with it; its result."""
    directory = out / f"{name}-{epochs:g}"
    if list(directory.glob("state-*.safetensors")):
        directory = train(["--resume", str(directory), text])
    else:
        shape = ["--model", model, "--layers", str(layers), "--hidden", str(hidden)]
        budget = ["--epochs", str(epochs), "--lr", str(rate(model, layers, hidden)), "--split", str(split)]
        directory = train([text, *shape, *budget, *OPTIONS, *ALONE, "--out", str(directory)])
    checkpoint, _ = opened(directory, text)
    result = checkpoint.description["result"]
    row = {"name": name, "model": model, "layers": layers, "hidden": hidden, "lr": rate(model, layers, hidden)}
    row |= {"nats": result["nats"], "standard_error": result["standard_error"], "part": result["part"]}
    return {**row, **facts(directory, checkpoint), "directory": str(directory)}


def count_orders(corpus: Corpus, split: Split) -> list[Row]:
    """N-grams of every order: coverage and nats there where unsmoothed, nats on all targets by Kneser-Ney."""
    parts = corpus.parts(split)
    held = parts["test"] if count_targets(parts["test"]) else parts["valid"]
    rows = list(counted_rows(corpus, parts, held, orders=ORDERS, smoothings=("none", "kneser-ney")))
    lines = compare_rows(rows, targets_of(corpus.ids, held))
    bare = {line.row.order: line for line in lines if line.row.smoothing == "none"}
    smooth = {line.row.order: line for line in lines if line.row.smoothing != "none"}
    return [
        {
            "order": order,
            "ngrams": bare[order].row.ngrams,
            "coverage": bare[order].coverage,
            "covered_nats": bare[order].covered_nats,
            "train_nats": bare[order].row.train_nats,
            "nats": smooth[order].evaluation.nats,
            "standard_error": smooth[order].evaluation.standard_error,
        }
        for order in ORDERS
    ]


def network_table(rows: Sequence[Row]) -> str:
    """A row a shape, a column a cell; the best of all in bold."""
    found = {(row["model"], row["layers"], row["hidden"]): row for row in rows}
    best = min((row["nats"] for row in rows), default=0)
    lines = [f"| layers x units | {' | '.join(m.upper() for m in MODELS)} |", "|---|" + "---|" * len(MODELS)]
    for layers, hidden in itertools.product(LAYERS, HIDDEN):
        there = [found.get((model, layers, hidden)) for model in MODELS]
        shown = ["-" if row is None else f"{row['nats']:.4f} ({row['weights']:,})" for row in there]
        bold = [f"**{s}**" if row and row["nats"] == best else s for s, row in zip(shown, there, strict=True)]
        lines.append(f"| {layers} x {hidden} | {' | '.join(bold)} |")
    return "\n".join(lines) + "\n\nNats a character on the held-out part, one stream (weights in brackets)."


def ngram_table(counted: Sequence[Row]) -> str:
    """A row an order; the best of Kneser-Ney in bold."""
    best = min(row["nats"] for row in counted)
    lines = [
        "| order | n-grams | unsmoothed: targets covered | nats on those | on its training text | Kneser-Ney, nats |",
        "|---|---|---|---|---|---|",
    ]
    for row in counted:
        smooth = f"**{row['nats']:.4f}**" if row["nats"] == best else f"{row['nats']:.4f}"
        covered = "-" if row["covered_nats"] is None else f"{row['covered_nats']:.4f}"
        lines.append(
            f"| {row['order']} | {row['ngrams']:,} | {100 * row['coverage']:.2f} % | {covered} | "
            f"{row['train_nats']:.4f} | {smooth} |"
        )
    note = "Unsmoothed counting gives the other targets probability zero: on all of them its nats are infinite."
    return "\n".join(lines) + f"\n\n{note}"


def picture(rows: Sequence[Row], counted: Sequence[Row], path: Path, title: str) -> None:
    """The networks with Kneser-Ney of the orders up to its best as levels."""
    cells = [GridCell(**{key: row[key] for key in ("model", "layers", "hidden", "nats")}) for row in rows]
    best = min(counted, key=lambda row: row["nats"])["order"]
    levels = {f"Kneser-Ney {row['order']}": row["nats"] for row in counted if row["order"] <= best}
    draw_grid(cells, levels, path, title=title)
