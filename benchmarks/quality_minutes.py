"""What each minute of training buys: `python -m benchmarks.quality minutes TEXT=SPLIT... [--minutes 0.2 0.5 1 ...]`.

Each text is trained on by `charlm train TEXT --split SPLIT --minutes M`, nothing else chosen, once for each number of
minutes. A run that minutes.jsonl in --out already has is not trained again.

Minutes are those of one machine. The operations beside them hold on any: a weight takes a product and a sum for each
character that is read, and twice as many on the way back, six in all; so does each of the 38 products and sums that a
place costs which is looked back on (32 numbers of its key, six characters).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality_grid import Row, append, read_rows
from benchmarks.quality_runs import facts, opened, train
from charlm.display import new_figure, save_figure
from charlm.errors import CharlmError
from charlm.files import write_bytes
from charlm.text.corpus import read_corpus
from charlm.text.splits import Split

MINUTES = (0.2, 0.4, 1.0, 2.0, 5.0, 10.0)
_PLACE = 38
_STYLES = (("#E69F00", "s"), ("#0072B2", "o"), ("#009E73", "^"), ("#CC79A7", "D"))  # as in `grid_picture`


def operations(weights: int, characters: int, places: int) -> float:
    """Of training on so many characters, as the head of this file counts them.

    >>> operations(1_000_000, 10, 0)
    60000000.0
    """
    return 6.0 * (weights + _PLACE * places) * characters


def run_minutes(args: argparse.Namespace) -> None:
    """Trains what is missing, and shows everything."""
    out = Path(args.out or "checkpoints/minutes")
    out.mkdir(parents=True, exist_ok=True)
    texts = dict(word.rpartition("=")[::2] for word in args.names[1:])
    if not texts or not all(texts):
        raise CharlmError("minutes takes texts with their splits: minutes PATH=90/5/5 ...")
    rows = []
    for text, split in texts.items():
        known = {"text_sha256": read_corpus([text]).sha256, "split": str(Split.parse(split))}
        for minutes in args.minutes:
            facts_of = {**known, "minutes": minutes}
            row = next((row for row in read_rows(out / "minutes.jsonl") if facts_of.items() <= row.items()), None)
            if row is None:
                row = {**facts_of, **train_minutes(text, split, minutes, out)}
                append(out / "minutes.jsonl", row)
                print(f"{row['text']}, {minutes:g} minutes: {row['nats']:.4f} nats", flush=True)
            rows.append(row)
    table = minutes_table(rows)
    write_bytes(out / "minutes.md", f"{table}\n".encode())
    draw_minutes(rows, out / "minutes.png")
    print(f"\n{table}\n\nalso in {out / 'minutes.md'}, the picture in {out / 'minutes.png'}")


def train_minutes(text: str, split: str, minutes: float, out: Path) -> Row:
    """Trains for so long by the defaults; the run's row."""
    where = out / f"{Path(text).stem}-{minutes:g}"
    directory = train([text, "--split", split, "--minutes", str(minutes), "--out", str(where)])
    checkpoint, _ = opened(directory, text)
    described: dict[str, Any] = checkpoint.description
    network, plan, known = described["model"], described["training"], facts(directory, checkpoint)
    read = known["steps"] * plan["lanes"] * plan["window"]
    row = {"text": Path(text).name, "shape": f"{network['model'].upper()} {network['layers']}x{network['hidden']}"}
    row |= {"nats": described["result"]["nats"], "standard_error": described["result"]["standard_error"]}
    row |= {"readings": read / described["text"]["characters"], "part": described["result"]["part"]}
    row |= {"operations": operations(known["weights"], read, network["look_back"]), "directory": str(directory)}
    return {**row, **known}


def minutes_table(rows: Sequence[Row]) -> str:
    """A row a run."""
    lines = [
        "| text | minutes | network | weights | readings of the text | operations | nats |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['text']} | {row['minutes']:g} | {row['shape']} | {row['weights']:,} | {row['readings']:.2f} | "
        f"{row['operations']:.1e} | {row['nats']:.4f} ± {row['standard_error'] or 0:.4f} |"
        for row in rows
    ]
    return "\n".join(lines)


def draw_minutes(rows: Sequence[Row], picture: Path) -> None:
    """Nats against minutes beside nats against operations, a line a text; replaced whole or not at all."""
    figure = new_figure(9.0, 4.4)
    panels = figure.subplots(1, 2, sharey=True)
    texts = list(dict.fromkeys(row["text"] for row in rows))
    for panel, across in zip(panels, ("minutes", "operations"), strict=True):
        for number, text in enumerate(texts):
            colour, marker = _STYLES[number % len(_STYLES)]
            line = sorted((row[across], row["nats"]) for row in rows if row["text"] == text)
            panel.plot(*zip(*line, strict=True), color=colour, marker=marker, label=text)
        panel.set_xscale("log")
        panel.set_xlabel(across)
        panel.grid(alpha=0.2)
    ticks = sorted({row["minutes"] for row in rows})
    panels[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[0].minorticks_off()
    panels[0].set_ylabel("nats a character, held out (lower is better)")
    panels[0].legend(frameon=False)
    save_figure(figure, picture)
