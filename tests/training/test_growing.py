"""A vocabulary that grows: rows matched by character, the old text as well foreseen as before, the new one learned; and
an older text that is kept in the mix.
"""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm
from charlm.checkpoint import grown
from charlm.errors import CheckpointError, OptionError
from charlm.info import describe
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from charlm.training.interfaces import Observer, StepReport
from charlm.training.language import Lanes, Ring

OLD = "the cat sat on the mat; the rat ran. " * 60
NEW = OLD.replace("cat", "căt").replace("rat", "răț")  # two new characters
SMALL = {"layers": 1, "hidden": 24, "seq_length": 24, "batch_size": 8, "lr": 0.01}


@pytest.mark.parametrize("config", [{}, {"embedding": 5}, {"embedding": 8, "tied": True, "model": "gru"}])
def test_rows_are_matched_by_character(config: dict[str, object]) -> None:
    """Against the old model: among old characters the probabilities keep their ratios, whatever was read."""
    torch.manual_seed(0)
    model = CharRNN(Vocab.of("bdf"), RNNConfig(**{"hidden": 8, "layers": 2, **config}))  # type: ignore[arg-type]
    more = grown(model, Vocab.of("abcdefg"))
    before, after = model.next("bdffdb"), more.next("bdffdb")
    for character in "df":
        assert after[character] / after["b"] == pytest.approx(before[character] / before["b"], rel=1e-5)
    assert sum(after[character] for character in "aceg") < 0.4 * max(after[c] for c in "bdf") + 1e-6
    if not config.get("tied"):
        unknown, state = model.logprobs(torch.tensor([[-1]]), model.initial_state(1))
        read, _ = more.logprobs(torch.tensor([[0]]), more.initial_state(1))  # a new one is read as an unknown one
        assert torch.allclose((read - read[..., 1:2])[0, 0, [1, 3, 5]], (unknown - unknown[..., :1])[0, 0], atol=1e-5)


@pytest.mark.slow
def test_fine_tuning_on_a_text_with_two_new_characters() -> None:
    first = charlm.train(charlm.Text.of(OLD), **SMALL, max_steps=150)
    old = charlm.Text.of(OLD, vocab=first.vocab).test
    was = first.evaluate(old).nats
    assert grown(first, Vocab.of(OLD + NEW)).evaluate(old).nats < was + 0.02
    text = charlm.Text.of(NEW)
    second = charlm.train(text, init_from=first, **{**SMALL, "max_steps": 150, "hidden": None, "layers": None})
    assert set(second.vocab.characters) == set(OLD + NEW)
    assert second.evaluate(text.test).nats < 0.3


def test_a_text_in_other_characters_is_matched_by_character_and_bytes_are_refused() -> None:
    model = CharRNN(Vocab.of("abc"), RNNConfig(hidden=8))
    text = charlm.Text.of("xyzzy" * 100)
    trained = charlm.train(text, init_from=model, max_steps=1, seq_length=8, batch_size=2)
    assert "".join(trained.vocab.characters) == "abcxyz"
    spelled = charlm.Text.of("abc" * 100, vocab=Vocab.of_bytes())
    with pytest.raises(OptionError, match="read it with vocab"):
        charlm.train(spelled, init_from=model, max_steps=1)
    with pytest.raises(OptionError, match="read it without vocab"):
        charlm.train(charlm.Text.of("abcd" * 99, vocab=model.vocab), init_from=model, max_steps=1)


