"""What several tests need: the real corpora where they are, and a small text that was written for this project."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from charlm.cli import main

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[1]
CORPORA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_shakespeare() -> Path:
    """The 1.1 MB sample that most published character-level results use; not part of this repository."""
    path = CORPORA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("the real corpora are not beside this checkout")
    return path


@pytest.fixture
def verse(tmp_path: Path) -> Path:
    """The first 6,000 characters of the bundled drama."""
    path = tmp_path / "verse.txt"
    path.write_text((ROOT / "data" / "shakespeare.txt").read_text()[:6000])
    return path


@pytest.fixture
def charlm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["charlm", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # tests of faults put their own in its place
    torch.set_num_threads(1)
    torch.manual_seed(0)
