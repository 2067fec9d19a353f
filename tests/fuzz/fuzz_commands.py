"""Command lines run whole: arguments and options drawn at random, good and bad, on files.

A case is right when it ends with exit code 0 or 2 (or 1 where a folder stands in a file's place), without a traceback,
with nothing on stdout where it was refused, and with strict JSON there where --json was asked for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from charlm.cli import main
from tests.fuzz.common import TEXT, Tally
from tests.fuzz.fuzz_tables import TABLES

__all__ = ["fuzz_commands"]

NUMBERS = ("-1", "0", "1", "2", "3", "x", "", "1.5", "1e3", "٣", "9" * 400)
SHARES = ("-1", "0", "0.5", "1", "2", "nan", "inf", "-inf", "1e400", "x", "", "0,5", "1e-400")
SPLITS = ("80/10/10", "90/20/0", "ordered:50/25/25", "lines:80/10/10", "shuffled:x:1/1/98", "////", "tail:3:90/5/5", "")
FILES = (
    "text.txt", "net", "counts", "fitted", "missing", ".", "", "-", "/dev/null", "net/config.json", "x" * 300,
    "fitted/vocab.json", "text.txt", *TABLES,
)  # fmt: skip
TEXTS = ("", "a rose", "\udcff", "é", "x" * 2000, "--quiet", "-", "\n")
NAMES = ("x", "y", "text", "label", "lengths", "", "q", "alone.npy", "column1")
PLACES = ("new", "net", "text.txt/new", "", "new.npz", "new.csv", "missing/deep/new", "x" * 300, ".")
PICTURES = ("p.png", "p.svg", "p.gif", "p", "", "text.txt", "missing/p.png")
DEVICES = ("cpu", "cpu", "auto", "abacus", "cuda:7", "")

COMMON = {"--seed": NUMBERS, "--device": DEVICES}
Words = tuple[str, ...]
COMMANDS: dict[str, tuple[tuple[Words, ...], Words, dict[str, Words], Words]] = {
    # what it is given, what it always gets so that it ends soon, options with values, options without
    "fit": (
        (FILES,), ("--max-steps", "1", "--backend", "torch", "--hidden", "2"),
        {
            **COMMON, "--mode": ("score", "distribution", "x"), "--input": ("text", "numbers", ""), "--hidden": NUMBERS,
            "--output": ("last", "every"), "--scale": ("minmax", "zscore", "none", "x"), "--label-scale": ("minmax",),
            "--loss": ("squared", "cross-entropy", ""), "--split": SPLITS, "--cell": ("rnn", "gru", "lstm", "x"),
            "--layers": NUMBERS, "--dropout": SHARES, "--embedding": NUMBERS, "--batch-size": NUMBERS, "--lr": SHARES,
            "--epochs": SHARES, "--patience": NUMBERS, "--init-from": FILES, "--out": PLACES, "--plot": PICTURES,
            "--resume": FILES, "--sequence-column": NAMES, "--label-column": NAMES, "--encoding": ("utf-8", "rot13"),
        },
        ("--json", "--freeze", "--bidirectional", "--no-header"),
    ),
    "predict": (
        (("fitted", "fitted", "fitted", *FILES), FILES), (),
        {
            "--out": PLACES, "--sequence-column": NAMES, "--label-column": NAMES, "--encoding": ("x", "cp1252"),
            "--device": DEVICES,
        },
        ("--json", "--no-labels", "--no-header"),
    ),
    "train": (
        (("text.txt", *FILES),), ("--max-steps", "1", "--hidden", "2", "--seq-length", "8", "--backend", "torch"),
        {
            **COMMON, "--model": ("rnn", "gru", "lstm", "x"), "--layers": NUMBERS, "--embedding": NUMBERS,
            "--dropout": SHARES, "--batch-size": NUMBERS, "--lr": SHARES, "--epochs": SHARES, "--split": SPLITS,
            "--valid": FILES, "--test": FILES, "--init-from": FILES, "--out": PLACES, "--resume": FILES,
            "--vocab-size": NUMBERS, "--encoding": ("utf-8", "x", "utf-16"),
        },
        ("--bytes",),
    ),
    "ngram": (
        (("text.txt", *FILES),), (),
        {"--order": NUMBERS, "--smoothing": ("none", "add-k", "kneser-ney", "x"), "--split": SPLITS, "--out": PLACES},
        ("--bytes",),
    ),
    "sample": (
        (("net", "counts", *FILES),), ("--length", "5"),
        {
            **COMMON, "--temperature": SHARES, "--top-k": NUMBERS, "--top-p": SHARES, "--prompt": TEXTS,
            "--stop": TEXTS, "--length": NUMBERS[:8],
        },
        ("--json", "--novelty"),
    ),
    "next": ((("net", "counts", *FILES), TEXTS), (), {"--top": NUMBERS}, ("--json",)),
    "eval": (
        (("net", "counts", *FILES), FILES), (),
        {"--split-part": ("test", "valid", "all", "x"), "--device": DEVICES}, ("--json",),
    ),
    "compare": (
        (("text.txt", *FILES), FILES), ("--orders", "0-2"),
        {"--orders": ("0-2", "1", "", "3-1", "0-99", "x"), "--smoothing": ("kneser-ney", "x"), "--split": SPLITS},
        ("--json",),
    ),
    "info": ((("net", "counts", "fitted", *FILES),), (), {}, ("--json",)),
    "runs": (((".", *FILES),), (), {}, ("--json", "--csv")),
    "inspect": (
        (("net", "counts", *FILES), FILES), ("--length", "40"),
        {
            **COMMON, "--layer": NUMBERS, "--unit": ("0:0", "0:1:c", "9:9", "x", ""), "--start": NUMBERS,
            "--shown": NUMBERS, "--split-part": ("test", "all", "x"), "--plot": PICTURES, "--html": PLACES,
        },
        ("--json",),
    ),
    "report": ((("net", "counts", "fitted", *FILES),), (), {**COMMON, "--text": FILES, "--out": PLACES}, ()),
}  # fmt: skip


def arguments_of(name: str, chance: random.Random) -> list[str]:
    """A command line: mostly what the command wants, with options that may be good or bad."""
    places, quick, valued, flags = COMMANDS[name]
    given = [chance.choice(place) for place in places if chance.random() < 0.97]
    given += quick
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        if flags and chance.random() < 0.3:
            given.append(chance.choice(flags))
        elif valued:
            option = chance.choice(sorted(valued))
            given += [option, chance.choice(valued[option])]
    if chance.random() < 0.05:
        given.insert(
            chance.randrange(len(given) + 1), chance.choice(("--fly", "-x", "--", "--json=1", "--help", "\udcff"))
        )
    return [name, *given]


def run_command(arguments: list[str]) -> None:
    """Runs it in this process and looks at how it ended."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape") for _ in range(2))
    code: Any = None
    with (
        mock.patch.object(sys, "argv", ["charlm", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(TABLES["score.csv"]))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said, told = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in _flushed(out, err))
    if code not in (0, 2) and not (code == 1 and "cannot be written" in told):
        raise AssertionError(f"exit {code}: {told[-600:]}")
    if "Traceback" in told or (code == 2 and (said or not told.strip())):
        raise AssertionError(f"exit {code} with {said[:200]!r} on stdout and {told[-600:]!r}")
    if code == 0 and "--json" in arguments and "--help" not in arguments and "--" not in arguments:
        json.loads(said, parse_constant=_refuse)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _flushed(*streams: Any) -> Iterator[Any]:
    for stream in streams:
        stream.flush()
        yield stream


def _prepare() -> None:
    Path("text.txt").write_text(TEXT * 3)
    for name, content in TABLES.items():
        Path(name).write_bytes(content)
    quick = ("--max-steps", "1", "--hidden", "2", "--backend", "torch", "--out")
    run_command(["train", "text.txt", "--batch-size", "2", "--seq-length", "8", *quick, "net"])
    run_command(["ngram", "text.txt", "--order", "2", "--out", "counts"])
    run_command(["fit", "score.csv", "--mode", "distribution", *quick, "fitted"])


def fuzz_commands(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many command lines in a directory with a text, tables, and a model of each kind."""
    home, before = scratch / "home", Path.cwd()
    home.mkdir()
    os.chdir(home)
    nothing: Callable[..., None] = lambda *given, **more: None
    try:
        with (
            mock.patch("charlm.sequences.fit.drawn", nothing),
            mock.patch("charlm.display.drawn", nothing),
            mock.patch.object(os, "fsync", nothing),
        ):
            _prepare()
            kept = {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}
            for case in range(number):
                chance = random.Random(f"command/{seed}/{case}")
                arguments = arguments_of(chance.choice(sorted(COMMANDS)), chance)
                tally.case("command", _running(arguments), f"case {case}: {' '.join(arguments)[:300]!r}")
                _restore(home, kept, tally)
    finally:
        os.chdir(before)


def _running(arguments: list[str]) -> Callable[[], None]:
    return lambda: run_command(arguments)


def _restore(home: Path, kept: dict[Path, bytes], tally: Tally) -> None:
    """Takes away what a case wrote; what was there before must still be as it was, but for runs that went on."""
    for path in sorted(home.iterdir()):
        if path.is_dir() and path.name not in ("net", "counts", "fitted"):
            shutil.rmtree(path)
        elif path.is_file() and path.relative_to(home) not in kept:
            path.unlink()
    for name, content in kept.items():
        path = home / name
        if not path.is_file() or path.read_bytes() != content:
            if len(name.parts) == 1:
                tally.wrong.append(f"command: {name} was overwritten")
            path.write_bytes(content)
