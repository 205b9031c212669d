"""Lenses on conversations and instructions: tool calls, reasoning, how varied requests and answers are."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tailor.core.examples import Origin
from tailor.data.keys import digest, normalise
from tailor.data.quality.lenses import Seen
from tailor.data.report import Problem
from tailor.data.table import Entry


class Tools:
    """Tool calls that nothing could carry out, and results that nobody asked for."""

    MESSAGES: Mapping[str, str] = {
        "arguments_not_json": "{rows} call a tool with arguments that are no JSON object: correct them, "
        "or a model learns to write calls that fail",
        "undeclared_tool": "{rows} call a tool that the row's `tools` do not declare: add its definition, "
        "or correct the name",
        "missing_argument": "{rows} call a tool without an argument that its definition requires: add it",
        "result_without_call": "{rows} hold a tool's result that no call before it asked for: add the call, or leave it out",
    }

    def __init__(self) -> None:
        self._seen = {code: Seen() for code in self.MESSAGES}
        self._calls = 0

    def look(self, entry: Entry) -> None:
        declared = {tool["function"]["name"]: tool["function"] for tool in entry.row.get("tools") or ()}
        turns = entry.row["messages"]
        calls = [call for turn in turns for call in turn.get("tool_calls", ())]
        self._calls += len(calls)
        codes = {code for call in calls for code in _faults(call, declared)}
        if _unasked(turns):
            codes.add("result_without_call")
        for code in codes:
            self._seen[code].add(entry.origin)

    def problems(self) -> list[Problem]:
        return [one for code, text in self.MESSAGES.items() for one in self._seen[code].problem(code, text)]

    def figures(self) -> dict[str, Any]:
        return {"tools": {"calls": self._calls, **{code: seen.count for code, seen in self._seen.items()}}}


def _faults(call: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    arguments = call["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    found = [] if isinstance(arguments, Mapping) else ["arguments_not_json"]
    if call["name"] not in declared:
        return [*found, "undeclared_tool"]
    schema = declared[call["name"]].get("parameters")
    required = schema.get("required") if isinstance(schema, Mapping) else None
    if isinstance(arguments, Mapping) and isinstance(required, list) and not set(required) <= arguments.keys():
        found.append("missing_argument")
    return found


def _unasked(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tool's turn follows no call, or answers to a call's id that is not there."""
    open_calls = 0
    asked: set[str] = set()
    for turn in turns:
        if turn["role"] == "tool":
            identity = turn.get("tool_call_id")
            if not open_calls or (identity and asked and identity not in asked):
                return True
        else:
            calls = turn.get("tool_calls", ())
            open_calls = len(calls)
            asked |= {call["id"] for call in calls if "id" in call}
    return False


class Reasoning:
    """How many answers carry reasoning."""

    def __init__(self) -> None:
        self._with, self._without = Seen(), Seen()

    def look(self, entry: Entry) -> None:
        answers = [
            turn for turn in entry.row.get("messages", [entry.row]) if turn.get("role", "assistant") == "assistant"
        ]
        side = self._with if any(turn.get("thinking") for turn in answers) else self._without
        side.add(entry.origin)

    def problems(self) -> list[Problem]:
        if not self._with.count or not self._without.count:
            return []
        fewer, what = (
            (self._with, "reason before they answer, the others do not")
            if self._with.count <= self._without.count
            else (self._without, "answer without reasoning, the others reason first")
        )
        text = (
            f"{{rows}} {what}: a model learns to do either at random; choose one by data.thinking=drop, "
            "or tell the two apart in the system prompt"
        )
        return fewer.problem("mixed_reasoning", text)

    def figures(self) -> dict[str, Any]:
        rows = self._with.count + self._without.count
        return {"reasoning": {"rows": self._with.count, "share": self._with.count / max(1, rows)}}


class Variety:
    """How varied requests and answers are: their first words, and an answer that comes again and again."""

    FEWEST, SAME_ANSWER = 50, 0.25
    LONG = 25
    """Characters from which an answer is no label."""

    def __init__(self) -> None:
        self._openings: Counter[str] = Counter()
        self._answers: Counter[int] = Counter()
        self._long: dict[int, Origin] = {}
        self._rows = 0

    def look(self, entry: Entry) -> None:
        asked, answered = exchange(entry.row)
        self._rows += 1
        self._openings[" ".join(normalise(asked).split()[:2])] += 1
        key = digest(normalise(answered))
        self._answers[key] += 1
        if len(answered) >= self.LONG:
            self._long.setdefault(key, entry.origin)
        if len(self._openings) > KEPT:
            self._openings = Counter(dict(self._openings.most_common(KEPT // 2)))
        if len(self._answers) > KEPT:
            self._answers = Counter(dict(self._answers.most_common(KEPT // 2)))
            self._long = {key: origin for key, origin in self._long.items() if key in self._answers}

    def problems(self) -> list[Problem]:
        key, most = max(self._answers.items(), key=lambda item: item[1], default=(0, 0))
        if self._rows < self.FEWEST or most < self.SAME_ANSWER * self._rows or key not in self._long:
            return []
        same = f"{most} of {self._rows} rows have one and the same answer"
        text = f"{same}: a model learns to give it to everything; leave most out"
        return [Problem("warning", "one_answer", text, self._long[key].file, self._long[key].line, most)]

    def figures(self) -> dict[str, Any]:
        first = dict(self._openings.most_common(10))
        shares = [count / max(1, self._rows) for count in self._openings.values()]
        kinds = math.exp(-sum(share * math.log(share) for share in shares))
        return {"variety": {"openings": len(self._openings), "effective_openings": kinds, "most_common": first}}


KEPT = 50_000
"""So many different openings and answers are counted; the rarer half is forgotten beyond, so that memory stays bounded."""


def exchange(row: Mapping[str, Any]) -> tuple[str, str]:
    """What a row's user asks first, and the assistant's last answer."""
    if "messages" not in row:
        return row["prompt"], row["completion"]
    asked = next((turn["content"] for turn in row["messages"] if turn["role"] == "user"), "")
    answered = next((turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "assistant"), "")
    return asked, answered
