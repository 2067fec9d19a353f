"""Killing a training process at random moments changes nothing in what it ends with."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charlm.files import free_name

KILLS = 20
STEPS = 400


def weights(directory: Path) -> str:
    return hashlib.sha256((directory / "last.safetensors").read_bytes()).hexdigest()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "charlm", "train", *map(str, arguments), "--save-every", "0.02"]


def newest_step(directory: Path) -> int:
    steps = [int(path.stem.removeprefix("state-")) for path in directory.glob("state-*.safetensors")]
    return max(steps, default=0)


def kill_and_resume(text: Path, options: tuple[object, ...], directory: Path, chance: random.Random, kills: int) -> int:
    """Runs to the end with so many kills on the way; gives how many there were."""
    done = 0
    fresh = command(text, *options, "--out", directory)
    while True:
        again = command("--resume", directory) if newest_step(directory) else fresh
        if again is fresh and directory.exists():
            directory.rename(free_name(directory.with_name("killed-before-its-first-state")))
        process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done < kills:
            goal = newest_step(directory) + chance.randint(0, STEPS // (kills + 4))
            while process.poll() is None and newest_step(directory) <= goal:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        if process.returncode == 0:
            return done
        assert process.returncode == -signal.SIGKILL, err
        done += 1


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("backend", ["fused"])
def test_twenty_kills_leave_no_trace(tmp_path: Path, verse: Path, cell: str, backend: str) -> None:
    options = (
        "--model", cell, "--layers", 2, "--hidden", 24, "--dropout", 0.4, "--batch-size", 5, "--seq-length", 20,
        "--max-steps", STEPS, "--seed", 7, "--device", "cpu", "--backend", backend,
    )  # fmt: skip
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    subprocess.run(command(verse, *options, "--out", whole), check=True, capture_output=True)
    kills = kill_and_resume(verse, options, pieces, random.Random(cell), KILLS)
    assert kills == KILLS
    assert weights(whole) == weights(pieces)
    rows = [
        [_without_seconds(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (whole, pieces)
    ]
    assert rows[0] == rows[1]


def _without_seconds(line: str) -> str:
    return line.split(', "seconds"', maxsplit=1)[0]
