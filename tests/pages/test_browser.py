"""The pages in a real browser: they ask for nothing, answer clicks and keys, and hostile texts stay text."""

import random
import sys
from pathlib import Path

import pytest
import torch
from browser import AXE, CONTRAST, Browser, axe_source

from charlm.checkpoint import TextFacts
from charlm.cli import main
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from tests.helpers import keep

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KINDS = ("score", "difference", "inspect", "report")
MAPS = {"score": "surprise", "difference": "surprise", "inspect": "units", "report": "surprise"}
"""The id of the text map in each page."""

LEFT, UP, RIGHT, DOWN, HOME = "\ue012", "\ue013", "\ue014", "\ue015", "\ue011"  # as WebDriver names keys
SIGNS = "".join(map(chr, [*range(32), 0x7F, 0x85, 0xA0, 0xAD, 0x2028, 0x2029, 0xFEFF, 0xFFFF]))
HOSTILE = {
    "markup": "</script><script>alert(1)</script><img src=x onerror=alert(1)> <!-- ]]> &amp; {{ 7*7 }} ${1} `\\'\"\n",
    "controls": f"{SIGNS} \x1b[31mred\r\n",
    "right-to-left": "\u0645\u0631\u062d\u0628\u0627 abc \u202etxt.exe\u202c \u05e9\u05dc\u05d5 (1) \u2067x\u2069\n",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea e\u0301 \U0001f44d\U0001f3fd\n",
    "a line of a megabyte": "".join(random.Random(1).choices("<b> />very long&line", k=1_000_000)),
}


def charlm(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["charlm", *map(str, arguments)])
        main()
    assert end.value.code == 0