def test_some_lanes_read_the_older_text_round_and_round() -> None:
    """Against a loop in plain Python: every window of two epochs, whole and for the lanes of one process."""
    new, old, spans = np.arange(100), np.arange(200, 230), np.array([[0, 4], [4, 15], [20, 29]])
    ring = [(old[i], old[i + 1], i in (0, 4, 20)) for a, b in spans.tolist() for i in range(a, b - 1)]
    whole = np.array([[0, 100]])
    cut = Lanes(new, whole, lanes=4, window=7, seed=3, replay=Ring(old, spans), share=0.4)
    plain = Lanes(new, whole, lanes=2, window=7, seed=3)
    assert (cut.lanes, cut.replayed, cut.windows_per_epoch) == (4, 2, plain.windows_per_epoch)
    time = 0
    for epoch in range(2):
        for number in range(cut.windows_per_epoch):
            window, alone = cut.window_at(epoch, number), plain.window_at(epoch, number)
            assert (window.inputs_TB[:, :2] == alone.inputs_TB).all()
            assert (window.targets_TB[:, :2] == alone.targets_TB).all()
            assert window.count == alone.count + 2 * len(window.inputs_TB)
            for t in range(len(window.inputs_TB)):
                for lane in (0, 1):
                    read, wanted, starts = ring[(lane * len(ring) // 2 + time) % len(ring)]
                    assert (window.inputs_TB[t, 2 + lane], window.targets_TB[t, 2 + lane]) == (read, wanted)
                    if starts and (number or t):
                        assert window.resets_TB is not None
                        assert window.resets_TB[t, 2 + lane]
                time += 1
            last = cut.window_at(epoch, number, slice(1, 4))
            assert (last.targets_TB == window.targets_TB[:, 1:]).all()
    with pytest.raises(OptionError, match="--batch-size of 2"):
        Lanes(new, whole, lanes=1, window=7, replay=Ring(old, spans), share=0.4)


class Interrupting(Observer):
    """Presses Ctrl-C after nine steps."""

    def on_step(self, report: StepReport) -> None:
        if report.progress.step == 9:
            signal.raise_signal(signal.SIGINT)


def test_a_run_with_replay_goes_on_to_the_bit_and_says_what_it_replays(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text(OLD[:900])
    (tmp_path / "new.txt").write_text(NEW[:900])
    shape = {**SMALL, "hidden": 8, "max_steps": 3}
    charlm.train(charlm.read_text(tmp_path / "old.txt"), **shape, out=tmp_path / "first")
    text = charlm.read_text(tmp_path / "new.txt")
    more = {"seq_length": 10, "batch_size": 4, "init_from": tmp_path / "first", "replay": tmp_path / "old.txt"}
    whole = charlm.train(text, **more, max_steps=14)  # an epoch has 24 windows
    charlm.train(text, **more, max_steps=14, out=tmp_path / "second", observer=Interrupting())
    again = charlm.train(resume=tmp_path / "second")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["training"]["replay_share"] == 0.25
    assert config["replay"]["names"] == [str(tmp_path / "old.txt")]
    assert config["replay"]["part"] == "train"
    assert ("replay", f"{tmp_path / 'old.txt'}, train part, 25 % of the batch") in describe(tmp_path / "second").facts
    with pytest.raises(OptionError, match="--replay-share cannot be changed"):
        charlm.train(resume=tmp_path / "second", replay_share=0.5)
    with pytest.raises(OptionError, match="name that with --init-from"):
        charlm.train(text, replay=tmp_path / "old.txt", max_steps=1)
    (tmp_path / "old.txt").write_text(OLD[:800])
    with pytest.raises(CheckpointError, match="not the one that"):
        charlm.train(resume=tmp_path / "second", max_steps=15)


@pytest.mark.slow
def test_an_older_text_that_is_replayed_is_not_forgotten() -> None:
    other = "zz yy xx ww vv uu " * 100
    old = charlm.Text.of(OLD)
    first = charlm.train(old, **SMALL, max_steps=150)
    was = first.evaluate(old.test).nats
    tuning = {**SMALL, "max_steps": 150, "hidden": None, "layers": None, "init_from": first}
    without, kept = (charlm.train(charlm.Text.of(other), **tuning, replay=text) for text in (None, old))
    after = [model.evaluate(charlm.Text.of(OLD, vocab=model.vocab).test).nats for model in (without, kept)]
    assert after[1] < was + 0.1 < after[0]
    assert kept.evaluate(charlm.Text.of(other, vocab=kept.vocab).test).nats < 1.5  # 1.95 by chance


def test_a_permuted_alphabet_of_the_same_size_is_matched_by_character() -> None:
    """Ids of the second text are those of other characters in the first one; what was learned stays with these."""
    model = CharRNN(Vocab.of("abcd"), RNNConfig(hidden=8))
    text = charlm.Text.of("dbeb" * 100)  # b, d, e: ids 0, 1, 2 here, and 1, 3 there
    tuned = charlm.train(text, init_from=model, max_steps=1, lr=1e-9, seq_length=8, batch_size=2)
    before, after = model.next("bdbd"), tuned.next("bdbd")
    for character in "acd":
        assert after[character] / after["b"] == pytest.approx(before[character] / before["b"], rel=1e-4)
