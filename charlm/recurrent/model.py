"""The recurrent language model: one-hot or embedded characters, a stack of cells, dropout, LogSoftmax.

`gradient_sizes` says how large the gradients of its weights usually are, which is what dynamic evaluation divides by.
Axes: T steps, B lanes, V symbols, E embedding, D outputs of the top layer, P weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from charlm.codec import decode
from charlm.errors import CheckpointError, OptionError
from charlm.lm.interface import SamplingRule, State, generate_by_steps, pick_targets
from charlm.lm.model import TextModel
from charlm.nn.cells import CELLS, cell_name
from charlm.nn.heads import DistributionHead
from charlm.nn.kernels import compiled
from charlm.nn.kernels.generate import Draw, generate, pack
from charlm.nn.kernels.graphs import Network, generate_in_graphs
from charlm.nn.kernels.reference import SERVES, check_draws, check_ids, check_weights, on_gpu
from charlm.nn.stack import Stack, drop_symbols, dropout
from charlm.tensors import Bits, rounded, write_tensors
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab

__all__ = ["CharRNN", "RNNConfig", "flat", "forward_with", "gradient_sizes", "mean_nats"]


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
    """How it was trained (`charlm.training.watching.Training`), where `charlm.train` returned it."""
    bits: Bits = 32
    """Of the weights that the compiled generation reads; set by `with_bits`."""

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
        return asdict(self.config)

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the weights, as the best and the last ones."""
        mark = {"vocab_sha256": self.vocab.sha256}
        for name in ("best", "last"):
            write_tensors(directory / f"{name}.safetensors", dict(self.named_parameters()), mark)
        return {}

    def tie(self) -> None:
        """Makes the output's weights the embedding's, where the configuration says so."""
        if self.config.tied and self.embedding is not None:
            self.head.linear.weight = self.embedding.weight

    def with_bits(self, bits: Bits) -> CharRNN:
        """See `TextModel.with_bits`."""
        twin = rounded(self, bits)
        twin.bits = bits
        return twin

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
    def symbol_weights(self) -> Tensor:
        """The weights that the input symbol picks out: the embedding, or with one-hot input the first layer's."""
        return self.stack.cell(0).weight_ih if self.embedding is None else self.embedding.weight

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
        if type(self.stack.cell(0)) in SERVES:
            check_weights(self.modules(), self.head.linear.weight)
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
                packed = pack(self, cells, table, self.head.linear, self.bits)
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


def gradient_sizes(
    network: CharRNN,
    ids: Ids,
    spans: Spans,
    *,
    segment: int = 32,
    samples: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """The usual size of each weight's gradient: its root mean square over segments of the training part, [P].

    Args:
        network: whose weights these are.
        ids: of the text.
        spans: its training part.
        segment: characters whose mean nats are differentiated, as while reading; as many are read before them.
        samples: at most so many segments, spread evenly over the part.
        progress: called with 1 after each.
    """
    frozen = copy.deepcopy(network).eval()
    leaves = list(frozen.parameters())
    length = int(min(2 * segment + 1, (spans[:, 1] - spans[:, 0]).max(initial=0)))
    if length < 2:
        raise OptionError("the training part has no character to predict: dynamic evaluation needs one to begin with")
    starts = _spread(spans, length, samples)
    squares_P = torch.zeros_like(flat(leaves))
    for start in starts.tolist():
        text = torch.from_numpy(ids[start : start + length].astype(np.int64)).to(network.device)
        before = max(0, length - 1 - segment)
        with torch.no_grad():
            _, hidden = frozen(text[:before, None], frozen.initial_state(1)) if before else (None, None)
        with torch.enable_grad():
            logp_TV, _ = forward_with(frozen, leaves, text[before:-1], hidden or frozen.initial_state(1))
            grads = torch.autograd.grad(mean_nats(logp_TV, text[before + 1 :]), leaves, materialize_grads=True)
        squares_P.addcmul_(flat(grads), flat(grads))
        if progress is not None:
            progress(1)
    return (squares_P / len(starts)).sqrt().detach()


def _spread(spans: Spans, length: int, samples: int) -> NDArray[np.int64]:
    """Where to take so many pieces of a length inside spans, evenly.

    >>> _spread(np.array([[0, 10], [20, 30], [40, 41]]), 6, 4).tolist()
    [0, 3, 21, 24]
    """
    rooms = (spans[:, 1] - spans[:, 0] - length + 1).clip(min=0)
    places = np.unique(np.linspace(0, rooms.sum() - 1, samples).astype(np.int64))
    span = np.searchsorted(rooms.cumsum(), places, side="right")
    return np.asarray(spans[span, 0] + places - (rooms.cumsum() - rooms)[span])


def forward_with(network: CharRNN, leaves: Sequence[Tensor], ids_T: Tensor, hidden: State) -> tuple[Tensor, State]:
    """Rows [T, V] and the next hidden states of one lane by these weights in place of the network's own."""
    weights = dict(zip((name for name, _ in network.named_parameters()), leaves, strict=True))
    logp_T1V, hidden = functional_call(network, weights, (ids_T[:, None], hidden))
    return logp_T1V[:, 0], hidden


def mean_nats(logp_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The mean over the known targets."""
    known_T = targets_T >= 0
    return -(pick_targets(logp_TV, targets_T) * known_T).sum() / known_T.sum().clamp(min=1)


def flat(tensors: Any) -> Tensor:
    """The numbers of several tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
