"""Preferences: the loss is the paper's and TRL's, the reference is the base as it was, and margins are what they say."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import in_this_process, make_job, make_recipe, prepare_job, rows_of, trained_gradients, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

import tailor
from tailor import compose
from tailor.core.contracts import Answer
from tailor.core.errors import DataError
from tailor.core.paths import cache_folder
from tailor.core.reporting import Reporter
from tailor.engine import frozen
from tailor.engine.loop import Job
from tailor.evaluation import proof
from tailor.evaluation.scorers import resolve
from tailor.nn import kept
from tailor.verbs.evaluate import evaluate_model
from tailor.verbs.fit import run

BETA = 0.3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs of answers."""
    return write_rows(tmp_path / "rows.jsonl", rows_of("preference"))


def moved_job(base: Path, data: Path, folder: Path, method: Any = "full", **sections: Any) -> Job:
    """A job whose model is no longer its reference."""
    objective = {"name": "preference", "beta": BETA}
    job = make_job(make_recipe(base, data, folder / "run", method=method, objective=objective, **sections))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in job.attached.trainable().values():
            value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return job


def paper(policy: Any, reference: Any, words: Any, row: dict[str, str]) -> torch.Tensor:
    """Equation 7 of Rafailov et al. 2023 for one pair: rows alone, stock forwards, nothing of ours."""
    gains = []
    for answer in (row["chosen"], row["rejected"]):
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = words.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        ids = words.apply_chat_template([*turns, {"role": "assistant", "content": answer}], return_dict=False)
        assert ids[: len(prompt)] == prompt
        assert ids[-1] == words.eos_token_id
        both = []
        for model in (policy, reference):
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            chosen = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])
            both.append(chosen[len(prompt) - 1 :].sum())
        gains.append(both[0] - both[1])
    return -torch.nn.functional.logsigmoid(BETA * (gains[0] - gains[1]))


@pytest.mark.parametrize("packing", [True, False])
def test_loss_and_gradient_are_the_papers(llama: Path, data: Path, tmp_path: Path, packing: bool) -> None:
    job = moved_job(llama, data, tmp_path)
    if not packing:
        base: Any = job.base
        base.packing = dataclasses.replace(base.packing, mode="padded")
        base.model.set_attn_implementation("sdpa")
    features = [job.train[index] for index in range(6)]
    ours = trained_gradients(job, features, [[0], [1, 2, 3], [4, 5]])
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    by_prompt = {row["prompt"]: row for row in rows}
    words = AutoTokenizer.from_pretrained(llama)
    policy, reference = job.attached.model, AutoModelForCausalLM.from_pretrained(llama)
    policy.set_attn_implementation("sdpa")
    policy.zero_grad()
    total = torch.zeros(())
    for feature in features:
        shown = words.decode(feature.sequences[0], skip_special_tokens=False)
        prompt = shown.partition("<|user|>")[2].partition("<|assistant|>")[0]
        total = total + paper(policy, reference, words, by_prompt[prompt])
    (total / len(features)).backward()
    assert ours.loss == pytest.approx(float(total.detach()) / len(features), abs=1e-6)
    assert abs(ours.loss - math.log(2)) > 1e-3
    for name, value in job.attached.trainable().items():
        assert torch.allclose(ours.values[name], value.grad, atol=1e-5), name


