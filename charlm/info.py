"""What `charlm info` prints: what a model directory holds, read from its small files alone, or what the machine has."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import read_config, read_vocab
from charlm.display import html_table
from charlm.errors import CharlmError, CheckpointError
from charlm.files import read_json
from charlm.nn.kernels import compiled
from charlm.tensors import shapes_in


@dataclass(frozen=True, kw_only=True, repr=False)
class Machine:
    """What charlm computes with on this machine; made by `machine`. Its `repr` is what `charlm info --machine` prints.

    Args:
        kernels: which kernels run the recurrent layers on a CPU, in a sentence.
        target: what the kernels in use were compiled for; empty where none are.
        reasons: of every target, why it does not run here; empty for one that does.
        bf16: whether the kernels in use have products of bfloat16 (`--precision bf16`).
        library: where the compiled kernels lie.
        compiler: the C compiler that an installation would use; None where there is none.
        processor: its architecture.
        vectors: its vector instructions, as the operating system names them; empty where it does not.
        cores: how many the operating system counts.
        threads: how many torch uses.
        torch: its version.
        torch_vectors: what torch's own kernels use.
        openmp: torch's version of it; None without.
        mkl: torch's version of it; None without.
        gpu: the name of the first CUDA device; None without.
    """

    kernels: str
    target: str
    reasons: dict[str, str]
    bf16: bool
    library: str | None
    compiler: str | None
    processor: str
    vectors: tuple[str, ...]
    cores: int
    threads: int
    torch: str
    torch_vectors: str
    openmp: str | None
    mkl: str | None
    gpu: str | None

    def to_json(self) -> dict[str, Any]:
        """What `charlm info --machine --json` prints."""
        return asdict(self)

    def __repr__(self) -> str:
        facts = [("kernels", self.kernels)]
        faster = list(self.reasons)[: list(self.reasons).index(self.target)] if self.target else list(self.reasons)
        facts += [("", f"not {name}: {self.reasons[name] or 'CHARLM_KERNELS names another'}") for name in faster]
        facts += [
            ("", f"{'with' if self.bf16 else 'without'} products of bfloat16 (--precision bf16)"),
            ("library", self.library or "none"),
            ("compiler", self.compiler or "none"),
            ("processor", f"{self.processor}, {self.cores} cores: {' '.join(self.vectors) or 'vector sets not known'}"),
            ("threads", str(self.threads)),
            ("torch", f"{self.torch}, {self.torch_vectors}; OpenMP {self.openmp or 'none'}; MKL {self.mkl or 'none'}"),
            ("GPU", self.gpu or "none"),
        ]
        return "\n".join(f"{name:12} {value}" for name, value in facts)


def machine() -> Machine:
    """What charlm computes with on this machine: kernels, compiler, processor, threads, torch.

    Raises:
        OptionError: CHARLM_KERNELS names kernels that do not run here.

    >>> import torch
    >>> machine().threads == torch.get_num_threads()
    True
    """
    built = torch.__config__.parallel_info()
    openmp, mkl = (
        re.search(pattern, built) for pattern in (r"OpenMP.*a\.k\.a\. OpenMP ([\d.]+)", r"Kernel Library Version (\S+)")
    )
    names = [os.environ["CC"].split()[0]] if os.environ.get("CC", "").strip() else ["cc", "gcc", "clang"]
    return Machine(
        kernels=compiled.described(),
        target=compiled.target(),
        reasons=compiled.reasons(),
        bf16=compiled.multiplies_bf16(),
        library=str(path) if (path := compiled.library_path()) is not None else None,
        compiler=next((found for name in names if (found := shutil.which(name))), None),
        processor=platform.machine(),
        vectors=_vectors(Path("/proc/cpuinfo")),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        torch_vectors=torch.backends.cpu.get_cpu_capability(),
        openmp=openmp and openmp.group(1),
        mkl=mkl and mkl.group(1),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    )


_VECTORS = re.compile(r"sse4_2|f16c|fma|avx\w*|amx_\w+|asimd\w*|sve\w*|i8mm|bf16")


def _vectors(path: Path) -> tuple[str, ...]:
    """The vector instructions that Linux lists of the first processor; none on another system."""
    try:
        listed = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", listed, re.MULTILINE)
    return tuple(name for name in flags.group(1).split() if _VECTORS.fullmatch(name)) if flags else ()


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelInfo:
    """What a model is and what it was made from; made by `describe`.

    Args:
        directory: where it is.
        config: the whole of its `config.json`.
        symbols: the size of its vocabulary; 0 for a model of sequences of numbers.
        size: bytes of all its files.
        weights: the number of trained weights; None for a counted model, which has none.
    """

    directory: Path
    config: dict[str, Any]
    symbols: int
    size: int
    weights: int | None

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values for a person; a name that is empty goes on with the fact before."""
        facts = _facts_of(self.config, self.symbols)
        if self.weights is not None:
            facts.append(("weights", f"{self.weights:,}"))
        return [*facts, ("on disk", f"{self.size:,} bytes")]

    def to_json(self) -> dict[str, Any]:
        """What `charlm info --json` prints."""
        about = {"directory": str(self.directory), "symbols": self.symbols, "bytes": self.size, "weights": self.weights}
        return {**about, **self.config}

    def __repr__(self) -> str:
        return "\n".join(f"{name:12} {value}" for name, value in self.facts)

    def _repr_html_(self) -> str:
        return html_table(["", self.directory.name], self.facts)


