"""Recognising a form and putting its rows into one shape; rows that don't fit are refused with a reason."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tailor.core.errors import DataError, RowRefused
from tailor.core.examples import Origin, Row
from tailor.data.columns import Form, recognise
from tailor.data.formats import BadRow
from tailor.data.load import peek
from tailor.data.read import read

SHARED = Path(__file__).parents[2] / "shared" / "data"
POCKET = Path(__file__).parents[1] / "tailor" / "bases" / "pocket" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data sets are not at {SHARED}")


def rows(*values: Mapping[str, Any]) -> list[Row]:
    return [Row(row, Origin("data.jsonl", number)) for number, row in enumerate(values, start=1)]


def form_of(*values: Mapping[str, Any], **options: Any) -> Form:
    return recognise(rows(*values), **options)


def canonical(row: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return form_of(row, **options).canonical(row)


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
CALL = {"name": "weather", "arguments": {"town": "Oslo"}}


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
            ({"text": "Once."}, "text", {"text": "Once."}),
            ({"id": "7", "url": "u", "content": "Once."}, "text", {"text": "Once."}),
            ({"text": "Good", "label": "pos"}, "classification", {"texts": ["Good"], "label": "pos"}),
            ({"sentence": "Good", "label": 1}, "classification", {"texts": ["Good"], "label": "1"}),
            ({"review": "Good", "sentiment": True}, "classification", {"texts": ["Good"], "label": "true"}),
            ({"Review": "Good", "starRating": 4.5}, "classification", {"texts": ["Good"], "label": 4.5}),
            ({"text": "Good", "labels": ["a", "b", "a"]}, "classification", {"texts": ["Good"], "label": ["a", "b"]}),
            ({"condition_label": "1", "medical_abstract": "A"}, "classification", {"texts": ["A"], "label": "1"}),
            ({"premise": "A", "hypothesis": "B", "label": 0}, "classification", {"texts": ["A", "B"], "label": "0"}),
            ({"sentence1": "A", "sentence2": "B", "score": 0.5}, "classification", {"texts": ["A", "B"], "label": 0.5}),
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


class TestChat:
    FORM = Form("chat", {"messages": "messages", "tools": "tools", "wanted": "label", "media": "images"})

    def messages(self, *raw: Any, **others: Any) -> list[dict[str, Any]]:
        return self.FORM.canonical({"messages": list(raw), **others})["messages"]  # type: ignore[no-any-return]

    @pytest.mark.parametrize("key", ["weight", "loss_weight", "train"])
    @pytest.mark.parametrize("weight", [0, 1, 0.5, True])
    def test_weights(self, key: str, weight: float) -> None:
        asked = QA[0] | {key: 0}
        made = self.messages(asked, QA[1] | {key: weight}, QA[0], QA[1])
        assert [turn.get("weight") for turn in made] == [None, float(weight), None, None]

    @pytest.mark.parametrize("key", ["thinking", "reasoning", "reasoning_content"])
    def test_thinking(self, key: str) -> None:
        assert self.messages(QA[0], QA[1] | {key: "Hm."})[1] == QA[1] | {"thinking": "Hm."}

    def test_parts(self) -> None:
        parts = [{"type": "text", "text": "Be"}, {"type": "text", "value": "cause."}]
        thought = [{"type": "reasoning", "value": "Hm."}, *parts]
        assert self.messages(QA[0], {"role": "assistant", "content": parts}) == QA
        made = self.messages(QA[0], {"role": "assistant", "content": thought, "loss_weight": 1.0})
        assert made[1] == QA[1] | {"thinking": "Hm.", "weight": 1.0}

    @pytest.mark.parametrize(
        "call",
        [
            {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "function_call": CALL},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"role": "assistant", "content": [{"type": "tool_call", "value": json.dumps(CALL)}]},
        ],
    )
    @pytest.mark.parametrize("answer", [{"role": "tool", "content": "-3"}, {"from": "observation", "value": "-3"}])
    def test_tool_calls(self, call: dict[str, Any], answer: dict[str, Any]) -> None:
        made = self.messages(QA[0], call, answer, QA[1])
        assert made[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
        assert made[2] == {"role": "tool", "content": "-3"}

    def test_arguments_ids_and_names_stay(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Oslo"}'}}
        answer = {"role": "tool", "content": "-3", "tool_call_id": "c1", "name": "weather"}
        made = self.messages(QA[0], {"role": "assistant", "content": "Wait.", "tool_calls": [call]}, answer, QA[1])
        assert made[1]["tool_calls"] == [{"name": "weather", "arguments": '{"town": "Oslo"}', "id": "c1"}]
        assert made[1]["content"] == "Wait."
        assert made[2] == answer

    def test_a_call_joins_the_turn_before_it(self) -> None:
        call = {"from": "function_call", "value": json.dumps(CALL)}
        made = self.messages(QA[0], QA[1], call, call)
        assert made == [QA[0], QA[1] | {"tool_calls": [CALL, CALL]}]

    def test_tools(self) -> None:
        for raw in ([TOOL], [SCHEMA], json.dumps([SCHEMA]), SCHEMA):
            assert self.FORM.canonical({"messages": QA, "tools": raw})["tools"] == [TOOL]
        for raw in (None, "", [], "[]"):
            assert self.FORM.canonical({"messages": QA, "tools": raw})["tools"] == []

    def test_a_system_that_answers_users_is_the_assistant(self) -> None:
        spoken = turns(("USER", "Why?"), ("SYSTEM", "Because."), role="speaker", content="utterance")
        assert self.messages(*spoken) == QA

    def test_empty_values_of_a_columnar_file_are_nothing(self) -> None:
        padding = {"weight": None, "tool_calls": None, "name": None, "thinking": None}
        assert self.messages(*[turn | padding for turn in QA]) == QA

    @pytest.mark.parametrize(
        ("raw", "reason", "message"),
        [
            ([], "no_messages", "no turns"),
            ("[{", "bad_messages", "not JSON"),
            (["Hi"], "bad_messages", "turn 1 is not an object"),
            (QA + turns(("assistant", "Also.")), "roles_out_of_order", "turns 2 and 3 are both the assistant's"),
            (turns(ASK), "no_assistant_turn", "nothing to learn"),
            (turns(("narrator", "Once.")), "unknown_role", "turn 1 is by 'narrator'; known are user, human"),
            ([{"content": "Hi"}], "unknown_role", "turn 1 is by None"),
            (turns(ASK, ("assistant", " ")), "empty_message", r"turn 2 \(assistant\) is empty"),
            ([QA[0] | {"content": 7}, QA[1]], "bad_messages", "content of turn 1 is neither"),
            ([QA[0] | {"content": [{"type": "image_url"}]}, QA[1]], "not_text", "part of type 'image_url'"),
            ([QA[0], QA[1] | {"weight": "much"}], "bad_weight", "'much'"),
            ([QA[0], QA[1] | {"weight": 0}], "nothing_weighted", "weight 0"),
            ([QA[0], {"from": "function_call", "value": "{"}], "bad_tool_call", "turn 2 is not JSON"),
            ([QA[0], {"from": "function_call", "value": "{}"}], "bad_tool_call", "names no function"),
        ],
    )
    def test_refusals(self, raw: Any, reason: str, message: str) -> None:
        with pytest.raises(RowRefused, match=message) as caught:
            self.FORM.canonical({"messages": raw})
        assert caught.value.reason == reason

    def test_refusals_of_the_rest_of_a_row(self) -> None:
        assert refusal(self.FORM, {"messages": QA, "tools": "nothing"})[0] == "bad_tools"
        assert refusal(self.FORM, {"messages": QA, "tools": [{"x": 1}]}) == ("bad_tools", "a tool has no name")
        assert refusal(self.FORM, {"messages": QA, "label": False})[0] == "unwanted_answer"
        assert refusal(self.FORM, {"messages": QA, "images": ["a.jpg"]})[0] == "not_text"
        assert refusal(self.FORM, {"messages": None}) == ("missing_value", "'messages' has no value")


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


# Data of others, where it lies beside the checkout

REAL: dict[str, tuple[str, int]] = {
    "medical_abstracts_tc/medical_tc_test.csv": ("classification", 0),
    "amazon_reviews_books_kitchen": ("classification", 0),
    "nlupp/banking": ("classification", 88),
    "nlupp/hotels": ("classification", 274),
    "sgd_train_sample/messages.jsonl": ("chat", 0),
    "sgd_train_sample/dialogues_002.json": ("chat", 0),
    "raschka_instruct": ("instruction", 0),
    "raschka_preference": ("preference", 6),
    "gsm8k_train": ("instruction", 0),
    "legal_summarization": ("source_target", 0),
    "scitldr_a/train.jsonl": ("source_target", 0),
    "scitldr_a/dev.jsonl": ("source_target", 0),
    "xquad_part1": ("span_qa", 0),
    "tinyshakespeare": ("text", 0),
    "the_verdict": ("text", 0),
    "wikitext2_valid/valid.txt": ("text", 0),
    "dreambooth_dev/dog": ("images", 0),
    "llama_factory_formats_a/alpaca_en_demo.json": ("instruction", 0),
    "llama_factory_formats_a/identity.json": ("instruction", 0),
    "llama_factory_formats_a/glaive_toolcall_en_demo.json": ("chat", 0),
    "llama_factory_formats_a/dpo_en_demo.json": ("preference", 0),
    "llama_factory_formats_a/kto_en_demo.json": ("chat", 150),
    "llama_factory_formats_a/mllm_demo.json": ("chat", 6),
    "fastchat_conversations/dummy_conversation.json": ("chat", 0),
}
ASKED = {
    "self_instruct_seed_tasks": "unrecognised_columns",
    "abcd_sample/abcd_sample.json": "unrecognised_columns",
    "fastchat_conversations/mt_bench_question.jsonl": "unrecognised_columns",
    "mts_dialog_train/MTS-Dialog-TrainingSet.csv": "ambiguous_columns",
    "clinc_oos/data_small.json": "several_lists",
    "sst_sentiment/stsa.binary.dev": "unknown_kind",
}


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_data_is_recognised(name: str) -> None:
    form_name, refused = REAL[name]
    records = [record for record in read(SHARED / name) if not isinstance(record, BadRow)]
    form = recognise(records)
    assert form.name == form_name
    count = 0
    for record in records:
        try:
            form.canonical(record.values)
        except RowRefused:
            count += 1
    assert count == refused


@needs_shared
def test_real_tool_calls() -> None:
    records = list(read(SHARED / "llama_factory_formats_a/glaive_toolcall_en_demo.json"))
    assert all(isinstance(record, Row) for record in records)
    form = recognise(records)  # type: ignore[arg-type]
    made = [form.canonical(record.values) for record in records]  # type: ignore[union-attr]
    calls = [call for row in made for turn in row["messages"] for call in turn.get("tool_calls", [])]
    assert len(calls) > 100
    assert all(isinstance(call["name"], str) and isinstance(call["arguments"], dict) for call in calls)
    defined = [{tool["function"]["name"] for tool in row["tools"]} for row in made]
    assert sum(bool(names) for names in defined) > 150
    roles = {turn["role"] for row in made for turn in row["messages"]}
    assert roles == {"user", "assistant", "tool"}


@needs_shared
@pytest.mark.parametrize("name", ASKED)
def test_real_data_that_needs_help_gets_a_question(name: str) -> None:
    with pytest.raises(DataError) as caught:
        peek(SHARED / name)
    assert caught.value.code == ASKED[name]
    assert caught.value.fix


@pytest.mark.parametrize("path", sorted(POCKET.glob("*.jsonl")), ids=lambda path: path.stem)
def test_embedded_data_is_recognised(path: Path) -> None:
    form = peek(f"pocket:{path.stem}")
    for record in read(path):
        assert isinstance(record, Row)
        form.canonical(record.values)
