"""Kills a training process at random moments, resumes it each time, and compares its end with that of one left alone.

    python -m benchmarks.kills [--cell gru] [--kills 200] [--minutes 60] [--backend fused] [--text data/shakespeare.txt]

Every kill is a SIGKILL some steps after the process began to write states, or before it wrote its first. Printed: the
kills made, those before the first state, the time, and whether the SHA-256 of the last weights and the rows of the
learning curve (but for seconds) are the same. Exit 1 where they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from charlm.files import free_name


@dataclass(frozen=True, kw_only=True)
class Survived:
    """What a run went through: kills, how many of them came before the first state, seconds in all."""

    kills: int
    early: int
    seconds: float


def options_of(cell: str, steps: int, backend: str = "fused") -> tuple[object, ...]:
    """A small run with every kind of dropout and averaged weights, whose every choice is made by hand."""
    return (
        "--model", cell, "--layers", 2, "--hidden", 24, "--dropout", 0.4, "--weight-dropout", 0.2,
        "--input-dropout", 0.1, "--average", 0.1, "--batch-size", 5, "--seq-length", 20,
        "--max-steps", steps, "--seed", 7, "--device", "cpu", "--backend", backend,
    )  # fmt: skip


def command(*arguments: object) -> list[str]:
    """`charlm train` with a state every few steps."""
    return [sys.executable, "-m", "charlm", "train", *map(str, arguments), "--save-every", "0.02"]


def newest_step(directory: Path) -> int:
    """The step of the newest state; 0 where there is none."""
    steps = [int(path.stem.removeprefix("state-")) for path in directory.glob("state-*.safetensors")]
    return max(steps, default=0)


def weights(directory: Path) -> str:
    """The SHA-256 of the last weights."""
    return hashlib.sha256((directory / "last.safetensors").read_bytes()).hexdigest()


def curve(directory: Path) -> list[dict[str, object]]:
    """The rows of the learning curve without the seconds."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def kill_and_resume(
    text: Path, options: tuple[object, ...], directory: Path, *, kills: int, steps: int, seed: str, until: float = 1e18
) -> Survived:
    """Trains to the end with so many kills on the way, or with those made until a moment of `time.monotonic`."""
    chance, started = random.Random(seed), time.monotonic()
    done = early = 0
    while True:
        resumes = newest_step(directory) > 0
        if not resumes and directory.exists():
            directory.rename(free_name(directory.with_name("killed-before-its-first-state")))
            early += 1
        arguments = ("--resume", directory) if resumes else (text, *options, "--out", directory)
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done < kills and time.monotonic() < until:
            goal = newest_step(directory) + chance.randint(0, max(steps // (kills + 4), 1))
            while process.poll() is None and newest_step(directory) <= goal:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        if process.returncode == 0:
            return Survived(kills=done, early=early, seconds=time.monotonic() - started)
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"exit {process.returncode} after {done} kills: {err}")
        done += 1


def main() -> int:
    """Runs both and prints what came out."""
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cell", default="gru", choices=["rnn", "gru", "lstm"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60, help="no further kill after this time")
    parser.add_argument("--backend", default="fused")
    parser.add_argument("--text", type=Path, default=root / "data" / "shakespeare.txt")
    given = parser.parse_args()
    steps = 20 * given.kills
    options = options_of(given.cell, steps, given.backend)
    with tempfile.TemporaryDirectory() as scratch:
        text, whole, pieces = (Path(scratch) / name for name in ("text", "whole", "pieces"))
        text.write_text(given.text.read_text(encoding="utf-8")[:6000], encoding="utf-8")
        begun = time.monotonic()
        subprocess.run(command(text, *options, "--out", whole), check=True, capture_output=True)
        alone, until = time.monotonic() - begun, time.monotonic() + 60 * given.minutes
        found = kill_and_resume(text, options, pieces, kills=given.kills, steps=steps, seed=given.cell, until=until)
        same = weights(whole) == weights(pieces), curve(whole) == curve(pieces)
        left = sorted(path.name for path in pieces.glob(".*"))
        print(f"{given.cell}, backend {given.backend}, {steps:,} steps; left alone {alone:.0f} s")
        print(f"{found.kills} kills in {found.seconds:.0f} s, {found.early} of them before the first state")
        print(f"last weights the same: {same[0]} ({weights(pieces)}); learning curve the same: {same[1]}")
        print(f"temporary files left: {left or 'none'}")
    return 0 if all(same) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
