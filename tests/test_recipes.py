"""Every shipped recipe runs, on embedded bases and data: a few steps here, in full where time is given."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import in_this_process

import tailor
from tailor.core.reporting import Reporter
from tailor.evaluation import proof

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
MUST_GAIN = {"full", "lora", "transfer", "instruction-single-turn", "instruction-multi-turn", "continued-pretraining"}
MUST_GAIN |= {"text-to-image", "text-to-image-full", "textual-inversion"}
SEARCH = ["method.candidates=3", "method.rows=16"]
SHORT = ["train.max_steps=6", "train.epochs=auto", "evaluate.samples=12", "evaluate.max_new_tokens=4"]


def run_of(name: str, tmp_path: Path, overrides: list[str]) -> Any:
    return tailor.fit(
        FOLDER / f"{name}.yaml", output=str(tmp_path / "run"), overrides=overrides, reporter=Reporter(quiet=True)
    )


def shortened_part(values: dict[str, Any]) -> list[str]:
    method = values.get("method")
    searches = isinstance(method, dict) and method["name"] == "prompt"
    objective = values.get("objective")
    keeps = isinstance(objective, dict) and "prior" in objective
    drawn = ["evaluate.steps=2"] if "steps" in values.get("evaluate", {}) else []
    return [*SHORT, *(SEARCH if searches else []), *drawn, *(["objective.prior.pictures=4"] if keeps else [])]


def shortened(name: str) -> list[str]:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    if "stages" in values:
        parts = [(place, shortened_part(part)) for place, part in enumerate(values["stages"], 1)]
        return [f"stages.{place}.{change}" for place, changes in parts for change in changes]
    return shortened_part(values)


def test_the_approaches_people_ask_for_are_there() -> None:
    asked = (
        "full lora adapters prefix soft-prompt ia3 instruction-single-turn instruction-multi-turn transfer few-labels"
    )
    asked += " continued-pretraining domain-adaptation multi-task preference similarity tagging span-qa prompt"
    asked += " text-to-image text-to-image-full textual-inversion"
    assert set(asked.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_and_is_proved(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)  # fresh processes are waited for in the slow test
    run = run_of(name, tmp_path, shortened(name))
    assert run.proof["passed"], run.proof
    assert run.evaluation["tasks"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_in_full_ends_as_its_page_says(name: str, tmp_path: Path) -> None:
    run = run_of(name, tmp_path, [])
    assert run.proof["passed"], run.proof
    verdicts = {task["verdict"] for task in run.evaluation["tasks"].values()}
    if name in MUST_GAIN:
        assert verdicts == {"better"}
