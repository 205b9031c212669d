"""Which labels a text names, and which one it gives as its answer."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tailor.core.nearest import WORD, words_of

BEFORE, AFTER = r"(?<![^\s\"'(\[{*_`“‘«:])", r"(?![^\s.,;:!?\"')\]}*_`”’»])"
"""What may stand beside a label that is told from others by its signs: space, brackets, quotes, a sentence's own signs."""
SEPARATOR = ", "
"""What stands between several labels where they are written."""
APART = frozenset(",;\n")
"""What ends one entry of a list: words on both sides of it are one label only where the label has it too."""
AROUND = " \t\r\n.,;:!?\"'()[]{}*_`“”‘’«»"


class Mention(NamedTuple):
    """A label and where a text names it: from which character to which."""

    start: int
    end: int
    label: str


class Names:
    """Labels as they are found in texts.

    Most are found by their words, whatever their case and the signs around them. Those that words do not tell apart (`<=50K`
    and `>50K`; C, C# and C++), that have no words, or that are a single letter, are found as they are spelled.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._longest = sorted(set(labels), key=len, reverse=True)
        self._words = {label: words_of(label) for label in labels}
        shared = Counter(map(tuple, self._words.values()))
        self._spelled = {
            label for label, words in self._words.items() if shared[tuple(words)] > 1 or len("".join(words)) < 2
        }

    def answered(self, text: str) -> str | None:
        """The label that a text is, or else the one that it names first (the longest of several there); None: none."""
        alone = self.alone(text)
        if alone is not None:
            return alone
        found = [place for label in self.labels for place in self._places(label, text)]
        return min(found, key=lambda one: (one.start, -one.end)).label if found else None

    def alone(self, text: str) -> str | None:
        """The label that a text is, but for its case and the signs around it; None where it is none, or says more."""
        whole = text.strip()
        if whole in self.labels:
            return whole
        for bare in (whole, whole.strip(AROUND)):
            same = [label for label in self.labels if label.casefold() == bare.casefold()]
            exact = [label for label in same if label == bare]
            if len(exact or same) == 1:
                return (exact or same)[0]
        return None

    def all_in(self, text: str) -> tuple[str, ...]:
        """All labels that a text lists or names, in their own order; what lies within a longer one there does not count."""
        listed = self._listed(text.strip())
        found = {one.label for one in self.mentions(text)} if listed is None else listed
        return tuple(label for label in self.labels if label in found)

    def mentions(self, text: str) -> list[Mention]:
        """Where a text names labels, in order; of places that overlap only the longest counts."""
        places = [place for label in self.labels for place in self._places(label, text) if _is_one(place, text)]
        kept: list[Mention] = []
        for place in sorted(places, key=lambda one: (one.start - one.end, one.start)):
            if all(place.end <= other.start or other.end <= place.start for other in kept):
                kept.append(place)
        return sorted(kept)

    def names(self, text: str, label: str) -> bool:
        """Whether a text names a label."""
        return next(self._places(label, text), None) is not None

    def _listed(self, text: str) -> frozenset[str] | None:
        """The labels of a text that is a list of them as they are spelled, and nothing else; None of any other text.

        It is read from its end, so that a label may hold what separates labels; of several readings the longest label wins.
        """
        text += SEPARATOR
        ends = [one.end() for one in re.finditer(SEPARATOR, text)]
        read: dict[int, frozenset[str]] = {ends[-1]: frozenset()}
        for start in (*reversed(ends[:-1]), 0):
            for label in self._longest:
                end = start + len(label) + len(SEPARATOR)
                if end in read and text.startswith(label + SEPARATOR, start):
                    read[start] = read[end] | {label}
                    break
        return read.get(0)

    def _places(self, label: str, text: str) -> Iterator[Mention]:
        """Where a text names a label."""
        if label in self._spelled:
            for found in re.finditer(BEFORE + re.escape(label) + AFTER, text):
                yield Mention(*found.span(), label)
            return
        said, words = list(WORD.finditer(text)), self._words[label]
        spoken = [one[0].lower() for one in said]
        for start in range(len(said) - len(words) + 1):
            if spoken[start : start + len(words)] == words:
                yield Mention(said[start].start(), said[start + len(words) - 1].end(), label)


def _is_one(place: Mention, text: str) -> bool:
    """Whether a place is one entry, and not the end of one and the head of the next ("big, data" is no "big data")."""
    return place.start < place.end and APART & set(text[place.start : place.end]) <= set(place.label)
