"""Several methods on the same rows: which are shown to be as good as the best, and which of those is the cheapest.

A difference between two methods has two sources of chance: which rows were held back, and which seeds were drawn. Rows are
shared by all methods, so they are paired; seeds are each method's own. The variance of a difference of means over seeds
is taken as the sum of both (the little that they share is counted twice, which errs on the safe side), its degrees of
freedom are Satterthwaite's (1946).

Two traps of small test sets are closed. Where two methods agree on every row, the rows would claim certainty: as in Bonett
and Price (2012), one row won and one lost are added. And whoever looks best need not be: a method is called adequate only
where its loss against *every* other row is shown to be below the margin, which is what being close to the true best means
(an intersection-union test, so that each single bound may stay at 95 %; Hsu 1984, "Constrained simultaneous confidence
intervals for multiple comparisons with the best"). "Not significantly worse" would reward a tiny test set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from tailor.core.contracts import Metric
from tailor.evaluation.text_scores import Floats
from tailor.evaluation.wording import named

Adequate = Literal["yes", "no", "unknown"]

NORMAL = NormalDist()
LEVEL, POWER = 0.95, 0.8
AT_ONCE = 4_000_000
"""Numbers of the sums without one row that are held in memory together (32 MB)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One method's scores on the test rows.

    Args:
        statistics: the metric's additive statistics, (seeds, rows, k), rows in the same order for every method.
        cost: what is compared to tell the cheapest; smaller is cheaper.
    """

    method: str
    statistics: Floats
    cost: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A method's place in the race, in the metric's own units; deltas are its own value minus the best one's.

    `p_value`: two-sided, of no difference from the best, corrected over all methods (Holm 1979); None for the best.
    """

    method: str
    value: float
    ci95: tuple[float, float]
    delta_to_best: float
    delta_ci95: tuple[float, float]
    within_margin: Adequate
    p_value: float | None
    by_seed: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Its part of a row of the comparison's JSON."""
        return {
            "value": self.value,
            "ci95": list(self.ci95),
            "delta_to_best": self.delta_to_best,
            "delta_ci95": list(self.delta_ci95),
            "within_margin": self.within_margin,
            "p_value": self.p_value,
            "by_seed": list(self.by_seed),
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """All standings, the best first; `rows_needed` where no method is named and more rows would tell."""

    standings: tuple[Standing, ...]
    best: str
    cheapest_adequate: str | None
    rows_needed: int | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One method, seen through its rows and seeds.

    Args:
        figures: by seed.
        influence: each row's part in their mean, (rows,).
        each: how much that part differs from seed to seed: its variance, mean over rows; 0 for a single seed.
    """

    figures: Floats
    influence: Floats
    each: float

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.figures)

    @property
    def seed_variance(self) -> float:
        """Of the mean over seeds, on these rows."""
        return float(self.figures.var(ddof=1)) / self.seeds if self.seeds > 1 else 0.0

    @property
    def lasting(self) -> float:
        """What is left of it on any number of rows: seeds differ on few rows although they are alike on many."""
        return max(0.0, self.seed_variance - self.each / self.seeds / len(self.influence))


@dataclass(frozen=True, slots=True)
class Difference:
    """An estimate with its standard error: `row_variance` is that of one row, `lasting` what no number of rows takes away.

    `center` is where intervals are laid: the estimate, drawn a little towards no difference by the rows that were added.
    """

    estimate: float
    center: float
    error: float
    freedom: float
    row_variance: float
    lasting: float

    def bound(self, level: float) -> float:
        """How far an interval reaches on one side at a one-sided level."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, level)) * self.error if self.error else 0.0

    def interval(self) -> tuple[float, float]:
        """Two-sided, at 95 %."""
        half = self.bound((1 + LEVEL) / 2)
        return self.center - half, self.center + half

    def p_value(self) -> float:
        """Two-sided, of no difference."""
        from scipy.special import stdtr

        if not self.error:
            return 1.0 if not self.center else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.center) / self.error))


