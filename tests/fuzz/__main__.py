"""Damaged and hostile checkpoints, texts and tables, and odd command lines: a result, or one sentence.

    python -m tests.fuzz [--checkpoints N] [--texts N] [--tables N] [--commands N] [--fits N] [--seed 0]

Checkpoints (`fuzz_models`: the directory of a network or of an n-gram model, the newest state of a run) are changed
in their bytes, in their JSON, in their tensors and arrays (with right checksums, as a hostile writer would), and in
what their names stand for. What opens is also used: a few characters are scored and generated. Texts (`fuzz_texts`)
are changed in their bytes and read in memory and as a stream, which have to agree, then split and cut into lanes.
Tables (`fuzz_tables`) become tasks that a fresh model predicts; command lines (`fuzz_commands`) are run whole;
directories of sequence models (`fuzz_fits`) are changed like checkpoints, predicted from and gone on with.

A case is right when it ends within ten seconds in a result or a `CharlmError` of one line. Memory may grow by 256 MB
over what is used before the first case; the system refuses address space far beyond that. Printed: a table of outcomes,
the slowest case, the growth. Exit status 1 where anything else happens.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from tests.fuzz.common import Tally
from tests.fuzz.fuzz_commands import fuzz_commands
from tests.fuzz.fuzz_fits import fuzz_fits
from tests.fuzz.fuzz_models import fuzz_checkpoints
from tests.fuzz.fuzz_tables import fuzz_tables
from tests.fuzz.fuzz_texts import fuzz_texts

GROWTH = 256 << 20


def fuzz(checkpoints: int, texts: int, seed: int, *, tables: int = 0, commands: int = 0, fits: int = 0) -> Tally:
    """All of them, in a directory of their own."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz_checkpoints(checkpoints, seed, Path(name), tally)
        fuzz_texts(texts, seed, Path(name), tally)
        if tables:
            fuzz_tables(tables, seed, Path(name), tally)
        if commands:
            fuzz_commands(commands, seed, Path(name), tally)
        if fits:
            fuzz_fits(fits, seed, Path(name), tally)
    return tally


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--fits", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    fuzz(40, 40, -1, tables=40, commands=40, fits=40)  # everything is imported and warm
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * GROWTH, resource.RLIM_INFINITY))
    begun = time.perf_counter()
    tally = fuzz(
        given.checkpoints, given.texts, given.seed, tables=given.tables, commands=given.commands, fits=given.fits
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    for (kind, outcome), times in sorted(tally.outcomes.items()):
        print(f"{kind:12} {outcome:16} {times:>7,}")
    print(f"{time.perf_counter() - begun:.0f} s, the slowest case {tally.slowest:.2f} s")
    print(f"memory grew by {grown / 2**20:.0f} MiB (bound {GROWTH >> 20}); {len(tally.wrong)} wrong")
    shown: Counter[str] = Counter()
    for wrong in tally.wrong:
        line = wrong.strip().splitlines()[-1][:80]
        shown[line] += 1
        if shown[line] == 1:
            print("\n" + wrong)
    for line, times in shown.items():
        print(f"{times} x {line}")
    return int(bool(tally.wrong) or grown > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
