"""`tailor compare` on tiny bases: rows, reasons, what is shared, what is resumed, and the answer as the contract has it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_cli import call
from tiny import in_this_process, rows_of, write_rows

import tailor
from tailor.core.errors import Interrupted, TailorError
from tailor.engine import loop
from tailor.engine.pace import Pace
from tailor.evaluation import proof
from tailor.evaluation.race_wording import sentence
from tailor.recipe.recipe import Recipe, load, parse
from tailor.verbs import compare as race
from tailor.verbs import fit, rate_search

KEYS = {
    "method",
    "metric",
    "value",
    "ci95",
    "delta_to_best",
    "delta_ci95",
    "within_margin",
    "seconds",
    "memory_bytes",
    "artifact_bytes",
}
TRAIN = {"max_steps": 8, "examples_per_batch": 8, "learning_rate": 3e-3, "precision": "fp32", "checkpoint_every": 4}


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fresh process proves is proved in this one."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


def recipe_of(base: Path, tmp_path: Path, form: str, count: int = 60, **sections: Any) -> Recipe:
    data = write_rows(tmp_path / f"{form}.jsonl", rows_of(form, count))
    values = {
        "base": str(base),
        "data": {"train": str(data), "dev": 0.2, "test": 0.4},
        "method": "lora",
        "train": TRAIN,
    }
    return parse({**values, "output": str(tmp_path / "race"), **sections})


def by_method(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in found["rows"]}


@pytest.fixture(scope="module")
def labels(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A race on labels with an encoder, of a method that is solved, one that is trained and one that does not go with it."""
    tmp_path = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof.subprocess, "run", in_this_process)
        patch.setattr(fit, "sit", counted(fit.sit, sits := []))
        patch.setattr(
            "tailor.compose.encode_once", counted(race.fit.prepare.__globals__["encode_once"], encodings := [])
        )
        found = tailor.compare(recipe_of(bert, tmp_path, "single"), methods=["prompt", "head", "lora"], seeds=2)
    return {"found": found, "folder": Path(found["output"]), "sits": len(sits), "encodings": len(encodings)}


def counted(function: Any, calls: list[Any]) -> Any:
    def counting(*parts: Any, **named: Any) -> Any:
        calls.append(parts)
        return function(*parts, **named)

    return counting


def test_the_answer_has_the_rows_that_were_asked_for(labels: dict[str, Any]) -> None:
    found = labels["found"]
    rows = by_method(found)
    assert set(rows) == {"base", "zero_shot", "prompt", "head", "lora"}
    assert {"rows", "best", "cheapest_adequate", "rows_needed"} <= set(found)
    assert all(set(row) >= KEYS for row in found["rows"])
    assert json.loads((labels["folder"] / "compare.json").read_text()) == found
    for name in ("head", "lora"):
        assert rows[name]["proved"]
        assert rows[name]["seconds"] > 0
        assert rows[name]["artifact_bytes"] > 0
        assert 0 <= rows[name]["ci95"][0] <= rows[name]["value"] <= rows[name]["ci95"][1] <= 1
    assert max(rows["head"]["value"], rows["lora"]["value"]) == rows[found["best"]]["value"]


def test_what_cannot_take_part_is_a_row_with_its_reason(labels: dict[str, Any]) -> None:
    rows = by_method(labels["found"])
    assert "no head for this task" in rows["base"]["reason"]
    for name in ("prompt", "zero_shot"):
        assert rows[name]["value"] is None
        assert rows[name]["within_margin"] == "unknown"
        assert "encoder" in rows[name]["reason"]


def test_each_row_is_made_of_runs_that_stand_for_themselves(labels: dict[str, Any]) -> None:
    rows = by_method(labels["found"])
    assert rows["lora"]["runs"] == ["lora/seed-0", "lora/seed-1"]
    assert rows["head"]["runs"] == ["head/seed-0"], "a solved head has no seed to it"
    splits = set()
    for name in [*rows["lora"]["runs"], *rows["head"]["runs"]]:
        run = tailor.load(labels["folder"] / name)
        splits.add(json.loads((run.path / "lock.json").read_text())["data"]["test"])
        assert run.summary["status"] == "done"
        assert run.evaluation["tasks"]["default"]["n"] == labels["found"]["n"]
    assert len(splits) == 1, "one division of the rows for all methods and seeds"
    seeds = [load(labels["folder"] / name / "recipe.yaml").train.seed for name in rows["lora"]["runs"]]
    assert seeds == [0, 1]
    values = [
        tailor.load(labels["folder"] / name).evaluation["tasks"]["default"]["metrics"]["accuracy"]["tuned"]
        for name in rows["lora"]["runs"]
    ]
    assert rows["lora"]["by_seed"] == pytest.approx(values)
    assert rows["lora"]["value"] == pytest.approx(np.mean(values))


