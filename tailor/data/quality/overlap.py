"""Test rows whose words also stand, in a long run, in training: the longest match of word 8-grams.

The measure of ConTAM (Singh et al. 2024, arXiv 2411.03923): the longest run of a test row's words that training also
holds, as a share of the row. Runs that many training rows hold are templates and do not count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

GRAM = 8
SHARE = 0.7
"""The share of a test row that must stand in training in one run."""
FEWEST = 13
"""Shorter runs are turns of phrase (the length that GPT-3's decontamination took); short rows are judged by likeness."""
TEMPLATE = 10
"""A run that more training rows than this hold is a template."""
BATCH = 2000
_PRIME = np.uint64(0x100000001B3)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A test row (its place among them), a training row that holds its longest run of words (the number it was read
    under), and the run's share of the test row."""

    test: int
    train: int
    share: float


class TestRuns:
    """The 8-grams of the test rows, and which of them have been met in training."""

    __test__ = False  # no test case, whatever its name begins with

    def __init__(self, tests: Iterable[str]) -> None:
        self._grams = [_grams([plain])[0] for plain in tests]
        self._known = np.unique(np.concatenate([*self._grams, np.empty(0, np.uint64)]))
        self._met = np.zeros(len(self._known), dtype=np.int64)
        self._first = np.full(len(self._known), -1, dtype=np.int64)
        self._waiting: list[str] = []
        self._numbers: list[int] = []

    def read(self, plain: str, number: int) -> None:
        """A training row, normalised, and its number."""
        self._waiting.append(plain)
        self._numbers.append(number)
        if len(self._waiting) == BATCH:
            self._count()

    def _count(self) -> None:
        if not self._waiting or not len(self._known):
            self._waiting.clear()
            self._numbers.clear()
            return
        grams, rows = _grams(self._waiting)
        places = np.searchsorted(self._known, grams)
        places[places == len(self._known)] = 0
        hit = self._known[places] == grams
        found = np.unique(np.stack([places[hit], np.array(self._numbers, np.int64)[rows[hit]]]), axis=1)
        np.add.at(self._met, found[0], 1)
        fresh = self._first[found[0]] < 0
        self._first[found[0][fresh][::-1]] = found[1][fresh][::-1]
        self._waiting.clear()
        self._numbers.clear()

    def overlaps(self) -> list[Overlap]:
        """The test rows of which at least `SHARE` stands in training in one run of words."""
        self._count()
        found = []
        for test, grams in enumerate(self._grams):
            places = np.searchsorted(self._known, grams)
            met = (self._met[places] > 0) & (self._met[places] <= TEMPLATE)
            run, end = _longest(met)
            words = run + GRAM - 1
            share = words / (len(grams) + GRAM - 1)
            if run and words >= FEWEST and share >= SHARE:
                found.append(Overlap(test, int(self._first[places[end]]), share))
        return found


def _grams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of 8 words within a text, and the text each stands in."""
    words = [text.split() for text in texts]
    hashes = np.array([hash(word) for text in words for word in text], dtype=np.int64).view(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in words])
    if len(hashes) < GRAM:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    mixed = np.zeros(len(hashes) - GRAM + 1, dtype=np.uint64)
    for place in range(GRAM):
        mixed = mixed * _PRIME + hashes[place : place + len(mixed)]
    inside = owner[: len(mixed)] == owner[GRAM - 1 :]
    return mixed[inside], owner[: len(mixed)][inside]


def _longest(met: np.ndarray) -> tuple[int, int]:
    """Length and last place of the longest run of true values; (0, 0) where there is none."""
    best, end, run = 0, 0, 0
    for place, value in enumerate(met.tolist()):
        run = run + 1 if value else 0
        if run > best:
            best, end = run, place
    return best, end
