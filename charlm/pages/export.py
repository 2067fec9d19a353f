"""`export`: models as one HTML page that runs them in any browser, or as an ONNX file, and what that loses.

Axes of the ONNX file: T steps ("time"), B lanes ("batch"), V symbols, H units.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import CharlmError, OptionError
from charlm.files import __version__, free_name, write_bytes
from charlm.lm.evaluate import called
from charlm.lm.model import TextModel, as_models, as_part
from charlm.mixing.mixture import mix
from charlm.nn.cells import BUILT_IN, Cell
from charlm.nn.heads import RecentGrams
from charlm.pages.model_pages import floats, networks_of, playground_page
from charlm.pages.page import write_page
from charlm.recurrent.model import CharRNN
from charlm.tensors import Bits, rounded
from charlm.text.splits import Spans
from charlm.text.text import Part, Text, read_text

_TARGETS = 100_000  # characters that the loss is measured on


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a network loses by fewer bits a weight, in nats a character of a held-out text.

    Args:
        name: of the network.
        text: the part that was read, and its name.
        targets: characters predicted.
        nats: with the network's own weights.
        page_nats: with the weights of the page.
    """

    name: str
    text: str
    targets: int
    nats: float
    page_nats: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.page_nats:.4f} nats a character in the page, {self.nats:.4f} with its own weights "
            f"({round(self.page_nats - self.nats, 4) + 0.0:+.4f}), on {self.targets:,} characters of {self.text}"
        )


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written.

    Args:
        html: the page, where one was asked for.
        onnx: the ONNX file, where one was asked for.
        bits: of a weight in the page.
        losses: what each network loses by that; empty for counts, which are kept exactly.
        notes: sentences for a person, such as why no loss was measured.
    """

    html: Path | None = None
    onnx: Path | None = None
    bits: Bits = 16
    losses: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        files = [f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in (self.html, self.onnx) if path is not None]
        return "\n".join([*files, *map(str, self.losses), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        files = {name: None if path is None else str(path) for name, path in (("html", self.html), ("onnx", self.onnx))}
        return {**files, "bits": self.bits, "losses": [asdict(loss) for loss in self.losses], "notes": self.notes}


def export(
    models: TextModel | Sequence[TextModel],
    *,
    html: str | Path | None = None,
    onnx: str | Path | None = None,
    bits: Bits = 16,
    text: Text | Part | str | None = None,
    mixture: bool = False,
) -> Export:
    """Writes models as files that run without charlm: a page for a browser, or an ONNX file.

    Args:
        models: one language model, or two to stand side by side in the page: networks of the built-in cells, n-gram
            models, mixtures of these.
        html: the page to write; a taken name becomes `NAME-2`.
        onnx: the ONNX file to write, of one network (needs the extra `onnx`): one run reads ids int64 [time, batch] and
            the state, and gives log-probabilities [time, batch, symbols] and the next state.
        bits: of a weight in the page: 32 keeps float32; 16 and 8 are whole numbers with a scale for each row.
        text: what the loss by `bits` is measured on, at most 100,000 characters of it; by default the held-out part of
            the text that the first network was made from, where that is still in its place.
        mixture: put the two models into the page as one, which learns while it reads how far to trust each.

    Returns:
        The files' names, and the loss of each network in nats.

    Raises:
        OptionError: a model that a page cannot run, or options that do not go together.

    >>> import charlm, tempfile
    >>> model = charlm.ngram(charlm.Text.of("abracadabra " * 40), order=2, smoothing="kneser-ney")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     export(model, html=directory + "/page.html").html.name
    'page.html'
    """
    wanted = as_models([models] if isinstance(models, TextModel) else models)
    if html is None and onnx is None:
        raise OptionError("name what to write: --html FILE for a page, --onnx FILE for an ONNX file")
    if not 1 <= len(wanted) <= 2:
        raise OptionError(f"a page shows one model or two side by side, not {len(wanted)}")
    if bits not in (8, 16, 32):
        raise OptionError(f"a weight in a page has 8, 16 or 32 bits, not {bits}")
    if mixture:
        wanted = [mix(wanted)]
    content = None if onnx is None else _onnx_of(wanted)
    losses: list[Loss] = []
    notes: list[str] = []
    page = None
    if html is not None:
        losses, notes = _measure(wanted, bits, text)
        page = write_page(Path(html), playground_page(wanted, bits, list(map(str, losses))))
    file = None
    if onnx is not None and content is not None:
        file = free_name(Path(onnx))
        write_bytes(file, content)
    return Export(html=page, onnx=file, bits=bits, losses=losses, notes=notes)


def _onnx_of(models: Sequence[TextModel]) -> bytes:
    if len(models) != 1 or not isinstance(models[0], CharRNN):
        raise OptionError("an ONNX file holds one network: name one, such as charlm train makes")
    return _onnx_bytes(models[0])


# -- the loss ---------------------------------------------------------------------------------------------------------


def _measure(models: Sequence[TextModel], bits: Bits, text: Text | Part | str | None) -> tuple[list[Loss], list[str]]:
    """What each network loses in the page, or why that was not measured."""
    networks = [network for model in models for network in networks_of(model)]
    if not networks:
        return [], ["Counts are kept exactly."]
    if bits == 32:
        return [], ["Weights of 32 bits are kept exactly."]
    part: Part | None
    try:
        part = _own_part(networks[0]) if text is None else as_part(text)
    except CharlmError as error:
        return [], [f"No loss was measured: {error}"]
    if part is None:
        return [], [f"No loss was measured: the text of {networks[0].name} is not in its place; name one with --text."]
    return [_loss(network, bits, part) for network in networks], []


def _own_part(model: TextModel) -> Part | None:
    """The held-out part of the text that a model was made from, where the text is in its place."""
    names = model.source.names
    if not names or any(name == "-" or not Path(name).exists() for name in names):
        return None
    text = read_text(list(names), like=model)
    return None if text.split is None else text.reported


def _loss(model: CharRNN, bits: Bits, part: Part) -> Loss:
    first = _first(part.under(model.vocab), _TARGETS)
    twin = copy.deepcopy(model).cpu().float()
    own = twin.evaluate(first)
    page = rounded(twin, bits).evaluate(first)
    where = called(part)
    return Loss(name=model.name, text=where, targets=own.targets, nats=own.nats, page_nats=page.nats)


def _first(part: Part, most: int) -> Part:
    """A part's first targets."""
    lengths = part.spans[:, 1] - part.spans[:, 0] - 1
    before = np.cumsum(lengths) - lengths
    kept: Spans = part.spans[before < most].copy()
    if len(kept):
        last = len(kept) - 1
        kept[last, 1] = min(kept[last, 1], kept[last, 0] + 1 + most - before[last])
    return Part(text=part.text, name=part.name, spans=kept)


