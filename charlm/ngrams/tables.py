"""The counts of a model's orders as tables on the disk, as counting past memory writes them.

A level is four files, `level-NN-NAME.npy`, which are opened as memory maps. Another file holds the strings that begin
the spans. For these orders the tables hold the same numbers as a `SuffixIndex` of the text; they hold nothing about
longer strings, and not where a string stands in the text.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CheckpointError, TextError
from charlm.files import storage_errors
from charlm.ngrams.levels import Level, Levels, Nodes, without_context
from charlm.ngrams.strings import Packing, Strings
from charlm.ngrams.suffixes import load_context, open_array, pieces, save_array, save_context
from charlm.text.vocab import smallest_dtype

KINDS = ("first", "id", "count", "total")
"""The files of a level."""

OPENINGS = "level-openings.npy"
"""The file of the strings that begin the spans."""


def file_of(order: int, kind: str) -> str:
    """The name of a level's file.

    >>> file_of(3, "id")
    'level-03-id.npy'
    """
    return f"level-{order:02d}-{kind}.npy"


@dataclass(frozen=True, kw_only=True, eq=False)
class CountTables:
    """Counts of strings of up to order + 1 symbols, for estimators and models.

    Args:
        levels: of the orders 0 to `order`.
        symbols: size of the vocabulary, V.
        order: the highest.
    """

    levels: TableLevels
    symbols: int
    order: int

    def __len__(self) -> int:
        """How many characters were counted."""
        return int(self.levels.every_symbol.count_E.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(array.nbytes for array in self._arrays().values())

    def followers(self, history: Any) -> list[tuple[int, int]]:
        """What followed a history of at most `order` ids, as (id, count) by id; empty where nothing ever did."""
        found = 0
        for depth, id in enumerate(history):
            found = self.levels[depth].child_of(found, id)
        level = self.levels[len(history)]
        if found < 0:
            return []
        events = slice(int(level.first_H[found]), int(level.first_H[found + 1]))
        pairs = zip(level.id_E[events].tolist(), level.count_E[events].tolist(), strict=True)
        return [(id, count) for id, count in pairs if count]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {OPENINGS: self.levels.begins(self.order + 1)}
        for order in range(self.order + 1):
            level = self.levels[order] if order else self.levels.every_symbol
            arrays: tuple[NDArray[Any], ...] = (level.first_H, level.id_E, level.count_E, level.total_H)
            found |= {file_of(order, kind): array for kind, array in zip(KINDS, arrays, strict=True)}
        return found

    def save(self, directory: Path) -> None:
        """Writes the tables, each file whole or not at all."""
        for name, array in self._arrays().items():
            save_array(directory / name, array)
        save_context(directory, self.levels.context_V)

    @classmethod
    def load(cls, directory: Path, *, symbols: int, order: int) -> CountTables:
        """Opens tables as memory maps.

        Raises:
            CheckpointError: a file that is missing or broken, or tables that do not fit each other.
        """
        begins = open_array(directory / OPENINGS, axes=2)
        levels, histories = [], 1
        sound = begins.dtype == smallest_dtype(symbols + 1) and begins.shape[1] == order + 1
        sound = sound and int(begins.max(initial=0)) <= symbols
        for number in range(order + 1):
            arrays = [open_array(directory / file_of(number, kind)) for kind in KINDS]
            sound = sound and _sound(*arrays, histories=histories, symbols=symbols)
            levels.append(_level(number, *arrays))
            histories = len(arrays[1])
        if not sound:
            raise CheckpointError(
                f"the tables in {directory} are damaged: their parts do not fit each other; count the text again"
            )
        return cls(levels=TableLevels(levels, begins, load_context(directory, symbols)), symbols=symbols, order=order)


def _level(order: int, first: Any, id: Any, count: Any, total: Any) -> Level:
    level = Level(order=order, first_H=first, id_E=id, count_E=count, place_E=np.zeros(0, dtype=np.int32))
    level.__dict__["total_H"] = total  # in the place of the cached property, which would make it in memory
    return level


def _sound(
    first: NDArray[Any], id: NDArray[Any], count: NDArray[Any], total: NDArray[Any], *, histories: int, symbols: int
) -> bool:
    """Whether the files of a level fit each other and the level below; of big ones, samples are looked at."""
    kinds = [array.dtype for array in (first, id, total)]
    return (
        kinds == [np.int32, smallest_dtype(symbols), np.int64]
        and count.dtype in (np.int32, np.int64)
        and len(first) == histories + 1 == len(total) + 1
        and len(id) == len(count)
        and int(first[0]) == 0
        and int(first[-1]) == len(id)
        and all(_rising(first[part], len(id)) for part in pieces(len(first)))
        and all(int(total[part].min()) >= 0 for part in pieces(len(total)) if len(total))
        and all(int(id[part].max()) < symbols for part in pieces(len(id)) if len(id))
        and all(int(count[part].min()) > 0 for part in pieces(len(id)) if len(id))
    )


def _rising(numbers: NDArray[Any], most: int) -> bool:
    return 0 <= int(numbers[0]) <= int(numbers[-1]) <= most and bool((numbers[1:] >= numbers[:-1]).all())


class TableLevels(Levels):
    """Levels that are memory-mapped.

    Args:
        levels: of the orders 0 and up, as in the files: at order 0 every symbol is counted.
        begins: see `Levels.begins`.
        context_V: see `Levels`.
    """

    def __init__(self, levels: list[Level], begins: NDArray[Any], context_V: NDArray[np.int64]) -> None:
        self.every_symbol, self._begins, self.context_V = levels[0], begins, context_V
        counted = without_context(levels[0], context_V) if context_V.any() else levels[0]
        self._levels = [counted, *levels[1:]]
        self._suffixes: list[Nodes] = []

    def __getitem__(self, order: int) -> Level:
        return self._levels[order]

    def suffix(self, order: int) -> Nodes:
        """See `Levels.suffix`: the history without its first symbol, and the same symbol after it."""
        if not self._suffixes:
            self._suffixes.append(np.zeros(self[0].events, dtype=np.int32))
        while len(self._suffixes) <= order:
            level = self[len(self._suffixes)]
            history_E = self._suffixes[-1][level.history_E]
            self._suffixes.append(self[level.order - 1].child(history_E, level.id_E))
        return self._suffixes[order]

    def begins(self, depth: int) -> NDArray[Any]:
        """See `Levels.begins`."""
        return self._begins[:, :depth]


_PIECE = 1 << 17  # strings worked on at once
_MOST = np.iinfo(np.int32).max  # numbers of events fit in int32


def write_tables(directory: Path, strings: Iterable[Strings], packing: Packing, characters: int) -> Iterator[int]:
    """Writes the tables of all levels; yields how many strings are done, from time to time.

    Args:
        directory: where the files go.
        strings: of the whole text in sorted order, each once, in one or more pieces.
        packing: how they are packed, order + 1 codes deep.
        characters: of the text.

    Raises:
        StorageError: the disk is full or refuses.
        TextError: more than 2 ** 31 - 1 different strings of one length.
    """
    directory.mkdir(parents=True, exist_ok=True)
    count = np.dtype(np.int32 if characters <= _MOST else np.int64)
    with contextlib.ExitStack() as files:
        levels = [_LevelWriter(files, directory, order, packing.symbols, count) for order in range(packing.depth)]
        edge = [-1] * packing.depth  # the codes of the string before
        for run in strings:
            for at in range(0, len(run), _PIECE):
                words = [word[at : at + _PIECE] for word in run.words]
                edge = _add(levels, Strings(words=words, counts=run.counts[at : at + _PIECE]), packing, edge)
                yield len(words[0])
        for level in levels:
            level.finish()


def _add(levels: list[_LevelWriter], piece: Strings, packing: Packing, edge: list[int]) -> list[int]:
    """Adds the next strings to every level; returns the codes of the last one."""
    size, counts = len(piece), piece.counts
    new = np.zeros(size, dtype=np.bool_)  # whether the first codes differ from those of the string before
    history = np.zeros(0, dtype=np.int64)  # where the histories of the level begin
    last = []
    for number, level in enumerate(levels):
        codes = packing.codes(piece.words, number)
        new[1:] |= codes[1:] != codes[:-1]
        new[0] |= int(codes[0]) != edge[number]
        alive = codes > 0
        event = np.flatnonzero(new & alive)
        counts = np.where(alive, counts, 0)
        level.add(history, event, codes[event], counts)
        history = event
        last.append(int(codes[-1]))
    return last


class _LevelWriter:
    """Writes the files of one level; the counts of the last event and history are written when the next begins."""

    def __init__(
        self, files: contextlib.ExitStack, directory: Path, order: int, symbols: int, count: np.dtype[Any]
    ) -> None:
        self._order, self._events, self._event, self._history = order, 0, 0, 0
        types: tuple[np.dtype[Any], ...] = (np.dtype(np.int32), smallest_dtype(symbols), count, np.dtype(np.int64))
        self._columns = {
            kind: _Column(files, directory / file_of(order, kind), dtype)
            for kind, dtype in zip(KINDS, types, strict=True)
        }
        if order == 0:  # one history, the empty one
            self._columns["first"].add(np.zeros(1, dtype=np.int64))

    def add(
        self,
        history: NDArray[np.int64],
        event: NDArray[np.int64],
        codes_E: NDArray[np.uint64],
        counts: NDArray[np.int64],
    ) -> None:
        """Adds strings: where new histories and events begin, the events' last codes, and how often each occurs."""
        before = self._events + np.searchsorted(event, history)
        self._columns["first"].add(before)
        self._columns["id"].add(codes_E - np.uint64(1))
        self._event = self._columns["count"].add_sums(counts, event, self._event, started=self._events > 0)
        begun = self._order == 0 or self._columns["first"].length > len(history)
        self._history = self._columns["total"].add_sums(counts, history, self._history, started=begun)
        self._events += len(event)
        if self._events > _MOST:
            raise TextError(
                f"the text has more than {_MOST:,} different strings of {self._order + 1} characters: take a smaller "
                "--order"
            )

    def finish(self) -> None:
        """Writes what is still open, and the heads of the files."""
        if self._events:
            self._columns["count"].add(np.array([self._event]))
        if self._columns["first"].length:
            self._columns["total"].add(np.array([self._history]))
        self._columns["first"].add(np.array([self._events]))
        for column in self._columns.values():
            column.finish()


