"""Encoded examples on disk: memory stays flat however many there are."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailor.core.examples import Features


class _Row(NamedTuple):
    """What is kept in memory of an example: all but its numbers per token."""

    example_id: str
    target: Any
    extras: tuple[str, ...]
    marks: tuple[str, ...]
    length: int
    parts: tuple[int, ...]
    frozen: Mapping[str, tuple[float, ...]]


class FeatureStore(Sequence[Features]):
    """An append-only list of `Features`, its numbers in a temporary file that is memory-mapped for reading.

    Kept in memory per example: its id, its target and where its numbers begin.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tailor-features-")
        self._path = Path(self._folder.name) / "numbers.i32"
        self._writer = self._path.open("ab")
        self._starts: list[int] = [0]
        self._rows: list[_Row] = []
        self._numbers: np.ndarray | None = None

    def append(self, features: Features) -> None:
        """Add one example; ids, extras, marks and weights become int32 and float32 lanes of one record."""
        lanes = [np.asarray(features.input_ids, dtype=np.int32)]
        lanes += [
            np.asarray(values, dtype=np.int32) for values in (*features.extras.values(), *features.marks.values())
        ]
        if features.weights:
            lanes.append(np.asarray(features.weights, dtype=np.float32).view(np.int32))
        record = np.concatenate(lanes)
        self._writer.write(record.tobytes())
        self._starts.append(self._starts[-1] + len(record))
        self._rows.append(
            _Row(
                features.example_id,
                features.target,
                tuple(features.extras),
                tuple(features.marks),
                len(features.input_ids),
                features.parts,
                features.frozen,
            )
        )
        self._numbers = None

    @classmethod
    def of(cls, numbers: np.ndarray, starts: Sequence[int], rows: Sequence[Sequence[Any]]) -> "FeatureStore":
        """A store of what `contents` gave."""
        store = cls()
        numbers.tofile(store._writer)
        store._starts = list(starts)
        for example_id, target, pair, extras, marks, length, parts in rows:
            aim = tuple(target) if pair else target
            store._rows.append(_Row(example_id, aim, tuple(extras), tuple(marks), length, tuple(parts), {}))
        return store

    def contents(self) -> tuple[np.ndarray, list[int], list[list[Any]]]:
        """Everything but what frozen weights computed: int32 numbers, where each example's begin and end, and the rest.

        The rest is for each example as JSON can hold it: id, target, whether that is a tuple, extras, marks, length, parts.
        """
        rows = []
        for row in self._rows:
            pair = isinstance(row.target, tuple)
            target = [*row.target] if pair else row.target
            rows.append([row.example_id, target, pair, [*row.extras], [*row.marks], row.length, [*row.parts]])
        return self._mapped() if self._rows else np.zeros(0, np.int32), list(self._starts), rows

    def __len__(self) -> int:
        return len(self._rows)

    def _mapped(self) -> np.ndarray:
        if self._numbers is None:
            self._writer.flush()
            self._numbers = np.memmap(self._path, dtype=np.int32, mode="r")
        return self._numbers

    def __getitem__(self, index: int) -> Features:  # type: ignore[override]  # nobody slices a store
        row = self._rows[index]
        lanes = self._mapped()[self._starts[index] : self._starts[index + 1]].reshape(-1, row.length)
        names = (*row.extras, *row.marks)
        lists = dict(zip(names, lanes[1:].tolist(), strict=False))
        return Features(
            row.example_id,
            lanes[0].tolist(),
            lanes[-1].view(np.float32).tolist() if len(lanes) > 1 + len(names) else [],
            extras={name: lists[name] for name in row.extras},
            marks={name: lists[name] for name in row.marks},
            target=row.target,
            parts=row.parts,
            frozen=row.frozen,
        )

    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [row.length for row in self._rows]

    def longest(self) -> int:
        """Tokens of the longest sequence; 0 where there is none."""
        return max((max(row.parts, default=row.length) for row in self._rows), default=0)

    def set_frozen(self, index: int, values: Mapping[str, tuple[float, ...]]) -> None:
        """Add what frozen weights computed for an example."""
        self._rows[index] = self._rows[index]._replace(frozen=values)
