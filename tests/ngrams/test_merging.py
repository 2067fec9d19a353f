"""Models of shards that are added up equal the model that is counted in one piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import charlm
from charlm.cli import cli
from charlm.errors import OptionError
from charlm.ngrams.estimators import ESTIMATORS, tune
from charlm.ngrams.fit import count_within
from charlm.ngrams.index import SuffixIndex

TEXTS = [
    "the cat sat on the mat\nand the dog\n" * 9,
    "zebras & quails; quick, quiet\n" * 7,
    "ünlike the others: ab\n" * 5,
]
ROOM = 1 << 30


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files with different characters; the first is a shard of two."""
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_text(text)
    return paths


def levels(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("level-*.npy")}


def whole(paths: list[Path], directory: Path, split: str, **options: Any) -> Any:
    """All texts counted in one piece, past memory."""
    text = charlm.read_text(paths, split=split)
    count_within(ROOM, directory, text, **options)
    return charlm.load(directory)


@pytest.mark.parametrize("order", [0, 1, 4, 20])
@pytest.mark.parametrize("kept", ["memory", "tables", "both"])
def test_merged_shards_are_the_whole_byte_for_byte(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int, kept: str
) -> None:
    monkeypatch.setattr("charlm.ngrams.fit.capacity_of", lambda *_: 50)
    one = whole(texts, tmp_path / "one", "100/0/0", order=order, smoothing="kneser-ney")
    shards: list[Any] = []
    for number, part in enumerate((texts[:2], texts[2:])):
        text, options = charlm.read_text(part, split="100/0/0"), {"order": order, "smoothing": "kneser-ney"}
        if kept == "tables" or (kept == "both" and number):
            options |= {"memory": ROOM, "out": tmp_path / f"shard-{number}"}
        model = charlm.ngram(text, **options)
        shards.append(model if number else model.save(tmp_path / "saved") or tmp_path / "saved")
    merged = charlm.merge(shards, out=tmp_path / "merged")
    assert merged.directory == tmp_path / "merged"
    assert merged.vocab == one.vocab
    assert levels(tmp_path / "merged") == levels(tmp_path / "one")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("merged", "one")]
    assert configs[0]["model"] == configs[1]["model"]
    assert configs[0]["files"] == configs[1]["files"]
    assert not (tmp_path / "merged" / "counting").exists()


@pytest.mark.parametrize("split", ["lines:60/20/20", "interleaved:3:80/10/10"])
def test_spans_and_context_are_kept(texts: list[Path], tmp_path: Path, split: str) -> None:
    shards = [charlm.ngram(charlm.read_text(path, split=split), order=3, smoothing="witten-bell") for path in texts]
    merged = charlm.merge(shards, out=tmp_path / "merged")
    ids, spans, shared, at = [], [], [], 0
    for path in texts:
        text = charlm.read_text(path, split=split)
        rows = text.corpus.parts(text.split)["train"]
        ids.append(merged.vocab.encode(path.read_text()))
        spans.append(rows + at)
        shared.append(text.corpus.shared_context(rows, text.corpus.parts(text.split)))
        at += len(ids[-1])
    index = SuffixIndex.build(
        np.concatenate(ids), np.concatenate(spans), symbols=len(merged.vocab), shared_N=np.concatenate(shared)
    )
    assert len(merged.index) == len(index)
    for order in range(4):
        for name in ("first_H", "id_E", "count_E", "total_H"):
            one, two = (getattr(counts.levels[order], name) for counts in (merged.index, index))
            assert one.tolist() == two.tolist(), (order, name)
        for one, two in zip(merged.index.levels.openings(order), index.levels.openings(order), strict=True):
            assert one.tolist() == two.tolist()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_smoothing_says_the_same(texts: list[Path], tmp_path: Path, name: str) -> None:
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("the quick cat\nand a quiet dog\n")
    shards = [charlm.ngram(charlm.read_text(p, split="100/0/0"), order=3, smoothing=name) for p in texts]
    merged = charlm.merge(shards, out=tmp_path / "merged", tune_on=held_out)
    one = whole(texts, tmp_path / "one", "100/0/0", order=3, smoothing=name)
    held = charlm.read_text(held_out, like=one)
    spans = held.corpus.documents
    expected = tune(name, one.index, 3, held.corpus.ids, spans) or one.estimator.parameters()
    assert {**one.estimator.parameters(), **expected} == merged.estimator.parameters()
    rows = [
        next(iter(charlm_rows(model.index, model.vocab, name, held.corpus.ids, spans, merged.estimator.parameters())))
        for model in (merged, one)
    ]
    np.testing.assert_array_equal(rows[0].logp_T, rows[1].logp_T)


