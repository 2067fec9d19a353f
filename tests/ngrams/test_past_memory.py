"""A text counted past memory gives the tables that its suffix index gives, however it is cut, shared and stopped."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm import files
from charlm.checkpoint import load
from charlm.errors import CharlmError, CheckpointError, OptionError, StorageError, TextError
from charlm.ngrams import past_memory as external
from charlm.ngrams.estimators import ESTIMATORS, make_estimator, ngram_rows, tune
from charlm.ngrams.fit import count, count_within, was_stopped
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.past_memory import Job, count_past_memory, smallest_memory
from charlm.ngrams.strings import Packing, TextBlocks, added_up, merged
from charlm.ngrams.tables import CountTables
from charlm.text.corpus import read_corpus
from charlm.text.splits import Split
from charlm.text.text import Text
from charlm.text.vocab import Vocab

ROOM = 1 << 30
TOP = 2**64 - 41
SPANS = st.lists(st.lists(st.integers(0, 3), max_size=40), min_size=1, max_size=5).filter(any)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many characters fit in memory."""

    def set_to(capacity: int) -> None:
        monkeypatch.setattr(external, "capacity_of", lambda *_: capacity)

    set_to(7)
    return set_to


def joined(spans: list[list[int]]) -> tuple[Any, Any]:
    edges = np.cumsum([0, *map(len, spans)])
    return np.array([c for span in spans for c in span], dtype=np.int64), np.stack([edges[:-1], edges[1:]], axis=1)


def same(tables: Any, index: Any, order: int) -> None:
    """Every number that an estimator reads."""
    assert (len(tables), tables.symbols) == (len(index), index.symbols)
    for n in range(order + 1):
        for name in ("first_H", "id_E", "count_E", "total_H", "types_H", "best_H"):
            one, two = getattr(tables.levels[n], name), getattr(index.levels[n], name)
            assert one.dtype == two.dtype
            assert one.tolist() == two.tolist(), (n, name)
        if n:
            assert tables.levels.suffix(n).tolist() == index.levels.suffix(n).tolist()
        for one, two in zip(tables.levels.openings(n), index.levels.openings(n), strict=True):
            assert one.tolist() == two.tolist()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=SPANS, order=st.sampled_from([0, 1, 2, 3, 6, 32]), capacity=st.integers(3, 60))
def test_the_tables_are_those_of_the_index(
    tmp_path: Path, tiny: Callable[[int], None], spans: list[list[int]], order: int, capacity: int
) -> None:
    tiny(capacity)
    ids, rows = joined(spans)
    tables = count_past_memory(ids, rows, symbols=4, order=order, directory=tmp_path / "w", memory=ROOM)
    same(tables, SuffixIndex.build(ids, rows, symbols=4, method="numpy"), order)
    found: Counter[tuple[int, ...]] = Counter()
    for history in {tuple(s[a : a + order]) for s in spans for a in range(len(s) - order)}:
        found |= Counter({(*history, id): n for id, n in tables.followers(history)})
    assert found == Counter(tuple(s[a : a + order + 1]) for s in spans for a in range(len(s) - order))


@pytest.mark.parametrize("symbols", [1, 63, 64, 255, 256, 70_000])
@pytest.mark.parametrize(("order", "capacity"), [(0, 100), (8, 150)])
def test_any_vocabulary(tmp_path: Path, tiny: Callable[[int], None], symbols: int, order: int, capacity: int) -> None:
    tiny(capacity)
    rng = np.random.default_rng(symbols)
    ids = np.concatenate([rng.integers(0, symbols, 300), np.full(120, symbols - 1), np.zeros(50, np.int64)])
    spans = np.array([[0, 200], [200, 201], [201, 440], [440, 440], [450, 470]])
    tables = count_past_memory(ids, spans, symbols=symbols, order=order, directory=tmp_path, memory=ROOM)
    same(tables, SuffixIndex.build(ids, spans, symbols=symbols, method="numpy"), order)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_smoothing_gives_the_same_numbers(tmp_path: Path, tiny: Callable[[int], None], name: str) -> None:
    tiny(50)
    rng = np.random.default_rng(1)
    ids, held_out = rng.integers(0, 5, 400) * rng.integers(0, 2, 400), rng.integers(-1, 5, 100)
    rows, whole = np.array([[0, 150], [150, 163], [163, 400]]), np.array([[0, 60], [60, 100]])
    index = SuffixIndex.build(ids, rows, symbols=5)
    tables = count_past_memory(ids, rows, symbols=5, order=4, directory=tmp_path, memory=ROOM)
    vocab = Vocab.of("abcde")
    for one, two in zip(
        *(ngram_rows(counts, vocab, name, range(5), held_out, whole) for counts in (tables, index)), strict=True
    ):
        np.testing.assert_array_equal(one.logp_T, two.logp_T)
        np.testing.assert_array_equal(one.hit_T, two.hit_T)
        assert (one.ngrams, one.train_nats) == (two.ngrams, two.train_nats)
    assert tune(name, tables, 3, held_out, whole) == tune(name, index, 3, held_out, whole)


