"""Words, sentences and tokens: every character belongs to one, and their bits are those of the characters."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import charlm
from charlm.cli.main import cli
from charlm.errors import TextError
from charlm.text.words import sentence_starts, token_starts, word_starts

UGLY = "\tTo  be,\r\n or\tnot   \n\n\nto be? He said: “No.” \u00a0 Don't go"


def pieces(text: str, starts: list[int]) -> list[str]:
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def test_words_of_a_text_with_all_kinds_of_white_space() -> None:
    before, after = (pieces(UGLY, word_starts(UGLY, space)) for space in ("before", "after"))
    assert "".join(before) == "".join(after) == UGLY
    assert [word.strip() for word in before] == UGLY.split()
    assert [word.strip() for word in after if word.strip()] == UGLY.split()
    assert pieces("Don't go, no.", word_starts("Don't go, no.", apart=True)) == ["Don't", " go", ",", " no", "."]
    assert pieces("A b. C d!\nE", sentence_starts("A b. C d!\nE")) == ["A b.", " C d!", "\nE"]
    assert pieces("A b. C d!\nE", sentence_starts("A b. C d!\nE", "after")) == ["A b. ", "C d!\n", "E"]


def test_tokens_are_aligned_and_checked() -> None:
    starts = token_starts("Well, to be\n", ["Well", ",", "to", "be"])
    assert pieces("Well, to be\n", starts) == ["Well", ",", " to", " be", "\n"]
    with pytest.raises(TextError, match="token 3 is 'two', but at character 6"):
        token_starts("Well, to be", ["Well", ",", "two", "be"])
    with pytest.raises(TextError, match="after the last token"):
        token_starts("Well, to be", ["Well", ","])


@pytest.mark.slow
@pytest.mark.parametrize("space", ["before", "after"])
def test_words_add_up_to_characters_exactly_on_the_drama(space: str) -> None:
    """Each word is the sum of its own characters, added in their order, and every character is in one word."""
    drama = (Path(__file__).parents[2] / "data" / "shakespeare.txt").read_text(encoding="utf-8")
    tail = "\tTo  be,\tor   not\n\n to be"  # tabs, several blanks, no final line end
    model = charlm.ngram(charlm.Text.of(drama + tail), order=2, smoothing="kneser-ney")
    for text in (drama, tail):
        scored = charlm.score(model, text, space=space)  # type: ignore[arg-type]
        places = dict(zip(scored.items[0].position_N.tolist(), scored.bits_each.tolist(), strict=True))
        for word in scored.found("word")[0]:
            total = 0.0
            for place in range(word.start, word.end):
                total += places.pop(place, 0.0)
            assert word.bits == total
        assert not places


@pytest.mark.parametrize("space", ["before", "after"])
@pytest.mark.parametrize("by", ["word", "sentence"])
def test_words_add_up_to_characters(by: str, space: str) -> None:
    drama = (Path(__file__).parents[2] / "data" / "shakespeare.txt").read_text(encoding="utf-8")[:30_000]
    model = charlm.ngram(charlm.Text.of(drama + UGLY), order=3, smoothing="kneser-ney")
    spelled = charlm.ngram(charlm.Text.of(drama, vocab=charlm.Vocab.of_bytes()), order=3, smoothing="kneser-ney")
    for text in (drama, UGLY, UGLY.strip(), "one"):
        for each in (model, spelled):
            scored = charlm.score(each, text, space=space)  # type: ignore[arg-type]
            words = scored.found(by)[0]
            assert sum(word.bits for word in words) == pytest.approx(np.nansum(scored.bits_each), rel=1e-12)
            assert sum(word.characters for word in words) == len(scored.bits_each)
            assert [word.start for word in words[1:]] == [word.end for word in words[:-1]]


def test_the_command_prints_words_in_the_order_of_the_text(tmp_path: Path) -> None:
    text = charlm.Text.of("to be or not to be, that is the question. " * 20)
    charlm.ngram(text, order=3, smoothing="witten-bell", out=tmp_path / "model")
    (tmp_path / "t.txt").write_text("to be, or not. that is")
    (tmp_path / "tokens").write_text("to\nbe\n,\nor\nnot\n.\nthat\nis\n")
    command = ["score", str(tmp_path / "model"), str(tmp_path / "t.txt"), "--by", "word"]
    shown = CliRunner().invoke(cli, command).stdout.splitlines()
    assert shown[0].split("\t") == ["bits", "position", "characters", "word"]
    assert len(shown) == 7
    assert shown[1].split("\t")[2] == "1"
    rows = CliRunner().invoke(cli, [*command, "--json", "--tokens", str(tmp_path / "tokens")]).stdout.splitlines()
    assert [json.loads(row)["text"].strip() for row in rows] == ["to", "be", ",", "or", "not", ".", "that", "is"]
