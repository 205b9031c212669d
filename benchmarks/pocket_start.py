"""What pre-training is worth: the same fine-tuning from the pocket bases and from a random start of the same config.

Prints a table and writes `benchmarks/results/pocket_start.json`. Three seeds (order of rows, dropout, new or
random weights), the first quarter of each file held out. Each start uses the better of its two learning rates, so that
neither is held back by the other's.
"""

import json
import random
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

ROOT = Path(__file__).resolve().parents[1]
POCKET = ROOT / "tailor" / "bases" / "pocket"
RESULT = ROOT / "benchmarks" / "results" / "pocket_start.json"
SEEDS = (0, 1, 2)
BATCH = 16
TASKS = {  # data set → base, epochs, learning rates, bar to clear
    "reviews": ("bert-v1", 8, (3e-4, 1e-3), 0.10),
    "tickets": ("bert-v1", 8, (3e-4, 1e-3), 0.10),
    "support": ("gpt-v1", 4, (1e-3, 3e-3), 0.5),
}
Row = dict[str, torch.Tensor]


def read(name: str) -> list[dict]:
    """The rows of an embedded data set."""
    return [json.loads(line) for line in (POCKET / "data" / f"{name}.jsonl").read_text().splitlines()]


def encode(name: str, tokenizer) -> tuple[list[Row], int]:
    """Token ids and labels of every row; the number of classes, 0 for the causal base."""
    rows = read(name)
    if name != "support":
        labels = sorted({row["label"] for row in rows})
        return [
            {
                "ids": torch.tensor(tokenizer(row["text"])["input_ids"]),
                "labels": torch.tensor([labels.index(row["label"])]),
            }
            for row in rows
        ], len(labels)
    encoded = []
    for row in rows:
        features = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = torch.tensor(features["input_ids"]), torch.tensor(features["assistant_masks"])
        encoded.append({"ids": ids, "labels": torch.where(mask == 1, ids, -100)})
    return encoded, 0


def start(folder: Path, classes: int, pretrained: bool) -> PreTrainedModel:
    """The base, or a random start of its config."""
    kind = AutoModelForSequenceClassification if classes else AutoModelForCausalLM
    extra = {"num_labels": classes} if classes else {}
    if pretrained:
        return kind.from_pretrained(folder, dtype=torch.float32, **extra)
    return kind.from_config(AutoConfig.from_pretrained(folder, **extra), dtype=torch.float32)


def forward(model: PreTrainedModel, rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of a padded batch: one of each per row, or per supervised token."""
    ids = torch.nn.utils.rnn.pad_sequence([row["ids"] for row in rows], batch_first=True, padding_value=pad)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(row["ids"])] for row in rows])).long()
    logits = model(input_ids=ids, attention_mask=mask).logits
    if logits.dim() == 2:
        return logits, torch.cat([row["labels"] for row in rows])
    labels = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100)[
        :, 1:
    ]
    return logits[:, :-1][labels != -100], labels[labels != -100]


def fine_tune(model: PreTrainedModel, rows: list[Row], pad: int, epochs: int, learning_rate: float, seed: int) -> None:
    """A plain loop: AdamW, linear decay."""
    order = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10) * (1 - step / steps))
    model.train()
    for _ in range(epochs):
        shuffled = order.sample(rows, len(rows))
        for first in range(0, len(rows), BATCH):
            logits, labels = forward(model, shuffled[first : first + BATCH], pad)
            cross_entropy(logits, labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()


@torch.no_grad()
def score(model: PreTrainedModel, rows: list[Row], pad: int, classes: int) -> float:
    """Accuracy, or nats per supervised token."""
    model.eval()
    results = [forward(model, rows[first : first + 64], pad) for first in range(0, len(rows), 64)]
    logits, labels = (torch.cat(parts) for parts in zip(*results, strict=True))
    return float((logits.argmax(1) == labels).float().mean() if classes else cross_entropy(logits, labels))


def run(name: str) -> dict[str, object]:
    """Both starts on one data set."""
    base, epochs, rates, bar = TASKS[name]
    tokenizer = AutoTokenizer.from_pretrained(POCKET / base)
    rows, classes = encode(name, tokenizer)
    cut = len(rows) // 4
    best, result = (
        (max if classes else min),
        {"metric": "accuracy" if classes else "nats per supervised token", "bar": bar},
    )
    for pretrained in (True, False):
        by_rate = {}
        for rate in rates:
            scores = []
            for seed in SEEDS:
                torch.manual_seed(seed)
                model = start(POCKET / base, classes, pretrained)
                fine_tune(model, rows[cut:], tokenizer.pad_token_id, epochs, rate, seed)
                scores.append(score(model, rows[:cut], tokenizer.pad_token_id, classes))
            by_rate[rate] = scores
        rate = best(by_rate, key=lambda rate: statistics.mean(by_rate[rate]))
        result["pocket" if pretrained else "random"] = {
            "mean": statistics.mean(by_rate[rate]),
            "scores": by_rate[rate],
            "learning_rate": rate,
        }
    gain = result["pocket"]["mean"] - result["random"]["mean"]
    result["gain"] = gain if classes else -gain
    return {**result, "base": base, "epochs": epochs, "passed": result["gain"] >= bar}


def main() -> None:
    """Run all tasks, print and save."""
    torch.set_num_threads(2)
    results = {}
    print(f"{'data':<10}{'metric':<28}{'pocket':>8}{'random':>8}{'gain':>8}{'bar':>6}  seconds")
    for name in TASKS:
        began = time.perf_counter()
        result = results[name] = run(name)
        pocket, start = result["pocket"]["mean"], result["random"]["mean"]
        seconds = time.perf_counter() - began
        figures = f"{pocket:>8.3f}{start:>8.3f}{result['gain']:>8.3f}{result['bar']:>6}"
        print(f"{name:<10}{result['metric']:<28}{figures}  {seconds:.0f}", flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
