"""Changed texts, read in memory and as a stream, which have to agree, then split and cut into lanes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from charlm.errors import CharlmError
from charlm.text import cache
from charlm.text.corpus import read_corpus
from charlm.text.reading import Reading
from charlm.text.splits import Split
from charlm.training.language import Lanes
from tests.fuzz.common import TEXT, Tally, changed_bytes

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
    read, targets = np.zeros(len(corpus), np.int64), np.zeros(len(corpus), np.int64)
    for start, end in np.concatenate(list(parts.values())).tolist():
        read[start:end] += 1
        targets[start + 1 : end] += 1
    assert read.all()  # every character is in a part; one that is context of another part may be in two
    assert targets.max(initial=0) <= 1
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
