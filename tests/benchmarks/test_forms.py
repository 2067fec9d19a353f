"""Whether text has the form it should have: the bundled texts have it, and each kind of fault is counted."""

from pathlib import Path

import pytest

from benchmarks import forms
from benchmarks.forms import Form

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize(
    ("name", "form", "least"),
    [
        ("shakespeare.txt", "drama", 500),
        ("algebra.tex", "latex", 3000),
        ("wiki.xml", "xml", 1000),
        ("wiki.xml", "wiki", 1000),
    ],
)
def test_the_bundled_texts_have_their_form(name: str, form: str, least: int) -> None:
    found = forms.FORMS[form]((DATA / name).read_text())
    assert found.all > least
    assert found.share > 0.999, found
    assert found.named in (None, found.right)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A:\nx\n\nB:\ny\n\nC:\nz", Form(2, 2)),  # the last may be cut off
        ("\n\n\nA: x\n\nb:\ny\n\n\n\nEnd", Form(2, 0)),
        ("", Form(0, 0)),
    ],
)
def test_blocks_of_a_drama(text: str, expected: Form) -> None:
    assert forms.drama(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\begin{a}{x}\end{a}", Form(4, 4, 4)),
        (r"\begin{a}{x\end{a}}", Form(4, 3, 3)),  # crossing
        (r"}\end{a}{", Form(2, 1, 1)),
        (r"\{ \\{a} \%{b}", Form(2, 2, 2)),  # an escaped brace is none, one behind a line break is
        (r"\begin {a} \end{b}", Form(3, 3, 2)),  # another's name
        (r"\begin{a}\begin{b}\end{a}", Form(5, 4, 4)),  # by kind the inner one, by name the outer one
    ],
)
def test_groups_and_environments(text: str, expected: Form) -> None:
    assert forms.latex(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<a x="1/"><b/></a>', Form(2, 2)),
        ("<a><b></a></b>", Form(2, 1)),
        ("1 < 2 > 0 </a>", Form(0, 0)),
        ("<a><a></a>", Form(2, 1)),
    ],
)
def test_tags(text: str, expected: Form) -> None:
    assert forms.xml(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x</b></page><page><a></a></page><page><b>", Form(2, 2)),  # what was cut off at the start and at the end
        ("<page><a></page>", Form(2, 1)),
        ("<page><a></a>", Form(0, 0)),
    ],
)
def test_tags_of_whole_pages(text: str, expected: Form) -> None:
    assert forms.wiki(text) == expected
