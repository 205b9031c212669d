"""How many answers a search for a prompt can ask for at most: known before the first one is paid for."""

from dataclasses import dataclass
from typing import Any

from tailor.engine.proposals import POOL
from tailor.engine.reflect import REFLECTED, ROUNDS
from tailor.engine.search import BOOTSTRAPPED, EMPTY, FEWEST, FINALISTS


@dataclass(frozen=True)
class Most:
    """The most that a search asks for: answers to rows, and instructions of what reflects."""

    answers: int
    reflections: int


def rounds_of(options: Any) -> int:
    """Instructions that are rewritten by reflection at most."""
    if options.evolve == "auto":
        return 0 if options.proposer is None else ROUNDS
    return int(options.evolve)


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
    return _rounds(runners, rows)[-1][0]


def _race(runners: int, rows: int) -> int:
    before, answers = 0, 0
    for left, size in _rounds(runners, rows):
        answers += left * (size - before)
        before = size
    return answers
