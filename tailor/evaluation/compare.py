"""Is the tuned model better than the base? Paired statistics over the same held-out rows.

Base and tuned answer the same rows, so the comparison is paired: that some rows are easy cancels, and far fewer rows
show the same difference (Miller 2024, "Adding Error Bars to Evals"). Two ways lead to interval and p-value:

- Rows that are right or wrong: McNemar's exact test and the interval of Bonett and Price (2012). A bootstrap has no
  width where every row agrees (20 of 20 won), which would claim certainty; this interval keeps its 95 % there.
- Everything else, also corpus scores such as macro-F1 and BLEU: rows are swapped between the models at random for the
  p-value, and resampled for the interval. Its quantiles are moved outwards to those of Student's t (Hesterberg 2015,
  "What Teachers Should Know About the Bootstrap"): in simulation that held 95 % better than the plain percentiles and
  than BCa, whose skewness correction has little to correct in a paired difference.

One metric, named before anything is measured, decides: so nothing is corrected for the metrics shown beside it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from tailor.core.contracts import Answer, Metric
from tailor.core.errors import TailorError
from tailor.evaluation.scorers import LIKELIHOODS, fields
from tailor.evaluation.text_scores import Floats

Verdict = Literal["better", "no_difference_shown", "worse", "too_few_rows"]

NORMAL = NormalDist()
SIGNIFICANCE = 0.05
POWER = 0.8
FEWEST_UNITS = 8
"""Below 6 rows no exact test can reach p < 0.05 (2 / 2^5 = 0.06); with 6 or 7, one row the other way undoes it."""
EXACT_UNITS = 12
"""Up to so many rows with a difference, all 2^n swaps are tried instead of a sample of them."""
CHUNK_NUMBERS = 4_000_000
"""Resampling weights held in memory at once (32 MB)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base against tuned on one metric, in the metric's own units.

    Args:
        delta: tuned minus base, whichever direction is better.
        ci95: 95 % interval of `delta`.
        p_value: two-sided, of no difference at all.
        n: rows.
        detectable_difference: what 80 % of repetitions with this many rows would show; None where it cannot be told.
        non_inferior: is tuned shown to be at most the margin worse (one-sided 95 % bound); None without a margin.
    """

    metric: str
    base: float
    tuned: float
    delta: float
    better: Literal["higher", "lower"]
    ci95: tuple[float, float]
    p_value: float
    n: int
    verdict: Verdict
    detectable_difference: float | None
    non_inferior: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """The metric's entry in `evaluation.json`."""
        return {
            "base": self.base,
            "tuned": self.tuned,
            "delta": self.delta,
            "better": self.better,
            "ci95": list(self.ci95),
            "p_value": self.p_value,
            "n": self.n,
        }


def compare(
    base: Sequence[Answer],
    tuned: Sequence[Answer],
    metric: Metric,
    *,
    margin_points: float | None = None,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 5000,
) -> Comparison:
    """Compare two models' answers to the same examples.

    Args:
        base: one model's answers; row order has no influence.
        tuned: the other's, of the same example ids.
        metric: what is compared.
        margin_points: how many points worse still counts as not worse.
        groups: per row of `base`, what it belongs to (a document, a user): groups are resampled instead of rows.
        seed: of the resampling; the same answers give the same figures.
        resamples: how many.

    Raises `TailorError` where the ids differ or repeat, there are no rows, or a statistic is not a finite number.
    """
    base, tuned, groups = paired(base, tuned, metric, groups)
    sides = _grouped(_finite(metric, base), groups), _grouped(_finite(metric, tuned), groups)
    sample = _sample(sides[0], sides[1], metric, len(base), seed, resamples)
    figures = metric.value(np.stack([side.sum(0) for side in sides]))
    delta = float(figures[1] - figures[0])
    interval = sample.interval(0.95)
    gain = 1 if metric.better == "higher" else -1
    non_inferior = None
    if margin_points is not None:
        worst = min(gain * bound for bound in sample.interval(0.90))
        non_inferior = sample.units >= FEWEST_UNITS and worst > -margin_points / metric.points
    detectable = sample.detectable()
    return Comparison(
        metric=metric.name,
        base=float(figures[0]),
        tuned=float(figures[1]),
        delta=delta,
        better=metric.better,
        ci95=interval,
        p_value=sample.p_value,
        n=len(base),
        verdict=_verdict(gain * delta, interval, sample),
        detectable_difference=detectable,
        non_inferior=non_inferior,
    )


def _verdict(gain: float, interval: tuple[float, float], sample: "_Sample") -> Verdict:
    """A difference is shown where both the test and the interval say so."""
    if sample.units < FEWEST_UNITS:
        return "too_few_rows"
    if sample.p_value < SIGNIFICANCE and not interval[0] <= 0 <= interval[1]:
        return "better" if gain > 0 else "worse"
    return "no_difference_shown"


# --- rows into pairs ------------------------------------------------------------------------------------------------


