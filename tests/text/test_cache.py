"""The streaming way of reading big texts gives the very corpus that reading in memory gives."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charlm
from charlm.errors import CharlmError, TextError
from charlm.lm.interface import State, read_segments
from charlm.text import cache, reading
from charlm.text.cache import cache_directory, map_ids
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.reading import Reading
from charlm.text.vocab import Vocab
from charlm.training.language import Lanes

TRICKY = "a\r\nb\rc\r\r\n\né€😀\n漢字\r"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every text counts as big and is read a few bytes at a time."""
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "BLOCK", 3)
    monkeypatch.setattr(reading, "_BLOCK", 3)
    yield tmp_path
    assert not list(tmp_path.glob("cache/*.tmp"))


def both(
    monkeypatch: pytest.MonkeyPatch, paths: list[Path], reading: Reading, vocab: Vocab | None = None
) -> tuple[Corpus, Corpus]:
    monkeypatch.setattr(cache, "BIG", 1 << 60)
    plain = read_corpus(paths, reading, vocab=vocab)
    monkeypatch.setattr(cache, "BIG", 1)
    return plain, read_corpus(paths, reading, vocab=vocab)


def same(first: Corpus, second: Corpus) -> None:
    assert first.ids.dtype == second.ids.dtype
    assert first.ids.tolist() == second.ids.tolist()
    assert first.documents.tolist() == second.documents.tolist()
    assert first.documents.dtype == second.documents.dtype
    assert (first.vocab, first.sha256, first.names, first.reading) == (
        second.vocab,
        second.sha256,
        second.names,
        second.reading,
    )


READINGS = [
    Reading(),
    Reading(newlines="normalise"),
    Reading(vocab_size=3),
    Reading(bytes=True),
    Reading(encoding="utf-16", newlines="normalise"),
]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_any_block_boundary_gives_the_corpus_in_memory(
    small: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading, block: int
) -> None:
    monkeypatch.setattr(cache, "BLOCK", block)
    path = small / "text"
    path.write_bytes(TRICKY.encode("utf-16" if reading.encoding == "utf-16" else "utf-8"))
    same(*both(monkeypatch, [path], reading))


