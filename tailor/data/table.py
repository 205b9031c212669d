"""Rows at random access in bounded memory: in a list while they are few, in a temporary file once they are many."""

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tailor.core.examples import Origin

BUDGET = 64 * 2**20
"""Bytes of JSON beyond which a store moves to disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One usable row.

    Args:
        id: its content's key; `KEY-1`, `KEY-2`, … for exact repeats. Keys all randomness and every cache.
        row: the row in its form's canonical shape.
        origin: where it stands in the user's files.
        values: the row as it was read.
    """

    id: str
    row: dict[str, Any]
    origin: Origin
    values: Mapping[str, Any]


class Store:
    """An append-only list of entries that goes to a temporary JSON-lines file beyond `budget` bytes.

    The file has no name and is gone with the store. Reads do not move a shared position, so forked workers may read.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget = BUDGET if budget is None else budget
        self._bytes = 0
        self._entries: list[Entry] = []
        self._offsets = array("Q", [0])
        self._file: Any = None

    def append(self, entry: Entry, size: int) -> None:
        """Add an entry; `size` is about how many bytes its canonical row takes as JSON."""
        if self._file is not None:
            self._write(entry)
            return
        self._entries.append(entry)
        self._bytes += 2 * size  # the row as read comes along
        if self._bytes > self._budget:
            self._file = tempfile.TemporaryFile(prefix="tailor-rows-")  # noqa: SIM115 (lives as long as the store)
            for kept in self._entries:
                self._write(kept)
            self._entries.clear()

    def _write(self, entry: Entry) -> None:
        origin = (entry.origin.file, entry.origin.line)
        # Values that JSON does not know (dates, bytes) come back as text; canonical rows hold none.
        line = json.dumps((entry.id, entry.row, origin, entry.values), default=str).encode()
        self._file.write(line)
        self._offsets.append(self._offsets[-1] + len(line))

    def __len__(self) -> int:
        return len(self._entries) if self._file is None else len(self._offsets) - 1

    def __getitem__(self, index: int) -> Entry:
        if self._file is None:
            return self._entries[index]
        start, end = self._offsets[index], self._offsets[index + 1]
        self._file.flush()
        key, row, origin, values = json.loads(os.pread(self._file.fileno(), end - start, start))
        return Entry(key, row, Origin(*origin), values)


class Table:
    """A list-like view of some of a store's entries."""

    def __init__(self, store: Store, indices: Iterable[int] | None = None) -> None:
        self._store = store
        self._indices = array("Q", range(len(store)) if indices is None else indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Entry:
        return self._store[self._indices[index]]

    def __iter__(self) -> Iterator[Entry]:
        return (self._store[index] for index in self._indices)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The canonical rows, one after the other."""
        return (entry.row for entry in self)
