"""Properties of positions against texts marked by hand, and the counting ones against naive loops; the measure against
all pairs counted one by one, the search against planted units, and a trained network.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.checkpoint import load
from charlm.recurrent.atlas import Atlas, Unit, read_units
from charlm.recurrent.model import CharRNN
from charlm.recurrent.properties import PROPERTIES, areas, blank_line, code_points_of, depth, find, odd, search, since
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.vocab import Vocab, code_points
from charlm.training.recipe import choose
from tests.training.runs import start


def marked(name: str, text: str) -> str:
    """The values as a string of digits under the text."""
    values = PROPERTIES[name](code_points(text))
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
        for name in PROPERTIES:
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


def test_code_points_of_symbols() -> None:
    vocab = Vocab.of("ne !").with_fallback()
    codes = code_points_of(vocab, vocab.encode("né!"))
    assert codes.tolist() == [ord("n"), 0xFFFD, 0xFFFD, ord("!")]


def by_pairs(unit: list[float], strata: list[int], has: list[bool]) -> float:
    """The share of pairs that the unit has right, pair by pair."""
    won = pairs = 0.0
    for i, one in enumerate(unit):
        for j, other in enumerate(unit):
            if strata[i] == strata[j] and has[i] and not has[j]:
                pairs += 1
                won += 1.0 if one > other else 0.5 if one == other else 0.0
    return won / pairs if pairs else float("nan")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_areas_by_counting_pairs(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 14))
    of = lambda items: data.draw(st.lists(items, min_size=length, max_size=length))
    strata = of(st.integers(0, 2))
    units = [of(st.sampled_from([-1.0, 0.0, 0.25, 1.0])) for _ in range(2)]
    flag, grade = of(st.integers(0, 1)), of(st.integers(0, 5))
    grade[0] = 3  # more than 0 and 1, so that it is compared with the median
    shifts = (0, data.draw(st.integers(1, length)))
    found = areas(np.array(units), np.array(strata), np.array([flag, grade]), shifts)
    for k, shift in enumerate(shifts):
        moved = [[row[(t + shift) % length] for t in range(length)] for row in (flag, grade)]
        median = {s: np.median([moved[1][t] for t in range(length) if strata[t] == s]) for s in strata}
        marks = [[bool(x) for x in moved[0]], [x > median[s] for x, s in zip(moved[1], strata, strict=True)]]
        for p in range(2):
            for u in range(2):
                expected = by_pairs(units[u], strata, marks[p])
                assert found[k, p, u] == pytest.approx(expected, nan_ok=True)


def prose(length: int, seed: int) -> str:
    """Words of the same letters, other ones in quotes and in brackets, which stay open for a few words."""
    rng = np.random.default_rng(seed)
    outer, quoted, inner = (["".join(rng.choice(list("abcdef"), size=4)) for _ in range(12)] for _ in range(3))
    pieces: list[str] = []
    while sum(map(len, pieces)) < length:
        pieces += [f"{word} " for word in rng.choice(outer, size=rng.integers(2, 8))]
        kind, (left, right) = ((quoted, '""'), (inner, "()"))[int(rng.integers(2))]
        pieces.append(left + " ".join(rng.choice(kind, size=rng.integers(2, 6))) + right + " ")
        if rng.random() < 0.2:
            pieces.append("\n")
    return "".join(pieces)[:length]


def planted(noise: float) -> tuple[Atlas, "CharRNN"]:
    """Random units of which number 2 falls inside brackets, and number 5 is a function of the character alone."""
    corpus = corpus_of_text(prose(6000, 1))
    rng = np.random.default_rng(2)
    values = rng.normal(size=(8, len(corpus))) * 0.2
    inside = PROPERTIES["inside ( )"](code_points_of(corpus.vocab, corpus.ids))
    values[2] = -0.5 * inside + noise * rng.normal(size=len(corpus))
    values[5] = corpus.ids / 100
    units = tuple(Unit(0, number) for number in range(8))
    atlas = Atlas(
        ids=corpus.ids.astype(np.int64),
        units=units,
        values_UT=values.astype(np.float16),
        gates=(),
        first=0,
        top_SK=np.zeros((0, 0), np.int64),
        chance_SK=np.zeros((0, 0), np.float32),
    )
    return atlas, corpus.vocab


def test_a_planted_unit_is_found_and_one_of_the_character_alone_is_not() -> None:
    atlas, vocab = planted(noise=0.1)
    findings = search(atlas, vocab, best=2)
    first = findings[0]
    assert (first.unit, first.follows, first.rises, first.found) == (Unit(0, 2), "inside ( )", False, True)
    assert first.area > 0.99
    assert 0.5 < first.control < 0.75
    assert "in a speech" not in {finding.follows for finding in findings}
    of_character = areas(atlas.values_UT, atlas.ids, (np.arange(6000) % 7 < 3)[None])[0, 0, 5]
    assert of_character == 0.5
    assert all(one.found >= other.found for one, other in pairwise(findings))


def test_units_of_noise_are_not_found() -> None:
    atlas, vocab = planted(noise=100.0)
    findings = search(atlas, vocab, best=1)
    assert findings
    assert sum(finding.found for finding in findings) <= 1  # at the 5 % level, of about six properties
    assert max(finding.area for finding in findings) < 0.6


def test_a_text_without_properties_finds_nothing() -> None:
    corpus = corpus_of_text("a" * 50)
    atlas, _ = planted(noise=1.0)
    flat = Atlas(**{**atlas.__dict__, "ids": corpus.ids.astype(np.int64), "values_UT": atlas.values_UT[:, :50]})
    assert search(flat, corpus.vocab) == []


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_trained_network_has_a_quote_and_a_bracket_unit(tmp_path: Path, cell: str) -> None:
    corpus = corpus_of_text(prose(60_000, 7))
    options = {"model": cell, "hidden": 48, "layers": 1, "dropout": 0.0, "lanes": 16, "window": 64, "lr": 0.003}
    plan = choose(len(corpus), torch.device("cpu"), {**options, "max_steps": 900, "backend": "fused"})
    start(tmp_path, corpus, Split.parse("90/5/5"), plan, torch.device("cpu")).train()
    model = load(tmp_path)
    assert isinstance(model, CharRNN)
    fresh = prose(66_000, 7)[-40_000:]  # the end of it was not seen; words are the same
    findings = search(read_units(model, model.vocab.encode(fresh)), model.vocab)
    best = {name: next(f for f in findings if f.follows == name) for name in ("inside double quotes", "inside ( )")}
    assert max(finding.area for finding in best.values()) >= 0.9
    for finding in best.values():
        assert finding.found
        assert finding.control < 0.65
