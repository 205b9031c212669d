"""How many answers a search for a prompt can ask for at most: known before the first one is paid for."""

from dataclasses import dataclass
from typing import Any

from tailor.engine.proposals import POOL
from tailor.engine.reflect import REFLECTED, rounds_of
from tailor.engine.search import BOOTSTRAPPED, EMPTY, FEWEST, FINALISTS


@dataclass(frozen=True)
class Most:
    """The most that a search asks for: answers to rows, and instructions of what reflects."""

    answers: int
    reflections: int


def most_of(options: Any, train: int, dev: int, *, calibrates: bool) -> Most:
    """The most that a search with these options asks for over so many rows; `calibrates`: with priors of choices."""
    rows, rounds = min(options.rows, dev), rounds_of(options)
    answers = rows  # of the bare prompt
    if options.demonstrations and "bootstrap" in options.ways:
        answers += min(BOOTSTRAPPED, POOL, train)
    priors = (1 + _last(options.candidates, rows), 1) if calibrates else (0, 0)
    for runners in (options.candidates, options.candidates + priors[0], priors[1]):
        answers += _race(runners, rows)
    answers += sum(priors) * len(EMPTY)
    if rounds:
        answers += rows + rounds * (2 * min(REFLECTED, train) + rows)
    return Most(answers, rounds)


def _rounds(runners: int, rows: int) -> list[tuple[int, int]]:
    """Of successive halving: the runners of each round at most, and the rows that each has answered after it."""
    sizes, left = [rows], runners
    while left > FINALISTS and sizes[0] // 2 >= FEWEST:
        sizes.insert(0, sizes[0] // 2)
        left //= 2
    found, left = [], runners
    for size in sizes:
        found.append((left, size))
        left = min(left, max(FINALISTS, left // 2))
    return found


def _last(runners: int, rows: int) -> int:
    """Who runs to the end at most, of so many runners or fewer."""
    return max((_rounds(fewer, rows)[-1][0] for fewer in range(1, runners + 1)), default=0)


def _race(runners: int, rows: int) -> int:
    """Answers that a race of so many runners or fewer asks for at most.

    Fewer can ask for more: over 200 rows, 7 have two rounds and 1,000 answers, 8 have three and 900.
    """
    return max((_whole_race(fewer, rows) for fewer in range(1, runners + 1)), default=0)


def _whole_race(runners: int, rows: int) -> int:
    before, answers = 0, 0
    for left, size in _rounds(runners, rows):
        answers += left * (size - before)
        before = size
    return answers
