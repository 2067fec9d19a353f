"""Tables that are not delimited text: JSON Lines, Parquet (with pyarrow), numpy's .npy and .npz without pickle."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
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
            record = json.loads(line, parse_constant=_no_constant)
            if line.count("[") + line.count("{") > _DEEPEST and _is_deep(record):
                raise RecursionError
        except RecursionError:
            raise TextError(f"line {number} of {name} is nested too deep for a table") from None
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
