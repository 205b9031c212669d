"""Where a difference comes from: the same comparison on parts of the test rows, and the rows that were right before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tailor.core.contracts import Answer, Metric
from tailor.evaluation.compare import FEWEST_UNITS, compare, paired
from tailor.evaluation.scorers import METRICS

BY_ROW = {"mcc": "accuracy", "macro_f1": "accuracy", "micro_f1": "accuracy", "r2": "mse"}
"""Metrics that say nothing about one row alone, and the one that does."""
RESAMPLES = 1000
MOST_NAMES = 24
"""A column of more values is no way to part the rows."""
THIRDS = ("short", "middle", "long")
LISTED = 100
PERFECT = 1e-9


def slices(base: Sequence[Answer], tuned: Sequence[Answer], metric: Metric) -> list[dict[str, Any]]:
    """The comparison by label, by length of the prompt in thirds, and by the column `task`, where rows have such.

    Parts of fewer than 8 rows are left out. Intervals are those of each part alone: of many of them, some will not hold.
    """
    base, tuned, _ = paired(base, tuned, metric)
    found = []
    for by, name_of in _ways(base).items():
        names = [name_of(answer) for answer in base]
        for name in sorted(set(names), key=THIRDS.index if by == "length" else None):
            places = [place for place, own in enumerate(names) if own == name]
            if len(places) < FEWEST_UNITS:
                continue
            one, other = ([side[place] for place in places] for side in (base, tuned))
            result = compare(one, other, metric, resamples=RESAMPLES)
            values = {"base": result.base, "tuned": result.tuned, "delta": result.delta, "ci95": list(result.ci95)}
            found.append({"by": by, "name": name, "n": result.n, "metric": metric.name, **values})
    return found


def _ways(answers: Sequence[Answer]) -> Mapping[str, Callable[[Answer], str]]:
    ways: dict[str, Callable[[Answer], str]] = {}
    if all(isinstance(answer.expected, str) for answer in answers) and _few(answer.expected for answer in answers):
        ways["label"] = lambda answer: str(answer.expected)
    lengths = [len(answer.prompt.split()) for answer in answers]
    first, second = np.quantile(lengths, [1 / 3, 2 / 3])
    if first < second:
        ways["length"] = lambda answer: THIRDS[sum(len(answer.prompt.split()) > bound for bound in (first, second))]
    if all("task" in answer.row for answer in answers) and _few(answer.row["task"] for answer in answers):
        ways["task"] = lambda answer: str(answer.row["task"])
    return ways


def _few(values: Any) -> bool:
    return 1 < len(set(map(str, values))) <= MOST_NAMES


def of_rows(metric: Metric) -> Metric:
    """The metric that says of one row what this one says of all."""
    return METRICS[BY_ROW[metric.name]][1](()) if metric.name in BY_ROW else metric


def regressions(base: Sequence[Answer], tuned: Sequence[Answer], metric: Metric) -> dict[str, Any] | None:
    """What the base got right and the tuned model gets wrong, and how many it mended; None for a metric that no row fulfils.

    Up to 100 rows are listed by id.
    """
    sides, metric = paired(base, tuned, metric)[:2], of_rows(metric)
    if metric.better == "lower" or metric.points != 100:
        return None
    before, after = (metric.value(metric.statistics(side)) for side in sides)
    right_before, right_after = before >= 1 - PERFECT, after >= 1 - PERFECT
    broken = np.flatnonzero(right_before & ~right_after)
    return {
        "broken": len(broken),
        "mended": int((~right_before & right_after).sum()),
        "rows": [sides[0][place].example_id for place in broken[:LISTED]],
    }
