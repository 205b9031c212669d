"""An adapter that goes on being trained: from one stage to the next, and from any run or folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import copies, in_this_process, largest_difference, make_recipe, prepare_job, rows_of, save_llama, write_rows
from transformers import AutoModelForCausalLM

from tailor.bases.loading import find
from tailor.cli.main import main
from tailor.core.errors import BaseError, RecipeError
from tailor.core.reporting import Reporter
from tailor.engine.loop import fit
from tailor.evaluation import proof
from tailor.evaluation.proof import own_outputs
from tailor.nn.taking_over import places_of
from tailor.recipe.base import BaseOptions
from tailor.recipe.many import parse_any
from tailor.verbs import prove, stages
from tailor.verbs.fit import run

EPSILON = 1e-3
"""Adam's: with its usual one, the sign of a gradient of 1e-9 would move a weight by a whole step."""
QUIET = Reporter(quiet=True)
TRAIN = {"max_steps": 4, "examples_per_batch": 8, "learning_rate": 3e-3, "precision": "fp32"}
FORMS: list[dict[str, Any]] = [
    {"name": "lora", "rank": 4},
    {"name": "lora", "rank": 4, "dora": True},
    {"name": "ia3"},
    {"name": "prefix", "tokens": 4},
    {"name": "soft_prompt", "tokens": 4},
    {"name": "adapter", "bottleneck": 4},
]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fresh process proves is proved in this one."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


def file(tmp_path: Path, form: str, count: int = 40) -> str:
    return str(write_rows(tmp_path / f"{form}.jsonl", rows_of(form, count)))


def fitted(base: Path, tmp_path: Path, form: str, method: Any, name: str = "first", **options: Any) -> Path:
    values = {
        "base": {"name": str(base), **options},
        "data": {"train": file(tmp_path, form), "dev": 0, "test": 0.2},
        "method": method,
        "train": TRAIN,
        "evaluate": {"max_new_tokens": 4, "samples": 4},
        "output": str(tmp_path / name),
    }
    answer = run(parse_any(values), resume=False, reporter=QUIET)  # type: ignore[arg-type]
    assert answer["proof"]["passed"], answer["proof"]
    return tmp_path / name


def continued_job(base: Path, tmp_path: Path, form: str, method: Any) -> Any:
    calm = {"optimizer": {"clip": None, "epsilon": EPSILON}}
    recipe = make_recipe(base, Path(file(tmp_path, form)), tmp_path / "next", method=method, train=calm)
    options = recipe.base.model_copy(update={"continue_adapter": True})
    return prepare_job(recipe.model_copy(update={"base": options}))


@pytest.mark.parametrize("method", FORMS[::2], ids=str)
def test_the_next_stage_begins_with_the_adapter_and_leaves_one_on_the_first_base(
    llama: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    parts = [
        {"data": {"train": file(tmp_path, form), "dev": 0, "test": 0.2}, "objective": form, "method": method}
        for form in ("instruction", "chat")
    ]
    settings = {"train": TRAIN, "evaluate": {"max_new_tokens": 4, "samples": 4}}
    recipe = parse_any(
        {
            "base": str(llama),
            "stages": [part | settings for part in parts],
            "compare": False,
            "output": str(tmp_path / "run"),
        }
    )
    answer = stages.run(recipe, resume=False, reporter=QUIET)  # type: ignore[arg-type]
    assert answer["proof"]["passed"], answer["proof"]
    last = tmp_path / "run" / "stages" / "2-chat"
    source = find(BaseOptions(name=str(last)))
    assert (source.location, source.adapters) == (str(llama), (str(last / "model"),))
    assert not (last / "base").exists()
    assert find(BaseOptions(name=str(tmp_path / "run"))).adapters == (str(last / "model"),)
    assert prove.prove_model(str(tmp_path / "run"), base=None, served=None)["passed"]
    assert prove.prove_model(str(last / "model"), base=str(llama), served=None)["passed"]


def test_lora_that_goes_on_is_plain_peft(llama: Path, tmp_path: Path) -> None:
    """Weights at the start, and every step of the loop, against PEFT's own loading and torch's own AdamW."""
    method = {"name": "lora", "rank": 4}
    first = fitted(llama, tmp_path, "instruction", method)
    _, job = continued_job(first, tmp_path, "chat", method)
    twin = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), first / "model", is_trainable=True
    )
    own = {name: value for name, value in twin.named_parameters() if value.requires_grad}
    assert largest_difference(copies(job.attached.trainable()), copies(own)) == 0.0
    optimizer = torch.optim.AdamW(own.values(), lr=job.plan.learning_rate, weight_decay=0.0, eps=EPSILON)
    for step in range(job.plan.steps):
        total, weight = torch.zeros(()), 0.0
        for index in job.order(step)[1]:
            row = job.train[index]
            ids = torch.tensor([row.input_ids])
            logits = twin(input_ids=ids).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            total, weight = total + (losses * torch.tensor(row.weights[1:])).sum(), weight + sum(row.weights[1:])
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    fit(job)
    assert largest_difference(copies(job.attached.trainable()), copies(own)) < 1e-5


