"""Runs of networks that look back: the same to the bit where they were interrupted, saved, opened and gone on from."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import charlm
from charlm.checkpoint import grown
from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN
from charlm.tensors import read_tensors
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Observer, StepReport
from charlm.training.recipe import choose, window_bytes
from tests.conftest import Run
from tests.training.test_rows import same

CPU = torch.device("cpu")
TEXT = charlm.Text.of("she sells sea shells by the sea shore; the shells she sells are sea shells.\n" * 40)
SMALL: dict[str, Any] = {
    "model": "gru", "hidden": 10, "layers": 2, "look_back": 20, "seq_length": 12, "batch_size": 6, "lr": 0.02,
    "dropout": 0.2, "input_dropout": 0.1, "average": 0.1, "max_steps": 30,
}  # fmt: skip


class _Interrupting(Observer):
    def on_step(self, report: StepReport) -> None:
        if report.progress.step == 17:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_ends_as_a_whole_one(tmp_path: Path) -> None:
    whole = charlm.train(TEXT, **SMALL)
    charlm.train(TEXT, **SMALL, out=tmp_path / "run", observer=_Interrupting())
    assert same(whole, charlm.train(TEXT, resume=tmp_path / "run"))
    assert whole.config.look_back == 20
    assert "looking back" in whole.title


def test_a_saved_network_says_the_same_and_looks_back(tmp_path: Path) -> None:
    model = charlm.train(TEXT, **SMALL)
    model.save(tmp_path / "net")
    loaded = charlm.load(tmp_path / "net")
    assert isinstance(loaded, CharRNN)
    assert same(model, loaded)
    was = model.evaluate(TEXT.test).nats
    assert loaded.evaluate(TEXT.test).nats == was
    assert loaded.sample(length=60) == model.sample(length=60)
    with torch.no_grad():
        loaded.look_back.own.bias.add_(9.0)  # type: ignore[union-attr]
    assert loaded.evaluate(TEXT.test).nats != was


def test_new_characters_are_read_as_unknown_ones() -> None:
    first = charlm.train(TEXT, **SMALL)
    more = grown(first, Vocab.of(str(TEXT) + "ß"))
    assert more.look_back is not None
    assert more.evaluate(TEXT.test).nats == pytest.approx(first.evaluate(TEXT.test).nats, abs=0.01)
    new = more.vocab.characters.index("ß")
    assert torch.equal(more.look_back.key[:, new], more.look_back.key[:, -1])
    start = {"init_from": first, "max_steps": 1, "seq_length": 12, "batch_size": 2}
    assert charlm.train(TEXT, **start).config.look_back == 20
    with pytest.raises(OptionError, match="--look-back 30 does not fit the weights of --init-from"):
        charlm.train(TEXT, **start, look_back=30)


def test_it_is_asked_for_and_its_memory_is_counted() -> None:
    shape = {"max_steps": 9, "layers": 2, "hidden": 64}
    plain, looking = (choose(10**6, CPU, shape | {"look_back": n}) for n in (0, 1024))
    assert "looks back on 1,024 characters" in looking.line()
    more = window_bytes(looking.network, 60, 1024) - window_bytes(plain.network, 60, 1024)
    assert more == 4 * 1024 * (1024 + 13 * 60)


def test_it_is_a_default_where_there_is_much_to_look_back_on() -> None:
    assert choose(10**6, CPU, {}).network.look_back > 0
    assert choose(10**6, CPU, {}, pieces=10).network.look_back > 0
    for characters, device, given, symbols, pieces in [
        (10_000, CPU, {}, 64, 1),
        (10**6, CPU, {}, 64, 10**4),  # items of a hundred characters
        (10**6, CPU, {}, 3000, 1),
        (10**6, torch.device("cuda"), {}, 64, 1),
        (10**6, CPU, {"look_back": 0}, 64, 1),
    ]:
        assert choose(characters, device, given, symbols, pieces).network.look_back == 0, (characters, given)


def test_the_command_asks_for_it(charlm: Run, verse: Path, tmp_path: Path) -> None:
    small = ("--hidden", 8, "--layers", 1, "--seq-length", 16, "--batch-size", 4, "--max-steps", 2)
    code, _, err = charlm("train", verse, *small, "--look-back", 40, "--out", "net")
    assert code == 0, err
    assert "look_back.key" in read_tensors(tmp_path / "net" / "last.safetensors")[0]
    code, out, _ = charlm("sample", "net", "--length", 50)
    assert (code, len(out) > 50) == (0, True)
    code, _, err = charlm("export", "net", "--html", "net.html")
    assert code == 0, err
    assert '"look_back":{' in (tmp_path / "net.html").read_text().replace(" ", "")
    code, _, err = charlm("train", verse, *small, "--look-back", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "look_back is 0 or 6 and more, not 3" in err
