"""`charlm compress` and `charlm decompress`: names, notes, refusals; the bytes are those of the door."""

import json
from pathlib import Path

import pytest

import charlm as door
from tests.conftest import Run


@pytest.fixture
def counted(charlm: Run, verse: Path) -> str:
    code, _, err = charlm("ngram", verse, "--order", 3, "--smoothing", "kneser-ney", "--out", "counted")
    assert code == 0, err
    return "counted"


def test_a_file_comes_back_and_is_what_the_door_makes(charlm: Run, counted: str) -> None:
    content = "Enter — \xe9\r\n".encode() + b"\xff\0" + b"the king\n" * 40
    Path("play.txt").write_bytes(content)
    code, out, err = charlm("compress", counted, "play.txt")
    assert (code, err) == (0, "")
    done = door.compress(content, counted)
    assert out == f"play.txt.charlm: {done!r}\n"
    assert Path("play.txt.charlm").read_bytes() == done.packed
    code, out, err = charlm("decompress", "play.txt.charlm", "--out", "again.txt")
    assert (code, out) == (0, f"again.txt: {len(content)} bytes from {len(done.packed)}\n"), err
    assert Path("again.txt").read_bytes() == content
    assert json.loads(charlm("decompress", "play.txt.charlm", "--about")[1]) == done.header.to_json()


def test_names_that_are_taken(charlm: Run, counted: str) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    Path("play.txt").write_text("another play")
    code, out, err = charlm("compress", counted, "play.txt", "--json")
    assert json.loads(out)["file"] == "play.txt-2.charlm"
    assert "is taken" in err
    code, out, err = charlm("decompress", "play.txt.charlm", "--json")
    assert (json.loads(out)["file"], "is taken" in err) == ("play-2.txt", True)
    assert charlm("decompress", "play.txt.charlm", "--force")[0] == 0
    assert Path("play.txt").read_text() == "the king\n" * 9


def test_what_cannot_be_done_is_said_in_one_sentence(charlm: Run, counted: str) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    packed = Path("play.txt.charlm").read_bytes()
    Path("short.charlm").write_bytes(packed[:-1])
    refused = {
        ("compress", counted): "counted is a directory: name a file",
        ("compress", counted, "play.txt", "other.txt"): "name a model and one file",
        ("compress", "play.txt", "--adaptive", "fast"): "name a model",
        ("compress", counted, "nothing.txt"): "cannot be read",
        ("compress", "nothing", "play.txt"): "there is no model directory",
        ("decompress", "play.txt"): "not a file that `charlm compress` made",
        ("decompress", "short.charlm"): "damaged or cut short",
        ("decompress", "play.txt.charlm", "--model", "nothing"): "the model that made the file cannot be opened",
    }
    before = sorted(Path().iterdir())
    for arguments, words in refused.items():
        code, out, err = charlm(*arguments)
        assert (code, out) == (2, ""), err
        assert words in err
        assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_another_version_is_told_so_and_may_be_tried(
    charlm: Run, counted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    Path("play.txt").unlink()
    monkeypatch.setattr("charlm.checkpoint.__version__", "9.9")
    code, out, err = charlm("decompress", "play.txt.charlm")
    assert (code, out) == (2, "")
    assert "made with charlm 0.1.0 and here is 9.9" in err
    assert not Path("play.txt").exists()
    assert charlm("decompress", "play.txt.charlm", "--force")[0] == 0
    assert Path("play.txt").read_text() == "the king\n" * 9
