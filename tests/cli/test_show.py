"""charlm corpus and charlm cache: the catalogue, downloads, what is in a text; the copies that charlm keeps."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from charlm.cli import cli
from charlm.errors import CharlmError, OptionError
from charlm.text import cache
from charlm.text import catalog as module
from charlm.text.catalog import KnownText, catalog
from tests.conftest import Run

ROOT = Path(__file__).parents[2]


def run(*arguments: str, input: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, ["corpus", *arguments], input=input, catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit | CharlmError):
        raise result.exception
    return result


def refusal(*arguments: str, input: str | bytes | None = None) -> str:
    """The one sentence with which a command is refused; `main` prints it and exits with 2."""
    error = run(*arguments, input=input).exception
    assert isinstance(error, CharlmError)
    assert "\n" not in str(error)
    return str(error)


def test_list_names_every_text_with_size_licence_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = run("list").output
    for text in catalog():
        assert text.name in shown
        assert text.licence in shown
    assert "1,115,394 bytes" in shown
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json").output)}
    assert entries["enwik8"]["bytes"] == 100_000_000
    assert entries["wiki.xml"]["bundled"]
    assert entries["wiki.xml"]["bytes"] == (ROOT / "data" / "wiki.xml").stat().st_size


def test_get_downloads_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(text: KnownText, directory: Path, progress: module.BytesHere) -> Path:
        progress(5, 10)
        progress(10, 10)
        return directory / text.file

    monkeypatch.setattr(module, "fetch", fake)
    result = run("get", "text8", "--to", str(tmp_path))
    assert result.stdout.strip() == str(tmp_path / "text8")
    assert json.loads(run("get", "text8", "--json").stdout)["file"] == str(Path("data/text8"))


def test_get_of_a_bundled_text_points_at_it() -> None:
    result = run("get", "wiki.xml")
    assert result.stdout.strip() == str(Path("data/wiki.xml"))
    assert "comes with charlm" in result.stderr


def test_get_without_a_network_names_the_bundled_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = KnownText(name="far", about="", licence="", source="", file="far.txt", url="http://nowhere.invalid/far.txt")
    known = catalog()
    monkeypatch.setattr(module, "catalog", lambda: (*known, text))
    assert "data/shakespeare.txt" in refusal("get", "far", "--to", str(tmp_path))


def test_an_unknown_name_is_refused() -> None:
    assert "corpus list" in refusal("get", "nothing")


def test_info_tells_what_is_in_a_text(tmp_path: Path) -> None:
    text = "hello world\n" * 30 + "Zwölf\n"
    (tmp_path / "text").write_text(text, encoding="utf-8")
    found = json.loads(run("info", str(tmp_path / "text"), "--json").stdout)
    counts = Counter(text)
    entropy = -sum(n / len(text) * math.log(n / len(text)) for n in counts.values())
    assert found["characters"] == len(text)
    assert found["lines"] == 31
    assert found["vocabulary"] == len(counts)
    assert found["entropy_nats"][0] == pytest.approx(entropy)
    assert len(found["entropy_nats"]) == 6
    assert {r["symbol"]: r["count"] for r in found["rare"]} == {c: n for c, n in counts.items() if n < 10}
    assert found["longest_repeat"] == 29 * 12
    assert found["leak"] is False
    assert found["longest_shared"] == 37  # the whole valid part: "o world" and lines
    assert sum(found["parts"].values()) == len(text)
    shown = run("info", str(tmp_path / "text"), "--split", "lines:3:50/25/25").stdout
    assert "lines:3:50/25/25" in shown
    assert "31 lines" in shown
    assert "'ö':1" in shown


def test_info_reads_standard_input_bytes_and_directories(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\n")
    assert json.loads(run("info", "-", "--json", input="one two\n").stdout)["characters"] == 8
    found = json.loads(run("info", str(tmp_path), "--bytes", "--json").stdout)
    assert (found["documents"], found["characters"], found["unit"]) == (2, 7, "byte")


@pytest.mark.parametrize(
    ("content", "characters"),
    [
        ("道可道非常道名可名非常名\n" * 5, 65),
        ("😀😃😀🎉\n" * 5, 25),
        ("abc", 3),
        ("a" * 50, 50),
        ("a" * 90 + "b" * 10, 100),
    ],
)
def test_odd_texts_are_shown(tmp_path: Path, content: str, characters: int) -> None:
    (tmp_path / "text").write_text(content, encoding="utf-8")
    for options in ([], ["--vocab-size", "2"]):
        found = json.loads(run("info", str(tmp_path / "text"), "--json", *options).stdout)
        assert found["characters"] == characters
    assert run("info", str(tmp_path / "text")).exit_code == 0


def test_a_windows_text_keeps_or_normalises_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert json.loads(run("info", str(path), "--json").stdout)["characters"] == 10
    assert "--newlines normalise" in run("info", str(path)).stdout
    found = json.loads(run("info", str(path), "--newlines", "normalise", "--json").stdout)
    assert found["characters"] == 8
    assert "\r" not in found["vocabulary_characters"]


def test_wrong_uses_get_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\x00rest")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert "name a text" in refusal("info")
    assert "there is no file" in refusal("info", str(tmp_path / "missing"))
    assert "gzip" in refusal("info", str(tmp_path / "packed"))
    assert "is empty" in refusal("info", str(tmp_path / "empty"))
    assert "holds no files" in refusal("info", str(tmp_path / "folder"))
    assert isinstance(run("info", "x", "--split", "1/2").exception, OptionError | SystemExit)


def test_the_cache_is_shown_and_cleared(charlm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "kept"))
    assert json.loads(charlm("cache", "--json")[1])["entries"] == []
    monkeypatch.setattr(cache, "BIG", 1)
    (tmp_path / "text.txt").write_text("abracadabra\n" * 20)
    assert charlm("corpus", "info", "text.txt")[0] == 0
    size = sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())
    found = json.loads(charlm("cache", "--json")[1])
    assert (found["directory"], found["bytes"], len(found["entries"])) == (str(tmp_path / "kept"), size, 1)
    shown = charlm("cache")[1]
    assert f"{size:,} bytes in 1 entries, at most 10,000,000,000" in shown
    assert f"deleted      {size:,} bytes" in charlm("cache", "--clear")[1]
    assert not list((tmp_path / "kept").iterdir())
    monkeypatch.setenv("CHARLM_CACHE_GB", "-1")
    code, out, err = charlm("cache")
    assert (code, out) == (2, "")
    assert "number of gigabytes" in err
