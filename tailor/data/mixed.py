"""Several tasks' encoded examples as one list, one task after the other."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from tailor.core.examples import Features


class MixedStore(Sequence[Features]):
    """A view of several stores; every example carries its task's name."""

    def __init__(self, stores: Mapping[str, Sequence[Features]]) -> None:
        self.stores = dict(stores)
        self._ends = list(accumulate(len(store) for store in self.stores.values()))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Features:  # type: ignore[override]  # nobody slices a store
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = bisect_right(self._ends, index)
        name, store = list(self.stores.items())[place]
        return replace(store[index - (self._ends[place - 1] if place else 0)], task=name)
