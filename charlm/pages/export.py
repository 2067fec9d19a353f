"""`export`: models as one HTML page that runs them in any browser, or as an ONNX file, and what that loses.

In a page, the weights or counts are one block of deflated numbers. `templates/models.js` and `counts.js` read them as
they are described here, and do the arithmetic of `nn/cells.py` and `ngrams/`.
"""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import CharlmError, OptionError
from charlm.files import free_name, write_bytes
from charlm.lm.evaluate import as_part, called
from charlm.lm.model import TextModel, as_models, own_text
from charlm.mixing.mixture import MixtureLM, mix
from charlm.ngrams.kneser_ney import KneserNey, discounts
from charlm.ngrams.model import NGramLM
from charlm.nn.cells import BUILT_IN
from charlm.nn.look_back import LookBack
from charlm.pages import render, write_page
from charlm.pages.onnx_file import onnx_bytes
from charlm.recurrent.model import CharRNN
from charlm.tensors import Bits, floats, quantised, rounded
from charlm.text.splits import first_of
from charlm.text.text import Part, Text

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
    losses, notes = ([], []) if html is None else _measure(wanted, bits, text)
    page = None if html is None else write_page(Path(html), playground_page(wanted, bits, list(map(str, losses))))
    file = None if onnx is None else free_name(Path(onnx))
    if file is not None and content is not None:
        write_bytes(file, content)
    return Export(html=page, onnx=file, bits=bits, losses=losses, notes=notes)


def _onnx_of(models: Sequence[TextModel]) -> bytes:
    if len(models) != 1 or not isinstance(models[0], CharRNN):
        raise OptionError("an ONNX file holds one network: name one, such as charlm train makes")
    return onnx_bytes(models[0])


# -- the loss ---------------------------------------------------------------------------------------------------------


def _measure(models: Sequence[TextModel], bits: Bits, text: Text | Part | str | None) -> tuple[list[Loss], list[str]]:
    """What each network loses in the page, or why that was not measured."""
    networks = [network for model in models for network in networks_of(model)]
    if not networks:
        return [], ["Counts are kept exactly."]
    if bits == 32:
        return [], ["Weights of 32 bits are kept exactly."]
    try:
        part = own_text(networks[0]).reported if text is None else as_part(text)
    except CharlmError as error:
        return [], [f"No loss was measured: {error}"]
    return [_loss(network, bits, part) for network in networks], []


def _loss(model: CharRNN, bits: Bits, part: Part) -> Loss:
    seen = part.under(model.vocab)
    first = replace(seen, spans=first_of(seen.spans, _TARGETS + 1))
    twin = copy.deepcopy(model).cpu().float()
    own = twin.evaluate(first)
    page = rounded(twin, bits).evaluate(first)
    return Loss(name=model.name, text=called(part), targets=own.targets, nats=own.nats, page_nats=page.nats)


# -- the page ----------------------------------------------------------------------------------------------------------

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
        values, scale = floats(weight), None
        if bits != 32:
            whole_RK, scale_R = quantised(weight, bits)
            values, scale = whole_RK.numpy(), block.add(scale_R.numpy())
        return {"rows": rows, "columns": columns, "values": block.add(values), "scale": scale}

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
            {name: matrix(getattr(cell, name)) for name in ("weight_ih", "weight_hh", "weight_hr")}
            | {name: numbers(getattr(cell, name)) for name in ("bias_ih", "bias_hh")}
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
    """Counts in the smallest type that a page reads."""
    most = int(values.max(initial=0))
    return values.astype(np.min_scalar_type(most) if most < 2**32 else np.float64)


def networks_of(model: TextModel) -> list[CharRNN]:
    """The networks in a model: itself, or those of a mixture."""
    if isinstance(model, MixtureLM):
        return [network for part in model.models for network in networks_of(part)]
    return [model] if isinstance(model, CharRNN) else []
