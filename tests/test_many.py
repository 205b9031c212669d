"""Recipes of several parts: stages one after the other, tasks over one trunk."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import InterruptingReporter, copies, in_this_process, rows_of, write_rows

import tailor
from tailor.bases.loading import find
from tailor.compose import choose_place
from tailor.compose_tasks import Tasks, make_tasks_job, prepare_tasks
from tailor.core.errors import Interrupted, RecipeError, RunError, TailorError
from tailor.core.reporting import Reporter
from tailor.core.runs import made_by
from tailor.engine.loop import Job, dev_batches, fit
from tailor.engine.order import TaskOrder, batch_indices, task_shares
from tailor.evaluation import proof
from tailor.recipe.base import BaseOptions
from tailor.recipe.many import StagedRecipe, TasksRecipe, parse_any
from tailor.recipe.recipe import override
from tailor.verbs import stages
from tailor.verbs import tasks as tasks_verb
from tailor.verbs.fit import run

QUIET = Reporter(quiet=True)
TRAIN = {"max_steps": 4, "examples_per_batch": 8, "learning_rate": 3e-3, "precision": "fp32", "checkpoint_every": 1}


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fresh process proves is proved in this one; the slow test of the shipped recipes waits for real ones."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


def file(tmp_path: Path, form: str, count: int = 40) -> str:
    return str(write_rows(tmp_path / f"{form}.jsonl", rows_of(form, count)))


def tasks_recipe(base: Path, tmp_path: Path, output: str = "run", **sections: Any) -> TasksRecipe:
    tasks = {"colour": {"data": file(tmp_path, "single", 80)}, "names": {"data": file(tmp_path, "tags", 40)}}
    values = {"base": str(base), "tasks": tasks, "method": "full", "train": TRAIN, "output": str(tmp_path / output)}
    recipe = parse_any({**values, **sections})
    assert isinstance(recipe, TasksRecipe)
    return recipe


def staged_recipe(base: Path, tmp_path: Path, **sections: Any) -> StagedRecipe:
    first = {"data": file(tmp_path, "language"), "method": "full", "train": TRAIN}
    second = {"data": file(tmp_path, "single"), "method": "lora", "train": TRAIN}
    values = {"base": str(base), "stages": [first, second], "output": str(tmp_path / "run"), **sections}
    recipe = parse_any(values)
    assert isinstance(recipe, StagedRecipe)
    return recipe


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_recipe_of_parts_comes_back_as_it_was_saved(bert: Path, llama: Path, tmp_path: Path) -> None:
    for recipe in (tasks_recipe(bert, tmp_path), staged_recipe(llama, tmp_path)):
        recipe.save(tmp_path / "saved.yaml")
        assert parse_any(yaml.safe_load((tmp_path / "saved.yaml").read_text())) == recipe


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"stages": [{"data": "a", "method": "full"}, {"data": "b", "method": "magic"}]}, "stages.2.method"),
        ({"stages": [{"data": "a"}, {"data": "b", "train": {"epoch": 1}}]}, "stages.2.train.epoch"),
        ({"stages": [{"data": "a"}, {"data": "b", "base": "c"}]}, "stages"),
        ({"stages": [{"data": "a"}]}, "stages"),
        ({"tasks": {"a": {"data": "x"}, "b": {"data": "y", "objective": "magic"}}}, "tasks.b.objective"),
        ({"tasks": {"a": {"data": "x"}}}, "tasks"),
        ({"tasks": {"a": {"data": "x"}, "b c": {"data": "y"}}}, "tasks"),
        ({"tasks": {}, "stages": []}, "tasks"),
    ],
)
def test_a_part_that_is_wrong_is_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_any({"base": "pocket:bert", **change})
    assert raised.value.where.startswith(where)


def test_overrides_reach_into_parts() -> None:
    values = {"stages": [{"data": "a", "train": {"epochs": 1}}, {"data": "b"}], "tasks": {"x": {"weight": 1}}}
    found = override(values, ["stages.2.train.epochs=3", "tasks.x.weight=2"])
    assert found["stages"] == [{"data": "a", "train": {"epochs": 1}}, {"data": "b", "train": {"epochs": 3}}]
    assert found["tasks"]["x"]["weight"] == 2
    with pytest.raises(RecipeError, match="there are 2 stages"):
        override(values, ["stages.3.train.epochs=3"])


# --- the order of tasks -----------------------------------------------------------------------------------------------


def test_shares_by_rows_temperature_cap_and_weight() -> None:
    assert task_shares([300, 100], [1, 1], 1, None) == [0.75, 0.25]
    assert task_shares([300, 100], [1, 1], 1, 100) == [0.5, 0.5]
    assert task_shares([300, 100], [1, 3], 1, None) == [0.5, 0.5]
    warm = task_shares([300, 100], [1, 1], 2, None)
    assert warm[0] == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_every_task_has_its_share_of_every_beginning() -> None:
    shares = [0.6, 0.3, 0.1]
    order = TaskOrder(0, [60, 30, 10], shares, 10)
    counts: Counter[int] = Counter()
    for step in range(200):
        counts[order.task(step)] += 1
        assert all(abs(counts[task] - share * (step + 1)) <= 1 for task, share in enumerate(shares))


def test_a_task_sees_its_rows_as_it_would_alone() -> None:
    sizes = [24, 10]
    order = TaskOrder(3, sizes, [0.7, 0.3], 4)
    seen: dict[int, list[tuple[int, list[int]]]] = {0: [], 1: []}
    for step in range(30):
        epoch, indices = order(step)
        task = order.task(step)
        seen[task].append((epoch, [index - (24 if task else 0) for index in indices]))
    for task, size in enumerate(sizes):
        assert seen[task] == [batch_indices(3, step, size, 4) for step in range(len(seen[task]))]
    assert TaskOrder(3, sizes, [0.7, 0.3], 4)(17) == order(17)  # whatever was asked before


# --- tasks ------------------------------------------------------------------------------------------------------------


def tasks_job(recipe: TasksRecipe, reporter: Reporter = QUIET) -> tuple[Tasks, Job]:
    tasks = prepare_tasks(recipe)
    place = choose_place(tasks.first.recipe, tasks.first.base.source)
    tasks_verb.settle(tasks, place)
    return tasks, make_tasks_job(tasks, tasks.first.recipe, place, Path(recipe.output), reporter)


def test_the_trunk_is_one_and_each_head_moves_on_its_own_steps(bert: Path, tmp_path: Path) -> None:
    recipe = tasks_recipe(bert, tmp_path)
    Path(recipe.output).mkdir()
    _, job = tasks_job(recipe)
    models = job.base.model.models
    trunks = {id(models["colour"].trunk), id(models["names"].bert), id(job.base.trunk.model)}
    assert len(trunks) == 1
    start = copies(job.attached.trainable())
    one = job.order.task(0)  # type: ignore[attr-defined]
    job = type(job)(**{**job.__dict__, "plan": type(job.plan)(**{**job.plan.__dict__, "steps": 1})})
    fit(job)
    moved = {name for name, value in job.attached.trainable().items() if not torch.equal(value, start[name])}
    own = "models.colour.classifier" if one == 0 else "models.names.classifier"
    other = "models.names.classifier" if one == 0 else "models.colour.classifier"
    assert any(name.startswith(own) for name in moved)
    assert not any(name.startswith(other) for name in moved)


def test_a_task_alone_in_its_batch_has_the_loss_it_has_by_itself(bert: Path, tmp_path: Path) -> None:
    """Loss and gradient of the trunk: through the shared base, and through the task's own model."""
    recipe = tasks_recipe(bert, tmp_path)
    tasks, job = tasks_job(recipe)
    for name, prepared in tasks.prepared.items():
        features = [
            feature for feature in (job.train[index] for index in range(len(job.train))) if feature.task == name
        ][:4]
        found = []
        for base, model, objective in (
            (job.base, job.attached.model, job.objective),
            (prepared.base, prepared.base.model, prepared.objective),
        ):
            job.attached.model.zero_grad()
            job.attached.model.eval()
            batch = base.collate(features, job.base.outputs[name])
            loss = objective.loss(base.forward(model, batch), batch)
            loss.total.backward()
            grads = [value.grad.clone() for value in job.base.trunk.model.parameters() if value.grad is not None]
            found.append((loss.total.detach(), loss.weight, grads))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]
        assert all(torch.equal(a, b) for a, b in zip(found[0][2], found[1][2], strict=True))


