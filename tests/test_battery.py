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
from tiny_pipelines import picture_rows

from tailor.core.contracts import UNTRAINED
from tailor.core.errors import Interrupted, RecipeError, RunError
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.engine.loop import Job, dev_loss, fit
from tailor.evaluation import proof
from tailor.recipe.recipe import Recipe
from tailor.verbs.fit import run, save_and_prove

STEPS = 40
RATES = {"full": 3e-3, "lora": 6e-3, "head": 3e-2, "mean_pool": 3e-2, "dora": 6e-3, "rslora": 3e-3}
RATES |= {"ia3": 2e-1, "prefix": 1e-1, "soft_prompt": 3e-1, "adapter": 6e-3, "pfeiffer": 6e-3, "word": 1e-1}
WRITTEN, READ = ("language", "instruction", "chat", "preference"), ("single", "multi", "pair", "regression")
CELLS = [
    *((form, "llama", method) for form in WRITTEN for method in ("full", "lora")),
    *((form, "bert", method) for form in READ for method in ("full", "lora", "head", "mean_pool")),
    *((form, "bert", method) for form in ("tags", "span") for method in ("full", "lora", "head")),
    *((form, "bert", method) for form in ("language", "triplet") for method in ("full", "lora")),
    *(("source_target", family, method) for family in ("t5", "bart") for method in ("full", "lora")),
    ("instruction", "t5", "lora"),
    *(("source_target", "t5", method) for method in ("ia3", "adapter")),
    *((form, "llama", method) for form in ("single", "tags") for method in ("full", "lora", "head")),
    *(("chat", "llama", method) for method in ("dora", "rslora", "ia3", "prefix", "soft_prompt")),
    *((form, "bert", method) for form in ("single", "tags") for method in ("ia3", "soft_prompt")),
    *((form, "llama", "prefix") for form in ("single", "tags")),
    ("tags", "llama", "soft_prompt"),
    *((form, family, "adapter") for form, family in (("chat", "llama"), ("single", "bert"), ("tags", "bert"))),
    ("single", "bert", "pfeiffer"),
    *(("image", "pipeline", method) for method in ("full", "lora", "word")),
]
LEARNS = {"soft_prompt": 0.95, "word": 0.999}
"""What of the loss may be left, where it is more than usual: embeddings alone move a random base little."""
VARIANTS: dict[str, Any] = {
    "mean_pool": {"name": "head", "head": "mean_pool", "solver": "gradient"},
    "head": {"name": "head", "head": "stock", "solver": "gradient"},
    "dora": {"name": "lora", "dora": True},
    "adapter": {"name": "adapter", "bottleneck": 8},
    "pfeiffer": {"name": "adapter", "bottleneck": 16, "placement": "pfeiffer"},
    "soft_prompt": {"name": "soft_prompt", "tokens": 8},
    "word": {"name": "soft_prompt", "tokens": 2, "text": "red"},
    "rslora": {"name": "lora", "rslora": True, "ranks": {"v_proj": 4}},
}
MERGED = ("lora", "dora", "rslora", "ia3")
"""Methods whose artefact is merged in the proof."""


def method_of(name: str) -> Any:
    return VARIANTS.get(name, name)


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
        splits = {"subject": "wug", **sections.pop("splits", {})}
        return make_recipe(
            self.base, self.data, output, method=method_of(self.method), train=train, splits=splits, **sections
        )


@pytest.fixture(params=CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest, tmp_path: Path) -> Cell:
    """A valid cell with its data."""
    form, family, method = request.param
    rows = picture_rows(tmp_path / "pictures", 48) if form == "image" else rows_of(form, 48)
    return Cell(request.getfixturevalue(family), write_rows(tmp_path / "rows.jsonl", rows), method)


def loss_on_train(job: Job) -> float:
    """In evaluation mode, over all rows."""
    return dev_loss(dataclasses.replace(job, dev=job.train))


