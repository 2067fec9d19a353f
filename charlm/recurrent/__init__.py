"""Recurrent networks as language models, and what their hidden units do.

Open `model.py` first: `CharRNN`; its shape, `RNNConfig`, is here. `dynamic.py` lets a network go on learning while it
reads. `inspection.py` finds what hidden units follow: `atlas.py` reads and draws their values, `properties.py` lists
what is searched for and says how well a unit follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charlm.codec import decode
from charlm.errors import CheckpointError, OptionError
from charlm.nn.cells import CELLS, cell_name
from charlm.nn.look_back import CHARACTERS


@dataclass(frozen=True, kw_only=True)
class RNNConfig:
    """The shape of a `CharRNN`.

    Args:
        model: `rnn`, `gru`, `lstm`, or another cell's name or class (`charlm.nn.cells.Cell`); kept as its name.
        layers: recurrent layers, one above the other.
        hidden: units a layer.
        embedding: width of the character embedding; 0 for one-hot input.
        dropout: between the layers and before the output, while training.
        variational: whether its masks are the same for all steps of a window.
        weight_dropout: of the recurrent weights, for a window at a time, while training.
        input_dropout: share of the characters that are read as unknown, while training.
        bias: whether the cells have biases.
        projection: width of an LSTM's projected output; 0 for none.
        tied: whether the output's weights are the embedding's (Press and Wolf 2017); both need one width.
        grams: rows of weights that the strings of the last characters add to the logits (`RecentGrams`); 0 for none.
        gram_order: length of the longest of these strings.
        look_back: characters that the network looks back on for what followed at places like this one (`LookBack`); 0
            for none.

    >>> RNNConfig(model="gru", hidden=64).layers
    1
    """

    model: str = "lstm"
    layers: int = 1
    hidden: int = 128
    embedding: int = 0
    dropout: float = 0.0
    variational: bool = False
    weight_dropout: float = 0.0
    input_dropout: float = 0.0
    bias: bool = True
    projection: int = 0
    tied: bool = False
    grams: int = 0
    gram_order: int = 5
    look_back: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", cell_name(self.model))
        limits = {
            "layers": (1, 64),
            "hidden": (1, 65_536),
            "embedding": (0, 65_536),
            "projection": (0, 65_536),
            "grams": (0, 2**24),
            "gram_order": (2, 16),
            "look_back": (0, 65_536),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise OptionError(f"{name} is a number from {least} to {most:,}, not {getattr(self, name)}")
        if 0 < self.look_back < CHARACTERS:
            raise OptionError(f"look_back is 0 or {CHARACTERS} and more, not {self.look_back}")
        for name in ("dropout", "weight_dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} is a probability from 0 to below 1, not {getattr(self, name)}")
        if self.tied and self.embedding != (self.projection or self.hidden):
            raise OptionError(
                f"tied weights need an embedding as wide as the output ({self.projection or self.hidden}), "
                f"not {self.embedding}"
            )

    @classmethod
    def read(cls, value: Any) -> RNNConfig:
        """The shape that a `config.json` holds.

        Raises:
            CheckpointError: it is not whole, or its cell is not defined in this process.
        """
        cell = value.get("model", "lstm") if isinstance(value, Mapping) else "lstm"
        if cell not in CELLS:
            raise CheckpointError(
                f"this network's cell {cell!r} is not defined here: import the module that defines it first"
            )
        return decode(cls, value, "the stored shape of the network")
