"""The catalogue of known texts: names, files, and that the bundled ones are what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlm.errors import OptionError
from charlm.text.catalog import CATALOG, bundled_names, known

ROOT = Path(__file__).parents[2]
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}


def test_names_and_files_are_each_given_once() -> None:
    for values in ([text.name for text in CATALOG], [text.file for text in CATALOG]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("text", CATALOG, ids=lambda text: text.name)
def test_an_entry_is_whole(text: object) -> None:
    entry = known(text.name)  # type: ignore[attr-defined]
    assert entry.about
    assert entry.licence
    assert entry.source
    if entry.bundled:
        assert (ROOT / "data" / entry.file).stat().st_size > 80_000
    else:
        assert entry.url is not None
        assert entry.url.startswith("http")
        assert entry.size is not None
    if entry.checksum is not None:
        algorithm, digits = entry.checksum.split(":")
        assert len(digits) == DIGITS[algorithm]
        int(digits, 16)
    assert (entry.member is not None) == bool(entry.url and entry.url.endswith(".zip"))


def test_the_downloaded_names_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(f"/data/{text.file}" in ignored for text in CATALOG if not text.bundled)
    assert not any(f"/data/{text.file}" in ignored for text in CATALOG if text.bundled)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'enwik8'"):
        known("enwiki8")
    with pytest.raises(OptionError, match="corpus list"):
        known("zzz")


def test_the_bundled_texts_are_named_for_messages() -> None:
    assert bundled_names() == "data/shakespeare.txt, data/algebra.tex and data/wiki.xml"
