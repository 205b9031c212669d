"""What is looked for row by row. A lens looks at every row once and keeps numbers and first places, never the rows.

What each has to say comes out as problems (what, where, how to mend it) and as figures for the report.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tailor.core.examples import Origin
from tailor.data.keys import labels as labels_of
from tailor.data.keys import normalise
from tailor.data.quality import damage, private
from tailor.data.report import Problem
from tailor.data.table import Entry

_ROWS = re.compile(r"\{rows\} (\w+)")
SHOWN = 20
"""How many places are named one by one."""


def rows_that(count: int, verb: str) -> str:
    """`1 row holds`, `2 rows hold`."""
    one = {"have": "has"}.get(verb, f"{verb}s")
    return f"1 row {one}" if count == 1 else f"{count} rows {verb}"


@dataclass(slots=True)
class Seen:
    """How often something was met, and where first."""

    count: int = 0
    places: list[Origin] = field(default_factory=list)

    def add(self, origin: Origin) -> None:
        """Once more."""
        self.count += 1
        if len(self.places) < SHOWN:
            self.places.append(origin)

    def problem(
        self, code: str, message: str, severity: Literal["error", "warning", "info"] = "warning"
    ) -> list[Problem]:
        """What to say of it, if it was met at all; `{rows}` in the message, before a verb, becomes how many."""
        if not self.count:
            return []
        first = self.places[0]
        message = _ROWS.sub(lambda found: rows_that(self.count, found[1]), message)
        return [Problem(severity, code, message, first.file, first.line, self.count)]

    def lines(self) -> list[str]:
        """The first places, as `file:LINE`."""
        return [str(origin) for origin in self.places]


class Lens(Protocol):
    """Looks at rows one after the other."""

    def look(self, entry: Entry) -> None: ...

    def problems(self) -> list[Problem]: ...

    def figures(self) -> Mapping[str, Any]: ...


class Personal:
    """Personal data and secrets."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def look(self, entry: Entry) -> None:
        kinds = {found.kind for text in private.strings(entry.row) for found in private.find(text)}
        for kind in kinds:
            self._seen.setdefault(kind, Seen()).add(entry.origin)

    def problems(self) -> list[Problem]:
        found = []
        for kind, seen in sorted(self._seen.items()):
            code = "secret" if kind in private.SECRETS else "personal_data"
            what = f"{{rows}} hold what looks like {NAMES[kind]}, which a model can learn by heart"
            found += seen.problem(code, f"{what}: `tailor check … --fix OUT.jsonl --redact` writes a copy without")
        return found

    def figures(self) -> dict[str, Any]:
        found = {kind: {"rows": seen.count, "first": seen.lines()} for kind, seen in sorted(self._seen.items())}
        return {"personal_data": found, "privacy": "strict" if found else "open"}


NAMES = {
    "email": "an e-mail address",
    "phone": "a telephone number",
    "iban": "an IBAN",
    "card": "a card number",
    "api_key": "a key to a service",
    "private_key": "a private key",
}


class Damage:
    """Broken encodings."""

    MESSAGES: Mapping[str, str] = {
        "mojibake": "{rows} hold UTF-8 that was read as another encoding (Ã© for é): read the source as UTF-8, "
        "or `--fix OUT.jsonl` mends what can be",
        "lost_characters": "{rows} hold the mark � of a lost character: only the source can bring it back",
        "control_characters": "{rows} hold control characters: `--fix OUT.jsonl` takes them out",
    }

    def __init__(self) -> None:
        self._seen = {kind: Seen() for kind in self.MESSAGES}

    def look(self, entry: Entry) -> None:
        for kind in {kind for text in private.strings(entry.row) for kind in damage.kinds(text)}:
            self._seen[kind].add(entry.origin)

    def problems(self) -> list[Problem]:
        return [one for kind, text in self.MESSAGES.items() for one in self._seen[kind].problem(kind, text)]

    def figures(self) -> dict[str, Any]:
        return {"damage": {kind: seen.count for kind, seen in self._seen.items()}}


