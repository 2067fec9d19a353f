"""Dynamic evaluation: a recurrent network that goes on learning from the text it has read.

After every segment the weights take a step down the gradient of its nats, so that what the text has lately been
about, its names and turns, becomes probable (Mikolov et al. 2010). Each weight's step is divided by the usual
size of its gradient, and each is drawn back towards what training gave it, the more the larger that size: the
rule of Krause, Kahembwe, Murray and Renals (2018, Dynamic evaluation of neural sequence models), equation 5 and
section 4.1. A character is always predicted by weights that have not seen it.

Axes: T steps, B lanes, S steps of a segment, V symbols, P weights.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.display import progress_bar
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.lm.interface import SamplingRule, State, generate_by_steps
from charlm.lm.model import TextModel
from charlm.recurrent.model import CharRNN, flat, forward_with, gradient_sizes, mean_nats
from charlm.tensors import write_tensors
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.splits import Split
from charlm.text.text import Text


@dataclass(frozen=True, kw_only=True)
class DynamicConfig:
    """How a network learns while it reads. The defaults were chosen among a few settings on the validation part of
    a bundled text, a little to the careful side (benchmarks/RESULTS.md).

    Args:
        rate: how far a weight moves for a gradient of its usual size.
        decay: share of its distance to the trained weight by which a weight of average gradient size is drawn
            back after each segment; one of another size in proportion, at most all the way.
        segment: characters between two updates, which backpropagation goes through.
        floor: added to each gradient size, as a share of their mean; it keeps weights still that training
            hardly ever moved.

    >>> DynamicConfig(rate=0.001).segment
    32
    """

    rate: float = 0.0004
    decay: float = 0.001
    segment: int = 32
    floor: float = 0.3

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise OptionError(f"a segment has at least 1 character, not {self.segment}")
        for name in ("rate", "decay", "floor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} of dynamic evaluation is 0 or more and finite, not {getattr(self, name)}")


@dataclass(kw_only=True)
class _Lane:
    """One lane while it is read: its weights, what it remembers, and the segment that it is in."""

    weights_P: Tensor
    hidden: State
    start: State  # hidden states before the segment's first character
    segment: list[int]  # its characters so far
    graph: tuple[list[Tensor], Tensor] | None = field(default=None)  # weights and rows, where they can be learned from


class DynamicLM(TextModel):
    """A recurrent network that learns while it reads, as a language model.

    Updates happen after every `segment` characters since the start of a stream, however it is cut into calls, as
    soon as the character behind the segment has come, which is the last of its targets. The state holds, beside
    the network's hidden states now and at the segment's start (`start.`), each lane's `weights` [B, P], the
    `segment` [B, S] it is in and how many characters of that were `read` [B].

    Weights of strings (`RecentGrams`) stay as they were trained.

    While it generates it does not learn, for it would learn from its own inventions; the unfinished segment is
    given up and another begins where reading goes on.

    Args:
        network: what it begins with; a copy is taken, without dropout.
        sizes_P: usual size of each weight's gradient, as of `gradient_sizes`.
        config: how it learns.

    >>> import numpy as np
    >>> from charlm.recurrent.model import gradient_sizes
    >>> from charlm.recurrent.model import RNNConfig
    >>> from charlm.text.vocab import Vocab
    >>> vocab = Vocab.of("abracadabra")
    >>> network = CharRNN(vocab, RNNConfig(hidden=8))
    >>> sizes = gradient_sizes(network, vocab.encode("abracadabra"), np.array([[0, 11]]))
    >>> model = DynamicLM(network, sizes, DynamicConfig(segment=4, rate=0.01))
    >>> ids = torch.from_numpy(vocab.encode("abra" * 50).astype(np.int64))[:, None]
    >>> logp, _ = model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
    >>> bool(logp[-20:].mean() > logp[:20].mean() + 0.5)
    True
    """

    kind = "dynamic"
    is_adaptive = True

    def __init__(self, network: CharRNN, sizes_P: Tensor, config: DynamicConfig | None = None) -> None:
        self.network = copy.deepcopy(network).eval()
        self.vocab, self.config, self.source = network.vocab, config or DynamicConfig(), network.source
        self.directory, self.sizes_P = network.directory, sizes_P
        self.weights_P = flat(p.detach() for p in self.network.dense.values())
        if sizes_P.shape != self.weights_P.shape:
            raise OptionError(
                f"{len(self.weights_P):,} weights have as many gradient sizes, not {tuple(sizes_P.shape)}"
            )
        mean = sizes_P.mean().clamp(min=1e-20)
        self._step_P = self.config.rate / (sizes_P + self.config.floor * mean).clamp(min=1e-20)
        self._pull_P = (self.config.decay * sizes_P / mean).clamp(max=1)

    def __repr__(self) -> str:
        return f"DynamicLM({self.network!r}, rate {self.config.rate:g}, segments of {self.config.segment})"

    @property
    def name(self) -> str:
        """The network's name, said to learn while it reads."""
        return f"{self.network.name}, dynamic"

    @property
    def title(self) -> str:
        """The network's title, said to learn while it reads."""
        return f"{self.network.title}, dynamic"

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return asdict(self.config)

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the network into a directory of its own, and the sizes of its gradients."""
        write_tensors(directory / "sizes.safetensors", {"sizes": self.sizes_P})
        self.network.write_to(directory / "network")
        return {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return len(self.weights_P)

    def initial_state(self, lanes: int) -> State:
        """The network's own state twice, the trained weights and an empty segment."""
        hidden = self.network.initial_state(lanes)
        return {
            **hidden,
            **{f"start.{name}": tensor.clone() for name, tensor in hidden.items()},
            "weights": self.weights_P.repeat(lanes, 1),
            "segment": torch.full((lanes, self.config.segment), -1, device=self.device),
            "read": torch.zeros(lanes, dtype=torch.int64, device=self.device),
        }

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`; lanes are read one after the other, as each has weights of its own."""
        with torch.inference_mode(False), torch.no_grad():
            lanes = [self._lane(state, lane) for lane in range(ids_TB.shape[1])]
            rows = [self._read(lane, ids_T) for lane, ids_T in zip(lanes, ids_TB.clone().unbind(1), strict=True)]
            return torch.stack(rows, 1), self._state(lanes)

    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """See `LanguageModel.generate`; nothing is learned from what is drawn."""
        if not steps:
            return generate_by_steps(self, ids_B, state, steps, rule, noise_TB)
        lanes = [self._lane(state, number) for number in range(len(ids_B))]
        found = []
        for number, lane in enumerate(lanes):
            own, network = slice(number, number + 1), copy.deepcopy(self.network)
            network.load_state_dict(self._named(lane.weights_P), strict=False)  # tied weights have one name of two
            ids_T1, logp_T1, hidden = network.generate(ids_B[own], lane.hidden, steps, rule, noise_TB[:, own])
            lane.hidden = {name: tensor.clone() for name, tensor in hidden.items()}
            lane.start, lane.segment = lane.hidden, []
            found.append((ids_T1, logp_T1))
        drawn, logps = zip(*found, strict=True)
        return torch.cat(drawn, 1), torch.cat(logps, 1), self._state(lanes)

    # -- one lane ---------------------------------------------------------------------------------------------

    def _read(self, lane: _Lane, ids_T: Tensor) -> Tensor:
        """Rows [T, V]: each segment is forgotten or learned from as soon as the character behind it is there."""
        size, rows, at = self.config.segment, [], 0
        while at < len(ids_T):
            if len(lane.segment) == size:
                self._learn(lane, int(ids_T[at]))
            piece_T = ids_T[at : at + size - len(lane.segment)]
            at += len(piece_T)
            with torch.set_grad_enabled(len(piece_T) == size and at < len(ids_T)):  # it will be learned from in here
                leaves = self._leaves(lane)
                logp_TV, lane.hidden = self._rows(leaves, piece_T, lane.hidden)
            lane.graph = (leaves, logp_TV) if logp_TV.requires_grad else None
            lane.segment += piece_T.tolist()
            rows.append(logp_TV.detach())
        return torch.cat(rows) if rows else self.weights_P.new_zeros(0, len(self.vocab))

    @torch.enable_grad()
    def _learn(self, lane: _Lane, following: int) -> None:
        """An update by the whole segment and the character behind it; the next segment begins."""
        ids_S1 = torch.tensor([*lane.segment, following], device=self.device)
        if lane.graph is None:
            leaves = self._leaves(lane)
            lane.graph = leaves, self._rows(leaves, ids_S1[:-1], lane.start)[0]
        leaves, logp_SV = lane.graph
        if bool((ids_S1[1:] >= 0).any()):
            grad_P = flat(torch.autograd.grad(mean_nats(logp_SV, ids_S1[1:]), leaves, materialize_grads=True))
            if bool(grad_P.isfinite().all()):
                pull_P = self._pull_P * (self.weights_P - lane.weights_P)
                lane.weights_P.addcmul_(self._step_P, grad_P, value=-1).add_(pull_P)
        lane.hidden = {name: tensor.detach() for name, tensor in lane.hidden.items()}
        lane.start, lane.segment, lane.graph = lane.hidden, [], None

    def _rows(self, leaves: list[Tensor], ids_T: Tensor, hidden: State) -> tuple[Tensor, State]:
        return forward_with(self.network, leaves, ids_T, hidden)

    def _leaves(self, lane: _Lane) -> list[Tensor]:
        """The lane's weights in the network's shapes, without a copy."""
        named = self._named(lane.weights_P)
        return [weights.detach().requires_grad_() for weights in named.values()]

    def _named(self, weights_P: Tensor) -> dict[str, Tensor]:
        """A vector of weights in the network's names and shapes."""
        named = self.network.dense
        pieces = torch.split(weights_P, [p.numel() for p in named.values()])
        return {name: piece.view_as(p) for (name, p), piece in zip(named.items(), pieces, strict=True)}

    # -- states -----------------------------------------------------------------------------------------------

    def _lane(self, state: State, lane: int) -> _Lane:
        """A lane of a state, its weights free to change."""
        own = {name: tensor[lane : lane + 1].clone() for name, tensor in state.items()}
        weights, segment, read = own.pop("weights"), own.pop("segment"), int(own.pop("read"))
        start = {name.removeprefix("start."): own.pop(name) for name in list(own) if name.startswith("start.")}
        return _Lane(weights_P=weights[0], hidden=own, start=start, segment=segment[0, :read].tolist())

    def _state(self, lanes: list[_Lane]) -> State:
        """The lanes side by side as a state."""
        size = self.config.segment
        segments = [[*lane.segment, *[-1] * (size - len(lane.segment))] for lane in lanes]
        return {
            **{name: torch.cat([lane.hidden[name].detach() for lane in lanes]) for name in lanes[0].hidden},
            **{f"start.{name}": torch.cat([lane.start[name] for lane in lanes]) for name in lanes[0].start},
            "weights": torch.stack([lane.weights_P for lane in lanes]),
            "segment": torch.tensor(segments, device=self.device),
            "read": torch.tensor([len(lane.segment) for lane in lanes], device=self.device),
        }


def dynamic(
    model: TextModel,
    text: Text | None = None,
    *,
    config: DynamicConfig | None = None,
    samples: int = 256,
    progress: bool | None = None,
) -> DynamicLM:
    """A network as a model that goes on learning while it reads (dynamic evaluation).

    Args:
        model: a recurrent network.
        text: the text that it was trained on; only its training part is read, to measure the sizes of gradients. By
            default the text is read again from the files that it was trained on.
        config: how it learns.
        samples: segments of the training part whose gradients are measured.
        progress: show a bar; None shows it on a terminal or in a notebook.

    Raises:
        OptionError: the model is not a recurrent network, or the text is not the one it was trained on.
        CheckpointError: the text has moved or changed.
    """
    if not isinstance(model, CharRNN):
        raise OptionError(f"{model.name} is not a recurrent network: only those go on learning while they read")
    config = config or DynamicConfig()
    corpus, split = own_text(model, text)
    with progress_bar(samples, "measuring gradients on the training part", "segment", show=progress) as bar:
        sizes_P = gradient_sizes(
            model, corpus.ids, corpus.part(split, "train"), segment=config.segment, samples=samples, progress=bar.update
        )
    return DynamicLM(model, sizes_P, config)


def own_text(model: TextModel, text: Text | None) -> tuple[Corpus, Split]:
    """The text that a model was made from, in its own symbols, and the split."""
    source = model.source
    if text is not None and text.corpus.sha256 == source.sha256:
        return text.corpus.under(model.vocab), source.split
    if text is not None and not source.sha256 and text.split is not None:
        return text.corpus.under(model.vocab), text.split
    if not source.names:
        raise OptionError(
            "a model that goes on learning needs the text that it was made from: give it as the second argument"
        )
    problem = "it has changed since"
    try:
        corpus = read_corpus(list(source.names), source.reading, vocab=model.vocab)
        if corpus.sha256 == source.sha256:
            return corpus, source.split
    except CharlmError as error:
        problem = str(error)
    raise CheckpointError(
        f"going on learning needs the text that {model.name} was made from, {', '.join(source.names)}: {problem}; "
        "bring it back"
    )
