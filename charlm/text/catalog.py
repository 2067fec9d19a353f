"""Known texts: the three that come with charlm, and those that published numbers are about."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from charlm.errors import OptionError

__all__ = ["CATALOG", "KnownText", "bundled_names", "known"]


@dataclass(frozen=True, kw_only=True)
class KnownText:
    """One text of the catalogue.

    Args:
        name: what `charlm corpus get` calls it.
        about: one line.
        licence: the terms of the text.
        source: where it is described, or who wrote it.
        file: its name under `data/`.
        size: its bytes when unpacked; None where no published figure is known.
        checksum: of the unpacked file, as `sha256:…`, `sha1:…` or `md5:…`; None where none is published.
        url: where it is downloaded; None for a text that comes with charlm.
        download_size: the bytes to download where they differ from `size`.
        member: the file inside the downloaded zip; None for a plain file.
    """

    name: str
    about: str
    licence: str
    source: str
    file: str
    size: int | None = None
    checksum: str | None = None
    url: str | None = None
    download_size: int | None = None
    member: str | None = None

    @property
    def bundled(self) -> bool:
        """Whether the text is in the repository and need not be downloaded."""
        return self.url is None


_OURS = "MIT, as charlm"
_WRITTEN = "written for charlm"
_WIKIPEDIA = "GFDL (text of the English Wikipedia, March 2006)"
_MAHONEY = "http://mattmahoney.net/dc/textdata.html"

CATALOG = (
    KnownText(
        name="tinyshakespeare",
        about="a million characters of Shakespeare: what most published character-level numbers are about",
        licence="public domain",
        source="https://github.com/karpathy/char-rnn",
        file="tinyshakespeare.txt",
        size=1_115_394,
        checksum="sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    ),
    KnownText(
        name="shakespeare",
        about="the collected plays and poems, 4.6 million characters: Karpathy's and Goldberg's articles",
        licence="public domain",
        source="https://karpathy.github.io/2015/05/21/rnn-effectiveness/",
        file="shakespeare_4.5MB.txt",
        size=4_573_338,
        url="https://cs.stanford.edu/people/karpathy/char-rnn/shakespeare_input.txt",
    ),
    KnownText(
        name="text8",
        about="a hundred million characters of Wikipedia, a-z and blanks alone",
        licence=_WIKIPEDIA,
        source=_MAHONEY,
        file="text8",
        size=100_000_000,
        checksum="md5:3bea1919949baf155f99411df5fada7e",
        url="http://mattmahoney.net/dc/text8.zip",
        download_size=31_344_016,
        member="text8",
    ),
    KnownText(
        name="enwik8",
        about="the first hundred million bytes of a dump of Wikipedia; numbers are per byte: --bytes",
        licence=_WIKIPEDIA,
        source=_MAHONEY,
        file="enwik8",
        size=100_000_000,
        checksum="sha1:57b8363b814821dc9d47aa4d41f58733519076b2",
        url="http://mattmahoney.net/dc/enwik8.zip",
        download_size=36_445_475,
        member="enwik8",
    ),
    KnownText(
        name="shakespeare.txt",
        about="The Drowned Bell, a verse drama in five acts, in the layout of the First Folio",
        licence=_OURS,
        source=_WRITTEN,
        file="shakespeare.txt",
    ),
    KnownText(
        name="algebra.tex",
        about="a LaTeX monograph on commutative rings and their spectra",
        licence=_OURS,
        source=_WRITTEN,
        file="algebra.tex",
    ),
    KnownText(
        name="wiki.xml",
        about="an encyclopaedia's pages in the layout of a MediaWiki export",
        licence=_OURS,
        source=_WRITTEN,
        file="wiki.xml",
    ),
)


def known(name: str) -> KnownText:
    """The text of that name; an unknown name is refused with the nearest known one.

    >>> known("enwik8").file
    'enwik8'
    >>> known("tinyshakespear")
    Traceback (most recent call last):
    ...
    charlm.errors.OptionError: there is no known text 'tinyshakespear', did you mean 'tinyshakespeare'?
    `charlm corpus list` shows them all
    """
    for text in CATALOG:
        if text.name == name:
            return text
    near = difflib.get_close_matches(name, [text.name for text in CATALOG], 1)
    hint = f", did you mean {near[0]!r}?" if near else ":"
    raise OptionError(f"there is no known text {name!r}{hint} `charlm corpus list` shows them all")


def bundled_names() -> str:
    """The texts that come with charlm, for a sentence.

    >>> bundled_names()
    'data/shakespeare.txt, data/algebra.tex and data/wiki.xml'
    """
    *most, last = [f"data/{text.file}" for text in CATALOG if text.bundled]
    return f"{', '.join(most)} and {last}"
