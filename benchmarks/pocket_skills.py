"""What can `pocket:gpt` do untuned? Copying, and learning from demonstrations in the prompt.

`python benchmarks/pocket_skills.py` asks on text of the task pool only, whose names and sentences pre-training never saw:
how well what stands in the prompt comes back, how often a label that is explained by examples alone is right, and whether
embedded data sets are labelled better with demonstrations than without. Labels are chosen by likelihood.
"""

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pocket.skills import Task, order_json, picked_line, repeat, short_opinion
from pocket.stream import made_up_word
from pocket.world import StuckError, World, code
from tailor.core.paths import embedded_base, embedded_data

ROWS = 60
SHOWN = {"reviews": 6, "tickets": 6, "clinic_urgency": 6}
PLAIN = "Text: {}\nLabel: {}"
Ask = Callable[[list[tuple[str, str]], str, list[str]], str]


class Base:
    """The embedded base, asked without gradients."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def nats(self, prompt: str, answer: str) -> list[float]:
        """The loss of each token of the answer."""
        start = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([start + self.tokenizer(answer, add_special_tokens=False)["input_ids"]])
        logits = self.model(input_ids=ids).logits[0, len(start) - 1 : -1]
        return cross_entropy(logits, ids[0, len(start) :], reduction="none").tolist()

    def choice(self, prompt: str, labels: list[str]) -> str:
        """The likeliest of the labels."""
        return min(labels, key=lambda label: sum(self.nats(prompt, label)))

    def chat(self, content: str) -> str:
        """The prompt that a user's message becomes."""
        messages = [{"role": "user", "content": content}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @torch.no_grad()
    def answer(self, content: str) -> str:
        """The greedy answer to a user's message."""
        inputs = self.tokenizer(self.chat(content), add_special_tokens=False, return_tensors="pt")
        written = self.model.generate(**inputs, max_new_tokens=80, do_sample=False)
        return str(self.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def made(world: World, write: Callable[[World], Any]) -> Iterator[Any]:
    """What a writer writes, without end."""
    while True:
        try:
            yield world.make(lambda: write(world))
        except StuckError:
            continue


def second_time(base: Base) -> float:
    """Nats per token of a line of codes and made-up words that stood in the line before."""
    world = World("task", "second-time")
    losses = []
    for _ in range(ROWS // 2):
        line = " ".join(world.pick((made_up_word, code))(world) for _ in range(8))
        losses += base.nats(f"{line}\n", line)
    return float(np.mean(losses))


def copied(base: Base, skill: Callable[[World], Task]) -> float:
    """Percent of exact answers to a skill that copies from the message."""
    tasks = itertools.islice(made(World("task", "copied"), skill), ROWS // 4)
    right = [base.answer(f"{instruction}\n{text}").strip() == answer for instruction, text, answer in tasks]
    return 100 * float(np.mean(right))


def invented(base: Base) -> float:
    """Percent of right labels for praise and blame under two made-up words, after eight examples."""
    world = World("task", "invented")
    right = []
    for _ in range(ROWS):
        labels = [made_up_word(world), made_up_word(world)]
        order = [index % 2 for index in range(8)]
        world.rng.shuffle(order)
        order.append(world.number(0, 1))
        texts = [next(made(world, lambda world, index=index: short_opinion(world, index == 0))) for index in order]
        lines = [PLAIN.format(text, labels[index]) for text, index in zip(texts, order, strict=True)]
        prompt = "\n".join(lines)[: -len(labels[order[-1]])].rstrip()
        right.append(base.choice(prompt, [f" {label}" for label in labels]) == f" {labels[order[-1]]}")
    return 100 * float(np.mean(right))


def invented_words(base: Base) -> float:
    """The same with single words of praise and blame instead of sentences, after ten examples."""
    world = World("task", "invented-words")
    right = []
    for _ in range(ROWS):
        labels = [made_up_word(world), made_up_word(world)]
        order = [index % 2 for index in range(10)]
        world.rng.shuffle(order)
        order.append(world.number(0, 1))
        lines = [f"{world.fill('{bad}' if index else '{good}')}: {labels[index]}" for index in order]
        prompt = "\n".join(lines)[: -len(labels[order[-1]])].rstrip()
        right.append(base.choice(prompt, [f" {label}" for label in labels]) == f" {labels[order[-1]]}")
    return 100 * float(np.mean(right))


def in_plain_text(base: Base, shown: list[tuple[str, str]], text: str, labels: list[str]) -> str:
    """The label after examples in plain text."""
    prompt = "\n".join([*(PLAIN.format(*example) for example in shown), PLAIN.format(text, "").rstrip()])
    return base.choice(prompt, [f" {label}" for label in labels]).strip()


def in_chat(base: Base, shown: list[tuple[str, str]], text: str, labels: list[str]) -> str:
    """The label as the answer to a message that holds the examples."""
    content = "\n".join([*(PLAIN.format(*example) for example in shown), PLAIN.format(text, "").rstrip()])
    return base.choice(base.chat(content), labels)


def with_and_without(base: Base, name: str, ask: Callable[..., str]) -> dict[str, float]:
    """Accuracy on an embedded data set with and without demonstrations, and the gain with its standard error."""
    rows = [json.loads(line) for line in (embedded_data() / f"{name}.jsonl").read_text().splitlines()]
    labels = sorted({row["label"] for row in rows})
    rng = random.Random(0)
    asked, pool = rows[:ROWS], {label: [row for row in rows[ROWS:] if row["label"] == label] for label in labels}
    bare, told = [], []
    for row in asked:
        shown = [rng.choice(pool[labels[index % len(labels)]]) for index in range(SHOWN[name])]
        rng.shuffle(shown)
        examples = [(example["text"], example["label"]) for example in shown]
        bare.append(ask(base, [], row["text"], labels) == row["label"])
        told.append(ask(base, examples, row["text"], labels) == row["label"])
    gains = 100 * (np.array(told, dtype=float) - np.array(bare, dtype=float))
    return {
        "without": 100 * float(np.mean(bare)),
        "with": 100 * float(np.mean(told)),
        "gain": float(gains.mean()),
        "standard_error": float(gains.std(ddof=1) / len(gains) ** 0.5),
    }


def measure(base: Base) -> dict[str, Any]:
    """Everything, by name."""
    found: dict[str, Any] = {"second_time_nats": second_time(base), "invented_labels": invented(base)}
    found["invented_labels_of_words"] = invented_words(base)
    found |= {f"copied_{skill.__name__}": copied(base, skill) for skill in (repeat, picked_line, order_json)}
    for name in SHOWN:
        for ask in (in_plain_text, in_chat):
            found[f"{name}_{ask.__name__}"] = with_and_without(base, name, ask)
    return found


def main() -> None:
    """Measure the embedded base and keep what came out."""
    folder = embedded_base("gpt")
    assert folder is not None
    torch.set_num_threads(1)
    found = measure(Base(folder))
    result = {"date": date.today().isoformat(), "base": folder.name, "rows": ROWS, "figures": found}
    (Path(__file__).parent / "results" / "pocket_skills.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, value in found.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        print(f"{name}:", ", ".join(f"{part} {figure:.2f}".strip() for part, figure in parts))


if __name__ == "__main__":
    main()
