"""Counting past memory: our sorted runs against a group-by in DuckDB and in Polars' streaming engine.

    pip install duckdb polars pyarrow
    python -m benchmarks.counting_engines [--sizes 10000000 ...] [--orders 4 8 12] [--memory 512 2048] [--scratch DIR]

All contestants make the same files from the same text: the tables of all orders up to n that every smoothing reads,
strings that end at a span's end included (continuation counts are read off them). All pack the strings of n + 1 symbols
into 64-bit words with `Packing` and write the sorted strings with `write_tables`; what differs is how equal strings
are added up and sorted in between. The files' bytes are compared.

The text is one of chance: 20,000 made-up words of 2 to 9 letters, drawn by Zipf's law (word r with probability in
proportion to 1/r), so that few strings are very frequent and most are rare, in eight spans of equal length.
Every measurement is a process of its own on one core: seconds of wall time, the peak of its anonymous memory (RssAnon,
every 10 ms) and of its files on the disk (every 100 ms). DuckDB is told a limit 150 MiB below the bound, for what it
does not count itself: the interpreter, numpy, the batches that go in. Polars has no such setting.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from charlm.ngrams.past_memory import count_past_memory, write_tables
from charlm.ngrams.strings import Packing, SpannedText, Strings

SYMBOLS = 28
PIECE = 1 << 20  # keys in one batch


def text_of(scratch: Path, size: int) -> Path:
    """The file of a text's ids, made where it is missing."""
    path = scratch / f"text-{size}.npy"
    if path.exists():
        return path
    chance = np.random.default_rng(0)
    words = [chance.integers(0, 26, chance.integers(2, 10)) for _ in range(20_000)]
    words = [np.append(word, 26 + (number % 17 == 0)).astype(np.uint8) for number, word in enumerate(words)]
    weights = 1 / np.arange(1, len(words) + 1)
    ids = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(size,))
    at = 0
    while at < size:
        drawn = chance.choice(len(words), 500_000, p=weights / weights.sum())
        block = np.concatenate([words[word] for word in drawn.tolist()])[: size - at]
        ids[at : at + len(block)] = block
        at += len(block)
    ids.flush()
    return path


def batches(text: SpannedText, packing: Packing) -> Iterator[list[Any]]:
    """The words of all keys of a text, piece by piece; separators are left out."""
    for start in range(0, len(text), PIECE):
        end = min(start + PIECE, len(text))
        words = packing.keys(text.codes(start, end + packing.depth - 1))
        some = words[0] > 0
        yield [word[some] for word in words]


def duckdb_strings(text: SpannedText, packing: Packing, mib: int, scratch: Path) -> Iterator[Strings]:
    import duckdb
    import pyarrow as pa

    names = [f"w{word}" for word in range(packing.words)]
    columns = ", ".join(names)
    connection = duckdb.connect(str(scratch / "database"))
    connection.execute(
        f"set memory_limit='{mib - 150}MiB'; set threads=1; set preserve_insertion_order=false; "
        f"set temp_directory='{scratch / 'spilled'}'"
    )
    schema = pa.schema([(name, pa.uint64()) for name in names])
    given = (pa.record_batch([pa.array(word) for word in words], names) for words in batches(text, packing))
    connection.register("keys", pa.RecordBatchReader.from_batches(schema, given))
    query = f"select {columns}, count(*) as n from keys group by {columns} order by {columns}"
    for batch in connection.execute(query).to_arrow_reader(1 << 17):
        *words, counts = (column.to_numpy() for column in batch.columns)
        yield Strings(words=words, counts=counts.astype(np.int64))


def polars_strings(text: SpannedText, packing: Packing, mib: int, scratch: Path) -> Iterator[Strings]:
    import polars as pl
    import pyarrow.parquet as pq
    from polars.io.plugins import register_io_source

    names = [f"w{word}" for word in range(packing.words)]

    def source(*_: Any) -> Iterator[Any]:
        for words in batches(text, packing):
            yield pl.DataFrame(dict(zip(names, words, strict=True)))

    keys = register_io_source(source, schema=dict.fromkeys(names, pl.UInt64))
    keys.group_by(names).len().sort(names).sink_parquet(scratch / "strings.parquet", engine="streaming")
    for batch in pq.ParquetFile(scratch / "strings.parquet").iter_batches(1 << 17):
        *words, counts = (column.to_numpy() for column in batch.columns)
        yield Strings(words=words, counts=counts.astype(np.int64))