class Labels:
    """How many rows each label has, and whether a file is sorted by them."""

    RARE = 5
    LOPSIDED = 0.9
    SORTED = 0.1
    """Of the changes of label that a shuffled file would have."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Origin] = {}
        self._files: dict[str, _Runs] = {}
        self._rows = 0

    def look(self, entry: Entry) -> None:
        names = labels_of(self._form, entry.row)
        self._rows += 1
        for name in names:
            self._counts[name] += 1
            self._first.setdefault(name, entry.origin)
        if len(names) == 1:
            self._files.setdefault(entry.origin.file, _Runs(entry.origin)).add(names[0])

    def problems(self) -> list[Problem]:
        found = []
        rare = sorted((name for name, count in self._counts.items() if count < self.RARE), key=self._counts.__getitem__)
        if rare:
            shown = ", ".join(f"{name!r} ({self._counts[name]})" for name in rare[:5])
            few = f"{_labels(len(rare))} fewer than {self.RARE} rows: {shown}"
            text = f"{few}: too few to learn or to measure; add rows, or merge"
            origin = self._first[rare[0]]
            found.append(Problem("warning", "rare_labels", text, origin.file, origin.line, len(rare)))
        name, most = max(self._counts.items(), key=lambda item: item[1], default=("", 0))
        if self._form == "classification" and len(self._counts) > 1 and most > self.LOPSIDED * self._rows:
            share = f"{100 * most / self._rows:.0f} % of the rows have the label {name!r}"
            text = f"{share}: judge by macro-F1, and add rows of others"
            origin = self._first[name]
            found.append(Problem("warning", "lopsided_labels", text, origin.file, origin.line, most))
        for file, runs in self._files.items():
            if runs.sorted(self.SORTED):
                text = (
                    f"sorted by label: {runs.changes} changes of label in {runs.rows} rows, where some "
                    f"{runs.expected():.0f} would be by chance. Tailor shuffles; what reads the first rows "
                    "alone sees few labels: shuffle the file"
                )
                found.append(Problem("warning", "sorted", text, file, runs.first.line, runs.rows))
        return found

    def figures(self) -> dict[str, Any]:
        return {"labels": dict(self._counts.most_common())}


def _labels(count: int) -> str:
    return "1 label has" if count == 1 else f"{count} labels have"


class _Runs:
    """Changes of label from row to row of one file."""

    FEWEST = 30

    def __init__(self, first: Origin) -> None:
        self.first, self.changes, self.rows = first, 0, 0
        self._last = ""
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        self.changes += self.rows > 0 and name != self._last
        self.rows += 1
        self._last = name
        self._counts[name] += 1

    def expected(self) -> float:
        """Changes of label in random order: each neighbour differs with 1 - the sum of squared shares."""
        return (self.rows - 1) * (1 - sum((count / self.rows) ** 2 for count in self._counts.values()))

    def sorted(self, share: float) -> bool:
        return self.rows >= self.FEWEST and len(self._counts) > 1 and self.changes < share * self.expected()


class Preferences:
    """Pairs without a signal, and answers that are preferred for their length alone."""

    FEWEST, BIAS = 30, 0.8

    def __init__(self) -> None:
        self._same = Seen()
        self._longer, self._shorter, self._first = 0, 0, Origin("", 0)

    def look(self, entry: Entry) -> None:
        chosen, rejected = (_answer(entry.row[side]) for side in ("chosen", "rejected"))
        if not self._longer + self._shorter:
            self._first = entry.origin
        self._longer += len(chosen) > len(rejected)
        self._shorter += len(chosen) < len(rejected)
        if no_signal(entry.row):
            self._same.add(entry.origin)

    def problems(self) -> list[Problem]:
        text = "{rows} prefer one of two answers that differ in case, space or punctuation alone: leave them out"
        found = self._same.problem("no_signal", text)
        share, n = self._share(), self._longer + self._shorter
        if n >= self.FEWEST and max(share, 1 - share) >= self.BIAS:
            which, other = ("longer", "short") if share > 0.5 else ("shorter", "long")
            text = (
                f"the {which} answer is the chosen one in {100 * max(share, 1 - share):.0f} % of the pairs: length "
                f"alone can be learned; add pairs where the {other} answer wins"
            )
            found.append(Problem("warning", "length_bias", text, self._first.file, self._first.line, n))
        return found

    def _share(self) -> float:
        return self._longer / max(1, self._longer + self._shorter)

    def figures(self) -> dict[str, Any]:
        return {"preference": {"no_signal": self._same.count, "chosen_longer": self._share()}}


def no_signal(row: Mapping[str, Any]) -> bool:
    """Whether the two answers differ in case, space and punctuation at most."""
    return normalise(_answer(row["chosen"])) == normalise(_answer(row["rejected"]))


def _answer(side: str | Sequence[Mapping[str, Any]]) -> str:
    """An answer as text, with what it calls."""
    if isinstance(side, str):
        return side
    return "\n".join(f"{turn['content']}{turn.get('tool_calls', '')}" for turn in side)
