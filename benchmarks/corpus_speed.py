"""How fast a text of a gigabyte is encoded, how fast it is found again, and how much memory that takes.

The text is generated for the measurement and deleted afterwards. Encoding and the second start each run in a
process of their own, whose anonymous memory (`RssAnon`: what it asked for, without mapped files) is sampled.

    python benchmarks/corpus_speed.py [--size 1000] [--kind ascii|mixed] [--repeat 3] [--directory /tmp]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORK = """
import sys, time
from charlm.text.corpus import read_corpus
began = time.perf_counter()
corpus = read_corpus([sys.argv[1]])
seconds = time.perf_counter() - began
print(seconds, len(corpus), len(corpus.vocab), corpus.ids.dtype)
"""


def generate(path: Path, size: int, kind: str) -> None:
    """Writes `size` bytes of lines of random words; `mixed` has characters of one to four bytes."""
    rng = np.random.default_rng(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    if kind == "mixed":
        letters += "äöüßéèαβγабв漢字仮名😀"
    words = ["".join(letters[i] for i in rng.integers(len(letters), size=n)) for n in rng.integers(2, 10, size=5000)]
    lines = [" ".join(words[i] for i in rng.integers(len(words), size=10)) for _ in range(50_000)]
    encoded = [f"{line.capitalize()}.\n".encode() for line in lines]
    left = size
    with open(path, "wb") as file:
        while left > 0:
            block = b"".join(encoded[i] for i in rng.integers(len(encoded), size=100_000))
            file.write(block if len(block) <= left else b"\n" * left)
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())  # so that writing the text out is not measured with the reading


def measure(path: Path, cache: Path) -> tuple[float, int, str]:
    """Seconds, peak anonymous memory in bytes, and what was read, of one process that reads the text."""
    child = subprocess.Popen(
        [sys.executable, "-c", WORK, str(path)],
        env={**os.environ, "CHARLM_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]) << 10)
        time.sleep(0.005)
    assert child.stdout is not None
    seconds, *about = child.stdout.read().split()
    if child.wait() != 0:
        raise SystemExit("the reading process failed")
    return float(seconds), peak, f"{int(about[0]):,} characters, vocabulary {about[1]}, {about[2]}"


def main() -> None:
    options = argparse.ArgumentParser(description="Encoding speed and memory for a big text.")
    options.add_argument("--size", type=int, default=1000, help="megabytes (10^6) of text")
    options.add_argument("--kind", choices=["ascii", "mixed"], default="ascii")
    options.add_argument("--repeat", type=int, default=3, help="runs of each; the fastest and slowest are shown")
    options.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        path, cache = Path(name) / "text", Path(name) / "cache"
        generate(path, given.size * 10**6, given.kind)
        size = path.stat().st_size
        for what in ("encoding", "second start"):
            runs = []
            for _ in range(given.repeat):
                if what == "encoding":
                    shutil.rmtree(cache, ignore_errors=True)
                runs.append(measure(path, cache))
            seconds = sorted(run[0] for run in runs)
            print(
                f"{given.kind} {size:,} bytes, {what}: {seconds[0]:.2f} to {seconds[-1]:.2f} s, "
                f"{size / seconds[0] / 1e6:.0f} to {size / seconds[-1] / 1e6:.0f} MB/s, "
                f"peak RssAnon {max(run[1] for run in runs) / 1e6:.0f} MB ({runs[0][2]})",
                flush=True,
            )


if __name__ == "__main__":
    main()
