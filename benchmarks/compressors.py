"""charlm beside general compressors on the same texts: nats a character, seconds, memory.

    python -m benchmarks.compressors [--tiny-shakespeare FILE] [--model DIR] [--only NAME ...] [--json]

Three tasks: the last tenth of Tiny Shakespeare (where the file is given) and of the bundled drama, and 125 kB of prose.
A compressor reads a training part by compressing it before the rest, so that its figure for a last tenth is

    (bytes of the whole − bytes of the nine tenths before it) · 8 · ln 2 / characters of the last tenth

and of prose, which nothing goes before, bytes · 8 · ln 2 / characters. A model of charlm that is made from the training
part is measured by the file that `charlm.compress` makes of the last tenth, header included. `--model` names networks
that were trained on the nine tenths of Tiny Shakespeare alone; `DIR+fast` and `DIR+best` are adaptive. Every run is a
process of its own, which gives the text back, and whose highest memory is printed, with Python and what it imports.

PPMd, brotli, zstd and paq9a come from the packages pyppmd, brotli, zstandard and the distribution's python3-paq, zpaq
from the distribution, xz and bzip2 from Python. What is not installed is named; paq8px and cmix are in no index.
"""

from __future__ import annotations

import argparse
import bz2
import importlib
import importlib.util
import json
import lzma
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROSE = 125_179  # bytes, as many as the play of the Canterbury corpus has
Code = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Tool:
    """A compressor: how it is called, and the module or program that it needs."""

    name: str
    pack: Code
    unpack: Code
    module: str = ""
    program: str = ""

    @property
    def there(self) -> bool:
        if self.program:
            return shutil.which(self.program) is not None
        return not self.module or importlib.util.find_spec(self.module) is not None


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _zpaq(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "text").write_bytes(content)
        command = ["zpaq", "add", "text.zpaq", "text", "-method", "5", "-threads", "1"]
        subprocess.run(command, cwd=room, check=True, capture_output=True)
        return (Path(room) / "text.zpaq").read_bytes()


def _unzpaq(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "text.zpaq").write_bytes(content)
        subprocess.run(["zpaq", "extract", "text.zpaq", "-threads", "1"], cwd=room, check=True, capture_output=True)
        return (Path(room) / "text").read_bytes()


def _ppmd(order: int) -> tuple[Code, Code]:
    """Variant I of PPMd; the decoder is told how many bytes there are, which it does not find by itself."""

    def pack(content: bytes) -> bytes:
        coder = _module("pyppmd").Ppmd8Encoder(order, 1 << 28)
        packed: bytes = coder.encode(content) + coder.flush()
        return len(content).to_bytes(4, "big") + packed

    def unpack(packed: bytes) -> bytes:
        content: bytes = (
            _module("pyppmd").Ppmd8Decoder(order, 1 << 28).decode(packed[4:], int.from_bytes(packed[:4], "big"))
        )
        return content

    return pack, unpack


def _zstd(content: bytes) -> bytes:
    packed: bytes = _module("zstandard").ZstdCompressor(level=22).compress(content)
    return packed