def test_the_rate_is_chosen_on_dev_and_the_losers_are_gone(labels: dict[str, Any]) -> None:
    notes = json.loads((labels["folder"] / "lora" / "search.json").read_text())
    tried = {one["learning_rate"]: one["dev_loss"] for one in notes["tried"]}
    assert sorted(tried) == pytest.approx([9.5e-4, 3e-3, 9.5e-3])
    assert notes["chosen"] == min(tried, key=tried.__getitem__) == by_method(labels["found"])["lora"]["learning_rate"]
    assert not list((labels["folder"] / "lora").glob("rate-*"))
    chosen = load(labels["folder"] / "lora" / "seed-1" / "recipe.yaml").train.learning_rate
    assert chosen == notes["chosen"], "found once, for all seeds"


def test_base_and_rows_are_read_once(labels: dict[str, Any]) -> None:
    assert labels["sits"] == 1, "the base, or what stands for it, answers once"
    assert labels["encodings"] == 3, "train, dev and test, for all methods and seeds"


def test_the_test_split_is_opened_once_for_each_finished_row(labels: dict[str, Any]) -> None:
    first, second = (
        tailor.load(labels["folder"] / name).evaluation["tasks"]["default"]["opened"]
        for name in ("lora/seed-0", "lora/seed-1")
    )
    assert first == second
    head = tailor.load(labels["folder"] / "head" / "seed-0").evaluation["tasks"]["default"]["opened"]
    assert first == head + 1


