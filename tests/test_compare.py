"""The paired comparison: against scipy, by its own symmetries, and by how often it is wrong."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.core.contracts import Answer
from tailor.core.errors import TailorError
from tailor.core.examples import Labelled, Origin
from tailor.evaluation.compare import Comparison, compare, task_result
from tailor.evaluation.scorers import SumMetric, resolve
from tailor.evaluation.wording import verdict_sentence
from tailor.objectives.classification import Classification
from tailor.recipe.objectives import ClassificationOptions

ACCURACY, MACRO_F1 = resolve(["accuracy", "macro_f1"], answers_kind="label")
MEAN = SumMetric(
    "mean",
    lambda answers: np.array([[answer.given, 1.0] for answer in answers]),
    lambda totals: totals[..., 0] / totals[..., 1],
    points=1.0,
)


def answers(given_: Sequence[Any], expected: Sequence[Any] | str = "a") -> list[Answer]:
    wanted = [expected] * len(given_) if isinstance(expected, str) else expected
    return [Answer(f"{i:04d}", {}, "", e, g) for i, (e, g) in enumerate(zip(wanted, given_, strict=True))]


def right_and_wrong(both: int, lost: int, won: int, neither: int) -> tuple[list[Answer], list[Answer]]:
    base = "a" * (both + lost) + "b" * (won + neither)
    tuned = "a" * both + "b" * lost + "a" * won + "b" * neither
    return answers(base), answers(tuned)


# --- against scipy ---


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 6), (1, 6), (5, 5), (10, 25), (40, 11)])
def test_right_or_wrong_is_the_exact_mcnemar_test(lost: int, won: int) -> None:
    from scipy.stats import binomtest

    result = compare(*right_and_wrong(20, lost, won, 10), ACCURACY)
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    assert result.delta == pytest.approx((won - lost) / (30 + won + lost))


def test_interval_of_right_or_wrong_rows() -> None:
    """Bonett and Price's interval, computed by hand for 3 lost and 9 won of 40."""
    low, high = compare(*right_and_wrong(20, 3, 9, 8), ACCURACY).ci95
    lost, won = 4 / 42, 10 / 42
    half = 1.959964 * ((lost + won - (won - lost) ** 2) / 42) ** 0.5
    assert (low, high) == pytest.approx((won - lost - half, won - lost + half), abs=1e-6)


def test_twenty_of_twenty_is_not_certainty() -> None:
    result = compare(*right_and_wrong(0, 0, 20, 0), ACCURACY)
    assert result.delta == 1
    assert result.ci95[0] == pytest.approx(0.735, abs=0.01)
    assert result.ci95[1] == 1


def test_swaps_equal_scipys_permutation_test() -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(3)
    for n in (9, 40):  # all swaps; a sample of them
        base, tuned = rng.normal(size=n), rng.normal(0.4, 1, size=n)
        expected = permutation_test(
            (base, tuned), lambda a, b: b.mean() - a.mean(), permutation_type="samples", n_resamples=20_000, rng=rng
        ).pvalue
        found = compare(answers(base.tolist()), answers(tuned.tolist()), MEAN, resamples=20_000).p_value
        assert found == pytest.approx(expected, rel=1e-9 if n == 9 else 0.1, abs=0 if n == 9 else 0.005)


def test_interval_is_scipys_bootstrap_widened_to_students_t() -> None:
    from scipy.stats import bootstrap, norm, t

    rng = np.random.default_rng(4)
    base, tuned = rng.gamma(2, size=60), rng.gamma(3, size=60)
    wider = (60 / 59) ** 0.5 * t.ppf(0.975, 59)
    level = 1 - 2 * norm.cdf(-wider)
    expected = bootstrap(
        (base, tuned),
        lambda a, b, axis: b.mean(axis) - a.mean(axis),
        paired=True,
        method="percentile",
        confidence_level=level,
        n_resamples=20_000,
        rng=rng,
    ).confidence_interval
    found = compare(answers(base.tolist()), answers(tuned.tolist()), MEAN, resamples=20_000).ci95
    assert found == pytest.approx(tuple(expected), abs=0.03)


