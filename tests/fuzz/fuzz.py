"""Damaged and hostile checkpoints, texts and tables, and odd command lines: a result, or one sentence.

    python -m tests.fuzz.fuzz [--checkpoints N] [--texts N] [--tables N] [--commands N] [--fits N] [--seed 0]

Checkpoints (a network's directory, an n-gram model's, a run's newest state) are changed in their bytes, in their JSON,
in their tensors and arrays (with right checksums, as a hostile writer would), and in what their names stand for. What
opens is also used: a few characters are scored and generated. Texts are changed in their bytes and read in memory
and as a stream, which have to agree, then split and cut into lanes. Tables (`fuzz_tables`) become tasks that a fresh
model predicts; command lines (`fuzz_commands`) are run whole; directories of fits (`fuzz_fits`) are changed like
checkpoints, predicted from and gone on with. A case is right when it ends within ten seconds in
a result or a `CharlmError` of one line. Memory may grow by 256 MB over what is used before the first case; the address
space beyond that is refused by the system. Printed: a table of outcomes, the slowest case, the growth. Exit 1 where
anything else happens.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from charlm.checkpoint import TextFacts, load
from charlm.cli.info import facts_of
from charlm.errors import CharlmError
from charlm.lm.interface import SamplingRule
from charlm.ngrams.fit import count
from charlm.tensors import read_tensors, write_tensors
from charlm.text import cache
from charlm.text.corpus import corpus_of_text, read_corpus
from charlm.text.lanes import Lanes
from charlm.text.reading import Reading
from charlm.text.splits import Split
from charlm.training.recipe import choose
from tests.helpers import keep
from tests.training.runs import resume, start

GROWTH = 256 << 20
SECONDS = 10
TEXT = "a rose is a rose is a rose; so said the crow, and the crow knows.\n" * 4
CORPUS = corpus_of_text(TEXT)
SPLIT = Split.parse("80/10/10")
CPU = torch.device("cpu")
Files = dict[str, bytes]
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 99, 10**9, 2**63, -(2**63), 10**400, 0.0, -0.5, 1e308, float("inf"), float("nan"),
    "", "a", "\x00", "../../../etc/passwd", "/dev/zero", "\ud800", "é" * 1000, "1e999999999",
    "none", "kneser-ney", "lstm",
    "interleaved:999999999:90/5/5", "lines:" + "9" * 5000 + ":90/5/5", "1e9999999/0/0", "utf-16",
    [], {}, [[]], [1] * 1000,
    {"a": {"b": []}}, ["a", "b"], [None], "files:1/1/1",
)  # fmt: skip


@dataclass(kw_only=True)
class Tally:
    """What came out: cases by kind and outcome, the slowest, and what should not have happened."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def case(self, kind: str, act: Callable[[], object], about: str) -> None:
        """Runs one case."""
        begun = time.perf_counter()
        try:
            with _alarm():
                act()
            outcome = "result"
        except CharlmError as error:
            outcome = "sentence"
            if "\n" in str(error).strip() or not str(error):
                self.wrong.append(f"{kind} ({about}): not one line: {str(error)[:200]!r}")
        except Exception as error:
            outcome = type(error).__name__
            place = "".join(traceback.format_exception(error)[-3:])
            self.wrong.append(f"{kind} ({about}): {place[-1200:]}")
        self.outcomes[kind, outcome] += 1
        self.slowest = max(self.slowest, time.perf_counter() - begun)


