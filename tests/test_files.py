"""Files whole or not at all, free names, locks."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charlm.errors import CharlmError
from charlm.files import atomic_writer, free_name, lock, new_directory, read_json, write_bytes, write_json


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_writer(path) as file:
        file.write(b"half of the new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_json_is_strict_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": [1, None]})
    assert read_json(path) == {"a": [1, None]}
    with pytest.raises(ValueError, match=r"Out of range|not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": [1, None]}
    for content, message in (
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ):
        write_bytes(path, content)
        with pytest.raises(CharlmError, match=message):
            read_json(path)
    with pytest.raises(CharlmError, match="missing"):
        read_json(tmp_path / "none.json")
    with pytest.raises(CharlmError, match="more than"):
        read_json(path, limit=10)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = free_name(tmp_path / "run.d")
        names.append(path.name)
        path.mkdir()
    assert names == ["run.d", "run-2.d", "run-3.d"]


def test_a_directory_in_use_is_refused_and_a_dead_owner_forgotten(tmp_path: Path) -> None:
    with lock(tmp_path):
        owner = json.loads((tmp_path / "LOCK").read_text())
        assert owner["pid"] == os.getpid()
    assert not (tmp_path / "LOCK").exists()
    (tmp_path / "LOCK").write_text(json.dumps({**owner, "pid": os.getppid()}))
    with pytest.raises(CharlmError, match=f"process {os.getppid()}"), lock(tmp_path):
        pass
    for stale in (json.dumps({**owner, "pid": 2**22 + 12345}), "", "{"):
        (tmp_path / "LOCK").write_text(stale)
        with lock(tmp_path):
            pass
    (tmp_path / "LOCK").write_text(json.dumps({**owner, "host": "elsewhere"}))
    with pytest.raises(CharlmError, match="on elsewhere"), lock(tmp_path):
        pass


_OTHER = """
import pathlib, sys
from charlm.errors import CharlmError
from charlm.files import lock
print("begins", flush=True)
try:
    with lock(pathlib.Path(sys.argv[1])):
        print("holds it", flush=True)
        sys.stdin.read()
except CharlmError:
    print("is refused", flush=True)
"""


def test_one_process_alone_takes_over_what_a_dead_one_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process comes while the first one finds that the owner is dead."""
    pytest.importorskip("fcntl")
    others: list[subprocess.Popen[str]] = []

    def dead(pid: int) -> bool:
        command = [sys.executable, "-c", _OTHER, str(tmp_path)]
        others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert others[0].stdout is not None
        assert others[0].stdout.readline() == "begins\n"
        time.sleep(0.3)  # time enough to take it, were it free
        return False

    (tmp_path / "LOCK").write_text(json.dumps({"pid": 2**22 + 12345, "host": socket.gethostname()}))
    monkeypatch.setattr("charlm.files._alive", dead)
    with lock(tmp_path):
        assert others[0].communicate(timeout=60)[0] == "is refused\n"


def test_a_model_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with new_directory(path, overwrite=False) as made:
        write_json(made / "config.json", {"old": True})
        write_bytes(made / "old.npy", b"1")
        (made / "0").mkdir()
        assert not path.exists()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(RuntimeError), new_directory(path, overwrite=True) as made:
        write_json(made / "config.json", {"old": False})
        raise RuntimeError
    assert read_json(path / "config.json") == {"old": True}
    with lock(path):
        (path / "LOCK").write_text(json.dumps({**json.loads((path / "LOCK").read_text()), "pid": os.getppid()}))
        with pytest.raises(CharlmError, match="is being written"), new_directory(path, overwrite=True):
            pass
    (path / "LOCK").unlink()
    with new_directory(path, overwrite=True) as made:
        write_json(made / "config.json", {"old": False})
    assert sorted(os.listdir(path)) == ["config.json", "notes.txt"]
    assert read_json(path / "config.json") == {"old": False}
    assert os.listdir(tmp_path) == ["model"]
    for name in ("model", "model/notes.txt"):
        with (
            pytest.raises(CharlmError, match=r"is taken|not a model directory"),
            new_directory(tmp_path / name, overwrite=name != "model"),
        ):
            pass


def test_a_directory_that_was_made_for_nothing_does_not_stay(tmp_path: Path) -> None:
    place = tmp_path / "new" / "run"
    with pytest.raises(CharlmError, match="refused"), lock(place):
        raise CharlmError("refused")
    assert not (tmp_path / "new").exists()
    with pytest.raises(CharlmError, match="refused"), lock(place):
        (place / "state").write_text("kept")
        raise CharlmError("refused")
    assert [each.name for each in place.iterdir()] == ["state"]
    (tmp_path / "old").mkdir()
    with pytest.raises(CharlmError, match="refused"), lock(tmp_path / "old"):
        raise CharlmError("refused")
    assert (tmp_path / "old").is_dir()
    with lock(tmp_path / "made"):
        pass
    assert (tmp_path / "made").is_dir()
