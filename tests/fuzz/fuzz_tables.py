"""Changed tables: bytes, cells, JSON and arrays; read, split, and predicted from."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from charlm.codec import encode
from charlm.sequences.cells import read_inputs
from charlm.sequences.config import RowSplit
from charlm.sequences.fitted_models import predict_rows
from charlm.sequences.model import SequenceModel
from charlm.sequences.predict import figures_of
from charlm.sequences.tabular import make_task, sequences_of
from charlm.tensors import write_npz
from charlm.text.tables import read_table, render_table
from tests.fuzz.common import Tally, changed_bytes, changed_json

__all__ = ["TABLES", "fuzz_tables"]

ROWS = 20


def _csv(delimiter: str, rows: list[tuple[str, ...]], end: str = "\n") -> str:
    quoted = ((f'"{cell}"' if delimiter in cell or '"' in cell else cell for cell in row) for row in rows)
    return "".join(delimiter.join(row) + end for row in quoted)


def _npz(**arrays: Any) -> bytes:
    return write_npz(arrays)


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X = np.arange(ROWS * 3 * 2).reshape(ROWS, 3, 2) / 7
TABLES: dict[str, bytes] = {
    "score.csv": _csv(",", [("text", "label"), *((f"line {n}", str(n % 2)) for n in range(ROWS))]).encode(),
    "german.csv": (
        "\ufeff" + _csv(";", [("Nr", "x", "y"), *((str(n), f"{n},5 -1,0 2", "0,25") for n in range(ROWS))], "\r\n")
    ).encode(),
    "vectors.tsv": _csv("\t", [("x", "y"), *((f"{n} 2;3 4", "ab"[n % 2]) for n in range(ROWS))]).encode("utf-16"),
    "every.csv": _csv(",", [("text", "label"), *(("abc", "N V N") for _ in range(ROWS))]).encode(),
    "shares.csv": _csv("|", [("x", "y"), *((f"{n} 1", "0.25 0.75") for n in range(ROWS))]).encode(),
    "texts.jsonl": "".join(
        json.dumps({"text": f"é{n}", "label": ["a", "b"][n % 2], "id": n}) + "\n" for n in range(ROWS)
    ).encode(),
    "steps.jsonl": "".join(json.dumps({"x": [[n, 1], [2, 3]], "y": [0, 1]}) + "\n" for n in range(ROWS)).encode(),
    "arrays.npz": _npz(x=X, y=np.arange(ROWS) % 3, lengths=np.arange(ROWS) % 3 + 1),
    "texts.npz": _npz(text=np.array([f"t{n}" for n in range(ROWS)]), label=np.arange(ROWS) / ROWS),
    "alone.npy": _npy(X),
}
OPTIONS: dict[str, tuple[Any, ...]] = {
    "mode": (None, None, "score", "distribution"),
    "input": (None, None, None, "text", "numbers"),
    "every": (None, None, True, False),
    "bounded": (True, True, False),
    "sequence": (None, None, "x", "text", "label", "\ud800", ""),
    "label": (None, None, "y", "label", "id", "lengths", "q" * 999),
}
CELLS = (
    "", " ", "NaN", "inf", "-inf", "1e999", "1_0", "0x1", "٣", "1,5", "1.234,5", "1 2 3 4", "1;2", ";", "1;;2", "|",
    '"', '""', "\n", "\r", "\x00", "\x1f", "\ufeff", "\ud800", "TRUE", "a" * 3000, "9" * 500, "0.5 0.5", "-0", "1e-999",
    "=1+1", "None", "5.", ".", "+", "e", "1e5 e", "\u202e", "😀", "\u2028",
)  # fmt: skip
HEADERS = (
    b"(99999999999,)", b"(-1,)", b"(" * 60, b"(10**99,)", b"(True,)", b"()", b"(20, 3, 2, 1)", b"(0, 3)", b"(2, 60)",
    b"(120,)", b"(99999999, 99999999, 99999999)", b"(20,)" + b" " * 200,
)  # fmt: skip
TYPES = (
    "|O",
    "<f2",
    "<f4",
    "<i8",
    "<c16",
    "|b1",
    "<U2",
    "|S8",
    "<M8[s]",
    "<U0",
    "|V8",
    ">f8",
    "<u8",
    "<f16",
    "S99999999",
)


def changed_cells(content: bytes, name: str, chance: random.Random) -> bytes:
    """A cell, a separator or a row of delimited text changed."""
    encoding = "utf-16" if name.endswith(".tsv") else "utf-8"
    text = content.decode(encoding)
    rows = text.split("\n")
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.randrange(len(rows))
        cells = rows[at].split(delimiter := chance.choice(",;\t|"))
        match chance.randrange(6):
            case 0:
                rows.insert(at, chance.choice(rows))
            case 1:
                del rows[at]
                rows = rows or [""]
            case 2:
                rows[at] += delimiter + chance.choice(CELLS)
            case _:
                cells[chance.randrange(len(cells))] = chance.choice(CELLS)
                rows[at] = delimiter.join(cells)
    return "\n".join(rows).encode(encoding, "backslashreplace")


def changed_lines(content: bytes, chance: random.Random) -> bytes:
    """A line of JSON changed inside."""
    lines = content.split(b"\n")[:-1]
    at = chance.randrange(len(lines))
    lines[at] = changed_json(lines[at], chance).replace(b"\n", b" ")
    return b"\n".join(lines)


def changed_arrays(content: bytes, name: str, chance: random.Random) -> bytes:
    """Other numbers, types or shapes of an array, or a header that lies; in a zip file that is whole again."""
    members = {"": content} if name.endswith(".npy") else {}
    if not members:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {each: archive.read(each) for each in archive.namelist()}
    key = chance.choice(sorted(members))
    members[key] = _changed_array(members[key], chance)
    if "" in members:
        return members[""]
    if chance.random() < 0.1:
        members[chance.choice(("../z.npy", "z.txt", "é.npy", "x.npy.npy"))] = members.pop(key)
    out = io.BytesIO()
    kind = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", kind) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return out.getvalue()


def _changed_array(content: bytes, chance: random.Random) -> bytes:
    array = np.load(io.BytesIO(content)).copy()
    match chance.randrange(5):
        case 0 if array.dtype.kind in "if":
            values = (np.nan, np.inf, -1, 0, 1e308, 1e19, -(2**63), 255, 3)
            with np.errstate(all="ignore"):
                array.reshape(-1)[chance.randrange(array.size)] = np.array(chance.choice(values)).astype(array.dtype)
        case 1:
            shapes = (
                (),
                (0,),
                (1,),
                (ROWS,),
                (ROWS, 0),
                (ROWS, 1),
                (ROWS, 2, 2, 2),
                (ROWS + 1, 2),
                (3, ROWS),
                (ROWS, 40),
            )
            array = np.resize(array, chance.choice(shapes))
        case 2:
            kinds = ("U1", "U9", "S9") if array.dtype.kind == "U" else (bool, "S4", "U4", complex, np.float16, ">f8")
            array = array.astype(chance.choice(kinds))
        case 3:
            start, end = content.index(b"'descr': '") + 10, content.index(b"',", 12)
            return content[:start] + chance.choice(TYPES).encode() + content[end:]
        case _:
            start, end = content.index(b"(", 10), content.index(b")", 10) + 1
            return content[:start] + chance.choice(HEADERS) + content[end:]
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def changed_table(name: str, chance: random.Random) -> bytes:
    """One of the tables, changed in one of the ways that it has."""
    content = TABLES[name]
    if chance.random() < 0.3:
        return changed_bytes(content, chance)
    if name.endswith((".npz", ".npy")):
        return changed_arrays(content, name, chance)
    return changed_lines(content, chance) if name.endswith(".jsonl") else changed_cells(content, name, chance)


def use_table(path: Path, given: dict[str, Any], encoding: str, split: str, header: bool) -> None:
    """Reads a table, makes a task of it, predicts from it with a fresh model and writes it with what was said."""
    table = read_table(path, encoding=encoding, header=header)
    render_table(table)
    task = make_task(table, split=RowSplit.parse(split), **given)
    facts, parts = type(task.facts).read(json.loads(json.dumps(encode(task.facts)))), task.parts
    assert sorted(np.concatenate([*parts.values()]).tolist()) == list(range(len(table)))
    assert len(task.examples) == len(table) == len(task.labels.values)
    shape = {"mode": facts.mode, "output": "every" if facts.every else "last", "hidden": 2, "features": facts.features}
    classes = {"classes": len(facts.classes)} if facts.classes else {}
    if len(facts.classes) > 1000 or facts.features > 1000 or max(task.inputs.lengths) > 5000:
        return
    model = SequenceModel(None, task.vocab, cell="gru", **shape, **classes)
    part = task.part(task.reported)
    assert part is not None
    figures_of(predict_rows(model, part.inputs), part.targets, facts).to_json()
    again = read_inputs(table, facts.sequence, kind=facts.input, features=facts.features or None)
    assert len(sequences_of(again, task.vocab)) == len(table)


def fuzz_tables(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many changed tables with options drawn for each."""
    for case in range(number):
        chance = random.Random(f"table/{seed}/{case}")
        name = chance.choice(sorted(TABLES))
        path = scratch / name
        path.write_bytes(changed_table(name, chance))
        given = {option: value for option, values in OPTIONS.items() if (value := chance.choice(values)) is not None}
        if chance.random() < 0.8:  # options that do not fit keep it from getting far
            given = {}
        encoding = chance.choice(("utf-8",) * 20 + ("cp1252", "utf-16", "utf-7", "ascii"))
        split = chance.choice(("80/10/10",) * 3 + ("ordered:50/25/25", "100/0/0", "shuffled:7:1/98/1"))
        act = _acting(path, given, encoding, split, chance.random() < 0.95)
        tally.case("table", act, f"case {case}: {name}, {str(given)[:80]}, {encoding}, {split}")
        path.unlink(missing_ok=True)


def _acting(path: Path, given: dict[str, Any], encoding: str, split: str, header: bool) -> Callable[[], object]:
    return lambda: use_table(path, given, encoding, split, header)
