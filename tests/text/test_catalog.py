"""The catalogue names what is there; downloads are whole, from a server that cuts connections and refuses ranges."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from charlm.errors import CharlmError, OptionError
from charlm.text.catalog import KnownText, bundled_names, catalog, download, fetch, known

ROOT = Path(__file__).parents[2]
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}


def test_names_and_files_are_each_given_once() -> None:
    for values in ([text.name for text in catalog()], [text.file for text in catalog()]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("text", catalog(), ids=lambda text: text.name)
def test_an_entry_is_whole(text: object) -> None:
    entry = known(text.name)  # type: ignore[attr-defined]
    assert entry.about
    assert entry.licence
    assert entry.source
    if entry.bundled:
        assert (ROOT / "data" / entry.file).stat().st_size > 80_000
    else:
        assert entry.url is not None
        assert entry.url.startswith("http")
        assert entry.size is not None
    if entry.checksum is not None:
        algorithm, digits = entry.checksum.split(":")
        assert len(digits) == DIGITS[algorithm]
        int(digits, 16)
    assert (entry.member is not None) == bool(entry.url and entry.url.endswith(".zip"))


def test_the_downloaded_names_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(f"/data/{text.file}" in ignored for text in catalog() if not text.bundled)
    assert not any(f"/data/{text.file}" in ignored for text in catalog() if text.bundled)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'enwik8'"):
        known("enwiki8")
    with pytest.raises(OptionError, match="corpus list"):
        known("zzz")


def test_the_bundled_texts_are_named_for_messages() -> None:
    assert bundled_names() == "data/shakespeare.txt, data/algebra.tex and data/wiki.xml"


CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


@dataclass
class Site:
    """What the server serves, how it misbehaves, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    tag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append(asked)
            if site.status != 200:
                self.send_error(site.status)
                return
            start = 0
            if asked and site.ranges and self.headers.get("If-Range", site.tag) == site.tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(site.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            else:
                self.send_response(200)
            if site.tag:
                self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            body = site.content[start:]
            if site.cuts:
                self.wfile.write(body[: site.cuts.pop(0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(here))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    here.url = f"http://127.0.0.1:{server.server_address[1]}/text"
    yield here
    server.shutdown()
    server.server_close()
    thread.join()


def entry(site: Site, content: bytes = CONTENT, member: str | None = None, **changes: object) -> KnownText:
    values: dict[str, object] = {
        "name": "sample",
        "about": "a sample",
        "licence": "none",
        "source": "here",
        "file": "sample.txt",
        "size": len(content),
        "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "url": site.url,
        "download_size": len(site.content),
        "member": member,
    }
    return KnownText(**{**values, **changes})  # type: ignore[arg-type]


def zipped(content: bytes, name: str = "inside") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def test_a_download_arrives_whole_with_progress(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(entry(site), tmp_path / "data", lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["sample.txt"]


def test_a_cut_connection_is_resumed_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 200_000]
    path = fetch(entry(site), tmp_path)
    assert path.read_bytes() == CONTENT
    assert site.asked == [None, "bytes=100000-", "bytes=300000-"]


def test_a_second_command_goes_on_where_the_first_broke_off(site: Site, tmp_path: Path) -> None:
    site.cuts = [150_000, 0]
    with pytest.raises(CharlmError, match=r"broke off after 150,000 bytes.*run the same command again"):
        download(site.url, tmp_path / "x.part", size=len(CONTENT), attempts=1)
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:150_000]
    download(site.url, tmp_path / "x.part", size=len(CONTENT))
    assert (tmp_path / "x.part").read_bytes() == CONTENT
    assert site.asked[-1] == "bytes=150000-"


def test_a_file_that_changed_meanwhile_is_begun_again(site: Site, tmp_path: Path) -> None:
    site.cuts = [150_000, 0]
    with pytest.raises(CharlmError, match="broke off"):
        download(site.url, tmp_path / "x.part", attempts=1)
    site.content, site.tag = CONTENT[::-1], '"two"'
    download(site.url, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_strong_tag_the_total_size_decides(site: Site, tmp_path: Path, tag: str | None) -> None:
    site.tag, site.cuts = tag, [100_000]
    download(site.url, tmp_path / "x.part", size=len(CONTENT))
    assert (tmp_path / "x.part").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=100000-"]


def test_a_server_without_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000]
    path = fetch(entry(site), tmp_path)
    assert path.read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_part_longer_than_the_file_is_begun_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sample.txt.part").write_bytes(b"x" * (len(CONTENT) + 10))
    assert fetch(entry(site), tmp_path).read_bytes() == CONTENT


def test_a_part_of_something_else_is_caught_by_the_checksum(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sample.txt.part").write_bytes(b"x" * 1000)
    with pytest.raises(CharlmError, match="checksum"):
        fetch(entry(site), tmp_path)
    assert fetch(entry(site), tmp_path).read_bytes() == CONTENT  # the next time it starts afresh


def test_a_wrong_checksum_is_kept_out_of_place(site: Site, tmp_path: Path) -> None:
    with pytest.raises(CharlmError, match=r"checksum sha1:\w+ instead of sha1:0000.* was not kept"):
        fetch(entry(site, checksum="sha1:" + "0" * 40), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_refused_before_it_is_loaded(site: Site, tmp_path: Path) -> None:
    with pytest.raises(CharlmError, match=r"512,000 bytes now instead of 7"):
        fetch(entry(site, download_size=7), tmp_path)
    assert not (tmp_path / "sample.txt").exists()


def test_a_zip_is_unpacked_and_its_content_checked(site: Site, tmp_path: Path) -> None:
    site.content = zipped(CONTENT)
    path = fetch(entry(site, member="inside"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["sample.txt"]


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zipped(CONTENT, "other"), "inside"),
        (b"no zip at all", "not a zip file"),
        (zipped(CONTENT + b"more"), "bytes instead of"),
        (zipped(CONTENT[:-1]), "bytes instead of"),
    ],
)
def test_a_wrong_zip_leaves_nothing(site: Site, tmp_path: Path, packed: bytes, message: str) -> None:
    site.content = packed
    with pytest.raises(CharlmError, match=message):
        fetch(entry(site, member="inside"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_there_is_not_loaded_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sample.txt").write_bytes(CONTENT)
    fetch(entry(site), tmp_path)
    assert site.asked == []


def test_a_file_of_the_user_is_never_overwritten(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sample.txt").write_bytes(b"mine")
    with pytest.raises(OptionError, match="move it away"):
        fetch(entry(site), tmp_path)
    assert (tmp_path / "sample.txt").read_bytes() == b"mine"


def test_no_network_names_the_bundled_texts(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    text = entry(Site(url=f"http://127.0.0.1:{port}/text"))
    with pytest.raises(CharlmError, match=r"127\.0\.0\.1:\d+ cannot be reached .*data/shakespeare\.txt") as caught:
        fetch(text, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_host_names_the_bundled_texts(tmp_path: Path) -> None:
    text = entry(Site(url="http://nowhere.invalid/text"))
    with pytest.raises(CharlmError, match=r"nowhere\.invalid cannot be reached .*data/wiki\.xml"):
        fetch(text, tmp_path)


def test_a_refusing_server_is_quoted(site: Site, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(CharlmError, match="404 Not Found"):
        fetch(entry(site), tmp_path)


def test_a_bundled_text_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"data/wiki\.xml"):
        fetch(known("wiki.xml"), tmp_path)