def test_a_parameter_is_tuned_over_stretches_as_over_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    ids, held_out = rng.integers(0, 3, 300), rng.integers(0, 3, 200)
    index, spans = SuffixIndex.build(ids, np.array([[0, 300]]), symbols=3), np.array([[0, 90], [90, 91], [91, 200]])
    k = tune("add-k", index, 2, held_out, spans)["k"]

    def nats(k: float) -> float:
        (row,) = ngram_rows(index, Vocab.of("abc"), "add-k", [2], held_out, spans, parameters={2: {"k": k}})
        return -float(row.logp_T.mean())

    assert nats(k) <= min(nats(k * 1.01), nats(k / 1.01))
    from charlm.ngrams import estimators

    whole = estimators._stretches
    monkeypatch.setattr(estimators, "_stretches", lambda spans, overlap: whole(spans, overlap, 7))
    assert tune("add-k", index, 2, held_out, spans)["k"] == pytest.approx(k, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1), min_size=1, max_size=5),
    capacity=st.integers(1, 30),
    highest=st.booleans(),
)
def test_merging_gives_every_string_once_in_order(
    runs: list[list[tuple[int, int]]], capacity: int, highest: bool
) -> None:
    keys = [[(TOP, TOP + low) if highest else (high, low) for high, low in run] for run in runs]
    made = [added_up([np.array(word, dtype=np.uint64) for word in zip(*run, strict=True)]) for run in keys]
    found: list[Any] = []
    for part in merged(made, capacity):
        assert len(part) <= max(capacity, len(runs))
        strings = zip(*(word.tolist() for word in part.words), strict=True)
        found += zip(strings, part.counts.tolist(), strict=True)
    assert found == sorted(Counter(key for run in keys for key in run).items())


def test_keys_are_the_strings() -> None:
    codes = np.random.default_rng(0).integers(0, 6, 200).astype(np.uint8)
    packing = Packing(symbols=5, depth=30)
    words = packing.keys(codes)
    assert len(words) == packing.words == 2
    for place in range(len(words[0])):
        string = codes[place : place + 30].tolist()
        string = string[: string.index(0)] if 0 in string else string
        read = [int(packing.codes(words, n)[place]) for n in range(30)]
        assert read == string + [0] * (30 - len(string))


class Killed(BaseException):
    """The process is gone at this point."""


def text_of(size: int = 90) -> tuple[Any, Any]:
    return np.random.default_rng(3).integers(0, 3, size), np.array([[0, 40], [40, size]])


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("level-*.npy")}


def go(directory: Path, **more: Any) -> CountTables:
    ids, spans = text_of()
    options = {"symbols": 3, "order": 3, "directory": directory, "memory": ROOM, "identity": "me", **more}
    return count_past_memory(ids, spans, **options)


def test_stopped_at_every_write_it_goes_on_and_ends_the_same(
    tmp_path: Path, tiny: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(20)
    monkeypatch.setattr(external, "FAN", 2)
    go(tmp_path / "whole")
    whole, made, written = content(tmp_path / "whole"), [], []
    monkeypatch.setattr(TextBlocks, "__getitem__", noting(TextBlocks.__getitem__, made))
    replace, directory = os.replace, tmp_path / "pieces"

    def once(source: Any, target: Any) -> None:
        """Every process comes as far as one more file."""
        replace(source, target)
        if Path(target).name not in written:
            written.append(Path(target).name)
            raise Killed

    monkeypatch.setattr(files.os, "replace", once)
    for _ in range(100):
        try:
            go(directory)
            break
        except Killed:
            continue
    assert content(directory) == whole
    assert sorted(made) == list(range(5))  # every block was sorted once
    assert {"count.json", "run-0-00004", "run-1-00000", "run-2-00000", "level-openings.npy"} <= set(written)
    assert {path.name for path in directory.glob("run-*")} == {"run-2-00000", "run-2-00001"}


def noting(function: Any, made: list[int]) -> Any:
    def do(blocks: Any, number: int) -> Any:
        made.append(number)
        return function(blocks, number)

    return do


def test_killed_by_the_system_it_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "from charlm.ngrams import past_memory as external\n"
        "import numpy as np\n"
        "external.capacity_of = lambda *_: 20\n"
        "write = external.write_run\n"
        "external.write_run = lambda *given: (write(*given), time.sleep(0.05))\n"
        "ids, spans = np.random.default_rng(3).integers(0, 3, 90), np.array([[0, 40], [40, 90]])\n"
        f"external.count_past_memory(ids, spans, symbols=3, order=3, directory=Path({str(tmp_path / 'w')!r}),"
        f" memory={ROOM}, identity='me')"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "w" / "run-0-00002").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").glob("run-*")}
    assert 3 <= len(before) <= 5
    made: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "capacity_of", lambda *_: 20)
        patch.setattr(TextBlocks, "__getitem__", noting(TextBlocks.__getitem__, made))
        go(tmp_path / "w")
        go(tmp_path / "whole")
    assert made[: 5 - len(before)] == list(range(len(before), 5))
    assert content(tmp_path / "w") == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["text", "spans", "memory", "order", "damage", "nameless"])
