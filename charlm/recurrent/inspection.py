"""`inspect`: what the hidden units of a network do over a text, and which of them follow something with a name.

What is measured is in `atlas` (the values of units and gates), what is searched for and how in `properties`.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.display import paint, progress_bar, save_figure
from charlm.errors import CharlmError, OptionError
from charlm.lm.evaluate import as_part
from charlm.lm.model import TextModel
from charlm.recurrent.atlas import Atlas, Finding, Unit, read_units, signals_of, unit_figure
from charlm.recurrent.model import CharRNN
from charlm.recurrent.properties import search
from charlm.text.corpus import read_corpus
from charlm.text.text import Part, Text
from charlm.text.vocab import Vocab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BYTES = 1_500_000
"""Of unit values in a page: two thirds of its 3 MB, as base64 takes a third more."""

_ALTERNATIVES = 6  # probable next symbols that are kept for each position


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Inspection:
    """Hidden units over a text; made by `inspect`. Its `repr` is the tables that `charlm inspect` prints.

    Args:
        name: of the network.
        kind: of the network, as in its `config.json`.
        part: what was read.
        start: position in the part of the first character that was read.
        atlas: the values of all units and gates, and the most probable next symbols of the characters shown.
        findings: units and the properties that they were compared with, the surest first.
        chosen: the units that were asked for.
        symbols: how each id is shown; those that the network does not know come last.
        ids: of the characters that are shown, the last ones that were read.
        characters: the shown text, a string a position.
    """

    name: str
    kind: str
    part: Part
    start: int
    atlas: Atlas
    findings: tuple[Finding, ...]
    chosen: tuple[Unit, ...]
    symbols: tuple[str, ...]
    ids: tuple[int, ...]
    characters: tuple[str, ...]

    @property
    def where(self) -> str:
        """The text that was read, and which part of it."""
        return self.part.text.title + ("" if self.part.name == "all" else f", {self.part.name} part")

    @property
    def shown_from(self) -> int:
        """Position in the part of the first character that is shown."""
        return self.start + len(self.atlas.ids) - len(self.ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the tables do not say: which properties no unit follows, and whether there was enough text to search."""
        if not self.findings:
            return ("there is too little in this text to search for: read more of it (--length), or another one",)
        return (f"no unit beats the control in following: {', '.join(self.missing)}",) if self.missing else ()

    @property
    def missing(self) -> list[str]:
        """The properties that no unit follows."""
        return sorted({each.follows for each in self.findings} - {each.follows for each in self.findings if each.found})

    @property
    def followed(self) -> dict[str, str]:
        """What each found unit follows best, in words, by the unit's name."""
        words: dict[str, str] = {}
        for each in self.findings:
            if each.found:
                words.setdefault(str(each.unit), each.follows + ("" if each.rises else " (falls there)"))
        return words

    def values(self, unit: Unit) -> NDArray[np.float64]:
        """The values of a unit at the characters that are shown, [S]."""
        return self.atlas.values_UT[self.atlas.row(unit), len(self.atlas.ids) - len(self.ids) :].astype(np.float64)

    def unit_table(self) -> str:
        """The values of the chosen units as tab-separated lines, one a character shown."""
        rows = [self.values(unit).tolist() for unit in self.chosen]
        lines = ["\t".join(["position", "character", *map(str, self.chosen)])]
        for place, values in enumerate(zip(*rows, strict=True)):
            cells = (repr(self.characters[place]), *(f"{value:.4f}" for value in values))
            lines.append("\t".join([str(self.shown_from + place), *cells]))
        return "\n".join(lines)

    def painted(self) -> str:
        """The shown text once for each chosen unit, in colours for a terminal."""
        lines = []
        for unit in self.chosen:
            values = self.values(unit)
            largest = float(abs(values).max(initial=0)) or 1.0
            lines.append(f"unit {unit}, from {values.min():.3f} (orange) to {values.max():.3f} (blue):")
            styles = [unit_level(value / largest) for value in values.tolist()]
            lines.append("".join(paint(zip(self.characters, styles, strict=True))))
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """The beginning of the shown text coloured by the chosen units, else by the three surest ones, and the gates.

        Args:
            path: also write the figure there, as .png, .svg or .pdf.
        """
        labels = [(unit, f"unit {unit}") for unit in self.chosen] or list(self._surest())
        labels = labels or [(self.atlas.units[0], f"unit {self.atlas.units[0]}")]
        painted = [(label, self.values(unit)) for unit, label in labels]
        figure = unit_figure(self.characters, painted, self.atlas.gates, title=f"hidden units of {self.name}")
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    def _surest(self, most: int = 3) -> Iterator[tuple[Unit, str]]:
        """The best units of different properties, and what to write above them."""
        seen: dict[tuple[int, int], Finding] = {}
        for found in self.findings:
            if found.found and found.follows not in {f.follows for f in seen.values()}:
                seen.setdefault((found.unit.layer, found.unit.number), found)
        for found in list(seen.values())[:most]:
            yield (
                found.unit,
                (f"unit {found.unit}: {found.follows}, area {found.area:.3f} (control {found.control:.3f})"),
            )

    def __repr__(self) -> str:
        found = [finding for finding in self.findings if finding.found]
        read = f"{len(self.atlas.ids):,} characters"
        lines = [f"{self.name} reads {read} of {self.where}:"]
        if found:
            lines.append(f"{'unit':>10}  {'area':>5}  {'control':>7}  follows")
        for finding in found:
            falls = "" if finding.rises else " (falls)"
            lines.append(f"{finding.unit!s:>10}  {finding.area:5.3f}  {finding.control:7.3f}  {finding.follows}{falls}")
        if self.atlas.gates:
            lines.append(f"{'layer':>5}  gate  below 0.1  above 0.9   most in one unit")
        for item in self.atlas.gates:
            lines.append(
                f"{item.layer:>5}  {item.gate:<4}  {item.left_H.mean():8.1%}  {item.right_H.mean():9.1%}   "
                f"{item.left_H.max():.1%} and {item.right_H.max():.1%}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<pre>{html.escape(repr(self))}</pre>{notes}"

    def to_json(self) -> dict[str, Any]:
        """What `charlm inspect --json` prints: `units` as the search found them, `values` of those asked for."""
        return {
            "model": self.name,
            "split": None if self.part.text.split is None else str(self.part.text.split),
            "part": self.part.name,
            "text_sha256": self.part.text.corpus.sha256,
            "start": self.start,
            "length": len(self.atlas.ids),
            "shown_from": self.shown_from,
            "units": [finding.to_json() for finding in self.findings],
            "gates": [gate.to_json() for gate in self.atlas.gates],
            "values": {str(unit): self.values(unit).tolist() for unit in self.chosen},
        }


def picked_units(
    atlas: Atlas, findings: Sequence[Finding], chosen: Sequence[Unit], steps: int, most: int = BYTES
) -> list[Unit]:
    """The units that go into a page: those asked for, those found, and as many others as there is room for."""
    wanted = [*chosen, *(finding.unit for finding in findings if finding.found)]
    spread = atlas.values_UT[:, -steps:].astype(np.float32).std(axis=1)
    wanted += [atlas.units[u] for u in np.argsort(-spread, kind="stable").tolist()]
    room = max(1, len(set(chosen)), most // max(1, steps))
    return list(dict.fromkeys(wanted))[:room]


def unit_level(share: float) -> str:
    """The style of a value, given as a share of the largest one.

    >>> unit_level(0.05), unit_level(-0.6), unit_level(1.0)
    ('s0', 'n3', 'p4')
    """
    size = sum(abs(share) >= bound for bound in (0.1, 0.25, 0.5, 0.8))
    return f"{'p' if share > 0 else 'n'}{size}" if size else "s0"


def inspect(
    model: TextModel,
    text: Text | Part | str,
    *,
    layer: int | None = None,
    units: Sequence[Unit | str] = (),
    start: int = 0,
    length: int = 50_000,
    shown: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Inspection:
    """Searches the hidden units of a network over a text for those that follow something with a name.

    Args:
        model: a network that `train` made.
        text: a part; a whole text, of which the test part is read (else valid, else all); or plain characters.
        layer: look at this layer alone, counted from 0.
        units: units whose values are wanted: a `Unit`, or "LAYER:NUMBER", or "LAYER:NUMBER:c" for a cell state.
        start: the first character of the part to read.
        length: how many characters to read.
        shown: the last so many of them are shown.
        seed: of the shifts that make the control.
        progress: show bars; None shows them on a terminal or in a notebook.

    Raises:
        OptionError: the model has no hidden units, or a layer, unit or position that does not exist was asked for.

    >>> from charlm.recurrent.model import RNNConfig
    >>> text = Text.of("(one) two three " * 20)
    >>> inspect(CharRNN(text.vocab, RNNConfig(model="gru", hidden=4, layers=1)), text.all, units=["0:3"]).chosen
    (Unit(layer=0, number=3, signal='h'),)
    """
    if not isinstance(model, CharRNN):
        raise OptionError(f"{model.name} has no hidden units: name a network made by `charlm train`")
    if layer is not None and not 0 <= layer < model.config.layers:
        raise OptionError(f"--layer goes from 0 to {model.config.layers - 1} in {model.name}, not {layer}")
    if length < 1 or shown < 1 or start < 0:
        raise OptionError("--length and --shown are 1 or more, --start is 0 or more")
    chosen = tuple(_unit(model, wanted) for wanted in units)
    given = as_part(text)
    part = given.under(model.vocab)
    place_T = np.concatenate([np.arange(a, b) for a, b in part.spans.tolist()])
    if start >= len(place_T):
        raise OptionError(f"the {part.name} part has {len(place_T):,} characters: --start {start} is behind its end")
    place_T = place_T[start : start + length]
    total, visible = len(place_T), min(shown, len(place_T))
    with progress_bar(total, "reading", "char", show=progress) as bar:
        ids, window = part.text.corpus.ids[place_T], (total - visible, total)
        atlas = read_units(model, ids, shown=window, top=_ALTERNATIVES, progress=bar.update)
    atlas = atlas if layer is None else atlas.only(layer)
    with progress_bar(total, "searching", "char", show=progress) as bar:
        findings = search(atlas, model.vocab, seed=seed, progress=bar.update)
    symbols, shown_ids, characters = _shown(given, part, place_T[-visible:])
    return Inspection(
        name=model.name,
        kind=model.kind,
        part=part,
        start=start,
        atlas=atlas,
        findings=tuple(findings),
        chosen=chosen,
        symbols=symbols,
        ids=shown_ids,
        characters=characters,
    )


def _unit(network: CharRNN, wanted: Unit | str) -> Unit:
    """The unit that was asked for; of an LSTM the cell state where no signal is named."""
    if isinstance(wanted, Unit):
        layer, number, signal = wanted.layer, wanted.number, wanted.signal
    else:
        parts = re.fullmatch(r"(\d{1,6}):(\d{1,6})(?::([hc]))?", wanted)
        if parts is None:
            raise OptionError(f"a unit is written LAYER:NUMBER, or LAYER:NUMBER:c for a cell state, not {wanted!r}")
        layer, number, signal = int(parts[1]), int(parts[2]), parts[3] or ""
    if not 0 <= layer < network.config.layers:
        raise OptionError(f"the layers of this network are 0 to {network.config.layers - 1}: there is no layer {layer}")
    cell = network.stack.cell(layer)
    signal = signal or signals_of(cell)[-1]
    if signal not in signals_of(cell):
        raise OptionError(f"this network has no cell states: write --unit {layer}:{number}")
    if not 0 <= number < cell.state_width(signal):
        raise OptionError(f"layer {layer} has the units 0 to {cell.state_width(signal) - 1}: there is no unit {number}")
    return Unit(layer, number, signal)


def _shown(
    given: Part, part: Part, place_S: NDArray[np.int64]
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """How each id is shown, the ids at some positions, and their characters; unknown ones get ids of their own."""
    vocab, corpus = part.text.vocab, part.text.corpus
    symbols = list(vocab.shown)
    ids = corpus.ids[place_S].astype(np.int64)
    characters = symbols_of(vocab, ids)
    if (ids < 0).any():
        unknown = _as_written(given, part, place_S)
        numbers = {symbol: number for number, symbol in enumerate(symbols)}
        for place in np.flatnonzero(ids < 0).tolist():
            characters[place] = unknown[place]
            ids[place] = numbers.setdefault(unknown[place], len(numbers))
        symbols = list(numbers)
    return tuple(symbols), tuple(ids.tolist()), tuple(characters)


def symbols_of(vocab: Vocab, ids: NDArray[Any]) -> list[str]:
    """How each symbol is shown, so that all of them together are the text.

    A character that is spelled in several bytes stands at its last byte and the others show nothing; what spells no
    character, and what the vocabulary does not hold, is U+FFFD.

    >>> symbols_of(Vocab.of_bytes(), np.frombuffer("né".encode(), dtype=np.uint8))
    ['n', '', 'é']
    """
    size, decoder = len(vocab.characters), codecs.getincrementaldecoder("utf-8")("replace")
    shown: list[str] = []
    for id in np.asarray(ids).tolist():
        whole = id < size  # then bytes before it spell nothing more
        shown.append(decoder.decode(b"" if whole else bytes([id - size]), whole))
        if whole:
            shown[-1] += vocab.characters[id] if id >= 0 else "\ufffd"
    return [*shown[:-1], shown[-1] + decoder.decode(b"", True)] if shown else []


def _as_written(given: Part, part: Part, place_S: NDArray[np.int64]) -> list[str]:
    """The characters at some positions as the text has them, also those that the network does not know.

    They are known where the text was given in a vocabulary of its own. A text that was read in the network's vocabulary
    is read again from its files; where that is not possible they are U+FFFD.
    """
    whole = given.text.corpus
    if whole.unknown() and "-" not in whole.names:  # standard input cannot be read twice
        try:
            whole = read_corpus(whole.names, whole.reading)
        except CharlmError:
            whole = given.text.corpus
    if len(whole) != len(part.text.corpus):
        return ["\ufffd"] * len(place_S)
    return ["\ufffd" if id < 0 else whole.vocab.symbol(id) for id in whole.ids[place_S].tolist()]