TOOLS = [
    Tool("bzip2 -9", bz2.compress, bz2.decompress),
    Tool("xz -9e", lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    Tool("zstd -22", _zstd, lambda content: _module("zstandard").ZstdDecompressor().decompress(content), "zstandard"),
    Tool(
        "brotli -q 11",
        lambda content: _module("brotli").compress(content, quality=11, lgwin=24),
        lambda content: _module("brotli").decompress(content),
        "brotli",
    ),
    *(Tool(f"PPMd, order {order}", *_ppmd(order), "pyppmd") for order in (5, 6)),
    Tool("paq9a", lambda text: _module("paq").compress(text), lambda text: _module("paq").decompress(text), "paq"),
    Tool("zpaq, method 5", _zpaq, _unzpaq, program="zpaq"),
]


def charlm_tools() -> list[Tool]:
    """charlm learning from nothing, where the engine for that is there."""
    if importlib.util.find_spec("charlm.mixing.adaptive") is None:
        return []
    return [
        Tool(
            "charlm compress, no model",
            lambda content: _module("charlm").compress(content).packed,
            lambda packed: _module("charlm").decompress(packed),
        )
    ]


def counted(train: bytes, kind: str) -> Any:
    """A model of the training part: counts alone, or mixed with a cache or with contexts that learn."""
    charlm = _module("charlm")
    text = charlm.Text.of(train.decode(), split="100/0/0")
    model = charlm.ngram(text, order=5, smoothing="kneser-ney")
    if kind == "contexts":
        return charlm.adaptive(model, text)
    return charlm.mix([model], cache=True) if kind == "cache" else model


def opened(kind: str) -> Any:
    """The network of a directory, which learns while it reads where `+fast` or `+best` stands behind it."""
    charlm = _module("charlm")
    directory, _, learning = kind.partition("+")
    model = charlm.load(directory)
    return charlm.adaptive(model, kind=learning) if learning else model


MODELS = {
    "counts": "charlm, Kneser-Ney of order 5",
    "cache": "charlm, the same mixed with a cache",
    "contexts": "charlm, the same, adaptive (fast)",
}


def child(arguments: list[str]) -> None:
    """One run in a process of its own: NAME FILE, or MODEL TRAIN FILE; prints a line of JSON."""
    if len(arguments) == 2:
        tool = next(tool for tool in [*TOOLS, *charlm_tools()] if tool.name == arguments[0])
        pack, unpack = tool.pack, tool.unpack
    else:
        charlm = _module("charlm")
        kind = arguments[0]
        model = counted(Path(arguments[1]).read_bytes(), kind) if kind in MODELS else opened(kind)
        pack, unpack = lambda content: charlm.compress(content, model).packed, lambda p: charlm.decompress(p, model)
    content = Path(arguments[-1]).read_bytes()
    started = time.perf_counter()
    packed = pack(content)
    middle = time.perf_counter()
    assert unpack(packed) == content, f"{arguments[0]} did not give the text back"
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = {"pack": middle - started, "unpack": time.perf_counter() - middle}
    print(json.dumps({"size": len(packed), "memory": kilobytes / 1024, **seconds}))


def run(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.compressors", "--child", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def figure(whole: float, before: float, characters: int) -> float:
    """Nats a character of a last part.

    >>> round(figure(300, 200, 400), 4)  # 800 bits of 400 characters
    1.3863
    """
    return (whole - before) * 8 * math.log(2) / characters


def row(name: str, nats: float, characters: int, found: dict[str, float]) -> dict[str, Any]:
    return {
        "name": name, "nats": nats, "bits": nats / math.log(2), "characters": characters,
        "pack": found["pack"], "unpack": found["unpack"], "memory": found["memory"],
    }  # fmt: skip


def measure(name: str, train: bytes, rest: bytes, models: list[str], only: list[str]) -> list[dict[str, Any]]:
    """All rows of one task."""
    rows: list[dict[str, Any]] = []
    characters = len(rest.decode())
    with tempfile.TemporaryDirectory() as room:
        first, last, whole = (Path(room) / part for part in ("train", "rest", "whole"))
        first.write_bytes(train), last.write_bytes(rest), whole.write_bytes(train + rest)
        for tool in [*TOOLS, *charlm_tools()]:
            if only and not any(word in tool.name for word in only):
                continue
            if not tool.there:
                print(f"{name}: {tool.name} is not installed", file=sys.stderr)
                continue
            found = run(tool.name, str(whole))
            before = run(tool.name, str(first))["size"] if train else 0
            rows.append(row(tool.name, figure(found["size"], before, characters), characters, found))
        for kind in [*MODELS, *models] if train else []:
            title = MODELS.get(kind, f"charlm, the network {Path(kind).name}")
            if not only or any(word in title for word in only):
                found = run(kind, str(first), str(last))
                rows.append(row(title, figure(found["size"], 0, characters), characters, found))
    return sorted(rows, key=lambda found: -found["nats"])


def show(name: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}\n\n| compressor | nats a character | bits | seconds to pack | to unpack | MB |")
    print("|---|---|---|---|---|---|")
    for each in rows:
        print(
            f"| {each['name']} | {each['nats']:.4f} | {each['bits']:.4f} | {each['pack']:.2f} | {each['unpack']:.2f} "
            f"| {each['memory']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny-shakespeare", type=Path, help="the file of 1,115,394 characters")
    parser.add_argument("--model", action="append", default=[], help="a network trained on its first nine tenths")
    parser.add_argument("--only", action="append", default=[], help="names that contain one of these words")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    drama = (ROOT / "data" / "shakespeare.txt").read_bytes()
    tasks = {}
    if options.tiny_shakespeare:
        content = options.tiny_shakespeare.read_bytes()
        cut = len(content) * 9 // 10
        tasks["Tiny Shakespeare, the last tenth"] = (content[:cut], content[cut:])
    cut = len(drama) * 9 // 10
    tasks["The bundled drama, the last tenth"] = (drama[:cut], drama[cut:])
    tasks["Prose of 125 kB, from nothing"] = (b"", drama[:PROSE])
    for name, (train, rest) in tasks.items():
        rows = measure(name, train, rest, options.model if "Tiny" in name else [], options.only)
        print(json.dumps({"task": name, "rows": rows})) if options.json else show(name, rows)


if __name__ == "__main__":
    main()
