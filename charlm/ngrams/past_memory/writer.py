"""From strings in sorted order to the tables of every order, in one pass that keeps a piece in memory at a time.

The strings have order + 1 codes, 0 in place of what stands behind a span's end. Those that begin with the same n + 1
symbols are neighbours and make one event of level n; where its last symbol is 0 there is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import TextError
from charlm.files import unwritten
from charlm.ngrams.past_memory.packing import Packing
from charlm.ngrams.past_memory.runs import Run, Strings
from charlm.ngrams.past_memory.tables import KINDS, file_of
from charlm.text.vocab import smallest_dtype

__all__ = ["write_tables"]

_PIECE = 1 << 17  # strings worked on at once
_MOST = np.iinfo(np.int32).max  # numbers of events fit in int32


def write_tables(directory: Path, runs: Iterable[Run], packing: Packing, characters: int) -> Iterator[int]:
    """Writes the tables of all levels; yields how many strings are done, from time to time.

    Args:
        directory: where the files go.
        runs: the strings of the whole text in sorted order, each once, in one or more pieces.
        packing: how they are packed, order + 1 codes deep.
        characters: of the text.

    Raises:
        StorageError: the disk is full or refuses.
        TextError: more than 2 ** 31 - 1 different strings of one length.
    """
    directory.mkdir(parents=True, exist_ok=True)
    count = np.dtype(np.int32 if characters <= _MOST else np.int64)
    levels = [_LevelWriter(directory, order, packing.symbols, count) for order in range(packing.depth)]
    try:
        edge = [-1] * packing.depth  # the codes of the string before
        for run in runs:
            for at in range(0, len(run), _PIECE):
                words = [word[at : at + _PIECE] for word in run.words]
                edge = _add(levels, Strings(words=words, counts=run.counts[at : at + _PIECE]), packing, edge)
                yield len(words[0])
        for level in levels:
            level.finish()
    finally:
        for level in levels:
            level.close()


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
    """The files of one level while they grow; the last event and history stay open until the next begins."""

    def __init__(self, directory: Path, order: int, symbols: int, count: np.dtype[Any]) -> None:
        self._order, self._events, self._event, self._history = order, 0, 0, 0
        types: tuple[np.dtype[Any], ...] = (np.dtype(np.int32), smallest_dtype(symbols), count, np.dtype(np.int64))
        self._columns = {
            kind: _Column(directory / file_of(order, kind), dtype) for kind, dtype in zip(KINDS, types, strict=True)
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

    def close(self) -> None:
        for column in self._columns.values():
            column.close()


class _Column:
    """A file in numpy's format whose length is known at the end only."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype, self.length = path, dtype, 0
        try:
            self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - it stays open while the table grows
        except OSError as error:
            raise unwritten(path, error) from None
        self._head = 0
        self._write_head()
        self._head = self._file.tell()

    def _write_head(self) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        try:
            self._file.seek(0)
            np.lib.format.write_array_header_1_0(self._file, about)
        except OSError as error:
            raise unwritten(self._path, error) from None
        assert self._head in (0, self._file.tell()), "numpy leaves room for the length to grow"

    def add(self, values: NDArray[Any]) -> None:
        try:
            self._file.write(values.astype(self._dtype).data)
        except OSError as error:
            raise unwritten(self._path, error) from None
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
        self._write_head()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise unwritten(self._path, error) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            return  # an error has been said already
