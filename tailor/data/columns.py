"""Recognise what a table of rows is: its form, and which column plays which role in it.

The forms and the words that columns go by are data (`vocabulary`). They are tried in a fixed order on the first rows;
a form is taken when a column of the right name *and* kind is found for every role that it needs. What stays open (no
form at all, or two columns with equal claims) is asked, with the line that answers it.
"""

import difflib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tailor.core.errors import DataError
from tailor.core.examples import Row
from tailor.data import vocabulary as words
from tailor.data.canonical import BUILDERS, Cells, is_missing
from tailor.data.chat import looks_like_messages
from tailor.data.read import IMAGES

SAMPLE = 500
"""How many rows are looked at to recognise the form."""

CLASS_LENGTH = 60
UNIQUE_FROM = 20


@dataclass(frozen=True, slots=True)
class Form:
    """What the rows are.

    Args:
        name: one of the keys of `canonical.BUILDERS`.
        columns: role -> column.
        label: for classification: "class" (a name), "number" or "list" (several names).
        numeric: columns that hold numbers throughout.
    """

    name: str
    columns: Mapping[str, str]
    label: str = ""
    numeric: frozenset[str] = field(default_factory=frozenset)

    def canonical(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row in the form's one shape (see `canonical`).

        Raises:
            RowRefused: a missing or empty value, a wrong type, turns out of order, …
        """
        return BUILDERS[self.name](Cells(values, self.columns, self.label, self.numeric))

    def objective_for(self, base_kind: str) -> str:
        """The objective that this form teaches a base: "causal", "encoder", "encoder-decoder" or "diffusion"."""
        return words.FOR_BASE.get((self.name, base_kind), words.OBJECTIVES[self.name])

    @property
    def problem(self) -> str:
        """For classification: single_label, multi_label or regression."""
        return next((problem for problem, label in words.PROBLEMS.items() if label == self.label), "")


def recognise(rows: Sequence[Row], columns: Mapping[str, str] | None = None, *, objective: str = "") -> Form:
    """The form of a table, from its first rows (about `SAMPLE` of them).

    Args:
        rows: at least one row.
        columns: role -> column, where recognition needs help: any of `vocabulary.ROLES`. `input` and `output` fit
            several forms: an output column of lists, of floats, or of short values that recur (at most half as many
            different ones as rows) is a label; any other is text to be written.
        objective: the objective that the rows are to serve, or a classification problem (single_label, multi_label,
            regression); only forms that can serve it are considered.

    Raises:
        DataError: an unknown role or column; no form fits, or two columns fit equally well. The fix holds the whole
            `--columns` argument, filled in with the best guess.
    """
    survey = _Survey(rows)
    pins = _pins(survey, columns or {})
    group = {"group": pins.pop("group")} if "group" in pins else {}
    problem = objective if objective in words.PROBLEMS else ""
    serves = words.SERVES.get("classification" if problem else objective)
    for least in (0.5, 0.0):  # first by the columns that most rows have, then by any
        for spec in words.SPECS:
            if serves is not None and spec.form not in serves:
                continue
            found = _fit(spec, survey, pins, least, asked=bool(objective))
            if found is None:
                continue
            if not objective and not pins:
                _check_plain_text(spec, survey, found)
            return _form(spec, survey, found | group, pins, serves or {}, problem)
    raise _unrecognised(survey, pins, objective)


def _form(
    spec: words.Spec,
    survey: "_Survey",
    found: Mapping[str, str],
    pins: Mapping[str, str],
    serves: Mapping[str, str],
    problem: str,
) -> Form:
    name = serves.get(spec.form, spec.form)
    if name == "instruction" and ("history" in found or survey.mostly(found.get("prompt", ""), looks_like_messages)):
        name = "chat"
    label = ""
    if name == "classification":
        label = words.PROBLEMS.get(problem) or survey.label_kind(found["label"])
        if label == "class" and not problem and found["label"] not in pins.values():
            _check_recurring(survey, found)
    numeric = frozenset(column for column in found.values() if survey.numeric(column))
    return Form(name, dict(found), label, numeric)


# Roles


def _pins(survey: "_Survey", columns: Mapping[str, str]) -> dict[str, str]:
    """The user's own role -> column, checked."""
    pins = {}
    for role, column in columns.items():
        if role not in words.ROLES and role not in words.ALIASES:
            near = difflib.get_close_matches(role, [*words.ROLES, *words.ALIASES], n=1)
            raise DataError(
                f"there is no role {role!r}",
                where="data.columns",
                fix=(f"did you mean {near[0]}? " if near else "") + f"roles are {', '.join(words.ROLES)}",
                code="unknown_role",
            )
        if column not in survey.columns:
            near = difflib.get_close_matches(column, survey.columns, n=1)
            raise DataError(
                f"the data has no column {column!r}",
                where="data.columns",
                fix=(f"did you mean {near[0]}? " if near else "") + f"columns are {survey.names()}",
                code="unknown_column",
            )
        pins[words.ALIASES.get(role, role)] = column
    return pins


def _fit(
    spec: words.Spec, survey: "_Survey", pins: Mapping[str, str], least: float, *, asked: bool
) -> dict[str, str] | None:
    """Role -> column if the rows can be of this form, else None."""
    found = _translate(pins, spec)
    if found is None:
        return None
    output = pins.get("output")
    if output is not None and not asked and survey.is_label(output) != (spec.form == "classification"):
        return None
    for role, names in spec.required.items():
        if role not in found:
            column = survey.find(role, names, set(found.values()), least)
            if column is None:
                return None
            found[role] = column
    for role, names in spec.optional.items():
        column = None if role in found else survey.find(role, names, set(found.values()), 0.0)
        if column is not None:
            found[role] = column
    return found


def _translate(pins: Mapping[str, str], spec: words.Spec) -> dict[str, str] | None:
    """The user's roles in the words of one form; None where the form has no such role."""
    known = {*spec.required, *spec.optional}
    side = words.INPUT_ROLE.get(spec.form)
    found = {role: column for role, column in pins.items() if role in known and role != "input"}
    for role, column in pins.items():
        if role in found:
            continue
        if role in {"input", "text", "prompt", "source"} and side and side not in found:
            found[side] = column
        elif role == "output" and spec.form in words.OUTPUT_ROLE:
            found[words.OUTPUT_ROLE[spec.form]] = column
        elif role in known:
            found[role] = column
        else:
            return None
    return found


# What can be seen of a column


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _is_prompt(value: Any) -> bool:
    return _is_text(value) or looks_like_messages(value) or (isinstance(value, Mapping) and "messages" in value)


def _is_answer(value: Any) -> bool:
    return _is_prompt(value) or isinstance(value, Mapping)


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int) for item in value)
    return _is_scalar(value) and len(str(value)) <= 2 * CLASS_LENGTH


