"""Do the embedded bases know anything? The same fine-tuning from the pre-trained weights and from a random start.

`python benchmarks/pocket_start.py [TASK …]` runs the demo's recipe on each task, three seeds each, from the embedded base
and from random weights of the same config with the same tokenizer, and prints what the start was worth: points of accuracy
on tickets and reviews (full fine-tuning), nats per supervised token on support (LoRA, the demo). Results are kept with date.
"""

import json
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import tailor
from tailor.core.paths import embedded_base
from tailor.core.reporting import Reporter

SEEDS = (0, 1, 2)
TASKS: dict[str, dict[str, Any]] = {
    "support": {"base": "gpt", "class": AutoModelForCausalLM, "method": "lora", "metric": "loss", "bar": 0.5},
    "tickets": {"base": "bert", "class": AutoModelForMaskedLM, "method": "full", "metric": "accuracy", "bar": 10.0},
    "reviews": {"base": "bert", "class": AutoModelForMaskedLM, "method": "full", "metric": "accuracy", "bar": 10.0},
}


def random_start(task: dict[str, Any], seed: int, folder: Path) -> str:
    """A folder with the embedded base's config and tokenizer, and weights drawn by the model's own initialisation."""
    source = embedded_base(task["base"])
    config = AutoConfig.from_pretrained(source)
    torch.manual_seed(1000 + seed)
    task["class"].from_config(config).float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def score(name: str, base: str, seed: int, output: Path) -> float:
    """The tuned model's figure on the test split, in nats or points."""
    task = TASKS[name]
    overrides = [f"train.seed={seed}", "evaluate.samples=120", "evaluate.max_new_tokens=1", "evaluate.forgetting=false"]
    run = tailor.fit(
        base=base,
        data=f"pocket:{name}",
        method=task["method"],
        output=str(output),
        overrides=overrides,
        reporter=Reporter(quiet=True),
    )
    value = float(run.evaluation["tasks"]["default"]["metrics"][task["metric"]]["tuned"])
    return 100 * value if task["metric"] == "accuracy" else value


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Both starts over all seeds, and what the embedded one gained."""
    task = TASKS[name]
    pocket, random = [], []
    for seed in SEEDS:
        pocket.append(score(name, f"pocket:{task['base']}", seed, folder / f"{name}-pocket-{seed}"))
        weights = random_start(task, seed, folder / f"{name}-weights-{seed}")
        random.append(score(name, weights, seed, folder / f"{name}-random-{seed}"))
        print(f"{name} seed {seed}: pocket {pocket[-1]:.3f}, random {random[-1]:.3f}", flush=True)
    sign = 1 if task["metric"] == "accuracy" else -1
    gains = sign * (np.array(pocket) - np.array(random))
    unit = "points" if task["metric"] == "accuracy" else "nats"
    held = bool(gains.mean() >= task["bar"])
    return {
        "pocket": pocket,
        "random": random,
        "gain": float(gains.mean()),
        "unit": unit,
        "bar": task["bar"],
        "holds": held,
    }


def main(names: list[str]) -> None:
    """Measure the named tasks (all by default) and keep what came out."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(name, Path(folder)) for name in names or TASKS}
    target = Path(__file__).parent / "results" / "pocket_start.json"
    earlier = json.loads(target.read_text())["tasks"] if target.exists() else {}
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads()}
    result = {"date": date.today().isoformat(), "machine": machine, "tasks": {**earlier, **found}}
    target.write_text(json.dumps(result, indent=1) + "\n")
    for name, task in found.items():
        verdict = "holds" if task["holds"] else "DOES NOT HOLD"
        print(f"{name}: gain {task['gain']:.2f} {task['unit']} (bar {task['bar']}): {verdict}")


if __name__ == "__main__":
    main(sys.argv[1:])
