"""Which rows are held back. Decided by content: neither the order of the rows nor a few new ones change it much.

Rows with the same input (exactly, or but for case, space and punctuation) and rows of one group form a *part*, and a
part is never divided. Every part has a rank: a hash of its content and the seed. The test split takes parts from the
lower end, the dev split from the upper end, label by label, until each has its share; what no split may take is the
last part of training that carries some label.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tailor.core.errors import DataError

AUTO = "auto"
AUTO_SHARE = 0.1
AUTO_ROWS = 200
AUTO_CAP = 0.4

Share = float | str
"""A share of the rows, at least 0 and below 1, or `auto`."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Indices of rows, ascending; every row is in exactly one. `notes`: what could not be had, in words."""

    train: list[int]
    dev: list[int]
    test: list[int]
    notes: tuple[str, ...] = ()


def as_share(value: Share) -> Share | None:
    """`auto` or a share as it is, a number written as text as a share; None for anything else, which is a path."""
    if value == AUTO:
        return AUTO
    try:
        share = float(value)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise DataError(
            f"a share of the rows is at least 0 and below 1, not {value}",
            where="data",
            fix="write 0.1 for a tenth, 0 for none, auto, or a path",
            code="bad_share",
        )
    return share


def sizes(rows: int, dev: Share, test: Share) -> tuple[int, int]:
    """How many rows to hold back for dev and for test.

    `auto` is the larger of 10 % and 200 rows, as long as both together are at most 40 %, and at least 1.

    Raises:
        DataError: too few rows, or shares that leave none to train on.
    """
    wishes = {"dev": dev, "test": test}
    counts = {name: max(1, round(share * rows)) for name, share in wishes.items() if isinstance(share, float) and share}
    autos = [name for name, share in wishes.items() if share == AUTO]
    room = int(AUTO_CAP * rows) - sum(counts.values())
    for name in autos:
        counts[name] = max(1, min(max(round(AUTO_SHARE * rows), AUTO_ROWS), room // len(autos)))
    if sum(counts.values()) >= rows:
        raise DataError(
            f"{rows} row{'s are' if rows > 1 else ' is'} too few to hold back {' and '.join(sorted(counts))} "
            "and train on the rest",
            where="data",
            fix="add rows, or train on all of them: data.dev=0 data.test=0",
            code="too_few_rows",
        )
    return counts.get("dev", 0), counts.get("test", 0)


def split(
    keys: Sequence[int],
    *,
    groups: Sequence[str] | None = None,
    labels: Sequence[tuple[str, ...]] | None = None,
    dev: Share = AUTO,
    test: Share = AUTO,
    seed: int = 0,
) -> Splits:
    """Divide rows into train, dev and test.

    Args:
        keys: per row, the hash of its normalised input: rows with equal keys stay together.
        groups: per row, what else must stay together (a patient, a thread).
        labels: per row, the labels it carries; each of them stays in train, and one-label rows are drawn in proportion.
        dev: `auto` or a share; 0 for none.
        test: likewise.
        seed: another seed gives another, equally stable division.

    Raises:
        DataError: see `sizes`.
    """
    parts = _parts(keys, groups, labels, seed)
    want_dev, want_test = sizes(len(keys), dev, test)
    left = Counter(label for part in parts for label in part.labels)
    strata = Counter[str]()
    for part in parts:
        strata[part.stratum] += len(part.rows)
    taken: dict[str, list[_Part]] = {}
    # From opposite ends, so that a change in how many rows one of them takes does not shift the other.
    for name, want, order in (("test", want_test, parts), ("dev", want_dev, parts[::-1])):
        gone = {id(part) for others in taken.values() for part in others}
        pool = [part for part in order if id(part) not in gone]
        taken[name] = _draw(pool, want, _quotas(strata, want), left)
    held = {name: sorted(row for part in taken[name] for row in part.rows) for name in taken}
    out = set(held["test"]) | set(held["dev"])
    notes = tuple(
        _note(name, want) for name, want in (("dev", want_dev), ("test", want_test)) if want and not held[name]
    )
    return Splits([row for row in range(len(keys)) if row not in out], held["dev"], held["test"], notes)


def _note(name: str, want: int) -> str:
    rows = "1 row" if want == 1 else f"{want} rows"
    return (
        f"{rows} should be held back for {name}, but none can be: the rest would lack a label, "
        "or the rows hang together in too few groups or repeats"
    )


@dataclass(slots=True)
class _Part:
    """Rows that stay together."""

    rows: list[int] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    stratum: str = ""
    rank: int = 0


def _parts(
    keys: Sequence[int], groups: Sequence[str] | None, labels: Sequence[tuple[str, ...]] | None, seed: int
) -> list[_Part]:
    """The parts, by rank. A part's rank hangs on its least key alone, and so not on the order or number of its rows."""
    joined: dict[int, _Part] = defaultdict(_Part)
    least: dict[int, int] = {}
    for row, root in enumerate(_roots(keys, groups)):
        joined[root].rows.append(row)
        least[root] = min(keys[row], least.get(root, keys[row]))
    one_each = labels is not None and all(len(names) == 1 for names in labels)
    for root, part in joined.items():
        part.rank = int.from_bytes(hashlib.sha256(f"{seed} {least[root]}".encode()).digest()[:8])
        if labels is not None:
            one = labels[part.rows[0]]
            part.labels = one if len(part.rows) == 1 else tuple({name for row in part.rows for name in labels[row]})
        part.stratum = min(part.labels) if one_each else ""
    return sorted(joined.values(), key=lambda part: part.rank)


def _roots(keys: Sequence[int], groups: Sequence[str] | None) -> list[int]:
    """Per row, the first row that it hangs together with, over any chain of equal keys and equal groups."""
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    either: tuple[Sequence[object] | None, ...] = (keys, groups)
    for names in either:
        first: dict[object, int] = {}
        for row, name in enumerate(names or ()):
            one, two = root(first.setdefault(name, row)), root(row)
            parent[max(one, two)] = min(one, two)
    return [root(row) for row in range(len(keys))]


def _quotas(strata: Counter[str], want: int) -> Counter[str]:
    """`want` rows over the strata in proportion to their sizes, the largest remainders rounded up."""
    rows = sum(strata.values())
    quotas = Counter({name: want * size // rows for name, size in strata.items()})
    by_remainder = sorted(strata, key=lambda name: (-(want * strata[name] % rows), name))
    for name in by_remainder[: want - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _draw(pool: Sequence[_Part], want: int, quotas: Counter[str], left: Counter[str]) -> list[_Part]:
    """Parts from the front of `pool`: each stratum's quota, then whatever fits; at least one part if any may go.

    `left` counts, per label, the parts of training that carry it, and is brought up to date.
    """
    drawn: list[_Part] = []

    def may_go(part: _Part) -> bool:
        return len(pool) - len(drawn) > 1 and all(left[label] > 1 for label in part.labels)

    def draw(part: _Part) -> None:
        drawn.append(part)
        left.subtract(part.labels)

    for part in pool:
        if len(part.rows) <= quotas[part.stratum] and may_go(part):
            quotas[part.stratum] -= len(part.rows)
            draw(part)
    chosen = {id(part) for part in drawn}
    room = want - sum(len(part.rows) for part in drawn)
    for part in pool:
        if len(part.rows) <= room and id(part) not in chosen and may_go(part):
            room -= len(part.rows)
            draw(part)
    if want and not drawn:
        # Parts are larger than the share: the smallest, if at least half of the rows stay.
        rows = sum(len(part.rows) for part in pool)
        small = [part for part in pool if may_go(part) and 2 * len(part.rows) <= rows]
        if small:
            draw(min(small, key=lambda part: len(part.rows)))
    return drawn


# Raw text

BLOCKS = 400
MIN_BLOCK = 500
MAX_BLOCK = 20_000
FEWEST_BLOCKS = 5

_BREAKS = ("\n\n", "\n", ". ", " ")


def block_size(characters: int) -> int:
    """How long the blocks of a text should be: some 400 of them, none so short that it says nothing."""
    size = min(max(characters // BLOCKS, MIN_BLOCK), MAX_BLOCK)
    return max(1, min(size, characters // FEWEST_BLOCKS))


def blocks(text: str, size: int) -> Iterable[tuple[int, str]]:
    """A text cut into contiguous blocks of about `size` characters, at paragraphs, lines, sentences or words.

    Yields:
        (0-based line on which it begins, block); joined, the blocks are the text again.
    """
    start, line = 0, 0
    while start < len(text):
        end = _cut(text, start, size)
        yield line, text[start:end]
        line += text.count("\n", start, end)
        start = end


def _cut(text: str, start: int, size: int) -> int:
    """Where the block from `start` ends: the best break between 3/4 and 5/4 of `size`; all of a rest of up to 3/2."""
    start = _past_space(text, start)
    if len(text) - start <= size * 3 // 2:
        return len(text)
    low, high = start + max(1, size * 3 // 4), start + size * 5 // 4
    for mark in _BREAKS:
        at = text.find(mark, low, high)
        if at >= 0:
            return _past_space(text, at + len(mark))
    return _past_space(text, start + size)


_SPACE = re.compile(r"\s*")


def _past_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
