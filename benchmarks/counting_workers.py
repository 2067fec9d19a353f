"""Counting with local Dask workers: seconds, and the peak anonymous memory of every process.

    python -m benchmarks.counting_workers [--size 1000000000] [--order 5] [--workers 1 2] [--memory 2048]

The text is that of `benchmarks.counting_engines`. `--memory` is MiB for each process that counts. One worker is this
process without Dask.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.counting_engines import SYMBOLS, text_of
from charlm.ngrams.past_memory import count_past_memory


def anonymous() -> dict[int, int]:
    """MiB of this process and of its children, by process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            parents[int(path.parent.name)] = int(facts["PPid"]), int(facts.get("RssAnon", "0").split()[0]) >> 10
        except OSError:
            continue
    ours = {os.getpid()}
    for _ in range(3):
        ours |= {process for process, (parent, _) in parents.items() if parent in ours}
    return {process: parents[process][1] for process in ours if process in parents}


def main() -> None:
    options = argparse.ArgumentParser(description="Counting with local workers.")
    options.add_argument("--size", type=int, default=10**9)
    options.add_argument("--order", type=int, default=5)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--memory", type=int, default=2048, help="MiB for each process that counts")
    options.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "counting-engines")
    given = options.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    ids = np.load(text_of(given.scratch, given.size), mmap_mode="r")
    for workers in given.workers:
        peaks: dict[int, int] = {}
        done = threading.Event()

        def watch(peaks: dict[int, int] = peaks, done: threading.Event = done) -> None:
            while not done.wait(0.1):
                for process, held in anonymous().items():
                    peaks[process] = max(peaks.get(process, 0), held)

        threading.Thread(target=watch, daemon=True).start()
        directory = Path(tempfile.mkdtemp(dir=given.scratch))
        spans, memory, load = np.array([[0, given.size]]), workers * given.memory << 20, os.getloadavg()[0]
        begun = time.perf_counter()
        count_past_memory(
            ids, spans, symbols=SYMBOLS, order=given.order, directory=directory, memory=memory, processes=workers
        )
        seconds = time.perf_counter() - begun
        done.set()
        held = " ".join(f"{peak:,}" for peak in sorted(peaks.values(), reverse=True) if peak > 20)
        print(
            f"{given.size:,} characters, order {given.order}, {workers} workers, {given.memory:,} MiB: {seconds:.1f} s"
            f" (load {load:.1f} at the beginning); MiB of the processes: {held}",
            flush=True,
        )
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
