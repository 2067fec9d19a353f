""".npy and .npz files read without pickle; a header is compared with its file before memory is taken for it."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError

__all__ = ["NPY", "read_npy", "read_npz", "write_npz"]

NPY = b"\x93NUMPY"
"""How a .npy file begins."""

_BROKEN = (
    ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, TokenError, ArithmeticError, RecursionError,
    OSError, IndexError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for a file that is none of their own, or whose header lies."""

_PACKED = 100  # how many times its packed size an array may have
_FREE = 1 << 26  # bytes that an array may have whatever its packed size


def read_npy(content: bytes, name: str) -> NDArray[Any]:
    """The array of a .npy file: numbers or strings of one to three axes.

    Args:
        content: the whole file.
        name: of the file, for messages.

    Raises:
        TextError: another kind of file, a header that lies about the size, an array of Python objects.
    """
    return _read(io.BytesIO(content), len(content), name)


def read_npz(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by their names; see `read_npy`. What unpacks to over 100 times its size is refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [item for item in archive.infolist() if item.filename.endswith(".npy")]
            if not members:
                raise TextError(f"{name} is a zip file without arrays: a table of arrays is what numpy.savez writes")
            limit = max(_FREE, _PACKED * len(content))
            if sum(item.file_size for item in members) > limit or len(members) > 1000:
                raise TextError(f"{name} would unpack to more than {limit:,} bytes: save it with numpy.savez")
            found = {}
            for item in members:
                with archive.open(item) as file:
                    array = item.filename.removesuffix(".npy")
                    found[array] = _read(file, item.file_size, f"{array} in {name}")
            return found
    except TextError:
        raise
    except _BROKEN as error:
        raise TextError(f"{name} is not a whole .npz file ({_line(error)})") from None


def _read(file: IO[bytes], size: int, name: str) -> NDArray[Any]:
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = header(file)
        _check(shape, dtype, name)
        expected = math.prod(shape) * dtype.itemsize
        if expected != size - file.tell():
            raise TextError(f"{name} is cut off: its header promises {expected:,} bytes, {size - file.tell():,} follow")
        data = file.read(expected + 1)
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if columns_first else "C")
        if dtype.kind in "US":
            return _strings(array, name)
        return array.astype(np.float64 if dtype.kind == "f" else dtype.newbyteorder("="))
    except TextError:
        raise
    except _BROKEN as error:
        raise TextError(f"{name} is not a whole .npy file ({_line(error)})") from None


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    if dtype.hasobject:
        raise TextError(
            f"{name} holds Python objects, and reading those could run a stranger's code: "
            "save numbers or strings, padded to one length, with an array of lengths beside them"
        )
    if dtype.kind not in "biufUS" or not dtype.itemsize:
        raise TextError(f"{name} holds values of type {str(dtype)[:60]}: numbers or strings are expected")
    if not 1 <= len(shape) <= 3 or min(shape) < 0:
        raise TextError(f"{name} has the shape {str(shape)[:60]}: rows, rows x steps or rows x steps x features")


def _strings(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.ndim == 3:
        raise TextError(f"{name} holds strings in three axes: a string a row, or one a step, is expected")
    array = array.astype(array.dtype.newbyteorder("="), order="C")
    if array.size and int(array.reshape(-1).view(np.uint32).max()) > 0x10FFFF:
        raise TextError(f"{name} holds strings of numbers that are no characters")
    return array


def _line(error: BaseException) -> str:
    """An error in one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def write_npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The content of an .npz file.

    >>> read_npz(write_npz({"x": np.arange(3)}), "a.npz")["x"].tolist()
    [0, 1, 2]
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return out.getvalue()
