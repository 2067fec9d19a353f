"""Tables with a row an example: read from CSV, TSV, JSON Lines, Parquet and numpy's files, written with new columns.

- **Delimited text** (CSV, TSV): separated by commas, semicolons, tabs or bars, whichever fits; quoted cells, a byte
  order mark, Windows line ends, UTF-16 and a first line `sep=;` are understood. The first row names the columns. A row
  is called by the number that a spreadsheet shows beside it: the header is row 1. Python's `csv` reads it, as it tells
  a short row from one with an empty cell.
- **JSON Lines**: an object a line; a row is called by its line.
- **Parquet** (with the extra `parquet`), **.npz** (arrays by name, all with the same first axis) and **.npy** (one
  array): rows are counted from 0.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.codec import HALF, json_lines, json_records
from charlm.errors import OptionError, TextError
from charlm.text.reading import Reading, kind_of, read_content, readable, shown

_DELIMITERS = ("\t", ";", ",", "|")
_ALONE = "\x1f"  # stands for the separator of a table with one column
_LARGEST = 1 << 31  # bytes


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a delimited table is spelled, so that it can be written the same way.

    Args:
        delimiter: between two cells; what a table of one column gets when a column is added is a comma.
        header: whether the first row names the columns.
        encoding: of the file.
        mark: the byte order mark that it began with.
        line_end: `\\n` or `\\r\\n`.
    """

    delimiter: str = ","
    header: bool = True
    encoding: str = "utf-8"
    mark: bytes = b""
    line_end: str = "\n"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was read; cells are not interpreted yet.

    Args:
        name: of the file, as the user named it.
        kind: `delimited`, `jsonl`, `parquet` or `arrays`.
        columns: by name: strings (delimited), JSON values with None for what is missing (jsonl, parquet), or an array.
        numbers: what each row is called by in messages.
        sha256: of the file's bytes.
        dialect: of a delimited table.
        nulls: the number of the row and the column of each cell of JSON Lines that is there and null.
    """

    name: str
    kind: Literal["delimited", "jsonl", "parquet", "arrays"]
    columns: Mapping[str, Sequence[Any] | NDArray[Any]]
    numbers: Sequence[int]
    sha256: str
    dialect: Dialect = Dialect()
    nulls: frozenset[tuple[int, str]] = frozenset()

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, row: int, column: str) -> str:
        """How to call a cell in a message.

        >>> Table(name="t", kind="delimited", columns={}, numbers=[2, 3], sha256="").place(1, "label")
        "row 3, column 'label' of t"
        """
        word = "line" if self.kind == "jsonl" else "row"
        return f"{word} {self.numbers[row]}, column {column[:80]!r} of {self.name}"

    def column(self, name: str) -> Sequence[Any] | NDArray[Any]:
        """A column by its name; another name is refused with those that there are."""
        if name not in self.columns:
            known = ", ".join(repr(each[:40]) for each in [*self.columns][:12])
            raise TextError(f"{self.name} has no column {name[:80]!r}: its columns are {known}")
        return self.columns[name]

    def with_column(self, name: str, values: Sequence[Any] | NDArray[Any]) -> Table:
        """The table with one more column, as many rows long."""
        if len(values) != len(self):
            raise TextError(
                f"{name} has {len(values):,} rows, {self.name} has {len(self):,}: they do not belong together"
            )
        return replace(self, columns={**self.columns, name: values})

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows, which keep their numbers."""
        columns = {
            name: cells[list(rows)] if isinstance(cells, np.ndarray) else [cells[row] for row in rows]
            for name, cells in self.columns.items()
        }
        return replace(self, columns=columns, numbers=[self.numbers[row] for row in rows])


def read_table(path: str | Path, *, encoding: str = "utf-8", header: bool = True) -> Table:
    """Reads a table; which kind it is shows in its content, not in its name.

    Args:
        path: the file, or - for standard input.
        encoding: of delimited text and JSON Lines; a byte order mark decides against it.
        header: whether the first row of delimited text names the columns; else they are column1, column2, ...

    Raises:
        TextError: no table, or a broken one; says in which row what is wrong.
    """
    name, content = _content(Path(path))
    return table_of(content, name, encoding=encoding, header=header)


def table_of(content: bytes, name: str, *, encoding: str = "utf-8", header: bool = True) -> Table:
    """`read_table` for the content of a file; messages call it by `name`."""
    Reading(encoding=encoding)  # refuses an unknown one
    kind = _kind_of(content, name)
    sha256 = hashlib.sha256(content).hexdigest()
    if kind in ("arrays", "parquet"):
        from charlm.tensors import read_arrays, read_parquet  # these import torch

        columns = read_arrays(content, name) if kind == "arrays" else read_parquet(content, name)
        return _of_columns(columns, name, sha256, kind)
    dialect, text = _decode(content, encoding, name)
    if text.lstrip()[:2] == "[{":
        raise TextError(f"{name} is one JSON list: JSON Lines has an object on each line, without brackets and commas")
    if kind == "jsonl" or text.lstrip()[:1] == "{":
        return _json_table(text, name, sha256, dialect)
    return _delimited_table(text, name, sha256, replace(dialect, header=header))


