"""Model directories: what is refused, and that nothing is believed before it is checked."""

import json
import struct
from pathlib import Path

import pytest
import torch

import charlm
from charlm.checkpoint import TextFacts, load, newest
from charlm.errors import CharlmError, CheckpointError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import read_tensors, write_tensors
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.vocab import Vocab
from tests.helpers import keep

CORPUS = corpus_of_text("abracadabra\nsimsalabim\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = CharRNN(CORPUS.vocab, RNNConfig(model="gru", hidden=6, embedding=3))
    keep(tmp_path / "run", model, TextFacts.of(CORPUS, Split()))
    return tmp_path / "run"


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


@pytest.mark.slow
def test_facts_come_back(directory: Path) -> None:
    checkpoint = load(directory)
    assert checkpoint.name == "run"
    assert checkpoint.source.sha256 == CORPUS.sha256
    assert checkpoint.source.split == Split()
    assert checkpoint.start == CORPUS.vocab.characters.index("\n")
    assert not checkpoint.training  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", ["truncate", "flip", "huge header", "empty", "not safetensors", "missing"])
def test_damaged_weights_are_recognised(directory: Path, damage: str) -> None:
    path = directory / "best.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-5])
    elif damage == "flip":
        content[-20] ^= 0x40
        path.write_bytes(content)
    elif damage == "huge header":
        path.write_bytes(struct.pack("<Q", 1 << 60) + content[8:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "not safetensors":
        path.write_bytes(b"x" * 1000)
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        load(directory)
    assert load(directory, weights="last").kind == "rnn"


def test_wrong_descriptions_are_refused_in_a_sentence(directory: Path) -> None:
    config = directory / "config.json"
    good = config.read_text()
    shape = json.loads(good)["model"]
    cases: list[tuple[dict[str, object], str]] = [
        ({"format": 99}, "newer charlm"),
        ({"format": "1"}, "reads up to"),
        ({"kind": "transformer"}, "not a language model"),
        ({"model": {**shape, "hidden": 7}}, "has shape"),
        ({"model": {**shape, "hidden": 60_000, "layers": 64}}, "does not fit"),
        ({"model": {**shape, "hidden": "6"}}, "not a whole number"),
        ({"model": {**shape, "heads": 8}}, "unknown key"),
        ({"model": {**shape, "hidden": -1}}, "hidden"),
        ({"model": []}, "not an object"),
        ({"text": {}}, "not whole"),
        ({"text": {"names": 3}}, "not whole"),
    ]
    for values, message in cases:
        config.write_text(good)
        change(config, **values)
        with pytest.raises(CharlmError, match=message):
            load(directory)
    config.write_text("[]")
    with pytest.raises(CheckpointError, match="not the description"):
        load(directory)


def test_vocabulary_must_fit(directory: Path) -> None:
    change(directory / "vocab.json", characters=["a", "b"])
    with pytest.raises(CheckpointError, match="not hold the symbols"):
        load(directory)
    change(directory / "config.json", vocab_sha256=Vocab.of("ab").sha256)
    with pytest.raises(CheckpointError, match="has shape"):
        load(directory)
    change(directory / "vocab.json", characters=["b", "a"])
    with pytest.raises(CheckpointError, match="sorted"):
        load(directory)
    (directory / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load(directory)


def test_missing_and_foreign_directories(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model directory"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="train one"):
        newest(tmp_path)


def test_the_newest_language_model_is_found(tmp_path: Path) -> None:
    model = CharRNN(CORPUS.vocab, RNNConfig(hidden=3))
    for name in ("b", "c", "a"):
        keep(tmp_path / name, model, TextFacts.of(CORPUS, Split()))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert newest(tmp_path).name == "a"


def test_tensors_and_metadata_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4).double(),
        "b/c": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    write_tensors(tmp_path / "t", tensors, {"progress": '{"é": 1}'})
    again, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"progress": '{"é": 1}'}
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    content = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(
        content.replace(b'\\"\\u00e9\\": 1' if b"\\u00e9" in content else "é".encode(), "ê".encode(), 1)
    )
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "t")


def test_double_precision_models_stay_double(tmp_path: Path) -> None:
    model = CharRNN(CORPUS.vocab, RNNConfig(hidden=3)).double()
    keep(tmp_path / "d", model, TextFacts.of(CORPUS, Split()))
    assert next(load(tmp_path / "d").parameters()).dtype == torch.float64  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["network", "counts", "run", "fit"])
def test_a_replaced_character_is_noticed(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = charlm.Text.of("abracadabra\nsimsalabim\n" * 40), tmp_path / "model"
    if kind == "network":
        CharRNN(text.vocab, RNNConfig(model="gru", hidden=6)).save(out)
    elif kind == "counts":
        charlm.ngram(text, order=2, smoothing="kneser-ney").save(out)
    elif kind == "run":
        charlm.train(text, hidden=4, max_steps=2, batch_size=2, seq_length=8, out=out)
    else:
        charlm.SequenceClassifier(hidden=4, max_steps=2).fit(["ab", "ba"] * 20, [0, 1] * 20).save(out)

    def opened() -> object:
        return charlm.SequenceClassifier.load(out) if kind == "fit" else load(out)

    opened()
    symbols = json.loads((out / "vocab.json").read_text())["characters"]
    change(out / "vocab.json", characters=sorted([*symbols[:-1], "z"]))
    with pytest.raises(CheckpointError, match="not hold the symbols that the model was made with"):
        opened()


def test_weights_without_a_hash_of_their_symbols_are_read(directory: Path) -> None:
    tensors, metadata = read_tensors(directory / "best.safetensors")
    assert metadata["vocab_sha256"] == CORPUS.vocab.sha256
    write_tensors(directory / "best.safetensors", tensors)
    config = json.loads((directory / "config.json").read_text())
    del config["vocab_sha256"]
    (directory / "config.json").write_text(json.dumps(config))
    load(directory)
