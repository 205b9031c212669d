"""report.html: one page that holds everything a reader asks of a run, with nothing loaded from elsewhere.

The first screen is one sentence, one bar and ten wrong answers; curves, intervals, samples, data, proof, costs, recipe
and provenance follow. Inputs are the plain dicts of the run folder, so a page is made, and tested, without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tailor.core.contracts import Answer, Metric
from tailor.evaluation import wording
from tailor.evaluation.answer_forms import as_text
from tailor.evaluation.compare import paired
from tailor.evaluation.picturing import SHOWN, as_source, is_picture
from tailor.evaluation.slices import of_rows
from tailor.evaluation.votes import judged_sentence

SHOWN_ROWS = 10
CURVE_POINTS = 400
"""More points than a screen has pixels for only make the page heavy."""

VERDICTS = {
    "better": "Better",
    "worse": "Worse",
    "no_difference_shown": "No difference shown",
    "too_few_rows": "Too few rows",
}


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """One task's answers, base and tuned to the same rows in any order, and its primary metric."""

    base: Sequence[Answer]
    tuned: Sequence[Answer]
    metric: Metric


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """What a page is made of; what a run lacks is left out of the page.

    Args:
        summary: the JSON answer of `fit`.
        evaluation: evaluation.json.
        answers: task name to answers.
        metrics: rows of metrics.jsonl; keys that begin with `dev` are drawn beside the loss.
        timing: rows of timing.jsonl.
        data_report: data_report.json.
        proof: proof.json.
        recipe: recipe.yaml, as text.
        prompt: the prompt that a search has found, as its page.
        lock: lock.json.
    """

    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, TaskAnswers] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    timing: Sequence[Mapping[str, Any]] = ()
    data_report: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    prompt: str = ""
    lock: Mapping[str, Any] = field(default_factory=dict)


def with_notice(page: str, text: str) -> str:
    """A finished page with one more sentence on its first screen."""
    from markupsafe import escape

    return page.replace("</header>", f'<p class="note">{escape(text)}</p>\n</header>', 1)


def render_report(inputs: ReportInputs) -> str:
    """The page as HTML text, everything from the data escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"answer": answer_text, "readable": readable}
    names = list(inputs.evaluation.get("tasks", {}))
    return environment.get_template("report.html.jinja").render(
        inputs=inputs,
        summary=inputs.summary,
        tasks=[_task(inputs, name) for name in names],
        curves=_curves(inputs.metrics, inputs.timing),
        forgetting=_forgetting(inputs.evaluation.get("forgetting")),
        data=inputs.data_report,
        data_facts=_data_facts(inputs.data_report),
        proof=flat(inputs.proof),
        costs=flat(inputs.summary.get("train", {})),
        provenance=flat(inputs.lock),
    )


# --- one task: sentence, bar, table, rows ---------------------------------------------------------------------------


def _task(inputs: ReportInputs, name: str) -> dict[str, Any]:
    result = inputs.evaluation["tasks"][name]
    entries: Mapping[str, Mapping[str, Any]] = result["metrics"]
    answers = inputs.answers.get(name)
    return {
        "name": name,
        "verdict": result["verdict"],
        "verdict_title": VERDICTS[result["verdict"]],
        "sentence": _unbroken(wording.verdict_sentence(result)),
        "bar": _bar(result["primary"], entries[result["primary"]], result["baseline"]),
        "table": [_line(metric, entry, metric == result["primary"]) for metric, entry in entries.items()],
        "fields": [
            (key, *(wording.figure("json_fields", share[side]) for side in ("base", "tuned")))
            for key, share in entries.get("json_fields", {}).get("fields", {}).items()
        ],
        "opened": result["opened"],
        "grouped": result.get("group", ""),
        "judge": result.get("judge", {}).get("model", "")
        and f"{result['judge']['model']}: {judged_sentence(result['judge'])}",
        "slices": [_slice(part) for part in result.get("slices", ())],
        "rows": _rows(answers) if answers else None,
        "pictures": _pictures(answers) if answers else [],
    }


def _unbroken(sentence: str) -> str:
    """The sentence with figures and their signs kept on one line."""
    for sign in (" %", " = ", " < "):
        sentence = sentence.replace(sign, sign.replace(" ", "\N{NO-BREAK SPACE}"))
    return sentence


def _line(metric: str, entry: Mapping[str, Any], primary: bool) -> dict[str, Any]:
    """One metric of the table, in words."""
    low, high = (wording.change(metric, bound) for bound in entry["ci95"])
    return {
        "title": wording.named(metric)[0],
        "primary": primary,
        "better": entry["better"],
        "base": wording.figure(metric, entry["base"]),
        "tuned": wording.figure(metric, entry["tuned"]),
        "change": wording.change(metric, entry["delta"]),
        "interval": f"{low} to {high}",
        "chance": wording.chance(entry["p_value"]),
        "n": entry["n"],
    }


def _slice(part: Mapping[str, Any]) -> tuple[str, ...]:
    """One part of the rows, in words."""
    metric = part["metric"]
    sides = (wording.figure(metric, part[side]) for side in ("base", "tuned"))
    interval = " to ".join(wording.change(metric, bound) for bound in part["ci95"])
    return f"{part['by']}: {part['name']}", *sides, wording.change(metric, part["delta"]), interval, str(part["n"])


def _bar(metric: str, entry: Mapping[str, Any], baseline: str) -> dict[str, Any]:
    """Lengths in per cent of the axis. The whisker is the interval of the difference, laid onto the base's value."""
    style = wording.named(metric)[1]
    low, high = (entry["base"] + bound for bound in entry["ci95"])
    top = {"share": 1.0, "score": 100.0}.get(style, 1.1 * max(entry["base"], entry["tuned"], high, 0.0)) or 1.0
    bottom = min(entry["base"], entry["tuned"], low, 0.0) if style == "plain" else 0.0

    def place(value: float) -> float:
        return round(100 * min(max((value - bottom) / (top - bottom), 0.0), 1.0), 2)

    return {
        "title": wording.named(metric)[0],
        "lower_is_better": entry["better"] == "lower",
        "sides": [
            (
                "base" if baseline == "base" else f"{baseline} guess",
                wording.figure(metric, entry["base"]),
                place(entry["base"]),
            ),
            ("tuned", wording.figure(metric, entry["tuned"]), place(entry["tuned"])),
        ],
        "zero": place(0.0),
        "whisker": (place(low), place(high)),
        "ends": [wording.figure(metric, end).replace(".0", "") for end in (bottom, top)],
        "interval": " to ".join(wording.change(metric, bound) for bound in entry["ci95"]),
    }


