"""What several commands share: options, strict JSON, and the part of a text that a model reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from charlm.display import check_picture, follower, wrapped
from charlm.files import free_name
from charlm.text.splits import Split

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.text.text import Part, Text

_Command = TypeVar("_Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value for programs.")
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of all chance."
)

device_option = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
split_part_option = click.option(
    "--split-part",
    type=click.Choice(["test", "valid", "train", "all"]),
    help="Which part of the model's own text.  [default: test, else valid; all of a foreign text]",
)
bits_option = click.option(
    "--bits",
    type=click.Choice(["32", "16", "8"]),
    help="Round a network's weights to whole numbers of so many bits, with a scale for each row.  [default: 32]",
)


def _keep(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta["force"] = value


def force_option_saying(words: str) -> Callable[[_Command], _Command]:
    """--force with a help text of its own; `forced` says whether it was given."""
    return click.option("--force", is_flag=True, expose_value=False, callback=_keep, help=words)


force_option = force_option_saying("Replace files that are there already.")


def forced() -> bool:
    """Whether --force was given to the command that runs."""
    return bool(click.get_current_context().meta.get("force"))


def target(wanted: str | Path, what: str) -> Path:
    """Where a command writes a file: under the name that was asked for with --force, or where it is free.

    A taken name becomes NAME-2, and that is said.

    Args:
        wanted: the name.
        what: the file holds, for the note: "the picture".
    """
    wanted = Path(wanted)
    if forced() and wanted.is_file():
        return wanted
    path = free_name(wanted)
    if path != wanted:
        way_out = ", --force replaces it" if "force" in click.get_current_context().meta else ""
        note(f"{wanted} is taken: {what} goes to {path}{way_out}")
    return path


class _PictureType(click.ParamType[Path]):
    name = "picture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        check_picture(Path(value))
        return Path(value)


def plot_option(words: str) -> Callable[[_Command], _Command]:
    """--plot with a help text of its own; a name that is not that of a picture is refused at once."""
    return click.option("--plot", type=_PictureType(), metavar="FILE", help=words)


class _SplitType(click.ParamType[Split]):
    name = "split"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Split:
        return value if isinstance(value, Split) else Split.parse(value)


def name_for(source: str) -> str:
    """What a run is called by default: its file's name without the ending, or what it was read from."""
    return "stdin" if source == "-" else Path(source).stem or "text"


split_option = click.option(
    "--split",
    type=_SplitType(),
    metavar="[KIND:]TRAIN/VALID/TEST",
    help="Per cent, as 90/5/5; before it tail:, interleaved:LANES:, lines[:SEED]: or paragraphs[:SEED]:. "
    "Default: tail:90/5/5, and tail:80/10/10 under a million characters.",
)


def opened(model: Any, device: str, bits: str | None, precision: str | None = None) -> TextModel:
    """A language model on a device, with weights of so many bits and products of a precision where these are named."""
    import charlm

    found = charlm.load(model, device=device)
    found = found if bits is None else found.with_bits(int(bits))  # type: ignore[arg-type]
    return found if precision is None else found.with_precision(precision)


def _together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, which `--help` shows in this order."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_AS_MODEL = "  [default: as the model's own text]"
_ITEMS = "line|column:NAME"
_ITEMS_HELP = "Take each line, or each cell of a table's column, as an item by itself."
_weights_option = click.option(
    "--weights", metavar="COLUMN", help="Column of the table that says how often each item counts."
)

reading_options = _together(
    click.option("--encoding", default="utf-8", show_default=True, help="How the text's bytes spell characters."),
    click.option(
        "--newlines",
        type=click.Choice(["keep", "normalise"]),
        default="keep",
        show_default=True,
        help="Keep Windows line ends as they are, or make them line feeds.",
    ),
    click.option("--bytes", is_flag=True, help="Take the file as raw bytes, whatever is in it."),
    click.option(
        "--vocab-size", type=int, metavar="N", help="Keep the N most frequent characters, spell the others in bytes."
    ),
    click.option("--items", metavar=_ITEMS, help=_ITEMS_HELP),
    _weights_option,
)
"""--encoding, --newlines, --bytes, --vocab-size, --items and --weights, named as by `charlm.read_text`."""

other_reading_options = _together(
    click.option("--encoding", help=f"How the text's bytes spell characters.{_AS_MODEL}"),
    click.option(
        "--newlines",
        type=click.Choice(["keep", "normalise"]),
        help=f"Keep Windows line ends or make them line feeds.{_AS_MODEL}",
    ),
    click.option("--bytes", is_flag=True, default=None, help="Take the file as raw bytes."),
    click.option("--items", metavar=_ITEMS, help=_ITEMS_HELP + _AS_MODEL),
    _weights_option,
)
"""The same but --vocab-size, of a command that reads a text as the model's own text was read."""

table_options = _together(
    click.option("--sequence-column", metavar="NAME", help="Column of the sequences.  [default: guessed]"),
    click.option(
        "--label-column",
        metavar="NAME",
        help="Column of the labels; for a .npy table a .npy file of them.  [default: guessed]",
    ),
    click.option("--encoding", metavar="E", help="How the table's bytes spell characters.  [default: utf-8]"),
    click.option("--no-header", is_flag=True, help="The first row is data: columns are column1, column2, ..."),
)


def note(message: str) -> None:
    """One line for a person, on stderr, so that stdout holds data alone; of several processes the first one says it."""
    if not follower():
        click.echo(wrapped(message), err=True)


def note_list(text: Text) -> None:
    """Says where a text looks like a list of independent lines and is neither read nor split as one."""
    from charlm.text.profile import looks_like_list

    by_line = text.corpus.items is not None or (text.split is not None and text.split.kind == "lines")
    if not by_line and (sentence := looks_like_list(text.corpus)) is not None:
        note(sentence)


def echo_json(value: Any) -> None:
    """Strict JSON on stdout: no NaN, no Infinity."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def echo_json_lines(values: Iterable[Any]) -> None:
    """JSON Lines on stdout, strict too: one value a line."""
    echo_lines(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)


def show(found: Any, as_json: bool) -> None:
    """What a call returned: its JSON value for programs, or its `repr` for a person."""
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(repr(found))


def echo_lines(lines: Iterable[str]) -> None:
    """Prints in blocks, as there may be a million lines."""
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) == 4096:
            click.echo("".join(block), nl=False)
            block = []
    click.echo("".join(block), nl=False)


adaptive_option = click.option(
    "--adaptive",
    type=click.Choice(["fast", "best"]),
    help="Read with contexts that learn from what is read: fast, or best with gradient steps and twice the contexts.",
)


def held_out(
    model: TextModel,
    texts: Sequence[str | Path],
    part: str | None,
    **reading: Any,
) -> Part:
    """The part of a text that a model is measured on: of its own text test, else valid; of another one all.

    Args:
        model: the model.
        texts: files; they are read as the model's own text was.
        part: train, valid, test or all, where the user named one.
        reading: options of `read_text`, where the text is to be read otherwise than the model's own.
    """
    from charlm.lm.surprise import part_for
    from charlm.text.text import read_text

    return part_for(model, read_text(list(texts), like=model, **reading), part)


def where(part: Part) -> dict[str, Any]:
    """The facts that stand beside a figure in JSON."""
    split = None if part.text.split is None else str(part.text.split)
    return {"split": split, "part": part.name, "text_sha256": part.text.corpus.sha256}
