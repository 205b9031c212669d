"""Every valid cell of objective x method x family trains, saves and resumes; every other one says why not."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    InterruptingReporter,
    copies,
    in_this_process,
    make_job,
    make_recipe,
    prepare_job,
    rows_of,
    write_rows,
)

from tailor.core.errors import Interrupted, RecipeError, RunError
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.engine.loop import Job, dev_loss, fit
from tailor.evaluation import proof
from tailor.recipe.recipe import Recipe
from tailor.verbs.fit import run, save_and_prove

STEPS = 40
RATES = {"full": 3e-3, "lora": 6e-3, "head": 3e-2, "mean_pool": 3e-2}
WRITTEN, READ = ("language", "instruction", "chat", "preference"), ("single", "multi", "pair", "regression")
CELLS = [
    *((form, "llama", method) for form in WRITTEN for method in ("full", "lora")),
    *((form, "bert", method) for form in READ for method in ("full", "lora", "head", "mean_pool")),
    *(("tags", "bert", method) for method in ("full", "lora", "head")),
    *(("source_target", family, method) for family in ("t5", "bart") for method in ("full", "lora")),
    ("instruction", "t5", "lora"),
    *((form, "llama", method) for form in ("single", "tags") for method in ("full", "lora", "head")),
]


def method_of(name: str) -> Any:
    return {"name": "head", "head": "mean_pool"} if name == "mean_pool" else name


@dataclasses.dataclass(frozen=True)
class Cell:
    """One objective on one family by one method."""

    base: Path
    data: Path
    method: str

    def recipe(self, output: Path, **sections: Any) -> Recipe:
        """With a checkpoint every few steps, and no early stop."""
        train = {
            "max_steps": STEPS,
            "learning_rate": RATES[self.method],
            "checkpoint_every": 5,
            "patience": None,
            "schedule": {"name": "cosine", "warmup": 0.1},
            **sections.pop("train", {}),
        }
        return make_recipe(self.base, self.data, output, method=method_of(self.method), train=train, **sections)


@pytest.fixture(params=CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest, tmp_path: Path) -> Cell:
    """A valid cell with its data."""
    form, family, method = request.param
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form, 48))
    return Cell(request.getfixturevalue(family), data, method)


def loss_on_train(job: Job) -> float:
    """In evaluation mode, over all rows."""
    return dev_loss(dataclasses.replace(job, dev=job.train))


def logits(job: Job) -> torch.Tensor:
    """Of the first training rows, in evaluation mode."""
    batch = job.base.collate([job.train[index] for index in range(8)], job.output)
    job.attached.model.eval()
    with torch.no_grad():
        return job.base.forward(job.attached.model, batch).logits


def frozen(job: Job) -> dict[str, torch.Tensor]:
    """Parameters and buffers that must not move."""
    moving = {value.data_ptr() for value in job.attached.trainable().values()}  # tied weights have several names
    state = job.attached.model.state_dict().items()
    return copies({name: value for name, value in state if value.data_ptr() not in moving})


def watched(job: Job, reporter: InterruptingReporter) -> set[str]:
    """Names of trainable parameters, filled as the first two steps give each a gradient other than zero."""
    seen: set[str] = set()

    def look(name: str, parameter: torch.Tensor) -> None:
        if reporter.step < 2 and parameter.grad is not None and bool(parameter.grad.any()):
            seen.add(name)

    for name, value in job.attached.trainable().items():
        value.register_post_accumulate_grad_hook(functools.partial(look, name))
    return seen


def test_a_run_learns_moves_only_what_it_should_and_is_saved_whole(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, job = prepare_job(cell.recipe(tmp_path / "run"), reporter := InterruptingReporter())
    still, start, seen = frozen(job), copies(job.attached.trainable()), watched(job, reporter)
    before = loss_on_train(job)
    if cell.method == "lora":
        ours = logits(job)
        with job.attached.model.disable_adapter():
            assert torch.equal(logits(job), ours)
    fit(job)
    trained = job.attached.trainable()
    assert seen == set(trained)
    assert all(torch.equal(value, still[name]) for name, value in frozen(job).items())
    assert not [name for name, value in trained.items() if torch.equal(value, start[name])]
    assert loss_on_train(job) < 0.9 * before
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    found = save_and_prove(prepared, job, RunFolder(job.folder))
    assert found.problems == []
    assert found.passed
    assert found.max_difference is not None
    assert found.max_difference < 1e-4
    assert (found.merged_difference is not None) == (cell.method == "lora")


def test_a_run_that_is_stopped_and_resumed_is_the_uninterrupted_one(cell: Cell, tmp_path: Path) -> None:
    files = []
    for name, stops in (("whole", ()), ("parts", (3, 10))):
        recipe = cell.recipe(tmp_path / name, train={"max_steps": 12}, splits={"dev": 0.25})
        for stop in stops:
            with pytest.raises(Interrupted, match=f"stopped after step {stop}"):
                fit(make_job(recipe, InterruptingReporter(stop)))
        job = make_job(recipe, reporter := InterruptingReporter())
        fit(job)
        assert [text for text in reporter.said if text.startswith("resuming after step 10")] or not stops
        written = [job.folder / "metrics.jsonl", *sorted((job.folder / "checkpoints").glob("*/*.safetensors"))]
        files.append({str(file.relative_to(job.folder)): file.read_bytes() for file in written})
    assert len(files[0]) == 4
    assert files[0] == files[1]


@pytest.mark.parametrize(("form", "method"), [("chat", "lora"), ("pair", "full"), ("single", "mean_pool")])
def test_fit_resumes_and_ends_with_a_proof_from_a_fresh_process(
    llama: Path, bert: Path, tmp_path: Path, form: str, method: str
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form, 60))
    cell = Cell(llama if form in WRITTEN else bert, data, method)
    recipe = cell.recipe(tmp_path / "run", evaluate={"max_new_tokens": 4}, splits={"dev": 0.2, "test": 0.2})
    with pytest.raises(Interrupted):
        run(recipe, resume=False, reporter=InterruptingReporter(7))
    with pytest.raises(RunError, match="this output folder exists"):
        run(recipe, resume=False, reporter=Reporter(quiet=True))
    answer = run(recipe, resume=True, reporter=Reporter(quiet=True))
    assert answer["status"] == "done"
    assert answer["proof"]["passed"]
    assert answer["train"]["loss_last"] < answer["train"]["loss_first"]
    assert answer["evaluation"]["tasks"]["default"]["n"] >= 6
    assert run(recipe, resume=True, reporter=Reporter(quiet=True)) == answer  # a finished run stands


@pytest.mark.parametrize(
    ("form", "method", "family", "reason"),
    [
        ("chat", "head", "llama", "brings no new head"),
        ("language", "mean_pool", "llama", "a mean_pool head gives labels, and this objective learns tokens"),
        ("single", "mean_pool", "llama", "a mean_pool head is for encoders"),
        ("chat", "lora", "bert", "does not take conversation examples, which the objective chat makes"),
        ("preference", "lora", "bert", "does not take preference examples, which the objective preference makes"),
        ("source_target", "head", "t5", "brings no new head"),
        ("source_target", "mean_pool", "t5", "a mean_pool head gives labels, and this objective learns tokens"),
        ("single", "full", "t5", "does not take labelled examples, which the objective classification makes"),
        ("preference", "full", "bart", "does not take preference examples"),
        ("language", "full", "bert", "does not take text examples, which the objective language makes"),
    ],
)
def test_a_cell_that_cannot_be_says_why(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, method: str, family: str, reason: str
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form))
    recipe = make_recipe(request.getfixturevalue(family), data, tmp_path / "run", method=method_of(method))
    with pytest.raises(RecipeError, match=reason) as raised:
        make_job(recipe)
    assert raised.value.fix or raised.value.where
