"""`charlm inspect`: what the hidden units of a network follow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option, note, seed_option
from charlm.errors import OptionError
from charlm.progress import progress_bar

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.recurrent.agreement import Finding
    from charlm.recurrent.atlas import Atlas, Unit
    from charlm.recurrent.model import CharRNN
    from charlm.text.text import Part


class _UnitType(click.ParamType[tuple[int, int, str]]):
    name = "unit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, str]:
        if isinstance(value, tuple):
            return value
        parts = re.fullmatch(r"(\d{1,6}):(\d{1,6})(?::([hc]))?", value)
        if parts is None:
            raise OptionError(f"a unit is written LAYER:NUMBER, or LAYER:NUMBER:c for a cell state, not {value!r}")
        return int(parts[1]), int(parts[2]), parts[3] or ""


@click.command("inspect")
@click.argument("model")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one page to look at in a browser.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the best units: .png, .svg or .pdf."
)
@click.option("--layer", type=click.IntRange(0), metavar="N", help="Look at one layer only, counted from 0.")
@click.option(
    "--unit",
    "units",
    type=_UnitType(),
    multiple=True,
    metavar="L:N[:h|c]",
    help="Show this unit over the text instead of the tables: colours on a terminal, else a table. Can be repeated.",
)
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First character to read.")
@click.option(
    "--length", type=click.IntRange(1), default=50_000, show_default=True, metavar="N", help="Characters to read."
)
@click.option(
    "--shown",
    type=click.IntRange(1),
    metavar="N",
    help="Of these the last N are shown.  [default: 1000; in a page 4000]",
)
@click.option(
    "--split-part",
    type=click.Choice(["test", "valid", "train", "all"]),
    help="Which part of the model's own text.  [default: test, else valid; all of a foreign text]",
)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@seed_option
@json_option
def inspect_command(
    model: str,
    texts: tuple[str, ...],
    html: Path | None,
    plot: Path | None,
    layer: int | None,
    units: tuple[tuple[int, int, str], ...],
    start: int,
    length: int,
    shown: int | None,
    split_part: str | None,
    color: str,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Search the hidden units of MODEL over TEXT for those that follow something with a name.

    The area is that under the ROC curve among positions of the same character: 0.5 is chance, 1 is perfect. The unit is
    chosen on the first half of what is read and reported on the second; the control is the highest area of any unit
    when the property is shifted along the text. Layers and units are counted from 0; in an LSTM `c` is the cell state
    and `h` the output.
    """
    from charlm.checkpoint import load
    from charlm.cli.models import held_out
    from charlm.cli.units import as_values, show_tables, show_units
    from charlm.figures import check_picture
    from charlm.lm.painting import may_paint

    if plot is not None:
        check_picture(plot)
    checkpoint = load(model, device=device)
    network = _network(checkpoint, layer)
    chosen = [_unit(network, wanted) for wanted in units]
    held = held_out(checkpoint, list(texts), split_part)
    place_T = _places(held, start, length)
    visible = min(shown or (4000 if html else 1000), len(place_T))
    atlas, findings = _look(network, held, place_T, visible, layer, seed)
    symbols, characters = _text(held, list(texts), checkpoint, place_T[-visible:])
    if as_json:
        echo_json(as_values(checkpoint, held, atlas, findings, chosen, visible, start))
    elif chosen and html is None:
        show_units(atlas, chosen, characters, start + len(place_T) - visible, coloured=may_paint(color))
    elif html is None:
        show_tables(checkpoint, held, atlas, findings)
    if plot is not None:
        note(f"picture in {_draw(plot, atlas, findings, chosen, characters, checkpoint.name)}")
    if html is not None:
        path = _page(html, atlas, findings, chosen, symbols, checkpoint, held)
        click.echo(path, err=as_json)


def _network(checkpoint: TextModel, layer: int | None) -> CharRNN:
    from charlm.recurrent.model import CharRNN

    if not isinstance(checkpoint, CharRNN):
        raise OptionError(
            f"{checkpoint.name} counts n-grams and has no hidden units: name a network made by `charlm train`"
        )
    if layer is not None and layer >= checkpoint.config.layers:
        raise OptionError(f"--layer goes from 0 to {checkpoint.config.layers - 1} in {checkpoint.name}, not {layer}")
    return checkpoint


