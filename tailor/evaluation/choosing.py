"""Which metrics a task is measured by, and which one decides."""

from collections.abc import Sequence
from typing import Any

from tailor.core.contracts import Answer, Metric, Objective
from tailor.evaluation.scorers import METRICS, auto, resolve
from tailor.recipe.evaluate import EvaluateOptions


def choose_metrics(options: EvaluateOptions, objective: Objective, answers: Sequence[Answer]) -> tuple[list[Any], str]:
    """The metrics of the recipe, or those that suit the answers; the primary one among them, whatever was named.

    Loss stands beside them where every answer has a likelihood: pass the base's and the tuned model's answers together.
    """
    primary, names = chosen_names(options, objective, answers)
    if objective.answers in METRICS["loss"][0] and all(answer.nll is not None for answer in answers):
        names = [*names, "loss"]
    metrics = resolve([primary, *names], labels=objective.output.labels, answers_kind=objective.answers)
    return metrics, metrics[0].name


def chosen_names(options: EvaluateOptions, objective: Objective, answers: Sequence[Answer]) -> tuple[str, list[str]]:
    """The primary metric and all others as a recipe names them; answers that nobody gave yet tell enough."""
    primary, names = auto(objective.name, answers)
    # Of masked tokens loss and perplexity alone: what was not hidden is not predicted, and no byte of it has a likelihood.
    names = [name for name in names if objective.answers in METRICS[name][0]]
    if options.metrics != "auto":
        names = list(options.metrics)
        primary = names[0]
    if options.primary != "auto":
        primary = options.primary
    return primary, names


def deciding(options: EvaluateOptions, objective: Objective, expected: Sequence[Answer]) -> Metric:
    """The primary metric, by the references alone."""
    metrics, primary = choose_metrics(options, objective, expected)
    found: Metric = next(metric for metric in metrics if metric.name == primary)
    return found
