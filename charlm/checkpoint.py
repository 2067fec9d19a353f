"""Model directories: weights without pickle, what they were made from, and every file checked when it is read.

A directory holds `config.json` (what the model is and was made from), `vocab.json`, and the model's own files: for a
network `best.safetensors` and `last.safetensors`, for an n-gram model its index. Reading trusts nothing: sizes
are compared with the file before memory is taken for them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.files import FORMAT, __version__, fingerprint, read_json
from charlm.lm.model import TextModel
from charlm.mixing.adaptive import AdaptiveLM
from charlm.mixing.mixture import CacheLM, MixtureLM
from charlm.ngrams.model import NGramLM
from charlm.nn.kernels import compiled, facts, for_reading, pick_device
from charlm.recurrent import RNNConfig
from charlm.recurrent.dynamic import DynamicConfig, DynamicLM
from charlm.recurrent.model import CharRNN
from charlm.tensors import read_tensors
from charlm.text.text import TextFacts
from charlm.text.vocab import Vocab


def _check_files(directory: Path, files: Any) -> None:
    """Compares files with the fingerprints that were kept when they were written."""
    if not isinstance(files, Mapping) or not all(Path(str(name)).name == name for name in files):
        raise CheckpointError(f"{directory}/config.json does not list the files of a charlm model")
    for name, kept in files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the directory is not a whole model")
        if fingerprint(path) != kept:
            raise CheckpointError(f"{path} is damaged: its content does not match its checksum; count the text again")


def load(directory: str | Path, *, device: str | torch.device = "auto", weights: str = "best") -> TextModel:
    """Reads a language model from its directory, ready to use: its best weights, the fastest backend for reading.

    Args:
        directory: a model directory, such as `checkpoints/NAME`.
        device: where a network's weights go: `auto`, `cpu`, `cuda`, `mps`.
        weights: `best` or `last`.

    Returns:
        The model; `source` says what it was made from, `directory` where it is, `description` all of `config.json`.

    Raises:
        CheckpointError: nothing there, broken, of another kind, or of a future version; the message says which.
        OptionError: there is no such device, or neither the best nor the last weights were asked for.
    """
    if weights not in ("best", "last"):
        raise OptionError(f"a model has the weights best and last, not {weights!r}")
    directory = Path(directory)
    config = read_config(directory)
    text = TextFacts.read(config["text"])
    vocab = read_vocab(directory)
    _check_vocab(directory, vocab, config)
    if not 0 <= text.first < len(vocab):
        raise CheckpointError(f"{directory} is damaged: its text begins with symbol {text.first} of {len(vocab)}")
    place = pick_device(device) if isinstance(device, str) else device
    try:
        if "files" in config:
            _check_files(directory, config["files"])
        model = _READERS[config["kind"]](directory, config["model"], vocab, weights, place)
    except CheckpointError:
        raise
    except CharlmError as error:
        raise CheckpointError(f"{directory} holds a broken model: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read ({error.strerror})") from None
    model.source, model.directory, model.description = text, directory, config
    return model


_FRAMES = {"sequence": {"format", "kind", "model", "data"}}
"""What the descriptions of other kinds than language models have."""


def read_config(directory: Path, *, kind: str | None = None) -> dict[str, Any]:
    """`config.json` of a model directory, its frame checked.

    Args:
        directory: of the model.
        kind: `sequence`, or None for any language model.
    """
    if not directory.is_dir():
        raise CheckpointError(f"there is no model directory {directory}: name one such as checkpoints/NAME")
    if not (directory / "config.json").exists():
        raise CheckpointError(
            f"{directory} is not a model directory (it has no config.json): name one that `charlm train` made"
        )
    config = read_json(directory / "config.json", limit=1 << 24)
    if not isinstance(config, dict) or not {"format", "kind", "model"} <= set(config):
        raise CheckpointError(f"{directory}/config.json is not the description of a charlm model")
    if type(config["format"]) is not int or not 1 <= config["format"] <= FORMAT:
        raise CheckpointError(
            f"{directory} has format {config['format']!r}, this charlm ({__version__}) reads up to {FORMAT}: "
            "install a newer charlm"
        )
    _check_kind(directory, config, kind)
    return config


def _check_kind(directory: Path, config: Mapping[str, Any], kind: str | None) -> None:
    found = config["kind"]
    known = found if isinstance(found, str) and found in (*_READERS, *_FRAMES) else None
    if kind is None and known in _FRAMES:
        raise CheckpointError(
            f"{directory} holds a Score or Distribution model, not a language model: use it with `charlm predict`"
        )
    if kind is not None and known in _READERS:
        raise CheckpointError(f"{directory} holds a language model: name one that `charlm fit` made")
    if known is None:
        raise CheckpointError(f"{directory} holds a {found!r}, not a language model ({' or '.join(_READERS)})")
    if not _FRAMES.get(known, {"text"}) <= set(config):
        raise CheckpointError(f"{directory}/config.json is not the description of a charlm model")


def read_vocab(directory: Path) -> Vocab:
    """`vocab.json` of a model directory."""
    try:
        return Vocab.from_json(read_json(directory / "vocab.json", limit=1 << 24))
    except CharlmError as error:
        raise CheckpointError(f"the vocabulary of {directory} cannot be read: {error}") from None


def _check_vocab(directory: Path, vocab: Vocab, kept: Mapping[str, Any]) -> None:
    """Refuses symbols that are not those of the weights or counts; what older versions wrote has no hash of them."""
    if kept.get("vocab_sha256", vocab.sha256) != vocab.sha256:
        raise CheckpointError(
            f"{directory}/vocab.json was changed: it does not hold the symbols that the model was made with; "
            "put the file back, or make the model again"
        )


def _read_rnn(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> CharRNN:
    config = RNNConfig.read(shape)
    with torch.device("meta"):
        model = CharRNN(vocab, config)
    read_weights(directory / f"{weights}.safetensors", model)
    model.to(device)
    model.stack.backend = for_reading(model.device)
    return model


def _read_ngram(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> NGramLM:
    return NGramLM.read(directory, shape, vocab)


def _read_dynamic(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> DynamicLM:
    network = load(directory / "network", device=device, weights=weights)
    if not isinstance(network, CharRNN):
        raise CheckpointError(f"{directory}/network is not a recurrent network")
    size = sum(parameter.numel() for parameter in network.dense.values())
    tensors, _ = read_tensors(directory / "sizes.safetensors", {"sizes": (size,)})
    return DynamicLM(network, tensors["sizes"].to(network.device), DynamicConfig(**_numbers(shape)))


def _read_mixture(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> MixtureLM:
    if not isinstance(shape, Mapping) or set(shape) != {"models", "weights", "rate"} or not _small(shape["models"]):
        raise CheckpointError(f"{directory}/config.json does not describe a mixture")
    models = [load(directory / str(number), device=device, weights=weights) for number in range(shape["models"])]
    try:
        return MixtureLM(models, weights=np.array(shape["weights"], dtype=np.float64), rate=float(shape["rate"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{directory}/config.json does not describe a mixture ({error})") from None


def _read_cache(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> CacheLM:
    return CacheLM(vocab, **_numbers(shape))


def _read_adaptive(directory: Path, shape: Any, vocab: Vocab, weights: str, device: torch.device) -> AdaptiveLM:
    numbers = {"trees": 1, **_numbers(shape)}  # what was saved without it has one
    known = set(numbers) == {"models", "room", "trees"} and numbers["trees"] in (1, 2)
    if not known or type(numbers["models"]) is not int or not 0 <= numbers["models"] <= 64:
        raise CheckpointError(f"{directory}/config.json does not describe an adaptive model")
    models = [load(directory / str(number), device=device, weights=weights) for number in range(numbers["models"])]
    tensors, _ = read_tensors(directory / "trained.safetensors")
    trained = tensors["trained"].numpy()
    ids = trained.dtype == np.int64 and trained.ndim == 1
    if not ids or (trained.size and not -1 <= trained.min() <= trained.max() < len(vocab)):
        raise CheckpointError(f"{directory}/trained.safetensors does not hold symbols of this vocabulary")
    return AdaptiveLM(vocab, models, trained=trained, room=int(numbers["room"]), trees=int(numbers["trees"]))


def _small(value: Any) -> bool:
    return type(value) is int and 2 <= value <= 64


def _numbers(shape: Any) -> dict[str, Any]:
    """The settings of a model whose settings are numbers."""
    if not isinstance(shape, Mapping) or not all(type(value) in (int, float) for value in shape.values()):
        raise CheckpointError("a stored model has numbers as its settings")
    try:
        return {str(name): value for name, value in shape.items()}
    except TypeError:
        raise CheckpointError("a stored model has its settings by name") from None


_READERS: dict[str, Callable[[Path, Any, Vocab, str, torch.device], TextModel]] = {
    "rnn": _read_rnn,
    "ngram": _read_ngram,
    "dynamic": _read_dynamic,
    "mixture": _read_mixture,
    "cache": _read_cache,
    "adaptive": _read_adaptive,
}


def read_weights(path: Path, model: nn.Module) -> None:
    """Puts the weights of a file into a model, which may be on the meta device; names and shapes must be its own."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    tensors, metadata = read_tensors(path, expected)
    vocab = getattr(model, "vocab", None)
    if isinstance(vocab, Vocab):
        _check_vocab(path.parent, vocab, metadata)
    kinds = {tensor.dtype for tensor in tensors.values()}
    if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
        raise CheckpointError(f"{path} mixes the types {sorted(map(str, kinds))}: weights have one floating type")
    if isinstance(model, CharRNN) and model.config.tied:
        tensors["head.linear.weight"] = tensors["embedding.weight"]
    model.load_state_dict(tensors, assign=True)
    if isinstance(model, CharRNN):
        model.tie()


