"""Conversations, however they are written down, come out as one list of messages."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tailor.core.errors import RowRefused
from tailor.data.columns import Form


def turns(*pairs: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, str]]:
    return [{role: speaker, content: text} for speaker, text in pairs]


def refusal(form: Form, row: Mapping[str, Any]) -> tuple[str, str]:
    with pytest.raises(RowRefused) as caught:
        form.canonical(row)
    return caught.value.reason, caught.value.message


ASK, ANSWER = ("user", "Why?"), ("assistant", "Because.")
QA = turns(ASK, ANSWER)
SCHEMA = {"name": "weather", "description": "…", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": SCHEMA}
CALL = {"name": "weather", "arguments": {"town": "Oslo"}}


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

    @pytest.mark.parametrize(
        ("content", "thinking", "answer"),
        [
            ("<think>\nHm.\n</think>\n\nBecause.", "Hm.", "Because."),
            ("Hm.</think>Because.", "Hm.", "Because."),  # the generation prompt has opened it
            ("<think>\n\n</think>\n\nBecause.", None, "Because."),
            ("Because <think>Hm.</think> so.", None, "Because <think>Hm.</think> so."),
            ("<think>Hm.</think>", None, "<think>Hm.</think>"),
            ("<think>Hm. Because.", None, "<think>Hm. Because."),
        ],
    )
    def test_thinking_between_tags(self, content: str, thinking: str | None, answer: str) -> None:
        made = self.messages(QA[0], QA[1] | {"content": content})[1]
        assert (made.get("thinking"), made["content"]) == (thinking, answer)
        row = Form("instruction", {"prompt": "p", "completion": "c"}).canonical({"p": "Why?", "c": content})
        assert (row.get("thinking"), row["completion"]) == (thinking, answer)
        asked = self.messages(QA[0] | {"content": content}, QA[1])[0]
        assert asked["content"] == content, "the tags of a user are text"

    def test_thinking_before_a_call(self) -> None:
        turn = {"role": "assistant", "content": "<think>Hm.</think>", "tool_calls": [CALL]}
        made = self.messages(QA[0], turn)[1]
        assert (made["thinking"], made["content"], made["tool_calls"]) == ("Hm.", "", [CALL])

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
