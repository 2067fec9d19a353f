"""Pages about what is inside a model: one that runs models, and one about hidden units (`charlm inspect --html`).

Of a page that runs models, the weights or counts are one block of deflated numbers. `templates/models.js` and
`counts.js` read them as they are described here, and do the arithmetic of `nn/cells.py` and `ngrams/`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import OptionError
from charlm.lm.model import TextModel
from charlm.mixing.mixture import MixtureLM
from charlm.ngrams.kneser_ney import KneserNey, discounts
from charlm.ngrams.model import NGramLM
from charlm.nn.cells import BUILT_IN
from charlm.nn.look_back import LookBack
from charlm.pages.page import render
from charlm.recurrent.agreement import GATE_WORDS, Finding
from charlm.recurrent.atlas import Atlas, Saturation, Unit
from charlm.recurrent.inspection import Inspection
from charlm.recurrent.model import CharRNN
from charlm.tensors import Bits, quantised

_MOST = 24_000_000  # characters of numbers in a page, which a telephone still opens
_Kept = Callable[[Tensor | None], dict[str, Any] | None]  # puts numbers into a block and says where they are
_WORKER = ("sampling.js", "models.js", "counts.js", "engine.js")


class Block:
    """Arrays one after the other, as the page keeps them."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, array: NDArray[Any]) -> dict[str, Any]:
        """Adds an array; returns where it stands: `type`, `at`, `count`.

        >>> block = Block()
        >>> block.add(np.array([1, 2, 300], dtype=np.uint16)), block.add(np.zeros(2, dtype=np.float32))["at"]
        ({'type': 'u2', 'at': 0, 'count': 3}, 8)
        """
        at = len(self._bytes)
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self._bytes += content + bytes(-len(content) % 8)
        return {"type": f"{array.dtype.kind}{array.dtype.itemsize}", "at": at, "count": int(array.size)}

    def text(self) -> str:
        """All of them, deflated, as base64."""
        return base64.b64encode(zlib.compress(bytes(self._bytes), 9)).decode()


def playground_page(models: Sequence[TextModel], bits: Bits, notes: Sequence[str] = ()) -> str:
    """The HTML of a page that runs one or two models; `notes` are sentences at its end."""
    block = Block()
    described = [_describe(model, bits, block) for model in models]
    numbers = block.text()
    if len(numbers) > _MOST:
        raise OptionError(
            f"the page would hold {len(numbers) / 1e6:.0f} MB of numbers, and the most that it should is "
            f"{_MOST / 1e6:.0f} MB: take a smaller --order, --hidden or --bits"
        )
    titles = [{"name": model.name, "title": model.title, "units": bool(networks_of(model))} for model in models]
    shown = [title | {"symbols": list(model.vocab.shown)} for title, model in zip(titles, models, strict=True)]
    return render(
        "playground.html",
        title=" and ".join(model.name for model in models),
        data={"playground": {"models": shown, "descriptions": described}},
        scripts=("textmap.js", "sampling.js", "track.js", "playground.js"),
        worker=_WORKER,
        numbers=numbers,
        models=titles,
        most_k=max(len(model.vocab) for model in models),
        facts=[("Model", f"{model.name}: {_about(model, bits)}") for model in models],
        notes=list(notes),
    )


def _about(model: TextModel, bits: Bits) -> str:
    kept = "" if isinstance(model, NGramLM) else f", weights of {bits} bits"
    return f"{model.title}, {len(model.vocab):,} symbols{kept}"


def _describe(model: TextModel, bits: Bits, block: Block) -> dict[str, Any]:
    """What the scripts need to know of a model; its arrays go into the block."""
    vocab = model.vocab
    found: dict[str, Any] = {"symbols": len(vocab)}
    if isinstance(model, CharRNN):
        found |= _network(model, bits, block)
    elif isinstance(model, NGramLM):
        found |= _counts(model, block)
    elif isinstance(model, MixtureLM) and model.weights.ndim == 2:
        raise OptionError("a page runs mixtures whose weights learn while they read, not one that was fitted before")
    elif isinstance(model, MixtureLM):
        parts = [_describe(part, bits, block) for part in model.models]
        found |= {"kind": "mixture", "models": parts, "weights": model.weights.tolist(), "rate": model.rate}
    else:
        raise OptionError(f"a page runs networks, n-gram models and mixtures of these, not {model.title}")
    return found | {
        "characters": len(vocab.characters),
        "spells": vocab.byte_fallback,
        "begins": block.add(vocab.begins_character.astype(np.uint8)),
        "start": int(model.start),
    }


