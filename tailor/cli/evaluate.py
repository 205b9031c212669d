"""`tailor evaluate`."""

import operator
import re
from typing import Annotated, Any

import typer

from tailor import api
from tailor.cli.output import Answer, face
from tailor.core.errors import RecipeError
from tailor.evaluation.votes import judged_sentence
from tailor.evaluation.wording import named, verdict_sentence

FEWEST_POINTS = 2
"""A bound from here on is a number of points: a share of 1 is never that large, and nobody asks for one point."""
COMPARISONS = {">=": operator.ge, "<=": operator.le}


def evaluate(
    model: Annotated[str, typer.Argument(help="Run folder, base, adapter or merged folder, URL#MODEL or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="evaluate.KEY=VALUE, as in a recipe.")] = None,
    data: Annotated[str | None, typer.Option(help="Held-out rows; a run's own test split by default.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with this model, or recorded answers (.jsonl); by default the base.")
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Points within which it counts as not worse.")] = None,
    require: Annotated[str | None, typer.Option(help="METRIC>=X: exit 1 where it does not hold.")] = None,
) -> Answer:
    """Measure a model against its base (or another) with intervals."""
    requirement = _parsed(require) if require else None
    evaluation = api.evaluate(
        model, data=data, against=against, margin=margin, overrides=overrides or (), reporter=face.reporter
    )
    lines = []
    for task in evaluation["tasks"].values():
        lines += [verdict_sentence(task), f"verdict: {task['verdict'].replace('_', ' ')}"]
        if "non_inferior" in task:
            shown = "shown" if task["non_inferior"] else "not shown"
            lines.append(f"within {task['margin_points']:g} points: {shown}")
        if judged := task.get("judge"):
            lines.append(f"judged by {judged['model']}: {judged_sentence(judged)}")
    met = _met(evaluation, *requirement) if requirement else True
    if require:
        lines.append(f"required {require}: {'met' if met else 'NOT met'}")
    return Answer(evaluation, "\n".join(lines or ["no test rows, so nothing was measured"]), 0 if met else 1)


def _parsed(require: str) -> tuple[str, str, float]:
    """Metric, sign and bound, read before the test split is opened: of a metric that is shown in per cent also as these."""
    found = re.fullmatch(r"\s*([\w.:/&\s-]+?)\s*(>=|<=)\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(%?)\s*", require)
    if found is None:
        raise RecipeError(f"{require!r} is no requirement", where="--require", fix="e.g. --require 'accuracy>=80%'")
    name, sign, text, percent = found.groups()
    bound, share = float(text), named(name)[1] == "share"
    if percent and not share:
        raise RecipeError(f"{name} is not shown in per cent", where="--require", fix=f"--require '{name}{sign}{text}'")
    if not share or (bound < FEWEST_POINTS and not percent):
        return name, sign, bound
    if bound > 100:
        raise RecipeError(
            f"{name} cannot be more than 100 %", where="--require", fix=f"--require '{name}{sign}90%', or a share of 1"
        )
    return name, sign, bound / 100


def _met(evaluation: dict[str, Any], name: str, sign: str, bound: float) -> bool:
    values = [task["metrics"][name]["tuned"] for task in evaluation["tasks"].values() if name in task["metrics"]]
    if not values:
        known = sorted({metric for task in evaluation["tasks"].values() for metric in task["metrics"]})
        raise RecipeError(f"{name} was not measured", where="--require", fix=f"one of: {', '.join(known)}")
    return all(COMPARISONS[sign](value, bound) for value in values)
