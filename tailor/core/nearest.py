"""Which texts of a pool are most like another: BM25 (Robertson & Zaragoza 2009), the same numbers on every machine.

It is part of an artefact: what a prompt retrieves when it is served has to be what it retrieved when it was scored.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"\w+")
SATURATION, LENGTH_SHARE = 1.2, 0.75


def words_of(text: str) -> list[str]:
    """Lower-cased words, in order."""
    return WORD.findall(text.lower())


class Nearest:
    """An index over texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(words_of(text)) for text in texts]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean = max(1.0, sum(self._lengths) / max(1, len(texts)))
        self._seen = Counter(word for counts in self._counts for word in counts)

    def scores(self, text: str) -> list[float]:
        """How like each text of the pool is; 0 where no word is shared."""
        asked = sorted(set(words_of(text)))
        return [self._score(asked, place) for place in range(len(self._counts))]

    def closest(self, text: str, count: int) -> list[int]:
        """Places of the texts most like another, the most alike first, earlier ones first among equals."""
        scores = self.scores(text)
        return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count]

    def _score(self, asked: Sequence[str], place: int) -> float:
        counts, total = self._counts[place], len(self._counts)
        norm = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * self._lengths[place] / self._mean)
        score = 0.0
        for word in asked:
            if times := counts.get(word, 0):
                rarity = math.log(1 + (total - self._seen[word] + 0.5) / (self._seen[word] + 0.5))
                score += rarity * times * (SATURATION + 1) / (times + norm)
        return score