def _network(model: CharRNN, bits: Bits, block: Block) -> dict[str, Any]:
    if model.config.model not in BUILT_IN:
        raise OptionError(
            f"a page runs the cells {', '.join(BUILT_IN)}, not {model.config.model}: its formula is Python's alone"
        )

    def matrix(weight: Tensor | None) -> dict[str, Any] | None:
        if weight is None:
            return None
        rows, columns = weight.shape
        if bits == 32:
            return {"rows": rows, "columns": columns, "values": block.add(floats(weight)), "scale": None}
        values, scale = (tensor.numpy() for tensor in quantised(weight, bits))
        scales = block.add(scale)
        return {"rows": rows, "columns": columns, "values": block.add(values), "scale": scales}

    def numbers(bias: Tensor | None) -> dict[str, Any] | None:
        return None if bias is None else block.add(floats(bias))

    cells = [model.stack.cell(layer) for layer in range(model.stack.layers)]
    return {
        "kind": "network",
        "cell": model.config.model,
        "hidden": model.config.hidden,
        "width": model.stack.outputs,
        "embedding": None if model.embedding is None else matrix(model.embedding.weight),
        "cells": [
            {
                "weight_ih": matrix(cell.weight_ih),
                "weight_hh": matrix(cell.weight_hh),
                "weight_hr": matrix(cell.weight_hr),
                "bias_ih": numbers(cell.bias_ih),
                "bias_hh": numbers(cell.bias_hh),
            }
            for cell in cells
        ],
        "head": {"weight": matrix(model.head.linear.weight), "bias": numbers(model.head.linear.bias)},
        "grams": None if model.grams is None else {"weight": matrix(model.grams.weight), "order": model.grams.order},
        "look_back": None if model.look_back is None else _look_back(model.look_back, matrix, numbers),
    }


def _look_back(look_back: LookBack, matrix: _Kept, numbers: _Kept) -> dict[str, Any]:
    """What `LookBack` holds; a row of the matrices `query` and `key` is that of a symbol so many places before."""
    maps = {name: getattr(look_back, name) for name in ("query_map", "key_map", "own")}
    return {
        "places": look_back.places,
        "characters": look_back.characters,
        "width": look_back.key.shape[2],
        "query": matrix(look_back.query.flatten(0, 1)),
        "key": matrix(look_back.key.flatten(0, 1)),
        **{name: {"weight": matrix(map.weight), "bias": numbers(map.bias)} for name, map in maps.items()},
        "recency": look_back.recency.item(),
    }


