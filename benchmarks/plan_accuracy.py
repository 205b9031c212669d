"""Held against what is measured: `tailor plan`'s memory and time, on random bases of real shapes, one fresh process each.

    python benchmarks/plan_accuracy.py [--only smollm2-135m] [--steps 3]

writes benchmarks/results/plan_accuracy.json and docs/plan-accuracy.md, misses included. A base needs about ten times its
size on disk and 28 bytes for each parameter in memory.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "plan_accuracy.json"
PAGE = ROOT / "docs" / "plan-accuracy.md"
# ruff: noqa: E501
SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {"like": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 30522},
    "smollm2-135m": {"like": "gpt", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True},
    "smollm2-360m": {"like": "gpt", "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True},
    "qwen2.5-0.5b-shape": {"like": "gpt", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 151936, "tie_word_embeddings": True},
    "llama-3.2-1b": {"like": "gpt", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True},
}  # fmt: skip
"""Public shapes of real bases; tokenizer and the rest of the config are those of the embedded base that they are like."""
DATA = {"gpt": "pocket:support", "bert": "pocket:tickets"}
METHODS = ("lora", "full")


def make_base(name: str, folder: Path) -> Path:
    """A base of a real shape with random weights, in bf16 as such bases are published (encoders in fp32)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    from tailor.core.paths import embedded_base

    shape = dict(SHAPES[name])
    lent = embedded_base(shape.pop("like"))
    assert lent is not None
    base = folder / name
    shutil.copytree(lent, base, ignore=shutil.ignore_patterns("*.safetensors", "*.md", "config.json"))
    config = AutoConfig.from_pretrained(lent)
    for key, value in shape.items():
        setattr(config, key, value)
    config.layer_types = None
    causal = SHAPES[name]["like"] == "gpt"
    made = (AutoModelForCausalLM if causal else AutoModelForMaskedLM).from_config(config)
    made.to(torch.bfloat16 if causal else torch.float32).save_pretrained(base)
    return base


def in_a_fresh_process(task: str, base: Path, data: str, method: str, steps: int, folder: Path) -> dict[str, Any]:
    """What one process of its own says: the plan, or the run."""
    command = [sys.executable, __file__, "--task", task, "--base", str(base), "--data", data, "--method", method]
    command += ["--steps", str(steps), "--folder", str(folder)]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if found.returncode:
        raise SystemExit(found.stderr[-3000:])
    return json.loads(found.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def overrides(steps: int) -> list[str]:
    """Training with looks at dev, checkpoints and proof, and no evaluation: what is planned is the training."""
    return [f"train.max_steps={steps}", "data.dev=0.04", "data.test=0", "evaluate.forgetting=false"]


def plan_once(base: str, data: str, method: str, steps: int) -> dict[str, Any]:
    """Memory and time of the very run that is measured, as its dry run tells them, and how long that took once all is
    imported and probed."""
    from tailor import api

    recipe = api.make_recipe(base=base, data=data, method=method, overrides=overrides(steps))
    api.plan_fit(recipe)
    before = time.perf_counter()
    found: dict[str, Any] = api.plan_fit(recipe)["plan"]
    return {**found, "took": time.perf_counter() - before}


def run_once(base: str, data: str, method: str, steps: int, folder: str) -> dict[str, Any]:
    """What the run's own summary says of its training."""
    from tailor import api

    run = api.fit(base=base, data=data, method=method, output=Path(folder) / "run", overrides=overrides(steps))
    train = run.summary["train"]
    return {"memory_bytes": train["peak_memory_bytes"] - train["baseline_bytes"], "seconds": train["seconds"]}


def measure(names: list[str], steps: int) -> dict[str, Any]:
    """Plan and run, side by side, for every shape and method."""
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="plan-accuracy-") as folder:
            base, data = make_base(name, Path(folder)), DATA[SHAPES[name]["like"]]
            for method in METHODS:
                planned = in_a_fresh_process("plan", base, data, method, steps, Path(folder))
                ran = in_a_fresh_process("run", base, data, method, steps, Path(folder))
                shutil.rmtree(Path(folder) / "run", ignore_errors=True)
                rows.append({"base": name, "method": method, "planned": planned, "measured": ran})
                sys.stderr.write(json.dumps(rows[-1]) + "\n")
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    return {"date": datetime.now(UTC).date().isoformat(), "hardware": machine, "steps": steps, "rows": rows}


def page(found: dict[str, Any]) -> str:
    """The table, misses marked."""
    cores, load = found["hardware"]["cpus"], found["hardware"]["load"]
    command = f"python benchmarks/plan_accuracy.py --steps {found['steps']}"
    lines = [
        "# How right the plan is",
        "",
        f"`{command}` on {found['date']}, {cores} CPU cores, {load:.1f} processes running when it ended. Random weights in real",
        "shapes, embedded data, one fresh process for each plan and each run; memory above the process's baseline after imports.",
        "Misses (beyond 10 % of memory, 25 % of time) in bold.",
        "",
        "| base | method | memory: planned, measured (GiB) | off by | seconds: planned, measured | off by | planning took (s) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        plan, ran = row["planned"], row["measured"]
        memory, seconds = plan["memory_bytes"] / ran["memory_bytes"] - 1, plan["seconds"] / ran["seconds"] - 1
        lines.append(
            f"| {row['base']} | {row['method']}, {plan['precision']} | {plan['memory_bytes'] / 2**30:.2f}, "
            f"{ran['memory_bytes'] / 2**30:.2f} | {_marked(memory, 0.10)} | {plan['seconds']:.1f}, {ran['seconds']:.1f} | "
            f"{_marked(seconds, 0.25)} | {plan['took']:.1f} |"
        )
    return "\n".join([*lines, ""])


def _marked(share: float, most: float) -> str:
    text = f"{100 * share:+.0f} %"
    return f"**{text}**" if abs(share) > most else text


def main() -> None:
    """Measure and write, or (in a process of its own) do one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--task", choices=("plan", "run"))
    for name in ("base", "data", "method", "folder"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    if given.task == "plan":
        print(json.dumps(plan_once(given.base, given.data, given.method, given.steps)))
        return
    if given.task == "run":
        print(json.dumps(run_once(given.base, given.data, given.method, given.steps, given.folder)))
        return
    found = measure(given.only or list(SHAPES), given.steps)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    fresh = {row["base"] for row in found["rows"]}
    found["rows"] = [row for row in before["rows"] if row["base"] not in fresh] + found["rows"]
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
