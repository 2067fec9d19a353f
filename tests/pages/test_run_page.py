"""`charlm report`: its figures are those of the other commands, and no text becomes markup."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.checkpoint import TextFacts
from charlm.errors import OptionError
from charlm.lm.sampling import Expected
from charlm.ngrams.fit import ngram
from charlm.pages import Series, chart, ticks
from charlm.pages.report import report
from charlm.pages.run_page import about_curves, next_reliability
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import read_corpus
from charlm.text.splits import Split
from charlm.text.text import Text, read_text
from tests.conftest import Run
from tests.helpers import keep

TRAINING = {"lanes": 4, "window": 16, "backend": "torch", "device": "cpu", "optimisation": {"lr": 0.01, "seed": 7}}
ROWS = [
    {"step": 10, "epoch": 0.5, "train_nats": 3.25, "valid_nats": 3.125, "lr": 0.01, "skipped": 0, "seconds": 30.0},
    {"step": 20, "epoch": 1.0, "train_nats": 3.0, "valid_nats": 3.0625, "lr": 0.01, "skipped": 0, "seconds": 66.0},
]


def trained(text: Path, directory: Path) -> None:
    """A directory as training leaves it, with random weights."""
    corpus = read_corpus([text])
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=10))
    model.reset_parameters(torch.Generator().manual_seed(2))
    keep(directory, model, TextFacts.of(corpus, Split.default(len(corpus))), training=TRAINING)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


class Page(HTMLParser):
    """What a page shows as text, and which elements it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text, self.data = "", ""
        self.feed(path.read_text())
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data
        elif data.startswith('{"'):
            self.data += data


def test_the_figures_are_those_of_the_other_commands(charlm: Run, verse: Path) -> None:
    trained(verse, Path("run"))
    code, out, err = charlm("report", "run")
    assert (code, out) == (0, "run/report.html\n"), err
    page = Page(Path("run/report.html"))
    figures = json.loads(charlm("eval", "run", verse, "--json")[1])
    assert f"{figures['nats']:.4f}" in page.text
    assert f"{figures['targets']:,} targets" in page.text
    table = json.loads(charlm("compare", verse, "run", "--orders", "0-8", "--json")[1])
    for line in table["models"]:
        assert line["nats"] is None or f"{line['nats']:.4f}" in page.text
        assert f"{100 * line['coverage']:.2f}" in page.text
    for row in ROWS:
        assert f"{row['valid_nats']:.4f}" in page.text
    data = json.loads(page.data)["surprise"]
    items = [json.loads(row) for row in charlm("score", "run", verse, "--json")[1].splitlines()]
    assert data["bits"][0] == [-3, *(pytest.approx(1000 * item["bits"], abs=0.51) for item in items)]
    assert page.tags.count("h3") == 3
    sample = charlm("sample", "run", "--temperature", "0.8", "--length", "700")[1]
    assert " ".join(sample.split())[:200] in page.text
    for words in (
        "hidden 10",
        "trained on cpu",
        "1.1 minutes for 20 steps",
        "lr 0.01, seed 7",
        "Temperature 1",
        "split tail:80/10/10",
    ):
        assert words in page.text, words
    assert Path("run/report.html").stat().st_size < 3_000_000
    assert charlm("report", "run")[1] == "run/report-2.html\n"


@pytest.mark.slow
def test_a_hostile_corpus_stays_text(charlm: Run, tmp_path: Path) -> None:
    evil = '<script>alert(1)</script> </script> <img src=x onerror="alert(1)"> {{ 7 * 7 }} \u202eabc\x1b[31m שלום 😀\n'
    mild = evil.translate({ord(sign): "." for sign in "<>{}&\"'"})
    found = []
    for name, text in (("evil", evil), ("mild", mild)):
        folder = tmp_path / f"{name}<b>"
        folder.mkdir()
        path = folder / f"{name}.txt"
        path.write_text(text * 60)
        assert charlm("ngram", path, "--order", 3, "--smoothing", "kneser-ney", "--out", f"{name}-kn")[0] == 0
        assert charlm("report", f"{name}-kn", "--out", f"{name}.html")[0] == 0
        found.append(Page(Path(f"{name}.html")))
    assert found[0].tags.count("script") == found[1].tags.count("script") == 4
    assert {"img", "b"}.isdisjoint(found[0].tags)
    assert not [name for name, _ in found[0].attributes if name.startswith("on") or name == "style"]
    assert "49" not in {text.strip() for text in re.findall(r">([^<>]*)<", Path("evil.html").read_text())}
    symbols = json.loads(found[0].data)["surprise"]
    assert evil in "".join(symbols["symbols"][id] for id in symbols["ids"])
    assert "\u202e" not in found[0].text
    assert "\x1b" not in found[0].text


def test_the_text_is_found_or_asked_for(charlm: Run, verse: Path, tmp_path: Path) -> None:
    charlm("ngram", verse, "--order", 1, "--split", "90/10/0", "--out", "kn")
    moved = verse.rename(tmp_path / "moved.txt")
    code, _, err = charlm("report", "kn")
    assert (code, "--text FILE" in err, "verse.txt" in err) == (2, True, True)
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 30)
    code, _, err = charlm("report", "kn", "--text", other)
    assert (code, "is not the text" in err) == (2, True)
    code, out, err = charlm("report", "kn", "--text", moved)
    assert (code, out) == (0, "kn/report.html\n"), err
    page = Page(Path("kn/report.html"))
    assert "infinitely many nats" in page.text
    assert "no test part" in page.text
    assert "Learning" not in page.text


