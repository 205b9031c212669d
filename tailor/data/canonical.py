"""A row of each form in the one shape that objectives read.

| form | canonical row |
|---|---|
| chat | `{"messages": [message, …], "tools": [tool, …]}` (see `chat`) |
| instruction, source_target | `{"prompt", "completion", "system"?, "references"?}` |
| text | `{"text"}` |
| classification | `{"texts": [one or two], "label": name, number or list of names}` |
| multiple_choice | `{"question", "options": [texts], "answer": place of the right one, from 0}` |
| tagging | `{"tokens": […], "tags": […]}` |
| span_qa | `{"context", "question", "answers": {"text": […], "answer_start": […]}}` |
| preference | `{"prompt", "chosen", "rejected", "tools"?}`, each a text or a list of messages |
| pairs | `{"anchor", "positive", "negatives": […]}` |
| scored_pairs | `{"anchor", "positive", "score": number}` |
| images | `{"image": path, "caption": text or None}` |
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailor.core.errors import refuse
from tailor.data import chat

Canonical = dict[str, Any]


def is_missing(value: Any) -> bool:
    """None, NaN, or an empty cell: what a table holds where nothing was written."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


@dataclass(frozen=True, slots=True)
class Cells:
    """One row's cells by role, refusing what is missing or of the wrong type.

    Args:
        values: the row.
        columns: role -> column.
        label: what the label is: "class", "number" or "list".
        numeric: columns that hold numbers throughout; where a text is wanted, they are written out.
    """

    values: Mapping[str, Any]
    columns: Mapping[str, str]
    label: str
    numeric: frozenset[str]

    def get(self, role: str) -> Any:
        """The cell, or None where the form has no such column or the row no such value."""
        value = self.values.get(self.columns.get(role, ""))
        return None if is_missing(value) else value

    def need(self, role: str) -> Any:
        column = self.columns[role]
        value = self.values.get(column)
        if column not in self.values:
            there = ", ".join(str(name) for name in self.values) or "none"
            raise refuse("missing_column", f"there is no {column!r} (the row has: {there})")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise refuse("missing_value", f"{column!r} has no value")
        return value

    def text(self, role: str) -> str:
        """A text with something in it."""
        value = self.need(role)
        text = value if isinstance(value, str) else self._written(role, value)
        if not text.strip():
            raise refuse("empty_text", f"{self.columns[role]!r} is empty")
        return text

    def optional_text(self, role: str) -> str:
        return "" if self.get(role) is None else self.text(role) if str(self.get(role)).strip() else ""

    def texts(self, role: str) -> list[str]:
        """A text, or a list of them."""
        value = self.need(role)
        if not isinstance(value, list):
            return [self.text(role)]
        if not value or not all(isinstance(item, str) for item in value) or not any(item.strip() for item in value):
            raise refuse("wrong_type", f"{self.columns[role]!r} is a list without texts")
        return [item for item in value if item.strip()]

    def _written(self, role: str, value: Any) -> str:
        column = self.columns[role]
        if column in self.numeric and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise refuse("wrong_type", f"{column!r} holds {describe(value)}, where a text should stand")


