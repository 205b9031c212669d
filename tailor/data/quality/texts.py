"""Lenses on what every text has: length, script and language."""

from collections import Counter
from typing import Any

import numpy as np

from tailor.data.keys import sides
from tailor.data.report import Problem
from tailor.data.table import Entry

SCRIPTS = (
    ("latin", 0x41, 0x24F), ("greek", 0x370, 0x3FF), ("cyrillic", 0x400, 0x52F), ("hebrew", 0x590, 0x5FF),
    ("arabic", 0x600, 0x77F), ("devanagari", 0x900, 0x97F), ("thai", 0xE00, 0xE7F), ("kana", 0x3040, 0x30FF),
    ("han", 0x3400, 0x9FFF), ("hangul", 0xAC00, 0xD7AF),
)  # fmt: skip
LANGUAGES = {
    "english": "the and of to is that for with you are this have not was",
    "german": "der die und das ist nicht ich ein mit den auf sie für wie",
    "french": "le les et est des une que pour dans vous pas qui sur je",
    "spanish": "el los las que y es una para con por del como está mi",
    "italian": "il di che è non una per sono con del gli della mi ho",
    "portuguese": "o os que é uma para com não do da em você meu minha",
    "dutch": "de het een van en is niet ik dat op voor met mijn hoe",
}
"""The commonest words, enough to tell a sentence's language from these seven."""
NOT_TOLD = {"latin": "not told (latin letters)", "": "none"}
"""How rows are called whose language the words do not tell, and those without letters."""
_WORDS = {name: frozenset(words.split()) for name, words in LANGUAGES.items()}


def language(text: str) -> str:
    """The script of a text and, for Latin letters, its language where the commonest words tell it; "" where nothing does."""
    sample = text[:400]
    letters = Counter(script_of(letter) for letter in sample if letter.isalpha()) if not sample.isascii() else None
    script = letters.most_common(1)[0][0] if letters else "latin" if any(map(str.isalpha, sample)) else ""
    if script != "latin":
        return script
    words = set(sample.casefold().split())
    hits = sorted(((len(words & known), name) for name, known in _WORDS.items()), reverse=True)
    sure = hits[0][0] >= 3 and hits[0][0] >= 2 * hits[1][0]
    return hits[0][1] if sure else "latin"


def script_of(letter: str) -> str:
    """The script of a letter."""
    code = ord(letter)
    return next((name for name, first, last in SCRIPTS if first <= code <= last), "other")


class Languages:
    """Which languages and scripts there are. A few rows in another one are told, since they are likely strays."""

    STRAY = 0.05

    def __init__(self, form: str) -> None:
        self._form = form
        self._rows: Counter[str] = Counter()
        self._first: dict[str, Entry] = {}

    def look(self, entry: Entry) -> None:
        name = language(sides(self._form, entry.row)[0] if self._form != "images" else entry.row["caption"] or "")
        self._rows[name] += 1
        self._first.setdefault(name, entry)

    def problems(self) -> list[Problem]:
        told = {name: count for name, count in self._rows.items() if name not in ("", "latin")}
        found = []
        for name, count in sorted(told.items()):
            if len(told) > 1 and count < self.STRAY * sum(told.values()):
                origin = self._first[name].origin
                rows = "1 row is" if count == 1 else f"{count} rows are"
                text = f"{rows} in {name}, which the others are not: leave them out if they are strays"
                found.append(Problem("info", "language_mix", text, origin.file, origin.line, count))
        return found

    def figures(self) -> dict[str, Any]:
        return {"languages": {NOT_TOLD.get(name, name): count for name, count in self._rows.most_common()}}


class Lengths:
    """How long what is given and what is learned are, in characters."""

    EDGES = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)

    def __init__(self, form: str) -> None:
        self._form = form
        self._counts = {"given": Counter[int](), "target": Counter[int]()}
        self._most = {"given": 0, "target": 0}

    def look(self, entry: Entry) -> None:
        for side, text in zip(self._counts, sides(self._form, entry.row), strict=True):
            self._counts[side][int(np.searchsorted(self.EDGES, len(text), side="right"))] += 1
            self._most[side] = max(self._most[side], len(text))

    def problems(self) -> list[Problem]:
        return []

    def figures(self) -> dict[str, Any]:
        found = {}
        for side, counts in self._counts.items():
            bars = {str(edge): counts[place + 1] for place, edge in enumerate(self.EDGES) if counts[place + 1]}
            found[side] = {"longest": self._most[side], "rows_from": bars}
        return {"characters": found}