def _content(path: Path) -> tuple[str, bytes]:
    try:
        with readable(path):
            size = 0 if str(path) == "-" else path.stat().st_size
    except ValueError as error:  # a name with a NUL character
        raise (error if isinstance(error, TextError) else OptionError(f"no file: {error}")) from None
    if str(path) != "-" and not (path.is_file() or path.is_fifo()):
        raise TextError(f"{path} is not a file: name a table in CSV, TSV, JSON Lines, Parquet, .npy or .npz")
    if size > _LARGEST:
        raise TextError(f"{path} has {size:,} bytes, a table may have {_LARGEST:,}: take a part of it")
    return shown(path), read_content(path)


def _kind_of(content: bytes, name: str) -> Any:
    """`arrays` or `parquet` by the content, `jsonl` by the name, else text to be looked at; other files are refused."""
    if content.startswith(b"\x93NUMPY"):
        return "arrays"
    if content.startswith(b"PAR1"):
        return "parquet"
    if content.startswith(b"PK"):
        if b"xl/" in content[:4096] or b"mimetypeapplication/vnd" in content[:200]:
            raise TextError(f"{name} is a spreadsheet's own file: save it there as CSV (with UTF-8) and name that file")
        return "arrays"
    if (what := "a Python pickle" if content.startswith(b"\x80\x04") else kind_of(content[:1024])) is not None:
        raise TextError(f"{name} is {what}, not a table: CSV, TSV, JSON Lines, Parquet, .npy and .npz are read")
    return "jsonl" if name.lower().endswith((".jsonl", ".ndjson")) else ""


def _decode(content: bytes, encoding: str, name: str) -> tuple[Dialect, str]:
    """The text and how it was spelled."""
    marks = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    mark, encoding = next(((m, e) for m, e in marks.items() if content.startswith(m)), (b"", encoding))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start + len(mark)) + 1
        byte = error.object[error.start] if error.start < len(error.object) else 0
        raise TextError(
            f"{name} is not {encoding}: byte 0x{byte:02x} in line {line} cannot be decoded; name its encoding, which "
            "from a spreadsheet may be --encoding cp1252, or save it as CSV UTF-8"
        ) from None
    except (UnicodeError, LookupError) as error:
        raise TextError(f"{name} is not {encoding} text ({' '.join(str(error).split())[:100]})") from None
    if "\x00" in text:
        raise TextError(f"{name} is no table of text (it holds NUL characters): is it a binary file?")
    if HALF.search(text):
        raise TextError(f"{name} holds half a character (a lone surrogate): save it as UTF-8")
    if not text.strip():
        raise TextError(f"{name} is empty: a table has a row that names its columns and a row for each example")
    line_end = "\r\n" if "\r\n" in text else "\n"
    return Dialect(encoding=encoding, mark=mark, line_end=line_end), text


# -- text ---------------------------------------------------------------------------------------------------------


def _delimited_table(text: str, name: str, sha256: str, dialect: Dialect) -> Table:
    first = 1
    if text[:4].lower() == "sep=" and text[4:5] and text[5:6] in "\r\n":  # a line for spreadsheets
        dialect, text, first = replace(dialect, delimiter=text[4]), text[5:].lstrip("\r\n"), 2
    else:
        dialect = replace(dialect, delimiter=_sniff(text))
    read = _rows(text, dialect.delimiter, name)
    rows, numbers = [row for row in read if row], [number for number, row in enumerate(read, first) if row]
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()  # empty rows that spreadsheets leave at the end
    if not rows:
        raise TextError(f"{name} is empty: a table has a row that names its columns and a row for each example")
    names = _header(rows[0], name) if dialect.header else [f"column{i + 1}" for i in range(len(rows[0]))]
    rows, numbers = rows[dialect.header :], numbers[dialect.header : len(rows)]
    if not rows:
        raise TextError(f"{name} has no rows below its header")
    if (wrong := next((at for at, row in enumerate(rows) if len(row) != len(names)), None)) is not None:
        shown = {"\t": "(a tab)", _ALONE: "','"}.get(dialect.delimiter, repr(dialect.delimiter))
        head = "header" if dialect.header else "first row"
        raise TextError(
            f"row {numbers[wrong]} of {name} has {len(rows[wrong])} cells, the {head} has {len(names)}: put cells that "
            f"hold the separator {shown} in double quotes"
        )
    columns = {key: [row[i] for row in rows] for i, key in enumerate(names)}
    return Table(name=name, kind="delimited", columns=columns, numbers=numbers, sha256=sha256, dialect=dialect)


