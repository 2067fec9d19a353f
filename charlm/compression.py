"""Compressing files with language models: the file format, what has to be the same to decode, `compress`, `decompress`.

A compressed file begins with what made it, in this order: the letters `chlm` and the version; a checksum of all that
follows; checksums of the content, of the model and of numbers that the model computed where the file was made; how
many bytes, symbols, unknown characters and lanes there are; how bytes became characters; the circumstances, as JSON.
The rest is the number of the range coder.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from charlm.checkpoint import checksum_of, circumstances, load
from charlm.display import progress_bar
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.files import __version__
from charlm.lm.coding import decode_symbols, encode_symbols, steps_of
from charlm.lm.model import TextModel
from charlm.mixing.adaptive import AdaptiveLM, adaptive
from charlm.nn.kernels import using_threads
from charlm.text.vocab import Vocab, put_together, take_apart

MAGIC, VERSION = b"chlm", 2
_HEAD = struct.Struct(">4sB6s")  # letters, version, checksum of the rest
_SUMS = struct.Struct(">8s6s4s")  # checksums of content, model and the model's numbers
_USUAL = (  # what most headers say takes little space; a change needs another VERSION
    b'"kernels":"neongenericnoneavx512","torch":"2.13.0+cpu","threads":"1","device":"cudacpu","backend":"torchfused",'
    b'{"codec":"utf-8","charlm":"0.1.0","numpy":"2.4.6","machine":"x86_64 Linux","kernels":"avx2","torch":"2.13.0+cpu",'
    b'"threads":"1","device":"cpu","backend":"fused","model":"checkpoints/'
)
_LANE = 4096  # characters that a lane has at least: one costs about two bytes, as it begins without a past
_LANES = 32


@dataclass(frozen=True, kw_only=True)
class Made:
    """What made a compressed file, as its header says.

    Args:
        content: checksum of the bytes that were compressed.
        model: checksum of the model's weights or counts, and of its vocabulary.
        numbers: checksum of log-probabilities that the model computed where the file was made.
        size: bytes of the content.
        symbols: characters, or bytes where the model knows bytes, that were coded.
        unknown: how many of them the model does not know.
        lanes: pieces that were read side by side.
        codec: how bytes became characters: an encoding, `crlf` behind it where line ends were made line feeds.
        circumstances: the name of the model, and what its numbers depend on: versions, kernels, device.
    """

    content: bytes
    model: bytes
    numbers: bytes
    size: int
    symbols: int
    unknown: int
    lanes: int
    codec: str
    circumstances: dict[str, str]

    def pack(self, written: bytes) -> bytes:
        """The compressed file."""
        told = json.dumps({"codec": self.codec, **self.circumstances}, separators=(",", ":")).encode()
        packer = zlib.compressobj(9, wbits=-15, zdict=_USUAL)
        told = packer.compress(told) + packer.flush()
        numbers = b"".join(map(_number, (self.size, self.symbols, self.unknown, self.lanes, len(told))))
        rest = _SUMS.pack(self.content, self.model, self.numbers) + numbers + told + written
        return _HEAD.pack(MAGIC, VERSION, hashlib.sha256(rest).digest()[:6]) + rest

    def to_json(self) -> dict[str, Any]:
        """What `charlm decompress --about` prints."""
        sums = {name: getattr(self, name).hex() for name in ("content", "model", "numbers")}
        counts = {name: getattr(self, name) for name in ("size", "symbols", "unknown", "lanes", "codec")}
        return {**counts, **self.circumstances, "checksums": sums}


def made(packed: bytes) -> tuple[Made, bytes]:
    """The header of a compressed file and the coded rest.

    Raises:
        CharlmError: it is no such file, of a newer version, or damaged.
    """
    if len(packed) < _HEAD.size or packed[:4] != MAGIC:
        raise CharlmError("this is not a file that `charlm compress` made: name one that was")
    _, version, checksum = _HEAD.unpack_from(packed)
    if version != VERSION:
        raise CharlmError(
            f"the file has version {version}, this charlm ({__version__}) reads {VERSION}: "
            "install the charlm that made it"
        )
    rest = packed[_HEAD.size :]
    if hashlib.sha256(rest).digest()[:6] != checksum:
        raise CharlmError("the file is damaged or cut short (its checksum is wrong): get it again")
    try:
        content, model, numbers = _SUMS.unpack_from(rest)
        counts, at = [], _SUMS.size
        for _ in range(5):
            count, at = _read_number(rest, at)
            counts.append(count)
        told = zlib.decompressobj(wbits=-15, zdict=_USUAL).decompress(rest[at : at + counts[4]], 1 << 16)
        circumstances = json.loads(told)
        codec = circumstances.pop("codec")
        size, symbols, unknown, lanes, length = counts
        sound = unknown <= symbols and 1 <= lanes <= max(1, symbols)
        if not sound or not all(isinstance(value, str) for value in (codec, *circumstances.values())):
            raise ValueError
    except (struct.error, IndexError, ValueError, zlib.error, AttributeError, KeyError):
        raise CharlmError("the file's header makes no sense: it is not one that `charlm compress` made") from None
    header = Made(
        content=content, model=model, numbers=numbers, size=size, symbols=symbols, unknown=unknown, lanes=lanes,
        codec=codec, circumstances=circumstances,
    )  # fmt: skip
    return header, rest[at + length :]


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow.

    >>> _read_number(_number(300) + b"x", 0)
    (300, 2)
    """
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _read_number(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 0x80 or shift > 42:
            return value, at


# -- what has to be the same -----------------------------------------------------------------------------------------


def _checksum_of_numbers(model: TextModel, lanes: int) -> bytes:
    """Of the rows that the model computes here for a few symbols, by the same calls as in coding."""
    steps, digest, size = steps_of(model, lanes), hashlib.sha256(), len(model.vocab)
    for step in range(16):
        ids_B = (np.arange(lanes, dtype=np.int64) * 5 + step * step * 3) % size
        steps.read(ids_B)
        digest.update(steps.numbers())
    return digest.digest()[:4]


# -- the two functions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed text and its figures.

    Args:
        packed: the compressed file.
        header: what made it.
        header_bytes: how long that is.
        bits: what the symbols cost by their probabilities, unknown characters included; `packed` is as long as these
            and the header, to within two bytes.
        unknown_bits: what it cost to say whether unknown characters come, and which.
        model: what made it, in words.
    """

    packed: bytes
    header: Made
    header_bytes: int
    bits: float
    unknown_bits: float
    model: str

    @property
    def bits_per_char(self) -> float:
        """Bits a symbol; NaN where there is none."""
        return self.bits / self.header.symbols if self.header.symbols else float("nan")

    def __repr__(self) -> str:
        header = self.header
        share = f" ({100 * len(self.packed) / header.size:.1f} %)" if header.size else ""
        rate = f"{self.bits_per_char:.4f} bits each, " if header.symbols else ""
        unknown = f", of which {header.unknown:,} unknown ones cost {self.unknown_bits:,.0f}" if header.unknown else ""
        return (
            f"{header.size:,} bytes to {len(self.packed):,}{share} by {self.model}: {header.symbols:,} symbols, "
            f"{rate}{self.bits:,.0f} bits{unknown}, and a header of {self.header_bytes} bytes"
        )

    def to_json(self) -> dict[str, Any]:
        """What `charlm compress --json` prints."""
        figures = {"compressed": len(self.packed), "bits": self.bits, "unknown_bits": self.unknown_bits}
        return {**figures, "header_bytes": self.header_bytes, **self.header.to_json()}


def compress(
    content: bytes,
    model: TextModel | str | Path | None = None,
    *,
    learning: Literal["fast", "best"] | None = None,
    lanes: int | None = None,
    progress: bool | None = None,
) -> Compressed:
    """Compresses bytes with a language model: what the model foresees well costs little.

    The bytes are read as the model's own text was; characters that it does not know and bytes that are not of its
    encoding are written out, at a cost that is told.

    Args:
        content: any bytes, such as those of a file.
        model: a language model, or the directory of one, whose name is kept for `decompress`. None learns everything
            from the content itself, byte by byte (`charlm.mixing.adaptive.AdaptiveLM`).
        learning: let the model go on learning while it reads, together with contexts that have read its training
            part; `fast` without gradient steps and `best` with them, as of `charlm.adaptive`.
        lanes: pieces of the text that are read side by side, each without a past. More are faster and cost about two
            bytes each. By default 1 for a model that learns while it reads, else one for each 4,096 characters, at
            most 32.
        progress: show a bar; None shows it on a terminal or in a notebook.

    >>> import charlm
    >>> model = charlm.ngram(charlm.Text.of("abracadabra " * 40), order=3, smoothing="kneser-ney")
    >>> packed = compress("abracadabra, abracadabra".encode(), model).packed
    >>> decompress(packed, model)
    b'abracadabra, abracadabra'
    """
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise OptionError(f"compress takes bytes, not {type(content).__name__}: text.encode() makes some of a str")
    if lanes is not None and lanes < 1:
        raise OptionError(f"a text is read in at least 1 lane, not {lanes}")
    content = bytes(content)
    if model is None and learning is not None:
        raise OptionError("without a model everything is learned from the file: name a model for learning (--adaptive)")
    base = None if model is None else model if isinstance(model, TextModel) else load(model)
    opened = _learner(base, learning, len(content))
    codec, ids, codes = take_apart(content, opened.vocab, opened.source.reading.encoding)
    usual = 1 if opened.is_adaptive else max(1, min(_LANES, len(ids) // _LANE))
    lanes = max(1, min(lanes or usual, len(ids)))
    with using_threads(1), progress_bar(len(ids), "compressing", "char", show=progress, unit_scale=True) as bar:
        numbers = _checksum_of_numbers(opened, lanes)
        coded = encode_symbols(opened, opened.start, ids, codes, lanes=lanes, progress=bar.update)
    name = {"model": "" if base is None else str(base.directory)} if base is None or base.directory is not None else {}
    name |= {"adaptive": learning} if learning is not None else {}
    header = Made(
        content=hashlib.sha256(content).digest()[:8],
        model=checksum_of(opened),
        numbers=numbers,
        size=len(content),
        symbols=len(ids),
        unknown=len(codes),
        lanes=lanes,
        codec=codec,
        circumstances={**circumstances(opened), **name},
    )
    packed = header.pack(coded.written)
    return Compressed(
        packed=packed,
        header=header,
        header_bytes=len(packed) - len(coded.written),
        bits=coded.bits,
        unknown_bits=coded.unknown_bits,
        model=opened.name,
    )


def decompress(
    packed: bytes,
    model: TextModel | str | Path | None = None,
    *,
    force: bool = False,
    progress: bool | None = None,
) -> bytes:
    """The bytes that `compress` was given.

    Args:
        packed: what `compress` made.
        model: the same model, or its directory; by default the directory that the file names.
        force: try although another model, version or machine made the file; the checksum says whether it worked.
        progress: show a bar; None shows it on a terminal or in a notebook.

    Raises:
        CharlmError: the file is damaged or no such file, or this machine would not decode it.
        CheckpointError: its model is not there.
    """
    header, written = made(bytes(packed))
    named = header.circumstances.get("model")
    if model is None and named is None:
        raise OptionError("the file was made by a model that had no directory: name the model")
    base = model if isinstance(model, TextModel) else _opened(str(model or named), header) if model or named else None
    opened = _learner(base, header.circumstances.get("adaptive"), header.size)
    with using_threads(1):
        if not force:
            _check(opened, header)
        with progress_bar(header.symbols, "decompressing", "char", show=progress, unit_scale=True) as bar:
            try:
                counts = {"symbols": header.symbols, "unknown": header.unknown, "lanes": header.lanes}
                ids, codes = decode_symbols(opened, opened.start, written, **counts, progress=bar.update)
                content = put_together(ids, codes, header.codec, opened.vocab)
            except (CharlmError, UnicodeError, LookupError):
                content = None
    if content is None or hashlib.sha256(content).digest()[:8] != header.content or len(content) != header.size:
        raise CharlmError(
            "what came out is not what was compressed (its checksum is wrong), so it is not kept: decompress it "
            "with the model, the versions and the machine that it was made with"
        )
    return content


def _learner(base: TextModel | None, learning: str | None, size: int) -> TextModel:
    """The model that codes so many bytes: one that learns from them alone where there is no other."""
    room = max(4096, size)
    if base is None:
        return AdaptiveLM(Vocab.of_bytes(), room=room)
    return base if learning is None else adaptive(base, kind="best" if learning == "best" else "fast", room=room)


def _opened(directory: str, header: Made) -> TextModel:
    """The model of a file, on the device where it was."""
    device = header.circumstances.get("device", "cpu")
    try:
        return load(directory, device="cpu" if device == "cpu" else "auto")
    except CheckpointError as error:
        raise CheckpointError(f"the model that made the file cannot be opened: {error}") from None


def _check(model: TextModel, header: Made) -> None:
    """Refuses a file that another model made, or that this machine would decode otherwise."""
    if checksum_of(model) != header.model:
        raise OptionError(f"another model than {model.name} made the file: name that one")
    for name, here in circumstances(model).items():
        if (there := header.circumstances.get(name, "none")) != here:
            raise OptionError(
                f"the file was made with {name} {there} and here is {here}, so that what comes out may be wrong: use "
                "the same, or try with --force (force=True), where the checksum decides"
            )
    if _checksum_of_numbers(model, header.lanes) != header.numbers:
        raise OptionError(
            "the model computes other numbers on this machine than where the file was made, so that what comes out "
            "would be wrong: use that machine, or try with --force (force=True), where the checksum decides"
        )