def test_groups_widen_the_interval_of_rows_that_repeat() -> None:
    rng = np.random.default_rng(5)
    document = rng.normal(size=40)
    base = answers(np.zeros(400).tolist())
    tuned = answers((np.repeat(document, 10) + rng.normal(0, 0.1, 400)).tolist())
    groups = np.repeat(np.arange(40), 10).tolist()
    free, held = compare(base, tuned, MEAN), compare(base, tuned, MEAN, groups=groups)
    widths = [result.ci95[1] - result.ci95[0] for result in (free, held)]
    assert widths[1] / widths[0] == pytest.approx(10**0.5, rel=0.2)
    assert free.delta == pytest.approx(held.delta)
    assert compare(base, tuned, MEAN, groups=[0, 1] * 200).verdict == "too_few_rows"


# --- symmetries ---


rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30
)


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1], ids=["accuracy", "macro_f1"])
def test_row_order_does_not_matter(metric: SumMetric, rows: list[tuple[str, str, str]], rng: random.Random) -> None:
    expected, first, second = zip(*rows, strict=True)
    base, tuned = answers(first, expected), answers(second, expected)
    again = rng.sample(base, len(base)), rng.sample(tuned, len(tuned))
    assert compare(base, tuned, metric, resamples=200) == compare(*again, metric, resamples=200)


@given(rows)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1], ids=["accuracy", "macro_f1"])
def test_swapping_the_sides_negates_the_difference(metric: SumMetric, rows: list[tuple[str, str, str]]) -> None:
    expected, first, second = zip(*rows, strict=True)
    base, tuned = answers(first, expected), answers(second, expected)
    one, other = compare(base, tuned, metric, resamples=200), compare(tuned, base, metric, resamples=200)
    assert one.delta == pytest.approx(-other.delta)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value)
    mirrored = {"better": "worse", "worse": "better"}
    assert one.verdict == mirrored.get(other.verdict, other.verdict)


# --- verdicts ---


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ((20, 2, 30, 8), "better"),
        ((20, 30, 2, 8), "worse"),
        ((20, 10, 12, 8), "no_difference_shown"),
        ((20, 0, 0, 8), "no_difference_shown"),
        ((0, 0, 7, 0), "too_few_rows"),
        ((0, 0, 8, 0), "better"),
        ((1, 0, 0, 0), "too_few_rows"),
    ],
)
def test_verdict(cells: tuple[int, int, int, int], verdict: str) -> None:
    assert compare(*right_and_wrong(*cells), ACCURACY).verdict == verdict


def test_lower_is_better() -> None:
    (loss,) = resolve(["loss"], answers_kind="text")
    base = [replace(answer, nll=3.0 + i % 3, tokens=2) for i, answer in enumerate(answers(["x"] * 30))]
    tuned = [replace(answer, nll=2.0 + i % 5 / 5, tokens=2) for i, answer in enumerate(answers(["x"] * 30))]
    result = compare(base, tuned, loss, margin_points=0.1)
    assert (result.verdict, result.better, result.non_inferior) == ("better", "lower", True)
    assert result.delta < 0
    worse = compare(tuned, base, loss, margin_points=0.1)
    assert (worse.verdict, worse.non_inferior) == ("worse", False)


def test_margin_needs_a_bound_and_not_only_a_small_difference() -> None:
    many, few = right_and_wrong(950, 20, 20, 10), right_and_wrong(15, 2, 2, 1)
    assert compare(*many, ACCURACY, margin_points=2).non_inferior is True
    assert compare(*many, ACCURACY, margin_points=0.1).non_inferior is False
    assert compare(*few, ACCURACY, margin_points=2).non_inferior is False
    assert compare(*right_and_wrong(0, 0, 5, 0), ACCURACY, margin_points=2).non_inferior is False
    assert compare(*many, ACCURACY).non_inferior is None


def test_detectable_difference_shrinks_with_the_root_of_the_rows() -> None:
    few, many = (compare(*right_and_wrong(6 * n, n, n, 2 * n), ACCURACY) for n in (20, 80))
    assert few.detectable_difference == pytest.approx(2.8016 * (40 / 200 / 200) ** 0.5, rel=1e-3)
    assert many.detectable_difference == pytest.approx((few.detectable_difference or 0) / 2)
    # Where no row differs, six that do are still what the test needs.
    assert compare(*right_and_wrong(90, 0, 0, 10), ACCURACY).detectable_difference == pytest.approx(0.06)
    assert compare(answers([0.5] * 9), answers([0.5] * 9), MEAN).detectable_difference is None


def test_power_at_the_detectable_difference_is_about_80_percent() -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(size=(300, 50))
    size = 2.8016 * 50**-0.5
    shown = [
        compare(answers([0.0] * 50), answers((row + size).tolist()), MEAN, resamples=400).verdict == "better"
        for row in base
    ]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.07)


