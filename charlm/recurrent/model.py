"""The recurrent language model: one-hot or embedded characters, a stack of cells, dropout, LogSoftmax.

Axes: T steps, B lanes, V symbols, E embedding, D outputs of the top layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from charlm.errors import CheckpointError, OptionError
from charlm.lm.interface import SamplingRule, State, generate_by_steps
from charlm.lm.model import TextModel
from charlm.nn.cells import CELLS, cell_name
from charlm.nn.dropout import drop_symbols, dropout
from charlm.nn.heads import DistributionHead
from charlm.nn.kernels.cpu import compiled
from charlm.nn.kernels.cpu.generate import Draw, generate, pack
from charlm.nn.kernels.fused import SERVES
from charlm.nn.kernels.gpu.graphs import Network, generate_in_graphs
from charlm.nn.kernels.inputs import check_draws, check_ids, on_gpu
from charlm.nn.stack import Stack
from charlm.tensors import write_tensors
from charlm.text.vocab import Vocab

__all__ = ["CharRNN", "RNNConfig"]


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", cell_name(self.model))
        limits = {
            "layers": (1, 64),
            "hidden": (1, 65_536),
            "embedding": (0, 65_536),
            "projection": (0, 65_536),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise OptionError(f"{name} is a number from {least} to {most:,}, not {getattr(self, name)}")
        for name in ("dropout", "weight_dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} is a probability from 0 to below 1, not {getattr(self, name)}")
        if self.tied and self.embedding != (self.projection or self.hidden):
            raise OptionError(
                f"tied weights need an embedding as wide as the output ({self.projection or self.hidden}), "
                f"not {self.embedding}"
            )

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> RNNConfig:
        """Reads what `to_json` made; an unknown key or a value of another type is an error."""
        kinds = {field.name: type(field.default) for field in fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= set(kinds):
            raise CheckpointError(f"a stored network's shape has the keys {', '.join(kinds)} and no others")
        for name, item in value.items():
            if type(item) is not kinds[name] and not (kinds[name] is float and type(item) is int):
                raise CheckpointError(f"{name} in a stored network's shape is {item!r}, not a {kinds[name].__name__}")
        if value.get("model", "lstm") not in CELLS:
            raise CheckpointError(
                f"this network's cell {value['model']!r} is not defined here: import the module that defines it first"
            )
        return cls(**value)


class CharRNN(nn.Module, TextModel):
    """A recurrent network as a language model.

    Args:
        vocab: the symbols it reads and predicts.
        config: its shape.

    It starts in evaluation mode, without dropout; the training loop switches.

    >>> model = CharRNN(Vocab.of("abracadabra"), RNNConfig(model="gru", hidden=8))
    >>> logp, state = model.logprobs(torch.tensor([[0], [1]]), model.initial_state(1))
    >>> logp.shape, sorted(state), bool(logp.exp().sum(-1).allclose(torch.ones(2, 1)))
    (torch.Size([2, 1, 5]), ['h0'], True)
    """

    kind = "rnn"
    history: Any = None
    """The learning curve (`charlm.training.watching.History`) of a model that `charlm.train` returned."""
    trained: Any = None
    """How it was trained (`charlm.training.train.Training`), where `charlm.train` returned it."""

    def __init__(self, vocab: Vocab, config: RNNConfig) -> None:
        super().__init__()
        self.vocab, self.config = vocab, config
        self.embedding = nn.Embedding(len(vocab), config.embedding) if config.embedding else None
        self.stack = Stack(
            config.model,
            inputs=config.embedding or len(vocab),
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
            variational=config.variational,
            weight_dropout=config.weight_dropout,
            bias=config.bias,
            projection=config.projection,
        )
        self.head = DistributionHead(self.stack.outputs, len(vocab))
        self.tie()
        self.eval()

    def __repr__(self) -> str:
        return f"CharRNN({self.title}, {len(self.vocab)} symbols, {self.parameter_count:,} weights on {self.device})"

    @property
    def title(self) -> str:
        """The cell, layers and units."""
        return f"{self.config.model} {self.config.layers}x{self.config.hidden}"

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return self.config.to_json()

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the weights, as the best and the last ones."""
        for name in ("best", "last"):
            write_tensors(directory / f"{name}.safetensors", dict(self.named_parameters()))
        return {}

    def tie(self) -> None:
        """Makes the output's weights the embedding's, where the configuration says so."""
        if self.config.tied and self.embedding is not None:
            self.head.linear.weight = self.embedding.weight

    def reset_parameters(self, generator: torch.Generator | None = None, *, wide: bool = True) -> None:
        """Fresh initial weights from this generator: embeddings normal with deviation 1/√E, input weights of the first
        layer `wide` (see `Stack.reset_parameters`) or not, the rest as documented with the cells and the head."""
        self.head.reset_parameters(generator)
        self.stack.reset_parameters(generator, symbols=wide)
        if self.embedding is not None:
            with torch.no_grad():
                self.embedding.weight.normal_(0, self.config.embedding**-0.5, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.linear.weight.device

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def initial_state(self, lanes: int) -> State:
        """Of the built-in cells zeros, named h0, h1, ... and for the LSTM c0, c1, ..., each [lanes, width]."""
        return self.stack.initial_state(lanes)

    def forward(
        self,
        ids_TB: Tensor,
        state: State,
        resets_TB: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """Log-probabilities [T, B, V] and the next state, with dropout where the model is in training mode.

        Args:
            ids_TB: from 0 to V - 1; -1 is read as the input of zeros.
            state: as from `initial_state`.
            resets_TB: bool; a lane forgets everything before the step where it is true.
            generator: source of the dropout masks.

        Raises:
            OptionError: an argument of another type, shape or device, or an id out of range.
        """
        table = None if self.embedding is None else self.embedding.weight
        ids_TB = drop_symbols(ids_TB, self.config.input_dropout, self.training, generator)
        y_TBD, state = self.stack(ids_TB, state, table=table, resets_TB=resets_TB, generator=generator)
        y_TBD = dropout(y_TBD, self.config.dropout, self.training, generator, shared=self.config.variational)
        logp_TBV: Tensor = self.head(y_TBD)
        return logp_TBV, state

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`."""
        return self(ids_TB, state)  # type: ignore[no-any-return]

    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """See `LanguageModel.generate`; in one call where the compiled kernels serve the model, on a GPU in graphs
        where `fused` is its backend.

        Raises:
            OptionError: an argument of another type, shape or device, less noise than steps, or an id out of range.
        """
        ids_B = check_ids(ids_B, len(self.vocab), self.device, dim=1)
        noise_TB = check_draws(steps, len(ids_B), noise_TB)
        state = self.stack.check_state(state, len(ids_B))
        with torch.inference_mode():
            if not (steps and len(ids_B)) or not (self._compiled() or self._graphed()):
                return generate_by_steps(self, ids_B, state, steps, rule, noise_TB)
            cells = [self.stack.cell(layer) for layer in range(self.stack.layers)]
            table = None if self.embedding is None else self.embedding.weight
            names = cells[0].states
            layers = [tuple(state[f"{name}{n}"] for name in names) for n in range(len(cells))]
            if self._graphed():
                network = Network(cells=cells, table=table, head=self.head.linear)
                drawn, logp, layers = generate_in_graphs(self, network, rule.draw, rule, ids_B, layers, noise_TB)
            else:
                packed = pack(self, cells, table, self.head.linear)
                draw = Draw(temperature=rule.temperature, top_k=rule.top_k, top_p=rule.top_p)
                drawn, logp, layers = generate(packed, ids_B, layers, draw, noise_TB)
        after = {f"{name}{n}": t for n, layer in enumerate(layers) for name, t in zip(names, layer, strict=True)}
        return drawn, logp, after

    def _compiled(self) -> bool:
        """Whether the compiled kernels can generate from this model as it is."""
        weight = self.head.linear.weight
        fits = weight.dtype == torch.float32 and compiled.fits(weight) and type(self.stack.cell(0)) in SERVES
        return fits and not (self._drops() or self.config.projection)

    def _graphed(self) -> bool:
        """Whether generation is recorded on a GPU: asked for by the backend, as it has not been measured yet."""
        asked = on_gpu(self.device) and self.stack.backend == "fused"
        return asked and type(self.stack.cell(0)) in SERVES and not self._drops()

    def _drops(self) -> bool:
        config = self.config
        return self.training and config.dropout + config.weight_dropout + config.input_dropout > 0