# -- the ONNX file -----------------------------------------------------------------------------------------------------

_OPSET, _IR = 17, 8  # read by onnxruntime 1.12 and newer
_ORDERS = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Where ONNX wants charlm's gates: z, r, n of r, z, n; i, o, f, c of i, f, g, o."""


def _onnx_bytes(model: CharRNN) -> bytes:
    """The content of an ONNX file of a network.

    Its inputs are `ids`, int64 [time, batch], -1 being an unknown symbol, and the state before, `h0`, `h1`, ... and for
    an LSTM `c0`, `c1`, ..., float32 [batch, units], and where strings have weights `recent`, int64 [batch, N - 1]; its
    outputs `logp`, float32 [time, batch, V], and the state after, `h0_next`, .... The metadata hold the vocabulary
    (`characters`, `byte_fallback`) and `start`, the id after which generation starts.

    Raises:
        OptionError: the package onnx is missing, or the cell has no counterpart in ONNX.
    """
    config = model.config
    if config.model not in BUILT_IN or config.projection:
        what = "an LSTM with a projection" if config.projection else f"the cell {config.model}"
        raise OptionError(f"ONNX has the cells {', '.join(BUILT_IN)}, not {what}")
    if config.look_back:
        raise OptionError("a network that looks back on what it has read (--look-back) cannot be written as ONNX yet")
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        raise OptionError("an ONNX file needs the package onnx: pip install 'charlm[onnx]'") from None
    content: bytes = _Graph(onnx, model).build().SerializeToString()
    return content