def describe(directory: str | Path) -> ModelInfo:
    """What the model in a directory is, read from its small files alone.

    Args:
        directory: what `charlm train`, `ngram` or `fit` made, such as `checkpoints/NAME`.

    Raises:
        CheckpointError: there is no model, or its description is not whole.
    """
    directory = Path(directory)
    config = read_config(directory, kind=_kind(directory))
    of_numbers = config["kind"] == "sequence" and config["model"].get("features") != 0
    found = ModelInfo(
        directory=directory,
        config=config,
        symbols=0 if of_numbers else len(read_vocab(directory)),
        size=sum(path.stat().st_size for path in directory.iterdir() if path.is_file()),
        weights=_weights(directory),
    )
    _facts_of(config, found.symbols)  # refuses a description that is not whole
    return found


def _kind(directory: Path) -> str | None:
    """`sequence` where the description says so; None lets `read_config` say what is wrong with it."""
    try:
        found = read_json(directory / "config.json", limit=1 << 24)
    except CharlmError:
        return None
    return "sequence" if isinstance(found, dict) and found.get("kind") == "sequence" else None


def _weights(directory: Path) -> int | None:
    """How many numbers the best weights of a network are; None where there are none."""
    path = directory / "best.safetensors"
    if not path.exists():
        return None
    return sum(math.prod(shape) for shape in shapes_in(path).values())


def _facts_of(config: dict[str, Any], symbols: int) -> list[tuple[str, str]]:
    """What a `config.json` says, as names and values for a person.

    Raises:
        CheckpointError: something that belongs there is missing or of another type.
    """
    try:
        return (_sequence_facts if config["kind"] == "sequence" else _facts)(config, symbols)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the description of the model is not whole ({error!r})") from None


def _facts(config: dict[str, Any], symbols: int) -> list[tuple[str, str]]:
    """Of a language model."""
    text, result = config["text"], config.get("result")
    facts = [
        ("kind", f"{config['kind']}, {_written(config)}"),
        ("updated", str(config.get("updated", "?"))),
        ("model", _options(config["model"])),
        ("text", f"{', '.join(text['names'])}: {text['characters']:,} symbols, {symbols} different"),
        ("sha256", text["sha256"]),
        ("split", text["split"]),
    ]
    if old := config.get("replay"):
        share = f"{100 * config['training']['replay_share']:g} % of the batch"
        facts.append(("replay", f"{', '.join(old['names'])}, {old['part']} part, {share}"))
    if "training" in config:
        training = config["training"]
        how = f"{training['lanes']} lanes of {training['window']} steps, backend {training['backend']}"
        facts += [("training", how), ("", _options(training["optimisation"]))]
    if result is not None and result.get("nats") is not None:
        nats = f"{result['nats']:.6f} nats, perplexity {result['perplexity']:.4f} on the {result['part']} part"
        facts.append(("result", nats))
    return facts


def _sequence_facts(config: dict[str, Any], symbols: int) -> list[tuple[str, str]]:
    """Of a Score or Distribution model."""
    shape, data, training, result = config["model"], config["data"], config.get("training"), config.get("result")
    unshown = ("input_scale", "target_scale", "mode", "classes")
    output = f"{shape['classes']} classes" if shape["mode"] == "distribution" else "one number"
    facts = [
        ("kind", f"{shape['mode']} ({output}), {_written(config)}"),
        ("updated", str(config.get("updated", "?"))),
        ("model", ", ".join(f"{name} {value}" for name, value in shape.items() if name not in unshown)),
    ]
    if "table" in data:
        what = f"text of {symbols} different symbols" if symbols else f"numbers, {data['features']} a step"
        classes = ("classes", ", ".join(map(str, data["classes"])))
        facts += [
            ("table", f"{data['table']}: {data['rows']:,} rows of {what}"),
            ("columns", f"sequences {data['sequence']!r}, labels {data['label']!r}"),
            classes if data["classes"] else ("base rate", f"{data['base'][0]:g}"),
            ("sha256", data["sha256"]),
            ("split", data["split"]),
        ]
    if training is not None:
        how = f"batches of {training['batch']}, backend {training['backend']}"
        facts += [("training", how), ("", _options(training["optimisation"]))]
    if result is not None:
        facts.append(("result", f"{figures_line(result)} on the {result['part']} part"))
    return facts


def figures_line(result: dict[str, Any]) -> str:
    """The figures in the `result` of a `config.json`, which alone are numbers with decimals, in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in result.items() if type(value) is float)


def _written(config: dict[str, Any]) -> str:
    return f"format {config['format']}, written by charlm {config.get('charlm', '?')}"


def _options(values: dict[str, Any]) -> str:
    """Names and values in a line; of a table its size.

    >>> _options({"rate": 0, "weights": [[0.1, 0.9], [0.0, 0.1], [0.2, 0.0]]})
    'rate 0, weights 3 x 2'
    """
    tables = {name: f"{len(rows)} x {len(rows[0])}" for name, rows in values.items() if _is_table(rows)}
    return ", ".join(f"{name} {value}" for name, value in (values | tables).items() if value is not None)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and isinstance(value[0], list)
