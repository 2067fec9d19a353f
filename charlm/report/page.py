"""Self-contained HTML pages: templates, style and scripts are files of their own and stand inside the finished page.

A page works from the disk without a network: a Content-Security-Policy forbids every connection, and allows no style
and no script but those whose hashes it names, so that a text that holds markup stays text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.files import free_name, write_bytes
from charlm.lm.painting import visible
from charlm.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render", "write_page"]

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, title: str, data: Any = None, scripts: Sequence[str] = (), **values: Any) -> str:
    """The HTML of a page.

    Args:
        template: a file in `templates/` that extends `base.html`.
        title: of the page; plain text, like every other value: it is escaped where it is put in.
        data: strict JSON for the scripts, where they find it as `charlm.data`.
        scripts: files in `templates/` that run after `page.js`, in this order.
        values: what the template names besides; a name that is missing is an error.
    """
    style = _asset("page.css")
    sources = [_asset(name) for name in ("page.js", *scripts)]
    page = _environment().get_template(template)
    return page.render(
        title=title,
        data={} if data is None else data,
        style=style,
        sources=sources,
        policy=_policy(style, sources),
        version=__version__,
        **values,
    )


def write_page(wanted: Path, html: str) -> Path:
    """Writes a page whole or not at all under a name that is free, and returns the name."""
    path = free_name(wanted)
    write_bytes(path, html.encode("utf-8", "replace"))
    return path


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_bytes().decode("utf-8").replace("\r\n", "\n")


def _policy(style: str, sources: Sequence[str]) -> str:
    """Nothing may be loaded or sent; this style and these scripts may run."""
    scripts = " ".join(map(_hash, sources))
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {scripts}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `tojson` writes <, >, & and ' as escapes, so that no text can end the element that holds it
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["visible"] = visible
    return environment
