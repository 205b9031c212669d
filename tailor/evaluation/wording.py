"""Figures in words: metric titles, units, intervals, and the sentence that tells a task's verdict."""

from collections.abc import Mapping
from typing import Any, Literal

Style = Literal["share", "score", "plain"]
"""How a figure is written: a share of 1 in per cent, a score out of 100, or a bare number."""

TITLES: dict[str, tuple[str, Style]] = {
    "accuracy": ("Accuracy", "share"),
    "macro_f1": ("Macro-F1", "share"),
    "micro_f1": ("Micro-F1", "share"),
    "mcc": ("Matthews correlation", "plain"),
    "exact_match": ("Exact match", "share"),
    "token_f1": ("Token F1", "share"),
    "rouge_l": ("ROUGE-L", "share"),
    "chrf": ("chrF", "score"),
    "bleu": ("BLEU", "score"),
    "entity_f1": ("Entity F1", "share"),
    "word_accuracy": ("Word accuracy", "share"),
    "span_f1": ("Answer F1", "share"),
    "span_exact": ("Exact answers", "share"),
    "ndcg_at_10": ("nDCG@10", "share"),
    "recall_at_1": ("Recall@1", "share"),
    "recall_at_10": ("Recall@10", "share"),
    "mrr": ("Mean reciprocal rank", "share"),
    "pearson": ("Pearson correlation", "plain"),
    "reward_accuracy": ("Preferred answers that gained", "share"),
    "reward_margin": ("Reward margin", "plain"),
    "json_valid": ("Valid JSON", "share"),
    "json_fields": ("Right JSON fields", "share"),
    "tool_call": ("Right tool calls", "share"),
    "loss": ("Loss", "plain"),
    "perplexity": ("Perplexity", "plain"),
    "bits_per_byte": ("Bits per byte", "plain"),
    "subject_drawn": ("Pictures that show the thing itself", "share"),
    "drawn_as_asked": ("Pictures that show what was asked for", "share"),
    "mse": ("Mean squared error", "plain"),
    "r2": ("R²", "plain"),
}
PATTERNS: dict[str, tuple[str, Style]] = {
    "regex": ("Answers that match {}", "share"),
    "max_words": ("Answers of at most {} words", "share"),
    "prompt_following": ("Likeness to the prompt", "plain"),
    "subject_similarity": ("Likeness to the subject", "plain"),
}
BASELINES = {
    "majority": " for the majority guess",
    "mean": " for always guessing the mean",
    "all-O": " for tagging nothing",
    "empty": " for never answering",
    "without_earlier_stages": " without the earlier stages",
    "alone": " for the task trained alone",
    "itself": " for the model itself",
}


def named(metric: str) -> tuple[str, Style]:
    """Title and style of a metric by its name; a user's own scorer is called by its function."""
    if " & " in metric:
        return " × ".join(named(part)[0] for part in metric.split(" & ")), "share"
    prefix, _, argument = metric.partition(":")
    if prefix in PATTERNS:
        title, style = PATTERNS[prefix]
        return title.format(argument), style
    return TITLES.get(metric, (metric.rpartition(":")[2], "plain"))


def number(value: float) -> str:
    """Three significant digits, written in full between a thousandth and a million."""
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    if value == 0 or abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:#.3g}".rstrip(".")


def figure(metric: str, value: float) -> str:
    """A metric's value: `61.2 %`, `34.5`, `2.31`."""
    style = named(metric)[1]
    return f"{100 * value:.1f} %" if style == "share" else f"{value:.1f}" if style == "score" else number(value)


def change(metric: str, delta: float) -> str:
    """A difference with its sign and without unit: `+22.2` points for shares and scores, else in the metric's unit."""
    style = named(metric)[1]
    if style == "plain":
        return ("+" if delta >= 0 else "") + number(delta)
    return f"{(100 if style == 'share' else 1) * delta:+.1f}"


def points(metric: str, delta: float) -> str:
    """A difference with sign and unit: `+22.2 points`, `-0.44`."""
    return change(metric, delta) + ("" if named(metric)[1] == "plain" else " points")


def chance(p_value: float | None) -> str:
    """`p = 0.012`; below a ten-thousandth only that."""
    if p_value is None:
        return "p not known"
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def verdict_sentence(result: Mapping[str, Any]) -> str:
    """A task's entry in `evaluation.json` as one or two sentences: what changed and how sure that is.

    "Accuracy rose from 61.2 % to 83.4 % (+22.2 points, 95 % interval +17.1 to +27.0, p = 0.0001, n = 240)."
    """
    metric, verdict, n = result["primary"], result["verdict"], result["n"]
    entry = result["metrics"][metric]
    title, delta = named(metric)[0], entry["delta"]
    verb = "rose" if delta > 0 else "fell"
    guess = BASELINES.get(result["baseline"], "")
    values = f"from {figure(metric, entry['base'])}{guess} to {figure(metric, entry['tuned'])}"
    low, high = (change(metric, bound) for bound in entry["ci95"])
    proof = f"({points(metric, delta)}, 95 % interval {low} to {high}, {chance(entry['p_value'])}, n = {n})"
    if verdict == "too_few_rows":
        return f"Too few rows to tell: {title} went {values} on {n} test row{'s' * (n != 1)}." + _margin(result)
    if verdict == "no_difference_shown":
        size = result["detectable_difference"]
        limit = f" With this many rows, about {points(metric, size).lstrip('+')} would show." if size else ""
        return f"No difference is shown: {title} went {values} {proof}.{limit}" + _margin(result)
    direction = "" if entry["better"] == "higher" else "; lower is better"
    if verdict == "better":
        return f"{title} {verb} {values} {proof}{direction}."
    return f"Worse than before: {title} {verb} {values} {proof}{direction}." + _margin(result)


def _margin(result: Mapping[str, Any]) -> str:
    """What the margin says, where one was set; better is never worse, so it is left out there."""
    if result.get("non_inferior") is None:
        return ""
    shown = "It is shown" if result["non_inferior"] else "It is not shown"
    return f" {shown} to be less than {result['margin_points']:g} points worse."
