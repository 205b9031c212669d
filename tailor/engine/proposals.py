"""Prompts to begin a search from: the user's own words, words for the kind of task, and demonstrations."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import Any

from tailor.core.nearest import Nearest
from tailor.core.prompts import INPUT, Demonstration, Prompt

POOL = 400
"""Training rows that demonstrations are taken from."""


@dataclass(frozen=True)
class Words:
    """What is tried for a kind of answers: instructions, and ways to write a user's turn."""

    instructions: tuple[str, ...]
    inputs: tuple[str, ...]


WORDS = {
    "label": Words(
        (
            "Classify the text.",
            "Which of these fits the text best?",
            "Read the text and name its category.",
            "Decide which label the text belongs to.",
        ),
        (INPUT, f"Text: {INPUT}\nLabel:", f"{INPUT}\nCategory:"),
    ),
    "number": Words(
        (
            "Rate the text.",
            "Read the text and give its number.",
            "Judge the text as in the examples.",
        ),
        (INPUT, f"Text: {INPUT}\nNumber:", f"{INPUT}\nRating:"),
    ),
    "multiple_choice": Words(
        (
            "Answer the question.",
            "Which option is right?",
            "Choose the best answer to the question.",
            "Read the question and all options with care, and choose the right one.",
        ),
        (INPUT, f"Question: {INPUT}\nAnswer:", f"{INPUT}\nAnswer:"),
    ),
    "text": Words(
        (
            "",
            "Give exactly the answer that is asked for, and nothing else.",
            "Answer in the form, length and style of the examples.",
            "Read the request with care, and answer it in as few words as it takes.",
        ),
        (INPUT, f"Input: {INPUT}\nOutput:", f"{INPUT}\nAnswer:"),
    ),
}
WORDS["labels"] = WORDS["label"]
"""An objective, or the kind of its answers -> words that are tried for it."""


def words_for(objective: Any) -> Words:
    """What is tried for an objective: its own words, else those for its kind of answers."""
    return WORDS.get(objective.name) or WORDS.get(objective.answers) or WORDS["text"]


@dataclass(frozen=True)
class Candidate:
    """A prompt in the race, and where it came from."""

    prompt: Prompt
    origin: str


