"""The step computes what the book says: against stock forwards, transformers' Trainer, and loops written without us."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    copies,
    largest_difference,
    make_job,
    make_recipe,
    random_features,
    randomised,
    rows_of,
    save_bert,
    save_llama,
    stock_gradients,
    tokenizer,
    trained_gradients,
    write_rows,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from examples import plain_head, plain_lora
from tailor.bases.packing import IMPLEMENTATION, Packing
from tailor.core.examples import Features
from tailor.engine.loop import Job, Outcome, fit
from tailor.engine.order import batch_indices

EXACT = 1e-5
LENGTHS = (5, 40, 3, 17, 29, 2, 11, 64)
AWAY_FROM_ROUNDING = {"epsilon": 1e-6, "clip": 1.0}
"""AdamW blows rounding up where a gradient is nothing else: that of a key's bias is 0, since softmax does not see it."""
MODES = {"segments": IMPLEMENTATION, "positions": "sdpa", "padded": "sdpa"}


def job_for(base: Path, folder: Path, form: str, **sections: Any) -> Job:
    """A job on rows of a form, up to the loop."""
    data = write_rows(folder / f"{form}.jsonl", rows_of(form))
    return make_job(make_recipe(base, data, folder / "run", **sections))


def in_mode(job: Job, mode: Any) -> Job:
    """The same job, laid out in a mode that is not the one that was measured."""
    base: Any = job.base
    base.packing = Packing(mode, 0.0)
    base.model.set_attn_implementation(MODES[mode])
    return job


def trained(job: Job) -> tuple[Outcome, dict[str, torch.Tensor]]:
    """The outcome of a run to its end, and its weights."""
    outcome = fit(job)
    return outcome, copies(job.attached.trainable())


# Packing


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("mode", MODES)
def test_packed_rows_have_the_loss_and_the_gradients_of_rows_alone(
    llama: Path, tmp_path: Path, mode: str, method: str
) -> None:
    job = in_mode(job_for(llama, tmp_path, "chat", method=method), mode)
    randomised(job.attached.trainable())
    features = random_features(LENGTHS)
    ours = trained_gradients(job, features, [range(len(features))])
    book = stock_gradients(in_mode(job, "padded").attached.model, features)
    assert ours.difference(book) < EXACT
    assert (
        min(float(value.abs().max()) for value in book.values.values()) > 1e-4
    )  # every gradient has something to show


def test_rows_stay_apart_on_a_base_that_is_itself_an_adapter(llama: Path, tmp_path: Path) -> None:
    """Its merged weights are saved before training starts, and saving must not change how the model attends."""
    first = job_for(llama, tmp_path, "instruction", method="lora")
    randomised(first.attached.trainable())
    first.attached.save(first.folder / "model")
    first.base.save_tokenizer(first.folder / "model")
    data = tmp_path / "instruction.jsonl"
    make_recipe(llama, data, first.folder).save(first.folder / "recipe.yaml")
    second = make_job(make_recipe(first.folder, data, tmp_path / "second", method="full"))
    features = random_features(LENGTHS)
    ours = trained_gradients(second, features, [range(len(features))])
    assert ours.difference(stock_gradients(in_mode(second, "padded").attached.model, features)) < EXACT


def test_a_message_counts_by_its_weight(llama: Path, tmp_path: Path) -> None:
    job = job_for(llama, tmp_path, "chat", method="full")
    features = [job.train[index] for index in range(4)]
    assert {weight for feature in features for weight in feature.weights} == {0.0, 0.5, 1.0}
    ours = trained_gradients(job, features, [range(4)])
    assert ours.difference(stock_gradients(in_mode(job, "padded").attached.model, features)) < EXACT
    whole = [dataclasses.replace(feature, weights=[float(bool(w)) for w in feature.weights]) for feature in features]
    assert abs(ours.loss - trained_gradients(job, whole, [range(4)]).loss) > 1e-3