@pytest.mark.parametrize("reading", [Reading(), Reading(vocab_size=300), Reading(vocab_size=5)], ids=str)
@pytest.mark.parametrize("characters", [200, 400, 70_000])
def test_many_different_characters(
    small: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading, characters: int
) -> None:
    monkeypatch.setattr(cache, "BLOCK", 1000)
    codes = np.concatenate([np.arange(0xE000, 0xE000 + characters), np.full(500, 97), [0xE001, 0xE003, 0x62]])
    (small / "text").write_text("".join(map(chr, codes)), encoding="utf-8")
    same(*both(monkeypatch, [small / "text"], reading))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=3),
    newlines=st.sampled_from(["keep", "normalise"]),
    mark=st.booleans(),
    size=st.sampled_from([None, 1, 4]),
)
def test_any_texts_give_the_corpus_in_memory(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    texts: list[str],
    newlines: str,
    mark: bool,
    size: int | None,
) -> None:
    paths = []
    for number, text in enumerate(texts):
        paths.append(small / f"{number}.txt")
        paths[-1].write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.lstrip("\ufeff").encode() + b"x")
    same(*both(monkeypatch, paths, Reading(newlines=newlines, vocab_size=size)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "vocab", [Vocab.of("abc"), Vocab.of("a").with_fallback(), Vocab.of_bytes(), Vocab.of(TRICKY)], ids=len
)
def test_a_foreign_vocabulary_is_kept_to(small: Path, monkeypatch: pytest.MonkeyPatch, vocab: Vocab) -> None:
    path = small / "text"
    path.write_bytes(TRICKY.encode())
    plain, streamed = both(monkeypatch, [path], Reading(), vocab)
    same(plain, streamed)
    assert streamed.unknown() == plain.unknown()


def test_the_second_start_uses_the_cache_whatever_the_path(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "one").write_text(TRICKY)
    _, first = both(monkeypatch, [small / "one"], Reading())
    shutil.copy(small / "one", small / "two")
    monkeypatch.setattr(cache, "_encode", lambda *_: pytest.fail("encoded again"))
    second = read_corpus([small / "two"])
    assert second.ids.tolist() == first.ids.tolist()
    assert second.names == (str(small / "two"),)


@pytest.mark.parametrize("change", ["content", "reading", "damage", "vocabulary"])
def test_what_changed_is_encoded_anew(small: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path, reading, vocab = small / "text", Reading(), None
    path.write_text("abracadabra")
    both(monkeypatch, [path], reading)
    if change == "content":
        path.write_text("abracadabrb")  # of the same size
    elif change == "reading":
        reading = Reading(vocab_size=2)
    elif change == "vocabulary":
        vocab = Vocab.of("ab")
    else:
        ids = next(cache_directory().glob("*.ids"))
        ids.write_bytes(ids.read_bytes()[:-1])
    same(*both(monkeypatch, [path], reading, vocab))


def test_the_ids_are_mapped_and_a_write_stays_out_of_the_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small / "text"
    path.write_text("abracadabra")
    _, streamed = both(monkeypatch, [path], Reading())
    assert isinstance(streamed.ids.base, np.memmap)
    streamed.ids[0] = 4
    assert read_corpus([path]).ids[0] == 0


def test_progress_runs_to_the_end(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "text").write_text("abracadabra")
    monkeypatch.setattr(cache, "BIG", 1)
    for _ in range(2):  # encoding, then hashing
        steps: list[tuple[int, int]] = []
        read_corpus([small / "text"], progress=lambda done, total: steps.append((done, total)))  # noqa: B023
        assert steps == [(3, 11), (6, 11), (9, 11), (11, 11)]


BAD = {
    "undecodable": (b"abc\nde\xfff", Reading()),
    "undecodable after a mark": (b"\xef\xbb\xbfabc\n\nde\xfff", Reading()),
    "cut character": (b"abc\n\xe2\x82", Reading()),
    "cut utf-16": ("abc".encode("utf-16")[:-1], Reading(encoding="utf-16")),
    "not ascii": (b"ab\ncd\x80", Reading(encoding="ascii")),
    "gzip": (b"\x1f\x8b\x08\x00", Reading()),
    "mark alone": (b"\xef\xbb\xbf", Reading()),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_text_is_refused_in_the_same_words(small: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content, reading = BAD[kind]
    monkeypatch.setattr(cache, "BLOCK", 7)
    (small / "text").write_bytes(content)
    said = []
    for big in (1 << 60, 1):
        monkeypatch.setattr(cache, "BIG", big)
        with pytest.raises(TextError) as caught:
            read_corpus([small / "text"], reading)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert not list(cache_directory().glob("*.json"))


def test_an_empty_file_among_big_ones_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "a").write_text("abc")
    (small / "b").write_text("")
    monkeypatch.setattr(cache, "BIG", 1)
    with pytest.raises(TextError, match="is empty"):
        read_corpus([small / "a", small / "b"])


def test_a_cache_that_cannot_be_written_names_the_way_out(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "file").write_text("abc")
    monkeypatch.setenv("CHARLM_CACHE", str(small / "file"))
    monkeypatch.setattr(cache, "BIG", 1)
    with pytest.raises(CharlmError, match="CHARLM_CACHE"):
        read_corpus([small / "file"])


def test_the_cache_is_in_the_home_directory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARLM_CACHE", raising=False)
    assert cache_directory() == Path.home() / ".cache" / "charlm"


def test_the_cache_is_shown_and_cleared(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (cache.cache().size, cache.cache().entries) == (0, ())
    monkeypatch.setattr(cache, "BIG", 1)
    (small / "text").write_text("abracadabra")
    read_corpus([small / "text"])
    found = cache.cache()
    assert found.directory == cache_directory()
    assert found.size == sum(path.stat().st_size for path in cache_directory().iterdir())
    assert "1 text" in repr(found)
    (cache_directory() / ".x.ids.abcdefgh.tmp").touch()  # of a process that was killed
    assert found.clear().entries == ()
    assert not list(cache_directory().iterdir())


def test_the_oldest_entries_leave_a_full_cache(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BIG", 1)

    def read(name: str, age: float) -> None:
        (small / name).write_text(name * 20)
        read_corpus([small / name])
        newest = cache.cache().entries[0].path.with_suffix(".json")
        os.utime(newest, (time.time() - age,) * 2)

    read("first", 300)
    one = cache.cache().size
    read("other", 200)
    read("first", 100)  # used again: `other` is the oldest now
    monkeypatch.setenv("CHARLM_CACHE_GB", str(2.2 * one / 1e9))
    read("third", 0)
    monkeypatch.setattr(cache, "_encode", lambda *_: pytest.fail("encoded again"))
    read_corpus([small / "first"])
    assert len(cache.cache().entries) == 2


def test_a_text_bigger_than_the_bound_is_read_all_the_same(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BIG", 1)
    monkeypatch.setenv("CHARLM_CACHE_GB", "0")
    (small / "text").write_text("abracadabra")
    assert read_corpus([small / "text"]).vocab.decode(read_corpus([small / "text"]).ids) == "abracadabra"
    monkeypatch.setenv("CHARLM_CACHE_GB", "ten")
    with pytest.raises(CharlmError, match="number of gigabytes"):
        read_corpus([small / "text"])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no figure of the pages of files")
def test_reading_gives_pages_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.cache._EVERY", 1 << 20)
    path = tmp_path / "big.ids"
    size = 24 << 20
    with open(path, "wb") as file:
        file.truncate(size)
    ids = map_ids(path, np.dtype(np.uint8))

    def resident() -> int:
        about = Path("/proc/self/smaps").read_text().split("big.ids")[1]
        return int(about.split("Rss:")[1].split()[0]) << 10

    class Deaf(charlm.LanguageModel):
        vocab, device = Vocab.of("ab"), torch.device("cpu")

        def initial_state(self, lanes: int) -> State:
            return {"h": torch.zeros(lanes)}

        def logprobs(self, ids_TB: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
            raise NotImplementedError

        def target_logprobs(
            self, ids_TB: torch.Tensor, targets_TB: torch.Tensor, state: State
        ) -> tuple[torch.Tensor, State]:
            highest.append(resident())
            return torch.zeros(ids_TB.shape), state

    highest = [0]
    edges = np.linspace(0, size, 65).astype(np.int64)
    segments = np.stack([edges[:-1], edges[:-1] + 1, edges[1:]], axis=1)
    read_segments(Deaf(), ids, segments, lanes=64, chunk=1 << 12, hits=False)
    assert max(highest) < 12 << 20
    lanes = Lanes(ids, np.array([[0, size]]), lanes=64, window=1 << 12)
    for number in range(size // (64 << 12)):
        lanes.window_at(0, number)
        highest.append(resident())
    assert max(highest) < 12 << 20
    assert int(ids[::4096].sum()) == 0  # every page, without telling
    assert resident() > 20 << 20