@pytest.mark.parametrize("method", ["full", "lora", {"name": "head", "solver": "gradient"}])
def test_tasks_are_trained_saved_proved_and_measured(bert: Path, tmp_path: Path, method: Any) -> None:
    recipe = tasks_recipe(bert, tmp_path, method=method, train={**TRAIN, "max_steps": 24}, mixing={"single": False})
    answer = tasks_verb.run(recipe, resume=False, reporter=QUIET)
    assert answer["proof"]["passed"], answer["proof"]
    assert set(answer["evaluation"]["tasks"]) == {"colour", "names"}
    accounts = answer["train"]["tasks"]
    assert sum(one["steps"] for one in accounts.values()) == answer["train"]["steps"] == 24
    run = tailor.load(recipe.output)
    assert len(run.task("names").predict(["the stone is red"])[0]) == 4
    assert run.task("colour").predict(["the stone is red 3 red red"])[0] in {"red", "green", "blue", "grey"}
    with pytest.raises(RecipeError, match="has no task"):
        run.task("other")
    assert tasks_verb.run(recipe, resume=True, reporter=QUIET) == answer
    heavier = {**recipe.tasks, "names": recipe.tasks["names"].model_copy(update={"weight": 2.0})}
    with pytest.raises(RunError, match=r"made by another recipe: tasks\.names\.weight was 1\.0, is 2\.0"):
        tasks_verb.run(recipe.model_copy(update={"tasks": heavier}), resume=True, reporter=QUIET)