def _is_options(value: Any) -> bool:
    if isinstance(value, Mapping):
        return len(value) > 1
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(one, str | int | float | Mapping) for one in value)
    )


def _is_spans(value: Any) -> bool:
    spans = value if isinstance(value, list) else [value]
    return all(isinstance(span, Mapping) and "answer_start" in span and "text" in span for span in spans)


def _is_strings(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


KINDS: dict[str, Callable[[Any], bool]] = {
    "messages": looks_like_messages,
    "prompt": _is_prompt,
    "completion": lambda value: _is_prompt(value) or _is_number(value),
    "chosen": _is_answer,
    "rejected": _is_answer,
    "negative": _is_strings,
    "source": _is_strings,
    "target": _is_strings,
    "tokens": lambda value: isinstance(value, list) and len(value) > 0 and all(map(_is_text, value)),
    "tags": lambda value: isinstance(value, list) and len(value) > 0 and all(map(_is_scalar, value)),
    "answers": _is_spans,
    "options": _is_options,
    "answer": _is_scalar,
    "label": _is_label,
    "tools": lambda value: isinstance(value, str | list),
    "history": lambda value: isinstance(value, list),
    "wanted": lambda value: isinstance(value, bool),
    "media": lambda value: isinstance(value, str | list),
    "image": lambda value: _is_text(value) and value.casefold().endswith(tuple(IMAGES)),
}
"""Role -> what its column must hold in most rows; a text for every other role."""

_NUMBER_OF = {"id", "idx", "index", "url", "date", "time", "length", "count"}


class _Survey:
    """The columns of some rows, with the values that are not missing."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = len(rows)
        self.file = rows[0].origin.file
        self.columns: dict[str, list[Any]] = {}
        for row in rows:
            for column, value in row.values.items():
                present = self.columns.setdefault(str(column), [])
                if not is_missing(value):
                    present.append(value)

    @cached_property
    def plain(self) -> dict[str, str]:
        """Column -> its name in lower case with `_` between words."""
        spaced = {column: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column) for column in self.columns}
        return {column: re.sub(r"\W+", "_", name.casefold()).strip("_") for column, name in spaced.items()}

    def names(self) -> str:
        shown = [repr(column) if " " in column or "," in column else column for column in self.columns]
        return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")

    def mostly(self, column: str, holds: Callable[[Any], bool]) -> bool:
        values = self.columns.get(column, [])
        return bool(values) and sum(map(holds, values)) * 2 >= len(values)

    def numeric(self, column: str) -> bool:
        return bool(self.columns[column]) and all(map(_is_number, self.columns[column]))

    def find(self, role: str, names: Sequence[str], taken: set[str], least: float) -> str | None:
        """The column that plays a role: by its exact name, else by a part of it; of the right kind, often filled."""
        kind = KINDS.get(role, _is_text)
        fits = [
            column
            for column, values in self.columns.items()
            if column not in taken and len(values) >= least * self.rows and self.mostly(column, kind)
        ]
        exact = [column for name in names for column in fits if self.plain[column] == name]
        decisive = [column for column in exact if self.plain[column] in words.DECISIVE]
        affix = (
            [column for name in names for column in fits if self._part(column, name)] if role in words.BY_AFFIX else []
        )
        for tier in (decisive, exact, list(dict.fromkeys(affix))):
            if len(tier) > 1 and role == "label" and tier is not decisive:
                raise self._ambiguous(tier, taken)
            if tier:
                return tier[0]
        return None

    def _part(self, column: str, name: str) -> bool:
        plain = self.plain[column]
        counts = plain.rpartition("_")[2] not in _NUMBER_OF
        return counts and (plain.startswith(f"{name}_") or plain.endswith(f"_{name}"))

    def _ambiguous(self, candidates: Sequence[str], taken: set[str]) -> DataError:
        text = next(iter(taken), "")
        return DataError(
            f"several columns could be the label: {', '.join(candidates)}",
            where=self.file,
            fix=f"say which: {columns_argument({'text': text, 'label': candidates[0]})}",
            code="ambiguous_columns",
        )

    def is_label(self, column: str) -> bool:
        """Whether an output column is something to choose (or a number to predict), not something to write."""
        kind = self.label_kind(column) if self.mostly(column, _is_label) else ""
        return kind in {"list", "number"} or self.is_class(column)

    def is_class(self, column: str) -> bool:
        """Few short values that recur: at most half as many as there are rows."""
        values = self.columns[column]
        if not values or not all(_is_scalar(value) for value in values):
            return False
        texts = {str(value) for value in values}
        short = all(len(text) <= CLASS_LENGTH and "\n" not in text for text in texts)
        return short and len(texts) * 2 <= len(values)

    def label_kind(self, column: str) -> str:
        """ "list" for lists; "number" for floats, or texts that are all numbers with a point; else "class"."""
        values = self.columns[column]
        if self.mostly(column, lambda value: isinstance(value, list)):
            return "list"
        if any(isinstance(value, float) for value in values):
            return "number"
        texts = [value for value in values if isinstance(value, str)]
        pointed = bool(texts) and any("." in text for text in texts) and all(map(_spells_number, texts))
        return "number" if pointed else "class"


def _spells_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Questions back


def columns_argument(columns: Mapping[str, str]) -> str:
    """`--columns role=column,…`, quoted for a shell; as a recipe has it where a column's name holds a comma."""
    if any("," in column for column in columns.values()):
        return f"data.columns: {json.dumps(dict(columns), ensure_ascii=False)} in a recipe"
    return "--columns " + shlex.quote(",".join(f"{role}={column}" for role, column in columns.items()))


def _check_recurring(survey: _Survey, found: Mapping[str, str]) -> None:
    """A label that never recurs cannot be learned as one: ask before fitting a class per row."""
    values = [str(value) for value in survey.columns[found["label"]]]
    if len(values) < UNIQUE_FROM or len(set(values)) < len(values):
        return
    write = columns_argument({"prompt": found["text"], "completion": found["label"]})
    raise DataError(
        f"{found['label']!r} is named like a label, but no value of it occurs twice in {len(values)} rows",
        where=survey.file,
        fix=f"to learn to write it: {write}; to take it as a label all the same: "
        + columns_argument({"text": found["text"], "label": found["label"]}),
        code="ambiguous_columns",
    )


def _check_plain_text(spec: words.Spec, survey: _Survey, found: Mapping[str, str]) -> None:
    """A text beside a column that may be its label or its answer: raw text only if the user says so."""
    if spec.form != "text":
        return
    _check_no_empty_label(survey)
    text = found["text"]
    others = _classes(survey) + ([] if survey.plain[text] in words.DECISIVE else _other_texts(survey))
    other = next((column for column in others if column != text), None)
    if other is None:
        return
    raise DataError(
        f"is {text!r} raw text to learn, or does {other!r} belong to it as label or answer?",
        where=survey.file,
        fix=f"{columns_argument({'input': text, 'output': other})} for both, "
        f"{columns_argument({'text': text})} for raw text",
        code="ambiguous_columns",
    )


def _check_no_empty_label(survey: _Survey) -> None:
    """A label column that holds nothing would turn labelled rows into raw text without a word."""
    empty = next(
        (name for name, values in survey.columns.items() if not values and survey.plain[name] in words.LABEL), None
    )
    if empty is None:
        return
    text = next(name for name, values in survey.columns.items() if values)
    raise DataError(
        f"the column {empty!r} is named like a label and holds nothing in the first {survey.rows} rows",
        where=survey.file,
        fix=f"fill it in, or leave it out; {columns_argument({'text': text})} takes the rows as raw text",
        code="empty_label",
    )


def _other_texts(survey: _Survey) -> list[str]:
    known = words.METADATA | set(words.TEXT)
    return [
        column for column in survey.columns if survey.mostly(column, _is_text) and survey.plain[column] not in known
    ]


def _classes(survey: _Survey) -> list[str]:
    """Columns that look like a label and not like a record of where the row came from."""
    return [
        column
        for column in survey.columns
        if survey.is_class(column)
        and len(set(map(str, survey.columns[column]))) > 1
        and not {survey.plain[column], survey.plain[column].rpartition("_")[2]} & words.METADATA
    ]


def _unrecognised(survey: _Survey, pins: Mapping[str, str], objective: str) -> DataError:
    wanted = f" for the objective {objective}" if objective else ""
    given = f" with {', '.join(f'{role}={column}' for role, column in pins.items())}" if pins else ""
    return DataError(
        f"cannot tell what the columns mean{wanted}{given}: {survey.names()}",
        where=survey.file,
        fix=f"say which is which, for example {columns_argument(_guess(survey) | dict(pins))}",
        code="unrecognised_columns",
    )


def _guess(survey: _Survey) -> dict[str, str]:
    """Turns as messages; else the longest text and what looks like its label; else the two longest texts in order."""
    turns = next((column for column in survey.columns if survey.mostly(column, looks_like_messages)), None)
    if turns is not None:
        return {"messages": turns}

    def length(column: str) -> float:
        values = survey.columns[column]
        return sum(len(str(value)) for value in values) / max(len(values), 1)

    texts = [column for column in survey.columns if survey.mostly(column, _is_text)]
    told = [column for column in texts if survey.plain[column] not in words.METADATA] or texts
    long = sorted(told, key=length, reverse=True)[:2]
    labels = [column for column in _classes(survey) if column not in long[:1]]
    if labels and long:
        return {"input": long[0], "output": labels[0]}
    if len(long) == 2:
        return dict(zip(("input", "output"), sorted(long, key=texts.index), strict=True))
    return {"text": (long or list(survey.columns) or ["COLUMN"])[0]}