def floats(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor's numbers as float32 on the CPU."""
    return tensor.detach().cpu().float().numpy()


def _counts(model: NGramLM, block: Block) -> dict[str, Any]:
    estimator = model.estimator
    levels = []
    for order in range(model.order + 1):
        level = estimator.levels[order]
        found: dict[str, Any] = {
            "types": block.add(_smallest(level.types_H)),
            "ids": block.add(_smallest(level.id_E)),
            "counts": block.add(_smallest(level.count_E)),
            "preceding": None,
            "discounts": None,
        }
        if isinstance(estimator, KneserNey):
            found["discounts"] = {"top": discounts(level.count_E)}
            if order < model.order:
                below = estimator.preceding(order)
                found["preceding"] = block.add(_smallest(below))
                found["discounts"]["below"] = discounts(below)
        levels.append(found)
    return {
        "kind": "ngram",
        "order": model.order,
        "smoothing": estimator.name,
        "parameters": estimator.parameters(),
        "levels": levels,
    }


def _smallest(values: NDArray[Any]) -> NDArray[Any]:
    """Counts in the smallest type that a page reads.

    >>> _smallest(np.array([1, 256])).dtype
    dtype('uint16')
    """
    most = int(values.max(initial=0))
    return values.astype(np.min_scalar_type(most) if most < 2**32 else np.float64)


def networks_of(model: TextModel) -> list[CharRNN]:
    """The networks in a model: itself, or those of a mixture."""
    if isinstance(model, MixtureLM):
        return [network for part in model.models for network in networks_of(part)]
    return [model] if isinstance(model, CharRNN) else []


# -- hidden units ------------------------------------------------------------------------------------------------------

_BYTES = 1_500_000  # of unit values in a page: two thirds of its 3 MB, as base64 takes a third more


def picked_units(
    atlas: Atlas, findings: Sequence[Finding], chosen: Sequence[Unit], steps: int, most: int = _BYTES
) -> list[Unit]:
    """The units that go into a page: those asked for, those found, and as many others as there is room for."""
    wanted = [*chosen, *(finding.unit for finding in findings if finding.found)]
    spread = atlas.values_UT[:, -steps:].astype(np.float32).std(axis=1)
    wanted += [atlas.units[u] for u in np.argsort(-spread, kind="stable").tolist()]
    room = max(1, len(set(chosen)), most // max(1, steps))
    return list(dict.fromkeys(wanted))[:room]


def inspect_page(inspection: Inspection) -> str:
    """The HTML of the page; under 3 MB while some thousands of characters are shown.

    The first unit that was asked for is painted at the start, else the first one found.
    """
    atlas, findings, chosen, steps = inspection.atlas, inspection.findings, inspection.chosen, len(inspection.ids)
    units = picked_units(atlas, findings, chosen, steps)
    values_UT = np.stack([inspection.values(unit) for unit in units])
    numbers = quantised(torch.from_numpy(values_UT), 8)[0].numpy()
    data: dict[str, Any] = {
        "symbols": list(inspection.symbols),
        "ids": list(inspection.ids),
        "units": [str(unit) for unit in units],
        "largest": [round(float(value), 4) for value in np.abs(values_UT).max(axis=1)],
        "values": base64.b64encode(numbers.tobytes()).decode(),
        "follows": _words(findings),
        "top": atlas.top_SK.ravel().tolist(),
        "parts": np.rint(1e6 * atlas.chance_SK.astype(np.float64)).astype(np.int64).ravel().tolist(),
    }
    listed = [finding for finding in findings if finding.found and finding.unit in units]
    listed_names = {str(finding.unit) for finding in listed} | {str(unit) for unit in chosen}
    return render(
        "inspect.html",
        title=f"Hidden units of {inspection.name}",
        data={"inspect": data},
        scripts=("textmap.js", "inspect.js"),
        facts=[
            ("Model", f"{inspection.name} ({inspection.kind})"),
            ("Text", inspection.where),
            ("Read", f"{len(atlas.ids):,} characters, of which the last {steps:,} are shown"),
        ],
        findings=listed,
        chosen=[str(unit) for unit in dict.fromkeys(chosen)],
        others=[name for name in sorted(data["units"], key=_order) if name not in listed_names],
        missing=sorted({f.follows for f in findings} - {f.follows for f in findings if f.found}),
        gates=_charts(atlas.gates),
    )


def _order(name: str) -> tuple[int, int, str]:
    layer, number, signal = name.split(":")
    return int(layer), int(number), signal


def _words(findings: Sequence[Finding]) -> dict[str, str]:
    """What each found unit follows best, in words."""
    words: dict[str, str] = {}
    for finding in findings:
        if finding.found:
            words.setdefault(str(finding.unit), finding.follows + ("" if finding.rises else " (falls there)"))
    return words


def _charts(gates: Sequence[Saturation]) -> list[dict[str, Any]]:
    """For each kind of gate the points (layer, unit, share nearly closed, share nearly open) of a scatter plot."""
    charts = []
    for gate in dict.fromkeys(item.gate for item in gates):
        rows = [item for item in gates if item.gate == gate]
        points = [
            (item.layer, unit, float(left), float(right))
            for item in rows
            for unit, (left, right) in enumerate(zip(item.left_H, item.right_H, strict=True))
        ]
        means = [(item.layer, float(item.left_H.mean()), float(item.right_H.mean())) for item in rows]
        charts.append({"gate": gate, "words": GATE_WORDS[gate], "points": points, "means": means})
    return charts