def charlm_rows(index: Any, vocab: Any, name: str, ids: Any, spans: Any, parameters: Any) -> Any:
    from charlm.ngrams.estimators import ngram_rows

    return ngram_rows(index, vocab, name, [3], ids, spans, parameters={3: parameters})


def test_merged_items_are_the_whole_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    names = [["anna", "hanna", "anna"], ["otto", "anna", "bo"]]
    for number, some in enumerate((names[0], names[1], [*names[0], *names[1]])):
        (tmp_path / f"{number}.txt").write_text("\n".join(some) + "\n")
    options = {"order": 2, "smoothing": "kneser-ney"}
    *shards, one = (
        charlm.ngram(charlm.read_text(tmp_path / f"{n}.txt", items="line", split="items:100/0/0"), **options)
        for n in range(3)
    )
    merged = charlm.merge(shards, out=tmp_path / "merged")
    assert merged.next("an").top(3) == one.next("an").top(3)
    for order in range(3):
        assert merged.index.levels[order].count_E.tolist() == one.index.levels[order].count_E.tolist()


def _mixed(text: Any, weight: float) -> Any:
    model = charlm.ngram(text, smoothing="uniform-mix")
    model.estimator.weight = weight
    return model


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "order": (lambda a, b: [charlm.ngram(a, order=2), charlm.ngram(b, order=3)], "--order"),
    "smoothing": (lambda a, b: [charlm.ngram(a), charlm.ngram(b, smoothing="kneser-ney")], "--smoothing"),
    "parameter": (lambda a, b: [_mixed(a, 0.2), _mixed(b, 0.3)], "--tune-on"),
    "one": (lambda a, b: [charlm.ngram(a)], "two or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exact_is_refused(texts: list[Path], tmp_path: Path, case: str) -> None:
    make, sentence = REFUSED[case]
    with pytest.raises(OptionError, match=sentence):
        charlm.merge(make(*(charlm.read_text(path) for path in texts[:2])), out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_different_bytes_and_readings_are_refused(texts: list[Path], tmp_path: Path) -> None:
    small = [charlm.ngram(charlm.read_text(path, vocab_size=5)) for path in texts[:2]]
    with pytest.raises(OptionError, match="--vocab-size"):
        charlm.merge(small, out=tmp_path / "m")
    other = [charlm.ngram(charlm.read_text(p, newlines=n)) for p, n in zip(texts, ("keep", "normalise"), strict=False)]
    with pytest.raises(OptionError, match="reading options"):
        charlm.merge(other, out=tmp_path / "m")


def test_the_command_merges(texts: list[Path], tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = CliRunner().invoke(cli, ["ngram", *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout.strip()

    shards = [run(path, "--split", "100/0/0", "--order", 2, "--out", path.with_suffix("")) for path in texts]
    assert run("--merge", *shards, "--out", tmp_path / "m") == str(tmp_path / "m")
    assert run("--merge", *shards, "--out", tmp_path / "m") == str(tmp_path / "m-2")
    whole(texts, tmp_path / "one", "100/0/0", order=2, smoothing="none")
    assert levels(tmp_path / "m") == levels(tmp_path / "one")