def logits(job: Job) -> torch.Tensor:
    """Of the first training rows, in evaluation mode."""
    seen = job.base.draw([job.train[index] for index in range(8)], job.output, UNTRAINED)
    batch = job.base.collate(seen, job.output)
    job.attached.model.eval()
    with torch.no_grad():
        return job.base.forward(job.attached.model, batch).logits


def frozen(job: Job) -> dict[str, torch.Tensor]:
    """Parameters and buffers that must not move: those that are not tied to one that does, either."""
    moving = {value.data_ptr() for value in job.attached.trainable().values()}
    state = job.attached.model.state_dict()
    return copies({name: value for name, value in state.items() if value.data_ptr() not in moving})


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
    if cell.method in ("lora", "rslora", "ia3", "adapter", "pfeiffer"):
        ours = logits(job)
        with job.attached.model.disable_adapter():
            assert torch.equal(logits(job), ours)
    fit(job)
    trained = job.attached.trainable()
    assert seen == set(trained)
    assert all(torch.equal(value, still[name]) for name, value in frozen(job).items())
    assert not [name for name, value in trained.items() if torch.equal(value, start[name])]
    assert loss_on_train(job) < LEARNS.get(cell.method, 0.9) * before
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    found = save_and_prove(prepared, job, RunFolder(job.folder))
    assert found.problems == []
    assert found.passed
    assert found.max_difference is not None
    assert found.max_difference < 1e-4
    assert found.by == ("tailor" if cell.method in ("adapter", "pfeiffer") else "stock")
    assert (found.merged_difference is not None) == (cell.method in MERGED)


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
        ("chat", "head", "llama", "trains a new head"),
        ("single", "prefix", "bert", "keys and values of earlier tokens"),
        ("single", "soft_prompt", "llama", "finds the end of a row by its token ids"),
        ("language", "mean_pool", "llama", "a mean_pool head gives labels, and this objective learns tokens"),
        ("single", "mean_pool", "llama", "a mean_pool head is for encoders"),
        ("chat", "lora", "bert", "does not take conversation examples, which the objective chat makes"),
        ("language", "head", "bert", "trains a new head"),
        ("language", "mean_pool", "bert", "a mean_pool head gives labels, and this objective learns masked"),
        ("triplet", "head", "bert", "brings no new head"),
        ("triplet", "lora", "llama", "does not take pair examples, which the objective similarity makes"),
        ("span", "lora", "llama", "does not take span examples, which the objective span_qa makes"),
        ("preference", "lora", "bert", "does not take preference examples, which the objective preference makes"),
        ("source_target", "head", "t5", "trains a new head"),
        ("source_target", "soft_prompt", "t5", "takes hold of the place in front of every text"),
        ("source_target", "mean_pool", "t5", "a mean_pool head gives labels, and this objective learns tokens"),
        ("single", "full", "t5", "does not take labelled examples, which the objective classification makes"),
        ("preference", "full", "bart", "does not take preference examples"),
        ("chat", "lora", "pipeline", "does not take conversation examples"),
        ("image", "lora", "llama", "does not take captioned examples, which the objective text_to_image makes"),
        ("image", "prefix", "pipeline", "takes hold of the keys and values of earlier tokens"),
        ("image", "ia3", "pipeline", "takes hold of the blocks"),
        ("image", "head", "pipeline", "takes hold of the head"),
    ],
)
def test_a_cell_that_cannot_be_says_why(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, method: str, family: str, reason: str
) -> None:
    rows = picture_rows(tmp_path / "pictures", 8) if form == "image" else rows_of(form)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    sections = {"objective": "span_qa"} if form == "span" else {}
    recipe = make_recipe(request.getfixturevalue(family), data, tmp_path / "run", method=method_of(method), **sections)
    with pytest.raises(RecipeError, match=reason) as raised:
        make_job(recipe)
    assert raised.value.fix or raised.value.where
