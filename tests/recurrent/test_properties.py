"""Properties of positions against texts marked by hand, and the counting ones against naive loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.recurrent.properties import PROPERTIES, blank_line, code_points_of, depth, find, odd, since, symbols_of
from charlm.text.vocab import Vocab, code_points

BY_NAME = {item.name: item.of for item in PROPERTIES}


def marked(name: str, text: str) -> str:
    """The values as a string of digits under the text."""
    values = BY_NAME[name](code_points(text))
    return "".join(str(int(value)) for value in values)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("inside double quotes", 'a "b" c"d\n\n"e', "00110001110" + "11"),
        ("inside double quotes", "\u201ca\u201d b", "11000"),
        ("inside ( )", "(a(b)c) d) (e\n\nf", "11111100000" + "1110" + "0"),
        ("inside { }", "{a\n\nb}c", "1111100"),
        ("inside [ ]", "x[i][j]", "0110110"),
        ("two or more brackets deep", "{(a)}(b)", "01100000"),
        ("in a LaTeX environment", r"\begin{a}x\end{a}y", "000000" + "1" * 8 + "0" * 4),
        ("in a LaTeX environment", r"\begin{document}x\begin{a}", "0" * 17 + "000000" + "111"),
        ("in a formula", r"a $b$ $$c$$ \$5 x", "00110" + "0111000" + "0" * 5),
        ("in a formula", "$a\n\nb$c", "1110011"),
        ("in a formula", r"\[x\] \\[y \(z\)", "0111000000001110"),
        ("in a LaTeX command's name", r"\ab c\d{e}", "0110001000"),
        ("in a comment after %", "a%b\nc\\%d", "01100000"),
        ("in a tag < >", "a<b>c</d>1 < 2<!x>", "01100111000000" + "1110"),
        ("on a speaker's name", "ANN:\nHi: so:\n\nBob:\nYes\n\nno:", "1111000000000" + "0" + "1111" + "0" * 9),
        ("in a speech", "ANN:\nHi\n\nx\n\nBob:\nY", "00001111" + "0" + "0" * 7 + "11"),
        ("in a run of capitals", "aBCdE FG", "00100001"),
        ("position in the line", "ab\nc\n\n", "120100"),
        ("position in the paragraph", "a\n\nbc\nd", "1201234"),
        ("position in the word", "ab c'd", "120101"),
    ],
)
def test_by_hand(name: str, text: str, expected: str) -> None:
    assert marked(name, text) == expected


def test_every_property_takes_any_text() -> None:
    for text in ("", "a", "\n", '"', "}", "$", "<", ":", "\\", "\u202e\u0000\U0001f600", "ANN:", "A:\n"):
        for name in BY_NAME:
            assert len(marked(name, text)) == len(text) or name.startswith("position")


@given(st.text(alphabet='()"\n x', max_size=60))
def test_counting_by_naive_loops(text: str) -> None:
    codes = code_points(text)
    opens, closes, ends = find(codes, "("), find(codes, ")"), blank_line(codes)
    level, quotes, ago = 0, 0, 0
    for t, character in enumerate(text):
        if text[max(0, t - 1) : t + 1] == "\n\n":
            level = quotes = 0
        level = max(0, level + (character == "(") - (character == ")"))
        quotes += character == '"'
        ago = 0 if character == "\n" else ago + 1
        assert depth(opens, closes, ends)[t] == level
        assert odd(find(codes, '"'), ends)[t] == quotes % 2
        assert since(find(codes, "\n"))[t] == ago


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
    codes = code_points_of(vocab, ids)
    assert codes[0] == ord("n")
    assert codes[1] == 0xFFFD