class _Column:
    """A file in numpy's format whose length is known at the end only."""

    def __init__(self, files: contextlib.ExitStack, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype, self.length = path, dtype, 0
        with storage_errors(path):
            self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - `files` closes it
        files.callback(self._close)
        self._head = self._write_head()

    def _write_head(self) -> int:
        """Writes the head of a file of the present length; returns where it ends."""
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        with storage_errors(self._path):
            self._file.seek(0)
            np.lib.format.write_array_header_1_0(self._file, about)
            return self._file.tell()

    def add(self, values: NDArray[Any]) -> None:
        with storage_errors(self._path):
            self._file.write(values.astype(self._dtype).data)
        self.length += len(values)

    def add_sums(self, counts: NDArray[np.int64], begins: NDArray[np.int64], pending: int, *, started: bool) -> int:
        """Writes the sums of the groups that begin at these places, but for the last; returns that."""
        if not len(begins):
            return pending + int(counts.sum())
        pending += int(counts[: begins[0]].sum())
        sums = np.add.reduceat(counts, begins)
        if started:
            self.add(np.array([pending]))
        self.add(sums[:-1])
        return int(sums[-1])

    def finish(self) -> None:
        head = self._write_head()
        assert head == self._head, "numpy leaves room for the length to grow"
        with storage_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # an error has been said already
            self._file.close()
