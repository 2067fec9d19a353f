"""Formats of tables: JSON Lines, Parquet (with pyarrow), numpy's .npy and .npz without pickle; delimited text as it is
written."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import OptionError, TextError

HALF = re.compile("[\ud800-\udfff]")
"""A surrogate: half a character, which no file can spell."""

_DEEPEST = 20  # lists in lists
_FREE, _PACKED = 1 << 26, 100  # bytes that arrays may have whatever their packed size, and how many times that size
_BROKEN = (
    ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, TokenError, ArithmeticError, RecursionError,
    OSError, IndexError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for a file that is none of their own, or whose header lies."""


def json_records(text: str, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of a text, and the line that each stands on; empty lines are passed over."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_no_constant, parse_float=_finite)
            if line.count("[") + line.count("{") > _DEEPEST and _is_deep(record):
                raise RecursionError
        except RecursionError:
            raise TextError(f"line {number} of {name} is nested too deep for a table") from None
        except OverflowError as error:
            raise TextError(f"line {number} of {name}: {error} is too large a number") from None
        except ValueError as error:
            raise TextError(f"line {number} of {name} is not JSON ({str(error)[:100]})") from None
        if "\\ud" in line.lower() and HALF.search(json.dumps(record, ensure_ascii=False)):
            raise TextError(f"line {number} of {name} holds half a character (a lone surrogate)")
        if not isinstance(record, dict):
            raise TextError(f'line {number} of {name} is not an object: each line is like {{"text": "…", "label": 1}}')
        records.append(record)
        numbers.append(number)
    return records, numbers


def _is_deep(value: Any) -> bool:
    """Whether lists and objects stand in each other deeper than any table needs."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
                 if isinstance(inner, list | dict)]  # fmt: skip
    return bool(level)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise OverflowError(word[:40])
    return number


def json_lines(columns: Mapping[str, Any], numbers: Sequence[int], nulls: Set[tuple[int, str]]) -> str:
    r"""The rows of a table as strict JSON, an object a line.

    Args:
        columns: by name; a key whose value is None is left out of its line.
        numbers: what each row is called by.
        nulls: the number and column of each cell in which null is written all the same.

    Raises:
        TextError: a number that JSON has no spelling for.

    >>> json_lines({"a": [1, None], "b": [None, None]}, [1, 2], {(2, "a")})
    '{"a": 1}\n{"a": null}\n'
    """
    lines = []
    for number, *row in zip(numbers, *columns.values(), strict=True):
        cells = zip(columns, row, strict=True)
        kept = {name: cell for name, cell in cells if cell is not None or (number, name) in nulls}
        try:
            lines.append(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError:
            raise TextError(f"row {number} holds NaN or infinity, which JSON has no spelling for") from None
    return "".join(lines)


def delimited_lines(rows: Iterable[Iterable[Any]], delimiter: str, line_end: str) -> str:
    r"""Rows of cells as delimited text, which is read again as the same cells whatever is in them.

    Python's own writer leaves a line end that is not the table's without quotes, in some versions.

    Args:
        rows: of cells; None is an empty one, a list is written as its values separated by spaces.
        delimiter, line_end: between cells, and after rows.

    >>> delimited_lines([["a", None, [1, 2]], ["b,c", 'd"e', "e\r"]], ",", "\n")
    'a,,1 2\n"b,c","d""e","e\r"\n'
    """
    quoted = re.compile(f'[{re.escape(delimiter)}"\r\n]')

    def spelled(cell: Any) -> str:
        text = " ".join(map(str, cell)) if isinstance(cell, list) else "" if cell is None else str(cell)
        return '"' + text.replace('"', '""') + '"' if quoted.search(text) else text

    # a line with nothing on it would be no row
    return "".join((delimiter.join(map(spelled, row)) or '""') + line_end for row in rows)


def whole_counts(values: Iterable[Any], place: Callable[[int], str]) -> NDArray[np.int64]:
    """Values that are weights, whole numbers of 0 or more; `place` names a row in the sentence that refuses it.

    >>> whole_counts(["2", 3.0], str).tolist()
    [2, 3]
    """
    found = []
    for row, value in enumerate(values):
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number < 1 << 53 or number != int(number):
            shown = value.item() if isinstance(value, np.generic) else value
            raise TextError(f"{place(row)} counts {shown!r}: a weight is a whole number of 0 or more")
        found.append(int(number))
    return np.array(found, np.int64)


def read_parquet(content: bytes, name: str) -> dict[str, list[Any]]:
    """The columns of a Parquet file as lists, None where a value is missing; needs the extra `parquet`."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise OptionError(f"{name} is a Parquet file: pip install 'charlm[parquet]' to read it") from None
    try:
        return {str(key): values for key, values in parquet.read_table(io.BytesIO(content)).to_pydict().items()}
    except (ArrowException, OSError, ValueError) as error:
        raise TextError(f"{name} is not a whole Parquet file ({_line(error)})") from None


def read_arrays(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by their names, or the one of a .npy file by that of the file; nothing is unpickled.

    Raises:
        TextError: another kind of file, a broken one, one that unpacks to over 100 times its size, or an array that
            is not of numbers or strings with one to three axes.
    """
    try:
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(item.file_size for item in archive.infolist())
            limit = max(_FREE, _PACKED * len(content))
            if size > limit:
                raise TextError(f"{name} would unpack to more than {limit:,} bytes: save it with numpy.savez")
        with np.errstate(all="ignore"):
            file = io.BytesIO(content)
            found = np.load(file, allow_pickle=False, max_header_size=10_000)
            if isinstance(found, np.ndarray):
                if file.read(1):
                    raise ValueError("more bytes follow than its header promises")
                return {Path(name).stem or "array": _checked(found, name)}
            arrays = {key: _checked(value, f"{key} in {name}") for key in found.files
                      if isinstance(value := found[key], np.ndarray)}  # fmt: skip
        if not arrays:
            raise TextError(f"{name} is a zip file without arrays: a table of arrays is what numpy.savez writes")
        return arrays
    except TextError:
        raise
    except _BROKEN as error:
        hint = ""
        if "allow_pickle" in str(error):
            hint = ": it holds Python objects, and reading those could run a stranger's code; save numbers or strings"
        raise TextError(f"{name} is not a whole .npy or .npz file{hint or f' ({_line(error)})'}") from None


def _checked(array: NDArray[Any], name: str) -> NDArray[Any]:
    """An array of numbers (float64 or whole), truth values or strings, with one to three axes."""
    if array.dtype.kind not in "biufUS" or not array.dtype.itemsize:
        raise TextError(f"{name} holds values of type {str(array.dtype)[:60]}: numbers or strings are expected")
    text = array.dtype.kind in "US"
    if not 1 <= array.ndim <= (2 if text else 3):
        raise TextError(f"{name} has the shape {str(array.shape)[:60]}: rows, rows x steps or rows x steps x features")
    if not text:
        return array.astype(np.float64 if array.dtype.kind == "f" else array.dtype.newbyteorder("="))
    array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    array = array.astype(array.dtype.newbyteorder("="), order="C")
    if array.size and int(array.reshape(-1).view(np.uint32).max()) > 0x10FFFF:
        raise TextError(f"{name} holds strings of numbers that are no characters")
    return array


def _line(error: BaseException) -> str:
    """An error in one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def write_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an .npz file.

    >>> read_arrays(write_npz({"x": np.arange(3)}), "a.npz")["x"].tolist()
    [0, 1, 2]
    """
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def write_parquet(columns: Mapping[str, Any]) -> bytes:
    """The content of a Parquet file."""
    from pyarrow import BufferOutputStream, parquet
    from pyarrow import table as arrow_table

    out = BufferOutputStream()
    parquet.write_table(arrow_table({name: list(values) for name, values in columns.items()}), out)
    content: bytes = out.getvalue().to_pybytes()
    return content