def test_the_end_of_a_turn_is_learned_where_padding_has_the_same_token(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", pad="</s>")
    job = job_for(base, tmp_path, "instruction", method="full")
    end = tokenizer(pad="</s>").eos_token_id
    assert end == tokenizer(pad="</s>").pad_token_id
    features = [job.train[index] for index in range(8)]
    for mode in MODES:
        batch = in_mode(job, mode).base.collate(features, job.output)
        assert int((batch.targets == end).sum()) == len(features)
        assert len(batch.targets) == sum(bool(weight) for feature in features for weight in feature.weights)
    assert all(feature.input_ids[-1] == end and feature.weights[-1] == 1.0 for feature in features)


# Accumulation


@pytest.mark.parametrize(
    ("form", "method", "some", "counts"),
    [("chat", "full", 150, [1, 2, 8]), ("chat", "lora", 150, [1, 2, 8]), ("pair", "full", 70, [2, 3, 8])],
)
def test_any_grouping_into_micro_batches_gives_the_same_weights(
    llama: Path, bert: Path, tmp_path: Path, form: str, method: str, some: int, counts: list[int]
) -> None:
    """A batch of eight examples whose learned tokens differ in number, in few, more, and eight micro-batches."""
    base = bert if form == "pair" else llama
    runs = {}
    for budget in (100_000, some, 1):
        folder = tmp_path / str(budget)
        folder.mkdir()
        train = {"tokens_per_micro_batch": budget, "learning_rate": 1e-4, "optimizer": AWAY_FROM_ROUNDING}
        job = job_for(base, folder, form, method=method, train=train)
        first = [job.train[index] for index in range(8)]
        runs[len(job.base.micro_batches(first, budget))] = trained(job)
    assert sorted(runs) == counts
    whole, expected = runs[counts[0]]
    for outcome, weights in runs.values():
        assert outcome.state.loss_last == pytest.approx(whole.state.loss_last, abs=1e-6)
        assert largest_difference(weights, expected) < 1e-6


def test_a_mean_of_means_would_show(llama: Path, tmp_path: Path) -> None:
    """The rows' weights differ so much that averaging micro-batches, as others did, gives another loss."""
    job = job_for(llama, tmp_path, "chat", method="full")
    features = [job.train[index] for index in range(8)]
    apart = [trained_gradients(job, features, [[index]]).loss for index in range(8)]
    assert abs(sum(apart) / 8 - trained_gradients(job, features, [range(8)]).loss) > 1e-3


# transformers' Trainer


class InOrder(Trainer):
    """The Trainer with its data in the order given."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer_run(
    model: Any, rows: Sequence[Mapping[str, Any]], folder: Path, collate: Any, accumulate: int
) -> list[float]:
    """Five steps of eight examples by transformers' Trainer, and its loss at each."""
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulate,
        gradient_accumulation_steps=accumulate,
        max_steps=5,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        adam_epsilon=AWAY_FROM_ROUNDING["epsilon"],
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
    )
    trainer = InOrder(model=model, args=settings, train_dataset=list(rows), data_collator=collate)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def in_training_order(job: Job) -> list[Features]:
    """The examples of all steps, in the order in which our loop sees them."""
    plan = job.plan
    return [
        job.train[index]
        for step in range(plan.steps)
        for index in batch_indices(plan.seed, step, len(job.train), plan.examples_per_batch)[1]
    ]


