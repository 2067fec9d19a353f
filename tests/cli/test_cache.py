"""`charlm cache` shows what is kept of big texts, and deletes it."""

import json
from pathlib import Path

import pytest

from charlm.text import cache
from tests.conftest import Run


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
