"""A saved recipe is whole: nothing of it is left to be chosen, and run again it gives the same run."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import make_recipe, rows_of, write_rows

from tailor.core.reporting import Reporter
from tailor.data.load import load as load_rows
from tailor.recipe.many import parse_any
from tailor.recipe.recipe import Recipe, parse
from tailor.verbs import fit, stages
from tailor.verbs import tasks as tasks_verb
from tailor.verbs.measure import evaluate


def left_open(values: Any, at: str = "") -> list[str]:
    """Places of a recipe that still say `auto`, but for what a method or an objective decides as it goes."""
    if at in ("method", "objective"):
        return []
    if isinstance(values, dict):
        return [place for key, value in values.items() for place in left_open(value, f"{at}.{key}".strip("."))]
    if isinstance(values, list):
        return [place for number, value in enumerate(values) for place in left_open(value, f"{at}.{number}")]
    return [at] if values == "auto" else []


def settled(base: Path, tmp_path: Path, form: str, **sections: Any) -> tuple[Recipe, Recipe]:
    """A recipe as it is settled, and what comes of settling that once more."""
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form, 40))
    sections = {"splits": {"dev": "auto", "test": "auto"}, **sections}
    once = fit.settled(make_recipe(base, data, tmp_path / "run", **sections))[0].recipe
    again = fit.settled(parse(yaml.safe_load(yaml.safe_dump(once.as_dict()))))[0].recipe
    return once, again


@pytest.mark.parametrize(
    ("base", "form", "method", "metrics", "primary"),
    [
        ("llama", "chat", "lora", ["exact_match", "token_f1", "chrf"], "exact_match"),
        ("llama", "instruction", "full", ["rouge_l", "exact_match", "token_f1", "chrf"], "rouge_l"),
        ("llama", "language", "lora", ["loss", "perplexity", "bits_per_byte"], "loss"),
        ("bert", "single", "lora", ["accuracy", "macro_f1", "mcc"], "accuracy"),
        ("bert", "regression", "head", ["mse", "r2"], "mse"),
        ("bert", "multi", "lora", ["macro_f1", "micro_f1", "accuracy"], "macro_f1"),
        ("bert", "triplet", "lora", ["ndcg_at_10", "recall_at_1", "recall_at_10", "mrr"], "ndcg_at_10"),
        ("t5", "source_target", "full", ["rouge_l", "exact_match", "token_f1", "chrf"], "rouge_l"),
    ],
)
def test_a_settled_recipe_leaves_nothing_open(
    base: str, form: str, method: str, metrics: list[str], primary: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    once, again = settled(request.getfixturevalue(base), tmp_path, form, method=method)
    assert left_open(once.as_dict()) == []
    assert once == again
    assert (once.evaluate.metrics, once.evaluate.primary) == (metrics, primary)
    assert once.base.dtype == "fp32"
    writes = form in ("chat", "instruction", "source_target")
    assert once.evaluate.samples == (200 if writes else None)
    assert (once.evaluate.max_new_tokens is not None) == writes
    assert once.evaluate.forgetting == (base == "llama")


def test_settled_shares_divide_as_auto_does(tmp_path: Path) -> None:
    for form, count in (("single", 37), ("language", 9), ("chat", 203)):
        data = str(write_rows(tmp_path / f"{form}.jsonl", rows_of(form, count)))
        for wish in ({}, {"dev": 0.07}, {"dev": data}):
            one = load_rows(data, **wish)  # type: ignore[arg-type]
            again = load_rows(data, **{**wish, **one.shares})  # type: ignore[arg-type]
            assert again.report.digests == one.report.digests
            assert again.shares == one.shares


def test_pictures_are_settled_by_their_pipeline(pipeline: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 90)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a wug {number}")
    recipe = make_recipe(pipeline, tmp_path, tmp_path / "run", splits={"dev": "auto", "test": "auto"})
    once = fit.settled(recipe)[0].recipe
    assert left_open(once.as_dict()) == []
    assert (once.evaluate.steps, once.evaluate.guidance, once.evaluate.samples) == (50, 7.5, 16)
    assert once.evaluate.metrics == ["loss"]


def test_stages_and_tasks_are_settled_too(bert: Path, tmp_path: Path) -> None:
    labels = str(write_rows(tmp_path / "labels.jsonl", rows_of("single", 40)))
    tags = str(write_rows(tmp_path / "tags.jsonl", rows_of("tags", 40)))
    train = {"max_steps": 2, "precision": "fp32"}
    parts = {"colour": {"data": labels}, "names": {"data": tags}}
    values = {"base": str(bert), "tasks": parts, "method": "full", "train": train, "output": str(tmp_path / "run")}
    recipe = tasks_verb.dry_run(parse_any(values))["recipe"]  # type: ignore[arg-type]
    assert left_open(recipe) == []
    assert tasks_verb.dry_run(parse_any(recipe))["recipe"] == recipe  # type: ignore[arg-type]
    line = [{"data": labels, "method": "full", "train": train}, {"data": tags, "method": "full", "train": train}]
    values = {"base": str(bert), "stages": line, "output": str(tmp_path / "staged")}
    recipe = stages.dry_run(parse_any(values))["recipe"]  # type: ignore[arg-type]
    assert left_open(recipe) == []
    assert stages.dry_run(parse_any(recipe))["recipe"] == recipe  # type: ignore[arg-type]


def test_a_settled_recipe_measures_what_an_open_one_does(llama: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat", 40))
    recipe = make_recipe(llama, data, tmp_path / "run", splits={"dev": "auto", "test": "auto"})
    prepared, place = fit.settled(recipe)
    quiet = Reporter(quiet=True)
    whole = evaluate(prepared, recipe.base, recipe.base, place, lambda digest: 1, quiet).evaluation
    prepared.recipe = prepared.recipe.model_copy(update={"evaluate": recipe.evaluate})
    left = evaluate(prepared, recipe.base, recipe.base, place, lambda digest: 1, quiet).evaluation
    for one in (whole, left):
        one["tasks"]["default"].pop("opened")
    assert whole == left
    assert "loss" in whole["tasks"]["default"]["metrics"]
