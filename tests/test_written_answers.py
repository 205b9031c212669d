"""What is read off an answer in words: several labels, a number, the letter of an option."""

import sys
from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tailor.core.contracts import Question
from tailor.objectives.choice import Choice, spelled
from tailor.objectives.multiple_choice import MultipleChoice
from tailor.objectives.named import Names
from tailor.recipe.objectives import ChoiceOptions, MultipleChoiceOptions

ANY = Question((), (), "")


def choice_of(rows: Sequence[object]) -> Choice:
    choice = Choice(ChoiceOptions())
    choice.prepare([{"texts": ["x"], "label": label} for label in rows])
    return choice


# --- several labels -------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["big", "data", "a", "C", "c", "#", "+", "-1", ",", ", ", " ", "none", "."]), min_size=1
)
LABELS = st.one_of(PIECES.map("".join), st.text(min_size=1, max_size=4)).map(str.strip).filter(bool)


@settings(deadline=None)
@given(st.sets(LABELS, min_size=2, max_size=4))
@example({"big data", "data"})
@example({"big data", "big", "data"})
@example({"Smith, John", "Smith", "Doe"})
@example({"C", "C#", "C++"})
@example({"#none", "some"})
def test_all_labels_of_a_list_are_read_back(labels: set[str]) -> None:
    choice = choice_of([tuple(labels), ()])
    known = choice.output.labels
    several = [some for size in range(len(known) + 1) for some in combinations(known, size)]
    assume(len({spelled(some).casefold() for some in several}) == len(several))  # else a text means two sets
    assert [choice.answered(spelled(some), ANY) for some in several] == several


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Data, Big.", ("big", "data")),
        ("It is big data; and data too", ("big data", "data")),
        ("BIG DATA", ("big data",)),
        ("big\ndata", ("big", "data")),
        ("data, data, data", ("data",)),
        ("nothing of it", None),
    ],
)
def test_labels_are_found_by_their_words_within_an_entry(text: str, found: tuple[str, ...] | None) -> None:
    assert choice_of([("big data", "data", "big"), ()]).answered(text, ANY) == found


@settings(deadline=None)
@given(st.text(alphabet="ab ,;C#", max_size=30))
def test_no_two_mentions_overlap(text: str) -> None:
    found = Names(["a", "a b", "b a", "C", "C#", "a, b"]).mentions(text)
    assert all(one.end <= other.start for one, other in pairwise(found))


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("4,5", 4.5), ("0,25 l", 0.25), ("0,125", 0.125), ("-4,5.", -4.5), ("1,2,3", 1.0), ("4, 5", 4.0)),
        *(("1,234", 1234.0), ("1,234,567.8", 1234567.8), ("12,345,67", 12.0), ("1,2345", 1.0), ("1234,5", 1234.5)),
        *(("4,5.5", 4.0), ("3 or 4", 3.0), ("1,5e3", 1500.0), ("none", None), ("5,", 5.0), ("1,234, 5", 1234.0)),
    ],
)
def test_a_comma_in_a_number(text: str, number: float | None) -> None:
    assert choice_of([0.0, 1.0]).answered(text, ANY) == number


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(123456789.0)
@example(0.000012345678)
@example(-sys.float_info.max)
@example(-0.0)
def test_a_number_is_written_without_exponent_and_read_back(number: float) -> None:
    text = spelled(number)
    assert not set(text.lower()) & set("e,")
    assert choice_of([0.0, 1.0]).answered(text, ANY) == number


def test_numbers_are_written_shortly() -> None:
    given = {0.1: "0.1", 3.0: "3", 1234567.0: "1234567", 1e-7: "0.0000001", -0.0: "0", -2.5: "-2.5"}
    assert {number: spelled(number) for number in given} == given


# --- options --------------------------------------------------------------------------------------------------------

OPTIONS = ("Paris", "a dog", "not Paris", "None of these")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Option A is wrong, so the answer is B.", "B"),
        ("Not option A. Option B.", "B"),
        ("The answer is not A, it is B", "B"),
        ("The answer isn't A. It's B.", "B"),
        ("I don't think the answer is A, but B", "B"),
        ("The answer is A. No: the answer is B.", "B"),
        ("The answer is A, not B", "A"),
        ("The wrong answer is A. C is right", "C"),
        ("A. is wrong, so the answer is B", "B"),
        ("A) cannot be. B) it is.", "B"),
        ("Answer: option **C**", "C"),
        ("**Answer:** C", "C"),
        ("Answer B, for A barks", "B"),
        ("The answer is A dog", "B"),
        ("Paris is wrong, the answer is a dog", "B"),
        ("Paris is wrong; a dog", "B"),
        ("neither A nor B", None),
        ("It is not a dog", None),
        ("A or B? B.", None),
        ("The answer is A or B", None),
        ("Option A or option B", None),
        ("A, B or C", None),
        ("Paris or a dog", None),
    ],
)
def test_the_option_that_an_answer_decides_for(text: str, letter: str | None) -> None:
    objective = MultipleChoice(MultipleChoiceOptions())
    assert objective.answered(text, Question((), (), "", OPTIONS)) == letter


@settings(deadline=None)
@given(
    st.sampled_from("ABCD"),
    st.sampled_from("ABCD"),
    st.sampled_from(["Option {} is wrong, so ", "Not {}. ", "It isn't {}; ", "I thought of {} first, but "]),
    st.sampled_from(["the answer is {}.", "the correct answer is ({})", "Answer: {}", "the answer is option {}"]),
)
def test_the_verdict_decides_whatever_is_weighed_before_it(one: str, other: str, weighed: str, verdict: str) -> None:
    objective = MultipleChoice(MultipleChoiceOptions())
    text = weighed.format(one) + verdict.format(other)
    assert objective.answered(text, Question((), (), "", OPTIONS)) == other
