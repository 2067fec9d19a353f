"""Files of tensors, arrays and columns (safetensors, numpy's own and Parquet), without pickle.

Equal tensors give equal bytes, with a checksum. Reading trusts no file: sizes are compared with the length of the file
before memory is allocated. `quantised` is the definition of weights of 16 or 8 bits. Axes: R rows and K columns of a
matrix.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from charlm.errors import CheckpointError, OptionError, TextError
from charlm.files import __version__, atomic_writer

Bits = Literal[8, 16, 32]
"""Of a weight: 32 is float32; 16 and 8 are whole numbers with a float32 scale for each row of a matrix."""
_Module = TypeVar("_Module", bound=nn.Module)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as one safetensors file, whole or not at all, with a SHA-256 of their content in its header."""
    kept = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    facts = {**(metadata or {}), "charlm": __version__, "sha256": _digest(kept, metadata or {})}
    content = memoryview(save(kept, facts))
    header = _ordered_header(content)
    with atomic_writer(path, len(header) + len(content)) as file:
        file.write(header)
        file.write(content[8 + struct.unpack("<Q", content[:8])[0] :])


def _ordered_header(content: memoryview) -> bytes:
    """The header of a safetensors file in one order (the library's varies), so that equal content is equal files."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(bytes(content[8 : 8 + size]))
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(padded)) + padded


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(metadata.items()):
        digest.update(f"{name}={len(text)}:{text};".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(
    path: Path, expected: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a file that `write_tensors` wrote, and its metadata.

    Args:
        path: the file.
        expected: names and shapes that it must have, neither more nor fewer; compared before anything is loaded.

    Raises:
        CheckpointError: missing, truncated, altered, or not of the expected names and shapes.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = list(file.keys())
            if expected is not None:
                _compare({name: tuple(file.get_slice(name).get_shape()) for name in names}, expected, path)
            tensors = {name: file.get_tensor(name).clone() for name in names}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a whole weights file ({error})") from None
    metadata.pop("charlm", None)
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum")
    return tensors, metadata


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors in a file, without reading the tensors.

    Raises:
        CheckpointError: missing, or its header is damaged.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a whole weights file ({error})") from None


def _check_header(path: Path) -> None:
    """Refuses a file whose header claims to be longer than the file."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file")
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the directory is not a whole model") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if len(head) < 8 or struct.unpack("<Q", head)[0] > size - 8:
        raise CheckpointError(f"{path} is not a whole weights file (its header is cut off)")


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{path} does not fit its model: missing tensors {missing[:3]}, unknown tensors {extra[:3]}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{path} does not fit its model: {name} has shape {found[name]}, not {shape}")


def quantised(weight_RK: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """A matrix as whole numbers of 16 or 8 bits [R, K], and the scale of each row, float32 [R].

    The number of largest magnitude in a row becomes the largest whole number; a weight stands for number * scale.

    >>> whole, scale = quantised(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), 8)
    >>> whole.tolist(), scale.numpy().round(4).tolist()
    ([[127, -64], [0, 0]], [0.007899999618530273, 1.0])
    """
    most = 2 ** (bits - 1) - 1
    values_RK = weight_RK.detach().cpu().float()
    scale_R = values_RK.abs().amax(1) / most
    scale_R = torch.where(scale_R > 0, scale_R, 1.0)
    whole_RK = (values_RK / scale_R.unsqueeze(1)).round().clamp(-most, most)
    return whole_RK.to(torch.int8 if bits == 8 else torch.int16), scale_R


def rounded(model: _Module, bits: Bits) -> _Module:
    """A copy of a model each of whose matrices holds the numbers that its weights of so many bits stand for.

    A tensor of more axes is read as a matrix with the same last axis.

    Raises:
        OptionError: the bits are not 8, 16 or 32, or a weight is not finite.
    """
    if bits not in (8, 16, 32):
        raise OptionError(f"a weight has 8, 16 or 32 bits, not {bits}")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            if bits != 32 and parameter.dim() >= 2:
                if not bool(parameter.isfinite().all()):
                    raise OptionError("a weight of this network is not a finite number: it cannot be rounded")
                whole_RK, scale_R = quantised(parameter.flatten(0, -2), bits)
                parameter.copy_((whole_RK * scale_R.unsqueeze(1)).view_as(parameter))
    return twin


def made_from(weight_RK: Tensor, bits: Bits) -> tuple[Tensor, Tensor] | None:
    """The whole numbers and scales that `rounded` made a matrix from, exactly; None where it holds other numbers.

    A scale that is found from the rounded numbers may differ from the first one in its last binary digit.
    """
    whole_RK, scale_R = quantised(weight_RK, bits)
    exact_R = torch.zeros(len(scale_R), dtype=torch.bool)
    found_R = scale_R
    for toward in (scale_R, torch.zeros(()), torch.full((), torch.inf)):
        tried_R = torch.nextafter(scale_R, toward.expand_as(scale_R))
        fits_R = (whole_RK * tried_R.unsqueeze(1) == weight_RK).all(1)
        found_R = torch.where(fits_R & ~exact_R, tried_R, found_R)
        exact_R |= fits_R
    return (whole_RK, found_R) if bool(exact_R.all()) else None


def floats(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor's numbers as float32 on the CPU."""
    return tensor.detach().cpu().float().numpy()


# -- arrays and columns ------------------------------------------------------------------------------------------------

_FREE, _PACKED = 1 << 26, 100  # bytes that arrays may have whatever their packed size, and how many times that size
_BROKEN = (
    ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, TokenError, ArithmeticError, RecursionError,
    OSError, IndexError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for a file that is none of their own, or whose header lies."""


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


def write_npz(arrays: Mapping[str, Any]) -> bytes:
    """The content of an .npz file; columns that are lists become arrays.

    >>> read_arrays(write_npz({"x": np.arange(3)}), "a.npz")["x"].tolist()
    [0, 1, 2]
    """
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def read_parquet(content: bytes, name: str) -> dict[str, list[Any]]:
    """The columns of a Parquet file as lists, None where a value is missing; needs the extra `parquet`."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise OptionError(f"{name} is a Parquet file: pip install 'charlm-toolkit[parquet]' to read it") from None
    try:
        return {str(key): values for key, values in parquet.read_table(io.BytesIO(content)).to_pydict().items()}
    except (ArrowException, OSError, ValueError) as error:
        raise TextError(f"{name} is not a whole Parquet file ({_line(error)})") from None


def write_parquet(columns: Mapping[str, Any]) -> bytes:
    """The content of a Parquet file."""
    from pyarrow import BufferOutputStream, parquet
    from pyarrow import table as arrow_table

    out = BufferOutputStream()
    parquet.write_table(arrow_table({name: list(values) for name, values in columns.items()}), out)
    content: bytes = out.getvalue().to_pybytes()
    return content
