"""`tailor generate --data`: a run's answers to rows whose own answers nobody needs to know."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tailor.core.contracts import ExampleSeat
from tailor.core.errors import DataError, RowRefused, RunError, TailorError
from tailor.core.examples import Row
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, made_by, write_text
from tailor.data.columns import Form
from tailor.data.files import BadRow
from tailor.data.read import read
from tailor.data.vocabulary import PROBLEMS
from tailor.evaluation.written import answers_to, asked_of
from tailor.verbs.recorded import ENDING
from tailor.verbs.talk import Model, model_of

AT_ONCE = 256
"""Rows answered between two signs of progress."""
BLANK = "?"
"""What stands where an answer is to come: the form asks for one, and the model never sees it."""
ANSWER_ROLES = ("completion", "target")


def answer_rows(name: str, data: Any, out: Path, limit: int, reporter: Reporter) -> int:
    """Write `{"row", "answer"}` for every row, with `probability` where labels are read off; returns how many.

    The rows have the run's own columns, that of the answer being optional. Raises at the first row that cannot be used.
    """
    if out.suffix != ENDING or out.exists():
        raise TailorError("answers are written to a new file", where=str(out), fix=f"name one that ends in {ENDING}")
    folder = RunFolder.existing(made_by(Path(name)))
    model = model_of(name)
    if model.objective is None or not (model.reads or model.objective.turns):
        raise TailorError("this model neither labels nor answers rows", where=name, fix="use --prompt", code="no_rows")
    form = _form(folder, model)
    held = [(row, _example(row, form, model)) for row in _rows(data)]
    lines = []
    with reporter.progress("answering", -(-len(held) // AT_ONCE)) as progress:
        for start in range(0, len(held), AT_ONCE):
            some = held[start : start + AT_ONCE]
            told = _told([example for _, example in some], model, limit)
            for (row, _), one in zip(some, told, strict=True):
                lines.append(json.dumps({"row": row.values, **one}, ensure_ascii=False, default=str) + "\n")
            progress.advance(f"{len(lines)} of {len(held)} rows")
    write_text(out, "".join(lines))
    return len(lines)


def _rows(data: Any) -> Iterator[Row]:
    for row in read(data):
        if isinstance(row, BadRow):
            raise DataError(row.message, where=str(row.origin), fix="mend this row", code=row.reason)
        yield row


def _form(folder: RunFolder, model: Model) -> Form:
    """What the run's own rows were."""
    report = folder.read("data_report.json")
    if report is None:
        raise RunError("this run has no report on its data", where=str(folder.path), fix="name the whole run's folder")
    problem = getattr(model.objective, "problem", None) or ""
    return Form(report["form"], report["columns"], PROBLEMS.get(problem.removesuffix("_classification"), "class"))


def _example(row: Row, form: Form, model: Model) -> Any:
    try:
        canonical = form.canonical(_filled(row.values, form, model))
        return model.objective.read(canonical, ExampleSeat(str(row.origin), row.origin))
    except RowRefused as refusal:
        fix = f"the run's columns are {', '.join(form.columns.values())}"
        raise DataError(refusal.message, where=str(row.origin), fix=fix, code=refusal.reason) from None


def _filled(values: Mapping[str, Any], form: Form, model: Model) -> dict[str, Any]:
    """A row with a blank where its answer is missing; a conversation is answered where it ends with the user."""
    filled = dict(values)
    for role, column in form.columns.items():
        if role in ANSWER_ROLES and not filled.get(column):
            filled[column] = BLANK
        if role == "label":
            label: Any = {"number": 0.0, "list": [*model.output.labels[:1]]}.get(form.label)
            filled[column] = label if label is not None else next(iter(model.output.labels or model.objective.choices))
        if role == "messages" and isinstance(filled.get(column), list) and filled[column]:
            turns = list(filled[column])
            last = turns[-1].get("role", turns[-1].get("from")) if isinstance(turns[-1], dict) else None
            filled[column] = turns if last not in ("user", "human", "tool") else [*turns, _blank_turn(turns[-1])]
    return filled


def _blank_turn(like: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's turn in the spelling of another one."""
    return {"from": "gpt", "value": BLANK} if "from" in like else {"role": "assistant", "content": BLANK}


def _told(examples: list[Any], model: Model, limit: int) -> list[dict[str, Any]]:
    if model.reads:
        return model.told(examples)
    asked = [asked_of(model.generator, model.objective, example, {}) for example in examples]
    return [{"answer": one.given} for one in answers_to(model.generator, model.objective, asked, limit)]
