"""Encoded examples on disk: memory stays flat however many there are."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailor.core.examples import Features


class FeatureStore(Sequence[Features]):
    """An append-only list of `Features`, its numbers in a temporary file that is memory-mapped for reading.

    Kept in memory per example: its id, its target and where its numbers begin.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tailor-features-")
        self._path = Path(self._folder.name) / "numbers.i32"
        self._writer = self._path.open("ab")
        self._starts: list[int] = [0]
        self._rows: list[tuple[str, Any, tuple[str, ...], int]] = []
        self._numbers: np.ndarray | None = None

    def append(self, features: Features) -> None:
        """Add one example; ids, extras and weights become int32 and float32 lanes of one record."""
        lanes = [np.asarray(features.input_ids, dtype=np.int32)]
        lanes += [np.asarray(values, dtype=np.int32) for values in features.extras.values()]
        if features.weights:
            lanes.append(np.asarray(features.weights, dtype=np.float32).view(np.int32))
        record = np.concatenate(lanes)
        self._writer.write(record.tobytes())
        self._starts.append(self._starts[-1] + len(record))
        self._rows.append((features.example_id, features.target, tuple(features.extras), len(features.input_ids)))
        self._numbers = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Features:  # type: ignore[override]  # nobody slices a store
        if self._numbers is None:
            self._writer.flush()
            self._numbers = np.memmap(self._path, dtype=np.int32, mode="r")
        example_id, target, names, length = self._rows[index]
        record = self._numbers[self._starts[index] : self._starts[index + 1]]
        lanes = record.reshape(-1, length)
        extras: Mapping[str, list[int]] = {name: lanes[1 + place].tolist() for place, name in enumerate(names)}
        weighted = len(lanes) > 1 + len(names)
        weights = lanes[-1].view(np.float32).tolist() if weighted else []
        return Features(example_id, lanes[0].tolist(), weights, extras, target)

    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [row[3] for row in self._rows]