@pytest.mark.parametrize("method", FORMS[1:], ids=str)
def test_what_goes_on_answers_at_first_as_what_was_saved(llama: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    first = fitted(llama, tmp_path, "instruction", method)
    prepared, job = continued_job(first, tmp_path, "instruction", method)
    rows = [job.base.inputs_alone(prepared.splits["train"].store[index]) for index in range(4)]
    begun = own_outputs(job.attached.model.eval(), rows)
    merged = type(job.base)(find(BaseOptions(name=str(first))), prepared.base.options)
    merged.load(job.output, torch.float32)
    found = own_outputs(merged.model.eval(), rows)
    assert max(float((begun[key] - found[key]).abs().max()) for key in begun) < 1e-4


@pytest.mark.parametrize("form", ["single", "tags"])
def test_a_head_goes_on_where_the_labels_are_the_same(bert: Path, tmp_path: Path, form: str) -> None:
    method = {"name": "lora", "rank": 4}
    first = fitted(bert, tmp_path, form, method)
    _, job = continued_job(first, tmp_path, form, method)
    labels = len(job.output.labels)
    twin = PeftModel.from_pretrained(type(job.base.model).from_pretrained(bert, num_labels=labels), first / "model")
    held = {name: value for name, value in twin.named_parameters() if "modules_to_save" in name}
    own = job.attached.trainable()
    assert held
    assert all(torch.equal(value, own[name]) for name, value in held.items())
    (first / "model" / "labels.json").write_text(json.dumps([f"other {index}" for index in range(labels)]))
    _, other = continued_job(first, tmp_path, form, method)
    fresh = other.attached.trainable()
    assert not any(torch.equal(value, fresh[name]) for name, value in held.items() if name.endswith("weight"))
    layers = [name for name in own if "lora_" in name]
    assert all(torch.equal(own[name], fresh[name]) for name in layers)


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "adapter", "bottleneck": 4}])
def test_an_adapter_of_masked_words_goes_on_under_labels(bert: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    first = fitted(bert, tmp_path, "language", method)
    fitted(first, tmp_path, "single", method, "second", continue_adapter=True)
    source = find(BaseOptions(name=str(tmp_path / "second")))
    assert (source.location, len(source.adapters)) == (str(bert), 1)


def test_another_form_is_merged_between_stages_and_refused_where_it_is_asked_for(llama: Path, tmp_path: Path) -> None:
    part = {"data": file(tmp_path, "instruction"), "objective": "instruction"}
    parts = [{**part, "method": {"name": "lora", "rank": rank}} for rank in (4, 8)]
    recipe = parse_any({"base": str(llama), "stages": parts, "output": str(tmp_path / "run")})
    second = recipe.stage(1, str(tmp_path / "x"), tmp_path)  # type: ignore[union-attr]
    assert not second.base.continue_adapter
    first = fitted(llama, tmp_path, "instruction", {"name": "lora", "rank": 4})
    for method in ({"name": "lora", "rank": 8}, {"name": "lora", "rank": 4, "alpha": 8}, "full", "adapter"):
        with pytest.raises(RecipeError) as raised:
            continued_job(first, tmp_path, "instruction", method)
        assert raised.value.where == "base.continue_adapter"
    with pytest.raises(BaseError, match="ends in no adapter"):
        continued_job(llama, tmp_path, "instruction", {"name": "lora"})


def test_no_weight_of_an_adapter_is_left_behind(llama: Path, tmp_path: Path) -> None:
    """A recipe with fewer layers, or other scales for some of them, describes another adapter."""
    first = fitted(llama, tmp_path, "instruction", {"name": "lora", "rank": 4})
    fewer = {"name": "lora", "rank": 4, "targets": ["q_proj", "v_proj"], "allow_partial": True}
    with pytest.raises(RecipeError, match="modules that this recipe does not"):
        continued_job(first, tmp_path, "instruction", fewer)
    config = first / "model" / "adapter_config.json"
    saved = json.loads(config.read_text())
    for key, value in {"alpha_pattern": {"q_proj": 64}, "lora_bias": True, "target_parameters": ["w"]}.items():
        config.write_text(json.dumps(saved | {key: value}))
        with pytest.raises(RecipeError, match=f"{key} is"):
            continued_job(first, tmp_path, "instruction", {"name": "lora", "rank": 4})
    config.write_text(json.dumps(saved))
    continued_job(first, tmp_path, "instruction", {"name": "lora", "rank": 4})


def test_preferences_are_measured_from_the_adapter_that_goes_on(llama: Path, tmp_path: Path) -> None:
    """The reference is the model as it begins, its adapter on, and not the bare base."""
    method = {"name": "lora", "rank": 4}
    first = fitted(llama, tmp_path, "instruction", method)
    found = {}
    for name, base, going_on in (("on", first, True), ("merged", first, False), ("bare", llama, False)):
        recipe = make_recipe(base, Path(file(tmp_path, "preference")), tmp_path / name, method=method)
        options = recipe.base.model_copy(update={"continue_adapter": going_on})
        (tmp_path / name).mkdir()
        prepared, _ = prepare_job(recipe.model_copy(update={"base": options}))
        store = prepared.splits["train"].store
        found[name] = torch.tensor([list(store[index].frozen.values()) for index in range(len(store))])
    assert torch.allclose(found["on"], found["merged"], atol=1e-4)
    assert not torch.allclose(found["on"], found["bare"], atol=1e-2)


def test_a_changed_adapter_is_noticed_on_resume(llama: Path, tmp_path: Path) -> None:
    method = {"name": "lora", "rank": 4}
    first = fitted(llama, tmp_path, "instruction", method)
    second = fitted(first, tmp_path, "chat", method, "second", continue_adapter=True)
    assert json.loads((second / "lock.json").read_text())["base"]["adapter"]


def test_a_wrong_base_is_refused_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its digest, whatever is asked of the run: one line, code 2, and nothing is trained."""
    base = save_llama(tmp_path / "base")
    first = fitted(base, tmp_path, "instruction", {"name": "lora", "rank": 4})
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.norm.weight.add_(1)
    other.save_pretrained(base)
    data = file(tmp_path, "instruction")
    tune = ["fit", "--base", str(first), "--data", data, "--method", "lora", "method.rank=4", "--output"]
    for words in (
        ["generate", str(first), "--prompt", "the stone"],
        ["evaluate", str(first)],
        ["evaluate", str(first / "model"), "--data", data],
        [*tune, str(tmp_path / "second")],
        [*tune, str(tmp_path / "third"), "base.continue_adapter=true"],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capsys.readouterr()
        last = err.strip().splitlines()[-1]
        assert end.value.code == 2, (words, out, err)
        assert "made on another base" in last, (words, err)
        assert "Traceback" not in err
    assert not [file for name in ("second", "third") for file in (tmp_path / name).glob("metrics.jsonl")]


def test_names_are_found_under_another_trunk() -> None:
    own = {"bert.layer.w", "bert.layer.v", "head"}
    assert places_of({"layer.w", "layer.v"}, own, "bert") == {"layer.w": "bert.layer.w", "layer.v": "bert.layer.v"}
    assert places_of({"trunk.layer.w", "head"}, own, "bert")["trunk.layer.w"] == "bert.layer.w"
    assert places_of({"bert.layer.w"}, {"layer.w"}, "bert") == {"bert.layer.w": "layer.w"}
    assert places_of({"x"}, own, "bert") == {}