@pytest.mark.slow
def test_a_model_of_all_of_its_text(charlm: Run, verse: Path) -> None:
    charlm("ngram", verse, "--order", 2, "--split", "100/0/0", "--out", "all")
    assert charlm("report", "all")[0] == 0
    page = Page(Path("all/report.html"))
    assert "nothing is held out" in page.text
    assert page.tags.count("h3") == 3
    assert "Calibration" not in page.text


def test_the_page_of_a_sequence_model_has_its_figures(charlm: Run, tmp_path: Path) -> None:
    rows = "".join(f"{'ab' * (n % 5 + 1)},{'long' if n % 5 > 2 else 'short'}\n" for n in range(60))
    (tmp_path / "table.csv").write_text("text,label\n" + rows)
    options = ("--max-steps", 4, "--hidden", 3, "--backend", "torch", "--out", "fit")
    assert charlm("fit", "table.csv", "--mode", "distribution", *options)[0] == 0
    assert charlm("report", "fit")[1] == "fit/report.html\n"
    page = Page(Path("fit/report.html"))
    result = json.loads(Path("fit/config.json").read_text())["result"]
    for name in ("accuracy", "log_loss", "brier"):
        assert f"{name.replace('_', ' ')} {result[name]:.4f}" in page.text
    for point in result["reliability"]:
        assert f"{point['said']:.4f}" in page.text
    last = json.loads(Path("fit/metrics.jsonl").read_text().splitlines()[-1])
    assert f"{last['valid_nats']:.4f}" in page.text
    assert "hidden 3" in page.text
    assert "Beside counting" not in page.text


def test_a_model_in_memory_has_a_page(verse: Path, tmp_path: Path) -> None:
    text = read_text(verse)
    model = ngram(text, order=2, smoothing="kneser-ney")
    page = report(model, text)
    assert f"{model.evaluate(text.test).nats:.4f}" in page.summary[0]
    assert page.summary[0] in repr(page)
    saved = page.save(tmp_path / "page.html")
    assert "Learning" not in Page(saved).text
    with pytest.raises(OptionError, match="is not the text"):
        report(model, Text.of("another text " * 100))


def test_points_are_where_the_ticks_say() -> None:
    drawn = chart([Series(name="s", points=[(0, 1.5), (10, 2.0), (20, 3.0)])], x="x", y="y", words="w")
    places = {tick["text"]: tick["at"] for tick in drawn["y_ticks"]}
    ((first, second, third),) = drawn["series"][0]["lines"]
    assert (second[1], third[1]) == (places["2"], places["3"])
    assert first[1] == pytest.approx(places["1.5"] if "1.5" in places else (places["1"] + places["2"]) / 2)
    across = {tick["text"]: tick["at"] for tick in drawn["x_ticks"]}
    assert [point[0] for point in (first, second, third)] == [across["0"], across["10"], across["20"]]
    assert third[1] < first[1]  # up is more


def test_ticks_cover_and_are_few() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        low, width = generator.normal() * 10, math.exp(generator.normal() * 4)
        found = ticks(low, low + width)
        assert found[0] <= low + 1e-9 * width
        assert found[-1] >= low + width * (1 - 1e-9)
        assert 2 <= len(found) <= 7
        assert np.diff(found) == pytest.approx(np.full(len(found) - 1, found[1] - found[0]))


def test_missing_points_break_the_line() -> None:
    values = [1.0, math.nan, 2.0, 3.0, math.inf, None, 4.0]
    drawn = chart([Series(name="s", points=list(enumerate(values)))], x="x", y="y", words="w")
    assert [len(line) for line in drawn["series"][0]["lines"]] == [1, 2, 1]
    empty = chart([Series(name="s", points=[(0, None)])], x="x", y="y", words="w")
    assert empty["series"] == []


def test_curves_of_a_run_that_diverged_or_did_not_begin() -> None:
    assert about_curves([]) is None
    found = about_curves([{"step": 5, "epoch": 1.0, "train_nats": 2.0, "valid_nats": None, "seconds": 3.0}])
    assert found is not None
    assert found["table"]["rows"] == [["5", "1.00", "2.0000", "-", "0.1"]]


def test_reliability_of_what_was_expected() -> None:
    expected = Expected(
        ids_NK=np.array([[0, 1], [1, 0], [0, 1], [2, 1]], np.int32),
        probability_NK=np.array([[0.9, 0.1], [0.7, 0.3], [np.nan, np.nan], [0.6, 0.2]], np.float32),
    )
    curve = next_reliability(expected, np.array([0, 0, 1, -1, 2]), bins=2)
    assert curve is not None
    assert curve.count.tolist() == [2, 2]  # 0.1 and 0.3; 0.9 and 0.7
    assert curve.said == pytest.approx([0.2, 0.8])
    assert curve.came == pytest.approx([0.5, 0.5])
    assert next_reliability(expected, np.array([-1, -1, -1, -1])) is None
