"""`export`: models as one HTML page that runs them in any browser, or as an ONNX file, and what that loses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import CharlmError, OptionError
from charlm.files import free_name, write_bytes
from charlm.lm.evaluate import called
from charlm.lm.model import TextModel, as_models, as_part
from charlm.mixing.mixture import mix
from charlm.pages.model_pages import networks_of, playground_page
from charlm.pages.onnx_file import onnx_bytes
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
    return onnx_bytes(models[0])


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
