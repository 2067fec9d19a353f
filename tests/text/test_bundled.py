"""The texts that come with charlm keep the layout that makes them worth training on."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from charlm.text.corpus import read_corpus
from charlm.text.units import distinct_share

DATA = Path(__file__).parents[2] / "data"
LEAST = {"shakespeare.txt": 200_000, "algebra.tex": 250_000, "wiki.xml": 200_000}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_size_and_repetition(name: str, least: int) -> None:
    content = (DATA / name).read_bytes()
    assert content.isascii()
    assert b"\r" not in content
    assert content.endswith(b"\n")
    corpus = read_corpus([DATA / name])
    assert len(corpus) >= least
    assert distinct_share(corpus.ids, corpus.documents, 40) >= 0.97


def test_every_speech_begins_with_its_speaker() -> None:
    speeches = (DATA / "shakespeare.txt").read_text()[:-1].split("\n\n")
    assert all(re.match(r"[A-Z][A-Za-z ]*:\n\S", speech) for speech in speeches)
    speakers = {speech.partition(":")[0] for speech in speeches}
    assert len(speakers) > 20
    assert not any("\t" in speech or " \n" in speech for speech in speeches)


def test_the_monograph_is_balanced_and_its_references_lead_somewhere() -> None:
    text = (DATA / "algebra.tex").read_text()
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    opened: list[str] = []
    for way, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        if way == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\\(?:eq)?ref\{([^}]*)\}", text)) <= set(labels)


def test_the_encyclopaedia_is_well_formed() -> None:
    root = ElementTree.fromstring((DATA / "wiki.xml").read_text())
    pages = root.findall("page")
    titles = [page.findtext("title") for page in pages]
    assert len(pages) > 100
    assert len(set(titles)) == len(titles)
    assert all(page.findtext("revision/text") for page in pages)


def test_the_readme_has_the_sizes() -> None:
    readme = (DATA / "README.md").read_text()
    for name in LEAST:
        assert f"{len((DATA / name).read_text()):,}" in readme
