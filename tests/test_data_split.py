"""What is held back: a partition, stable, with repeats and groups on one side and every label in train."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailor.core.errors import DataError
from tailor.data.keys import digest, normalise, sides
from tailor.data.split import Splits, as_share, block_size, blocks, sizes, split

SHARES = st.one_of(st.just("auto"), st.sampled_from([0.0, 0.05, 0.1, 0.3]))
TABLES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12), st.lists(st.sampled_from("abcdef"), max_size=2, unique=True)),
    min_size=4,
    max_size=80,
)
"""(text, group, labels) of each row."""


def keys(names: Sequence[object]) -> list[int]:
    return [digest(str(name)) for name in names]


def sides_of(splits: Splits) -> dict[int, str]:
    """Row -> the split it is in; fails unless every row is in one."""
    rows = [(row, name) for name in ("train", "dev", "test") for row in getattr(splits, name)]
    assert len(rows) == len(dict(rows))
    return dict(rows)


@given(TABLES, SHARES, SHARES, st.integers(0, 3))
def test_it_is_a_partition_that_keeps_parts_together(
    table: list[tuple[int, int, list[str]]], dev: float | str, test: float | str, seed: int
) -> None:
    texts, groups, labels = zip(*table, strict=True)
    label_sets = [tuple(names) for names in labels]
    found = split(keys(texts), groups=list(map(str, groups)), labels=label_sets, dev=dev, test=test, seed=seed)
    side = sides_of(found)
    assert sorted(side) == list(range(len(table)))
    for one in (texts, groups):
        assert len({(name, side[row]) for row, name in enumerate(one)}) == len(set(one))
    trained = {label for row in found.train for label in labels[row]}
    assert trained == {label for names in labels for label in names}
    assert found.train
    want_dev, want_test = sizes(len(table), dev, test)
    for name, want in (("dev", want_dev), ("test", want_test)):
        held = getattr(found, name)
        assert bool(want) or not held
        assert held or not want or any(name in note for note in found.notes)


@given(st.lists(st.integers(), min_size=5, max_size=200, unique=True), st.sampled_from(["", "a", "ab", "abcd"]))
def test_sizes_are_exact_where_nothing_hangs_together(texts: list[int], names: str) -> None:
    labels = [(names[row % len(names)],) for row in range(len(texts))] if names else None
    assume(len(texts) >= 5 * max(len(names), 1))
    found = split(keys(texts), labels=labels)
    assert (len(found.dev), len(found.test)) == sizes(len(texts), "auto", "auto")
    assert not found.notes


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    table: list[tuple[int, int, list[str]]],
    random: "st.random.Random",  # type: ignore[name-defined]
) -> None:
    def sides_by_text(rows: list[tuple[int, int, list[str]]]) -> dict[tuple[int, int], str]:
        texts, groups, labels = zip(*rows, strict=True)
        found = split(keys(texts), groups=list(map(str, groups)), labels=[tuple(names) for names in labels], dev=0.2)
        return {(texts[row], groups[row]): name for row, name in sides_of(found).items()}

    shuffled = list(table)
    random.shuffle(shuffled)
    assert sides_by_text(table) == sides_by_text(shuffled)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(30, 400), st.integers(1, 30), st.integers(1, 5))
def test_new_rows_move_few_others(start: int, count: int, more: int, labels: int) -> None:
    texts = list(range(start, start + count + more))
    names = [(str(text % labels),) for text in texts]
    before = sides_of(split(keys(texts[:count]), labels=names[:count]))
    after = sides_of(split(keys(texts), labels=names))
    moved = sum(before[row] != after[row] for row in before)
    # A new row may take a place itself, and adds at most one place to each split; quotas shift by one per label.
    assert moved <= 2 * (more + labels + 1)


def test_another_seed_is_another_split() -> None:
    found = [split(keys(range(100)), seed=seed).test for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_labels_are_held_back_in_proportion() -> None:
    labels = [("rare",) if row % 10 == 0 else ("common",) for row in range(5000)]
    found = split(keys(range(5000)), labels=labels)
    for rows in (found.dev, found.test):
        assert Counter(labels[row] for row in rows) == {("rare",): 50, ("common",): 450}


def test_a_label_in_one_group_alone_is_trained() -> None:
    groups = [str(row // 10) for row in range(100)]
    labels = [("rare",) if group == "7" else ("common",) for group in groups]
    for seed in range(20):
        found = split(keys(range(100)), groups=groups, labels=labels, seed=seed)
        assert set(range(70, 80)) <= set(found.train)
        assert found.dev
        assert found.test


def test_large_groups_are_held_back_if_half_of_the_rows_stay() -> None:
    groups = [str(row // 100) for row in range(300)]
    found = split(keys(range(300)), groups=groups)
    assert [len(found.train), len(found.dev), len(found.test)] == [100, 100, 100]
    found = split(keys([0] * 50 + [1] * 10))
    assert (found.test, found.dev) == (list(range(50, 60)), [])
    assert len(found.notes) == 1
    assert found.notes[0].startswith("12 rows should be held back for dev, but none can be")
    found = split(keys(["same"] * 50))
    assert (len(found.train), len(found.notes)) == (50, 2)


@pytest.mark.parametrize(
    ("rows", "dev", "test", "expected"),
    [
        (3, "auto", "auto", (1, 1)),
        (5, "auto", "auto", (1, 1)),
        (10, "auto", "auto", (2, 2)),
        (100, "auto", "auto", (20, 20)),
        (1000, "auto", "auto", (200, 200)),
        (5000, "auto", "auto", (500, 500)),
        (100, "auto", 0.0, (40, 0)),
        (100, 0.0, "auto", (0, 40)),
        (1000, "auto", 0.0, (200, 0)),
        (100, "auto", 0.3, (10, 30)),
        (100, "auto", 0.5, (1, 50)),
        (100, 0.1, 0.25, (10, 25)),
        (4, 0.01, 0.01, (1, 1)),
        (1, 0.0, 0.0, (0, 0)),
    ],
)
def test_sizes(rows: int, dev: float | str, test: float | str, expected: tuple[int, int]) -> None:
    assert sizes(rows, dev, test) == expected


@pytest.mark.parametrize(
    ("rows", "dev", "test", "message"),
    [
        (2, "auto", "auto", "2 rows are too few to hold back dev and test"),
        (1, 0.0, "auto", "1 row is too few to hold back test"),
        (100, 0.5, 0.5, "100 rows are too few to hold back dev and test"),
    ],
)
def test_too_few_rows(rows: int, dev: float | str, test: float | str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        sizes(rows, dev, test)
    assert caught.value.fix == "add rows, or train on all of them: data.dev=0 data.test=0"


def test_shares_and_paths() -> None:
    assert [as_share(value) for value in ("auto", 0, "0", "0.1", 0.25)] == ["auto", 0.0, 0.0, 0.1, 0.25]
    assert as_share("dev.jsonl") is None
    for value in (1, "1.5", -0.1, "nan", 200):
        with pytest.raises(DataError, match=f"not {value}") as caught:
            as_share(value)
        assert "0.1 for a tenth" in caught.value.fix


class TestKeys:
    @pytest.mark.parametrize(
        "text",
        ["Hello, world!", "hello   WORLD", "“Hello” world…", "ｈｅｌｌｏ world", "hello\n(world).", "HELLO\u00a0World"],
    )
    def test_spellings_of_one_text(self, text: str) -> None:
        assert normalise(text) == "hello world"

    @pytest.mark.parametrize(("one", "two"), [("2+2", "2-2"), ("3.5", "35"), ("a*b", "a/b"), ("!", "?"), ("👍", "👎")])
    def test_different_texts(self, one: str, two: str) -> None:
        assert normalise(one) != normalise(two)

    def test_the_input_of_a_conversation_is_what_comes_before_the_last_answer(self) -> None:
        system = {"role": "system", "content": "Be brief."}
        turns = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"))]
        more = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
        asked, said = sides("chat", {"messages": [system, *turns, *more]})
        assert asked == "user: Hi\nassistant: Hello\nuser: Why?"
        assert said == "system: Be brief.\nassistant: So."
        assert sides("chat", {"messages": turns[1:]})[0] == "assistant: Hello"


class TestBlocks:
    @given(st.text(alphabet="ab .\n\n\n", max_size=3000), st.integers(1, 200))
    def test_joined_they_are_the_text(self, text: str, size: int) -> None:
        pieces = list(blocks(text, size))
        assert "".join(piece for _, piece in pieces) == text
        for number, (line, piece) in enumerate(pieces):
            assert line == "".join(before for _, before in pieces[:number]).count("\n")
            assert piece.strip() or not text.strip()

    @given(st.lists(st.sampled_from(["word", "x", "sentence.", "longerword"]), min_size=50, max_size=500))
    def test_they_are_about_as_long_as_asked(self, words: list[str]) -> None:
        pieces = [piece for _, piece in blocks(" ".join(words), 100)]
        assert all(74 <= len(piece) <= 152 for piece in pieces[:-1])
        assert len(pieces[-1]) <= 152

    def test_they_end_at_paragraphs_lines_sentences_words(self) -> None:
        for mark in ("\n\n", "\n", ". ", " "):
            text = mark.join(["x" * 45] * 40)
            assert all(piece.endswith(mark) for _, piece in list(blocks(text, 100))[:-1])

    @pytest.mark.parametrize(
        ("characters", "size"), [(20, 4), (1000, 200), (2500, 500), (20_000, 500), (1_000_000, 2500), (10**8, 20_000)]
    )
    def test_size(self, characters: int, size: int) -> None:
        assert block_size(characters) == size