def test_what_another_count_left_is_not_believed(tmp_path: Path, tiny: Callable[[int], None], change: str) -> None:
    tiny(20)
    go(tmp_path, order=4 if change == "order" else 3, identity="" if change == "nameless" else "me")
    made: list[int] = []
    if change == "damage":
        for path in tmp_path.glob("run-*"):
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextBlocks, "__getitem__", noting(TextBlocks.__getitem__, made))
        if change == "memory":
            tiny(21)
        if change == "spans":
            count_past_memory(
                text_of()[0], np.array([[0, 90]]), symbols=3, order=3, directory=tmp_path, memory=ROOM, identity="me"
            )
            ids, spans = text_of()[0], np.array([[0, 90]])
        else:
            go(tmp_path, identity={"text": "you", "nameless": ""}.get(change, "me"))
            ids, spans = text_of()
    assert made == list(range(5))
    same(CountTables.load(tmp_path, symbols=3, order=3), SuffixIndex.build(ids, spans, symbols=3), 3)
    assert not list(tmp_path.glob("level-04*"))


def test_progress_rises_to_the_whole(tmp_path: Path, tiny: Callable[[int], None]) -> None:
    steps: list[float] = []
    go(tmp_path, progress=steps.append)
    assert steps == sorted(steps)
    assert steps[-1] == 1


def test_an_error_of_a_worker_arrives_as_it_was() -> None:
    error = pickle.loads(pickle.dumps(StorageError("full", OSError(errno.ENOSPC, "No space left on device"))))
    assert (type(error), str(error), error.errno) == (StorageError, "full", errno.ENOSPC)


