"""The page of `charlm export` in a real browser: it computes what Python computes, and does what its controls say."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import AXE, CONTRAST, Browser, axe_source

import charlm
from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.lm.model import TextModel
from charlm.lm.sampling import Noise
from charlm.nn import look_back
from charlm.nn.kernels import compiled
from charlm.pages.export import Block, _describe
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import quantised
from tests.helpers import looping

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "charlm" / "pages" / "templates"
TEXT = charlm.Text.of((ROOT / "data" / "shakespeare.txt").read_text()[:40_000])
PROMPT = "QUILL:\nBefore we"
HOSTILE = {
    "markup": "</script><script>alert(1)</script><img src=x onerror=alert(1)> <!-- ]]> &amp; {{ 7*7 }}\n",
    "marks": "a" + "\u0301\u0323" * 5000 + " b\n",
    "right-to-left": "\u0645\u0631\u062d\u0628\u0627 abc \u202etxt.exe\u202c \u05e9\u05dc\u05d5 (1) \u2067x\u2069\n",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd\0\x1b[31m\r\n",
}


def network(cell: str, layers: int, text: charlm.Text = TEXT, **shape: Any) -> CharRNN:
    model = CharRNN(text.vocab, RNNConfig(model=cell, layers=layers, **{"hidden": 24, **shape}))
    model.reset_parameters(torch.Generator().manual_seed(4))
    if model.grams is not None:
        model.grams.weight.data[:-1].normal_(0, 0.5, generator=torch.Generator().manual_seed(5))
    if model.look_back is not None:
        draw = torch.Generator().manual_seed(6)
        for parameter in model.look_back.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return model


def counts(smoothing: Any, order: int = 4) -> TextModel:
    return charlm.ngram(TEXT, order=order, smoothing=smoothing)


def spelled() -> TextModel:
    """Counts of a text whose rare characters are spelled in bytes."""
    corpus = charlm.Text.of("abc äöü €uro\n" * 300, vocab=charlm.Vocab.of("abc \n").with_fallback(), split="100/0/0")
    return charlm.ngram(corpus, order=3, smoothing="witten-bell")


MODELS = {
    **{
        f"{cell}-{layers}": (lambda c=cell, n=layers: network(c, n))
        for cell in ("rnn", "gru", "lstm")
        for layers in (1, 3)
    },
    "embedding": lambda: network("gru", 2, embedding=24, tied=True, bias=False),
    "projection": lambda: network("lstm", 2, projection=10),
    "grams": lambda: network("gru", 1, grams=700),
    "looking back": lambda: network("gru", 2, look_back=150),
    "looking back a little": lambda: network("lstm", 1, look_back=6, grams=700, projection=10),
    "looking back on all": lambda: network("rnn", 1, look_back=3000, embedding=8),
    **{name: (lambda s=name: counts(s)) for name in ("none", "add-k", "uniform-mix", "witten-bell", "kneser-ney")},
    "order 0": lambda: counts("kneser-ney", order=0),
    "mixture": lambda: charlm.mix([network("gru", 1), counts("kneser-ney")]),
    "mixture looking back": lambda: charlm.mix([network("gru", 1, look_back=40), counts("kneser-ney")]),
    "bytes": spelled,
}


class Page:
    """A playground that is open in the browser."""

    def __init__(self, browser: Browser, models: Any, folder: Path, bits: Any = 32, **look: Any) -> None:
        self.browser, self.file = browser, charlm.export(models, html=folder / "page.html", bits=bits).html
        assert self.file is not None
        browser.open(self.file, **look)
        self.settle()

    def settle(self) -> None:
        self.browser.wait("return charlm.playground.running.size === 0 && charlm.playground.tracks[0].ids.length > 0")

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            self.browser.run(
                "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                "e.dispatchEvent(new Event('input'))",
                name.replace("_", "-"), str(value),
            )  # fmt: skip

    def press(self, button: str) -> None:
        self.browser.click(f"#{button}")
        self.settle()

    def text(self, track: int = 0) -> str:
        return str(self.browser.run("return charlm.playground.tracks[arguments[0]].text()", track))

    def bits(self, track: int = 0) -> list[int]:
        found: list[int] = self.browser.run("return charlm.playground.tracks[arguments[0]].bits", track)
        return found

    def row(self, place: int, track: int = 0) -> Any:
        """The probabilities before a place."""
        row = self.browser.driver.execute_async_script(
            "const done = arguments[2];"
            "charlm.playground.expect(arguments[0], arguments[1]).then((r) => done([...r.row].map(Math.exp)))",
            track, place,
        )  # fmt: skip
        return np.array(row, dtype=np.float64)

    def panel(self, track: int = 0) -> list[list[str]]:
        return self.browser.run(  # type: ignore[no-any-return]
            "return [...document.querySelectorAll(`#map-${arguments[0]} [data-panel] tbody tr`)]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))", track,
        )  # fmt: skip

    def sound(self) -> None:
        """Nothing went wrong, and nothing was asked for."""
        assert self.browser.complaints() == []
        assert [url for url in self.browser.requests() if not url.startswith("blob:")] == [self.file.as_uri()]


@pytest.mark.parametrize("name", MODELS)
def test_the_page_computes_and_draws_what_python_does(browser: Browser, tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    prompt = "abc äö" if name == "bytes" else PROMPT
    page = Page(browser, model, tmp_path)
    assert page.text() == model.sample(length=500)
    for seed, rule in ((7, {}), (2**40, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}), (1, {"temperature": 0})):
        page.set(beginning=prompt, seed=seed, **{"temperature": 1, "top_k": 0, "top_p": 1, **rule})
        page.press("generate")
        assert page.text() == prompt + model.sample(prompt, length=500, seed=seed, **rule)
    page.set(temperature=1, top_k=0, top_p=1, seed=3)
    page.press("generate")
    text = page.text()
    for place in (1, 3, 20, 64, 65, 300):
        ids = torch.tensor(model.vocab.encode(text).tolist())
        logp_TBV, _ = model.logprobs(ids[:place, None], model.initial_state(1))
        np.testing.assert_allclose(page.row(place), logp_TBV[-1, 0].detach().double().exp(), atol=1e-5)
    page.sound()


MADE = (
    "const [description, text, ...rest] = arguments;"
    "const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
    "const bytesOf = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')));"
    "return bytesOf.arrayBuffer().then((all) => {"
    "  const types = { f4: Float32Array, u1: Uint8Array };"
    "  const model = models.make(description, ({ type, at, count }) => new types[type](all, at, count));"
)
"""The beginning of a script after models.js: a model of a description and its numbers."""


def test_what_a_network_looked_back_on_can_be_left_and_come_back_to(browser: Browser) -> None:
    """In every order: what is read after one saved state changes none of the others."""
    model, block = network("gru", 1, look_back=300), Block()
    description = _describe(model, 32, block)
    browser.driver.get("about:blank")
    begin, one, other, end = (np.random.default_rng(n).integers(-1, 9, 90).tolist() for n in range(4))
    rows = browser.run(
        (TEMPLATES / "models.js").read_text() + MADE + "const [begin, one, other, end] = rest;"
        "  const read = (ids) => ids.map((id) => [...model.read(id)]).at(-1);"
        "  model.begin(); read(begin);"
        "  const early = model.save(); read(one);"
        "  const late = model.save(); model.restore(early);"
        "  const found = [read(other)]; model.restore(late); found.push(read(end));"
        "  model.restore(early); found.push(read(end)); model.restore(late); found.push(read(other));"
        "  return found; });",
        description, block.text(), begin, one, other, end,
    )  # fmt: skip
    for row, ids in zip(rows, (begin + other, begin + one + end, begin + end, begin + one + other), strict=True):
        logp_TBV, _ = model.logprobs(torch.tensor(ids).unsqueeze(1), model.initial_state(1))
        np.testing.assert_allclose(row, logp_TBV[-1, 0].detach(), atol=2e-5)


@pytest.mark.parametrize(("places", "least"), [(6, 0), (7, 10), (20, 20), (122, 80), (150, 80), (600, 200)])
def test_a_network_does_not_look_back_in_a_loop(
    browser: Browser, places: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a text with loops; it is read to its middle, left there, and come back to."""
    model, block = network("gru", 1, look_back=places), Block()
    description = _describe(model, 32, block)
    ids = looping(3, len(model.vocab))
    ids[[60, 61, 333]] = -1
    browser.driver.get("about:blank")
    rows = browser.run(
        (TEMPLATES / "models.js").read_text() + MADE + "const [ids, cut] = rest;"
        "  const read = (ids) => ids.map((id) => [...model.read(id)]);"
        "  model.begin(); const found = read(ids.slice(0, cut));"
        "  const saved = model.save(); read(ids.slice(0, 99)); model.restore(saved);"
        "  return [...found, ...read(ids.slice(cut))]; });",
        description, block.text(), ids.tolist(), 500,
    )  # fmt: skip
    expected = model.logprobs(ids[:, None], model.initial_state(1))[0].detach()[:, 0]
    np.testing.assert_allclose(rows, expected, atol=2e-5)
    monkeypatch.setattr(look_back, "repeating", lambda ids_BS, *_: torch.zeros_like(ids_BS, dtype=torch.bool))
    monkeypatch.setattr(compiled, "fits", lambda tensor: False)
    seen = model.logprobs(ids[:, None], model.initial_state(1))[0].detach()[:, 0]
    different = int(((seen - expected).abs().amax(1) > 1e-2).sum())
    assert different >= least, "the rule changed little"
    assert places > 6 or different == 0, "six places are too few for it"