def paired(
    base: Sequence[Answer], tuned: Sequence[Answer], metric: Metric, groups: Sequence[Hashable] | None = None
) -> tuple[list[Answer], list[Answer], list[Hashable] | None]:
    """Both sides of the rows that a metric scores, and their groups, in the order of the example ids.

    A row that asks for no answer (its reference is None) counts for likelihoods alone. Raises `TailorError` where the
    ids differ or repeat, and where no row is left.
    """
    ids = [answer.example_id for answer in base]
    others = {answer.example_id: answer for answer in tuned}
    if len(set(ids)) < len(ids) or len(others) < len(tuned) or set(ids) != set(others):
        alone = sorted(set(ids) ^ set(others))[:3]
        raise TailorError(
            f"the two sets of answers are not of the same rows: {len(base)} against {len(tuned)}"
            + (f", unpaired: {', '.join(alone)}" if alone else ", some of them twice"),
            where="evaluate",
            fix="answer the same test rows with both models",
            code="unpaired",
        )
    if groups is not None and len(groups) != len(ids):
        raise TailorError(
            f"{len(groups)} groups for {len(ids)} rows", where="groups", fix="one group per row", code="unpaired"
        )
    scored = [i for i, answer in enumerate(base) if answer.expected is not None or metric.name in LIKELIHOODS]
    if not scored:
        raise TailorError(
            f"there are no rows for {metric.name} to score",
            where="evaluate",
            fix="hold back some: data.test",
            code="no_rows",
        )
    order = sorted(scored, key=ids.__getitem__)
    return (
        [base[i] for i in order],
        [others[ids[i]] for i in order],
        None if groups is None else [groups[i] for i in order],
    )


def _finite(metric: Metric, answers: Sequence[Answer]) -> Floats:
    """The metric's statistics; raises where one is not a finite number (a diverged model)."""
    statistics = metric.statistics(answers)
    bad = ~np.isfinite(statistics).all(-1)
    if bad.any():
        raise TailorError(
            f"{metric.name} is not a finite number on {int(bad.sum())} of {len(answers)} rows",
            where=answers[int(bad.argmax())].place,
            fix="the model has probably diverged: lower the learning rate",
            code="not_finite",
        )
    return statistics


def _grouped(statistics: Floats, groups: Sequence[Hashable] | None) -> Floats:
    """Statistics summed within groups, in order of first appearance; the rows themselves without groups."""
    if groups is None:
        return statistics
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(places), statistics.shape[1]))
    np.add.at(sums, [places[group] for group in groups], statistics)
    return sums


# --- p-value, interval and detectable difference --------------------------------------------------------------------


class _Sample:
    """What the paired units tell: `units` of them, a p-value, intervals, and the standard error of the difference."""

    units: int
    p_value: float
    error: float
    least: float = 0.0

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided interval of the difference at a level such as 0.95."""
        raise NotImplementedError

    def detectable(self) -> float | None:
        """The difference that is shown with 80 % power (normal approximation), and at least the smallest showable."""
        size = max((NORMAL.inv_cdf(1 - SIGNIFICANCE / 2) + NORMAL.inv_cdf(POWER)) * self.error, self.least)
        return size if size > 0 else None


class _RightOrWrong(_Sample):
    """Units that are 0 or 1 on both sides: only those that differ carry information."""

    def __init__(self, base: Floats, tuned: Floats) -> None:
        from scipy.special import bdtr

        self.units = len(base)
        self.won, self.lost = int((tuned > base).sum()), int((tuned < base).sum())
        differ = self.won + self.lost
        self.p_value = min(1.0, 2 * float(bdtr(min(self.won, self.lost), differ, 0.5))) if differ else 1.0
        self.error = float((tuned - base).std()) / self.units**0.5
        # McNemar's test needs six rows that differ, all one way, for p < 0.05.
        self.least = 6 / self.units

    def interval(self, level: float) -> tuple[float, float]:
        """Bonett and Price (2012): Wald's interval after adding one won and one lost row."""
        n = self.units + 2
        won, lost = (self.won + 1) / n, (self.lost + 1) / n
        half = NORMAL.inv_cdf((1 + level) / 2) * ((won + lost - (won - lost) ** 2) / n) ** 0.5
        return max(won - lost - half, -1.0), min(won - lost + half, 1.0)


class _Resampled(_Sample):
    """Units of any kind, through swaps and resampling."""

    def __init__(self, base: Floats, tuned: Floats, metric: Metric, seed: int, resamples: int) -> None:
        self.units = len(base)
        self.p_value = _swap_test(base, tuned, metric, seed, resamples)
        self.deltas = _bootstrap(base, tuned, metric, seed, resamples)
        self.error = float(self.deltas.std())

    def interval(self, level: float) -> tuple[float, float]:
        """Bootstrap quantiles, moved outwards to Student's t with units - 1 degrees of freedom."""
        from scipy.special import stdtrit

        if self.units == 1:
            return float(self.deltas.min()), float(self.deltas.max())
        wider = (self.units / (self.units - 1)) ** 0.5 * float(stdtrit(self.units - 1, (1 + level) / 2))
        low, high = np.quantile(self.deltas, [NORMAL.cdf(-wider), NORMAL.cdf(wider)])
        return float(low), float(high)


