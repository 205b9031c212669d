"""Recognising a form and putting its rows into one shape; rows that don't fit are refused with a reason."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.core.errors import DataError, RowRefused
from tailor.core.examples import Origin, Row
from tailor.data.canonical import BUILDERS
from tailor.data.columns import Form, recognise
from tailor.data.keys import canonical_json, labels, sides
from tailor.data.vocabulary import SPECS


def rows(*values: Mapping[str, Any]) -> list[Row]:
    return [Row(row, Origin("data.jsonl", number)) for number, row in enumerate(values, start=1)]


def form_of(*values: Mapping[str, Any], **options: Any) -> Form:
    return recognise(rows(*values), **options)


def refusal(form: Form, row: Mapping[str, Any]) -> tuple[str, str]:
    with pytest.raises(RowRefused) as caught:
        form.canonical(row)
    return caught.value.reason, caught.value.message


def turns(*pairs: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, str]]:
    return [{role: speaker, content: text} for speaker, text in pairs]


ASK, ANSWER = ("user", "Why?"), ("assistant", "Because.")
QA = turns(ASK, ANSWER)
SHARED_GPT = turns(("human", "Why?"), ("gpt", "Because."), role="from", content="value")
SCHEMA = {"name": "weather", "description": "…", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": SCHEMA}


class TestForms:
    @pytest.mark.parametrize(
        ("row", "form", "shape"),
        [
            ({"messages": QA}, "chat", {"messages": QA, "tools": []}),
            ({"conversations": SHARED_GPT}, "chat", {"messages": QA, "tools": []}),
            ({"messages": json.dumps(QA)}, "chat", {"messages": QA, "tools": []}),
            (
                {"system": "Be brief.", "conversations": SHARED_GPT, "tools": json.dumps([SCHEMA])},
                "chat",
                {"messages": [*turns(("system", "Be brief.")), *QA], "tools": [TOOL]},
            ),
            (
                {"prompt": QA + turns(("user", "And?")), "completion": turns(("assistant", "So."))},
                "chat",
                {
                    "messages": [QA[0], QA[1] | {"weight": 0.0}, *turns(("user", "And?"), ("assistant", "So."))],
                    "tools": [],
                },
            ),
            (
                {"instruction": "And?", "input": "", "output": "So.", "history": [["Why?", "Because."]]},
                "chat",
                {"messages": [*QA, *turns(("user", "And?"), ("assistant", "So."))], "tools": []},
            ),
            ({"prompt": "2+2=", "completion": "4"}, "instruction", {"prompt": "2+2=", "completion": "4"}),
            ({"prompt": "2+2=", "completion": 4}, "instruction", {"prompt": "2+2=", "completion": "4"}),
            ({"instruction": "Add", "input": "", "output": "4"}, "instruction", {"prompt": "Add", "completion": "4"}),
            (
                {"instruction": "Add", "input": "2 2", "output": "4", "system": "Count."},
                "instruction",
                {"prompt": "Add\n\n2 2", "completion": "4", "system": "Count."},
            ),
            ({"question": "2+2?", "answer": "4"}, "instruction", {"prompt": "2+2?", "completion": "4"}),
            ({"instruction": "Sum up", "context": "Long.", "response": "L"}, "instruction", None),
            ({"source": "ja", "target": "yes"}, "source_target", {"prompt": "ja", "completion": "yes"}),
            ({"document": "Long.", "summary": "L"}, "source_target", {"prompt": "Long.", "completion": "L"}),
            ({"article": "Long.", "highlights": "L", "id": "7"}, "source_target", None),
            ({"original_text": "Long.", "reference_summary": "L"}, "source_target", None),
            (
                {"source": ["One.", "Two."], "target": ["First.", "Second."]},
                "source_target",
                {"prompt": "One. Two.", "completion": "First.", "references": ["First.", "Second."]},
            ),
            ({"anchor": "A", "positive": "B"}, "pairs", {"anchor": "A", "positive": "B", "negatives": []}),
            (
                {"query": "A", "positive": "B", "negative": ["C", "D"]},
                "pairs",
                {"anchor": "A", "positive": "B", "negatives": ["C", "D"]},
            ),
            (
                {"query": "A", "passage": "B", "negative": "C"},
                "pairs",
                {"anchor": "A", "positive": "B", "negatives": ["C"]},
            ),
            ({"query": "A", "document": "B"}, "pairs", None),
            ({"query": "A", "passage": "B", "label": 1}, "classification", None),
            ({"sentence1": "A", "sentence2": "B", "score": 0.5}, "classification", {"texts": ["A", "B"], "label": 0.5}),
            ({"text": "Once."}, "text", {"text": "Once."}),
            ({"id": "7", "url": "u", "content": "Once."}, "text", {"text": "Once."}),
            ({"text": "Good", "label": "pos"}, "classification", {"texts": ["Good"], "label": "pos"}),
            ({"sentence": "Good", "label": 1}, "classification", {"texts": ["Good"], "label": "1"}),
            ({"review": "Good", "sentiment": True}, "classification", {"texts": ["Good"], "label": "true"}),
            ({"Review": "Good", "starRating": 4.5}, "classification", {"texts": ["Good"], "label": 4.5}),
            ({"text": "Good", "labels": ["a", "b", "a"]}, "classification", {"texts": ["Good"], "label": ["a", "b"]}),
            ({"condition_label": "1", "medical_abstract": "A"}, "classification", {"texts": ["A"], "label": "1"}),
            ({"premise": "A", "hypothesis": "B", "label": 0}, "classification", {"texts": ["A", "B"], "label": "0"}),
            ({"question": "A", "answer": "B", "label": 1}, "classification", {"texts": ["A", "B"], "label": "1"}),
            ({"tokens": ["A", "B"], "ner_tags": [0, 1]}, "tagging", {"tokens": ["A", "B"], "tags": ["0", "1"]}),
            ({"words": ["A"], "labels": ["O"]}, "tagging", {"tokens": ["A"], "tags": ["O"]}),
            (
                {"context": "in out", "question": "?", "answers": {"text": ["out"], "answer_start": [3]}},
                "span_qa",
                {"context": "in out", "question": "?", "answers": {"text": ["out"], "answer_start": [3]}},
            ),
            (
                {"context": "in out", "question": "?", "answers": [{"text": "out", "answer_start": 3}], "id": "7"},
                "span_qa",
                {"context": "in out", "question": "?", "answers": {"text": ["out"], "answer_start": [3]}},
            ),
            (
                {"prompt": "P", "chosen": "C", "rejected": "R"},
                "preference",
                {"prompt": "P", "chosen": "C", "rejected": "R"},
            ),
            (
                {"instruction": "P", "input": "I", "output": "C", "chosen": "C", "rejected": "R"},
                "preference",
                {"prompt": "P\n\nI", "chosen": "C", "rejected": "R"},
            ),
            (
                {"chosen": "\n\nHuman: Hi\n\nAssistant: C", "rejected": "\n\nHuman: Hi\n\nAssistant: R"},
                "preference",
                {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " C", "rejected": " R"},
            ),
            ({"image": "a/dog.jpg", "caption": "a dog"}, "images", {"image": "a/dog.jpg", "caption": "a dog"}),
        ],
    )
    def test_is_recognised(self, row: dict[str, Any], form: str, shape: dict[str, Any] | None) -> None:
        found = form_of(row, row)
        assert found.name == form
        made = found.canonical(row)
        assert shape is None or made == shape

    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": [QA[0]], "chosen": [QA[1]], "rejected": turns(("assistant", "No."))},
            {"prompt": "Why?", "chosen": [QA[1]], "rejected": turns(("assistant", "No."))},
            {"chosen": QA, "rejected": turns(ASK, ("assistant", "No."))},
            {"chosen_messages": QA, "rejected_messages": turns(ASK, ("assistant", "No."))},
            {"conversations": SHARED_GPT[:1], "chosen": SHARED_GPT[1], "rejected": {"from": "gpt", "value": "No."}},
            {"prompt": QA[:1], "chosen": "Because.", "rejected": "No."},
            {
                "input": {"messages": QA[:1], "tools": [], "parallel_tool_calls": True},
                "preferred_output": QA[1:],
                "non_preferred_output": turns(("assistant", "No.")),
            },
        ],
    )
    def test_preference_as_messages(self, row: dict[str, Any]) -> None:
        form = form_of(row)
        assert form.name == "preference"
        expected = {"prompt": QA[:1], "chosen": QA[1:], "rejected": turns(("assistant", "No."))}
        assert form.canonical(row) == expected

    def test_the_form_that_most_rows_have_is_taken(self) -> None:
        chat, pair = {"messages": QA}, {"prompt": "P", "completion": "C"}
        assert form_of(chat, pair, pair).name == "instruction"
        form = form_of(chat, chat, pair)
        assert form.name == "chat"
        assert refusal(form, pair) == ("missing_column", "there is no 'messages' (the row has: prompt, completion)")

    def test_numbers_in_a_csv_are_labels_unless_they_have_a_point(self) -> None:
        whole = [{"text": "a", "stars": "1"}, {"text": "b", "stars": "2"}]
        assert form_of(*whole).label == "class"
        form = form_of(*whole, {"text": "c", "stars": "2.5"})
        assert (form.label, form.problem, form.canonical(whole[0])["label"]) == ("number", "regression", 1.0)

    @pytest.mark.parametrize(
        ("form", "base", "objective"),
        [
            ("chat", "causal", "chat"),
            ("instruction", "causal", "instruction"),
            ("instruction", "encoder-decoder", "seq2seq"),
            ("source_target", "causal", "instruction"),
            ("source_target", "encoder-decoder", "seq2seq"),
            ("text", "causal", "language"),
            ("text", "encoder", "language"),
            ("classification", "encoder", "classification"),
            ("tagging", "encoder", "tagging"),
            ("span_qa", "encoder", "span_qa"),
            ("span_qa", "causal", "instruction"),
            ("preference", "causal", "preference"),
            ("images", "diffusion", "text_to_image"),
        ],
    )
    def test_what_it_teaches(self, form: str, base: str, objective: str) -> None:
        assert Form(form, {}).objective_for(base) == objective

    def test_an_objective_narrows_and_bends_the_form(self) -> None:
        labelled = {"text": "Good.", "label": "pos"}
        assert form_of(labelled, objective="language").canonical(labelled) == {"text": "Good."}
        pair = {"prompt": "Why?", "completion": "Because."}
        assert form_of(pair, objective="chat").canonical(pair) == {"messages": QA, "tools": []}
        rated = {"text": "Good.", "stars": 5.0}
        assert form_of(rated, objective="single_label").canonical(rated)["label"] == "5"
        listed = {"text": "Good.", "label": "a; b|c"}
        assert form_of(listed, objective="multi_label").canonical(listed)["label"] == ["a", "b", "c"]
        spans = {"context": "in out", "question": "?", "answers": {"text": ["out", "in"], "answer_start": [3, 0]}}
        asked = {"prompt": "in out\n\n?", "completion": "out", "references": ["out", "in"]}
        assert form_of(spans, objective="instruction").canonical(spans) == asked
        unanswerable = spans | {"answers": {"text": [], "answer_start": []}}
        made = form_of(unanswerable, objective="instruction").canonical(unanswerable)
        assert made["completion"] == "unanswerable"
        with pytest.raises(DataError, match="for the objective tagging"):
            form_of(labelled, objective="tagging")


class TestColumns:
    def test_an_output_column_of_few_recurring_values_is_a_label(self) -> None:
        few = [{"Ticket": f"T{number}", "Team": f"team {number % 3}"} for number in range(9)]
        form = form_of(*few, columns={"input": "Ticket", "output": "Team"})
        assert (form.name, form.columns) == ("classification", {"text": "Ticket", "label": "Team"})
        many = [{"Ticket": f"T{number}", "Team": f"team {number}"} for number in range(9)]
        form = form_of(*many, columns={"input": "Ticket", "output": "Team"})
        assert (form.name, form.columns) == ("instruction", {"prompt": "Ticket", "completion": "Team"})
        long = [{"Ticket": f"T{number}", "Reply": "Thank you. " * 20} for number in range(9)]
        assert form_of(*long, columns={"input": "Ticket", "output": "Reply"}).name == "instruction"

    @pytest.mark.parametrize(
        ("columns", "name", "roles"),
        [
            ({"text": "A", "label": "B"}, "classification", {"text": "A", "label": "B"}),
            ({"input": "A", "label": "B"}, "classification", {"text": "A", "label": "B"}),
            ({"text": "A", "text2": "C", "label": "B"}, "classification", {"text": "A", "text2": "C", "label": "B"}),
            ({"prompt": "A", "completion": "B"}, "instruction", {"prompt": "A", "completion": "B"}),
            ({"instruction": "A", "response": "B"}, "instruction", {"prompt": "A", "completion": "B"}),
            (
                {"instruction": "A", "input": "C", "output": "D"},
                "instruction",
                {"prompt": "A", "input": "C", "completion": "D"},
            ),
            ({"source": "A", "target": "B"}, "source_target", {"source": "A", "target": "B"}),
            ({"text": "A"}, "text", {"text": "A"}),
            ({"input": "A"}, "text", {"text": "A"}),
            ({"text": "A", "group": "B"}, "text", {"text": "A", "group": "B"}),
            (
                {"prompt": "A", "chosen": "C", "rejected": "D"},
                "preference",
                {"prompt": "A", "chosen": "C", "rejected": "D"},
            ),
        ],
    )
    def test_named_roles(self, columns: dict[str, str], name: str, roles: dict[str, str]) -> None:
        values = [{"A": f"a{n}", "B": "xy"[n % 2], "C": f"c{n}", "D": f"d{n}"} for n in range(6)]
        form = form_of(*values, columns=columns)
        assert (form.name, form.columns) == (name, roles)

    def test_what_is_not_named_is_found(self) -> None:
        values = [{"Body": f"a{n}", "label": "xy"[n % 2]} for n in range(6)]
        form = form_of(*values, columns={"text": "Body"})
        assert form.columns == {"text": "Body", "label": "label"}

    @pytest.mark.parametrize(
        ("columns", "message", "fix"),
        [
            ({"text": "Bdy"}, "no column 'Bdy'", "did you mean Body? columns are Body, id"),
            ({"txt": "Body"}, "no role 'txt'", "did you mean text? roles are input, output"),
            ({"tokens": "Body", "label": "id"}, "with tokens=Body, label=id", "say which is which"),
        ],
    )
    def test_wrong_ones(self, columns: dict[str, str], message: str, fix: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            form_of({"Body": "a", "id": "1"}, columns=columns)
        assert caught.value.fix.startswith(fix)


class TestQuestionsBack:
    @pytest.mark.parametrize(
        ("values", "code", "fix"),
        [
            (
                [{"Ticket": "A long text.", "Team": "ab"[n % 2], "Nr": n} for n in range(8)],
                "ambiguous_columns",
                "--columns input=Ticket,output=Team for both, --columns text=Ticket for raw text",
            ),
            (
                [{"v1": "ab"[n % 2], "v2": f"text {n}"} for n in range(8)],
                "unrecognised_columns",
                "--columns input=v2,output=v1",
            ),
            (
                [{"My ticket": f"text {n}", "our reply": f"answer {n} {n}"} for n in range(8)],
                "ambiguous_columns",
                "--columns 'input=My ticket,output=our reply' for both",
            ),
            (
                [{"question": f"text {n}", "sql": f"SELECT {n}"} for n in range(8)],
                "unrecognised_columns",
                "--columns input=question,output=sql",
            ),
            (
                [{"v1": f"text {n}", "v2, new": "ab"[n % 2]} for n in range(8)],
                "unrecognised_columns",
                'data.columns: {"input": "v1", "output": "v2, new"} in a recipe',
            ),
            ([{"said": f"text {n}"} for n in range(8)], "unrecognised_columns", "--columns text=said"),
            ([{"talk": QA, "name": "x"}] * 2, "unrecognised_columns", "--columns messages=talk"),
            (
                [{"text": f"text {n}", "Team": "ab"[n % 2]} for n in range(8)],
                "ambiguous_columns",
                "--columns input=text,output=Team for both, --columns text=text for raw text",
            ),
            (
                [{"text": f"text {n}", "topic": "ab"[n % 2], "stars": n % 5} for n in range(8)],
                "ambiguous_columns",
                "--columns text=text,label=topic",
            ),
            (
                [{"text": f"text {n}", "label": f"word {n}"} for n in range(20)],
                "ambiguous_columns",
                "--columns prompt=text,completion=label",
            ),
        ],
    )
    def test_hold_the_whole_argument(self, values: Sequence[dict[str, Any]], code: str, fix: str) -> None:
        with pytest.raises(DataError) as caught:
            form_of(*values)
        assert caught.value.code == code
        assert fix in caught.value.fix
        assert caught.value.where == "data.jsonl"
        for column in values[0]:
            assert caught.value.code != "unrecognised_columns" or column in caught.value.message

    def test_are_answered_by_the_argument(self) -> None:
        values = [{"text": f"text {n}", "label": f"word {n}"} for n in range(20)]
        assert form_of(*values, columns={"text": "text", "label": "label"}).name == "classification"
        assert form_of(*values, columns={"prompt": "text", "completion": "label"}).name == "instruction"
        values = [{"text": f"text {n}", "Team": "ab"[n % 2]} for n in range(8)]
        assert form_of(*values, columns={"text": "text"}).name == "text"
        assert form_of(*values, columns={"input": "text", "output": "Team"}).name == "classification"


CLASSES = Form("classification", {"text": "text", "label": "label"}, "class")
NUMBERS = Form("classification", {"text": "text", "label": "label"}, "number")
LISTS = Form("classification", {"text": "text", "label": "label"}, "list")
TAGS = Form("tagging", {"tokens": "tokens", "tags": "tags"})
SPANS = Form("span_qa", {"context": "context", "question": "question", "answers": "answers"})
PREFERENCES = Form("preference", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"})
WHOLE = Form("preference", {"chosen": "chosen", "rejected": "rejected"})


@pytest.mark.parametrize(
    ("form", "row", "reason", "message"),
    [
        (CLASSES, {"label": "x"}, "missing_column", "there is no 'text' (the row has: label)"),
        (CLASSES, {"text": None, "label": "x"}, "missing_value", "'text' has no value"),
        (CLASSES, {"text": float("nan"), "label": "x"}, "missing_value", "'text' has no value"),
        (CLASSES, {"text": " \n", "label": "x"}, "empty_text", "'text' is empty"),
        (CLASSES, {"text": 7, "label": "x"}, "wrong_type", "'text' holds a number, where a text should stand"),
        (CLASSES, {"text": ["a"], "label": "x"}, "wrong_type", "'text' holds a list, where a text should stand"),
        (CLASSES, {"text": "a", "label": None}, "missing_value", "'label' has no value"),
        (CLASSES, {"text": "a", "label": " "}, "missing_value", "'label' has no value"),
        (CLASSES, {"text": "a", "label": "nan"}, "missing_value", "'label' has no value"),
        (CLASSES, {"text": "a", "label": ["x"]}, "wrong_type", "'label' holds a list, where one label should stand"),
        (NUMBERS, {"text": "a", "label": "high"}, "wrong_type", "'label' holds 'high', not a number"),
        (NUMBERS, {"text": "a", "label": float("inf")}, "wrong_type", "'label' holds inf, not a number"),
        (NUMBERS, {"text": "a", "label": ""}, "missing_value", "'label' holds '', not a number"),
        (NUMBERS, {"text": "a", "label": True}, "wrong_type", "'label' holds True, not a number"),
        (LISTS, {"text": "a"}, "missing_value", "'label' has no value (write [] where no label applies)"),
        (LISTS, {"text": "a", "label": 7}, "wrong_type", "'label' holds a number, where a list of labels should stand"),
        (TAGS, {"tokens": ["a"], "tags": ["O", "O"]}, "unequal_lengths", "1 tokens and 2 tags"),
        (TAGS, {"tokens": "a", "tags": ["O"]}, "wrong_type", "'tokens' holds a text, not a list of tokens"),
        (
            TAGS,
            {"tokens": ["a", 1], "tags": ["O", "O"]},
            "wrong_type",
            "'tokens' holds something that is no text, or an empty one",
        ),
        (
            SPANS,
            {"context": "in out", "question": "?", "answers": {"text": ["out"], "answer_start": [4]}},
            "answer_not_in_context",
            "the context does not hold the answer 'out' at 4",
        ),
        (
            SPANS,
            {"context": "in", "question": "?", "answers": {"text": ["in"]}},
            "wrong_type",
            "'answers' does not hold as many `text` as `answer_start`",
        ),
        (
            PREFERENCES,
            {"prompt": "P", "chosen": "C", "rejected": "C"},
            "no_preference",
            "the chosen and the rejected answer are the same",
        ),
        (
            WHOLE,
            {"chosen": "C", "rejected": "R"},
            "no_prompt",
            "there is no prompt, and the two answers do not begin with the same one",
        ),
        (
            WHOLE,
            {"chosen": QA, "rejected": turns(("user", "What?"), ANSWER)},
            "no_prompt",
            "there is no prompt, and the two answers do not begin with the same one",
        ),
    ],
)
def test_a_row_that_does_not_fit(form: Form, row: dict[str, Any], reason: str, message: str) -> None:
    assert refusal(form, row) == (reason, message)


def test_an_empty_list_of_labels_is_one() -> None:
    assert LISTS.canonical({"text": "a", "label": []})["label"] == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "[1]", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "weight", "name", "text"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
ROLES = (
    "messages",
    "tools",
    "prompt",
    "completion",
    "history",
    "text",
    "label",
    "tokens",
    "tags",
    "context",
    "answers",
    "options",
    "answer",
)
MORE_ROLES = ("question", "chosen", "rejected", "source", "target", "image", "caption", "system", "input")


SPEC_OF = {"scored_pairs": "classification"}
"""Forms that an objective makes of another."""


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*ROLES, *MORE_ROLES]), JSON), st.sampled_from(sorted(BUILDERS)), st.data())
def test_whatever_a_row_holds_it_fits_or_is_refused(row: dict[str, Any], name: str, data: st.DataObject) -> None:
    required = next(spec for spec in SPECS if spec.form == SPEC_OF.get(name, name)).required
    columns = {role: role for role in {*required, *row} & {*ROLES, *MORE_ROLES}}
    form = Form(name, columns, data.draw(st.sampled_from(["class", "number", "list"])))
    with suppress(RowRefused):
        made = form.canonical(row)
        canonical_json(made)
        sides(name, made)
        labels(name, made)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"question": "q", "choices": ["x", "y", "z"], "answer": 2}, 2),  # MMLU
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),  # ARC
        (
            {
                "question_stem": "q",
                "options": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
                "answer": "B",
            },
            1,
        ),
        ({"ctx": "q", "endings": ["x", "y", "z", "w"], "label": "3"}, 3),  # HellaSwag
        ({"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "B", "answer": "y"}, 1),  # MedQA
        ({"passage": "p", "question": "q", "options": ["x", "y"], "answer": "(A)"}, 0),
        ({"question": "q", "options": ["10", "2"], "answer": "2"}, 1),
        ({"question": "q", "options": [10, 1], "answer": 1}, 1),
        ({"question": "q", "options": ["A fox", "x"], "answer": "A fox"}, 0),
    ],
)
def test_rows_with_options_of_their_own(row: dict[str, Any], place: int) -> None:
    rows = [Row(row, Origin("quiz.jsonl", number)) for number in (1, 2)]
    form = recognise(rows)
    assert form.name == "multiple_choice"
    canonical = form.canonical(row)
    assert canonical["answer"] == place
    assert canonical["question"] == ("p\n\nq" if "passage" in row else "q")
    assert all(isinstance(option, str) for option in canonical["options"])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"answer": "w"}, "no_such_option"),
        ({"answer": 3}, "no_such_option"),
        ({"answer": "D"}, "no_such_option"),
        ({"options": ["x"]}, "wrong_type"),
        ({"options": ["x", None]}, "wrong_type"),
        ({"options": [str(number) for number in range(27)]}, "too_many_options"),
    ],
)
def test_an_answer_that_is_none_of_the_options_is_refused(changed: dict[str, Any], code: str) -> None:
    row = {"question": "q", "options": ["x", "y", "z"], "answer": "z"}
    form = recognise([Row(row, Origin("quiz.jsonl", 1))])
    with pytest.raises(RowRefused) as raised:
        form.canonical(row | changed)
    assert raised.value.reason == code