class _Graph:
    """Collects nodes, weights, inputs and outputs."""

    def __init__(self, onnx: Any, model: CharRNN) -> None:
        self._onnx, self._model = onnx, model
        self._nodes: list[Any] = []
        self._weights: dict[str, NDArray[Any]] = {}
        self._inputs: dict[str, tuple[int, list[Any]]] = {}
        self._outputs: dict[str, tuple[int, list[Any]]] = {}

    def build(self) -> Any:
        model, helper = self._model, self._onnx.helper
        kinds = self._onnx.TensorProto
        self._inputs["ids"] = (kinds.INT64, ["time", "batch"])
        x = self._symbols()
        for layer in range(model.stack.layers):
            x = self._layer(layer, model.stack.cell(layer), x)
        self._weights["head_weight"] = floats(model.head.linear.weight).T.copy()
        self._weights["head_bias"] = floats(model.head.linear.bias)
        x = self._node("Add", [self._node("MatMul", [x, "head_weight"]), "head_bias"])
        if model.grams is not None:
            x = self._grams(model.grams, x)
        self._node("LogSoftmax", [x], to=["logp"], axis=-1)
        outputs = {"logp": (kinds.FLOAT, ["time", "batch", len(model.vocab)]), **self._outputs}
        graph = helper.make_graph(
            self._nodes,
            "charlm",
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in self._inputs.items()],
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
            [self._onnx.numpy_helper.from_array(array, name) for name, array in self._weights.items()],
        )
        opset = [helper.make_operatorsetid("", _OPSET)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=_IR, producer_name=f"charlm {__version__}")
        facts = {**model.vocab.to_json(), "start": model.start, "title": model.title}
        helper.set_model_props(made, {name: json.dumps(value) for name, value in facts.items()})
        self._onnx.checker.check_model(made)
        return made

    def _node(self, kind: str, inputs: list[str], *, to: list[str] | None = None, **attributes: Any) -> str:
        outputs = to or [f"value{len(self._nodes)}"]
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def _symbols(self) -> str:
        """One-hot rows or embeddings; the index -1 counts from the end, where the row of zeros stands."""
        model, symbols = self._model, len(self._model.vocab)
        if model.embedding is not None:
            table = floats(model.embedding.weight)
            self._weights["embedding"] = np.concatenate([table, np.zeros_like(table[:1])])
            return self._node("Gather", ["embedding", "ids"])
        self._weights["depth"] = np.array(symbols + 1)
        self._weights["values"] = np.array([0, 1], dtype=np.float32)
        self._weights |= {"first": np.array([0]), "known": np.array([symbols]), "last_axis": np.array([2])}
        return self._node("Slice", [self._node("OneHot", ["ids", "depth", "values"]), "first", "known", "last_axis"])

    def _layer(self, number: int, cell: Cell, x: str) -> str:
        """One layer over all steps; ONNX has an axis of directions, of length 1 here."""
        order = _ORDERS[cell.name]
        gates = [_in_order(weight, order) for weight in (cell.weight_ih, cell.weight_hh)]
        nothing = np.zeros(cell.gates * cell.hidden, dtype=np.float32)
        biases = [nothing if bias is None else _in_order(bias, order) for bias in (cell.bias_ih, cell.bias_hh)]
        names = [f"{name}{number}" for name in ("W", "R", "B")]
        self._weights |= dict(zip(names, [gates[0][None], gates[1][None], np.concatenate(biases)[None]], strict=True))
        self._weights["axis0"], self._weights["axis1"] = np.array([0]), np.array([1])
        before, after = [], []
        for name in cell.states:
            self._inputs[f"{name}{number}"] = (self._onnx.TensorProto.FLOAT, ["batch", cell.hidden])
            self._outputs[f"{name}{number}_next"] = self._inputs[f"{name}{number}"]
            before.append(self._node("Unsqueeze", [f"{name}{number}", "axis0"]))
            after.append(f"{name}{number}_all")
        extra = {"linear_before_reset": 1} if cell.name == "gru" else {}  # the reset comes after the product
        outputs = [f"y{number}", *after]
        self._node(cell.name.upper(), [x, *names, "", *before], to=outputs, hidden_size=cell.hidden, **extra)
        for name in cell.states:
            self._node("Squeeze", [f"{name}{number}_all", "axis0"], to=[f"{name}{number}_next"])
        return self._node("Squeeze", [f"y{number}", "axis1"])

    def _grams(self, grams: RecentGrams, logits: str) -> str:
        """The logits with the rows of the strings of the last characters added, hashed as `RecentGrams` does."""
        before = grams.order - 1
        self._inputs["recent"] = self._outputs["recent_next"] = (self._onnx.TensorProto.INT64, ["batch", before])
        numbers = {"zero": 0, "two": 2, "factor": 1_000_003, "prime": 2_147_483_647, "gram_rows": grams.rows}
        self._weights |= {name: np.array(number) for name, number in numbers.items()}
        self._weights |= {"grams": floats(grams.weight), "axis0": np.array([0]), "gram_end": np.array([2**62])}
        self._weights |= {f"back{n}": np.array([-n]) for n in range(1, grams.order)}
        self._weights |= {f"from{n}": np.array([before - n]) for n in range(1, grams.order)}
        read = self._node("Concat", [self._node("Transpose", ["recent"], perm=[1, 0]), "ids"], axis=0)
        key, known = self._node("Add", ["ids", "two"]), self._node("GreaterOrEqual", ["ids", "zero"])
        for back in range(1, grams.order):
            older = self._node("Slice", [read, f"from{back}", f"back{back}", "axis0"])
            key = self._node("Add", [self._node("Mul", [key, "factor"]), self._node("Add", [older, "two"])])
            key = self._node("Mod", [key, "prime"])
            known = self._node("And", [known, self._node("GreaterOrEqual", [older, "zero"])])
            place = self._node("Where", [known, self._node("Mod", [key, "gram_rows"]), "gram_rows"])
            logits = self._node("Add", [logits, self._node("Gather", ["grams", place])])
        last = self._node("Slice", [read, f"back{before}", "gram_end", "axis0"])
        self._node("Transpose", [last], to=["recent_next"], perm=[1, 0])
        return logits


def _in_order(weight: Tensor, order: list[int]) -> NDArray[np.float32]:
    """The blocks of the gates in another order."""
    blocks = np.split(floats(weight), len(order))
    return np.concatenate([blocks[place] for place in order])
