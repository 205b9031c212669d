"""Near-duplicates: MinHash signatures of word pairs, bands on disk, candidates verified by their true likeness.

Broder, "On the resemblance and containment of documents" (1997); signatures by rensa. In memory is one band of 8 bytes a
row at a time, whatever the texts weigh.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rensa import RMinHash

LIKENESS = 0.75
"""Share of words and word pairs that two texts must have in common: one word in twelve may differ."""
BANDS, WIDTH = 16, 6
"""A pair at `LIKENESS` shares one of the bands with 95 % probability, one at 0.4 with 6 %."""
FEWEST_WORDS = 6
COMPARED = 4
"""How many of the rows in one band's bucket a row is compared with; equal rows chain, so that clusters still meet."""
BATCH = 2000
SAMPLE = 1000
SHARED = 0.1
"""What so many of the sampled rows hold is a template or an instruction, and says nothing of likeness."""
LONG_WORD = 15
"""Where words are longer on the average, the script has no spaces: characters are counted instead."""


def shingles(plain: str) -> set[str]:
    """Words and pairs of neighbouring words of a normalised text; five characters in scripts without spaces."""
    words = plain.split()
    if len(plain) > LONG_WORD * max(1, len(words)):
        letters = plain.replace(" ", "")
        return {letters[start : start + 5] for start in range(max(1, len(letters) - 4))}
    if len(words) < FEWEST_WORDS:
        return set()
    return {*words, *(f"{one} {two}" for one, two in pairwise(words))}


def boilerplate(texts: Iterable[str]) -> set[str]:
    """The shingles that a tenth of the texts (and twenty of them) hold."""
    held: Counter[str] = Counter()
    count = 0
    for count, plain in enumerate(texts, start=1):  # noqa: B007 (the last number is how many there are)
        held.update(shingles(plain))
    return {shingle for shingle, rows in held.items() if rows >= max(20, SHARED * count)}


@dataclass(frozen=True, slots=True)
class Near:
    """Two rows that are nearly the same, the earlier one first, and their likeness."""

    first: int
    second: int
    likeness: float


class Signatures:
    """Signatures of rows, numbered as they are added."""

    def __init__(self, common: set[str]) -> None:
        self._common = common
        self._file = tempfile.TemporaryFile(prefix="tailor-bands-")  # noqa: SIM115 (lives as long as this)
        self._waiting: list[list[str]] = []
        self._count = 0

    def add(self, plain: str) -> None:
        """The next row, by its normalised text; one that is too short to judge is never like another."""
        self._waiting.append(list(shingles(plain) - self._common))
        self._count += 1
        if len(self._waiting) == BATCH:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        matrix = RMinHash.digest_matrix_from_token_sets(self._waiting, BANDS * WIDTH, 1)
        rows = np.asarray(matrix.to_rows(), dtype=np.uint64).reshape(len(self._waiting), BANDS, WIDTH)
        mixed = np.zeros(rows.shape[:2], dtype=np.uint64)
        for place in range(WIDTH):
            mixed = (mixed ^ rows[:, :, place]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        mixed[[not words for words in self._waiting]] = 0
        self._file.write(mixed.tobytes())
        self._waiting.clear()

    def pairs(self, text: Callable[[int], str], skip: Callable[[int, int], bool]) -> Iterator[Near]:
        """Rows that are nearly the same. Each row is compared with the first few of every bucket it falls into.

        Args:
            text: the normalised text of a row.
            skip: pairs that are the same for another reason, and are counted elsewhere.
        """
        self._write()
        self._file.flush()
        if not self._count:
            return
        bands = np.memmap(self._file, dtype=np.uint64, mode="r", shape=(self._count, BANDS))  # type: ignore[call-overload]
        seen: set[tuple[int, int]] = set()
        for band in range(BANDS):
            for bucket in _buckets(np.asarray(bands[:, band])):
                for place, second in enumerate(bucket):
                    for first in bucket[max(0, place - COMPARED) : place]:
                        if (first, second) in seen or skip(first, second):
                            continue
                        seen.add((first, second))
                        likeness = self._likeness(text(first), text(second))
                        if likeness >= LIKENESS:
                            yield Near(first, second, likeness)

    def _likeness(self, one: str, two: str) -> float:
        """Jaccard's: shared shingles over all."""
        mine, other = shingles(one) - self._common, shingles(two) - self._common
        return len(mine & other) / max(1, len(mine | other))


def _buckets(keys: np.ndarray) -> Iterator[list[int]]:
    """Rows with one key, in their order; key 0 is no key."""
    order = np.argsort(keys, kind="stable")
    values = keys[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    ends = np.r_[starts[1:], len(values)]
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        if values[start]:
            yield order[start:end].tolist()


def clusters(pairs: Iterable[Near]) -> list[list[int]]:
    """Rows that hang together over any chain of pairs, largest cluster first."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for pair in pairs:
        one, two = root(pair.first), root(pair.second)
        parent[max(one, two)] = min(one, two)
    joined: dict[int, list[int]] = defaultdict(list)
    for row in sorted(parent):
        joined[root(row)].append(row)
    return sorted(joined.values(), key=lambda rows: (-len(rows), rows[0]))