@pytest.mark.parametrize("bits", [8, 16])
def test_small_numbers_are_those_that_the_loss_was_measured_with(browser: Browser, tmp_path: Path, bits: Any) -> None:
    model = network("lstm", 2, grams=300, gram_order=3, look_back=10)
    page = Page(browser, model, tmp_path, bits=bits)
    page.set(beginning=PROMPT)
    page.press("score")
    exact = model.next(PROMPT[:12]).probabilities
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            values, scale = quantised(parameter.flatten(0, -2), bits)
            parameter.data = (values * scale.unsqueeze(1)).view_as(parameter)
    found = page.row(12)
    np.testing.assert_allclose(found, model.next(PROMPT[:12]).probabilities, atol=1e-5)
    assert np.abs(found - exact).max() > (1e-5 if bits == 8 else 0)


@pytest.mark.parametrize("shape", [{}, {"look_back": 200}], ids=["recurrent", "looking back"])
def test_a_text_is_scored_as_charlm_score_does(browser: Browser, tmp_path: Path, shape: dict[str, int]) -> None:
    model = network("gru", 2, **shape)
    page = Page(browser, model, tmp_path)
    text = "The Duke\u20ac speaks:\n" * 60  # the euro sign is unknown
    page.set(beginning=text)
    page.press("score")
    assert page.text() == text
    bits = page.bits()
    assert bits[0] == -3
    assert [place for place, value in enumerate(bits) if value == -2] == [
        place for place, c in enumerate(text) if c == "\u20ac"
    ]
    for found, wanted in zip(bits[1:], model.score(text).bits_each.tolist(), strict=True):
        assert found == (-2 if math.isnan(wanted) else pytest.approx(1000 * wanted, abs=1))
    assert "unknown" in browser.run("return document.querySelector('[data-summary]').textContent")
    assert "\u20ac" in browser.run("return document.getElementById('status').textContent")


