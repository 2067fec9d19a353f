"""Files written completely or not at all, their hashes, free names, and model directories with their locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from charlm.codec import encode
from charlm.errors import CharlmError, OptionError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_writer(path: Path, size: int | None = None) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its name only once it is whole and on the disk.

    The file is flushed and synchronised before the rename and the directory after it, so that after a power
    loss there is either the old file or the new one. An exception inside the block leaves the old file.

    Args:
        path: the file.
        size: how many bytes will be written, where that is known; the message about a full disk says it.

    Raises:
        StorageError: the disk is full, the directory cannot be written, or the disk reports an error.
    """
    with storage_errors(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _sync_directory(path.parent)


@contextlib.contextmanager
def storage_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Raises an OSError inside the block as the StorageError that `unwritten` makes of it."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise unwritten(path, error, size) from None


def unwritten(path: Path, error: OSError, size: int | None = None) -> StorageError:
    """The error for a file that could not be written; of a full disk it says how many bytes are needed and free."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path} cannot be written: {error.strerror or error}", error)
    needs = "" if size is None else f"; it needs {size:,} bytes"
    with contextlib.suppress(OSError):
        needs += f"{',' if needs else ';'} {shutil.disk_usage(path.parent).free:,} are free"
    return StorageError(f"{path} cannot be written, the disk is full{needs}: make room there", error)


def sweep(directory: Path) -> None:
    """Deletes the temporary files of `atomic_writer` whose process was killed; call it while holding `lock`."""
    for path in directory.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}\.tmp", path.name) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return  # a directory cannot be opened elsewhere; the rename itself is still atomic
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all."""
    with atomic_writer(path, len(content)) as file:
        file.write(content)


def write_with(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Lets `save` write into a file object; `path` is replaced only after `save` has returned."""
    with atomic_writer(path) as file:
        save(file)


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON (no NaN, no Infinity) with sorted layout, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # half of a surrogate pair, as in the name of a file that is not UTF-8, is written as an escape of JSON
    write_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))


def read_json(path: Path, limit: int = 1 << 28) -> Any:
    """Reads a JSON file of at most `limit` bytes; whatever is wrong with it is a CharlmError."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CharlmError(f"{path} is not a file")
        if size > limit:
            raise CharlmError(f"{path} has {size:,} bytes, more than the {limit:,} such a file may have")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CharlmError(f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise CharlmError(f"{path} is not valid JSON ({error})") from None
    except OSError as error:
        raise CharlmError(f"{path} cannot be read ({error.strerror})") from None


_GROUP = ("memory.max", "memory.current", "memory.stat")
"""What a container may take, what it has taken, and how much of that are files that can be given back."""


def free_memory() -> int | None:
    """The bytes of memory that are free for programs, within the limit of a container; None where that is not known."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        limit, used, kinds = (Path("/sys/fs/cgroup", name).read_text() for name in _GROUP)
        cached = next(int(line.split()[1]) for line in kinds.splitlines() if line.startswith("inactive_file "))
        found.append(int(limit) - int(used) + cached)
    return min(found, default=None)


def free_name(path: Path, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """`path` if nothing has that name yet, else `path-2`, `path-3`, ... so that nothing is overwritten.

    Args:
        path: the name to begin with.
        taken: whether a name may not be used; by default whether there is anything.
    """
    if not path.name:
        raise CharlmError(f"{path} is a directory and no new name: give one, such as {path / 'new'}")
    candidate, number = path, 1
    while taken(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds `directory/LOCK`, a file with the id of this process, so that only one process writes into a directory.

    The lock of a process that has ended is taken over. A directory that was made for it does not stay where an
    exception leaves nothing in it.

    Raises:
        CharlmError: another process that is running holds the lock.
    """
    path = directory / "LOCK"
    owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
    made, whole = [each for each in (directory, *directory.parents) if not each.exists()], False
    with storage_errors(path):
        directory.mkdir(parents=True, exist_ok=True)
        _claim(path, owner)
    try:
        yield
        whole = True
    finally:
        with contextlib.suppress(OSError):
            with _alone_with(path, os.O_RDWR) as file:
                if file and file.read() == owner:
                    path.unlink()
            for each in () if whole else made:
                each.rmdir()


def _claim(path: Path, owner: bytes) -> None:
    for _ in range(100):
        with _alone_with(path, os.O_CREAT | os.O_RDWR) as file:
            if file is None:
                continue
            _refuse_if_alive(path, file.read())
            try:
                path.write_bytes(owner)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return
    raise CharlmError(f"{path} is being taken by other processes again and again: choose another --out")


@contextlib.contextmanager
def _alone_with(path: Path, flags: int) -> Iterator[IO[bytes] | None]:
    """The open file of this name, which nobody else reads or changes meanwhile; None where it was deleted just now."""
    with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
        with contextlib.suppress(AttributeError, OSError):  # Windows, and file systems that cannot
            fcntl.flock(file, fcntl.LOCK_EX)
        there = path.stat() if path.exists() else None
        yield file if there is not None and os.path.samestat(there, os.fstat(file.fileno())) else None


def _refuse_if_alive(path: Path, content: bytes) -> None:
    try:
        owner = json.loads(content)
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, TypeError):
        return  # incomplete: its process was killed while it wrote the file
    if host == socket.gethostname() and not _alive(pid):
        return
    raise CharlmError(
        f"{path.parent} is being written by process {pid} on {host}: wait for it to end, choose another "
        f"directory, or delete {path} if that process is gone"
    )


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process that had the same id
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


__version__ = "0.1.0"  # a build reads this line without importing the package

FORMAT = 1
"""The version of the layout that this charlm writes; later ones are refused, earlier ones are read."""

_WHOLE = 1 << 26  # bytes up to which a checksum is of the whole file


def describe(kind: str, model: Mapping[str, Any], text: object, **more: Any) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        kind: the family of the model.
        model: its shape.
        text: the facts about its text (`charlm.text.text.TextFacts`).
        more: further JSON values, under names of their own.
    """
    return {
        "format": FORMAT,
        "charlm": __version__,
        "kind": kind,
        "updated": datetime.now(UTC).isoformat(timespec="microseconds"),
        "model": dict(model),
        "text": encode(text),
        **more,
    }


def write_config(directory: Path, kind: str, model: Mapping[str, Any], text: object, **more: Any) -> None:
    """Writes `config.json`; see `describe`."""
    write_json(directory / "config.json", describe(kind, model, text, **more))


def still_there(names: Iterable[str], command: str) -> None:
    """Refuses to go on where a file of a run has gone: the sentence shows the command that names its new place."""
    for name in names:
        if not Path(name).exists():
            raise CharlmError(f"{name} is not there any more: name the place where it is now, as in {command}")


@contextlib.contextmanager
def new_directory(directory: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to write a model into, which takes this name once the block has ended; a failure leaves nothing.

    A model that has the name already stays until then. Files beside it that charlm does not write are kept.

    Raises:
        OptionError: the name is taken.
        CharlmError: another process is writing into the directory of this name.
    """
    path = Path(directory)
    if path.exists() and not overwrite:
        raise OptionError(f"{path} is taken: choose another name, or replace it with overwrite=True")
    if path.exists() and not (path / "config.json").is_file() and (not path.is_dir() or any(path.iterdir())):
        raise OptionError(f"{path} is not a model directory, so it is not overwritten: choose another name")
    made, old = (path.with_name(f".{path.name}-{kind}-{os.getpid()}") for kind in ("new", "old"))
    with lock(path) if path.exists() else contextlib.nullcontext(), storage_errors(path):
        try:
            made.mkdir(parents=True)
            yield made
            if path.exists():
                path.rename(old)
            made.rename(path)
            for file in old.iterdir() if old.exists() else ():
                if not (path / file.name).exists() and not any(map(file.match, _WRITTEN)):
                    file.rename(path / file.name)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)


_WRITTEN = (
    "LOCK", "config.json", "vocab.json", "metrics.jsonl", "*.safetensors", "*.npy", "network", "[0-9]", "[0-9][0-9]",
)  # fmt: skip
"""What the directory of a language model holds."""


def fingerprint(path: Path) -> str:
    """A SHA-256 of a file's size and content; of one over 64 MB of 64 pieces, so that opening it stays quick."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as file:
        if size <= _WHOLE:
            while block := file.read(_WHOLE >> 6):
                digest.update(block)
        else:
            for piece in range(64):
                file.seek((size - (_WHOLE >> 6)) * piece // 63)
                digest.update(file.read(_WHOLE >> 6))
    return digest.hexdigest()
