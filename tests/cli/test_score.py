"""`charlm score`: its figures are those of `charlm eval`, its ranking that of a loop by hand."""

import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from charlm.checkpoint import TextFacts
from charlm.display import difference_level, may_paint, paint, surprise_level
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import read_corpus
from charlm.text.reading import Reading
from charlm.text.splits import Split
from tests.conftest import Run
from tests.helpers import keep


def network(text: Path, directory: Path, reading: Reading | None = None) -> Path:
    """A network with random weights, kept as if it had been trained on a text."""
    corpus = read_corpus([text], reading)
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=8))
    model.reset_parameters(torch.Generator().manual_seed(1))
    keep(directory, model, TextFacts.of(corpus, Split.default(len(corpus))))
    return directory


@pytest.fixture
def models(charlm: Run, verse: Path, tmp_path: Path) -> tuple[Path, Path]:
    charlm("ngram", verse, "--order", 2, "--smoothing", "kneser-ney", "--out", "kn")
    return network(verse, tmp_path / "net"), tmp_path / "kn"


def lines_of(text: str) -> list[dict[str, object]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_characters_add_up_to_eval(charlm: Run, models: tuple[Path, Path], verse: Path) -> None:
    for model in models:
        for part in ("test", "train"):
            figures = json.loads(charlm("eval", model, verse, "--split-part", part, "--json")[1])
            items = lines_of(charlm("score", model, verse, "--split-part", part, "--json")[1])
            bits = math.fsum(item["bits"] for item in items)  # type: ignore[misc]
            assert bits / len(items) == pytest.approx(figures["bits_per_char"], abs=1e-6)
            text = verse.read_text()
            start = items[0]["position"]
            assert isinstance(start, int)
            assert "".join(str(item["char"]) for item in items) == text[start : start + len(items)]
            assert len(items) == figures["targets"]


def test_lines_are_ranked_by_bits_a_character(charlm: Run, models: tuple[Path, Path], verse: Path) -> None:
    _, model = models
    characters = {
        item["position"]: item["bits"]
        for item in lines_of(charlm("score", model, verse, "--split-part", "all", "--json")[1])
    }
    wanted, at = [], 0
    for text in verse.read_text().splitlines(keepends=True):
        bits = [characters[i] for i in range(max(at, 1), at + len(text))]
        wanted.append((sum(bits) / len(bits), text))  # type: ignore[arg-type]
        at += len(text)
    wanted.sort(key=lambda pair: (pair[1] == "\n", -pair[0]))  # blank lines last
    found = lines_of(charlm("score", model, verse, "--split-part", "all", "--by", "line", "--json")[1])
    assert [item["bits_per_char"] for item in found] == pytest.approx([bits for bits, _ in wanted])
    assert found[0]["text"] == wanted[0][1]
    top = charlm("score", model, verse, "--split-part", "all", "--by", "line", "--top", 3)[1].splitlines()
    assert [row.split("\t")[2] for row in top[1:]] == [text.rstrip("\n") for _, text in wanted[:3]]


def test_two_models(charlm: Run, models: tuple[Path, Path], verse: Path) -> None:
    first, second = models
    items = lines_of(charlm("score", first, second, verse, "--json")[1])
    alone = lines_of(charlm("score", second, verse, "--json")[1])
    for item, other in zip(items, alone, strict=True):
        assert item["second_bits"] == other["bits"]
        assert item["difference"] == pytest.approx(item["second_bits"] - item["bits"])  # type: ignore[operator]
    assert charlm("score", first, second, verse, "--by", "line", "--top", 1)[1].startswith("net\tkn\tdifference")
    best = lines_of(charlm("score", second, first, verse, "--json", "--top", 2)[1])
    assert best[0]["difference"] == max(-item["difference"] for item in items)  # type: ignore[operator]


def test_impossible_and_unknown_are_null_and_said(charlm: Run, verse: Path) -> None:
    charlm("ngram", verse, "--order", 3, "--out", "ml")
    Path("other.txt").write_text("the €uro\nzzqj\nthe\n")
    items = lines_of(charlm("score", "ml", "other.txt", "--json")[1])
    euro = items[3]
    assert (euro["char"], euro["bits"], euro["unknown"], euro["zero_probability"]) == ("€", None, True, False)
    assert [item["bits"] is None for item in items] == [item["unknown"] or item["zero_probability"] for item in items]
    assert any(item["zero_probability"] for item in items)
    rows = lines_of(charlm("score", "ml", "other.txt", "--by", "line", "--json")[1])
    assert (rows[0]["text"], rows[0]["unknown_targets"]) == ("the €uro\n", 1)
    assert (rows[1]["text"], rows[1]["bits_per_char"], rows[1]["zero_probability"]) == ("zzqj\n", None, True)
    code, out, err = charlm("score", "ml", "other.txt")
    assert code == 0
    assert "4\tunknown\t€" in out.splitlines()
    assert "infinitely many" in err


def test_directories_standard_input_and_bytes(
    charlm: Run, verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(verse, tmp_path / "bytes", Reading(bytes=True))
    (tmp_path / "many").mkdir()
    for name, text in (("a.txt", "to be or not to be\n" * 3), ("b.bin", "\x00\xff\x80")):
        (tmp_path / "many" / name).write_bytes(text.encode("latin-1"))
    rows = lines_of(charlm("score", model, "many", "--by", "document", "--json")[1])
    assert sorted((row["document"], row["name"]) for row in rows) == [(1, "many/a.txt"), (2, "many/b.bin")]
    assert [item["char"] for item in lines_of(charlm("score", model, "many/b.bin", "--json")[1])] == ["<FF>", "<80>"]
    pipe = type("Stdin", (), {"buffer": io.BytesIO(b"to be")})()
    monkeypatch.setattr(sys, "stdin", pipe)
    assert lines_of(charlm("score", model, "-", "--json")[1])[0]["char"] == "o"


def test_colour_is_for_terminals(charlm: Run, models: tuple[Path, Path], verse: Path) -> None:
    model, _ = models
    plain = charlm("score", model, verse)[1]
    assert "\x1b" not in plain
    painted = charlm("score", model, verse, "--color", "always")[1]
    assert "\x1b[48;5;" in painted
    bare = re.sub(r"\x1b\[[0-9;]*m|⏎", "", painted)
    assert bare.rstrip("\n") in verse.read_text()


def test_auto_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", type("Terminal", (), {"isatty": lambda self: True})())
    assert may_paint("auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not may_paint("auto")
    assert may_paint("always")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys, "stdout", type("Pipe", (), {"isatty": lambda self: False})())
    assert not may_paint("auto")


def test_painting() -> None:
    assert [surprise_level(bits) for bits in (0, 2.5, 10.9, math.inf, math.nan)] == ["s0", "s2", "s6", "s7", "u"]
    assert [difference_level(x) for x in (0.3, -0.3, -math.inf, math.nan)] == ["p1", "n1", "n4", "s0"]
    assert "".join(paint([("\x1b[2J", "s0"), ("\u202e", "s0"), ("\n", "s0")])) == "‹ESC›[2J‹U+202E›\n"


def test_the_page(charlm: Run, models: tuple[Path, Path], verse: Path) -> None:
    first, second = models
    code, out, _ = charlm("score", first, second, verse, "--html", "page.html")
    assert (code, out) == (0, "page.html\n")
    html = Path("page.html").read_text()
    data = json.loads(html.split('<script type="application/json" id="data">')[1].split("</script>")[0])["surprise"]
    items = lines_of(charlm("score", first, second, verse, "--json")[1])
    text = "".join(data["symbols"][id] for id in data["ids"])
    assert text in verse.read_text()
    assert text[1:] == "".join(str(item["char"]) for item in items)
    for number, key in enumerate(("bits", "second_bits")):
        wanted = [-3, *(round(1000 * item[key]) for item in items)]  # type: ignore[operator]
        assert data["bits"][number] == pytest.approx(wanted, abs=1)
    steps, k = data["top"]["steps"], len(data["top"]["ids"]) // data["top"]["steps"]
    assert (steps, k) == (len(text), 5)
    for at in range(1, steps):
        shares = dict(
            zip(data["top"]["ids"][at * k : at * k + k], data["top"]["parts"][at * k : at * k + k], strict=True)
        )
        if data["ids"][at] in shares:
            assert shares[data["ids"][at]] == pytest.approx(1e6 * 2 ** -items[at - 1]["bits"], abs=2)  # type: ignore[operator]
    strangest = lines_of(charlm("score", first, second, verse, "--json", "--top", 25)[1])
    places = [int(place) for place in re.findall(r'data-go="(\d+)"', html)][-25:]
    assert [text[place] for place in places] == [item["char"] for item in strangest]
    begin = verse.read_text().index(text)
    assert [begin + place for place in places] == [item["position"] for item in strangest]
    assert charlm("score", first, second, verse, "--html", "page.html")[1] == "page-2.html\n"


@pytest.mark.slow
def test_a_line_of_a_megabyte_does_not_swell_the_page(charlm: Run, models: tuple[Path, Path]) -> None:
    Path("long.txt").write_text("to be or not " * 25_000)
    assert charlm("score", models[1], "long.txt", "--html", "long.html")[0] == 0
    html = Path("long.html").read_text()
    tables, data = html.split('<script type="application/json"')
    assert len(tables) < 100_000
    assert "(325,000 characters)" in tables
    assert "first 200,000 characters" in tables
    assert len(data) < 3_500_000


def test_wrong_use(charlm: Run, models: tuple[Path, Path], verse: Path, tmp_path: Path) -> None:
    first, second = models
    other = network(verse, tmp_path / "raw", Reading(bytes=True))
    for arguments, words in (
        ((first,), "then the text"),
        ((first, second, first, verse), "then the text"),
        ((verse, first), "no model directory"),
        ((first, other, verse), "read their texts differently"),
        ((first, verse, "--by", "stanza"), "stanza"),
    ):
        code, out, err = charlm("score", *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert "Traceback" not in err


def test_positions_and_counts_are_of_characters_where_rare_ones_are_spelled_in_bytes(
    charlm: Run, tmp_path: Path
) -> None:
    content = "ein Ärger über €5\nöde Tage\n" * 40
    (tmp_path / "text").write_text(content, encoding="utf-8")
    assert charlm("ngram", "text", "--order", 2, "--vocab-size", 9, "--smoothing", "witten-bell", "--out", "m")[0] == 0
    part = ("--split-part", "all")
    figures = json.loads(charlm("eval", "m", "text", *part, "--json")[1])
    items = lines_of(charlm("score", "m", "text", *part, "--json")[1])
    assert figures["targets"] == len(items) == len(content) - 1
    assert [item["position"] for item in items] == list(range(1, len(content)))
    assert "".join(str(item["char"]) for item in items) == content[1:]
    total = math.fsum(item["bits"] for item in items)  # type: ignore[misc]
    assert figures["bits_per_char"] * figures["targets"] == pytest.approx(total, rel=1e-9)
    lines = lines_of(charlm("score", "m", "text", *part, "--by", "line", "--json")[1])
    for line in lines:
        assert content[line["start"] : line["end"]] == line["text"]  # type: ignore[misc]
    assert sum(line["characters"] for line in lines) == len(content) - 1  # type: ignore[misc]
    assert math.fsum(line["bits"] for line in lines) == pytest.approx(total, rel=1e-9)  # type: ignore[misc]
    assert max(line["highest_bits"] for line in lines) == max(item["bits"] for item in items)  # type: ignore[type-var]
    words = charlm("score", "m", "text", *part, "--by", "word", "--json")[1]
    assert all(content[word["start"] : word["end"]] == word["text"] for word in lines_of(words))  # type: ignore[misc]
    err = charlm("score", "m", "text", *part)[2]
    assert f"all of text of split tail:80/10/10: {len(content) - 1:,} characters" in err


def test_all_of_a_text_and_bytes_are_called_so(charlm: Run, verse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = verse.with_name("other.txt")
    other.write_text(verse.read_text()[:900])
    note = charlm("ngram", verse, "--bytes", "--order", 1, "--smoothing", "kneser-ney", "--out", "m")[2]
    assert "6,000 bytes, 256 symbols" in note
    out = charlm("eval", "m", "other.txt")[1]
    assert out.startswith("m on all of other.txt (a text the model was not made from):\n")
    assert "nats a byte" in out
    assert "all of other.txt: 899 bytes" in charlm("score", "m", "other.txt", "--by", "line")[2]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(other.read_bytes())))
    assert charlm("eval", "m", "-")[1].startswith("m on all of standard input (")


def test_the_painted_text_is_whole(charlm: Run, models: tuple[Path, Path]) -> None:
    """The first character has no bits, as nothing stands before it, and is shown all the same."""
    content = "not to be\n"
    Path("short.txt").write_text(content)
    for model in models:
        painted = charlm("score", model, "short.txt", "--color", "always")[1]
        assert re.sub(r"\x1b\[[0-9;]*m|⏎", "", painted).rstrip("\n") == content.rstrip("\n")