def _rows(answers: TaskAnswers) -> dict[str, Any]:
    """The worst answers of the tuned model, some in order, and how rows moved between right and wrong."""
    metric = answers.metric
    by_row = of_rows(metric)
    sides = paired(answers.base, answers.tuned, metric)[:2]
    base, tuned = (by_row.value(by_row.statistics(side)) for side in sides)
    counted = by_row.better == "higher"
    best = 1.0 if by_row.points == 100 else 100.0
    wrong = tuned < best - 1e-9 if counted else np.ones(len(tuned), dtype=bool)
    right_before = base >= best - 1e-9 if counted else np.zeros(len(base), dtype=bool)
    # Worst first; among equals those that the base had right, because they were broken.
    badness = -tuned if counted else tuned
    order = sorted(np.flatnonzero(wrong).tolist(), key=lambda i: (-badness[i], not right_before[i], i))
    pairs = list(zip(*sides, strict=True))
    return {
        "worst": [
            (*pairs[i], "was right" if right_before[i] else "", metric.details(pairs[i][1])) for i in order[:SHOWN_ROWS]
        ],
        "samples": [(*pair, "", "") for pair in pairs[:SHOWN_ROWS]],
        "regressed": [(*pairs[i], "was right", metric.details(pairs[i][1])) for i in order if right_before[i]][
            :SHOWN_ROWS
        ],
        "counted": counted,
        "n": len(pairs),
        "wrong": int(wrong.sum()),
        "mended": int((~wrong & ~right_before).sum()),
        "broken": int((wrong & right_before).sum()),
        "cut": sum(answer.cut for answer in answers.tuned),
    }


def _pictures(answers: TaskAnswers) -> list[tuple[str, str, str]]:
    """Prompts with what base and tuned model draw for them from the same seed."""
    base, tuned = paired(answers.base, answers.tuned, answers.metric)[:2]
    both = [pair for pair in zip(base, tuned, strict=True) if all(is_picture(side.given) for side in pair)]
    return [(one.prompt, as_source(one.given), as_source(other.given)) for one, other in both[:SHOWN]]