def test_without_dask_a_sentence_says_how_to_install_it(
    tmp_path: Path, tiny: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for more in ({"processes": 2}, {"scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(OptionError, match=r"pip install 'charlm-toolkit\[cluster\]'"):
            go(tmp_path, **more)


def test_a_worker_that_does_not_see_the_directory_says_so(tmp_path: Path) -> None:
    packing = Packing(symbols=3, depth=2)
    with pytest.raises(CharlmError, match="does not see"):
        Job([], packing=packing, capacity=9, directory=tmp_path / "elsewhere").make(0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_counts_the_same_though_a_worker_is_killed(tmp_path: Path, tiny: Callable[[int], None]) -> None:
    distributed = pytest.importorskip("distributed")
    tiny(2)  # 46 blocks, so that runs are merged by workers too
    go(tmp_path / "one")

    def slow_down(directory: Path) -> None:
        """In a worker: a block takes a while, and the worker that sorts the third one first is killed."""
        import os
        import signal
        import time

        from charlm.ngrams.strings import TextBlocks

        sort = TextBlocks.__getitem__

        def slow(blocks: Any, number: int) -> Any:
            time.sleep(0.1)
            if number == 2 and not (directory / "killed").exists():
                (directory / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return sort(blocks, number)

        TextBlocks.__getitem__ = slow  # type: ignore[method-assign]

    slow_down.__module__ = "__main__"  # so that it is sent whole: a worker cannot import this file
    local = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **local) as cluster, distributed.Client(cluster) as client:
        client.run(slow_down, tmp_path)
        go(tmp_path / "two", scheduler=cluster.scheduler_address)
    assert (tmp_path / "killed").exists()
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_local_workers_write_the_same_files(tmp_path: Path, tiny: Callable[[int], None]) -> None:
    pytest.importorskip("distributed")
    go(tmp_path / "one")
    go(tmp_path / "two", processes=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    with pytest.raises(OptionError, match="no Dask scheduler answers"):
        go(tmp_path / "three", scheduler="tcp://127.0.0.1:1")


@pytest.mark.parametrize("failing", range(0, 18, 3))
def test_a_full_disk_is_a_sentence_and_can_be_mended(
    tmp_path: Path, tiny: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    tiny(20)
    calls = iter(range(1000))

    def full(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="make room there"):
        go(tmp_path / "w")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    go(tmp_path / "w")
    go(tmp_path / "whole")
    assert content(tmp_path / "w") == content(tmp_path / "whole")
    assert not list((tmp_path / "w").glob(".*"))


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    ids, spans = text_of()
    with pytest.raises(OptionError, match="64M or more"):
        count_past_memory(ids, spans, symbols=3, order=1, directory=tmp_path, memory=smallest_memory() - 1)
    with pytest.raises(TextError, match="from 0 to 1"):
        count_past_memory(ids, spans, symbols=2, order=1, directory=tmp_path, memory=ROOM)
    with pytest.raises(TextError, match="no character"):
        count_past_memory(ids, np.zeros((0, 2), np.int64), symbols=3, order=1, directory=tmp_path, memory=ROOM)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        go(tmp_path / "file")


def spoil(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda directory: np.save(directory / name, change(np.load(directory / name)))


HARM: dict[str, Callable[[Path], None]] = {
    "missing": lambda d: (d / "level-01-id.npy").unlink(),
    "cut": lambda d: (d / "level-01-id.npy").write_bytes((d / "level-01-id.npy").read_bytes()[:-1]),
    "openings": lambda d: (d / "level-openings.npy").unlink(),
    "longer openings": spoil("level-openings.npy", lambda a: np.concatenate([a, a], axis=1)),
    "flat openings": spoil("level-openings.npy", lambda a: a.ravel()),
    "strange openings": spoil("level-openings.npy", lambda a: a + 9),
    "ids": spoil("level-02-id.npy", lambda a: a + 9),
    "counts": spoil("level-02-count.npy", lambda a: -a),
    "short": spoil("level-02-count.npy", lambda a: a[:-1]),
    "histories": spoil("level-02-first.npy", lambda a: a[:-1]),
    "falling": spoil("level-02-first.npy", lambda a: a[::-1].copy()),
    "outside": spoil("level-02-first.npy", lambda a: np.where(a == a[-1], a + 5, a).astype(np.int32)),
    "totals": spoil("level-02-total.npy", lambda a: a.astype(np.float64)),
}


@pytest.mark.parametrize("harm", HARM)
def test_broken_tables_are_refused_in_one_sentence(tmp_path: Path, tiny: Callable[[int], None], harm: str) -> None:
    go(tmp_path)
    HARM[harm](tmp_path)
    with pytest.raises(CheckpointError) as caught:
        CountTables.load(tmp_path, symbols=3, order=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("smoothing", ["none", "add-k", "kneser-ney"])
@pytest.mark.parametrize("split", ["80/10/10", "lines:90/10/0"])
def test_a_kept_model_is_the_one_counted_in_memory(
    tmp_path: Path, verse: Path, tiny: Callable[[int], None], smoothing: str, split: str
) -> None:
    tiny(1000)
    other = tmp_path / "other.txt"
    other.write_text("another document\nof two lines\n" * 3)
    corpus, chosen = read_corpus([verse, other]), Split.parse(split)
    plain = count(corpus, corpus.parts(chosen), order=3, smoothing=smoothing)
    text = Text(corpus=corpus, split=chosen)
    estimator = count_within(ROOM, tmp_path / "m", text, order=3, smoothing=smoothing)
    assert estimator.parameters() == plain.estimator.parameters()
    opened = load(tmp_path / "m")
    assert {**opened.description["model"], "tables": None} == {**plain.shape(), "tables": None}
    assert not (tmp_path / "m" / "counting").exists()
    spans = corpus.documents
    for one, two in zip(*(m.rows(corpus.ids, spans, [3]) for m in (opened, plain)), strict=True):
        np.testing.assert_array_equal(one.logp_T, two.logp_T)
    history = corpus.ids[:5].tolist()
    assert opened.next_distribution(history) == plain.next_distribution(history)
    opened.write_files(tmp_path / "copy")
    assert content(tmp_path / "copy") == content(tmp_path / "m")


def test_the_command_goes_on_where_it_was_stopped(
    tmp_path: Path, verse: Path, tiny: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from charlm.cli import cli

    tiny(1000)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    command = ["ngram", str(verse), "--memory", "64M", "--out", str(tmp_path / "m")]
    with monkeypatch.context() as patch:
        patch.setattr("charlm.ngrams.fit.fingerprints", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert CliRunner().invoke(cli, command).exit_code != 0
    assert was_stopped(tmp_path / "m")
    made: list[int] = []
    monkeypatch.setattr(TextBlocks, "__getitem__", noting(TextBlocks.__getitem__, made))
    done = CliRunner().invoke(cli, command)
    assert (done.exit_code, done.stdout, made) == (0, f"{tmp_path / 'm'}\n", [])
    assert not was_stopped(tmp_path / "m")
    assert CliRunner().invoke(cli, command).stdout == f"{tmp_path / 'm-2'}\n"
    two, one = (json.loads((tmp_path / name / "config.json").read_text())["files"] for name in ("m", "m-2"))
    assert one == two


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--memory", "2 elephants"], "500M or 2G"),
        (["--memory", "63M"], "64M or more"),
        (["--memory", "100M", "--processes", "2"], "292M or more"),
        (["--memory", "1G", "--processes", "2", "--scheduler", "tcp://x:1"], "one of the two"),
        (["--scheduler", "tcp://x:1"], "--memory"),
        (["--tune-on", "x"], "--merge"),
        (["--merge", "--order", "3"], "leave --order out"),
        (["--processes", "2"], "--memory"),
        (["--memory", "1G", "--order", "33"], "0 to 32"),
    ],
)
def test_options_that_do_not_go_are_refused(verse: Path, options: list[str], sentence: str) -> None:
    from click.testing import CliRunner

    from charlm.cli import cli

    with pytest.raises(OptionError, match=sentence):
        CliRunner().invoke(cli, ["ngram", str(verse), *options], catch_exceptions=False)


def test_make_estimator_takes_tables(tmp_path: Path, tiny: Callable[[int], None]) -> None:
    with pytest.raises(OptionError, match="unknown smoothing"):
        make_estimator("magic", go(tmp_path), 3)


def walks(size: int) -> Any:
    """Ids of a text over 28 symbols: walks of 64 steps in a Markov chain, one after the other."""
    rng = np.random.default_rng(0)
    follow = (rng.zipf(1.5, (28, 256)) % 28).astype(np.uint8)
    follow[:, ::2] = np.arange(28)[:, None] * np.arange(3, 131) % 28
    lanes, now = 1 << 16, rng.integers(0, 28, 1 << 16, dtype=np.uint8)
    text, block = np.empty((size >> 22, lanes, 64), dtype=np.uint8), np.empty((64, lanes), dtype=np.uint8)
    for part in text:
        for step in block:
            step[:] = now
            now = follow[now, rng.integers(0, 256, lanes, dtype=np.uint8)]
        part[:] = block.T
    return text.ravel()


def peak_of(command: list[str], **environment: str) -> int:
    """The most anonymous memory that a process has, in bytes, seen from outside."""
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        except OSError:
            continue
        peak = max([peak, *(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.003)
    assert child.returncode == 0
    return peak


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
def test_a_text_four_times_the_memory_is_counted_within_it(tmp_path: Path) -> None:
    memory, order = 64 << 20, 3
    ids = walks(4 * memory)
    np.frombuffer(b"\n abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)[ids].tofile(tmp_path / "text")
    command = [
        sys.executable,
        "-m",
        "charlm",
        "ngram",
        str(tmp_path / "text"),
        "--memory",
        "64M",
        "--order",
        str(order),
    ]
    peak = peak_of([*command, "--out", str(tmp_path / "m")], CHARLM_CACHE=str(tmp_path / "cache"))
    assert 20 << 20 < peak < memory
    ids = ids[: len(ids) * 9 // 10]  # the training part
    tables = CountTables.load(tmp_path / "m", symbols=28, order=order)
    assert len(tables) == len(ids)
    dense = np.zeros(28 ** (order + 1), dtype=np.int64)
    for start in range(0, len(ids), 1 << 22):
        piece = ids[start : start + (1 << 22) + order].astype(np.int32)
        size = len(piece) - order
        keys = ((piece[:size] * 28 + piece[1 : size + 1]) * 28 + piece[2 : size + 2]) * 28 + piece[3:]
        dense += np.bincount(keys, minlength=len(dense))
    for n in range(order, -1, -1):
        level, seen = tables.levels[n], np.flatnonzero(dense)
        assert np.array_equal(level.count_E, dense[seen])
        assert np.array_equal(level.id_E, seen % 28)
        dense = dense.reshape(-1, 28).sum(1)
        histories = np.flatnonzero(dense)  # each of these was followed by something; the text's end may be a new one
        assert np.array_equal(level.total_H[level.total_H > 0], dense[histories])
        if n:
            dense[sum(int(ids[len(ids) - n + k]) * 28 ** (n - 1 - k) for k in range(n))] += 1  # the text's end