def _unit(network: CharRNN, wanted: tuple[int, int, str]) -> Unit:
    """The unit that was asked for; of an LSTM's the cell state where nothing else was said."""
    from charlm.recurrent.atlas import Unit

    layer, number, signal = wanted
    if layer >= network.config.layers:
        raise OptionError(f"the layers of this network are 0 to {network.config.layers - 1}: there is no layer {layer}")
    cell = network.stack.cell(layer)
    signal = signal or cell.states[-1]
    if signal not in cell.states:
        raise OptionError(f"this network has no cell states: write --unit {layer}:{number}")
    if number >= cell.state_width(signal):
        raise OptionError(f"layer {layer} has the units 0 to {cell.state_width(signal) - 1}: there is no unit {number}")
    return Unit(layer, number, signal)


def _places(held: Part, start: int, length: int) -> Any:
    """The positions in the text that are read, as one stream."""
    import numpy as np

    place_T = np.concatenate([np.arange(a, b) for a, b in held.spans.tolist()])
    if start >= len(place_T):
        raise OptionError(f"the {held.name} part has {len(place_T):,} characters: --start {start} is behind its end")
    return place_T[start : start + length]


def _look(
    network: CharRNN, held: Part, place_T: Any, visible: int, layer: int | None, seed: int
) -> tuple[Atlas, list[Finding]]:
    from charlm.recurrent.agreement import search
    from charlm.recurrent.atlas import read_units

    total = len(place_T)
    with progress_bar(total, "reading", "char") as bar:
        atlas = read_units(
            network, held.text.corpus.ids[place_T], shown=(total - visible, total), top=6, progress=bar.update
        )
    atlas = atlas if layer is None else atlas.only(layer)
    with progress_bar(total, "searching", "char") as bar:
        return atlas, search(atlas, network.vocab, seed=seed, progress=bar.update)


def _text(
    held: Part, texts: list[str], checkpoint: TextModel, place_S: Any
) -> tuple[tuple[list[str], list[int]], list[str]]:
    """What is shown: (symbols, an id for each position), and the characters one by one."""
    from charlm.lm.painting import shown_symbols
    from charlm.recurrent.properties import symbols_of
    from charlm.text.corpus import read_corpus

    vocab = held.text.corpus.vocab
    symbols = shown_symbols(vocab.characters, vocab.byte_fallback)
    ids = held.text.corpus.ids[place_S].astype("int64")
    characters = symbols_of(vocab, ids)
    if (ids < 0).any():
        unknown = ["\ufffd"] * len(ids)
        if "-" not in texts:  # standard input cannot be read twice
            whole = read_corpus(texts, checkpoint.source.reading)
            unknown = [whole.vocab.symbol(id) for id in whole.ids[place_S].tolist()]
        numbers = {symbol: number for number, symbol in enumerate(symbols)}
        for place in (ids < 0).nonzero()[0].tolist():
            characters[place] = unknown[place]
            ids[place] = numbers.setdefault(unknown[place], len(numbers))
        symbols = list(numbers)
    return (symbols, ids.tolist()), characters


def _draw(
    plot: Path,
    atlas: Atlas,
    findings: Sequence[Finding],
    chosen: Sequence[Unit],
    characters: list[str],
    name: str,
) -> Path:
    """The picture of the units asked for, else of the three surest ones."""
    from charlm.files import free_name
    from charlm.report.cells import draw_cells

    seen: dict[tuple[int, int], Finding] = {}
    for finding in findings:
        if finding.found and finding.follows not in {f.follows for f in seen.values()}:
            seen.setdefault((finding.unit.layer, finding.unit.number), finding)
    surest = list(seen.values())[:3]
    labels = [(f.unit, f"unit {f.unit}: {f.follows}, area {f.area:.3f} (control {f.control:.3f})") for f in surest]
    labels = [(unit, f"unit {unit}") for unit in chosen] or labels or [(atlas.units[0], f"unit {atlas.units[0]}")]
    painted = [(label, atlas.values_UT[atlas.row(unit), -len(characters) :].astype(float)) for unit, label in labels]
    path = free_name(plot)
    draw_cells(characters, painted, atlas.gates, path, title=f"hidden units of {name}")
    return path


def _page(
    html: Path,
    atlas: Atlas,
    findings: Sequence[Finding],
    chosen: Sequence[Unit],
    text: tuple[list[str], list[int]],
    checkpoint: TextModel,
    held: Part,
) -> Path:
    from charlm.report.inspect_page import inspect_page
    from charlm.report.page import write_page

    facts = [
        ("Model", f"{checkpoint.name} ({checkpoint.description.get('kind', 'rnn')})"),
        ("Text", f"{held.text.corpus.title}, {held.name} part"),
        ("Read", f"{len(atlas.ids):,} characters, of which the last {len(text[1]):,} are shown"),
    ]
    page = inspect_page(
        atlas, findings, chosen, text[0], text[1], title=f"Hidden units of {checkpoint.name}", facts=facts
    )
    return write_page(html, page)
