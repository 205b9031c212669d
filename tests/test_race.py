"""The statistics of a race: against formulas by hand, and by how often it is wrong."""

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tailor.core.contracts import Answer
from tailor.evaluation.race import Ranking, Scores, difference, holm, rank
from tailor.evaluation.race import _side as side
from tailor.evaluation.scorers import resolve

ACCURACY, MACRO_F1 = resolve(["accuracy", "macro_f1"], labels=("a", "b", "c"), answers_kind="label")
LOSS = resolve(["loss"], answers_kind="text")[0]
SIMULATION = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "race_simulation.py"))


def right(*seeds: Sequence[int]) -> np.ndarray:
    rows = np.array(seeds, dtype=float)
    return np.stack([rows, np.ones_like(rows)], -1)


def ranked(margin: float = 2.0, **methods: np.ndarray) -> Ranking:
    """Methods in the order of their cost."""
    return rank([Scores(name, rows, (place,)) for place, (name, rows) in enumerate(methods.items())], ACCURACY, margin)


def test_one_seed_each_is_bonett_and_prices_interval_with_students_t() -> None:
    from scipy.stats import t

    won, lost, n = 9, 3, 40
    one, other = [1] * won + [0] * lost + [1] * 28, [0] * won + [1] * lost + [1] * 28
    found = difference(side(ACCURACY, right(one)), side(ACCURACY, right(other)), 1.0)
    shares = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    center = shares[0] - shares[1]
    half = t.ppf(0.975, n - 1) * ((sum(shares) - center**2) / (n + 2)) ** 0.5
    assert found.estimate == pytest.approx((won - lost) / n)
    assert found.interval() == pytest.approx((center - half, center + half))


def test_seeds_widen_an_interval_and_lower_its_degrees_of_freedom() -> None:
    rows = [1, 0] * 100
    calm = right(rows, rows, rows)
    wild = right(rows, [1] * 120 + [0] * 80, [1] * 80 + [0] * 120)
    still, moved = (difference(side(ACCURACY, one), side(ACCURACY, calm), 1.0) for one in (calm, wild))
    assert moved.estimate == still.estimate == 0
    expected = np.var([0.5, 0.6, 0.4], ddof=1) / 3
    assert moved.error**2 > expected > moved.lasting > 0
    assert moved.freedom < 10 < still.freedom


def test_the_parts_of_a_figure_that_is_no_mean_are_the_jackknifes() -> None:
    draw = np.random.default_rng(0)
    pairs = [("abc"[a], "abc"[b]) for a, b in draw.integers(0, 3, (30, 2))]
    rows = MACRO_F1.statistics([Answer(str(i), {}, "", expected, given) for i, (expected, given) in enumerate(pairs)])
    whole = float(MACRO_F1.value(rows.sum(0)))
    by_hand = [30 * whole - 29 * float(MACRO_F1.value(np.delete(rows, i, 0).sum(0))) for i in range(30)]
    assert side(MACRO_F1, rows[None]).influence == pytest.approx(by_hand)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_agreement_on_few_rows_is_no_proof() -> None:
    """All 20 rows agree: the rows alone would show a difference of nothing, give or take nothing."""
    found = ranked(cheap=right([1] * 19 + [0]), dear=right([1] * 19 + [0]))
    assert found.cheapest_adequate is None
    assert {one.within_margin for one in found.standings} == {"unknown"}
    assert found.rows_needed is not None
    assert found.rows_needed > 20


def test_the_cheapest_that_is_shown_is_named() -> None:
    draw = np.random.default_rng(1)
    rows = (draw.random(3000) < 0.9).astype(int)
    flipped = rows.copy()
    flipped[draw.integers(0, 3000, 30)] ^= 1
    bad = (draw.random(3000) < 0.6).astype(int)
    found = ranked(bad=right(bad), cheap=right(flipped), dear=right(rows))
    assert found.cheapest_adequate == "cheap"
    assert {one.method: one.within_margin for one in found.standings} == {"cheap": "yes", "dear": "yes", "bad": "no"}
    assert found.rows_needed is None
    assert next(one.p_value for one in found.standings if one.method == "bad") < 1e-6  # type: ignore[operator]