def test_tasks_that_are_stopped_and_resumed_are_the_uninterrupted_ones(bert: Path, tmp_path: Path) -> None:
    found = []
    for name, stops in (("whole", ()), ("parts", (3,))):
        recipe = tasks_recipe(bert, tmp_path, output=name, train={**TRAIN, "max_steps": 8})
        Path(recipe.output).mkdir()
        for stop in stops:
            with pytest.raises(Interrupted):
                fit(tasks_job(recipe, InterruptingReporter(stop))[1])
        _, job = tasks_job(recipe)
        fit(job)
        found.append((copies(job.attached.trainable()), (job.folder / "metrics.jsonl").read_bytes()))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())


def test_each_task_can_be_held_against_itself_alone(bert: Path, tmp_path: Path) -> None:
    recipe = tasks_recipe(bert, tmp_path, mixing={"single": True})
    answer = tasks_verb.run(recipe, resume=False, reporter=QUIET)
    assert {task["baseline"] for task in answer["evaluation"]["single"].values()} == {"alone"}
    alone = json.loads((Path(recipe.output) / "single" / "names" / "summary.json").read_text())
    assert alone["train"]["steps"] == answer["train"]["tasks"]["names"]["steps"]


def test_tasks_that_write_share_their_output_layer_and_are_refused(llama: Path, tmp_path: Path) -> None:
    tasks = {"a": {"data": file(tmp_path, "instruction")}, "b": {"data": file(tmp_path, "chat")}}
    with pytest.raises(RecipeError, match="has no second head beside it") as raised:
        prepare_tasks(tasks_recipe(llama, tmp_path, tasks=tasks))
    assert raised.value.where == "tasks.a.objective"


# --- stages -----------------------------------------------------------------------------------------------------------


def test_stages_end_with_the_last_ones_model_and_what_the_first_was_worth(llama: Path, tmp_path: Path) -> None:
    recipe = staged_recipe(llama, tmp_path)
    answer = stages.run(recipe, resume=False, reporter=QUIET)
    top, last = Path(recipe.output), made_by(Path(recipe.output))
    assert last == top / "stages" / "2-classification"
    assert answer["stages"] == ["1-language", "2-classification"]
    assert answer["proof"]["passed"]
    assert answer["evaluation"]["without_earlier_stages"]["default"]["baseline"] == "without_earlier_stages"
    for name in ("lock.json", "metrics.jsonl", "proof.json", "README.md", "model/adapter_config.json"):
        assert (top / name).read_bytes() == (last / name).read_bytes()
    assert "Against the last stage alone" in (top / "report.html").read_text()
    text = "the stone is red 3 red red"
    assert tailor.load(top).predict([text]) == tailor.load(last).predict([text])
    assert stages.run(recipe, resume=True, reporter=QUIET) == answer


def test_the_second_stage_begins_where_the_first_ended(llama: Path, tmp_path: Path) -> None:
    recipe = staged_recipe(llama, tmp_path, compare=False)
    stages.run(recipe, resume=False, reporter=QUIET)
    folder = Path(recipe.output) / "stages"
    lock = json.loads((folder / "2-classification" / "lock.json").read_text())
    assert lock["base"]["name"] == "1-language"
    assert not (Path(recipe.output) / "without").exists()


