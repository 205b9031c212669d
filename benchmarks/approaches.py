"""What every shipped recipe gives, three seeds each: `python benchmarks/approaches.py [NAME …]` (`make bench-approaches`).

Each recipe runs as it stands, on embedded bases and data. Figures are kept in `benchmarks/results/approaches.json` with
date and machine, and the table between the marks in docs/approaches.md is written from them.
"""

import json
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml

import tailor
from tailor.core.reporting import Reporter
from tailor.evaluation.wording import figure, named, points

ROOT = Path(__file__).resolve().parents[1]
RECIPES, PAGE = ROOT / "recipes", ROOT / "docs" / "approaches.md"
RESULTS = ROOT / "benchmarks" / "results" / "approaches.json"
SEEDS = (0, 1, 2)
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADINGS = (
    "| recipe | what | base → tuned, by seed | difference (95 % interval) | verdicts | trained | seconds | proof |"
)


def seeded(values: dict[str, Any], seed: int) -> list[str]:
    """Overrides that give a recipe, or each of its stages, a seed."""
    stages = [f"stages.{place + 1}.train.seed={seed}" for place in range(len(values.get("stages", [])))]
    return stages or [f"train.seed={seed}"]


def measure(name: str, folder: Path) -> list[dict[str, Any]]:
    """A recipe's runs, one per seed: per task the primary metric, and what it cost."""
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    runs = []
    for seed in SEEDS:
        run = tailor.fit(
            RECIPES / f"{name}.yaml",
            output=str(folder / f"{name}-{seed}"),
            overrides=seeded(values, seed),
            reporter=Reporter(quiet=True),
        )
        runs.append(entry(run))
        print(name, seed, json.dumps(runs[-1]["tasks"]), flush=True)
    return runs


def entry(run: Any) -> dict[str, Any]:
    """One run's figures."""
    evaluation, train = run.evaluation, run.summary["train"]
    parts = {**evaluation["tasks"]}
    parts |= {f"{name}, without the first stage": t for name, t in evaluation.get("without_earlier_stages", {}).items()}
    tasks = {}
    for name, task in parts.items():
        metric = task["metrics"][task["primary"]]
        kept = {key: metric[key] for key in ("base", "tuned", "delta", "ci95", "p_value")}
        tasks[name] = {"metric": task["primary"], "verdict": task["verdict"], "n": task["n"], **kept}
    keys = ("steps", "seconds", "trainable_parameters", "total_parameters")
    return {
        "tasks": tasks,
        "forgetting": evaluation.get("forgetting"),
        "proof": run.proof["passed"],
        "train": {key: train[key] for key in keys},
    }


def rows(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A table row for each task of a recipe."""
    found = []
    for task in runs[0]["tasks"]:
        several = [run["tasks"][task] for run in runs]
        metric = several[0]["metric"]
        values = "; ".join(f"{figure(metric, one['base'])} → {figure(metric, one['tuned'])}" for one in several)
        gains = "; ".join(
            f"{points(metric, one['delta'])} ({points(metric, one['ci95'][0]).removesuffix(' points')} to "
            f"{points(metric, one['ci95'][1]).removesuffix(' points')})"
            for one in several
        )
        verdicts = ", ".join(dict.fromkeys(one["verdict"].replace("_", " ") for one in several))
        share = runs[0]["train"]["trainable_parameters"] / runs[0]["train"]["total_parameters"]
        seconds = sum(run["train"]["seconds"] for run in runs) / len(runs)
        proof = "passed" if all(run["proof"] for run in runs) else "FAILED"
        label = f"`{name}`" if task == "default" else f"`{name}`: {task.removeprefix('default, ')}"
        found.append(
            f"| {label} | {named(metric)[0]} | {values} | {gains} | {verdicts} | {share:.1%} | {seconds:.0f} | {proof} |"
        )
    return [*found, *still(name, runs)]


def still(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A table row for what the base could do before, where a recipe names rows of that."""
    several = [run["forgetting"] for run in runs if "metric" in (run["forgetting"] or {})]
    if not several:
        return []
    metric = several[0]["metric"]
    values = "; ".join(f"{figure(metric, one['base'])} → {figure(metric, one['tuned'])}" for one in several)
    changes = "; ".join(points(metric, one["delta"]) for one in several)
    return [f"| `{name}`: what it knew | {named(metric)[0]} | {values} | {changes} | | | | |"]


def write_page(result: dict[str, Any]) -> None:
    """Put the table between the marks of the page."""
    table = [HEADINGS, "|---|---|---|---|---|---|---|---|"]
    for name in sorted(result["recipes"]):
        table += rows(name, result["recipes"][name])
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}", encoding="utf-8")


def main(names: list[str]) -> None:
    """Measure the named recipes (all by default), keep the figures, and write the table."""
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"recipes": {}}
    for name in names or sorted(file.stem for file in RECIPES.glob("*.yaml")):
        with tempfile.TemporaryDirectory() as folder:
            result["recipes"][name] = measure(name, Path(folder))
        machine = {"processor": platform.machine(), "threads": torch.get_num_threads()}
        result |= {"date": date.today().isoformat(), "machine": machine}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        write_page(result)


if __name__ == "__main__":
    main(sys.argv[1:])
