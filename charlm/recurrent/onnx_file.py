"""A recurrent language model as an ONNX file: ids and a state in, log-probabilities and the next state out.

Axes: T steps ("time"), B lanes ("batch"), V symbols, H units.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.nn.cells import BUILT_IN, Cell
from charlm.recurrent.model import CharRNN
from charlm.version import __version__

__all__ = ["onnx_bytes"]

_OPSET, _IR = 17, 8  # read by onnxruntime 1.12 and newer
_ORDERS = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Where ONNX wants charlm's gates: z, r, n of r, z, n; i, o, f, c of i, f, g, o."""


def onnx_bytes(model: CharRNN) -> bytes:
    """The content of an ONNX file of a network.

    Its inputs are `ids`, int64 [time, batch], -1 being an unknown symbol, and the state before, `h0`, `h1`, ... and for
    an LSTM `c0`, `c1`, ..., float32 [batch, units]; its outputs `logp`, float32 [time, batch, V], and the state after,
    `h0_next`, .... The metadata hold the vocabulary (`characters`, `byte_fallback`) and `start`, the id after which
    generation starts.

    Raises:
        OptionError: the package onnx is missing, or the cell has no counterpart in ONNX.
    """
    config = model.config
    if config.model not in BUILT_IN or config.projection:
        what = "an LSTM with a projection" if config.projection else f"the cell {config.model}"
        raise OptionError(f"ONNX has the cells {', '.join(BUILT_IN)}, not {what}")
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
        self._outputs: dict[str, list[Any]] = {}

    def build(self) -> Any:
        model, helper = self._model, self._onnx.helper
        kinds = self._onnx.TensorProto
        self._inputs["ids"] = (kinds.INT64, ["time", "batch"])
        x = self._symbols()
        for layer in range(model.stack.layers):
            x = self._layer(layer, model.stack.cell(layer), x)
        self._weights["head_weight"] = _numbers(model.head.linear.weight).T.copy()
        self._weights["head_bias"] = _numbers(model.head.linear.bias)
        x = self._node("Add", [self._node("MatMul", [x, "head_weight"]), "head_bias"])
        self._node("LogSoftmax", [x], to=["logp"], axis=-1)
        outputs = {"logp": ["time", "batch", len(model.vocab)], **self._outputs}
        graph = helper.make_graph(
            self._nodes,
            "charlm",
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in self._inputs.items()],
            [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in outputs.items()],
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
            table = _numbers(model.embedding.weight)
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
            self._outputs[f"{name}{number}_next"] = ["batch", cell.hidden]
            before.append(self._node("Unsqueeze", [f"{name}{number}", "axis0"]))
            after.append(f"{name}{number}_all")
        extra = {"linear_before_reset": 1} if cell.name == "gru" else {}  # the reset comes after the product
        outputs = [f"y{number}", *after]
        self._node(cell.name.upper(), [x, *names, "", *before], to=outputs, hidden_size=cell.hidden, **extra)
        for name in cell.states:
            self._node("Squeeze", [f"{name}{number}_all", "axis0"], to=[f"{name}{number}_next"])
        return self._node("Squeeze", [f"y{number}", "axis1"])


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().float().numpy()


def _in_order(weight: Tensor, order: list[int]) -> NDArray[np.float32]:
    """The blocks of the gates in another order."""
    blocks = np.split(_numbers(weight), len(order))
    return np.concatenate([blocks[place] for place in order])
