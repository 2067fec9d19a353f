"""The documentation site, made from Markdown and docstrings: `sphinx-build -W -b html docs docs/_build`."""

from __future__ import annotations

import re
from typing import Any

from charlm.files import __version__

project = "charlm"
author = "the charlm contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links from included files to files that are no pages

html_theme = "furo"
html_title = f"charlm {release}"
html_copy_source = html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
pygments_style, pygments_dark_style = "friendly", "monokai"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_use_rtype = False

_SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:", "Note:", "Example:", "Examples:")


def _escaped(line: str) -> str:
    """Code between backticks becomes a literal; characters that mean something to reStructuredText are escaped."""
    pieces = re.split(r"(`[^`]+`)", line)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = f"``{piece[1:-1]}``"
        else:
            pieces[index] = re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", piece)
    return "".join(pieces)


def _is_doctest(line: str) -> bool:
    return line.lstrip().startswith((">>>", "... "))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def plain_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turns docstrings, which are plain text with backticks, into reStructuredText, before napoleon reads them.

    An indented block after a blank line is a formula and is kept as it is laid out; doctests are left alone.
    """
    made: list[str] = []
    previous, literal, doctest = "", -1, False
    for line in lines:
        if not line.strip():
            doctest = False
            made.append(line)
            continue
        if literal >= 0 and _indent(line) <= literal:
            literal = -1
        doctest = doctest or _is_doctest(line)
        opens = bool(made) and not made[-1].strip() and _indent(line) > _indent(previous) and not doctest
        if literal < 0 and opens and previous.strip() not in _SECTIONS:
            literal = _indent(previous)
            made += [" " * literal + "::", ""]
        made.append(line if doctest or literal >= 0 else _escaped(line))
        previous = line
    lines[:] = made


def setup(app: Any) -> None:
    """Registers the hook for docstrings, ahead of napoleon's."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
