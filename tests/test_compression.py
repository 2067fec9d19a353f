"""Compressed files: the same bytes come back, they are as long as their printed bits, and what is wrong is refused."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm
from charlm import compression
from charlm.compression import Compressed, Made, compress, decompress, made
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.lm.interface import State
from charlm.lm.model import TextModel
from charlm.nn.kernels import for_reading
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

DATA = Path(__file__).parents[1] / "data"
VERSE = (DATA / "shakespeare.txt").read_text()[:6000]
TEXT = charlm.Text.of(VERSE, split="100/0/0")


def network(vocab: Vocab = TEXT.vocab, seed: int = 1) -> CharRNN:
    model = CharRNN(vocab, RNNConfig(model="gru", hidden=12))
    model.reset_parameters(torch.Generator().manual_seed(seed))
    model.stack.backend = for_reading(model.device)
    return model


def with_grams() -> CharRNN:
    model = CharRNN(TEXT.vocab, RNNConfig(model="gru", hidden=12, grams=200))
    model.reset_parameters(torch.Generator().manual_seed(1))
    assert model.grams is not None
    model.grams.weight.data[:-1].normal_(generator=torch.Generator().manual_seed(2))
    model.stack.backend = for_reading(model.device)
    return model


def counted(**reading: object) -> Callable[[Path], TextModel]:
    def make(directory: Path) -> TextModel:
        path = directory / "text"
        path.write_bytes(VERSE.encode(str(reading.get("encoding", "utf-8"))))
        text = charlm.read_text(path, split="100/0/0", **reading)  # type: ignore[arg-type]
        return charlm.ngram(text, order=3, smoothing="kneser-ney")

    return make


MODELS: dict[str, Callable[[Path], TextModel]] = {
    "counts": counted(),
    "unsmoothed": lambda _: charlm.ngram(TEXT, order=2),
    "bytes": counted(bytes=True),
    "with a byte fallback": counted(vocab_size=40),
    "of UTF-16": counted(encoding="utf-16"),
    "of cp1252": counted(encoding="cp1252"),
    "of cp1252 with a byte fallback": counted(encoding="cp1252", vocab_size=30),
    "network": lambda _: network(),
    "network with weights of strings": lambda _: with_grams(),
    "mixture": lambda _: charlm.mix([network(), charlm.ngram(TEXT, order=2, smoothing="witten-bell")], cache=True),
}
CONTENTS = {
    "nothing": b"",
    "one byte": b"T",
    "a zero byte": b"\0",
    "its own words": VERSE[200:500].encode(),
    "unknown characters": "Жук — 猫\U0001f408 é\n".encode() * 3,
    "Windows line ends": b"to be\r\nor not\r\n",
    "mixed line ends": b"to\rbe\r\nor\nnot\n\r",
    "a byte order mark": b"\xef\xbb\xbfto be",
    "UTF-16": "to be é".encode("utf-16"),
    "UTF-16, the other way round": b"\xfe\xff" + "to be é".encode("utf-16-be"),
    "half of UTF-16": "to be é".encode("utf-16")[:-1],
    "Latin-1": "caf\xe9 na\xefve".encode("latin-1"),
    "what would join to a character": b"\xc3\x81\xc3 \x81 caf\xc3\xa9",
    "surrogates in UTF-8": b"a\xed\xa0\x80b\xed\xb2\x80",
    "all bytes": bytes(range(256)),
}


def as_long_as_printed(done: Compressed) -> None:
    printed = done.bits / 8
    assert printed - 8 <= len(done.packed) - done.header_bytes <= printed + 2  # zeros at the end are left out
    assert abs(len(done.packed) - printed) <= 0.001 * printed + 64 + max(0, done.header_bytes - 62)
    assert done.unknown_bits <= done.bits


@pytest.mark.parametrize("name", MODELS)
def test_any_content_comes_back(name: str, tmp_path: Path) -> None:
    model = MODELS[name](tmp_path)
    for content in list(CONTENTS.values())[: 5 if name == "mixture" else None]:  # which is slow
        done = compress(content, model)
        as_long_as_printed(done)
        assert decompress(done.packed, model) == content


def mutated(draw: np.random.Generator) -> bytes:
    """A piece of a text with bytes changed, cut out, doubled; sometimes nothing but noise."""
    start, size = int(draw.integers(0, 5000)), int(draw.integers(0, 120))
    content = bytearray(VERSE[start : start + size].encode())
    if draw.random() < 0.1:
        return bytes(draw.integers(0, 256, size, dtype=np.uint8))
    for _ in range(int(draw.integers(0, 6))):
        at = int(draw.integers(0, len(content) + 1))
        match draw.integers(4):
            case 0:
                content[at : at + 1] = bytes([int(draw.integers(256))])
            case 1:
                del content[at : at + 5]
            case 2:
                content[at:at] = content[at : at + 9] * 2
            case 3:
                content[at:at] = chr(int(draw.choice([0xE9, 0x3B1, 0x732B, 0x1F408]))).encode()
    return bytes(content)


def come_back(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    models = [charlm.ngram(TEXT, order=4, smoothing="kneser-ney"), network(), network(Vocab.of_bytes())]
    for number in range(count):
        content, model = mutated(draw), models[number % len(models)]
        done = compress(content, model, lanes=int(draw.integers(1, 4)))
        as_long_as_printed(done)
        assert decompress(done.packed, model) == content


def test_random_and_mutated_contents_come_back() -> None:
    come_back(30, seed=0)


@pytest.mark.slow
def test_a_thousand_random_and_mutated_contents_come_back() -> None:
    come_back(1000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shakespeare.txt", "algebra.tex", "wiki.xml"])
def test_the_bundled_texts_come_back(name: str) -> None:
    content = (DATA / name).read_bytes()
    model = charlm.ngram(charlm.Text.of(VERSE, split="100/0/0"), order=5, smoothing="kneser-ney")
    done = compress(content, model)
    assert abs(len(done.packed) - done.bits / 8) <= 0.001 * done.bits / 8 + 64
    assert decompress(done.packed, model) == content


def test_the_file_is_as_long_as_the_model_says_of_the_text() -> None:
    """The figure of `evaluate`, which reads in long calls, is what the coder needs, but for the first character."""
    model = charlm.ngram(TEXT, order=4, smoothing="kneser-ney")
    held = "".join(sign for sign in (DATA / "shakespeare.txt").read_text()[9000:13000] if sign in model.vocab)
    figures = model.evaluate(held)
    assert figures.unknown_targets == 0
    done = compress(held.encode(), model, lanes=1)
    expected = figures.nats / np.log(2) * figures.targets
    assert expected <= done.bits <= expected + 20


def test_what_is_cut_short_damaged_or_foreign_is_refused() -> None:
    model = charlm.ngram(TEXT, order=2, smoothing="kneser-ney")
    packed = compress(VERSE[:300].encode(), model).packed
    for size in range(len(packed)):
        with pytest.raises(CharlmError, match=r"damaged or cut short|not a file that"):
            decompress(packed[:size], model, force=True)
    for place in range(len(packed)):
        for bit in range(8):
            wrong = bytearray(packed)
            wrong[place] ^= 1 << bit
            with pytest.raises(CharlmError, match=r"damaged or cut short|not a file that|version"):
                decompress(bytes(wrong), model, force=True)
    for foreign in (b"", b"chlm", b"PK\x03\x04", VERSE.encode()):
        with pytest.raises(CharlmError, match="not a file that"):
            decompress(foreign, model)


def test_a_file_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(compression, "VERSION", compression.VERSION - 1)
        packed = compress(b"to be or not to be").packed
    with pytest.raises(CharlmError, match=r"the file has version 1, .* reads 2: install the charlm that"):
        decompress(packed, force=True)


def test_headers_that_make_no_sense_are_refused_whatever_they_hold() -> None:
    """Files with a right checksum and anything behind it: made by another program, or with intent."""
    model, draw = network(), np.random.default_rng(0)
    done = compress(b"to be", model)
    header, written = made(done.packed)
    for change in ({"lanes": 0}, {"lanes": 9}, {"unknown": 6}):
        with pytest.raises(CharlmError, match="no sense"):
            made(dataclasses.replace(header, **change).pack(written))  # type: ignore[arg-type]
    for change in (
        {"codec": "no such codec"},
        {"codec": "rot13"},
        {"symbols": 4},
        {"size": 6},
        {"content": b"12345678"},
    ):
        with pytest.raises(CharlmError, match="not what was compressed"):
            decompress(dataclasses.replace(header, **change).pack(written), model)  # type: ignore[arg-type]
    for _ in range(200):
        rest = draw.integers(0, 256, int(draw.integers(0, 60)), dtype=np.uint8).tobytes()
        digest = compression.hashlib.sha256(rest).digest()[:6]
        with pytest.raises(CharlmError):
            decompress(b"chlm" + bytes([compression.VERSION]) + digest + rest, model)


@pytest.mark.parametrize("name", ["charlm", "numpy", "machine", "kernels", "torch", "device", "backend"])
def test_another_machine_is_told_so_before_anything_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    header, written = made(compress(b"to be or not", model).packed)
    other = dataclasses.replace(header, circumstances={**header.circumstances, name: "another"}).pack(written)
    with monkeypatch.context() as patch:
        patch.setattr(compression, "decode_symbols", lambda *_, **__: pytest.fail("it was decoded"))
        with pytest.raises(OptionError, match=f"made with {name} another and here is .*--force"):
            decompress(other, model)
    assert decompress(other, model, force=True) == b"to be or not"


def test_a_machine_that_rounds_otherwise_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    packed = compress(VERSE[:900].encode(), model).packed
    exact = CharRNN.logprobs

    def otherwise(self: CharRNN, ids_TB: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        logp_TBV, state = exact(self, ids_TB, state)
        return logp_TBV * (1 + 1e-6), state

    monkeypatch.setattr(CharRNN, "logprobs", otherwise)
    with pytest.raises(OptionError, match="computes other numbers on this machine"):
        decompress(packed, model)
    with pytest.raises(CharlmError, match="not what was compressed"):
        decompress(packed, model, force=True)


def test_the_number_of_threads_makes_no_difference() -> None:
    model = network()
    packed = compress(VERSE[:300].encode(), model).packed
    torch.set_num_threads(2)
    assert compress(VERSE[:300].encode(), model).packed == packed
    assert torch.get_num_threads() == 2
    assert decompress(packed, model) == VERSE[:300].encode()


def test_another_model_is_refused() -> None:
    packed = compress(VERSE[:300].encode(), network()).packed
    for other in (network(seed=2), charlm.ngram(TEXT, order=2), network(Vocab.of_bytes())):
        with pytest.raises(OptionError, match="another model than"):
            decompress(packed, other)
        with pytest.raises(CharlmError, match="not what was compressed"):
            decompress(packed, other, force=True)


@pytest.mark.parametrize("name", ["counts", "network", "mixture"])
def test_a_model_is_the_same_one_in_memory_saved_and_opened(name: str, tmp_path: Path) -> None:
    model = MODELS[name](tmp_path)
    before = compress(b"to be or not", model).packed
    with pytest.raises(OptionError, match="had no directory"):
        decompress(before)
    model.save(tmp_path / "kept")
    opened = charlm.load(tmp_path / "kept")
    assert decompress(before, opened) == decompress(before, tmp_path / "kept") == b"to be or not"
    packed = compress(b"to be or not", str(tmp_path / "kept")).packed
    assert made(packed)[0].circumstances["model"] == str(tmp_path / "kept")
    assert decompress(packed) == b"to be or not"
    (tmp_path / "kept").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="model that made the file cannot be opened"):
        decompress(packed)
    assert decompress(packed, tmp_path / "moved") == b"to be or not"


def without_model(content: bytes) -> None:
    done = compress(content)
    as_long_as_printed(done)
    assert done.header_bytes <= 62
    assert made(done.packed)[0].circumstances["model"] == ""
    assert decompress(done.packed) == content


@pytest.mark.parametrize("name", CONTENTS)
def test_any_content_comes_back_without_a_model(name: str) -> None:
    without_model(CONTENTS[name])


@pytest.mark.slow
def test_a_thousand_contents_come_back_without_a_model() -> None:
    draw = np.random.default_rng(2)
    for _ in range(1000):
        without_model(mutated(draw))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shakespeare.txt", "algebra.tex", "wiki.xml"])
def test_the_bundled_texts_come_back_without_a_model(name: str) -> None:
    without_model((DATA / name).read_bytes())


@pytest.mark.parametrize("learning", ["fast", "best"])
def test_a_model_that_goes_on_learning(tmp_path: Path, learning: str) -> None:
    counted()(tmp_path).save(tmp_path / "kept")
    content = (VERSE[:300] + " and a stranger stranger stranger stranger").encode()
    done = compress(content, tmp_path / "kept", learning=learning)
    as_long_as_printed(done)
    assert made(done.packed)[0].circumstances["adaptive"] == learning
    assert decompress(done.packed) == content
    with pytest.raises(OptionError, match="name a model"):
        compress(content, learning="fast")


def test_wrong_use() -> None:
    with pytest.raises(OptionError, match="takes bytes, not str"):
        compress("to be", network())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least 1 lane"):
        compress(b"to be", network(), lanes=0)


def test_figures() -> None:
    done = compress("to be — or".encode(), network())
    assert done.header.size == 12
    assert done.header.symbols == 10
    assert done.header.unknown == 1
    assert f"of which 1 unknown ones cost {done.unknown_bits:,.0f}" in repr(done)
    assert done.to_json()["compressed"] == len(done.packed)
    assert isinstance(done.header, Made)
    with contextlib.suppress(OptionError):
        decompress(done.packed)
