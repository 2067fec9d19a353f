"""Known texts: the three that come with charlm, and those that published numbers are about, which are downloaded.

`catalog.json` lists them. A download is resumed where it broke off, checked, and put in place only when whole.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from charlm.display import bytes_bar
from charlm.errors import CharlmError, OptionError
from charlm.files import atomic_writer, write_json


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


@cache
def catalog() -> tuple[KnownText, ...]:
    """All known texts, which `catalog.json` describes."""
    entries = json.loads(Path(__file__).with_name("catalog.json").read_text(encoding="utf-8"))
    return tuple(KnownText(**entry) for entry in entries)


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
    for text in catalog():
        if text.name == name:
            return text
    near = difflib.get_close_matches(name, [text.name for text in catalog()], 1)
    hint = f", did you mean {near[0]!r}?" if near else ":"
    raise OptionError(f"there is no known text {name!r}{hint} `charlm corpus list` shows them all")


def bundled_names() -> str:
    """The texts that come with charlm, for a sentence.

    >>> bundled_names()
    'data/shakespeare.txt, data/algebra.tex and data/wiki.xml'
    """
    *most, last = [f"data/{text.file}" for text in catalog() if text.bundled]
    return f"{', '.join(most)} and {last}"


BytesHere = Callable[[int, int | None], object]
"""Called with the bytes so far and the bytes in all, None where the server does not say."""

_BLOCK = 1 << 16
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EISDIR, errno.EFBIG}


def get(name: str, directory: str | Path = "data", *, progress: bool | None = None) -> Path:
    """Downloads a text that charlm knows by name, as `charlm corpus list` shows them; returns the path of its file.

    A text that comes with charlm is not downloaded: its path in the repository is returned.

    Args:
        name: of the text.
        directory: where its file goes.
        progress: show a bar; None shows it on a terminal or in a notebook.

    Raises:
        OptionError: the name is unknown, or another file has the text's name.
        CharlmError: no network, a refusing server, a broken or wrong download; nothing is put in place then.

    >>> get("wiki.xml").as_posix()
    'data/wiki.xml'
    """
    text = known(name)
    if text.bundled:
        return Path("data") / text.file
    with bytes_bar(text.name, text.download_size or text.size, show=progress) as tell:
        return fetch(text, Path(directory), tell)


def fetch(text: KnownText, directory: Path, progress: BytesHere | None = None) -> Path:
    """`get` for a text of the catalogue; a text that is there and right is left alone.

    Args:
        text: of the catalogue.
        directory: where its file goes.
        progress: called with the bytes that are there and those that there will be.
    """
    if text.url is None:
        raise OptionError(f"{text.name} comes with charlm and is not downloaded: see data/{text.file}")
    target = directory / text.file
    if target.exists():
        if _is_right(target, text):
            return target
        raise OptionError(f"{target} is there already and is not {text.name}: move it away, or name another directory")
    packed = target.with_name(f"{text.file}.zip.part" if text.member else f"{text.file}.part")
    download(text.url, packed, size=text.download_size or text.size, progress=progress)
    try:
        _put_in_place(packed, target, text)
    finally:
        for leftover in (packed, _note_of(packed)):
            leftover.unlink(missing_ok=True)
    return target


def _is_right(path: Path, text: KnownText) -> bool:
    if not path.is_file() or (text.size is not None and path.stat().st_size != text.size):
        return False
    with open(path, "rb") as file:
        return text.checksum is None or _digest(file, text.checksum) == text.checksum


def _put_in_place(packed: Path, target: Path, text: KnownText) -> None:
    """Unpacks and checks a whole download; `target` appears only if everything is right."""
    digest = hashlib.new((text.checksum or "sha256").partition(":")[0], usedforsecurity=False)
    found = 0
    with atomic_writer(target) as out:
        for block in _content(packed, text):
            out.write(block)
            digest.update(block)
            found += len(block)
        if text.size is not None and found != text.size:
            raise CharlmError(
                f"the download of {text.name} has {found:,} bytes instead of {text.size:,}, so it was not "
                f"kept: try again later, or look at {text.source}"
            )
        checksum = f"{digest.name}:{digest.hexdigest()}"
        if text.checksum is not None and checksum != text.checksum:
            raise CharlmError(
                f"the download of {text.name} has the checksum {checksum} instead of {text.checksum}, so it "
                f"was not kept: try again, or look at {text.source}"
            )


def _content(packed: Path, text: KnownText) -> Iterator[bytes]:
    """The text in a download, block by block; of a zip never more than the known size and a byte."""
    if text.member is None:
        with open(packed, "rb") as plain:
            yield from iter(lambda: plain.read(1 << 20), b"")
        return
    left = text.size + 1 if text.size is not None else 1 << 40
    try:
        with zipfile.ZipFile(packed) as archive, archive.open(text.member) as source:
            while left > 0 and (block := source.read(min(left, 1 << 20))):
                yield block
                left -= len(block)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CharlmError(
            f"the download of {text.name} is not a zip file with {text.member} in it ({error}), so it was "
            "not kept: try again"
        ) from None


def _digest(file: BufferedReader, like: str) -> str:
    """The checksum of a file by the algorithm that `like` names, in the same way of writing."""
    digest = hashlib.file_digest(file, lambda: hashlib.new(like.partition(":")[0], usedforsecurity=False))
    return f"{digest.name}:{digest.hexdigest()}"


def download(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    progress: BytesHere | None = None,
    attempts: int = 4,
    timeout: float = 30.0,
) -> None:
    """Downloads `url` into the file `part`, going on where an earlier attempt broke off.

    What is there already is kept only if the server confirms that the rest belongs to the same file: by its
    entity tag or date (`If-Range`), or, where it gives neither, by the total size. A server that cannot send
    the rest sends all of it again.

    Args:
        url: http or https.
        part: the file to fill; it stays where a download breaks off, so that the next call can go on.
        size: how many bytes the whole must have; None where unknown.
        progress: called with the bytes that are there and those that there will be.
        attempts: how many times in a row the connection may break without a new byte.
        timeout: seconds of silence after which a connection counts as broken.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_rest(url, part, size, progress, timeout):
                return
            cut: Exception | None = None
        except urllib.error.HTTPError as error:
            raise CharlmError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise CharlmError(f"{part} cannot be written ({error.strerror}): name another directory") from None
            cut = error
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= attempts or (cut is not None and after == 0):
            raise _broken(url, after, cut) from None