class HangError(Exception):
    """A case that took too long."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- changes of bytes and of JSON ------------------------------------------------------------------------------------


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """One to three flips, cuts, insertions, repetitions or removals."""
    content_ = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content_) + 1)
        span = slice(at, at + chance.choice((1, 1, 2, 8, 100)))
        match chance.randrange(6):
            case 0 | 1 if at < len(content_):
                content_[at] ^= 1 << chance.randrange(8)
            case 2:
                del content_[at:]
            case 3:
                content_[at:at] = chance.randbytes(chance.choice((1, 2, 8, 64)))
            case 4:
                content_[at:at] = content_[span]
            case _:
                del content_[span]
    return bytes(content_)


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """A value somewhere replaced, removed, renamed, doubled or buried deep."""
    value = json.loads(content)
    for _ in range(chance.randint(1, 2)):
        holder, key = chance.choice([*_places(value)])
        match chance.randrange(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(("x", "", "../x", "format ", "\u202e"))] = holder[key]
            case 2:
                for _ in range(chance.choice((3, 900, 3000))):
                    holder[key] = [holder[key]]
            case _:
                holder[key] = chance.choice(NASTY)
        if not isinstance(value, dict) or not value:
            break
    text = _dumps(value)
    if chance.random() < 0.1:  # a key that stands twice
        text = text[:-1] + ', "format": 1, "model": {}, "kind": "ngram"}'
    return text.encode("utf-8", "backslashreplace")


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return "[" * 100_000


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:50]:
        yield value, key
        if depth < 20:
            yield from _places(inner, depth + 1)


# -- changes of tensors and arrays, with right checksums ---------------------------------------------------------------


def changed_tensors(path: Path, chance: random.Random) -> None:
    """Another shape, type, name or content of a tensor, or a change of the JSON beside it."""
    tensors, metadata = read_tensors(path)
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    match chance.randrange(9):
        case 0:
            del tensors[name]
        case 1:
            tensors[
                chance.choice(("../x", "weights/x", "carried/state/h9", "optimizer/a", "good/x", "é", "a" * 5000))
            ] = tensor.clone()
        case 2:
            tensors[name] = tensor.reshape(-1)[: max(tensor.numel() // 2, 1)].clone()
        case 3:
            kinds = (
                torch.float64,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.uint8,
                torch.bool,
                torch.complex64,
            )
            tensors[name] = tensor.to(chance.choice((*kinds, torch.float8_e4m3fn)))
        case 4:
            tensors[name] = torch.full_like(tensor, float("nan") if tensor.is_floating_point() else 255)
        case 5:
            tensors[name] = tensor.unsqueeze(0)
        case 6:
            tensors[name] = torch.zeros(0)
        case _ if metadata:
            key = chance.choice(sorted(metadata))
            metadata[key] = changed_json(metadata[key].encode(), chance).decode()
    write_tensors(path, tensors, metadata)


def changed_array(content: bytes, chance: random.Random) -> bytes:
    """Other numbers, another type, another shape, or a header that lies."""
    array = np.load(io.BytesIO(content)).copy()
    match chance.randrange(7):
        case 0 | 1:
            extremes = (0, 1, 255, 2**31 - 1, -(2**31), -1, len(array), len(array) // 2)
            array[chance.randrange(len(array))] = np.array(chance.choice(extremes)).astype(array.dtype)
        case 2:
            array = array.astype(chance.choice((np.float64, np.int64, np.uint8, np.uint16, bool, "S3", complex)))
        case 3:
            array = np.resize(array, chance.choice((0, 1, 2, len(array) + 1, (2, 3), (), (1, len(array)))))
        case 4:
            chance.shuffle(array)
        case 5:
            array = array[::-1].copy()
        case _:
            header = chance.choice((b"(99999999999,)", b"(-1,)", b"(" * 60, b"(10**99,)", b"'x', 'y'", b"(True,)"))
            start, end = content.index(b"(", 10), content.index(b")", 10) + 1
            return content[:start] + header + content[end:]
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


# -- checkpoints ------------------------------------------------------------------------------------------------------


def make_run(directory: Path) -> None:
    """A run of a tiny network that was interrupted."""
    given = {
        "model": "lstm",
        "hidden": 3,
        "embedding": 2,
        "lanes": 2,
        "window": 8,
        "max_steps": 6,
        "backend": "reference",
    }
    directory.mkdir()
    asked = iter([False] * 3)
    plan = choose(200, CPU, {**given, "layers": 1, "dropout": 0.1})
    start(directory, CORPUS, SPLIT, plan, CPU).train(should_stop=lambda: next(asked, True))


def make_ngram(directory: Path, smoothing: str) -> None:
    """Counts of a short text."""
    model = count(CORPUS, CORPUS.parts(SPLIT), order=3, smoothing=smoothing)
    keep(directory, model, TextFacts.of(CORPUS, SPLIT))


def use(directory: Path) -> None:
    """Opens a model, says what it is, scores and generates a few characters."""
    checkpoint = load(directory)
    list(facts_of(checkpoint.description, len(checkpoint.vocab), 1))
    model = checkpoint
    ids = torch.arange(6).unsqueeze(1) % len(model.vocab)
    with torch.no_grad():
        model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
        first = torch.tensor([checkpoint.start])
        model.generate(first, model.initial_state(1), 6, SamplingRule(), torch.full((6, 1), 0.5))


def go_on(directory: Path) -> None:
    """Goes on with a run for a step."""
    asked = iter([False])
    resume(directory, CORPUS, CPU).train(should_stop=lambda: next(asked, True))


def change_files(directory: Path, chance: random.Random) -> str:
    """Changes one file of a directory; says which and how."""
    path = chance.choice(sorted(path for path in directory.iterdir() if path.suffix != ".jsonl"))
    way = chance.choice(("bytes", "inside", "inside", "inside", "thing"))
    if way == "thing":
        path.unlink()
        match chance.randrange(4):
            case 0:
                path.mkdir()
            case 1:
                path.symlink_to("/dev/zero")
            case 2:
                path.symlink_to(path)
    elif way == "bytes":
        path.write_bytes(changed_bytes(path.read_bytes(), chance))
    elif path.suffix == ".json":
        path.write_bytes(changed_json(path.read_bytes(), chance))
    elif path.suffix == ".npy":
        path.write_bytes(changed_array(path.read_bytes(), chance))
    else:
        changed_tensors(path, chance)
    config = directory / "config.json"
    if path.suffix == ".npy" and chance.random() < 0.7:  # or the reader would stop at the checksum
        config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "files"}))
    return f"{path.name}, {way}"


def restore(directory: Path, files: Files) -> None:
    """Puts a directory back as it was."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path.name not in files or path.is_symlink() or path.read_bytes() != files[path.name]:
            path.unlink()
    for name, content in files.items():
        if not (directory / name).exists():
            (directory / name).write_bytes(content)


