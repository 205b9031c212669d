"""What is computed once with the weights as they were before training, and kept by content.

A reference's log-probabilities, say: with them in the features, no second copy of the base is held while training, and
runs that share base and data (a sweep, a resumed run) compute them once.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tailor.core.contracts import OutputSpec
from tailor.core.paths import cache_folder, code_digest
from tailor.data.store import FeatureStore
from tailor.engine.place import Place
from tailor.nn.kept import Values, keep, make_room, read
from tailor.nn.rows import rows_of_outputs

AT_ONCE = 1024
"""Examples that are held in memory together."""

MOST_BYTES = 1 << 30
"""Of what is kept on disk; the longest unused goes first."""


class Frozen:
    """Fills stores of features with what an objective wants to know of a loaded base, from disk where it lies there."""

    def __init__(self, base: Any, objective: Any, output: OutputSpec, place: Place, budget: int) -> None:
        self.base, self.objective, self.output, self.place, self.budget = base, objective, output, place, budget
        self.folder = cache_folder() / "frozen"
        self._fixed = {
            "base": base.source.digest(),
            "code": code_digest(),
            "objective": objective.options.model_dump(),
            "quantize": base.source.options.quantize,
            "dtype": str(next(base.model.parameters()).dtype),
            "place": [place.kind, place.precision],
        }

    def fill(self, store: FeatureStore) -> None:
        """Give every example of a store its values."""
        if not len(store):
            return
        path = self.folder / f"{self._key(store)}.safetensors"
        naive = self.base.options.naive
        values = None if naive else read(path)
        if values is None:
            values = self._compute(store)
            if not naive:
                keep(path, values)
                make_room(self.folder, MOST_BYTES)
        for index in range(len(store)):
            store.set_frozen(index, {name: tuple(rows[index].tolist()) for name, rows in values.items()})

    def _key(self, store: FeatureStore) -> str:
        """A digest of all that the values depend on: base, code, options, precision, and every token with its weight."""
        total = hashlib.sha256(json.dumps(self._fixed, sort_keys=True).encode())
        for row in store:
            total.update(json.dumps([len(row), row.parts]).encode())
            total.update(np.asarray(row.input_ids, dtype=np.int32).tobytes())
            total.update(np.asarray(row.weights, dtype=np.float32).tobytes())
        return total.hexdigest()

    def _compute(self, store: FeatureStore) -> Values:
        """(examples, k) float32 by name."""
        self.base.model.to(self.place.device).eval()
        found: list[Mapping[str, tuple[float, ...]]] = [{}] * len(store)
        for start in range(0, len(store), AT_ONCE):
            some = [store[index] for index in range(start, min(start + AT_ONCE, len(store)))]
            read = rows_of_outputs(self.base, self.output, some, self.budget, self.place.device, self.place.autocast)
            for index, features, rows, targets in read:
                found[start + index] = self.objective.freeze(features, rows, targets)
        return {name: torch.tensor([row[name] for row in found]) for name in found[0]}