# --- how often it is wrong ---


Kind = Literal["accuracy", "mean", "macro_f1"]


def simulated(kind: Kind, rng: np.random.Generator, gain: float) -> Comparison:
    if kind == "mean":  # a share per row, half of which all models find easy
        easy = rng.normal(size=60)
        base, tuned = easy + rng.normal(size=60), easy + rng.normal(gain, 1, size=60)
        return compare(answers(base.tolist()), answers(tuned.tolist()), MEAN, resamples=600)
    labels = np.array(list("aaaabbc" if kind == "macro_f1" else "ab"))
    n = 120 if kind == "macro_f1" else 80
    expected = rng.choice(labels, n)
    first, second = (np.where(rng.random(n) < share, expected, rng.choice(labels, n)) for share in (0.5, 0.5 + gain))
    sides = [answers(side.tolist(), expected.tolist()) for side in (first, second)]
    return compare(*sides, MACRO_F1 if kind == "macro_f1" else ACCURACY, resamples=600)


@pytest.mark.parametrize(("kind", "times"), [("accuracy", 1500), ("mean", 1000), ("macro_f1", 400)])
def test_false_alarms_and_coverage_without_a_difference(kind: Kind, times: int) -> None:
    rng = np.random.default_rng(7)
    results = [simulated(kind, rng, 0.0) for _ in range(times)]
    false = np.mean([result.verdict != "no_difference_shown" for result in results])
    covered = np.mean([result.ci95[0] <= 0 <= result.ci95[1] for result in results])
    print(f"{kind}: false alarms {false:.3f}, coverage {covered:.3f}")
    assert false <= 0.07
    assert 0.93 <= covered <= 0.975


def test_coverage_with_a_difference() -> None:
    rng = np.random.default_rng(8)
    results = [simulated("accuracy", rng, 0.2) for _ in range(1500)]
    covered = np.mean([result.ci95[0] <= 0.1 <= result.ci95[1] for result in results])
    assert 0.93 <= covered <= 0.97


def test_two_thousand_rows_take_well_under_a_second() -> None:
    rng = np.random.default_rng(9)
    base, tuned = (answers(rng.random(2000).tolist()) for _ in range(2))
    start = time.perf_counter()
    compare(base, tuned, MEAN, resamples=2000)
    assert time.perf_counter() - start < 1.5  # 0.15 s on two quiet cores


# --- refusals, baselines, results ---


def test_unpaired_rows_are_refused() -> None:
    base, tuned = right_and_wrong(5, 1, 3, 1)
    for first, second in ((base[1:], tuned), (base, tuned[1:]), ([*base, base[0]], tuned), (base, [*tuned, tuned[0]])):
        with pytest.raises(TailorError) as error:
            compare(first, second, ACCURACY)
        assert error.value.code == "unpaired"
    for first, second in (([], []), (answers([None] * 3, [None] * 3),) * 2):
        with pytest.raises(TailorError) as error:
            compare(first, second, ACCURACY)
        assert error.value.code == "no_rows"
    with pytest.raises(TailorError):
        compare(base, tuned, ACCURACY, groups=[1])


def test_rows_that_ask_for_nothing_count_for_the_loss_alone() -> None:
    (exact, loss) = resolve(["exact_match", "loss"], answers_kind="text")
    rows = [replace(row, nll=1.0, tokens=1) for row in answers(["a"] * 9 + [None] * 5, ["a"] * 9 + [None] * 5)]
    assert (compare(rows, rows, exact).n, compare(rows, rows, loss).n) == (9, 14)
    result = compare(rows, rows, exact, groups=list(range(14)))
    assert (result.base, result.n) == (1.0, 9)


def test_a_diverged_model_is_named() -> None:
    (loss,) = resolve(["loss"], answers_kind="text")
    good = [replace(answer, nll=1.0, tokens=1) for answer in answers(["x"] * 9)]
    bad = [*good[:4], replace(good[4], nll=float("nan")), *good[5:]]
    with pytest.raises(TailorError, match="not a finite number on 1 of 9 rows") as error:
        compare(good, bad, loss)
    assert error.value.where == "row 0004"