def _broken(url: str, done: int, cut: Exception | None) -> CharlmError:
    host = urllib.parse.urlsplit(url).netloc
    reason = getattr(cut, "reason", cut) or "the connection was cut"
    if isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    if done:
        return CharlmError(
            f"the download from {host} broke off after {done:,} bytes ({reason}): run the same command "
            "again, it goes on from there"
        )
    return CharlmError(
        f"{host} cannot be reached ({reason}): check the network, or use a text that comes with charlm and "
        f"needs none, {bundled_names()}"
    )


def _fetch_rest(url: str, part: Path, size: int | None, progress: BytesHere | None, timeout: float) -> bool:
    """One request for what is missing; whether the file is whole now."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return True
    request = urllib.request.Request(url, headers={"User-Agent": "charlm", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if validator := _validator(part):
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        error.close()
        part.unlink()  # longer than the file is, or of another file: begin again
        return False
    with response:
        return _receive(response, part, have, size, progress)


def _receive(response: Any, part: Path, have: int, size: int | None, progress: BytesHere | None) -> bool:
    total = _total(response)
    wanted = size if size is not None else total
    if size is not None and total is not None and total != size:
        raise CharlmError(f"{response.url} has {total:,} bytes now instead of {size:,}: it is another file than it was")
    resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT and _resumes(response, part, have, wanted)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and not resumes:
        part.unlink(missing_ok=True)
        return False
    _remember(part, response)
    done = have if resumes else 0
    with open(part, "ab" if resumes else "wb") as file:
        while block := response.read(_BLOCK):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, wanted)
        file.flush()
        os.fsync(file.fileno())
    return total is None or done >= total


def _total(response: Any) -> int | None:
    """How many bytes the whole file has, as the server says; None where it does not."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        total = str(response.headers.get("Content-Range", "")).rpartition("/")[2]
    else:
        total = str(response.headers.get("Content-Length", ""))
    return int(total) if total.isdecimal() else None


def _resumes(response: Any, part: Path, have: int, wanted: int | None) -> bool:
    """Whether a partial answer goes on exactly where the file ends and belongs to the same whole."""
    starts = str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    return starts and (_validator(part) is not None or (wanted is not None and _total(response) == wanted))


def _note_of(part: Path) -> Path:
    """The file that keeps the server's entity tag or date of the download."""
    return part.with_name(f"{part.name.removesuffix('.part')}.etag.part")


def _remember(part: Path, response: Any) -> None:
    tag = response.headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        write_json(_note_of(part), {"validator": validator})
    else:
        _note_of(part).unlink(missing_ok=True)


def _validator(part: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(_note_of(part).read_text(encoding="utf-8"))["validator"])
    return None