def newest(root: Path) -> Path:
    """The language model under a directory that was written last."""
    found: list[tuple[str, Path]] = []
    for config in root.glob("*/config.json") if root.is_dir() else ():
        try:
            found.append((str(read_config(config.parent).get("updated", "")), config.parent))
        except CharlmError:
            continue  # not a language model of ours
    if not found:
        raise CheckpointError(f"there is no language model under {root}{os.sep}: train one with `charlm train TEXT`")
    return max(found)[1]


@torch.no_grad()
def grown(model: CharRNN, vocab: Vocab) -> CharRNN:
    """The model with rows of input and output for the new symbols of a vocabulary, matched by character.

    A new character is read as an unknown one, an input of zeros. It gets a tenth of the
    probability that the model gives its least expected character, so that what the model knows stays almost as it is.
    Weights of strings begin at zero again: strings of other ids are hashed into other rows.

    Args:
        model: any network of characters.
        vocab: its characters and new ones.

    >>> from charlm.recurrent.model import RNNConfig
    >>> model = CharRNN(Vocab.of("ac"), RNNConfig(hidden=4))
    >>> before, after = (m.next("ca") for m in (model, grown(model, Vocab.of("abc"))))
    >>> abs(after["a"] / after["c"] - before["a"] / before["c"]) < 1e-4, after["b"] < 0.1
    (True, True)
    """
    found, old = CharRNN(vocab, model.config), model.state_dict()
    kept = torch.tensor([vocab.characters.index(character) for character in model.vocab.characters])
    rarest = int(model.head.linear.bias.argmin())
    for name, new in found.state_dict().items():
        if name.startswith("head.linear."):
            new[:] = old[name][rarest]
            new.sub_(math.log(10) if name.endswith("bias") else 0.0)
            new[kept] = old[name]
        elif name == "embedding.weight" or (name == "stack.cells.0.weight_ih" and model.embedding is None):
            rows, known = (new, old[name]) if name == "embedding.weight" else (new.t(), old[name].t())
            rows.zero_()
            rows[kept] = known
        elif name in ("look_back.query", "look_back.key"):
            new[:] = old[name][:, -1:]  # as unknown characters are looked for
            new[:, kept] = old[name][:, :-1]
        elif name == "grams.weight":
            continue  # strings of other numbers are hashed into other rows: they are learned anew
        else:
            new.copy_(old[name])
    return found