def test_stages_that_are_stopped_go_on(llama: Path, tmp_path: Path) -> None:
    recipe = staged_recipe(llama, tmp_path, compare=False)
    with pytest.raises(Interrupted):
        stages.run(recipe, resume=False, reporter=InterruptingReporter(2))
    changed = {"tokens_per_micro_batch": 77, "checkpoint_every": 3, "trackers": []}
    parts = [{**part, "train": {**part["train"], **changed}} for part in recipe.stages]
    other = [recipe.stages[0], {**recipe.stages[1], "train": {**TRAIN, "learning_rate": 1e-5}}]
    with pytest.raises(RunError, match=r"stages\.2\.train\.learning_rate was 0\.003, is 1e-05"):
        stages.run(recipe.model_copy(update={"stages": other}), resume=True, reporter=QUIET)
    moved = Path(recipe.output).rename(tmp_path / "moved")
    elsewhere = recipe.model_copy(update={"stages": parts, "output": str(moved)})
    answer = stages.run(elsewhere, resume=True, reporter=QUIET)
    assert answer["status"] == "done"
    assert answer["train"]["steps"] == 4
    with pytest.raises(RunError, match=r"was made by another recipe: stages\.2\.train\.learning_rate was 0\.003"):
        stages.run(elsewhere.model_copy(update={"stages": other}), resume=True, reporter=QUIET)
    with pytest.raises(RunError, match="was made by another recipe: compare was False"):
        stages.run(elsewhere.model_copy(update={"compare": True}), resume=True, reporter=QUIET)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"data": {"train": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"data": {"columns": {"text": "no_such_column"}}}, "columns"),
        ({"evaluate": {"primary": "rouge_l"}}, "stages.2.evaluate"),
        ({"objective": "similarity", "form": "triplet"}, "stages.2.objective"),
        ({"method": "prefix", "base": "bert"}, "stages.2.method"),
    ],
)
def test_what_is_wrong_with_a_later_stage_is_said_before_the_first_trains(
    llama: Path, bert: Path, tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    change = dict(change)
    form, base = change.pop("form", "single"), bert if change.pop("base", "") else llama
    rows = {"train": file(tmp_path, form), **change.pop("data", {})}
    second = {"method": "lora", "train": TRAIN, **change, "data": rows}
    first = {"data": file(tmp_path, "language"), "method": "full", "train": TRAIN}
    recipe = staged_recipe(base, tmp_path, stages=[first, second])
    with pytest.raises(TailorError) as raised:
        stages.run(recipe, resume=False, reporter=QUIET)
    assert where in raised.value.where
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_what_cannot_be_merged_is_followed_by_its_own_kind_alone(llama: Path, tmp_path: Path) -> None:
    part = {"data": file(tmp_path, "instruction"), "objective": "instruction", "train": TRAIN}
    parts = [{**part, "method": {"name": "prefix", "tokens": 4}}, {**part, "method": "lora"}]
    with pytest.raises(RecipeError, match="cannot be merged") as raised:
        stages.run(staged_recipe(llama, tmp_path, stages=parts), resume=False, reporter=QUIET)
    assert raised.value.where == "stages.2.method"
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_dry_run_shows_every_part_and_writes_nothing(bert: Path, llama: Path, tmp_path: Path) -> None:
    staged, several = staged_recipe(llama, tmp_path), tasks_recipe(bert, tmp_path, train={**TRAIN, "max_steps": 12})
    shown = tailor.api.plan_fit(staged)
    assert list(shown["stages"]) == ["1-language", "2-classification"]
    tasks = tailor.api.plan_fit(several)["tasks"]
    assert list(tasks) == ["colour", "names"]
    for part in (*shown["stages"].values(), *tasks.values()):
        assert part["data_report"]["rows"]["used"] > 0
        assert part["plan"]["steps"] > 0
    assert sum(part["plan"]["steps"] for part in tasks.values()) == 12
    assert not Path(staged.output).exists()
    assert all(stage["train"]["learning_rate"] == 3e-3 for stage in shown["recipe"]["stages"])


def settings_of(values: Any) -> list[Any]:
    """The training, data and method settings of every part."""
    parts = values.get("stages") or [*values["tasks"].values(), values]
    return [part[key] for part in parts for key in ("train", "data", "objective", "method") if key in part]


RULES = {"dev", "test", "thinking", "head"}
"""Settings that stay rules, in a recipe of one part too: what they mean depends on the rows alone."""


def unsettled(value: Any, key: str = "") -> list[str]:
    if isinstance(value, dict):
        return [name for inner, some in value.items() for name in unsettled(some, inner)]
    return [key] if value == "auto" and key not in RULES else []


@pytest.mark.parametrize("kind", ["stages", "tasks"])
def test_the_recipe_at_the_top_is_settled_and_gives_the_same_whole(
    bert: Path, llama: Path, tmp_path: Path, kind: str
) -> None:
    train = {"max_steps": 4, "examples_per_batch": 8}
    if kind == "stages":
        first = {"data": file(tmp_path, "language"), "method": "full", "train": train}
        second = {"data": file(tmp_path, "single"), "method": "lora", "train": train}
        recipe: Any = staged_recipe(llama, tmp_path, stages=[first, second], compare=False)
    else:
        recipe = tasks_recipe(bert, tmp_path, train=train)
    whole = tailor.fit(recipe).path
    kept = yaml.safe_load((whole / "recipe.yaml").read_text())
    assert [name for part in settings_of(kept) for name in unsettled(part)] == []
    again = tailor.fit(whole / "recipe.yaml", output=str(tmp_path / "again")).path
    for name in ("metrics.jsonl", "model/model.safetensors", "model/adapter_model.safetensors"):
        assert (whole / name).exists() == (again / name).exists()
        if (again / name).exists():
            assert (whole / name).read_bytes() == (again / name).read_bytes()


# --- what was found wrong once ----------------------------------------------------------------------------------------


def test_a_method_beside_the_trunk_is_refused_for_several_tasks(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lies beside the trunk"):
        tasks_job(tasks_recipe(bert, tmp_path, method={"name": "adapter", "bottleneck": 4}))


@pytest.mark.parametrize("method", [{"name": "head", "unfreeze": 1}, {"name": "head", "solver": "exact"}])
def test_heads_side_by_side_are_trained(bert: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="none is solved"):
        prepare_tasks(tasks_recipe(bert, tmp_path, method=method))


def test_several_tasks_need_a_trunk(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="gives no trunk"):
        prepare_tasks(tasks_recipe(llama, tmp_path))


def test_dev_is_looked_at_task_by_task_where_a_loss_couples(bert: Path, tmp_path: Path) -> None:
    tasks = {
        "pairs": {"data": {"train": file(tmp_path, "triplet", 30), "dev": 0.4}, "objective": "similarity"},
        "colour": {"data": {"train": file(tmp_path, "single", 30), "dev": 0.4}},
    }
    recipe = tasks_recipe(bert, tmp_path, tasks=tasks)
    Path(recipe.output).mkdir()
    _, job = tasks_job(recipe)
    features = [job.dev[index] for index in range(len(job.dev))]
    assert all(len({features[index].task for index in group}) == 1 for group in dev_batches(job, features))
    fit(job)


def test_tasks_start_from_an_adapter_run(bert: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    values = {
        "base": str(bert),
        "data": file(tmp_path, "single"),
        "method": "lora",
        "train": TRAIN,
        "output": str(first),
    }
    run(parse_any(values), resume=False, reporter=QUIET)  # type: ignore[arg-type]
    answer = tasks_verb.run(tasks_recipe(first, tmp_path, method="lora"), resume=False, reporter=QUIET)
    assert answer["proof"]["passed"], answer["proof"]


def test_stages_on_the_same_rows_divide_them_alike(bert: Path, tmp_path: Path) -> None:
    data = file(tmp_path, "single")
    first = {"data": data, "objective": {"name": "similarity", "from_labels": True}, "train": {"seed": 1}}
    with pytest.raises(RecipeError, match="divides the same rows otherwise"):
        staged_recipe(bert, tmp_path, stages=[first, {"data": data, "method": "head"}])


def test_one_task_of_several_is_evaluated_by_itself(bert: Path, tmp_path: Path) -> None:
    recipe = tasks_recipe(bert, tmp_path)
    answer = tasks_verb.run(recipe, resume=False, reporter=QUIET)
    alone = tailor.evaluate(str(Path(recipe.output) / "model" / "heads" / "names"))
    assert alone["tasks"]["default"]["metrics"] == answer["evaluation"]["tasks"]["names"]["metrics"]
    with pytest.raises(RecipeError, match="this run has several tasks"):
        tailor.evaluate(recipe.output)


def test_an_adapter_on_a_base_with_a_pooled_head_is_measured_as_itself(bert: Path, tmp_path: Path) -> None:
    """The head of the base reads the mean token state; the adapter's own does not, and is the one that counts."""
    data, output = file(tmp_path, "single", 80), tmp_path / "second"
    values = {"base": str(bert), "data": data, "method": "head", "output": str(tmp_path / "first")}
    run(parse_any(values), resume=False, reporter=QUIET)  # type: ignore[arg-type]
    train = {**TRAIN, "max_steps": 40}
    values |= {"base": str(tmp_path / "first"), "method": "lora", "train": train, "output": str(output)}
    run(parse_any(values), resume=False, reporter=QUIET)  # type: ignore[arg-type]
    source = find(BaseOptions(name=str(output)))
    assert source.pooling == "stock"
    texts = [row["text"] for row in rows_of("single", 20)]
    assert tailor.load(output).predict(texts) != tailor.load(tmp_path / "first").predict(texts)
