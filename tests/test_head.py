"""A head on a frozen trunk: solved exactly, or trained with blocks that follow one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from tiny import InterruptingReporter, make_job, make_recipe, rows_of, write_rows

from tailor.core.errors import Interrupted, RecipeError
from tailor.core.reporting import Reporter
from tailor.engine import solve
from tailor.engine.checkpoint import State
from tailor.engine.loop import Job, fit
from tailor.verbs.fit import run


def job_for(base: Path, tmp_path: Path, form: str, count: int = 60, **method: Any) -> Job:
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form, count))
    return make_job(make_recipe(base, data, tmp_path / "run", method={"name": "head", **method}))


def features_of(job: Job) -> tuple[np.ndarray, np.ndarray]:
    assert job.attached.linear is not None
    return solve.collect(job, job.attached.linear, job.train, State())


@pytest.mark.parametrize("form", ["single", "multi", "regression", "tags"])
def test_a_linear_head_is_solved_in_one_go(bert: Path, tmp_path: Path, form: str) -> None:
    job = job_for(bert, tmp_path, form)
    assert job.attached.driver == "solve"
    before = {name: value.clone() for name, value in job.attached.model.state_dict().items()}
    outcome = solve.fit(job)
    assert outcome.state.step == 1
    moved = {name for name, value in job.attached.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(job.attached.trainable())


def test_it_is_the_optimum_that_scikit_learn_finds(bert: Path, tmp_path: Path) -> None:
    job = job_for(bert, tmp_path, "single")
    features, targets = features_of(job)
    solve.fit(job)
    mean, spread = features.mean(0), features.std(0)
    scaled = (features - mean) / np.where(spread < 1e-6, 1.0, spread)
    linear = job.attached.linear
    ours = features @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    chances = np.exp(ours - ours.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    tried = [LogisticRegression(C=c, max_iter=5000).fit(scaled, targets).predict_proba(scaled) for c in solve.STRENGTHS]
    assert min(np.abs(chances - theirs).max() for theirs in tried) < 2e-3


def test_a_number_is_ridge_regression(bert: Path, tmp_path: Path) -> None:
    job = job_for(bert, tmp_path, "regression")
    features, targets = features_of(job)
    solve.fit(job)
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread < 1e-6, 1.0, spread)
    theirs = RidgeCV(alphas=1 / solve.STRENGTHS).fit(scaled, targets).predict(scaled)
    linear = job.attached.linear
    ours = features @ linear.weight.detach().double().numpy()[0] + float(linear.bias.detach())
    assert np.abs(ours - theirs).max() < 1e-3


def test_features_are_those_of_each_row_alone(bert: Path, tmp_path: Path) -> None:
    """The naive twin: one row at a time, unpadded, through the trunk."""
    job = job_for(bert, tmp_path, "single", count=12)
    together, _ = features_of(job)
    alone = []
    with torch.no_grad():
        for feature in job.train:
            states = job.attached.model.trunk(input_ids=torch.tensor([feature.input_ids])).last_hidden_state
            alone.append(states[0].mean(0).numpy())
    order = [index for group in job.base.micro_batches(job.train, job.plan.tokens_per_micro_batch) for index in group]
    assert np.abs(together - np.stack(alone)[order]).max() < 1e-5


def test_a_label_that_training_lacks_scores_lowest() -> None:
    features = np.random.default_rng(0).normal(size=(40, 3))
    targets = np.where(features[:, 0] > 0, 0, 2)
    weight, bias = solve.one_of_several(features, targets, 3)
    assert weight.shape == (3, 3)
    assert ((features @ weight.T + bias).argmax(1) != 1).all()


@pytest.mark.parametrize("method", [{"solver": "gradient"}, {"head": "stock"}, {"unfreeze": 1}])
def test_what_is_not_linear_or_not_to_be_solved_is_trained(bert: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    assert job_for(bert, tmp_path, "single", **method).attached.driver == "gradient"


def test_a_head_of_several_layers_cannot_be_solved(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not solved but trained"):
        job_for(bert, tmp_path, "single", head="stock", solver="exact")
    with pytest.raises(RecipeError, match="cannot be solved"):
        job_for(bert, tmp_path, "single", solver="exact", unfreeze=1)


def changed(layer: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, before[name]) for name, value in layer.named_parameters())


def test_blocks_follow_one_by_one_from_the_top(bert: Path, tmp_path: Path) -> None:
    job = job_for(bert, tmp_path, "single", unfreeze=2, unfreeze_every=2)
    layers = job.attached.model.trunk.encoder.layer
    start = [{name: value.clone() for name, value in layer.named_parameters()} for layer in layers]
    moved = []
    attached, after = job.attached, type(job.attached).after_step

    def look(self: Any, step: int) -> None:
        moved.append([changed(layer, before) for layer, before in zip(layers, start, strict=True)])
        after(self, step)

    type(attached).after_step = look  # type: ignore[method-assign]
    try:
        fit(job)
    finally:
        type(attached).after_step = after  # type: ignore[method-assign]
    top = len(layers) - 1
    assert [row[top] for row in moved] == [False, False, False, True, True, True]
    assert [row[top - 1] for row in moved] == [False, False, False, False, False, True]


def test_unfreezing_resumes_where_it_was(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("single", 48))
    method = {"name": "head", "unfreeze": 2, "unfreeze_every": 2}
    found = []
    for name, stops in (("whole", ()), ("parts", (3,))):
        recipe = make_recipe(bert, data, tmp_path / name, method=method, train={"max_steps": 6, "checkpoint_every": 1})
        for stop in stops:
            with pytest.raises(Interrupted):
                fit(make_job(recipe, InterruptingReporter(stop)))
        job = make_job(recipe)
        fit(job)
        found.append({name: value.clone() for name, value in job.attached.trainable().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_the_whole_line_ends_with_a_proof(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("single", 80))
    recipe = make_recipe(bert, data, tmp_path / "run", method="head", splits={"dev": 0.1, "test": 0.2})
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"]
    assert answer["train"]["steps"] == 1
    assert answer["train"]["loss_last"] > 0


def test_loss_after_solving_is_below_that_of_any_constant(bert: Path, tmp_path: Path) -> None:
    job = job_for(bert, tmp_path, "single")
    solve.fit(job)
    targets = np.array([feature.target for feature in job.train])
    shares = np.bincount(targets) / len(targets)
    assert solve._loss(job, job.train) < -(shares * np.log(shares)).sum()


def test_a_decoders_own_head_is_trained(llama: Path, tmp_path: Path) -> None:
    """It scores every token and has no bias, so that nothing is solved in one go."""
    assert job_for(llama, tmp_path, "single").attached.driver == "gradient"
