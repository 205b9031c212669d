"""Which labels a text names, and which one it gives as its answer."""

import re
from collections import Counter
from collections.abc import Sequence

from tailor.core.nearest import WORD, words_of

BEFORE, AFTER = r"(?<![^\s\"'(\[{*_`“‘«:])", r"(?![^\s.,;:!?\"')\]}*_`”’»])"
"""What may stand beside a label that is told from others by its signs: space, brackets, quotes, a sentence's own signs."""
AROUND = " \t\r\n.,;:!?\"'()[]{}*_`“”‘’«»"


class Names:
    """Labels as they are found in texts.

    Most are found by their words, whatever their case and the signs around them. Those that words do not tell apart (`<=50K`
    and `>50K`; C, C# and C++), that have no words, or that are a single letter, are found as they are spelled.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._words = {label: words_of(label) for label in labels}
        shared = Counter(map(tuple, self._words.values()))
        self._spelled = {
            label for label, words in self._words.items() if shared[tuple(words)] > 1 or len("".join(words)) < 2
        }

    def answered(self, text: str) -> str | None:
        """The label that a text is, or else the one that it names first (the longest of several there); None: none."""
        whole = text.strip()
        if whole in self.labels:
            return whole
        for bare in (whole, whole.strip(AROUND)):
            same = [label for label in self.labels if label.casefold() == bare.casefold()]
            exact = [label for label in same if label == bare]
            if len(exact or same) == 1:
                return (exact or same)[0]
        found = [(*place, label) for label in self.labels if (place := self._place(label, text)) is not None]
        return min(found, key=lambda one: (one[0], -one[1]))[2] if found else None

    def all_in(self, text: str) -> tuple[str, ...]:
        """All labels that a text names, in their own order; those within a longer one that is named there do not count."""
        found = {label: place for label in self.labels if (place := self._place(label, text)) is not None}
        return tuple(label for label, place in found.items() if not any(_within(place, one) for one in found.values()))

    def names(self, text: str, label: str) -> bool:
        """Whether a text names a label."""
        return self._place(label, text) is not None

    def _place(self, label: str, text: str) -> tuple[int, int] | None:
        """Where a text names a label first: from which character to which."""
        if label in self._spelled:
            found = re.search(BEFORE + re.escape(label) + AFTER, text)
            return found.span() if found else None
        said, words = list(WORD.finditer(text)), self._words[label]
        spoken = [one[0].lower() for one in said]
        for start in range(len(said) - len(words) + 1):
            if spoken[start : start + len(words)] == words:
                return said[start].start(), said[start + len(words) - 1].end()
        return None


def _within(place: tuple[int, int], other: tuple[int, int]) -> bool:
    return place != other and other[0] <= place[0] and place[1] <= other[1]