def padded_columns(rows: Sequence[Features], fill: Mapping[str, int], columns: Mapping[str, Any]) -> dict[str, Any]:
    longest = max(len(row) for row in rows)
    made = {
        name: torch.tensor([[*values(row), *[fill[name]] * (longest - len(row))] for row in rows])
        for name, values in columns.items()
    }
    return {**made, "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])}


def logged_losses(job: Job) -> list[float]:
    return [json.loads(line)["loss"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_causal_run_is_that_of_the_trainer(llama: Path, tmp_path: Path, accumulate: int) -> None:
    job = job_for(llama, tmp_path, "instruction", method="full", train={"optimizer": AWAY_FROM_ROUNDING})
    rows = in_training_order(job)
    _, ours = trained(job)

    def collate(rows: Sequence[Features]) -> dict[str, Any]:
        labels = {"labels": lambda row: [t if w else -100 for t, w in zip(row.input_ids, row.weights, strict=True)]}
        columns = {"input_ids": lambda row: row.input_ids, **labels}
        return padded_columns(rows, {"input_ids": 0, "labels": -100}, columns)

    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    losses = trainer_run(model, rows, tmp_path / "trainer", collate, accumulate)
    assert max(abs(a - b) for a, b in zip(logged_losses(job), losses, strict=True)) < EXACT
    assert largest_difference(ours, dict(model.named_parameters())) < EXACT


def test_an_encoder_run_is_that_of_the_trainer(bert: Path, tmp_path: Path) -> None:
    job = job_for(bert, tmp_path, "pair", method="full", train={"optimizer": AWAY_FROM_ROUNDING})
    rows = in_training_order(job)
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2, dtype=torch.float32)
    model.load_state_dict(job.attached.model.state_dict())  # the new head is drawn at random
    _, ours = trained(job)

    def collate(rows: Sequence[Features]) -> dict[str, Any]:
        columns = {"input_ids": lambda row: row.input_ids, "token_type_ids": lambda row: row.extras["token_type_ids"]}
        labels = torch.tensor([row.target for row in rows])
        return {**padded_columns(rows, dict.fromkeys(columns, 0), columns), "labels": labels}

    losses = trainer_run(model, rows, tmp_path / "trainer", collate, 1)
    assert max(abs(a - b) for a, b in zip(logged_losses(job), losses, strict=True)) < EXACT
    assert largest_difference(ours, dict(model.named_parameters())) < EXACT


# The loops without us

COSINE = {"schedule": {"name": "cosine", "warmup": 0.25}, "max_steps": 6, "optimizer": {"clip": 1.0}}


def test_lora_is_plain_peft(llama: Path, tmp_path: Path) -> None:
    settings = plain_lora.Settings(
        steps=6, examples_per_batch=8, examples_per_micro_batch=4, learning_rate=1e-3, warmup=0.25, rank=4, alpha=8.0
    )
    method = {"name": "lora", "rank": 4, "alpha": 8}
    job = job_for(llama, tmp_path, "instruction", method=method, train=COSINE)
    words = AutoTokenizer.from_pretrained(llama)
    encoded = [plain_lora.encode(words, row) for row in rows_of("instruction")]
    by_tokens = {tuple(row.ids): row for row in encoded}
    theirs = [by_tokens[tuple(job.train[index].input_ids)] for index in range(len(job.train))]
    assert [feature.weights.index(1.0) for feature in map(job.train.__getitem__, range(24))] == [
        row.prompt for row in theirs
    ]
    start = copies(job.attached.trainable())
    _, ours = trained(job)
    model, losses = plain_lora.train(str(llama), theirs, settings)
    plain = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert max(abs(a - b) for a, b in zip(logged_losses(job), losses, strict=True)) < 1e-6
    assert largest_difference(ours, plain) < 5e-6
    assert largest_difference(ours, start) > 1e-3


def test_a_head_is_plain_torch(bert: Path, tmp_path: Path) -> None:
    settings = plain_head.Settings(steps=6, examples_per_batch=8, learning_rate=1e-3, warmup=0.25)
    job = job_for(
        bert, tmp_path, "single", method={"name": "head", "head": "stock", "solver": "gradient"}, train=COSINE
    )
    words = AutoTokenizer.from_pretrained(bert)
    by_tokens = {tuple(words(row["text"])["input_ids"]): row for row in rows_of("single")}
    theirs = [by_tokens[tuple(job.train[index].input_ids)] for index in range(len(job.train))]
    start = copies(job.attached.trainable())
    model = plain_head.load(str(bert), job.output.labels, settings.seed)
    model.load_state_dict(job.attached.model.state_dict())  # the same head, as it was drawn
    _, ours = trained(job)
    losses = plain_head.train(model, words, theirs, settings)
    plain = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert max(abs(a - b) for a, b in zip(logged_losses(job), losses, strict=True)) < 1e-6
    assert largest_difference(ours, plain) < 1e-6
    assert largest_difference(ours, start) > 1e-3


@pytest.mark.parametrize(
    ("example", "form", "left"),
    [(plain_lora, "instruction", "adapter_model.safetensors"), (plain_head, "single", "model.safetensors")],
    ids=["plain_lora", "plain_head"],
)
def test_an_example_runs_from_a_file_to_a_folder(
    llama: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Any, form: str, left: str
) -> None:
    monkeypatch.setattr(example, "Settings", functools.partial(example.Settings, steps=2))
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form))
    example.main(str(llama if example is plain_lora else bert), str(data), str(tmp_path / "out"))
    assert {left, "tokenizer.json"} <= {file.name for file in (tmp_path / "out").iterdir()}


# The same again


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    base = save_bert(tmp_path / "base", hidden_dropout_prob=0.2)
    runs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        torch.manual_seed(hash(name))  # what ran before must not matter
        job = job_for(base, folder, "single", method="full", splits={"dev": 0.25}, train={"checkpoint_every": 2})
        fit(job)
        files = [job.folder / "metrics.jsonl", *sorted((job.folder / "checkpoints").glob("*/*.safetensors"))]
        runs.append([file.read_bytes() for file in files])
    assert len(runs[0]) == 4
    assert runs[0] == runs[1]


def test_another_seed_gives_other_weights(bert: Path, tmp_path: Path) -> None:
    results = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        results.append(trained(job_for(bert, folder, "single", method="full", train={"seed": seed}))[1])
    assert largest_difference(*results) > 1e-3
