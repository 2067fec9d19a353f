"""A vocabulary that grows: rows matched by character, the old text as well foreseen as before, the new one learned."""

import pytest
import torch

import charlm
from charlm.errors import OptionError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from charlm.training.language_run import grown

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
