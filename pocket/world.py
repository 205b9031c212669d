"""The generator's engine: a seeded world that fills templates and keeps its two pools of text apart.

A template is plain text with slots: `{town}` draws a name, `{good}` a word from the lexicon, `{big|large}` one of the
alternatives; slots nest. A document's facts are drawn once and then fill their slots in every sentence.

The pools are kept apart *by construction*: the hash of a sentence says to which pool it belongs, and whatever falls on
the other side is written again. So no sentence of the embedded data sets can occur in the pre-training text.
"""

import random
import re
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from pocket.lexicon import LEXICON
from pocket.names import POOLS, pools

T = TypeVar("T")

SLOT = re.compile(r"\{([^{}]*)\}")
SENTENCE_END = re.compile(r'[.!?:;]+\s+|\n+|["\[\]{}]|<[^<>]*>')
WORD = re.compile(r"[a-z0-9]+")
VOWEL_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIO])(?!use|usu|uni[foqtv]|eu|one\b)")
SHORTEST_SENTENCE = 4  # words; anything shorter ("Yes.", "Thank you.") belongs to nobody
TRIES = 40


class StuckError(RuntimeError):
    """All that these templates and facts can say is on the other pool's side."""


def sentences(text: str) -> list[str]:
    """The normalised sentences of a text that are long enough to be told apart."""
    found = (WORD.findall(part.lower()) for part in SENTENCE_END.split(text))
    return [" ".join(words) for words in found if len(words) >= SHORTEST_SENTENCE]


def belongs(text: str, pool: str) -> bool:
    """Whether every sentence of the text is on the pool's side."""
    return all(zlib.crc32(sentence.encode()) % len(POOLS) == POOLS.index(pool) for sentence in sentences(text))


def polish(text: str) -> str:
    """Mend the article, begin with a capital."""
    text = VOWEL_ARTICLE.sub(r"\1n ", text)
    return text[:1].upper() + text[1:]


class World:
    """A seeded source of text of one pool."""

    def __init__(self, pool: str, seed: int | str) -> None:
        self.pool = pool
        self.rng = random.Random(f"{pool}-{seed}")
        self.names = pools()[pool]

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return self.rng.choice(choices)

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """Several different ones of the choices."""
        return self.rng.sample(choices, count)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self.rng.randint(low, high)

    def slot(self, name: str) -> str:
        """One value for a slot that the facts do not fill."""
        if "|" in name:
            return self.pick(name.split("|"))
        if name in self.names:
            return self.pick(self.names[name])
        if name in LEXICON:
            return self.pick(LEXICON[name])
        if name in DRAWN:
            return DRAWN[name](self)
        raise KeyError(f"no slot named {name!r}")

    def fill(self, template: str, **facts: object) -> str:
        """The template with all slots filled, innermost first."""

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            return str(facts[name]) if name in facts else self.slot(name)

        while "{" in template:
            template = SLOT.sub(value, template)
        return template

    def say(self, templates: str | Sequence[str], **facts: object) -> str:
        """A finished sentence (or a few) from one of the templates, on this pool's side."""
        if isinstance(templates, str):
            templates = (templates,)
        return self.make(lambda: polish(self.fill(self.pick(templates), **facts)))

    def make(self, write: Callable[[], T], text: Callable[[T], str] = str, tries: int = TRIES) -> T:
        """Write until what was written, seen as text, is on this pool's side; StuckError where that never happens."""
        for _ in range(tries):
            try:
                result = write()
            except StuckError:
                continue
            if belongs(text(result), self.pool):
                return result
        raise StuckError(f"no text of the pool {self.pool!r} found")


def code(world: World) -> str:
    """An order or case number such as KD-4821."""
    letters = "".join(world.pick("BCDFGHKLMNPRSTVW") for _ in range(2))
    return f"{letters}-{world.number(1000, 9999)}"


def money(world: World) -> str:
    """An amount in the world's currency."""
    return f"{world.pick((world.number(2, 99), world.number(100, 990)))} crowns"


# slots whose values are computed
DRAWN: dict[str, Callable[[World], str]] = {
    "code": code,
    "money": money,
    "person": lambda world: f"{world.slot('first')} {world.slot('last')}",
    "firm": lambda world: f"{world.slot('company')} {world.slot('firm_kind')}",
    "town2": lambda world: world.slot("town"),
    "product": lambda world: f"{world.slot('brand')} {world.slot('thing')}",
    "small": lambda world: str(world.number(2, 9)),
    "count": lambda world: str(world.number(11, 95)),
    "large": lambda world: str(world.number(2, 90) * 100),
    "year": lambda world: str(world.number(1805, 1995)),
    "clock": lambda world: f"{world.number(7, 20)}:{world.pick(('00', '15', '30', '45'))}",
    "past_date": lambda world: f"{world.number(1, 28)} {world.slot('month')}",
    "date": lambda world: f"{world.number(1, 28)} {world.slot('month')}",
}