def _networks(model: object) -> list[CharRNN]:
    """The networks in a model, which may be a mixture or one that learns while it reads."""
    if isinstance(model, CharRNN):
        return [model]
    inner = [*getattr(model, "models", ()), *([model.network] if hasattr(model, "network") else [])]
    return [network for one in inner for network in _networks(one)]


def circumstances(model: TextModel) -> dict[str, str]:
    """What a model's numbers depend on beside the model itself."""
    found = {
        "charlm": __version__,
        "numpy": np.__version__,
        "machine": f"{platform.machine()} {platform.system()}",
        "kernels": compiled.target() or "none",
    }
    if networks := _networks(model):
        device = networks[0].device
        found |= {
            "torch": torch.__version__,
            "threads": "1",
            "device": device.type if device.type == "cpu" else facts(device),
        }
        found["backend"] = " ".join(dict.fromkeys(network.stack.backend for network in networks))
    return found


def checksum_of(model: TextModel) -> bytes:
    """Of everything that makes the model: its kind, shape, vocabulary, weights or counts."""
    files = model.description.get("files")
    if not isinstance(files, dict):  # which is what a counted model keeps, so that it need not be written
        with tempfile.TemporaryDirectory() as directory:
            model.write_files(Path(directory))
            paths = sorted(path for path in Path(directory).rglob("*") if path.is_file())
            files = {str(path.relative_to(directory)): _checksum_of_file(path) for path in paths}
    told = [model.kind, model.shape(), model.vocab.to_json(), sorted(files.items())]
    return hashlib.sha256(json.dumps(told).encode("utf-8", "backslashreplace")).digest()[:6]


def _checksum_of_file(path: Path) -> str:
    """A file's fingerprint; of a description without the time at which it was written."""
    if path.name != "config.json":
        return fingerprint(path)
    config = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps([config[name] for name in ("kind", "model")])