def _sniff(text: str) -> str:
    """The separator that stands in the header and cuts most of the first rows into as many cells; else `_ALONE`."""
    sample = "\n".join(text[: 1 << 16].splitlines()[:100])
    fits = []
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            fits.append((sum(width == widths[0] for width in widths) / len(widths), delimiter))
    if not fits:
        return _ALONE
    return max(fits, key=lambda fit: (fit[0], -_DELIMITERS.index(fit[1])))[1]


def _rows(text: str, delimiter: str, name: str) -> list[list[str]]:
    """The rows of cells, an empty one for an empty line; quotes that do not match are refused."""
    before = csv.field_size_limit(1 << 31)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise TextError(
            f"line {reader.line_num} of {name} cannot be cut into cells ({error}): a cell that holds quotes is put in "
            'quotes, and the quotes in it are doubled, as in "say ""yes"""'
        ) from None
    finally:
        csv.field_size_limit(before)


def _header(cells: list[str], name: str) -> list[str]:
    """The columns' names; a row that looks like data, an empty name or one that stands twice is refused."""
    names = [cell.strip() for cell in cells]
    for number, cell in enumerate(names, 1):
        if not cell:
            raise TextError(f"column {number} of {name} has no name: the first row names the columns (or --no-header)")
        if names.index(cell) != number - 1:
            raise TextError(
                f"two columns of {name} are called {cell[:80]!r}: the first row names the columns, each once"
            )
        if _is_number(cell):
            raise TextError(
                f"the first row of {name} holds the number {cell[:40]}: it should name the columns; add such a row, "
                "or say --no-header"
            )
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return cell.lower().lstrip("+-") not in ("nan", "inf", "infinity")


def _json_table(text: str, name: str, sha256: str, dialect: Dialect) -> Table:
    records, numbers = json_records(text, name)
    names = dict.fromkeys(key for record in records for key in record)
    if not names or len(names) > 1000:
        raise TextError(f"{name} has {len(names):,} different keys: a table has a few columns, the same in each line")
    columns = {key: [record.get(key) for record in records] for key in names}
    nulls = frozenset(
        (n, key) for n, r in zip(numbers, records, strict=True) for key, cell in r.items() if cell is None
    )
    return Table(name=name, kind="jsonl", columns=columns, numbers=numbers, sha256=sha256, dialect=dialect, nulls=nulls)


def _of_columns(columns: Mapping[str, Any], name: str, sha256: str, kind: Any) -> Table:
    """A table of columns of equal lengths, its rows counted from 0."""
    sizes = {key: len(array) for key, array in columns.items()}
    if min(sizes.values(), default=0) < 1:
        raise TextError(f"{min(sizes, key=lambda key: sizes[key], default='nothing')} in {name} has no rows")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key[:40]} {size:,}" for key, size in [*sizes.items()][:8])
        raise TextError(f"the arrays of {name} have different numbers of rows ({told}): they do not belong together")
    return Table(name=name, kind=kind, columns=columns, numbers=range(next(iter(sizes.values()))), sha256=sha256)


# -- writing -----------------------------------------------------------------------------------------------------------


def render_table(table: Table, kind: str | None = None) -> bytes:
    """The table as a file of the kind that it was read from, with all its columns as they are now.

    Args:
        table: with columns added. Cells that are lists become numbers or names separated by spaces in delimited text.
        kind: `delimited` or `arrays` to write another one; arrays of more than one axis are left out of the former.
    """
    kind = kind or table.kind
    if kind in ("arrays", "parquet"):
        from charlm.tensors import write_npz, write_parquet  # these import torch

        return write_npz(table.columns) if kind == "arrays" else write_parquet(table.columns)
    jsonl = kind == "jsonl"
    text = json_lines(table.columns, table.numbers, table.nulls) if jsonl else _delimited_lines(table)
    return table.dialect.mark + text.encode(table.dialect.encoding, "backslashreplace")


def _delimited_lines(table: Table) -> str:
    """The rows as delimited text, which is read again as the same cells whatever is in them.

    Python's own writer leaves a line end that is not the table's without quotes, in some versions.
    """
    delimiter = "," if table.dialect.delimiter == _ALONE else table.dialect.delimiter
    quoted = re.compile(f'[{re.escape(delimiter)}"\r\n]')

    def spelled(cell: Any) -> str:
        text = " ".join(map(str, cell)) if isinstance(cell, list) else "" if cell is None else str(cell)
        return '"' + text.replace('"', '""') + '"' if quoted.search(text) else text

    columns = {name: values for name, values in table.columns.items() if getattr(values, "ndim", 1) == 1}
    if table.kind == "arrays":
        columns = {"row": table.numbers, **columns}
    rows = [[*columns]] if table.dialect.header else []
    lines = (delimiter.join(map(spelled, row)) for row in [*rows, *zip(*columns.values(), strict=True)])
    # a line with nothing on it would be no row
    return "".join((line or '""') + table.dialect.line_end for line in lines)
