"""Parts of the test rows, rows that were broken, and rows that count together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluate import classifier
from tiny import COLOURS, make_recipe, rows_of, write_rows

import tailor
from tailor.compose import prepare
from tailor.core.contracts import Answer
from tailor.core.reporting import Reporter
from tailor.engine.place import Place
from tailor.evaluation.compare import compare
from tailor.evaluation.scorers import resolve
from tailor.evaluation.slices import regressions, slices
from tailor.verbs.measure import _groups, evaluate

ACCURACY, MACRO_F1 = resolve(["accuracy", "macro_f1"], labels=("a", "b"), answers_kind="label")
CHRF = resolve(["chrf"], answers_kind="text")[0]


def sides(expected: str, base: str, tuned: str, **row: list[Any]) -> tuple[list[Answer], list[Answer]]:
    """Answers of one letter each; prompts get longer from row to row."""
    rows = [{key: values[i] for key, values in row.items()} for i in range(len(expected))]
    prompts = [" ".join(["word"] * (i + 1)) for i in range(len(expected))]
    ids = [f"{i:03d}" for i in range(len(expected))]
    parts = list(zip(ids, rows, prompts, expected, strict=True))
    return [Answer(*part, given) for part, given in zip(parts, base, strict=True)], [
        Answer(*part, given) for part, given in zip(parts, tuned, strict=True)
    ]


def test_slices_are_the_comparison_on_their_rows_alone() -> None:
    base, tuned = sides("ab" * 24, "aa" * 24, "bb" * 24, task=["x"] * 30 + ["y"] * 18)
    found = {(part["by"], part["name"]): part for part in slices(base, tuned, ACCURACY)}
    assert set(found) == {
        ("label", "a"),
        ("label", "b"),
        *(("length", name) for name in ("short", "middle", "long")),
        *(("task", name) for name in "xy"),
    }
    assert (found["label", "a"]["base"], found["label", "a"]["tuned"]) == (1, 0)
    assert (found["label", "b"]["base"], found["label", "b"]["tuned"]) == (0, 1)
    assert sum(part["n"] for (by, _), part in found.items() if by == "length") == 48
    alone = compare(base[:30], tuned[:30], ACCURACY)
    assert found["task", "x"]["ci95"] == pytest.approx(list(alone.ci95))
    assert found["task", "x"]["n"] == 30


def test_parts_that_are_too_small_or_too_many_are_left_out() -> None:
    base, tuned = sides("ab" * 4, "aa" * 4, "bb" * 4)
    assert slices(base, tuned, ACCURACY) == []
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    base, tuned = sides(letters, letters, letters)
    assert {part["by"] for part in slices(base, tuned, ACCURACY)} == {"length"}


def test_regressions_are_the_rows_that_were_right() -> None:
    base, tuned = sides("aabb", "aaba", "abbb")
    expected = {"broken": 1, "mended": 1, "rows": ["001"]}
    assert regressions(base, tuned, ACCURACY) == expected
    assert regressions(base, tuned, MACRO_F1) == expected, "of a row, accuracy says it"
    assert regressions(base, tuned, CHRF) is None, "no row is right or wrong by it"


def test_rows_that_belong_together_count_together() -> None:
    """Ten documents of five rows each that stand or fall together tell as much as ten rows, and not as fifty."""
    base, tuned = sides("a" * 50, "aaaaabbbbb" * 5, "a" * 40 + "b" * 10, doc=[i // 5 for i in range(50)])
    groups = _groups("doc", base)
    assert groups is not None
    assert len(set(groups)) == 10
    apart, together = compare(base, tuned, ACCURACY), compare(base, tuned, ACCURACY, groups=groups)
    assert together.delta == pytest.approx(apart.delta)
    assert np.diff(together.ci95) > 1.8 * np.diff(apart.ci95)
    assert together.p_value > apart.p_value


def test_a_row_without_a_group_stands_for_itself() -> None:
    base, _ = sides("aaa", "aaa", "aaa", doc=[None, None, 3])
    assert len(set(_groups("doc", base) or ())) == 3
    assert _groups(None, base) is None


def test_an_evaluation_holds_groups_slices_and_regressions(bert: Path, tmp_path: Path) -> None:
    one = classifier(bert, tmp_path / "one", sorted(COLOURS))
    data = write_rows(
        tmp_path / "rows.jsonl", [{**row, "user": f"u{i % 9}"} for i, row in enumerate(rows_of("single", 45))]
    )
    plain = tailor.evaluate(one, data=str(data))["tasks"]["default"]
    assert {part["by"] for part in plain["slices"]} == {"label", "length"}
    assert set(plain["regressions"]) == {"broken", "mended", "rows"}
    assert "group" not in plain
    splits = {"dev": 0, "test": 0.6, "columns": {"group": "user"}}
    recipe = make_recipe(one, data, tmp_path / "run", splits=splits)
    place = Place("cpu", "fp32", "")
    found = evaluate(prepare(recipe), recipe.base, None, place, lambda digest: 1, Reporter(quiet=True)).evaluation
    assert found["tasks"]["default"]["group"] == "user"
    assert found["tasks"]["default"]["verdict"] == "too_few_rows", "nine users at most, and fewer are held back"
