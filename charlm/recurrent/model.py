"""The recurrent language model: one-hot or embedded characters, a stack of cells, dropout, LogSoftmax.

`gradient_sizes` says how large the gradients of its weights usually are, which is what dynamic evaluation divides by.
Axes: T steps, B lanes, V symbols, E embedding, D outputs of the top layer, P weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule, State, generate_by_steps, pick_targets
from charlm.lm.model import TextModel
from charlm.nn.heads import DistributionHead, RecentGrams
from charlm.nn.kernels import check_precision, compiled, multiplying
from charlm.nn.kernels.generate import generate, pack
from charlm.nn.kernels.graphs import Network, generate_in_graphs
from charlm.nn.kernels.reference import SERVES, check_draws, check_ids, check_weights, on_gpu
from charlm.nn.look_back import LookBack
from charlm.nn.stack import Stack, drop_symbols, dropout
from charlm.recurrent import RNNConfig
from charlm.tensors import Bits, rounded, write_tensors
from charlm.text.splits import Spans
from charlm.text.vocab import Ids, Vocab


class CharRNN(nn.Module, TextModel):
    """A recurrent network as a language model, in evaluation mode (without dropout) until the training loop switches.

    Args:
        vocab: the symbols it reads and predicts.
        config: its shape.

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
    precision: str = "fp32"
    """Of products while a text is read; set by `with_precision`."""

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
        self.grams = RecentGrams(config.grams, len(vocab), order=config.gram_order) if config.grams else None
        self.look_back = LookBack(config.look_back, len(vocab), self.stack.outputs) if config.look_back else None
        self.tie()
        self.eval()

    def __repr__(self) -> str:
        return f"CharRNN({self.title}, {len(self.vocab)} symbols, {self.parameter_count:,} weights on {self.device})"

    @property
    def title(self) -> str:
        """The cell, layers and units."""
        added = (" with grams" if self.grams else "") + (" looking back" if self.look_back else "")
        return f"{self.config.model} {self.config.layers}x{self.config.hidden}{added}"

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return asdict(self.config)

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the weights, as the best and the last ones."""
        for name in ("best", "last"):
            tensors, mark = dict(self.named_parameters()), {"vocab_sha256": self.vocab.sha256}
            write_tensors(directory / f"{name}.safetensors", tensors, mark)
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

    def with_precision(self, precision: str) -> CharRNN:
        """See `TextModel.with_precision`."""
        twin = copy.deepcopy(self)
        twin.precision = check_precision(precision, self.device, self.config.model, self.stack.backend)
        return twin

    def reset_parameters(self, generator: torch.Generator | None = None, *, wide: bool = True) -> None:
        """Fresh initial weights from this generator: embeddings normal with deviation 1/√E, input weights of the first
        layer `wide` (see `Stack.reset_parameters`) or not, the rest as documented with the cells and the head."""
        self.head.reset_parameters(generator)
        if self.grams is not None:
            nn.init.zeros_(self.grams.weight)
        self.stack.reset_parameters(generator, symbols=wide)
        if self.look_back is not None:
            self.look_back.reset_parameters(generator)
        if self.embedding is not None:
            with torch.no_grad():
                self.embedding.weight.normal_(0, self.config.embedding**-0.5, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.linear.weight.device

    @property
    def rates(self) -> dict[str, list[Tensor]]:
        """Weights with a learning rate of their own, by the field of `Optimisation` that is its factor: those that the
        input symbol picks out (embedding or first layer), the output layer's, and those that look back."""
        symbols: Tensor = self.stack.cell(0).weight_ih if self.embedding is None else self.embedding.weight
        own, looking = self.head.parameters(), self.look_back.parameters() if self.look_back else ()
        return {"symbol_rate": [symbols], "head_rate": [*own], "look_back_rate": [*looking]}

    @property
    def row_weights(self) -> Tensor | None:
        """The weights of which a step changes only the rows that it read: those of strings of last characters."""
        return None if self.grams is None else self.grams.weight

    @property
    def dense(self) -> dict[str, nn.Parameter]:
        """All other weights by name."""
        return {name: p for name, p in self.named_parameters() if p is not self.row_weights}

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def initial_state(self, lanes: int) -> State:
        """Of the built-in cells zeros, named h0, h1, ... and for the LSTM c0, c1, ..., each [lanes, width].

        Where strings have weights, `recent` has the last characters, int64 [lanes, gram_order - 1]. Where the network
        looks back, `back_keys` and `back_ids` have the places that it looks back on.
        """
        state = self.stack.initial_state(lanes)
        if self.look_back is not None:
            state |= self.look_back.initial_state(lanes)
        return state if self.grams is None else {**state, "recent": self.grams.initial_state(lanes)}

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
        read_TB = drop_symbols(ids_TB, self.config.input_dropout, self.training, generator)
        with multiplying(self.device, self.precision):
            y_TBD, after = self.stack(read_TB, state, table=table, resets_TB=resets_TB, generator=generator)
            logp_TBV, kept = self.predicted(y_TBD, ids_TB, state, resets_TB, generator)
        return logp_TBV, {**after, **kept}

    def predicted(
        self, y_TBD: Tensor, ids_TB: Tensor, state: State, resets_TB: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """What stands above the layers: log-probabilities [T, B, V], and the part of the next state that is not theirs.

        Args:
            y_TBD: outputs of the layers.
            ids_TB, state, resets_TB, generator: as of `forward`.
        """
        kept: State = {}
        resets_TB = None if resets_TB is None else resets_TB.to(self.device, torch.bool)
        dropped_TBD = dropout(y_TBD, self.config.dropout, self.training, generator, shared=self.config.variational)
        added_TBV = None
        if self.grams is not None:
            added_TBV, kept["recent"] = self.grams(ids_TB, self.recent(state, ids_TB.shape[1]), resets_TB)
        logp_TBV: Tensor = self.head(dropped_TBD, added_TBV)
        if self.look_back is not None:
            before = self.look_back.check_state(state, ids_TB.shape[1])
            with torch.autocast(y_TBD.device.type, enabled=False):  # probabilities of a few bits would cost nats
                y_TBD = y_TBD.to(self.look_back.key.dtype)
                logp_TBV, *places = self.look_back(logp_TBV, ids_TB, y_TBD, *before, resets_TB)
            kept |= dict(zip(self.look_back.names, places, strict=True))
        return logp_TBV, kept

    def recent(self, state: State, lanes: int) -> Tensor:
        """The characters last read, as the state has them, without gaps, after a check."""
        assert self.grams is not None
        recent_BN, shape = state.get("recent"), (lanes, self.grams.order - 1)
        has = list(recent_BN.shape) if isinstance(recent_BN, Tensor) and not recent_BN.is_nested else "no such tensor"
        if recent_BN is None or has != list(shape):
            raise OptionError(f"the state recent has the shape {list(shape)} here, not {has}")
        return check_ids(recent_BN, len(self.vocab), self.device, dim=2).contiguous()

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
        recent_BN = None if self.grams is None else self.recent(state, len(ids_B))
        self.stack.check_state(state, len(ids_B))
        back = None if self.look_back is None else self.look_back.check_state(state, len(ids_B))
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
                looking = self.look_back
                packed = pack(self, cells, table, [self.head.linear, *(looking.maps if looking else [])], self.bits)
                rows = None if self.grams is None or recent_BN is None else (self.grams.weight, recent_BN.clone())
                places = None if looking is None or back is None else looking.open_places(*back, steps)
                drawn, logp, layers = generate(
                    packed, ids_B, layers, noise_TB, **asdict(rule), grams=rows, places=places
                )
                recent_BN, back = None if rows is None else rows[1], None if places is None else places.kept()
        after = {f"{name}{n}": t for n, layer in enumerate(layers) for name, t in zip(names, layer, strict=True)}
        after |= {} if recent_BN is None else {"recent": recent_BN}
        return drawn, logp, after if back is None else after | dict(zip(LookBack.names, back, strict=True))

    def _compiled(self) -> bool:
        """Whether the compiled kernels can generate from this model as it is."""
        weight = self.head.linear.weight
        fits = weight.dtype == torch.float32 and compiled.fits(weight) and type(self.stack.cell(0)) in SERVES
        return fits and not (self._drops() or self.config.projection)

    def _graphed(self) -> bool:
        """Whether generation is recorded on a GPU: asked for by the backend, as it has not been measured yet."""
        asked = on_gpu(self.device) and self.stack.backend == "fused" and self.grams is None and self.look_back is None
        return asked and type(self.stack.cell(0)) in SERVES and not self._drops()

    def _drops(self) -> bool:
        config = self.config
        return self.training and config.dropout + config.weight_dropout + config.input_dropout > 0


def gradient_sizes(
    network: CharRNN, ids: Ids, spans: Spans, *, segment: int = 32, samples: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Tensor:  # fmt: skip
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
    leaves: list[Tensor] = list(frozen.dense.values())
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
    """Rows [T, V] and the next hidden states of one lane by these weights in place of the network's `dense` ones."""
    weights = dict(zip(network.dense, leaves, strict=True))
    logp_T1V, hidden = functional_call(network, weights, (ids_T[:, None], hidden))
    return logp_T1V[:, 0], hidden


def mean_nats(logp_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The mean over the known targets."""
    known_T = targets_T >= 0
    return -(pick_targets(logp_TV, targets_T) * known_T).sum() / known_T.sum().clamp(min=1)


def flat(tensors: Any) -> Tensor:
    """The numbers of several tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