def answer_text(answer: Answer) -> str:
    """A given answer for a reader; for raw text, how well it was predicted."""
    if is_picture(answer.given):
        return "(a picture)" + (f" loss {answer.nll / answer.tokens:.3f}" if answer.nll and answer.tokens else "")
    if answer.given is not None:
        return readable(answer.given)
    if answer.expected is None and answer.nll is not None and answer.tokens:
        return f"loss {answer.nll / answer.tokens:.3f} per token over {answer.tokens} tokens"
    return "(no answer)"


def readable(value: Any) -> str:
    """A reference or an answer of any kind as text: labels by commas, calls and objects as JSON."""
    if isinstance(value, list | tuple | frozenset | set) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "(none)"
    if isinstance(value, float):
        return wording.number(value)
    return as_text(value) or "(empty)"


def _forgetting(entry: Mapping[str, Any] | None) -> str:
    """What became of what the base could do before, in words; empty where it was not measured."""
    if not entry:
        return ""
    if metric := entry.get("metric"):
        title, sides = wording.named(metric)[0], [wording.figure(metric, entry[side]) for side in ("base", "tuned")]
        change = wording.points(metric, entry["delta"])
        return (
            f"On {entry['n']} rows of what the base could do before, {title} went from {' to '.join(sides)} ({change})."
        )
    values = f"{wording.number(entry['base'])} to {wording.number(entry['tuned'])}"
    return f"Loss on general text went from {values} ({wording.change('loss', entry['delta'])}); lower is better."


def _data_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The data report's counts; its long lists stay in data_report.json."""
    kept = ("form", "objective", "rows", "tokens", "stop_token", "duplicates", "leakage")
    parts = {key: report[key] for key in kept if key in report}
    return [row for row in flat(parts) if row[0] != spoken("leakage.pairs")]


# --- curves ---------------------------------------------------------------------------------------------------------


def _curves(metrics: Sequence[Mapping[str, Any]], timing: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The charts that have something to show: losses together, every other dev figure and the speed on their own."""
    dev = sorted({key for row in metrics for key in row if key.startswith("dev")})
    losses = ["loss", *(key for key in dev if key.endswith("loss"))]
    charts = [("Loss", metrics, losses), *((spoken(key), metrics, [key]) for key in dev if key not in losses)]
    charts.append(("Tokens per second", timing, ["tokens_per_second"]))
    return [chart for chart in (_curve(*parts) for parts in charts) if chart]


def _curve(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any] | None:
    """One chart as polylines in a box of 1000 x 300, y downwards; None with fewer than two points."""
    series = {key: points for key in keys if len(points := _finite_points(rows, key)) >= 1}
    everything = np.concatenate([*series.values(), np.empty((0, 2))])
    if len(everything) < 2:
        return None
    (first, low), (last, high) = everything.min(0), everything.max(0)
    span = np.array([last - first or 1.0, high - low or 1.0])
    lines = []
    for key, points in series.items():
        kept = points[np.unique(np.linspace(0, len(points) - 1, CURVE_POINTS).round().astype(int))]
        places = (kept - [first, low]) / span * [1000, -280] + [0, 290]
        lines.append(
            (spoken(key), " ".join(f"{x:.1f},{y:.1f}" for x, y in places), wording.number(float(points[-1, 1])))
        )
    return {
        "title": title,
        "lines": lines,
        "y": (wording.number(float(high)), wording.number(float(low))),
        "x": (int(first), int(last)),
    }


def _finite_points(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(step, value) of the rows that have a finite value."""
    found = [(float(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
    points = np.array(found, dtype=np.float64).reshape(-1, 2)
    return points[np.isfinite(points[:, 1])]


# --- words for dicts ------------------------------------------------------------------------------------------------


def spoken(key: str) -> str:
    """`peak_memory_bytes` -> `Peak memory`: the unit goes to the value."""
    text = key.removesuffix("_bytes").replace("_", " ").replace(".", " › ")
    return text[:1].upper() + text[1:]


def quantity(key: str, value: Any) -> str:
    """A value with the unit that its key names."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not known"
    if not isinstance(value, int | float):
        return readable(value)
    if key.endswith("bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if key.endswith("seconds"):
        minutes, seconds = divmod(round(value), 60)
        return (
            f"{minutes // 60} h {minutes % 60} min"
            if minutes >= 60
            else f"{minutes} min {seconds} s"
            if minutes
            else f"{value:.1f} s"
        )
    if key.endswith("share"):
        return f"{100 * value:.2f} %"
    return f"{value:,}" if isinstance(value, int) else wording.number(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested dicts as rows of (spoken key, value with unit); lists of more than texts stay JSON."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{path}.")
        else:
            rows.append((spoken(path), quantity(path, value)))
    return rows