def test_pausing_and_stepping_change_no_character(browser: Browser, tmp_path: Path) -> None:
    model = network("gru", 2, hidden=400)  # so large that it can be paused in time
    page = Page(browser, model, tmp_path)
    page.set(beginning=PROMPT, length=1500, seed=5)
    browser.run(  # the page itself presses the button: on a loaded machine the driver may come too late
        "const summary = document.querySelector('#track-0 [data-summary]');"
        "const seen = new MutationObserver(() => { if (charlm.playground.tracks[0].ids.length > 50) {"
        " seen.disconnect(); document.getElementById('pause').click(); } });"
        "document.getElementById('generate').click();"
        "seen.observe(summary, { childList: true });"
    )
    page.settle()
    paused = page.text()
    assert len(PROMPT) < len(paused) < len(PROMPT) + 1500
    page.press("pause")  # goes on to the end
    assert page.text() == PROMPT + model.sample(PROMPT, length=1500, seed=5)
    page.press("step")
    assert page.text() == PROMPT + model.sample(PROMPT, length=1501, seed=5)
    page.sound()


@pytest.mark.parametrize("name", ["kneser-ney", "looking back"])
def test_another_way_is_taken_and_goes_on_with_the_same_noise(browser: Browser, tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    page = Page(browser, model, tmp_path)
    page.set(beginning=PROMPT, seed=9, length=200)
    page.press("generate")
    before = page.text()
    place = len(PROMPT) + 80
    browser.click(f"#map-0 [data-i='{place}']")
    browser.wait("return document.querySelectorAll('#map-0 [data-panel] tr.came').length === 1")
    other = next(k for k in range(10) if browser.run(
        "return !document.querySelectorAll('#map-0 [data-panel] tbody tr')[arguments[0]].classList.contains('came')", k
    ))  # fmt: skip
    browser.click(f"#map-0 [data-panel] tbody tr:nth-child({other + 1}) button")
    browser.wait("return charlm.playground.tracks[0].ids.length === arguments[0]", place + 1)
    taken = page.text()
    assert taken[:place] == before[:place]
    assert taken[place] != before[place]
    page.set(length=50)
    page.press("pause")
    ids = model.vocab.encode(taken).tolist()
    _, state = model.logprobs(torch.tensor(ids[:-1])[:, None], model.initial_state(1))
    noise = Noise(9, 1).take(81 + 119)[81:]
    drawn, _, _ = generate_by_steps(model, torch.tensor(ids[-1:]), state, len(noise), SamplingRule(), noise)
    grown = page.text()
    assert grown == (taken + model.vocab.decode(drawn[:, 0].numpy()))[: len(grown)]
    assert len(grown) > len(taken) + 40
    browser.click("#share")
    shared = browser.run("return document.getElementById('shared').value")
    assert "seed 9" in shared
    assert "1 chosen by hand" in shared
    assert grown in shared
    page.sound()


def test_the_bars_follow_the_sliders(browser: Browser, tmp_path: Path) -> None:
    model = network("lstm", 1)
    page = Page(browser, model, tmp_path)
    page.set(beginning=PROMPT)
    page.press("score")
    for rule in (SamplingRule(), SamplingRule(temperature=0.5), SamplingRule(temperature=1.5, top_k=7, top_p=0.6)):
        page.set(temperature=rule.temperature, top_k=rule.top_k, top_p=rule.top_p)
        ids = torch.tensor(model.vocab.encode(PROMPT).tolist())[:, None]
        logp, _ = model.logprobs(ids, model.initial_state(1))
        p = rule.probabilities(logp[-1])[0]
        order = (-logp[-1, 0]).argsort(stable=True)[:10].tolist()
        shown = page.panel()
        assert len(shown) == 10
        for (symbol, percent, _), id in zip(shown, order, strict=True):
            assert symbol in (model.vocab.characters[id], "space", "\u23ce")
            number = 0.0 if percent.startswith("<") else float(percent.split()[0])
            assert number == pytest.approx(100 * p[id].item(), abs=0.06)


def test_a_hidden_unit_paints_the_text(browser: Browser, tmp_path: Path) -> None:
    model = network("gru", 2)
    page = Page(browser, model, tmp_path)
    page.set(beginning=PROMPT)
    page.press("generate")
    text = page.text()
    browser.run(
        "const e = document.getElementById('unit-0'); e.value = '29'; e.dispatchEvent(new Event('change'))"
    )  # the sixth of the second layer
    styles = browser.wait(
        "const s = [...document.querySelectorAll('#map-0 [data-i]')].map((span) => span.className);"
        "return s.some((name) => /^[pn]/.test(name)) && s"
    )
    y, state = [], model.initial_state(1)
    for id in model.vocab.encode(text).tolist():
        _, state = model.logprobs(torch.tensor([[id]]), state)
        y.append(state["h1"][0, 5].item())
    for value, style in zip(y, styles, strict=True):
        share = round(127 * value) / 127
        level = sum(abs(share) >= bound for bound in (0.1, 0.25, 0.5, 0.8))
        near = any(abs(abs(value) - bound) < 0.004 for bound in (0.1, 0.25, 0.5, 0.8))
        assert near or style == (f"{'p' if share > 0 else 'n'}{level}" if level else "s0")


def test_two_models_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    models = [network("gru", 2), counts("witten-bell")]
    page = Page(browser, models, tmp_path, width=1280)
    page.set(beginning=PROMPT, seed=4)
    page.press("generate")
    for track, model in enumerate(models):
        assert page.text(track) == PROMPT + model.sample(PROMPT, length=500, seed=4)
    left, right = (
        browser.run(f"return document.getElementById('map-{n}').getBoundingClientRect().left") for n in (0, 1)
    )
    assert right > left + 300
    assert browser.run("return document.querySelectorAll('[data-units]').length") == 1
    page.sound()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_text(browser: Browser, tmp_path: Path, name: str) -> None:
    text = charlm.Text.of(HOSTILE[name] * (1 if name == "marks" else 30), split="100/0/0")
    model = charlm.ngram(text, order=2, smoothing="kneser-ney")
    model.save(tmp_path / "<img src=x onerror=alert(2)>")
    for width in (1280, 390):
        page = Page(browser, [model, network("gru", 1, text)], tmp_path, width=width)
        assert page.text() == model.sample(length=500)
        page.set(beginning=HOSTILE[name])
        page.press("score")
        assert page.text() == HOSTILE[name].replace("\r\n", "\n").replace("\r", "\n")
        browser.click("#map-0 [data-i]")
        browser.click("#share")
        found = browser.run(
            "const e = document.documentElement, spans = [...document.querySelectorAll('[data-text] [data-i]')];"
            "const bare = spans.filter((span) => /^\\p{M}$/u.test(span.textContent)).length;"
            "const box = document.querySelector('[data-text]').getBoundingClientRect();"
            "const own = spans.filter((span) => span.closest('#map-0'));"
            "const out = own.filter((span) => span.getBoundingClientRect().right > box.right + 1);"
            "const made = document.querySelectorAll('img, main script').length;"
            "return [e.scrollWidth <= e.clientWidth, made, bare, out.length]"
        )
        assert found[:2] == [True, 0]
        assert found[3] == 0
        assert found[2] <= (4 if name == "marks" else 0)  # at most two of them pile up on one letter
        page.sound()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_everybody_can_read_it(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page = Page(browser, [network("lstm", 2), counts("kneser-ney")], tmp_path, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.click("#map-0 [data-i='40']")
    browser.wait("return document.querySelectorAll('#map-0 [data-panel] tr.came').length")
    browser.click("#share")
    worst = browser.run(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    wide = browser.run("const e = document.documentElement; return [e.scrollWidth, e.clientWidth, innerWidth]")
    assert wide[0] <= wide[1] <= wide[2] == width
    small = (
        "const buttons = [...document.querySelectorAll('button')];"
        "return buttons.filter((button) => button.checkVisibility() && button.offsetHeight < 24).length"
    )
    assert browser.run(small) == 0
    browser.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe_source()})
    assert browser.driver.execute_async_script(AXE) == []
    page.sound()


def test_it_is_used_with_the_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    page = Page(browser, counts("kneser-ney"), tmp_path)
    browser.run("document.getElementById('beginning').focus()")
    browser.press("QUILL")
    browser.press("\ue009\ue007")  # Ctrl and Enter
    page.settle()
    assert page.text().startswith("QUILL")
    browser.run("document.querySelector('#map-0 [tabindex=\"0\"]').focus()")
    browser.press("\ue014", "\ue014")  # right
    assert browser.run("return Number(document.activeElement.dataset.i)") == 2
    browser.wait("return document.querySelector('#map-0 [data-panel] h3')?.textContent.startsWith('Instead')")
    browser.run("document.querySelector('#map-0 [data-panel] td button').focus()")
    browser.press("\ue007")
    browser.wait("return charlm.playground.tracks[0].ids.length === 3")
    assert browser.run("return document.activeElement.matches('[data-panel] td button')")
    page.sound()


def test_the_picture_of_the_readme(browser: Browser, tmp_path: Path) -> None:
    """Drawn anew into docs/ where CHARLM_PICTURE names a folder with the models `network` and `counts`."""
    named = os.environ.get("CHARLM_PICTURE")
    folder = Path(named) if named else None
    models = (
        [charlm.load(folder / name) for name in ("network", "counts")]
        if folder
        else [network("gru", 1), counts("none")]
    )
    page = Page(browser, models, tmp_path, width=1100)
    page.set(beginning="QUILL:\nWhat ", temperature=0.7, length=300, seed=2)
    page.press("generate")
    browser.click("#map-0 [data-i='60']")
    browser.click("#map-1 [data-i='60']")
    browser.wait("return document.querySelectorAll('tr.came').length === 2")
    browser.run("scrollTo(0, 0); document.activeElement.blur()")
    picture = browser.picture(1100, ".tracks")
    assert picture[:4] == b"\x89PNG"
    if folder:
        (ROOT / "docs" / "playground.png").write_bytes(picture)


@pytest.mark.parametrize(("width", "two"), [(1280, True), (390, True), (390, False), (1280, False)])
def test_no_panel_covers_a_text_that_scrolls_in_itself(browser: Browser, tmp_path: Path, width: int, two: bool) -> None:
    models = [counts("kneser-ney"), network("gru", 1)][: 1 + two]
    page = Page(browser, models, tmp_path, width=width)
    page.set(beginning=PROMPT, length=1500)
    page.press("generate")
    place = "const t = document.querySelector('#map-0 [data-text]'), c = t.querySelector('[aria-selected=true]');"
    inside = (
        "const r = (e) => e.getBoundingClientRect(); return r(c).top >= r(t).top - 1 && r(c).bottom <= r(t).bottom;"
    )
    at_end = place + "return t.scrollHeight > t.clientHeight && t.scrollTop + t.clientHeight > t.scrollHeight - 30"
    assert browser.run(at_end)
    apart = (
        "const voices = [...document.querySelectorAll('.voice')], out = [];"
        "for (let y = 0; y < document.body.scrollHeight; y += 150) {"
        "  scrollTo(0, y);"
        "  for (const voice of voices) {"
        "    const parts = ['[data-text]', '[data-panel]'].map((name) => voice.querySelector(name));"
        "    const [text, panel] = parts.map((part) => part.getBoundingClientRect());"
        "    if (text.height > innerHeight * 0.6 + 1) out.push(`${text.height} is high`);"
        "    if (panel.top < text.bottom && panel.left < text.right) out.push(`covered at ${y}`);"
        "  } }"
        "return out"
    )
    assert browser.run(apart) == []
    browser.click("#map-0 [data-i='1400']")
    for key in ("\ue013", "\ue011", "\ue010"):  # up, Home, End
        browser.press(key)
        assert browser.run(place + inside), key
    assert browser.run(apart) == []
    browser.press("\ue011")
    page.set(length=300)
    page.press("pause")  # a chosen character stays in sight while the text grows
    assert browser.run(place + inside)
    page.set(beginning="a" * 1500)
    page.press("score")
    assert browser.run(place + "return t.scrollTop") == 0
