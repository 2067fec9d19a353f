"""How the characters that a network read are shown."""

import numpy as np

from charlm.recurrent.inspection import symbols_of
from charlm.text.vocab import Vocab


def test_symbols_are_the_text() -> None:
    text = "né \u20ac \U0001f600!"
    vocab = Vocab.of("ne !").with_fallback()
    ids = vocab.encode(text)
    shown = symbols_of(vocab, ids)
    assert len(shown) == len(ids)
    assert "".join(shown) == text
    broken = np.append(ids[1:2], ids[0])  # the first byte of é, and then an n
    assert symbols_of(vocab, broken) == ["", "\ufffdn"]
    assert "".join(symbols_of(vocab, ids[1:2])) == "\ufffd"
    assert symbols_of(Vocab.of("a"), np.array([0, -1])) == ["a", "\ufffd"]