@pytest.mark.parametrize(
    ("labels", "problem", "name", "guess"),
    [
        (["b", "a", "b"], "single_label", "majority", "b"),
        (["b", "a"], "single_label", "majority", "a"),
        ([("a", "b"), ("b",), ("c", "b"), ()], "multi_label", "majority", ("b",)),
        ([("a",), ("b",)], "multi_label", "majority", ()),
        ([1.0, 2.0, 6.0], "regression", "mean", 3.0),
    ],
)
def test_guesses(labels: Any, problem: Any, name: str, guess: Any) -> None:
    examples = [Labelled(id=str(i), origin=Origin("f", i), texts=("x",), label=label) for i, label in enumerate(labels)]
    found, given = Classification(ClassificationOptions(problem=problem)).guess(examples)
    assert found == name
    assert {given(example) for example in examples} == {guess}


def test_task_result_has_the_agreed_shape() -> None:
    base, tuned = right_and_wrong(60, 5, 45, 10)
    result = task_result(base, tuned, [ACCURACY, MACRO_F1], "accuracy", opened=2)
    assert list(result) == ["n", "primary", "verdict", "detectable_difference", "opened", "baseline", "metrics"]
    assert (result["n"], result["verdict"], result["opened"], result["baseline"]) == (120, "better", 2, "base")
    assert list(result["metrics"]) == ["accuracy", "macro_f1"]
    entry = result["metrics"]["accuracy"]
    assert list(entry) == ["base", "tuned", "delta", "better", "ci95", "p_value", "n"]
    assert result == task_result(base[::-1], tuned, [ACCURACY, MACRO_F1], "accuracy", opened=2)
    assert task_result(base, tuned, [ACCURACY], "accuracy", margin_points=2)["non_inferior"] is True
    with pytest.raises(TailorError, match="not among"):
        task_result(base, tuned, [ACCURACY], "mcc")


def test_json_fields_are_reported_by_field() -> None:
    metrics = resolve(["json_fields"], answers_kind="text")
    base, tuned = answers(["{}"] * 9, '{"a": 1, "b": 2}'), answers(['{"a": 1, "b": 3}'] * 9, '{"a": 1, "b": 2}')
    entry = task_result(base, tuned, metrics, "json_fields")["metrics"]["json_fields"]
    assert entry["fields"] == {"a": {"base": 0.0, "tuned": 1.0}, "b": {"base": 0.0, "tuned": 0.0}}
    assert entry["tuned"] == 0.5


@pytest.mark.parametrize(
    ("cells", "more", "sentence"),
    [
        (
            (60, 5, 45, 10),
            {},
            "Accuracy rose from 54.2 % to 87.5 % (+33.3 points, 95 % interval +22.8 to +42.8, p < 0.0001, n = 120).",
        ),
        (
            (60, 45, 5, 10),
            {"margin_points": 2},
            (
                "Worse than before: Accuracy fell from 87.5 % to 54.2 % (-33.3 points, 95 % interval -42.8 to -22.8, "
                "p < 0.0001, n = 120). It is not shown to be less than 2 points worse."
            ),
        ),
        (
            (60, 10, 12, 10),
            {"baseline": "majority"},
            (
                "No difference is shown: Accuracy went from 76.1 % for the majority guess to 78.3 % (+2.2 points, 95 % "
                "interval -8.1 to +12.3, p = 0.83, n = 92). With this many rows, about 14.3 points would show."
            ),
        ),
        ((1, 0, 1, 0), {}, "Too few rows to tell: Accuracy went from 50.0 % to 100.0 % on 2 test rows."),
        ((1, 0, 0, 0), {}, "Too few rows to tell: Accuracy went from 100.0 % to 100.0 % on 1 test row."),
    ],
)
def test_verdict_in_words(cells: tuple[int, int, int, int], more: dict[str, Any], sentence: str) -> None:
    more = {"margin_points": None} | more
    assert verdict_sentence(task_result(*right_and_wrong(*cells), [ACCURACY], "accuracy", **more)) == sentence


def test_loss_in_words() -> None:
    (loss,) = resolve(["loss"], answers_kind="text")
    base = [replace(answer, nll=2.0 + i % 2, tokens=1) for i, answer in enumerate(answers(["x"] * 20))]
    tuned = [replace(answer, nll=1.0, tokens=1) for answer in base]
    sentence = verdict_sentence(task_result(base, tuned, [loss], "loss"))
    assert sentence.startswith("Loss fell from 2.50 to 1.00 (-1.50, 95 % interval -1.7")
    assert sentence.endswith("n = 20); lower is better.")
