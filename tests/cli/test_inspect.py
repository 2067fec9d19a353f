"""`charlm inspect` as a user meets it: tables, values, pictures, pages, and what it refuses."""

import base64
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.checkpoint import TextFacts
from charlm.display import save_figure
from charlm.recurrent.atlas import Unit, read_units, rows_of, unit_figure
from charlm.recurrent.inspection import picked_units
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import read_corpus
from charlm.text.splits import Split
from charlm.text.vocab import Vocab
from tests.conftest import Run
from tests.helpers import keep as keep_model


def keep(directory: Path, text: Path, **options: object) -> CharRNN:
    """A network with random weights as a model directory, made from a text; most of it is the test part."""
    corpus = read_corpus([text])
    model = CharRNN(corpus.vocab, RNNConfig(**{"model": "lstm", "hidden": 12, "layers": 2, **options}))
    model.reset_parameters(torch.Generator().manual_seed(5))
    keep_model(directory, model, TextFacts.of(corpus, Split.parse("20/10/70")))
    return model


def page_data(path: Path) -> dict[str, object]:
    """The data of a page as its script finds it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert found is not None
    return json.loads(found[1])["inspect"]


@pytest.mark.slow
def test_the_table_and_the_json_agree(charlm: Run, verse: Path, tmp_path: Path) -> None:
    model = keep(tmp_path / "net", verse)
    code, out, err = charlm("inspect", "net", verse, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["part"], found["length"], found["start"]) == ("test", 4200, 0)
    assert {item["property"] for item in found["units"]} >= {"position in the line", "position in the word"}
    for item in found["units"]:
        assert item["found"] == (item["area"] > item["control"])
    atlas = read_units(model, read_corpus([verse]).ids[1800:])
    for item, kept in zip(found["gates"], atlas.gates, strict=True):
        assert (item["layer"], item["gate"]) == (kept.layer, kept.gate)
        assert item["below_0.1"] == pytest.approx(kept.left_H.tolist())
    code, out, err = charlm("inspect", "net", verse)
    lines = [line.split() for line in out.splitlines()]
    shown = [item for item in found["units"] if item["found"]]
    for item, line in zip(shown, lines[2:], strict=False):
        assert line[:3] == [item["unit"], f"{item['area']:.3f}", f"{item['control']:.3f}"]
    assert ["0", "i"] in [line[:2] for line in lines]
    alone = json.loads(charlm("inspect", "net", verse, "--layer", 1, "--json")[1])
    assert {item["unit"][:2] for item in alone["units"]} == {"1:"}
    assert {item["layer"] for item in alone["gates"]} == {1}


def test_units_over_the_text(charlm: Run, verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keep(tmp_path / "net", verse)
    where = ("--start", 100, "--length", 300, "--shown", 40)
    code, out, err = charlm("inspect", "net", verse, "--unit", "0:3:h", "--unit", "1:11", *where)
    assert code == 0, err
    corpus = read_corpus([verse])
    atlas = read_units(model, corpus.ids[1900:2200])
    header, *rows = (line.split("\t") for line in out.splitlines())
    assert header == ["position", "character", "0:3:h", "1:11:c"]
    assert [int(row[0]) for row in rows] == list(range(360, 400))
    assert "".join(eval(row[1]) for row in rows) == corpus.vocab.decode(corpus.ids[2160:2200])
    for column, unit in ((2, Unit(0, 3, "h")), (3, Unit(1, 11, "c"))):
        values = atlas.values_UT[atlas.row(unit), 260:].astype(float)
        assert [float(row[column]) for row in rows] == pytest.approx(values.tolist(), abs=1e-4)
    painted = charlm("inspect", "net", verse, "--unit", "0:3", "--shown", 40, "--color", "always")[1]
    assert "\x1b[48;5;" in painted
    plain = re.sub(r"\x1b\[[0-9;]*m", "", painted).split(":\n", 1)[1]
    assert plain.replace("⏎", "").rstrip("\n") == corpus.vocab.decode(corpus.ids[-40:]).rstrip("\n")
    values = json.loads(charlm("inspect", "net", verse, "--unit", "0:3:h", "--shown", 7, "--json")[1])["values"]
    assert {name: len(row) for name, row in values.items()} == {"0:3:h": 7}


def test_a_page_holds_the_values_and_no_markup_of_the_text(charlm: Run, tmp_path: Path) -> None:
    text = tmp_path / "bad <b>.txt"
    text.write_text('<script>alert("1")</script> & \u202e\x1b[31m\U0001f600\n' * 60)
    model = keep(tmp_path / "net", text, model="gru")
    code, out, err = charlm("inspect", "net", text, "--html", "page.html", "--shown", 100, "--unit", "1:7")
    assert (code, out) == (0, "page.html\n"), err
    data = page_data(tmp_path / "page.html")
    corpus = read_corpus([text])
    assert "".join(data["symbols"][id] for id in data["ids"]) == corpus.vocab.decode(corpus.ids[-100:])
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "\u202e" not in unescape(page)
    assert data["units"][0] == "1:7:h"
    atlas = read_units(model, corpus.ids[len(corpus) * 3 // 10 :], shown=(0, 1))
    numbers = np.frombuffer(base64.b64decode(data["values"]), dtype=np.int8).reshape(len(data["units"]), 100)
    for row, name in enumerate(data["units"]):
        layer, number, signal = name.split(":")
        values = atlas.values_UT[atlas.row(Unit(int(layer), int(number), signal)), -100:].astype(float)
        assert data["largest"][row] == pytest.approx(np.abs(values).max(), abs=1e-4)
        assert numbers[row] * data["largest"][row] / 127 == pytest.approx(values, abs=0.005)
    parts = np.array(data["parts"]).reshape(100, -1)
    assert (np.diff(parts, axis=1) <= 0).all()
    assert charlm("inspect", "net", text, "--html", "page.html")[1] == "page-2.html\n"


def test_unknown_characters_are_shown_as_they_are(charlm: Run, verse: Path, tmp_path: Path) -> None:
    keep(tmp_path / "net", verse)
    other = tmp_path / "other.txt"
    other.write_text("\u00e9t\u00e9 and a \u4e16 of it\n" * 20)
    assert charlm("inspect", "net", other, "--html", "page.html", "--shown", 21)[0] == 0
    data = page_data(tmp_path / "page.html")
    assert "".join(data["symbols"][id] for id in data["ids"])[-17:] == other.read_text()[-17:]


@pytest.mark.slow
def test_pictures(charlm: Run, verse: Path, tmp_path: Path) -> None:
    keep(tmp_path / "net", verse)
    assert charlm("inspect", "net", verse, "--plot", "cells.svg", "--shown", 200)[0] == 0
    svg = Path("cells.svg").read_text()
    assert svg.count("<svg") == 1
    strange = ["$", "\u4e16", "\U0001f600", "\u0627", "\n", "\x1b", "_", "^"]
    save_figure(unit_figure(strange, [("$x^", np.linspace(-1, 1, 8))], [], title="$"), tmp_path / "strange.png")
    assert rows_of(["a"] * 5, columns=2, rows=2) == [(0, 2), (2, 4)]
    assert rows_of([]) == []


def test_a_page_has_room_for_so_many_units() -> None:
    corpus_ids = np.arange(30) % 3
    model = CharRNN(Vocab.of("abc"), RNNConfig(model="gru", hidden=10))
    atlas = read_units(model, corpus_ids)
    assert len(picked_units(atlas, [], [], steps=30, most=95)) == 3
    assert picked_units(atlas, [], [Unit(0, 9), Unit(0, 8)], steps=30, most=1) == [Unit(0, 9), Unit(0, 8)]
    assert set(picked_units(atlas, [], [], steps=30)) == set(atlas.units)


def test_wrong_uses(charlm: Run, verse: Path, tmp_path: Path) -> None:
    keep(tmp_path / "net", verse, model="gru")
    assert charlm("ngram", verse, "--order", 2, "--out", "counts")[0] == 0
    for arguments, message in (
        (("counts", verse), "no hidden units"),
        (("net", verse, "--layer", 2), "0 to 1"),
        (("net", verse, "--unit", "one"), "LAYER:NUMBER"),
        (("net", verse, "--unit", "2:0"), "no layer 2"),
        (("net", verse, "--unit", "0:12"), "no unit 12"),
        (("net", verse, "--unit", "0:1:c"), "no cell states"),
        (("net", verse, "--start", 99999), "behind its end"),
        (("net", verse, "--plot", "cells.gif"), ".png"),
        (("net", verse, "--length", 0), "--length"),
        (("nothing", verse), "no model directory"),
    ):
        code, out, err = charlm("inspect", *arguments)
        assert code == 2, (arguments, err)
        assert message in err, (arguments, err)
        assert "Traceback" not in err
        assert out == ""


def test_a_short_text_says_that_there_is_too_little(charlm: Run, verse: Path, tmp_path: Path) -> None:
    keep(tmp_path / "net", verse, model="rnn")
    for length in (1, 3, 30):
        code, out, err = charlm("inspect", "net", verse, "--length", length, "--html", f"{length}.html")
        assert code == 0, err
    code, out, err = charlm("inspect", "net", verse, "--length", 3)
    assert "too little" in err