def network(directory: Path, text: str) -> None:
    """A network with random weights that knows all characters of a text."""
    corpus = corpus_of_text(text)
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=6))
    model.reset_parameters(torch.Generator().manual_seed(4))
    keep(directory, model, TextFacts.of(corpus, Split.parse("100/0/0")))


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of each kind, made by the commands."""
    folder = tmp_path_factory.mktemp("pages")
    text = folder / "drama.txt"
    text.write_text((ROOT / "data" / "shakespeare.txt").read_text()[:12_000])
    shape = ("--model", "lstm", "--layers", 2, "--hidden", 16, "--batch-size", 8, "--seq-length", 32)
    charlm("train", text, *shape, "--max-steps", 20, "--out", folder / "net")
    charlm("ngram", text, "--order", 3, "--smoothing", "witten-bell", "--out", folder / "counts")
    charlm("score", folder / "net", text, "--html", folder / "score.html")
    charlm("score", folder / "net", folder / "counts", text, "--html", folder / "difference.html")
    charlm("inspect", folder / "net", text, "--split-part", "all", "--html", folder / "inspect.html")
    charlm("report", folder / "net", "--out", folder / "report.html")
    return folder


def test_what_is_watched_for_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<body style="width: 700px"><img src="http://127.0.0.1:9/dot.png">'
        '<p style="color: #999">pale</p><script>console.error("oh")</script>'
    )
    browser.open(page, width=400)
    assert any("oh" in message for message in browser.complaints())
    assert "http://127.0.0.1:9/dot.png" in browser.requests()
    worst = browser.run(CONTRAST)
    assert worst["ratio"] == pytest.approx(2.85, abs=0.01)  # of #999999 on white
    assert browser.run("return document.documentElement.scrollWidth") > 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_for_nothing_and_answers_clicks_and_keys(browser: Browser, pages: Path, kind: str) -> None:
    page = pages / f"{kind}.html"
    assert page.stat().st_size < 3_000_000
    browser.open(page)
    root = f"#{MAPS[kind]}"
    rows = f"return [...document.querySelectorAll('{root} [data-panel] tbody tr')].map((row) => row.textContent)"
    assert browser.run(rows) == []
    browser.click(f"{root} [data-i='40']")
    first = browser.run(rows)
    assert len(first) >= 3
    assert all("%" in row for row in first)
    chosen = "return Number(document.activeElement.dataset.i)"
    assert browser.run(chosen) == 40
    for key, expected in ((RIGHT, 41), (RIGHT, 42), (LEFT, 41), (HOME, 0)):
        browser.press(key)
        assert browser.run(chosen) == expected
    browser.press(DOWN)
    down = browser.run(chosen)
    assert down > 1
    browser.press(UP)
    assert browser.run(chosen) < down
    assert browser.run(f"return document.querySelectorAll('{root} [aria-selected=true]').length") == 1
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def test_the_shown_distribution_is_the_one_in_the_data(browser: Browser, pages: Path) -> None:
    browser.open(pages / "inspect.html")
    browser.click("#units [data-i='100']")
    found = browser.run(
        "const d = charlm.data.inspect, k = d.top.length / d.ids.length;"
        "return [d.parts.slice(100 * k, 101 * k),"
        " [...document.querySelectorAll('#units [data-panel] .number')].slice(1).map((cell) => cell.textContent)]"
    )
    parts, shown = found
    assert len(parts) == len(shown) == 6
    for part, cell in zip(parts, shown, strict=True):
        assert float(cell.split()[0]) == pytest.approx(part / 1e4, abs=0.06)


def test_the_table_of_units_takes_most_of_the_window_before_it_scrolls(browser: Browser, pages: Path) -> None:
    browser.open(pages / "inspect.html")
    shown, whole, window = browser.run(
        "const box = document.querySelector('.short'); return [box.clientHeight, box.scrollHeight, innerHeight]"
    )
    assert window > 400
    assert shown >= min(whole, 0.65 * window) - 2


def test_a_click_on_a_unit_repaints(browser: Browser, pages: Path) -> None:
    browser.open(pages / "inspect.html")
    painted = "return [...document.querySelectorAll('#units [data-i]')].map((span) => span.className).join(' ')"
    wanted = (
        "const d = charlm.data.inspect, n = d.ids.length, bytes = atob(d.values), row = d.units.indexOf(arguments[0]);"
        "return d.ids.map((_, i) => bytes.charCodeAt(row * n + i)).map((b) => (b > 127 ? b - 256 : b))"
    )
    before = browser.run(painted)
    names = browser.run("return [...document.querySelectorAll('[data-unit]')].map((button) => button.dataset.unit)")
    other = next(name for name in names if name != names[0])
    browser.click(f"[data-unit='{other}']")
    after = browser.run(painted).split()
    assert " ".join(after) != before
    for value, style in zip(browser.run(wanted, other), after, strict=False):
        level = sum(abs(value) / 127 >= bound for bound in (0.1, 0.25, 0.5, 0.8))
        assert style == (f"{'p' if value > 0 else 'n'}{level}" if level else "s0")
    pressed = browser.run(
        "return [...document.querySelectorAll('[data-unit][aria-pressed=true]')].map((b) => b.dataset.unit)"
    )
    assert set(pressed) == {other}
    browser.click("#after")
    assert browser.run(painted) != " ".join(after)
    assert browser.complaints() == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_read_in_the_dark_and_in_400_pixels(browser: Browser, pages: Path, kind: str) -> None:
    page = pages / f"{kind}.html"
    for dark, width in ((False, 1100), (True, 400)):
        browser.open(page, width=width, dark=dark)
        browser.click(f"#{MAPS[kind]} [data-i='40']")
        worst = browser.run(CONTRAST)
        assert worst["ratio"] >= 4.5, worst
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 200) == dark
        wide = browser.run("const e = document.documentElement; return [e.scrollWidth, e.clientWidth, innerWidth]")
        assert wide[0] <= wide[1] <= wide[2] == width


@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_of_accessibility_finds_nothing(browser: Browser, pages: Path, kind: str) -> None:
    browser.open(pages / f"{kind}.html")
    browser.click(f"#{MAPS[kind]} [data-i='40']")
    browser.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe_source()})
    assert browser.driver.execute_async_script(AXE) == []


@pytest.mark.parametrize("kind", ["score", "inspect"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_text(browser: Browser, tmp_path: Path, name: str, kind: str) -> None:
    content = HOSTILE[name] * (20 if len(HOSTILE[name]) < 1000 else 1)
    text = tmp_path / "<img src=x onerror=alert(2)>.txt"
    text.write_bytes(content.encode())
    page = tmp_path / "page.html"
    if kind == "inspect":
        network(tmp_path / "model", content)
    else:
        charlm("ngram", text, "--order", 1, "--split", "100/0/0", "--out", tmp_path / "model")
    charlm(kind, tmp_path / "model", text, "--html", page, "--split-part", "train")
    assert page.stat().st_size < 5_000_000
    browser.open(page)
    shown = browser.run(
        "const d = charlm.data.inspect || charlm.data.surprise;"
        "const spans = [...document.querySelectorAll('[data-text] [data-i]')];"
        "const wrong = spans.filter((span) => {"
        "  const symbol = d.symbols[d.ids[Number(span.dataset.i)]];"
        "  return span.textContent !== charlm.shown(symbol).text || span.querySelector(':not(.sign)'); });"
        "return [d.ids.map((id) => d.symbols[id]).join(''), spans.length, wrong.length,"
        " document.querySelectorAll('img, b, main script').length]"
    )
    assert shown[0] in content
    assert len(shown[0]) >= min(len(content), 4000)
    assert shown[1] >= min(len(content), 3000)
    assert shown[2:] == [0, 0]
    browser.click("[data-text] [data-i]")
    wide = browser.run("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
    assert wide
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