def make(engine: str, path: Path, order: int, mib: int, scratch: Path) -> Path:
    """Counts a text; returns the directory of the tables."""
    ids, out = np.load(path, mmap_mode="r"), scratch / "tables"
    edges = np.linspace(0, len(ids), 9).astype(np.int64)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    if engine == "ours":
        count_past_memory(ids, spans, symbols=SYMBOLS, order=order, directory=out, memory=mib << 20)
        return out
    text, packing = SpannedText(ids=ids, spans=spans, symbols=SYMBOLS), Packing(symbols=SYMBOLS, depth=order + 1)
    strings = {"duckdb": duckdb_strings, "polars": polars_strings}[engine](text, packing, mib, scratch)
    for _ in write_tables(out, strings, packing, text.characters):
        pass
    return out


def measured(engine: str, path: Path, order: int, mib: int, scratch: Path) -> dict[str, Any]:
    """One measurement, in a process that does nothing else."""
    found, done = {"peak": 0, "disk": 0}, threading.Event()

    def watch() -> None:
        for turn in itertools.count():
            status = Path("/proc/self/status").read_text().splitlines()
            held = next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) >> 10
            found["peak"] = max(found["peak"], held)
            if held > 2 * mib + 1024:  # far above the bound: the machine is used by others
                print(f"given up: {held:,} MiB of memory", file=sys.stderr)
                os._exit(1)
            if turn % 10 == 0:
                try:
                    files = [file.stat().st_size for file in scratch.rglob("*") if file.is_file()]
                    found["disk"] = max(found["disk"], sum(files) >> 20)
                except OSError:
                    pass  # a file has gone while it was looked at
            if done.wait(0.01):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.perf_counter()
    out = make(engine, path, order, mib, scratch)
    found["seconds"] = round(time.perf_counter() - begun, 1)
    done.set()
    watcher.join()
    digest = hashlib.sha256()
    for order_ in range(order + 1):
        for kind in ("first", "id", "count", "total"):
            digest.update((out / f"level-{order_:02d}-{kind}.npy").read_bytes())
    return {
        **found,
        "strings": len(np.load(out / f"level-{order:02d}-id.npy", mmap_mode="r")),
        "is": digest.hexdigest(),
    }


def main() -> None:
    options = argparse.ArgumentParser(description="Counting past memory against embedded engines.")
    options.add_argument("--sizes", type=int, nargs="+", default=[10**7, 10**8, 10**9])
    options.add_argument("--orders", type=int, nargs="+", default=[4, 8, 12])
    options.add_argument("--memory", type=int, nargs="+", default=[512, 2048], help="MiB")
    options.add_argument("--engines", nargs="+", default=["ours", "duckdb", "polars"])
    options.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "counting-engines")
    options.add_argument("--limit", type=float, default=600, help="seconds after which a measurement is given up")
    options.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        engine, path, order, mib = given.child
        print(json.dumps(measured(engine, Path(path), int(order), int(mib), given.scratch)))
        return
    given.scratch.mkdir(parents=True, exist_ok=True)
    for size, order, mib in itertools.product(given.sizes, given.orders, given.memory):
        results: dict[str, Any] = {}
        for engine in given.engines:
            path, scratch = text_of(given.scratch, size), Path(tempfile.mkdtemp(dir=given.scratch))
            command = [sys.executable, "-m", "benchmarks.counting_engines", "--scratch", str(scratch), "--child"]
            try:
                run = subprocess.run(
                    [*command, engine, str(path), str(order), str(mib)],
                    check=False, capture_output=True, text=True, timeout=given.limit,
                )  # fmt: skip
                results[engine] = json.loads(run.stdout) if run.returncode == 0 else run.stderr[-200:]
            except subprocess.TimeoutExpired:
                results[engine] = f"not done after {given.limit:.0f} s"
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            told = results[engine]
            if isinstance(told, dict):
                told = f"{told['seconds']:7.1f} s  peak {told['peak']:5,} MiB  disk {told['disk']:6,} MiB"
            print(f"{size:>13,}  order {order:2}  {mib:5,} MiB  {engine:7} {told}", flush=True)
        whole = [result for result in results.values() if isinstance(result, dict)]
        print(f"{'':13}  {whole[0]['strings'] if whole else 0:,} strings of {order + 1}", flush=True)
        assert len({result["is"] for result in whole}) <= 1, "the tables differ"


if __name__ == "__main__":
    main()