def rank(scores: Sequence[Scores], metric: Metric, margin_points: float) -> Ranking:
    """Methods by their value, each held against the best and the margin, and the cheapest that is shown to be within it.

    Args:
        margin_points: how many points less than the best still count as good enough.
    """
    sides = {one.method: _side(metric, one.statistics) for one in scores}
    gain, margin, span = 1 if metric.better == "higher" else -1, margin_points / metric.points, _span(metric)
    order = sorted(sides, key=lambda name: -gain * float(sides[name].figures.mean()))
    best = order[0]
    to_best = {name: difference(sides[name], sides[best], span) for name in order[1:]}
    corrected = holm({name: one.p_value() for name, one in to_best.items()})
    adequate = {name: _adequate(name, best, sides, gain, margin, span) for name in order}
    cost = {one.method: one.cost for one in scores}
    shown = sorted((name for name in order if adequate[name] == "yes"), key=lambda name: cost[name])
    open_ = [to_best[name] for name in order[1:] if adequate[name] == "unknown"]
    standings = []
    for name in order:
        side, gap = sides[name], to_best.get(name)
        standings.append(
            Standing(
                method=name,
                value=float(side.figures.mean()),
                ci95=_own_interval(side, span),
                delta_to_best=gap.estimate if gap else 0.0,
                delta_ci95=gap.interval() if gap else (0.0, 0.0),
                within_margin=adequate[name],
                p_value=corrected.get(name),
                by_seed=tuple(map(float, side.figures)),
            )
        )
    return Ranking(tuple(standings), best, shown[0] if shown else None, None if shown else rows_needed(open_, margin))


def _adequate(name: str, best: str, sides: Mapping[str, _Side], gain: int, margin: float, span: float) -> Adequate:
    """Yes: shown to lose less than the margin against every other; no: shown to lose more against the best."""
    gaps = {other: difference(sides[name], sides[other], span) for other in sides if other != name}
    if all(gain * gap.center - gap.bound(LEVEL) > -margin for gap in gaps.values()):
        return "yes"
    if name != best and gain * gaps[best].center + gaps[best].bound(LEVEL) < -margin:
        return "no"
    return "unknown"


def rows_needed(gaps: Sequence[Difference], margin: float) -> int | None:
    """Test rows with which a method as good as the best would be shown to be within the margin in 80 % of cases.

    None where there is nothing to tell apart, and where the seeds alone differ too much for any number of rows.
    """
    each = (NORMAL.inv_cdf(LEVEL) + NORMAL.inv_cdf(POWER)) ** 2
    rooms = [(gap.row_variance, margin**2 / each - gap.lasting) for gap in gaps]
    if not rooms or any(room <= 0 for _, room in rooms):
        return None
    return max(math.ceil(variance / room) for variance, room in rooms)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number, step by step from the smallest (Holm 1979)."""
    corrected, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = largest
    return corrected


def difference(one: _Side, other: _Side, span: float) -> Difference:
    """One method minus another: paired over rows, each over its own seeds."""
    estimate = float(one.figures.mean() - other.figures.mean())
    return _estimated(estimate, one.influence - other.influence, (span, -span), (one, other))


def _own_interval(side: _Side, span: float) -> tuple[float, float]:
    """Of a method's own value: two rows right and two wrong are added (Agresti and Coull 1998), and it is kept in bounds."""
    found = _estimated(float(side.figures.mean()), side.influence, (0.0, 0.0, span, span), (side,))
    low, high = found.interval()
    return (max(low, 0.0), min(high, span)) if span and found.estimate >= 0 else (low, high)


def _estimated(estimate: float, rows: Floats, added: tuple[float, ...], sides: Sequence[_Side]) -> Difference:
    """A mean over rows with its standard error; `added` are rows that keep agreement from looking like certainty."""
    count, extra = len(rows), added if any(added) else ()
    whole = np.concatenate([rows, extra])
    variance = float(whole.var(ddof=0 if extra else min(1, count - 1)))
    parts = [(variance / len(whole), max(count - 1, 1))]
    parts += [(side.seed_variance, side.seeds - 1) for side in sides if side.seed_variance]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / free for part, free in parts) if total else math.inf
    center = (estimate * count + sum(extra)) / len(whole)
    lasting = sum(side.lasting for side in sides)
    return Difference(estimate, center, total**0.5, freedom, variance, lasting)


def _side(metric: Metric, statistics: Floats) -> _Side:
    figures = np.array([float(metric.value(seed.sum(0))) for seed in statistics])
    rows = np.array([_influence(metric, seed, value) for seed, value in zip(statistics, figures, strict=True)])
    return _Side(figures, rows.mean(0), float(rows.var(0, ddof=1).mean()) if len(rows) > 1 else 0.0)


def _influence(metric: Metric, rows: Floats, value: float) -> Floats:
    """Each row's part in a figure, (rows,): what the figure loses without it (the jackknife's pseudo-values).

    For a mean these are the rows' own scores; for others (macro-F1, BLEU) their linear parts.
    """
    count, total = len(rows), rows.sum(0)
    if count == 1:
        return np.array([value])
    step = max(1, AT_ONCE // rows.shape[1])
    without = [metric.value(total - rows[start : start + step]) for start in range(0, count, step)]
    return count * value - (count - 1) * np.concatenate(without)


def _span(metric: Metric) -> float:
    """How far a figure can reach from worst to best; 0 for one without bounds."""
    if metric.points == 100:
        return 1.0
    return 100.0 if named(metric.name)[1] == "score" else 0.0
