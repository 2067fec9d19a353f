"""What all fuzzers share: counting outcomes, and changing bytes, JSON, tensors, arrays and the files of a directory."""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm.errors import CharlmError
from charlm.tensors import read_tensors, write_tensors

SECONDS = 10
TEXT = "a rose is a rose is a rose; so said the crow, and the crow knows.\n" * 4
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
            value = metadata[key].encode()
            try:
                metadata[key] = changed_json(value, chance).decode()
            except json.JSONDecodeError:  # a checksum
                metadata[key] = changed_bytes(value, chance).decode("latin-1")
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


# -- the files of a directory -----------------------------------------------------------------------------------------


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
