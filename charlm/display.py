"""What a person sees: progress bars, matplotlib figures, and text painted by numbers, in a terminal or as HTML.

A bar is shown on a terminal or in a notebook, by one process alone, and only for work that takes long. A figure is a
file, or a value that a notebook shows, never a window, and made without `pyplot`. In painted text, characters that
cannot be seen are made visible.
"""

from __future__ import annotations

import contextlib
import html as markup
import importlib
import io
import math
import os
import shutil
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import OptionError
from charlm.files import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def several() -> bool:
    """Whether torchrun started several processes, of which this is one."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follower() -> bool:
    """Whether this is one of several processes, but not the first: only the first one prints."""
    return several() and os.environ.get("RANK", "0") != "0"


def in_notebook() -> bool:
    """Whether this Python serves a Jupyter notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def watched() -> bool:
    """Whether a person sees a progress bar of this process: stderr is a terminal, or a notebook shows it."""
    return not follower() and (in_notebook() or sys.stderr.isatty())


def wrapped(message: str, width: int | None = None) -> str:
    """A message for stderr: on a terminal its lines are broken between words, elsewhere it stays as it is.

    Args:
        message: lines of text; the blanks that begin a line also begin its further lines.
        width: columns; None takes those of the terminal.

    >>> print(wrapped("    a sample of text", 14))
        a sample
        of text
    """
    if width is None:
        if not sys.stderr.isatty():
            return message
        width = shutil.get_terminal_size().columns
    lines = []
    for line in message.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))] if len(line) > width else ""
        lines += textwrap.wrap(
            line, max(width, 20), subsequent_indent=indent, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return "\n".join(lines)


def decimals(value: float, digits: int) -> str:
    """A loss for a person, without a minus before zero; that of a training that diverged is short, too.

    >>> decimals(2.5, 4), decimals(-0.0, 2), decimals(33142844948480.0, 4)
    ('2.5000', '0.00', '3.31e+13')
    """
    return f"{round(value, digits) + 0.0:.{digits}f}" if value < 1e6 else f"{value:.3g}"


def progress_bar(total: int | None, label: str, unit: str = "it", *, show: bool | None = None, **options: Any) -> Any:
    """A tqdm bar on stderr, for a terminal or a notebook; it appears after two seconds of work.

    Args:
        total: how much there is to do; None where that is not known.
        label: what is being done, before the bar.
        unit: of `total`.
        show: True or False to show it or not; None shows it where a person sees it (`watched`).
        options: further arguments of `tqdm`.

    >>> with progress_bar(3, "counting", show=False) as bar:
    ...     bar.update(3)
    """
    tqdm: Any = importlib.import_module("tqdm.auto" if in_notebook() else "tqdm").tqdm
    shown = watched() if show is None else show
    settings: dict[str, Any] = {} if in_notebook() else {"file": sys.stderr}
    settings |= {"delay": 2, "leave": False, **options}
    return tqdm(total=total, desc=label, unit=unit, disable=not shown, **settings)


@contextlib.contextmanager
def bytes_bar(
    label: str, total: int | None = None, *, show: bool | None = None
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for reading or downloading: gives a function that is told the bytes so far and the bytes in all."""
    with progress_bar(total, label, "B", show=show, unit_scale=True) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int | None = None) -> str:
    """A table for a notebook.

    Args:
        head: of each column.
        rows: plain text, which is escaped.
        left: how many columns, counted from the first, are aligned to the left; None for all.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        styles = [' style="text-align:left"' if left is None or at < left else "" for at in range(len(cells))]
        found = (f"<{tag}{style}>{markup.escape(cell)}</{tag}>" for style, cell in zip(styles, cells, strict=True))
        return f"<tr>{''.join(found)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"


# -- figures -----------------------------------------------------------------------------------------------------------

_FORMATS = ("png", "svg", "pdf")


def check_picture(picture: Path) -> str:
    """The format that a picture's name asks for; another ending is refused before any work is done.

    >>> check_picture(Path("curve.SVG"))
    'svg'
    """
    ending = picture.suffix.lower().removeprefix(".")
    if ending not in _FORMATS:
        raise OptionError(f"a picture's name ends in .{', .'.join(_FORMATS)}, which {picture.name!r} does not")
    return ending


def new_figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure whose parts arrange themselves, which a notebook shows; the sizes are in inches.

    Drawing functions begin with this call, as it is also the safe way to import matplotlib: with an unknown name in
    `MPLBACKEND`, a plain `import matplotlib` raises a ValueError.

    >>> new_figure(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    return _figure_type()(figsize=(width, height), layout="constrained")


@cache
def _figure_type() -> type[Figure]:
    """A `Figure` that a notebook shows as a picture, also where nobody has imported `pyplot`."""
    asked = os.environ.pop("MPLBACKEND", None)  # that backend need not be installed; it is read once, by this import
    try:
        from matplotlib.figure import Figure
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=90)
            return picture.getvalue()

    return ShownFigure


def label_point(axes: Any, text: str, x: float, y: float) -> None:
    """Writes a label beside a point of matplotlib axes, on the side where it stays inside their frame.

    Call it after everything else is drawn, as the limits of the axes must not change afterwards.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
    axes.annotate(
        text,
        (x, y),
        xytext=(0, -9 if up > 0.8 else 9),
        textcoords="offset points",
        ha="left" if across < 0.2 else "right" if across > 0.8 else "center",
        va="top" if up > 0.8 else "bottom",
    )


def save_figure(figure: Any, picture: Path) -> None:
    """Writes a matplotlib figure, whole or not at all; a character that the font lacks becomes a box."""
    ending = check_picture(picture)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        write_with(picture, lambda file: figure.savefig(file, format=ending, dpi=150))


def drawn(what: str, act: Callable[[], object], say: Callable[[str], object]) -> None:
    """Draws a picture by calling `act`; where it cannot be written, says so, so that figures are shown all the same."""
    try:
        act()
    except OSError as error:
        say(f"no picture of {what}: {error}")


# -- painted text ------------------------------------------------------------------------------------------------------

_JOINERS = "\u200c\u200d"  # harmless inside a word or an emoji, and needed there
_PICTURES = {"\n": "⏎", "\t": "⇥"}
_CONTROLS = dict(enumerate("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE".split()))  # noqa: SIM905
_CONTROLS |= dict(enumerate("DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(), 0x11))  # noqa: SIM905
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    """The text with a visible sign for every control character, and for every mark that would turn its direction.

    >>> visible("a\\tb\\x1b[31m\\u202etxt\\n")
    'a⇥b‹ESC›[31m‹U+202E›txt⏎'
    """
    return "".join([_sign(character) for character in text]) if not text.isascii() or not text.isprintable() else text


def _sign(character: str) -> str:
    if character in _PICTURES:
        return _PICTURES[character]
    if ord(character) in _CONTROLS:
        return f"‹{_CONTROLS[ord(character)]}›"
    if unicodedata.category(character) in _UNSEEN and character not in _JOINERS:
        return f"‹U+{ord(character):04X}›"
    return character


_BOUNDS = (1, 2, 3, 4, 6, 8, 11)
_STEPS = (0.25, 0.5, 2, 4)

# background and ink; every pair has a contrast of at least 4.5
_STYLES = {
    "s1": (230, 16), "s2": (222, 16), "s3": (215, 16), "s4": (208, 16), "s5": (202, 16), "s6": (124, 231),
    "s7": (52, 231),
    "p1": (189, 16), "p2": (153, 16), "p3": (75, 16), "p4": (25, 231),
    "n1": (230, 16), "n2": (223, 16), "n3": (215, 16), "n4": (130, 231),
}  # fmt: skip
_STARTS = {"u": "\x1b[4;7m", **{style: f"\x1b[48;5;{back};38;5;{ink}m" for style, (back, ink) in _STYLES.items()}}

LEVELS = (
    ("s0", "under 1 bit"), ("s1", "1-2"), ("s2", "2-3"), ("s3", "3-4"), ("s4", "4-6"), ("s5", "6-8"), ("s6", "8-11"),
    ("s7", "11 and more, or impossible"), ("u", "unknown"),
)  # fmt: skip
DIFFERENCES = (
    ("p4", "first better by 4 bits and more"), ("p3", "2-4"), ("p2", "0.5-2"), ("p1", "0.25-0.5"), ("s0", "alike"),
    ("n1", "0.25-0.5"), ("n2", "0.5-2"), ("n3", "2-4"), ("n4", "second better by 4 bits and more"),
)  # fmt: skip


def may_paint(wanted: str) -> bool:
    """Whether stdout gets colour: `always`, `never`, or `auto`: a terminal that does not say NO_COLOR."""
    if wanted == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted == "always"


def surprise_level(bits: float) -> str:
    """The style of a character of so many bits; NaN is a character unknown to the model.

    >>> surprise_level(0.4), surprise_level(1.0), surprise_level(float("inf"))
    ('s0', 's1', 's7')
    """
    return "u" if math.isnan(bits) else f"s{sum(bits >= bound for bound in _BOUNDS)}"


def difference_level(bits: float) -> str:
    """The style of a difference of so many bits; above 0 the first model knows more.

    >>> difference_level(0.1), difference_level(-3.0), difference_level(5.0)
    ('s0', 'n3', 'p4')
    """
    size = 0 if math.isnan(bits) else sum(abs(bits) >= step for step in _STEPS)
    return f"{'p' if bits > 0 else 'n'}{size}" if size else "s0"


def paint(pieces: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Painted text, line by line: pieces are (text, style); control characters become visible signs.

    >>> list(paint([("a", "s0"), ("b", "s2"), ("c", "s2"), ("\\n", "s0"), ("d", "s7")]))
    ['a\\x1b[48;5;222;38;5;16mbc\\x1b[0m\\n', '\\x1b[48;5;52;38;5;231md\\x1b[0m']
    """
    line: list[str] = []
    before = "s0"
    for text, style in pieces:
        ends = text == "\n"
        mark = ("⏎" if style != "s0" else "") if ends else visible(text)
        if style != before and mark:
            line.append(("" if before == "s0" else "\x1b[0m") + _STARTS.get(style, ""))
            before = style
        line.append(mark)
        if ends:
            yield "".join(line) + ("" if before == "s0" else "\x1b[0m") + "\n"
            line, before = [], "s0"
    if line:
        yield "".join(line) + ("" if before == "s0" else "\x1b[0m")


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """One painted line that says what the colours mean."""
    return "  ".join("".join(paint([(f" {words} ", style)])) for style, words in entries)


_COLOURS = {
    "s1": "#ffffd7", "s2": "#ffd787", "s3": "#ffaf5f", "s4": "#ff8700", "s5": "#ff5f00", "s6": "#af0000",
    "s7": "#5f0000",
}  # fmt: skip
"""The background colours of `_STYLES` for a page."""


def html(pieces: Iterable[tuple[str, str, str]]) -> str:
    """Painted text as HTML, for a notebook.

    Args:
        pieces: (text, style, what to say where the pointer rests on it).

    >>> html([("<", "s0", "0.1 bits"), ("b", "s7", "12 bits")])
    '<span title="0.1 bits">&lt;</span><span title="12 bits" style="background:#5f0000;color:#fff">b</span>'
    """
    spans = []
    for text, style, said in pieces:
        ink = "#fff" if style in ("s6", "s7") else "#000"
        colour = f' style="background:{_COLOURS[style]};color:{ink}"' if style in _COLOURS else ""
        colour = ' style="text-decoration:underline wavy"' if style == "u" else colour
        mark = "\n" if text == "\n" and style == "s0" else "⏎\n" if text == "\n" else visible(text)
        spans.append(f'<span title="{markup.escape(said)}"{colour}>{markup.escape(mark)}</span>')
    return "".join(spans)