def test_the_best_is_not_named_for_being_observed_the_best() -> None:
    """On 20 rows the better method may come out below: whoever leads must still be shown to lead, or nearly."""
    found = ranked(lucky=right([1] * 17 + [0] * 3), other=right([1] * 16 + [0] * 2 + [1] * 2))
    assert found.cheapest_adequate is None


def test_where_the_seeds_differ_too_much_no_number_of_rows_would_tell() -> None:
    many = [
        right([1] * high + [0] * (1000 - high), [1] * low + [0] * (1000 - low))
        for high, low in ((950, 600), (940, 620))
    ]
    found = ranked(one=many[0], other=many[1])
    assert (found.cheapest_adequate, found.rows_needed) == (None, None)


def test_seeds_that_differ_by_the_rows_alone_leave_a_number_of_rows() -> None:
    """Three seeds that are each right on other rows differ on 100 of them, and would not on a million."""
    draw = np.random.default_rng(3)
    one, other = (right(*(draw.random((3, 100)) < 0.9).astype(int)) for _ in range(2))
    found = ranked(one=one, other=other)
    assert found.cheapest_adequate is None
    assert found.rows_needed is not None


def test_lower_is_better_where_the_metric_says_so() -> None:
    draw = np.random.default_rng(0)
    nats = draw.gamma(2.0, 1.0, 400)
    rows = {"good": nats, "bad": nats + draw.normal(3.0, 0.1, 400)}
    scores = [Scores(name, np.stack([one, np.ones(400)], -1)[None], (0.0,)) for name, one in rows.items()]
    found = rank(scores, LOSS, 0.5)
    assert (found.best, found.cheapest_adequate) == ("good", "good")
    assert found.standings[1].delta_to_best == pytest.approx(3.0, abs=0.05)
    assert found.standings[1].within_margin == "no"


@pytest.mark.parametrize("rows", [20, 100, 500])
def test_a_method_ten_points_worse_is_not_named(rows: int) -> None:
    assert SIMULATION["named_although_worse"](rows, 200) < 0.05
    assert SIMULATION["named_although_worse"](rows, 200, seeds=1, spread=0.0, alike=0.95) < 0.05


def test_on_twenty_rows_the_simulated_methods_do_look_alike() -> None:
    """So that the test above could fail: by "not significantly worse" the bad method would pass nearly always."""
    draw = np.random.default_rng(0)
    found = [SIMULATION["once"](draw, {"worse": 0.8, "best": 0.9}, 20, 1, 0.0) for _ in range(100)]
    p_values = [one.p_value for race in found for one in race.standings if one.p_value is not None]
    assert sum(value > 0.05 for value in p_values) > 80


def test_the_true_order_is_found_where_the_rows_suffice() -> None:
    assert SIMULATION["order_found"](500, 100) > 0.98
    assert SIMULATION["named_where_alike"](2000, 60) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 100, 200, 500, 1000, 2000])
def test_it_is_wrong_no_more_often_than_it_says(rows: int) -> None:
    for how in ({}, {"top": 0.6}, {"seeds": 1, "spread": 0.0, "alike": 0.95}, {"others": 4}, {"spread": 0.03}):
        assert SIMULATION["named_although_worse"](rows, 1000, **how) < 0.05, how


@pytest.mark.slow
def test_as_many_rows_as_it_asks_for_do_tell() -> None:
    """Two methods alike on 200 rows: with the rows it asks for, one of them is shown in about 80 % of cases."""
    draw = np.random.default_rng(5)
    truths = {"one": 0.9, "other": 0.9}
    asked = [
        one.rows_needed for one in (SIMULATION["once"](draw, truths, 200, 3) for _ in range(200)) if one.rows_needed
    ]
    rows = int(np.median(asked))
    shown = [SIMULATION["once"](draw, truths, rows, 3).cheapest_adequate is not None for _ in range(300)]
    assert np.mean(shown) > 0.7
