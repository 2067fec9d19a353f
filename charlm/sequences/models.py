"""Models of sequences in their directories: saving and loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from charlm.checkpoint import read_config, read_vocab, read_weights
from charlm.codec import decode
from charlm.errors import CharlmError, CheckpointError
from charlm.files import write_json
from charlm.nn.kernels.choose import for_reading
from charlm.sequences.config import SequenceConfig
from charlm.sequences.fitting import describe_sequence
from charlm.sequences.model import SequenceModel
from charlm.tensors import write_tensors

__all__ = ["SequenceCheckpoint", "load_sequence", "save_sequence"]


@dataclass(frozen=True, kw_only=True)
class SequenceCheckpoint:
    """A `SequenceModel` read from a directory.

    Args:
        directory: where it is.
        model: the network.
        data: what it was made from, as the one who made it wrote it down; strict JSON.
        config: the whole of `config.json`.
    """

    directory: Path
    model: SequenceModel
    data: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The directory's own name, for tables."""
        return self.directory.resolve().name


def save_sequence(directory: Path, model: SequenceModel, data: Mapping[str, Any], **more: Any) -> None:
    """Writes a sequence model as a model directory with its weights as `best` and `last`."""
    if model.vocab is not None:
        write_json(directory / "vocab.json", model.vocab.to_json())
    for name in ("best", "last"):
        write_tensors(directory / f"{name}.safetensors", dict(model.named_parameters()))
    write_json(directory / "config.json", describe_sequence(model.config, data, **more))


def load_sequence(
    directory: str | Path, *, device: str | torch.device = "cpu", weights: str = "best"
) -> SequenceCheckpoint:
    """Reads a Score or Distribution model from its directory.

    Args:
        directory: a run directory, `checkpoints/NAME`.
        device: where its weights go.
        weights: `best` or `last`.

    Raises:
        CheckpointError: nothing there, broken, of another kind, or of a future version; says which.
    """
    directory = Path(directory)
    config = read_config(directory, kind="sequence")
    if not isinstance(config["data"], dict):
        raise CheckpointError(f"{directory}/config.json does not say what its model was made from")
    try:
        shape = decode(SequenceConfig, config["model"], "the stored shape of the model")
        vocab = None if shape.features else read_vocab(directory)
        with torch.device("meta"):
            model = SequenceModel(shape, vocab)
        read_weights(directory / f"{weights}.safetensors", model)
    except CheckpointError:
        raise
    except CharlmError as error:
        raise CheckpointError(f"{directory} holds a broken model: {error}") from None
    model.to(device)
    model.stack.backend = for_reading(model.device)
    return SequenceCheckpoint(directory=directory, model=model, data=config["data"], config=config)
