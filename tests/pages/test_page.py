"""Pages: one file that asks for nothing, in which no text can become markup."""

import base64
import hashlib
import json
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from charlm import display
from charlm.display import visible
from charlm.pages import TEMPLATES, render, write_page
from charlm.text.vocab import Vocab

EVIL = "<script>alert(1)</script> </script></style><img src=x onerror=alert(1)> ' \" & \u202egpj.exe\x1b[31m"


class Elements(HTMLParser):
    """Every element with its attributes, and what scripts and styles hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append((tag, ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            tag, before = self.inside[-1]
            self.inside[-1] = (tag, before + data)
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(text: str = EVIL) -> str:
    tables = [
        {"heading": text, "words": text, "caption": text, "columns": [(text, False)], "rows": [(text,)], "places": [3]}
    ]
    return render(
        "score.html",
        title=text,
        data={"text": text},
        scripts=("textmap.js", "surprise.js"),
        facts=[(text, text)],
        notes=[text],
        models=[text, text],
        tables=tables,
    )


def test_text_stays_text_wherever_it_stands() -> None:
    elements, harmless = Elements(page()), Elements(page("harmless"))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in harmless.found]
    assert json.loads(elements.inside[1][1]) == {"text": EVIL}
    assert elements.text.count("<script>alert(1)</script>") > 5
    assert "\u202e" not in elements.text


def test_the_policy_allows_exactly_what_is_there() -> None:
    elements = Elements(page())
    (policy,) = [
        str(meta["content"]) for meta in elements.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]

    def hashes(wanted: str) -> list[str]:
        contents = [content for tag, content in elements.inside if tag == wanted]
        return [f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents]

    assert rules["style-src"] == hashes("style")
    data, *scripts = hashes("script")
    assert rules["script-src"] == scripts
    assert data not in scripts
    assert len(scripts) == 3
    assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on") or a == "style"]
    assert {attributes["href"] for attributes in elements.all("link")} == {"data:,"}
    assert not re.search(r"https?://|@import|url\(", page("harmless"))


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="facts"):
        render("score.html", title="x", models=["m"])


def test_visible_signs() -> None:
    assert visible("plain text, Grüße, שלום, 👩\u200d👧") == "plain text, Grüße, שלום, 👩\u200d👧"
    assert visible("\0\r\n\x7f\x9b\u200b\u2028\ufeff") == "‹NUL›‹CR›⏎‹U+007F›‹U+009B›‹U+200B›‹U+2028›‹U+FEFF›"
    assert Vocab.of_bytes().shown[0x0A] == "\n"
    assert Vocab.of_bytes().shown[0xC3] == "<C3>"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first = write_page(tmp_path / "a.html", "one")
    second = write_page(tmp_path / "a.html", "two")
    assert (first.read_text(), second.name, second.read_text()) == ("one", "a-2.html", "two")


def test_templates_are_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["charlm"]
    for path in TEMPLATES.iterdir():
        assert any(fnmatch(f"pages/templates/{path.name}", pattern) for pattern in patterns), path


def test_scripts_make_no_markup_of_text() -> None:
    for path in TEMPLATES.glob("*.js"):
        forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "XMLHttp")
        assert not [word for word in forbidden if word in path.read_text()], path


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_carries_readable_text() -> None:
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (TEMPLATES / "page.css").read_text())
    colours = {name: values for name, *values in pairs}
    grounds = [(name, f"{name}-ink") for name in colours if f"{name}-ink" in colours]
    assert len(grounds) == 16
    grounds += [("paper", "ink"), ("paper", "faint"), ("paper", "link"), ("field", "ink"), ("field", "faint")]
    for ground, ink in grounds:
        for mode in (0, 1):
            low, high = sorted((luminance(colours[ground][mode]), luminance(colours[ink][mode])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, mode, (high + 0.05) / (low + 0.05))


def test_pages_and_terminals_paint_alike() -> None:
    script = (TEMPLATES / "textmap.js").read_text()
    levels, differences = (
        [float(number) / 1000 for number in re.findall(r"\d+", found)]
        for found in re.search(r"levels = \[(.*?)\];\s*const differences = \[(.*?)\];", script).groups()  # type: ignore[union-attr]
    )
    assert [display.surprise_level(bound) for bound in levels] == [f"s{i}" for i in range(1, 8)]
    assert [display.surprise_level(bound - 0.001) for bound in levels] == [f"s{i}" for i in range(7)]
    assert [display.difference_level(bound) for bound in differences] == ["p2", "p3", "p4"]
    assert [display.difference_level(0.001 - bound) for bound in differences] == ["n1", "n2", "n3"]
    assert "if (size < 250)" in script
    assert (display.difference_level(0.25), display.difference_level(0.249)) == ("p1", "s0")