def fuzz_checkpoints(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many changed directories, of each kind in turn."""
    make_run(scratch / "rnn")
    for name in ("none", "kneser-ney"):
        make_ngram(scratch / name, name)
    with contextlib.suppress(OSError):
        (scratch / "rnn" / "curve.png").unlink()
    kinds = {"network": ("rnn", use), "run": ("rnn", go_on), "n-gram": ("none", use), "Kneser-Ney": ("kneser-ney", use)}
    before = {name: {p.name: p.read_bytes() for p in (scratch / name).iterdir()} for name, _ in kinds.values()}
    for case in range(number):
        chance = random.Random(f"{seed}/{case}")
        kind = chance.choice(sorted(kinds))
        name, act = kinds[kind]
        about = change_files(scratch / name, chance)
        tally.case(kind, lambda act=act, name=name: act(scratch / name), f"case {case}: {about}")  # type: ignore[misc]
        restore(scratch / name, before[name])


# -- texts ------------------------------------------------------------------------------------------------------------

TEXTS = (
    TEXT.encode(), "žluťoučký kůň\r\n床前明月光，疑是地上霜。\r\n".encode() * 5,
    "\ufeffone\r\ntwo\rthree\n".encode() * 9,
    "né à Nîmes\n".encode("latin-1") * 20, "utf-16 😀 text\n".encode("utf-16") * 3, "x😀y\n".encode("utf-16-le") * 20,
    "\ufeffx😀\n".encode("utf-32") * 5, bytes(range(256)) * 2, b"\n" * 100, b"a" * 300,
    b"\x1f\x8b\x08rest" * 9, b"a", b"\n\n\na",
)  # fmt: skip
ENCODINGS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "latin-1",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "cp1252",
    "ascii",
    "utf-7",
    "shift_jis",
    "x",
)
SPLITS = (
    "90/5/5", "80/10/10", "100/0/0", "50/0/50", "interleaved:3:60/20/20", "interleaved:999999999999:90/5/5",
    "lines:90/5/5",
    "paragraphs:7:80/10/10", "files:1/0/0", "files:1/1/1", "1e9999999/0/0", "lines:" + "9" * 5000 + ":90/5/5",
    "nan/5/5", "1_0/45/45", "-1/1/100", "٩٠/5/5", "0.1/99.8/0.1", "tail:3:90/5/5", "////", "", "Infinity/0/0",
)  # fmt: skip


def read_text(path: Path, given: dict[str, Any], split: str, chance: random.Random) -> None:
    """Reads a text in memory and as a stream, splits it and takes a window of it; the two readings must agree."""
    reading = Reading(**given)
    found: list[Any] = []
    for big in (1 << 40, 0):
        with mock.patch.object(cache, "BIG", big), mock.patch.object(cache, "BLOCK", chance.choice((7, 64, 1000))):
            try:
                corpus = read_corpus([path], reading)
                found.append((corpus.ids.tolist(), corpus.vocab, corpus.sha256))
            except CharlmError as error:
                found.append(str(error))
    refused = all(isinstance(one, str) for one in found)  # which of several faults is named may differ
    if found[0] != found[1] and not refused:
        raise AssertionError(f"in memory {str(found[0])[:300]}, as a stream {str(found[1])[:300]}")
    corpus = read_corpus([path], reading)
    parts = corpus.parts(Split.parse(split))
    assert sum(int((rows[:, 1] - rows[:, 0]).sum()) for rows in parts.values()) == len(corpus)
    lanes = Lanes(corpus.ids, parts["train"], lanes=chance.choice((1, 3, 10**6)), window=chance.choice((1, 9, 10**6)))
    lanes.window_at(chance.choice((0, 5)), 0)


def fuzz_texts(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many changed texts with options drawn for each."""
    path = scratch / "text"
    with mock.patch.dict("os.environ", {"CHARLM_CACHE": str(scratch / "cache")}):
        for case in range(number):
            chance = random.Random(f"{seed}:{case}")
            content = chance.choice(TEXTS)
            path.write_bytes(changed_bytes(content, chance) if chance.random() < 0.9 else content)
            given: dict[str, Any] = {"encoding": chance.choice(ENCODINGS), "bytes": chance.random() < 0.15}
            if chance.random() < 0.3:
                given["newlines"] = chance.choice(("keep", "normalise", "normalise", "x"))
            if chance.random() < 0.2:
                given["vocab_size"] = chance.choice((1, 2, 5, 100, 10**9, 0, -1))
            split = chance.choice(SPLITS)
            act = lambda given=given, split=split, chance=chance: read_text(path, given, split, chance)
            tally.case("text", act, f"case {case}: {given}, {split[:40]}")
            for old in (scratch / "cache").glob("*"):
                old.unlink()


# -- the whole --------------------------------------------------------------------------------------------------------


def fuzz(checkpoints: int, texts: int, seed: int, *, tables: int = 0, commands: int = 0, fits: int = 0) -> Tally:
    """All of them, in a directory of their own."""
    from tests.fuzz.fuzz_commands import fuzz_commands
    from tests.fuzz.fuzz_fits import fuzz_fits
    from tests.fuzz.fuzz_tables import fuzz_tables

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
