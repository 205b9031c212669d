"""A recipe that runs, with the reasons for it as comments."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tailor.planner.plan import Planned
from tailor.planner.rules import Lead
from tailor.recipe.recipe import Recipe

WIDTH = 110
CONTRAST_EPOCHS, CONTRAST_BATCH = 8, 32
"""As in recipes/few-labels.yaml: in-batch negatives want larger batches than labels do."""


def recipe_text(recipe: Recipe, planned: Planned, file: Path, text: str | None) -> str:
    """A recipe as YAML; paths are relative to its own folder.

    Args:
        recipe: as the user gave it; text: raw text of the domain, where there is any.
    """
    assert planned.sheet is not None, "nothing is recommended"
    root = file.resolve().parent
    data: dict[str, Any] = {"train": _relative(recipe.data.train, root)}
    if recipe.data.columns:
        data["columns"] = dict(recipe.data.columns)
    task = {"data": data, "method": planned.sheet.method, **_train(recipe, planned)}
    stages = [_stage(lead, data, text, root) for lead in planned.advice.leads]
    values: dict[str, Any] = {"base": _base(recipe, root)}
    values |= {"stages": [*stages, task]} if stages else task
    return "\n".join([*_comments(planned), yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=WIDTH)])


def _base(recipe: Recipe, root: Path) -> Any:
    given = recipe.base.model_dump(exclude_defaults=True)
    name = _relative(recipe.base.name, root)
    if recipe.base.endpoint is not None:
        return {"endpoint": recipe.base.endpoint.model_dump(exclude_defaults=True)}
    return name if set(given) == {"name"} else {**given, "name": name}


def _train(recipe: Recipe, planned: Planned) -> dict[str, Any]:
    """A micro-batch that had to be made smaller than what the machine's default is."""
    assert planned.sheet is not None
    if planned.sheet.lowered is None:
        return {}
    return {"train": {"tokens_per_micro_batch": planned.sheet.lowered}}


def _stage(lead: Lead, data: dict[str, Any], text: str | None, root: Path) -> dict[str, Any]:
    if lead == "domain":
        assert text is not None, "the rule asks for it"
        return {"data": _relative(text, root), "objective": "language", "method": "full"}
    return {
        "data": dict(data),
        "objective": {"name": "similarity", "from_labels": True},
        "method": "full",
        "train": {"epochs": CONTRAST_EPOCHS, "examples_per_batch": CONTRAST_BATCH},
    }


def _relative(value: Any, root: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_relative(one, root) for one in value]
    path = Path(str(value)).expanduser()
    return os.path.relpath(path, root) if path.is_absolute() and path.exists() else value


def _comments(planned: Planned) -> list[str]:
    assert planned.sheet is not None
    sheet, tests = planned.sheet, planned.values["test_rows"]
    lines = [f"Recommended by `tailor plan`: {planned.values['recommended']}. {_needs(planned.values, sheet.method)}"]
    for reason in planned.values["reasons"]:
        lines += [reason["text"], f"  Source: {reason['source']}", f"  Measured on: {reason['conditions']}"]
        lines.append(f"  Unsure: {reason['uncertainty']}")
    if tests["detectable_points"] is not None:
        lines.append(f"{tests['rows']} test rows show a difference of {tests['detectable_points']} points or more.")
    return [line for long in lines for line in _wrapped(long)]


def _needs(values: dict[str, Any], method: str) -> str:
    own = next(entry for entry in values["methods"] if entry["method"] == method)
    seconds = "" if own["seconds"] is None else f" About {own['seconds']:,.0f} s of training."
    return f"{own['why']}.{seconds}"


def _wrapped(text: str) -> Sequence[str]:
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(text.strip(), WIDTH, initial_indent=f"# {indent}", subsequent_indent=f"# {indent}  ")