def _sample(base: Floats, tuned: Floats, metric: Metric, rows: int, seed: int, resamples: int) -> _Sample:
    """The exact way where every unit is one row that is right or wrong, else resampling."""
    weight = base[0, -1]
    probe = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    if (
        len(base) == rows
        and base.shape[1] == 2
        and weight > 0
        and bool(np.all(base[:, 1] == weight) and np.all(tuned[:, 1] == weight))
        and bool(np.isin([base[:, 0], tuned[:, 0]], [0.0, weight]).all())
        and np.array_equal(metric.value(probe), [0.0, 1.0, 0.5])  # the figure is first over second, that is, a share
    ):
        return _RightOrWrong(base[:, 0] / weight, tuned[:, 0] / weight)
    return _Resampled(base, tuned, metric, seed, resamples)


def _swap_test(base: Floats, tuned: Floats, metric: Metric, seed: int, resamples: int) -> float:
    """Two-sided p-value of the paired permutation test: without a difference, swaps change nothing."""
    change = tuned - base
    moving = change[np.abs(change).max(-1) > 0]
    totals = base.sum(0), tuned.sum(0)
    observed = _delta(metric, *totals)
    least = abs(observed) - 1e-9 * (np.abs(metric.value(np.stack(totals))).sum())  # equal figures differ by rounding
    exact = len(moving) <= EXACT_UNITS
    count = 2 ** len(moving) if exact else resamples
    rng = np.random.default_rng([seed, 1])
    hits = 0
    for start, size in _chunks(count, len(moving)):
        if exact:
            swaps = (np.arange(start, start + size)[:, None] >> np.arange(len(moving))) & 1
        else:
            swaps = rng.integers(0, 2, (size, len(moving)), dtype=np.int8)
        moved = swaps.astype(np.float64) @ moving
        hits += int((np.abs(_delta(metric, totals[0] + moved, totals[1] - moved)) >= least).sum())
    # The observed order is one of the possible ones: never a p-value of 0 (Phipson and Smyth 2010).
    return hits / count if exact else (hits + 1) / (count + 1)


def _bootstrap(base: Floats, tuned: Floats, metric: Metric, seed: int, resamples: int) -> Floats:
    """Differences of resampled units, shape (resamples,). A resample is a row of counts, its sums a matrix product."""
    units, both = len(base), np.hstack([base, tuned])
    rng = np.random.default_rng([seed, 2])
    deltas = []
    for _, size in _chunks(resamples, units):
        drawn = rng.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        first, second = np.split(counts.astype(np.float64) @ both, 2, axis=-1)
        deltas.append(_delta(metric, first, second))
    return np.concatenate(deltas)


def _delta(metric: Metric, base: Floats, tuned: Floats) -> Floats:
    return np.asarray(metric.value(tuned) - metric.value(base))


def _chunks(total: int, width: int) -> list[tuple[int, int]]:
    """(start, size) of runs of at most CHUNK_NUMBERS / width."""
    step = max(CHUNK_NUMBERS // max(width, 1), 1)
    return [(start, min(step, total - start)) for start in range(0, total, step)]


# --- a task's result ------------------------------------------------------------------------------------------------


def task_result(
    base: Sequence[Answer],
    tuned: Sequence[Answer],
    metrics: Sequence[Metric],
    primary: str,
    *,
    baseline: str = "base",
    opened: int = 1,
    margin_points: float | None = None,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """One task's entry in `evaluation.json`; with a margin also `margin_points` and `non_inferior`.

    Args:
        base: answers of the base, or of the predictor that `baseline` names.
        tuned: answers of the tuned model.
        metrics: what to report.
        primary: the name of the one that decides the verdict.
        baseline: `base`, or the name of a guess.
        opened: how often the test split has been opened, this time included.
        margin_points: see `compare`.
        groups: see `compare`.

    The resampling seed is fixed: the same answers always give the same report. Raises `TailorError` as `compare` does.
    """
    results = {m.name: compare(base, tuned, m, margin_points=margin_points, groups=groups) for m in metrics}
    if primary not in results:
        raise TailorError(
            f"{primary} is not among the metrics", where="evaluate.primary", fix=f"one of: {', '.join(results)}"
        )
    deciding = results[primary]
    entries = {name: result.as_dict() for name, result in results.items()}
    if "json_fields" in entries:
        shares = [fields([answer for answer in side if answer.expected is not None]) for side in (base, tuned)]
        entries["json_fields"]["fields"] = {
            name: {"base": shares[0][name], "tuned": shares[1][name]} for name in shares[0]
        }
    result = {
        "n": deciding.n,
        "primary": primary,
        "verdict": deciding.verdict,
        "detectable_difference": deciding.detectable_difference,
        "opened": opened,
        "baseline": baseline,
        "metrics": entries,
    }
    if margin_points is not None:
        result |= {"margin_points": margin_points, "non_inferior": deciding.non_inferior}
    return result
