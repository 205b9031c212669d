"""What a model will learn from data: the JSON answer of `tailor check`, and a run's data_report.json."""

from collections import Counter
from dataclasses import asdict
from itertools import islice
from typing import Any

from tailor.bases.chat import Segment
from tailor.compose import Prepared, prepare
from tailor.core.examples import Conversation, Labelled, Preference, Text
from tailor.data.load import Loaded
from tailor.data.quality.examine import Embed
from tailor.engine.encoding import ASKED_FOR, Refusal
from tailor.recipe.recipe import Recipe
from tailor.verbs.frozen_features import embedder
from tailor.verbs.preview import as_stopping


def data_report(prepared: Prepared) -> dict[str, Any]:
    """Form, counts, trained tokens by role, stop token and truncation: rows in = rows used + rows refused, by reason."""
    report = prepared.loaded.report.as_dict()
    own = {name for name in ("dev", "test") if name in report["held_out"]}
    drawn = [refusal for name, split in prepared.splits.items() if name not in own for refusal in split.refused]
    _move(report["rows"], drawn)
    for name in own:
        _move(report["held_out"][name], prepared.splits[name].refused)
    train = prepared.splits["train"]
    report["objective"] = prepared.objective.name
    report["tokens"] = {
        "total": sum(split.tokens for split in prepared.splits.values()),
        "trained": sum(sum(split.trained.values()) for split in prepared.splits.values()),
        "by_role": _added(prepared),
        "replayed": train.replayed,
        "per_byte": _per_byte(prepared),
    }
    report["longest"] = train.store.longest()
    report["truncated"] = {
        "rows": sum(split.truncated for split in prepared.splits.values()),
        "tokens": sum(split.truncated_tokens for split in prepared.splits.values()),
    }
    report["stop_token"] = _stop_token(prepared)
    report["problems"] = [*report["problems"], *_problems(prepared, report)]
    report["label_noise"] = []
    return report


def _move(rows: dict[str, Any], refused: list[Refusal]) -> None:
    rows["used"] -= len(refused)
    rows["refused"] = dict(Counter(rows["refused"]) + Counter(refusal.reason for refusal in refused))


def _per_byte(prepared: Prepared) -> float | None:
    """Tokens for each UTF-8 byte of raw text: how well the tokenizer fits the domain; None for other data."""
    if prepared.objective.example is not Text:
        return None
    size = sum(len(entry.row["text"].encode()) for entry in prepared.table("train"))
    return prepared.splits["train"].tokens / max(1, size)


def _added(prepared: Prepared) -> dict[str, int]:
    total: dict[str, int] = {}
    for split in prepared.splits.values():
        for role, count in split.trained.items():
            total[role] = total.get(role, 0) + count
    return total


def _stop_token(prepared: Prepared) -> dict[str, Any] | None:
    """What ends an assistant's turn and whether it is learned; None where there are no turns."""
    if not prepared.objective.turns:
        return None
    stop = prepared.base.chat.stop_token()
    return {"text": stop.text, "labelled": stop.labelled}


def _problem(severity: str, code: str, message: str, refusal: Refusal | None = None, count: int = 1) -> dict[str, Any]:
    where = {"file": refusal.origin.file, "line": refusal.origin.line} if refusal else {"file": None, "line": None}
    return {"severity": severity, "code": code, "message": message, **where, "count": count}


def _problems(prepared: Prepared, report: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    if prepared.objective.turns:
        found += [_problem("warning", "template", text) for text in prepared.base.chat.warnings]
    cut = report["truncated"]
    if cut["rows"]:
        text = f"{cut['rows']} rows are cut to {prepared.base.limit} tokens: {cut['tokens']} tokens are lost"
        found.append(_problem("warning", "truncated", text, count=cut["rows"]))
    by_reason: dict[str, list[Refusal]] = {}
    for split in prepared.splits.values():
        for refusal in split.refused:
            by_reason.setdefault(refusal.reason, []).append(refusal)
    for reason, refused in by_reason.items():
        severity = "info" if reason in ASKED_FOR else "warning"
        rows = "1 row is" if len(refused) == 1 else f"{len(refused)} rows are"
        text = f"{rows} left out ({reason}): {refused[0].message}"
        found.append(_problem(severity, reason, text, refused[0], len(refused)))
    return found


def check(recipe: Recipe) -> tuple[dict[str, Any], Loaded, Embed | None]:
    """The report on a recipe's data, the data, and the base's features of texts, where it has any.

    Rows that cannot be used are errors here, since they would stop `fit`.
    """
    prepared = prepare(recipe)
    report = data_report(prepared)
    refused = {
        *report["rows"]["refused"],
        *(key for counts in report["held_out"].values() for key in counts["refused"]),
    }
    report["lengths"] = _lengths(prepared)
    report["problems"] = as_stopping(report["problems"], refused)
    return report, prepared.loaded, embedder(prepared.base)


def _lengths(prepared: Prepared) -> dict[str, Any]:
    """Tokens of the rows to train on, after truncation, against what a row may have."""
    lengths = sorted(prepared.splits["train"].store.lengths())
    found = {f"p{share}": lengths[min(len(lengths) - 1, len(lengths) * share // 100)] for share in (50, 90, 99, 100)}
    return {**found, "limit": prepared.base.limit, "context": prepared.base.context}


def examples(recipe: Recipe, count: int) -> list[list[dict[str, Any]]]:
    """The first examples as a model sees them: segments of text, each trained or not."""
    prepared = prepare(recipe)
    shown = []
    for example, _ in islice(prepared.held("train"), count):
        shown.append([asdict(segment) for segment in _segments(prepared, prepared.objective.led(example))])
    return shown


def _segments(prepared: Prepared, example: Any) -> Any:
    if isinstance(example, Conversation):
        return prepared.base.chat.render(example)
    if isinstance(example, Preference):
        chosen, rejected = (prepared.base.chat.render(side) for side in example.sides)
        return [*chosen, Segment("\n", (), False), *rejected]
    if isinstance(example, Labelled):
        return [Segment("\n".join(example.texts), (), False), Segment(str(example.label), (), True)]
    if isinstance(example, Text):
        return [Segment(example.text, (), True)]
    return [Segment(example.shown, (), False)]
