"""A network as an ONNX file: its layers, strings of last characters, and what it looks back on, as one graph.

Axes: T steps ("time"), B lanes ("batch"), V symbols, H units, N last characters, M places kept, K width of a key.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.files import __version__
from charlm.nn.cells import BUILT_IN, Cell
from charlm.nn.heads import RecentGrams
from charlm.nn.look_back import PERIODS, LookBack
from charlm.recurrent.model import CharRNN
from charlm.tensors import floats

_BLOCK = 128  # steps whose scores are in memory together
_END = 2**62
_NEVER, _LEAST, _LOOP = -1e9, 1e-30, 12  # as of `LookBack`
_OPSET, _IR = 17, 8  # read by onnxruntime 1.12 and newer
_ORDERS = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Where ONNX wants charlm's gates: z, r, n of r, z, n; i, o, f, c of i, f, g, o."""


def onnx_bytes(model: CharRNN) -> bytes:
    """The content of an ONNX file of a network.

    Its inputs are `ids`, int64 [time, batch], -1 being an unknown symbol, and the state before, `h0`, `h1`, ... and for
    an LSTM `c0`, `c1`, ..., float32 [batch, units]; where strings have weights `recent`, int64 [batch, N - 1], and
    where the network looks back `back_keys`, float32 [batch, M, K], and `back_ids`, int64 [batch, 5 + M]. Its outputs
    are `logp`, float32 [time, batch, V], and the state after, `h0_next`, .... The metadata hold the vocabulary
    (`characters`, `byte_fallback`) and `start`, the id after which generation starts.

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
        raise OptionError("an ONNX file needs the package onnx: pip install 'charlm-toolkit[onnx]'") from None
    content: bytes = _Graph(onnx, model).build().SerializeToString()
    return content


class _Graph:
    """Collects nodes, weights, inputs and outputs."""

    def __init__(self, onnx: Any, model: CharRNN) -> None:
        self._onnx, self._model = onnx, model
        self._nodes: list[Any] = []
        self._made = 0
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
        logits = self._linear("head", model.head.linear, x)
        if model.grams is not None:
            logits = self._grams(model.grams, logits)
        if model.look_back is None:
            self._node("LogSoftmax", [logits], names=["logp"], axis=-1)
        else:
            self._look_back(model.look_back, self._node("LogSoftmax", [logits], axis=-1), x)
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

    def _node(self, kind: str, inputs: list[str], *, names: list[str] | None = None, **attributes: Any) -> str:
        self._made += 1
        outputs = names or [f"value{self._made}"]
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def _whole(self, *numbers: int) -> str:
        """The name of a constant int64 vector."""
        name = "_".join(["whole", *map(str, numbers)])
        self._weights[name] = np.array(numbers)
        return name

    def _slice(self, x: str, begin: int | str, end: int | str, axis: int, *, names: list[str] | None = None) -> str:
        """A part of an axis, between whole numbers or the names of such."""
        bounds = [self._whole(bound) if isinstance(bound, int) else bound for bound in (begin, end)]
        return self._node("Slice", [x, *bounds, self._whole(axis)], names=names)

    def _linear(self, name: str, linear: nn.Linear, x: str) -> str:
        self._weights[f"{name}_weight"] = floats(linear.weight).T.copy()
        self._weights[f"{name}_bias"] = floats(linear.bias)
        return self._node("Add", [self._node("MatMul", [x, f"{name}_weight"]), f"{name}_bias"])

    def _symbols(self) -> str:
        """One-hot rows or embeddings; the index -1 counts from the end, where the row of zeros stands."""
        model, symbols = self._model, len(self._model.vocab)
        if model.embedding is not None:
            table = floats(model.embedding.weight)
            self._weights["embedding"] = np.concatenate([table, np.zeros_like(table[:1])])
            return self._node("Gather", ["embedding", "ids"])
        self._weights["depth"] = np.array(symbols + 1)
        self._weights["values"] = np.array([0, 1], dtype=np.float32)
        return self._slice(self._node("OneHot", ["ids", "depth", "values"]), 0, symbols, 2)

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
        self._node(cell.name.upper(), [x, *names, "", *before], names=outputs, hidden_size=cell.hidden, **extra)
        for name in cell.states:
            self._node("Squeeze", [f"{name}{number}_all", "axis0"], names=[f"{name}{number}_next"])
        return self._node("Squeeze", [f"y{number}", "axis1"])

    def _grams(self, grams: RecentGrams, logits: str) -> str:
        """The logits with the rows of the strings of the last characters added, hashed as `RecentGrams` does."""
        before = grams.order - 1
        self._inputs["recent"] = self._outputs["recent_next"] = (self._onnx.TensorProto.INT64, ["batch", before])
        numbers = {"zero": 0, "two": 2, "factor": 1_000_003, "prime": 2_147_483_647, "gram_rows": grams.rows}
        self._weights |= {name: np.array(number) for name, number in numbers.items()}
        self._weights["grams"] = floats(grams.weight)
        read = self._node("Concat", [self._node("Transpose", ["recent"], perm=[1, 0]), "ids"], axis=0)
        key, known = self._node("Add", ["ids", "two"]), self._node("GreaterOrEqual", ["ids", "zero"])
        for back in range(1, grams.order):
            older = self._slice(read, before - back, -back, 0)
            key = self._node("Add", [self._node("Mul", [key, "factor"]), self._node("Add", [older, "two"])])
            key = self._node("Mod", [key, "prime"])
            known = self._node("And", [known, self._node("GreaterOrEqual", [older, "zero"])])
            place = self._node("Where", [known, self._node("Mod", [key, "gram_rows"]), "gram_rows"])
            logits = self._node("Add", [logits, self._node("Gather", ["grams", place])])
        last = self._slice(read, -before, _END, 0)
        self._node("Transpose", [last], names=["recent_next"], perm=[1, 0])
        return logits

    def _look_back(self, look_back: LookBack, logp: str, y: str) -> None:
        """The output `logp` and the next places: what `LookBack` makes of log-probabilities and outputs [T, B, ...]."""
        places, before, kinds = look_back.places, look_back.characters - 1, self._onnx.TensorProto
        self._inputs["back_keys"] = self._outputs["back_keys_next"] = (kinds.FLOAT, ["batch", places, look_back.width])
        self._inputs["back_ids"] = self._outputs["back_ids_next"] = (kinds.INT64, ["batch", before + places])
        numbers = {"never": _NEVER, "least": _LEAST, "nought": 0}
        self._weights |= {name: np.array([number], dtype=np.float32) for name, number in numbers.items()}
        y = self._node("Transpose", [y], perm=[1, 0, 2])
        ids = self._node("Concat", ["back_ids", self._node("Transpose", ["ids"], perm=[1, 0])], axis=1)
        queries, key, own = (
            self._linear(name, getattr(look_back, name), y) for name in ("query_map", "key_map", "own")
        )
        keys = self._node("Concat", ["back_keys", key], axis=1)
        self._slice(keys, -places, _END, 1, names=["back_keys_next"])
        self._slice(ids, -before - places, _END, 1, names=["back_ids_next"])
        rows = self._last_characters(look_back, ids)
        mass = self._masses(look_back, queries, keys, rows, own, ids)
        mass = self._node("Log", [self._node("Max", [mass, "least"])])
        own = self._node("Transpose", [logp], perm=[1, 0, 2])
        own = self._node("Add", [own, self._slice(mass, -1, _END, 2)])
        copied = self._slice(mass, 0, -1, 2)
        more, less = (self._node(kind, [own, copied]) for kind in ("Max", "Min"))
        added = self._node("Softplus", [self._node("Sub", [less, more])])
        self._node("Transpose", [self._node("Add", [more, added])], names=["logp"], perm=[1, 0, 2])

    def _last_characters(self, look_back: LookBack, ids: str) -> str:
        """The last N characters at each place [B, M + T, N], as rows of tables [N (V + 1), ...]."""
        count, symbols = look_back.characters, look_back.symbols
        self._weights["symbols"] = np.array(symbols)
        known = self._node("Where", [self._node("Less", [ids, self._whole(0)]), "symbols", ids])
        found = []
        for n in range(count):
            at = self._slice(known, count - 1 - n, -n if n else _END, 1)
            found.append(self._node("Unsqueeze", [at, self._whole(2)]))
        begins = self._whole(*(n * (symbols + 1) for n in range(count)))
        return self._node("Add", [self._node("Concat", found, axis=2), begins])

    def _masses(self, look_back: LookBack, queries: str, keys: str, rows: str, own: str, ids: str) -> str:
        """The share of every symbol that is copied, and last the network's own [B, T, V + 1].

        A loop takes 128 steps after the other, as no more scores should be in memory; the last block is as long as the
        others, and begins so early that it ends with the last step.
        """
        self._weights |= {
            "one": np.array(1),
            "block_most": np.array([_BLOCK]),
            "window_more": np.array([look_back.places]),
            "yes": np.array(True),
        }
        text, ids = ids, self._slice(ids, look_back.characters - 1, _END, 1)
        steps = self._slice(self._node("Shape", [queries]), 1, 2, 0)
        block = self._node("Min", [steps, "block_most"])
        less = self._node("Div", [self._node("Sub", [steps, self._whole(1)]), block])  # full blocks before the last one
        count = self._node("Squeeze", [self._node("Add", [less, self._whole(1)])])
        window = self._node("Add", [block, "window_more"])
        follower = self._node("Concat", [self._slice(ids, 1, _END, 1), self._slice(ids, 0, 1, 1)], axis=1)
        unseen = self._node("Less", [self._node("Min", [ids, follower]), self._whole(0)])
        unseen = self._node("Where", [unseen, "never", "nought"])
        read = queries, own, keys, rows, unseen, follower
        bias = self._bias(look_back, window)
        body = self._one_block(look_back, read, bias, self._periods(look_back, text, block), (steps, block, window))
        mass = f"value{self._made}_all"
        self._node("Loop", [count, "yes"], names=[mass], body=body)
        mass = self._node("Transpose", [mass], perm=[1, 0, 2, 3])
        mass = self._node("Reshape", [mass, self._whole(0, -1, look_back.symbols + 1)])
        before = self._node("Mul", [less, block])
        rest = self._node("Sub", [before, steps])  # negative: counted from the end
        parts = [self._slice(mass, 0, before, 1), self._slice(mass, rest, _END, 1)]
        return self._node("Concat", parts, axis=1)

    def _bias(self, look_back: LookBack, window: str) -> str:
        """What distance adds to the scores [window, block]."""
        self._weights |= {"zero": np.array(0), "places": np.array(look_back.places)}
        self._weights["recency"] = -floats(look_back.recency)
        end = self._node("Squeeze", [window])
        place = self._node("Range", ["zero", end, "one"])
        place = self._node("Unsqueeze", [place, self._whole(1)])
        distance = self._node("Sub", [self._node("Range", ["places", end, "one"]), place])
        seen = [
            self._node("GreaterOrEqual", [distance, "one"]),
            self._node("LessOrEqual", [distance, "places"]),
        ]
        far = self._node("Cast", [self._node("Max", [distance, "one"])], to=self._onnx.TensorProto.FLOAT)
        far = self._node("Mul", [self._node("Log", [far]), "recency"])
        return self._node("Where", [self._node("And", seen), far, "never"])

    def _periods(self, look_back: LookBack, ids: str, block: str) -> list[str]:
        """What `_repeating` reads, or nothing where M is too small: a text, where counts begin [block, P], lengths."""
        known = look_back.places + look_back.characters
        longest = sum(max(period, _LOOP) + period <= known for period in range(1, PERIODS + 1))
        if not longest:
            return []
        needed_P, most = np.maximum(np.arange(longest, 0, -1), _LOOP), max(longest, _LOOP)
        self._weights |= {"needed": needed_P.astype(np.int32), "nil": np.array(0, np.int32)}
        self._weights |= {"begins": (most - needed_P) * longest + np.arange(longest), "longest": np.array(longest)}
        text = self._node("Cast", [ids], to=self._onnx.TensorProto.INT32)
        text = self._node("Pad", [self._slice(text, known - most - longest, _END, 1), self._whole(0, 0, 0, 1)])
        step = self._node("Range", ["zero", self._node("Squeeze", [block]), "one"])
        step = self._node("Unsqueeze", [self._node("Mul", [step, "longest"]), self._whole(1)])
        rows, row = (self._node("Add", [block, self._whole(count)]) for count in (most, most + longest))
        return [text, self._node("Add", [step, "begins"]), rows, row, self._whole(longest), self._whole(most)]

    def _repeating(self, begin: str, text: str, begins: str, rows: str, row: str, longest: str, most: str) -> str:
        """What is added to the scores of a block's steps [B, 1, block]: where the text repeats itself, no place is seen
        (`look_back.repeating`). Of its characters those are counted [B, R, P] that also stand a period before: copies
        of the text, cut into rows that are one character longer, so that each begins one later than the last."""
        text = self._slice(text, begin, self._node("Add", [begin, row]), 1)
        newer = self._node("Unsqueeze", [self._slice(text, longest, _END, 1), self._whole(2)])
        newer = self._node("Add", [newer, self._node("Min", [newer, "nil"])])  # unknown: -2, which equals none
        longer = self._node("Add", [row, self._whole(1)])
        copies = self._node("Concat", [self._node("Add", [rows, self._whole(1)]), self._whole(1)], axis=0)
        older = self._node("Expand", [self._node("Unsqueeze", [text, self._whole(1)]), copies])
        older = self._slice(self._node("Reshape", [older, self._whole(0, -1)]), 0, self._node("Mul", [rows, longer]), 1)
        older = self._node("Reshape", [older, self._node("Concat", [self._whole(0, -1), longer], axis=0)])
        same = self._node("Equal", [newer, self._slice(older, 0, longest, 2)])
        same = self._node("Cast", [same], to=self._onnx.TensorProto.INT32)
        count = self._node("CumSum", [same, self._whole(1)], exclusive=1)
        before = self._node("Gather", [self._node("Reshape", [count, self._whole(0, -1)]), begins], axis=1)
        found = self._node("Sub", [self._slice(count, most, _END, 1), before])
        found = self._node("Where", [self._node("Equal", [found, "needed"]), "never", "nought"])
        return self._node("Unsqueeze", [self._node("ReduceMin", [found], axes=[2], keepdims=0), self._whole(1)])

    def _one_block(
        self, look_back: LookBack, read: tuple[str, ...], bias: str, periods: list[str], lengths: tuple[str, str, str]
    ) -> Any:
        """The body of the loop: the shares [B, block, V + 1] of one block, of what is read at its steps and places."""
        helper, kinds, (steps, block, window) = self._onnx.helper, self._onnx.TensorProto, lengths
        outside, self._nodes = self._nodes, []
        begin = self._node("Min", [self._node("Mul", ["block_number", block]), self._node("Sub", [steps, block])])
        ends = [self._node("Add", [begin, length]) for length in (block, window)]
        queries, own, keys, rows, unseen, follower = (
            self._slice(name, begin, ends[at > 1], 1) for at, name in enumerate(read)
        )
        score = self._node("MatMul", [keys, self._node("Transpose", [queries], perm=[0, 2, 1])])
        score = self._node("Add", [score, self._matches(look_back, rows)])
        score = self._node("Add", [self._node("Add", [score, bias]), self._node("Unsqueeze", [unseen, self._whole(2)])])
        if periods:
            score = self._node("Add", [score, self._repeating(begin, *periods)])
        score = self._node("Transpose", [score], perm=[0, 2, 1])
        share = self._node("Softmax", [self._node("Concat", [score, own], axis=2)], axis=-1)
        # the network's own share comes last, and V is its symbol; unseen places have no share, whatever their symbol
        self._weights["shares"] = np.array([look_back.symbols + 1])
        symbol = self._node("Pad", [follower, self._whole(0, 0, 0, 1), "symbols"])
        symbol = self._node("Expand", [self._node("Unsqueeze", [symbol, self._whole(1)]), self._node("Shape", [share])])
        lanes_steps = self._node("Shape", [queries], end=2)
        nothing = self._node("ConstantOfShape", [self._node("Concat", [lanes_steps, "shares"], axis=0)])
        self._node("ScatterElements", [nothing, symbol, share], names=["mass"], axis=2, reduction="add")
        self._node("Identity", ["go_on"], names=["goes_on"])
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            self._nodes,
            "block",
            [info("block_number", kinds.INT64, []), info("go_on", kinds.BOOL, [])],
            [info("goes_on", kinds.BOOL, []), info("mass", kinds.FLOAT, None)],
        )
        self._nodes = outside
        return body

    def _matches(self, look_back: LookBack, rows: str) -> str:
        """What the characters add to the scores [B, window, block]: rows of tables that are made for each step."""
        count, symbols = look_back.characters, look_back.symbols
        self._weights["query"] = floats(look_back.query).reshape(count * (symbols + 1), -1)
        self._weights["key"] = floats(look_back.key)
        now = self._slice(rows, look_back.places, _END, 1)
        queries = self._node("Transpose", [self._node("Gather", ["query", now])], perm=[0, 2, 3, 1])
        table = self._node("MatMul", ["key", queries])
        table = self._node("Reshape", [table, self._whole(0, count * (symbols + 1), -1)])
        parts = [f"{rows}_{n}" for n in range(count)]
        self._node("Split", [rows], names=parts, axis=2)
        return self._node("Sum", [self._node("GatherND", [table, part], batch_dims=1) for part in parts])


def _in_order(weight: Tensor, order: list[int]) -> NDArray[np.float32]:
    """The blocks of the gates in another order."""
    blocks = np.split(floats(weight), len(order))
    return np.concatenate([blocks[place] for place in order])