def test_the_report_holds_it_all(labels: dict[str, Any]) -> None:
    page = (labels["folder"] / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", ""), "nothing is loaded from elsewhere"
    for row in labels["found"]["rows"]:
        assert row["method"] in page
    assert "<svg" in page
    assert "Take" in sentence(labels["found"]) or "None can be named" in sentence(labels["found"])


def test_a_finished_race_is_not_run_again_and_another_is_refused(
    labels: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*parts: Any, **named: Any) -> None:
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(loop, "fit", fail)
    recipe = parse(yaml.safe_load(json.dumps(json.loads((labels["folder"] / "race.json").read_text())["recipe"])))
    again = tailor.compare(recipe, methods=["head", "lora"], seeds=2, margin=50, resume=True)
    before = by_method(labels["found"])
    assert by_method(again)["lora"]["by_seed"] == before["lora"]["by_seed"]
    assert again["margin_points"] == 50
    with pytest.raises(TailorError, match="another seeds"):
        tailor.compare(recipe, methods=["head"], seeds=3, resume=True)
    with pytest.raises(TailorError, match="exists") as raised:
        tailor.compare(recipe, methods=["head"], seeds=2)
    assert raised.value.code == "exists"


def test_a_causal_base_is_asked_too(llama: Path, tmp_path: Path) -> None:
    """Labels on a base that writes: a head is new to it, and asking is not, so that only one of the two rows is there."""
    recipe = recipe_of(llama, tmp_path, "single", method={"name": "prompt", "candidates": 2, "rows": 8})
    found = tailor.compare(recipe, methods=["prompt", "head"], seeds=1)
    rows = by_method(found)
    assert rows["zero_shot"]["value"] is not None
    assert rows["zero_shot"]["seconds"] == 0
    assert "head" in rows["base"]["reason"]
    assert rows["prompt"]["value"] is not None


def test_where_the_rows_ask_in_words_the_base_is_one_row(llama: Path, tmp_path: Path) -> None:
    recipe = recipe_of(
        llama,
        tmp_path,
        "language",
        30,
        data={"train": str(write_rows(tmp_path / "rows.jsonl", rows_of("instruction", 40))), "dev": 0.2, "test": 0.4},
    )
    recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_new_tokens": 4})})
    found = tailor.compare(recipe, methods=["lora"], seeds=1)
    rows = by_method(found)
    assert rows["base"]["value"] is not None
    assert "same words" in rows["zero_shot"]["reason"]
    assert rows["lora"]["forgetting"] is not None


def test_an_interrupted_race_goes_on_where_it_stopped(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(bert, tmp_path, "single")
    trained: list[float] = []
    real = rate_search.fit

    def stopped(job: Any) -> Any:
        trained.append(job.plan.learning_rate)
        if len(trained) == 2:
            raise Interrupted("stopped")
        return real(job)

    monkeypatch.setattr(rate_search, "fit", stopped)
    with pytest.raises(Interrupted, match="finished rows are kept") as told:
        tailor.compare(recipe, methods=["lora"], seeds=1)
    assert "--resume" in told.value.fix
    found = tailor.compare(recipe, methods=["lora"], seeds=1, resume=True)
    assert trained == pytest.approx([3e-3, 9.5e-3, 9.5e-3, 9.5e-4]), "the first rate is not tried again"
    whole = tailor.compare(recipe.model_copy(update={"output": str(tmp_path / "whole")}), methods=["lora"], seeds=1)
    assert by_method(found)["lora"]["by_seed"] == by_method(whole)["lora"]["by_seed"]


def test_a_run_that_is_behind_at_its_half_is_stopped() -> None:
    leader = [(2, 1.0), (4, 0.8), (6, 0.6), (8, 0.5)]
    watch = rate_search._behind(leader, [], 8)
    assert [watch(step, 0.9) for step in (1, 2, 3)] == [False] * 3, "its first half it may be behind"
    assert watch(4, 0.85)
    assert not rate_search._behind(leader, [], 8)(4, 0.7)
    assert rate_search._behind(leader, [(2, 0.9)], 8)(4, 0.95)
    assert not rate_search._behind(leader, [(2, 0.7)], 8)(4, 0.95), "what it reached before a resume counts"
    assert not rate_search._behind([], [], 8)(8, 9.0), "the first has nobody before it"


def test_a_budget_becomes_steps(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes a second for a step and half a second for a look at dev."""
    recipe = recipe_of(bert, tmp_path, "single", train={**TRAIN, "max_steps": 100000})
    monkeypatch.setattr(rate_search, "pace", lambda job: Pace(step=1.0, look=0.5, spent=6.0))
    found = tailor.compare(recipe, methods=["lora"], seeds=1, budget="66s")
    assert load(Path(found["output"]) / "lora" / "seed-0" / "recipe.yaml").train.max_steps == (66 - 6) // 3 - 20 // 2
    assert by_method(found)["lora"]["seconds"] > 6, "finding out counts"


def test_a_budget_that_is_worth_nothing_is_said(bert: Path, tmp_path: Path) -> None:
    recipe = recipe_of(bert, tmp_path, "single")
    with pytest.raises(TailorError, match="steps in each") as raised:
        tailor.compare(recipe, methods=["lora"], seeds=1, budget=0.01)
    assert raised.value.code == "budget"
    assert not list((tmp_path / "race" / "lora" / "rate-auto").glob("checkpoints/*")), "its steps leave nothing"


def test_a_rate_that_diverges_is_a_rate_that_lost(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rate_search.fit

    def diverging(job: Any) -> Any:
        if job.plan.learning_rate > 3e-3:
            with np.errstate(all="ignore"):
                next(iter(job.attached.trainable().values())).data.fill_(float("nan"))
        return real(job)

    monkeypatch.setattr(rate_search, "fit", diverging)
    found = tailor.compare(recipe_of(bert, tmp_path, "single"), methods=["lora"], seeds=1)
    notes = json.loads((Path(found["output"]) / "lora" / "search.json").read_text())
    assert [one["dev_loss"] is None for one in notes["tried"]] == [False, True, False]
    assert by_method(found)["lora"]["value"] is not None


def test_the_command_line_tells_it(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(bert, tmp_path, "single")
    recipe.save(tmp_path / "recipe.yaml")
    words = ["compare", tmp_path / "recipe.yaml", "--methods", "head", "--seeds", "1", "--quiet"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert "Take head" in out
    assert "takes no part" in out
    code, out, _ = call(capsys, *words, "--resume", "--json")
    assert json.loads(out)["cheapest_adequate"] == "head"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--methods", "lorra"], "methods"),
        (["--methods", "head", "--budget", "soon"], "budget"),
        (["--methods", "head", "--seeds", "0"], "seeds"),
        (["--methods", "prompt"], "objective"),
    ],
)
def test_what_cannot_be_raced_is_said_at_once(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], where: str
) -> None:
    recipe_of(bert, tmp_path, "single").save(tmp_path / "recipe.yaml")
    code, out, _ = call(capsys, "compare", tmp_path / "recipe.yaml", *words, "--json", "--quiet")
    assert code == 2
    assert json.loads(out)["error"]["where"] == where