class Demonstrations:
    """Ways to choose demonstrations from the training rows.

    Args:
        pool: question and answer of the rows that can be shown.
        balanced: answers are labels, and each is shown as often as the others.
        right: the rows of the pool that the base answers best, asked for when they are first needed.
    """

    def __init__(
        self, pool: Sequence[Demonstration], balanced: bool, right: Callable[[], Sequence[Demonstration]], seed: int
    ) -> None:
        self.pool, self.balanced, self.right, self.seed = list(pool), balanced, right, seed

    def bootstrap(self, count: int, number: int) -> tuple[Demonstration, ...]:
        """Rows that the base gets right by itself (Khattab et al. 2024, arXiv 2310.03714); `number` draws others."""
        return self._drawn(self.right(), count, number)

    def diverse(self, count: int, number: int) -> tuple[Demonstration, ...]:
        """Rows unlike each other: each next one is the least like those that are there; `number` begins elsewhere."""
        some = self._shuffled(self.pool, number)[: 8 * max(count, 1)]
        index = Nearest([one.question for one in some])
        taken: list[int] = []
        likeness = [0.0] * len(some)
        groups = self._in_turn(range(len(some)), lambda place: some[place].answer)
        for members in islice(groups, count):
            free = [place for place in members if place not in taken]
            best = min(free, key=lambda place: (likeness[place], place))
            taken.append(best)
            likeness = [old + new for old, new in zip(likeness, index.scores(some[best].question), strict=True)]
        return tuple(some[place] for place in taken)

    def _drawn(self, rows: Sequence[Demonstration], count: int, number: int) -> tuple[Demonstration, ...]:
        mixed = self._shuffled(rows, number)
        groups: dict[str, list[Demonstration]] = defaultdict(list)
        for one in mixed:
            groups[one.answer if self.balanced else ""].append(one)
        in_turn = chain.from_iterable(zip_longest(*groups.values()))
        return tuple(self._shuffled(list(islice((one for one in in_turn if one is not None), count)), number))

    def _in_turn(self, places: Sequence[int], answer: Callable[[int], str]) -> Iterator[list[int]]:
        """For each pick the places it may be made from: one label's after the other's, while they last."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place in places:
            groups[answer(place) if self.balanced else ""].append(place)
        rounds = zip_longest(*([members] * len(members) for members in groups.values()))
        return (members for members in chain.from_iterable(rounds) if members is not None)

    def _shuffled(self, rows: Sequence[Any], number: int) -> list[Any]:
        mixed = list(rows)
        random.Random(f"{self.seed}/{number}").shuffle(mixed)
        return mixed


def first_candidates(
    bare: Prompt, instructions: Sequence[str], words: Words, options: Any, shown: Demonstrations
) -> list[Candidate]:
    """What enters the first race: the bare prompt, then words and demonstrations by turns, none twice."""
    alone = _worded(bare, instructions, words)
    with_rows = _shown(bare, words, options, shown) if options.demonstrations and shown.pool else iter(())
    found = [Candidate(bare, "bare")]
    seen = {bare.digest()}
    # Two with demonstrations for one without: they are worth more than wording (Khattab et al. 2024).
    turns = zip_longest(alone, with_rows, with_rows)
    for candidate in chain.from_iterable(turns):
        if len(found) > options.candidates:
            break
        if candidate is not None and candidate.prompt.digest() not in seen:
            seen.add(candidate.prompt.digest())
            found.append(candidate)
    return found


def _worded(bare: Prompt, instructions: Sequence[str], words: Words) -> Iterator[Candidate]:
    """Instructions, the user's own first, in every way to write a turn."""
    told = list(dict.fromkeys([*instructions, *words.instructions]))
    for form in words.inputs:
        for instruction in told:
            yield Candidate(replace(bare, instruction=instruction, input_format=form), "instruction")
    for instruction in told:
        yield Candidate(replace(bare, instruction=instruction, place="user"), "instruction, user's turn")


def _shown(bare: Prompt, words: Words, options: Any, shown: Demonstrations) -> Iterator[Candidate]:
    """Demonstrations: many first, then fewer, drawn anew; as turns, and as text."""
    most = options.demonstrations
    for number in range(3):
        for count in dict.fromkeys((most, max(1, most // 2))):
            for layout, form in (("turns", words.inputs[0]), ("text", words.inputs[1]), ("turns", words.inputs[1])):
                dressed = replace(bare, layout=layout, input_format=form)  # type: ignore[arg-type]
                for way in options.ways:
                    if way == "nearest" and number:
                        continue
                    prompt = with_way(dressed, way, count, number, shown)
                    yield Candidate(prompt, f"{count} {way}, {layout}")


def with_way(prompt: Prompt, way: str, count: int, number: int, shown: Demonstrations) -> Prompt:
    """A prompt with demonstrations chosen one way."""
    if way == "nearest":
        return replace(prompt, demonstrations=tuple(shown.pool), nearest=count)
    chosen = shown.bootstrap(count, number) if way == "bootstrap" else shown.diverse(count, number)
    return replace(prompt, demonstrations=chosen, nearest=0)


def variations(best: Prompt, instructions: Sequence[str], words: Words, others: Sequence[Prompt]) -> list[Candidate]:
    """The best so far with one thing changed: its words, its form, or another good one's demonstrations."""
    told = dict.fromkeys([*instructions, *words.instructions])
    found = [Candidate(replace(best, instruction=one), "other instruction") for one in told]
    found += [Candidate(replace(best, input_format=form), "other input format") for form in words.inputs]
    place, layout = ("user" if best.place == "system" else "system"), ("text" if best.layout == "turns" else "turns")
    found.append(Candidate(replace(best, place=place), "other place"))  # type: ignore[arg-type]
    if best.demonstrations:
        found.append(Candidate(replace(best, layout=layout), "other layout"))  # type: ignore[arg-type]
    for other in others:
        moved = replace(best, demonstrations=other.demonstrations, nearest=other.nearest)
        found.append(Candidate(moved, "other demonstrations"))
    return found