def test_loss_is_trls(llama: Path, data: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is an oracle: pip install tailor[test]")
    from datasets import Dataset

    job = moved_job(llama, data, tmp_path)
    ours = trained_gradients(job, list(job.train), [list(range(len(job.train)))]).loss
    job.attached.save(tmp_path / "policy")
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        for row in map(json.loads, data.read_text().splitlines())
    ]
    options = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=BETA,
        per_device_train_batch_size=len(rows),
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
    )
    trainer = trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tmp_path / "policy"),
        AutoModelForCausalLM.from_pretrained(llama),
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(llama),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch)
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_only_the_answers_and_their_stops_are_learned(llama: Path, tmp_path: Path) -> None:
    turns = [("user", "the stone"), ("assistant", "grey"), ("user", "and now?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    row = {"prompt": prompt, "chosen": "blue blue", "rejected": "red"}
    job = make_job(make_recipe(llama, write_rows(tmp_path / "rows.jsonl", [row] * 2), tmp_path / "run"))
    feature, words = job.train[0], AutoTokenizer.from_pretrained(llama)
    ends = [feature.parts[0], sum(feature.parts)]
    sides = [(0, ends[0]), (ends[0], ends[1])]
    learned = [
        words.decode([t for t, w in zip(feature.input_ids[a:b], feature.weights[a:b], strict=True) if w])
        for a, b in sides
    ]
    assert learned == ["blue blue</s>", "red</s>"]
    assert feature.weights[0] == feature.weights[ends[0]] == 0.0


@pytest.mark.parametrize("on_overlong", ["error", "drop", "truncate", "truncate_prompt"])
def test_a_pair_is_cut_as_a_whole(llama: Path, tmp_path: Path, on_overlong: str) -> None:
    skipped = "error" if on_overlong == "error" else "skip"
    row = {"prompt": "the tower " * 12, "chosen": "red " * 8 + "green", "rejected": "blue"}
    short = {"prompt": "a boat", "chosen": "red", "rejected": "blue"}
    data = write_rows(tmp_path / "rows.jsonl", [row, short])
    recipe = make_recipe(
        llama, data, tmp_path / "run", splits={"max_length": 30, "on_overlong": on_overlong, "on_bad_row": skipped}
    )
    if on_overlong == "error":
        with pytest.raises(DataError, match="30 is the limit"):
            compose.prepare(recipe)
        return
    split = compose.prepare(recipe).splits["train"]
    found = {feature.example_id: feature for feature in split.store}
    if on_overlong != "truncate_prompt":  # cut at their ends, neither answer of the long row is left
        assert len(found) == 1
        assert [refusal.reason for refusal in split.refused] == [
            {"drop": "dropped_overlong", "truncate": "truncated_away"}[on_overlong]
        ]
        return
    cut = max(found.values(), key=len)
    assert max(cut.parts) == 30
    words = AutoTokenizer.from_pretrained(llama)
    prompts = [words.decode(sequence).partition("<|assistant|>")[0] for sequence in cut.sequences]
    assert prompts[0] == prompts[1]
    assert words.decode(cut.sequences[0]).endswith("red green</s>")


def test_the_reference_is_the_base_and_is_computed_once(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    first = make_job(make_recipe(llama, data, tmp_path / "one", method="lora"))
    kept = list((cache_folder() / "frozen").glob("*.safetensors"))
    assert len(kept) == 1
    monkeypatch.setattr(frozen.Frozen, "_compute", lambda *_: pytest.fail("computed twice"))
    second = make_job(make_recipe(llama, data, tmp_path / "two", method="full"))
    assert [row.frozen for row in first.train] == [row.frozen for row in second.train]
    kept[0].write_bytes(b"half a file")
    monkeypatch.undo()
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    third = make_job(make_recipe(llama, data, tmp_path / "three", method="lora"))
    assert [row.frozen for row in third.train] == [row.frozen for row in first.train]


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    for index in range(4):
        past = tmp_path / f"{index}.safetensors"
        kept.keep(past, {"reference": torch.zeros(300)})
        os.utime(past, (index, index))
        kept.make_room(tmp_path, 3000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2.safetensors", "3.safetensors"]


def test_a_run_is_measured_against_its_own_base_and_can_be_talked_to(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    rows = [{**row, "chosen": "red red", "rejected": "blue"} for row in rows_of("preference", 60)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = make_recipe(
        llama, data, tmp_path / "run", method="lora", train={"max_steps": 30, "learning_rate": 6e-3},
        splits={"dev": 0.2, "test": 0.2},
    )  # fmt: skip
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    result = answer["evaluation"]["tasks"]["default"]
    metrics = result["metrics"]
    assert result["primary"] == "loss"
    assert metrics["loss"]["base"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["reward_accuracy"]["base"] == 0.5
    assert metrics["reward_margin"]["base"] == pytest.approx(0, abs=1e-6)
    assert metrics["reward_accuracy"]["tuned"] == 1.0
    assert metrics["reward_margin"]["tuned"] > 1
    assert answer["proof"]["passed"]
    again = evaluate_model(str(tmp_path / "run"), data=None, against=None, margin=None, reporter=Reporter(quiet=True))
    assert again["tasks"]["default"]["metrics"]["loss"]["tuned"] == pytest.approx(metrics["loss"]["tuned"], abs=1e-6)
    assert isinstance(tailor.load(str(tmp_path / "run")).generate("the stone is", max_new_tokens=3), str)
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["stop_token"] == {"text": "</s>", "labelled": True}
    assert (tmp_path / "run" / "recipe.yaml").read_text().count("beta: 0.1") == 1


def test_a_longer_pair_than_the_context_is_no_longer_row(llama: Path, tmp_path: Path) -> None:
    row = {"prompt": "a " * 60, "chosen": "red " * 20, "rejected": "blue " * 20}
    prepared, job = prepare_job(make_recipe(llama, write_rows(tmp_path / "r.jsonl", [row] * 2), tmp_path / "run"))
    assert len(job.train[0]) > max(job.train[0].parts) == prepared.recipe.data.max_length
    assert prepared.recipe.data.max_length < 256


def test_ties_count_one_half() -> None:
    answers = [Answer(str(given), {}, "", "above 0", given, 0.5, 1) for given in (2.0, 0.0, -1.0, -3.0)]
    accuracy, margin = resolve(["reward_accuracy", "reward_margin"], answers_kind="margin")
    assert accuracy.value(accuracy.statistics(answers).sum(0)) == 0.375
    assert margin.value(margin.statistics(answers).sum(0)) == -0.5