def describe(value: Any) -> str:
    """What kind of thing a cell holds, in words."""
    kinds = (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "a text"),
        (list, "a list"),
        (Mapping, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a {type(value).__name__}")


def _chat(cells: Cells) -> Canonical:
    _refuse_unwanted(cells)
    system = cells.optional_text("system")
    if "messages" in cells.columns:
        turns = chat.messages(cells.need("messages"), system=system)
    else:
        turns = _joined_turns(cells, system)
    chat.check_order(turns)
    return {"messages": turns, "tools": chat.tools(cells.get("tools"))}


def _joined_turns(cells: Cells, system: str) -> list[chat.Message]:
    """A conversation that stands in several columns: earlier rounds, a prompt and its completion."""
    rounds = cells.get("history") or []
    if not isinstance(rounds, list) or not all(isinstance(item, list) and len(item) == 2 for item in rounds):
        raise refuse("wrong_type", f"{cells.columns['history']!r} is no list of [question, answer]")
    turns = [_turn(role, text) for item in rounds for role, text in zip(("user", "assistant"), item, strict=True)]
    asked, answered = _turns_or_text(cells, "prompt", "user"), _turns_or_text(cells, "completion", "assistant")
    if not isinstance(cells.need("prompt"), str):
        # What the prompt's own assistant turns say is given, not learned: the completion alone is.
        asked = [turn | {"weight": 0.0} if turn["role"] == "assistant" else turn for turn in asked]
    return chat.messages([*turns, *asked, *answered], system=system)


def _turn(role: str, text: Any) -> chat.Message:
    return {"role": role, "content": text}


def _turns_or_text(cells: Cells, role: str, speaker: str) -> list[chat.Message]:
    value = cells.need(role)
    if isinstance(value, str) and not chat.looks_like_messages(value):
        return [_turn(speaker, _prompt(cells) if role == "prompt" else cells.text(role))]
    return chat.messages(value)


def _prompt(cells: Cells) -> str:
    """The instruction, with the input that it is about below it where there is one."""
    more = cells.optional_text("input")
    return f"{cells.text('prompt')}\n\n{more}" if more else cells.text("prompt")


def _refuse_unwanted(cells: Cells) -> None:
    if cells.get("wanted") is False:
        raise refuse("unwanted_answer", f"{cells.columns['wanted']!r} is false: an answer to avoid cannot be imitated")
    if cells.get("media"):
        raise refuse("not_text", f"{cells.columns['media']!r} is not empty: only text can be learned here")


def _instruction(cells: Cells) -> Canonical:
    if {"context", "question", "answers"} <= cells.columns.keys():
        return _asked_span(cells)
    _refuse_unwanted(cells)
    thinking, completion = chat.split_thinking(cells.text("completion"))
    row = {"prompt": _prompt(cells), "completion": completion}
    more = {"system": cells.optional_text("system"), "thinking": thinking}
    return row | {key: value for key, value in more.items() if value}


def _source_target(cells: Cells) -> Canonical:
    """A list as the source is its sentences; a list as the target is alternative references, the first one learned."""
    references = cells.texts("target")
    row: Canonical = {"prompt": " ".join(cells.texts("source")), "completion": references[0]}
    return row | {"references": references} if len(references) > 1 else row


UNANSWERABLE = "unanswerable"
"""What a base that writes its answers says where the context holds none."""


def _asked_span(cells: Cells) -> Canonical:
    """A question about a context, to be answered in words."""
    row = _span_qa(cells)
    answers = list(dict.fromkeys(row["answers"]["text"])) or [UNANSWERABLE]
    asked: Canonical = {"prompt": f"{row['context']}\n\n{row['question']}", "completion": answers[0]}
    return asked | {"references": answers} if len(answers) > 1 else asked


def _text(cells: Cells) -> Canonical:
    return {"text": cells.text("text")}


def _classification(cells: Cells) -> Canonical:
    texts = [cells.text(role) for role in ("text", "text2") if role in cells.columns]
    if cells.label == "list" and cells.get("label") is None:
        column = cells.columns["label"]
        raise refuse("missing_value", f"{column!r} has no value (write [] where no label applies)")
    return {"texts": texts, "label": LABELS[cells.label](cells.need("label"), cells.columns["label"])}


def class_name(value: Any, column: str) -> str:
    """A label as its name: 3 is "3", 3.0 too, true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise refuse("wrong_type", f"{column!r} holds {describe(value)}, where one label should stand")
    name = str(value).strip()
    if not name or name in {"nan", "NaN"}:
        raise refuse("missing_value", f"{column!r} has no value")
    return name


def _number(value: Any, column: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if is_missing(value) or not math.isfinite(number):
        raise refuse(
            "missing_value" if is_missing(value) else "wrong_type", f"{column!r} holds {value!r}, not a number"
        )
    return number


_SEPARATORS = re.compile(r"[;|]")


def _class_names(value: Any, column: str) -> list[str]:
    items = _SEPARATORS.split(value) if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise refuse("wrong_type", f"{column!r} holds {describe(value)}, where a list of labels should stand")
    return list(dict.fromkeys(class_name(item, column) for item in items if not is_missing(item)))


LABELS: dict[str, Callable[[Any, str], Any]] = {"class": class_name, "number": _number, "list": _class_names}


def _multiple_choice(cells: Cells) -> Canonical:
    """A question, with the context that it is about above it, and the options that it has itself."""
    names, texts = _options(cells)
    context, question = cells.optional_text("context"), cells.text("question")
    asked = f"{context}\n\n{question}" if context else question
    return {"question": asked, "options": texts, "answer": _right_option(cells, names, texts)}


def _options(cells: Cells) -> tuple[list[str], list[str]]:
    """What the options are called, where the data says so, and their texts: `["a", "b"]`, `{"A": "a", "B": "b"}`,
    `{"label": ["A", "B"], "text": ["a", "b"]}` or `[{"label": "A", "text": "a"}, …]`."""
    value, column = cells.need("options"), cells.columns["options"]
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        value = {key: [one.get(key) for one in value] for key in ("label", "text")}
    names: list[Any] = []
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        names, value = value.get("label") or [], value["text"]
    elif isinstance(value, Mapping):
        names, value = list(value), list(value.values())
    told = isinstance(value, list) and all(isinstance(one, str | int | float) and str(one).strip() for one in value)
    if not told or len(value) < 2:
        raise refuse("wrong_type", f"{column!r} holds no list of two options or more")
    if len(value) > MOST_OPTIONS:
        raise refuse("too_many_options", f"{column!r} holds {len(value)} options, and {MOST_OPTIONS} have letters")
    return [str(name).strip() for name in names], [str(one).strip() for one in value]


MOST_OPTIONS = 26


def _right_option(cells: Cells, names: list[str], texts: list[str]) -> int:
    """The place of the right option: given as its name, its text, its letter, or its place counted from 0."""
    value = cells.need("answer")
    said = class_name(value, cells.columns["answer"]).strip()
    bare = said.strip("().: ")
    numbers = all(text.lstrip("-").replace(".", "", 1).isdigit() for text in texts)
    by_text = texts.index(said) if said in texts and (isinstance(value, str) or numbers) else None
    by_name = names.index(bare) if bare in names else None
    letter = ord(bare.upper()) - ord("A") if len(bare) == 1 and bare.isascii() and bare.isalpha() else None
    place = int(bare) if bare.isdecimal() else None
    found = next((one for one in (by_name, by_text, letter, place) if one is not None), None)
    if found is None or found >= len(texts):
        raise refuse(
            "no_such_option",
            f"{cells.columns['answer']!r} is {said!r}, which is none of the {len(texts)} options "
            "(by text or letter, or by place counted from 0)",
        )
    return found


def _tagging(cells: Cells) -> Canonical:
    tokens, tags = cells.need("tokens"), cells.need("tags")
    for role, value in (("tokens", tokens), ("tags", tags)):
        if not isinstance(value, list) or not value:
            raise refuse("wrong_type", f"{cells.columns[role]!r} holds {describe(value)}, not a list of {role}")
    if len(tokens) != len(tags):
        raise refuse("unequal_lengths", f"{len(tokens)} tokens and {len(tags)} tags")
    if not all(isinstance(token, str) and token for token in tokens):
        raise refuse("wrong_type", f"{cells.columns['tokens']!r} holds something that is no text, or an empty one")
    return {"tokens": tokens, "tags": [class_name(tag, cells.columns["tags"]) for tag in tags]}


def _span_qa(cells: Cells) -> Canonical:
    context, question, raw = cells.text("context"), cells.text("question"), cells.need("answers")
    if isinstance(raw, list):
        raw = {key: [item.get(key) for item in raw if isinstance(item, Mapping)] for key in ("text", "answer_start")}
    texts, starts = (raw.get(key) if isinstance(raw, Mapping) else None for key in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        column = cells.columns["answers"]
        raise refuse("wrong_type", f"{column!r} does not hold as many `text` as `answer_start`")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not context.startswith(text, max(start, 0)):
            raise refuse("answer_not_in_context", f"the context does not hold the answer {text!r} at {start!r}")
    return {"context": context, "question": question, "answers": {"text": texts, "answer_start": starts}}


def _preference(cells: Cells) -> Canonical:
    chosen, rejected = cells.need("chosen"), cells.need("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and not chat.looks_like_messages(chosen):
        row = _preferred_text(cells)
    else:
        row = _preferred_messages(cells, chosen, rejected)
    if row["chosen"] == row["rejected"]:
        raise refuse("no_preference", "the chosen and the rejected answer are the same")
    return row


_TRANSCRIPT = "\n\nAssistant:"


def _preferred_text(cells: Cells) -> Canonical:
    chosen, rejected = cells.text("chosen"), cells.text("rejected")
    if "prompt" not in cells.columns:
        # Whole transcripts, alike up to the assistant's last turn.
        prompt, mark, chosen = chosen.rpartition(_TRANSCRIPT)
        if not mark or not rejected.startswith(prompt + mark):
            raise refuse("no_prompt", "there is no prompt, and the two answers do not begin with the same one")
        return {"prompt": prompt + mark, "chosen": chosen, "rejected": rejected[len(prompt + mark) :]}
    if not isinstance(cells.need("prompt"), str):
        return _preferred_messages(cells, _turn("assistant", chosen), _turn("assistant", rejected))
    system = cells.optional_text("system")
    row = {"prompt": _prompt(cells), "chosen": chosen, "rejected": rejected}
    return row | {"system": system} if system else row


def _preferred_messages(cells: Cells, chosen: Any, rejected: Any) -> Canonical:
    better, worse = chat.messages(chosen), chat.messages(rejected)
    raw_tools = cells.get("tools")
    if "prompt" in cells.columns:
        asked = cells.need("prompt")
        if isinstance(asked, Mapping) and "messages" in asked:  # OpenAI's form: {"messages": …, "tools": …}
            asked, raw_tools = asked["messages"], asked.get("tools", raw_tools)
        if isinstance(asked, str) and not chat.looks_like_messages(asked):
            asked = [_turn("user", _prompt(cells))]
        prompt = chat.messages(asked, system=cells.optional_text("system"))
    else:
        shared = 0
        while shared < min(len(better), len(worse)) - 1 and better[shared] == worse[shared]:
            shared += 1
        prompt, better, worse = better[:shared], better[shared:], worse[shared:]
    if not prompt:
        raise refuse("no_prompt", "there is no prompt, and the two answers do not begin with the same one")
    for side, turns in (("chosen", better), ("rejected", worse)):
        if all(turn["role"] != "assistant" for turn in turns):
            raise refuse("no_assistant_turn", f"no turn of the {side} answer is the assistant's")
    row = {"prompt": prompt, "chosen": better, "rejected": worse}
    found = chat.tools(raw_tools)
    return row | {"tools": found} if found else row


def _pairs(cells: Cells) -> Canonical:
    negatives = cells.texts("negative") if cells.get("negative") is not None else []
    return {"anchor": cells.text("text"), "positive": cells.text("positive"), "negatives": negatives}


def _scored_pairs(cells: Cells) -> Canonical:
    if "text2" not in cells.columns:
        raise refuse("one_text", "there is one text, and likeness is between two")
    score = LABELS["number"](cells.need("label"), cells.columns["label"])
    return {"anchor": cells.text("text"), "positive": cells.text("text2"), "score": score}


def _images(cells: Cells) -> Canonical:
    return {"image": cells.text("image"), "caption": cells.get("caption")}


BUILDERS: dict[str, Callable[[Cells], Canonical]] = {
    "chat": _chat,
    "instruction": _instruction,
    "source_target": _source_target,
    "text": _text,
    "classification": _classification,
    "multiple_choice": _multiple_choice,
    "tagging": _tagging,
    "span_qa": _span_qa,
    "preference": _preference,
    "images": _images,
    "pairs": _pairs,
    "scored_pairs": _scored_pairs,
}
