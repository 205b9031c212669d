"""Chat templates: the tokens are those of `apply_chat_template`, and what is learned is exactly what was said."""

import json
import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_recipe, save_llama, write_rows
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tailor.bases.chat import ChatTemplate, Segment, StopToken
from tailor.compose import prepare
from tailor.core.errors import BaseError, RecipeError, RowRefused
from tailor.core.examples import Conversation, Message, Origin, ToolCall

TEMPLATES = Path(__file__).parent / "templates"
SHARED = Path(__file__).parents[2] / "shared" / "data"
CHATML = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
ROLES = ["<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>", "<start_of_turn>", "<end_of_turn>"]
HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
MARKS = [*CHATML, *ROLES, *HEADERS, "<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>"]
WORDS = ["the user asks and the assistant answers with a few words about the weather in Paris "] * 3


@cache
def byte_level(trim_offsets: bool = False, marks: bool = True, newlines: bool = False) -> Any:
    """A byte-level BPE that adds a BOS of its own, with pad == eos."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim_offsets)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330 if not newlines else 340,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([text + "\n\n" * 4 * newlines for text in WORDS], trainer)
    bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=trim_offsets), bos])
    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    extra = {"extra_special_tokens": MARKS} if marks else {}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **specials, **extra)


@cache
def sentencepiece_like() -> Any:
    """Spaces as part of words, one put before every text, bytes for what is unknown; no pre-tokeniser."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *string.ascii_letters]
    merges = [("▁", "H"), ("▁H", "i"), ("▁", "b"), ("b", "y"), ("by", "e"), ("▁", "A")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *dict.fromkeys(a + b for a, b in merges)])}
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str, **rest: Any) -> Message:
    return Message("assistant", content, **rest)


def talk(*messages: Message, tools: Sequence[Any] = ()) -> Conversation:
    return Conversation(id="1", origin=Origin("test.jsonl", 1), messages=messages, tools=tuple(tools))


def own(name: str, tokenizer: Any = None, **settings: Any) -> ChatTemplate:
    """One of this folder's templates."""
    return ChatTemplate(tokenizer or byte_level(), template=str(TEMPLATES / f"{name}.jinja"), **settings)


def trained(segments: Sequence[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.trained]


def stock(tokenizer: Any, template: str, chat: Sequence[dict[str, Any]], **rest: Any) -> Any:
    """What transformers renders."""
    return tokenizer.apply_chat_template(list(chat), chat_template=template, return_dict=False, **rest)


def saved(template: ChatTemplate) -> Any:
    """The tokenizer as it comes out of the artefact's folder."""

    class Holder:
        chat_template = ""

    template.apply_to(Holder)
    return Holder.chat_template


def plain_chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(contents)]


TWO_TURNS = (user("Hi"), assistant(" Hello  you "), user("more"), assistant("bye"))
BUILT_IN = ("plain", "chatml")
# What is learned of TWO_TURNS, written by hand: a template that trims, one that writes a space, one with channels, …
LEARNED = {
    "after_result": [" Hello  you </s>", "bye</s>"],
    "bare": [" Hello  you", " bye"],
    "channels": ["<|channel|>final<|message|> Hello  you <|end|>", "<|channel|>final<|message|>bye<|return|>"],
    "generation": [" Hello  you <|im_end|>", "bye<|im_end|>"],
    "headers": ["Hello  you<|eot_id|>", "bye<|eot_id|>"],
    "inside_results": [" Hello  you <end_of_turn>", "bye<end_of_turn>"],
    "key_calls": [" Hello  you </s>", "bye</s>"],
    "last_only": [" Hello  you <|end|>", "bye<|end|></s>"],
    "late_system": ["  Hello  you </s>", " bye</s>"],
    "object_calls": [" Hello  you <|im_end|>", "bye<|im_end|>"],
    "strict": [" Hello  you</s>", " bye</s>"],
    "text_calls": [" Hello  you </s>", "bye</s>"],
    "think": [" Hello  you <|im_end|>", "bye<|im_end|>"],
    "think_always": ["\n</think>\n\n Hello  you <|im_end|>", "\n</think>\n\nbye<|im_end|>"],
    "think_cut": [" Hello  you </s>", "bye</s>"],
    "think_joined": [" Hello  you <|im_end|>", "bye<|im_end|>"],
    "turns": ["Hello  you<end_of_turn>", "bye<end_of_turn>"],
    "two_marks": [" Hello  you <|end|><|eot_id|>", "bye<|end|><|eot_id|>"],
    "plain": [" Hello  you </s>", "bye</s>"],
    "chatml": [" Hello  you <|im_end|>", "bye<|im_end|>"],
}
# Line breaks in one token are learned as a whole.
OTHERWISE = {
    ("think_always", "newlines merged"): ["\n\n</think>\n\n Hello  you <|im_end|>", "\n\n</think>\n\nbye<|im_end|>"],
}
TOKENIZERS = {
    "marks": byte_level,
    "trimmed offsets": lambda: byte_level(trim_offsets=True),
    "marks as text": lambda: byte_level(marks=False),
    "newlines merged": lambda: byte_level(newlines=True),
}


def test_every_template_of_this_folder_is_in_the_table() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.jinja")} | set(BUILT_IN) == set(LEARNED)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", LEARNED)
def test_tokens_and_what_is_learned_of_them(name: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    template = ChatTemplate(tokenizer, template=name) if name in BUILT_IN else own(name, tokenizer)
    chat = plain_chat(*(message.content for message in TWO_TURNS))
    rendered, segments = template.encode(talk(*TWO_TURNS)), template.render(talk(*TWO_TURNS))
    assert rendered.input_ids == stock(tokenizer, saved(template), chat)
    assert "".join(segment.text for segment in segments) == stock(tokenizer, saved(template), chat, tokenize=False)
    assert [token for segment in segments for token in segment.token_ids] == rendered.input_ids
    assert trained(segments) == OTHERWISE.get((name, kind), LEARNED[name])
    assert {role for role, weight in zip(rendered.roles, rendered.weights, strict=True) if weight} == {"assistant"}
    if name not in BUILT_IN and not name.startswith("think"):  # where nothing is set, the file itself renders the same
        assert rendered.input_ids == stock(tokenizer, (TEMPLATES / f"{name}.jinja").read_text(), chat)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", LEARNED)
def test_a_prompt_is_what_an_answer_followed_in_training(name: str, kind: str) -> None:
    template = ChatTemplate(TOKENIZERS[kind](), template=name) if name in BUILT_IN else own(name, TOKENIZERS[kind]())
    for messages in (TWO_TURNS, TWO_TURNS[2:]):
        rendered, prompt = template.encode(talk(*messages)), template.prompt(messages[:-1])
        assert rendered.input_ids[: len(prompt)] == prompt
        assert rendered.weights[len(prompt)] > 0
        assert all(rendered.weights[len(prompt) : len(prompt) + 2])
        assert not rendered.weights[len(prompt) - 1]


@pytest.mark.parametrize("name", LEARNED)
def test_the_saved_template_prompts_as_in_training(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level()
    template = ChatTemplate(tokenizer, template=name) if name in BUILT_IN else own(name)
    chat = plain_chat("Hi", "Hello", "more")
    tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    template.apply_to(reloaded)
    reloaded.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    asked = reloaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert asked == template.prompt([user("Hi"), assistant("Hello"), user("more")])


SYSTEM_FIRST = {"headers", "strict", "late_system", "object_calls", "think", "plain", "chatml"}


@pytest.mark.parametrize("name", sorted(SYSTEM_FIRST))
def test_a_system_message_is_given_and_not_learned(name: str) -> None:
    template = ChatTemplate(byte_level(), template=name) if name in BUILT_IN else own(name)
    segments = template.render(talk(Message("system", "Be brief."), *TWO_TURNS))
    assert trained(segments) == LEARNED[name]
    assert any("Be brief." in segment.text for segment in segments if not segment.trained)


def test_double_bos_does_not_happen() -> None:
    tokenizer = byte_level()
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id  # the danger is real
    for name in ("headers", "turns", "strict"):
        template = own(name)
        assert template.encode(talk(user("a"), assistant("b"))).input_ids.count(tokenizer.bos_token_id) == 1
        assert template.prompt([user("a")]).count(tokenizer.bos_token_id) == 1
    twice = ChatTemplate(tokenizer, template="{{ bos_token }}" + (TEMPLATES / "headers.jinja").read_text())
    assert "two BOS tokens" in twice.warnings[0]
    plain = ChatTemplate(tokenizer)
    assert plain.encode(talk(user("a"), assistant("b"))).input_ids[0] == tokenizer.bos_token_id


def test_the_stop_is_learned_by_position_when_pad_is_eos_and_when_a_user_writes_it() -> None:
    tokenizer = byte_level()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rendered = own("text_calls").encode(talk(user("what is </s>?"), assistant("a </s> token")))
    stops = [index for index, token in enumerate(rendered.input_ids) if token == tokenizer.eos_token_id]
    assert [rendered.weights[index] for index in stops] == [0.0, 1.0, 1.0]


def test_stop_tokens_are_those_of_the_turn() -> None:
    tokenizer = byte_level()
    expected = {
        "turns": (StopToken("<end_of_turn>", True), ["<end_of_turn>", "</s>"]),
        "generation": (StopToken("<|im_end|>", True), ["<|im_end|>", "</s>"]),
        "channels": (StopToken("<|return|>", True), ["<|return|>", "<|call|>", "<|end|>", "</s>"]),
        "last_only": (StopToken("<|end|></s>", True), ["</s>", "<|end|>"]),
        "two_marks": (StopToken("<|end|><|eot_id|>", True), ["<|eot_id|>", "</s>"]),
        "inside_results": (StopToken("<end_of_turn>", True), ["<end_of_turn>", "<|tool|>", "</s>"]),
        "strict": (StopToken("</s>", True), ["</s>"]),
        "bare": (StopToken(None, False), ["</s>"]),
    }
    for name, (stop, ends) in expected.items():
        template = own(name)
        assert (template.stop_token(), tokenizer.convert_ids_to_tokens(template.stop_ids())) == (stop, ends), name
    assert "ends an assistant's turn with nothing" in own("bare").warnings[0]
    assert not own("generation").warnings
    as_text = own("generation", byte_level(marks=False))
    assert as_text.stop_token() == StopToken("<|im_end|>", True)
    assert as_text.stop_ids() == [tokenizer.eos_token_id]
    assert "ordinary text" in as_text.warnings[0]


def test_generation_marks_that_leave_out_the_stop_do_not_keep_it_from_being_learned() -> None:
    source = (TEMPLATES / "generation.jinja").read_text()
    stop_inside = source.replace("message.content -}}{%- endgen", "message.content + '<|im_end|>' -}}{%- endgen")
    stop_inside = stop_inside.replace(
        "{{- '<|im_end|>\\n' -}}", "{{- '\\n' if message.role == 'assistant' else '<|im_end|>\\n' -}}"
    )
    tokenizer, chat = byte_level(), plain_chat("Hi", "Hello you", "more", "bye")
    masks = {}
    for name, template in (("outside", source), ("inside", stop_inside)):
        with_mask = {"return_dict": True, "return_assistant_tokens_mask": True}
        masks[name] = tokenizer.apply_chat_template(chat, chat_template=template, **with_mask)["assistant_masks"]
        messages = [Message(turn["role"], turn["content"]) for turn in chat]
        masks[f"ours {name}"] = ChatTemplate(tokenizer, template=template).encode(talk(*messages)).weights
    assert masks["ours outside"] == masks["ours inside"] == masks["inside"]
    assert sum(masks["inside"]) == sum(masks["outside"]) + 2


# ---- reasoning ----


def thoughtful(*thoughts: str | None) -> Conversation:
    turns = [(user(f"question {n}"), assistant(f"answer {n}", thinking=thought)) for n, thought in enumerate(thoughts)]
    return talk(*(message for turn in turns for message in turn))


def test_reasoning_in_the_data_is_learned() -> None:
    template = own("think", data_has_thinking=True)
    segments = template.render(thoughtful("so", "thus"))
    assert trained(segments) == ["answer 0<|im_end|>", "<think>\nthus\n</think>\n\nanswer 1<|im_end|>"]
    assert (
        "so" not in "".join(segment.text for segment in segments).split()
    )  # earlier reasoning: the template strips it
    assert not template.warnings
    # A row without reasoning learns to answer without, from the same prompt.
    assert trained(template.render(thoughtful(None))) == ["<think>\n\n</think>\n\nanswer 0<|im_end|>"]
    asked = stock(byte_level(), saved(template), plain_chat("Hi"), add_generation_prompt=True, tokenize=False)
    assert asked.endswith("<|im_start|>assistant\n")
    assert template.prompt([user("Hi")]) == stock(
        byte_level(), saved(template), plain_chat("Hi"), add_generation_prompt=True
    )


def test_a_template_that_can_switch_reasoning_off_is_switched_off_for_data_without() -> None:
    for template in (
        own("think"),
        own("think", data_has_thinking=True, thinking="drop"),
        own("think", thinking="empty"),
    ):
        segments = template.render(thoughtful("so", "thus"))
        assert trained(segments) == ["answer 0<|im_end|>", "answer 1<|im_end|>"]
        assert segments[-3].text.endswith("assistant\n<think>\n\n</think>\n\n")
        asked = {"tokenize": False, "add_generation_prompt": True}
        assert stock(byte_level(), saved(template), plain_chat("Hi"), **asked).endswith("<think>\n\n</think>\n\n")
        # Whoever asks for reasoning still gets it.
        on = stock(byte_level(), saved(template), plain_chat("Hi"), enable_thinking=True, **asked)
        assert on.endswith("<|im_start|>assistant\n")


def test_a_base_that_always_thinks_is_warned_about() -> None:
    auto, empty = own("think_always"), own("think_always", thinking="empty")
    assert "always thinks" in auto.warnings[0]
    assert "data.thinking=empty" in auto.warnings[0]
    assert trained(auto.render(thoughtful(None))) == ["\n</think>\n\nanswer 0<|im_end|>"]
    assert trained(empty.render(thoughtful(None))) == ["answer 0<|im_end|>"]
    asked = stock(byte_level(), saved(empty), plain_chat("Hi"), add_generation_prompt=True, tokenize=False)
    assert asked.endswith("<think>\n\n</think>\n\n")
    learning = own("think_always", thinking="train")
    assert trained(learning.render(thoughtful("so"))) == ["so\n</think>\n\nanswer 0<|im_end|>"]
    assert not learning.warnings


def test_a_prompt_for_reasoning_leaves_the_block_open() -> None:
    template = own("think_joined", data_has_thinking=True)
    assert trained(template.render(thoughtful("so"))) == ["so\n</think>\nanswer 0<|im_end|>"]
    chat = plain_chat("Hi")
    assert template.prompt([user("Hi")]) == stock(byte_level(), saved(template), chat, add_generation_prompt=True)
    assert byte_level().decode(template.prompt([user("Hi")])).endswith("assistant\n<think>\n")
    assert trained(own("think_joined").render(thoughtful("so"))) == ["answer 0<|im_end|>"]


def test_reasoning_goes_between_think_tags_where_the_template_knows_none() -> None:
    template = own("headers", data_has_thinking=True)
    assert trained(template.render(thoughtful("so"))) == ["<think>\nso\n</think>\n\nanswer 0<|eot_id|>"]
    nowhere = own("think_cut", data_has_thinking=True)
    assert "no place for an assistant's reasoning" in nowhere.warnings[0]
    assert trained(nowhere.render(thoughtful("so"))) == ["answer 0</s>"]


def test_reasoning_and_answer_in_channels() -> None:
    template = own("channels", data_has_thinking=True)
    assert trained(template.render(thoughtful("so", "thus"))) == [
        "<|channel|>final<|message|>answer 0<|end|>",
        "<|channel|>analysis<|message|>thus<|end|><|start|>assistant<|channel|>final<|message|>answer 1<|return|>",
    ]


def test_turns_that_the_template_rewrites_later_are_warned_about() -> None:
    template = own("late_system")
    template.encode(talk(*TWO_TURNS))
    assert not template.warnings
    template.encode(talk(Message("system", "Be brief."), *TWO_TURNS))
    assert "writes earlier turns differently" in template.warnings[0]


def test_what_a_rewritten_turn_opens_with_is_learned_as_in_the_last_one() -> None:
    """The system's words stand in the last question, so the first answer does not follow its generation prompt."""
    source = """{%- for m in messages[1:] -%}
    {{- '<|start|>' + m.role + ('<|channel|>final' if m.role == 'assistant' else '') + '<|message|>' -}}
    {{- (messages[0].content if m.role == 'user' and loop.index0 >= loop.length - 2 else '') + m.content + '<|end|>' -}}
    {%- endfor -%}{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"""
    template = ChatTemplate(byte_level(), template=source)
    learned = trained(template.render(talk(Message("system", "Be brief."), *TWO_TURNS)))
    assert learned == ["<|channel|>final<|message|> Hello  you <|end|>", "<|channel|>final<|message|>bye<|end|>"]
    assert "writes earlier turns differently" in template.warnings[-1]


def test_a_header_is_never_learned_where_the_generation_prompt_leaves_it_out() -> None:
    source = (TEMPLATES / "two_marks.jinja").read_text()
    source = source.replace("if add_generation_prompt", "if add_generation_prompt and messages[-1].role == 'user'")
    template = ChatTemplate(byte_level(), template=source)
    messages = (user("Hi"), assistant("so"), Message("tool", "4"), assistant("Cold."))
    assert trained(template.render(talk(*messages))) == ["so<|end|><|eot_id|>", "Cold.<|end|><|eot_id|>"]
    prompt, rendered = template.prompt(messages[:-1]), template.encode(talk(*messages))
    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.weights[len(prompt)] == 1.0
    assert byte_level().decode(prompt).endswith("<|start|><|assistant|>")


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_spaces_before_an_answer_are_the_prompts(trim_offsets: bool) -> None:
    source = (
        "{% for m in messages %}{{ '[INST]' + m.content + '[/INST]  ' if m.role == 'user' else m.content + '</s>' }}"
    )
    template = ChatTemplate(byte_level(trim_offsets=trim_offsets), template=source + "{% endfor %}")
    rendered = template.encode(talk(user("Hi"), assistant("7"), user("Hi"), assistant("\n  8")))
    learned = [token for token, weight in zip(rendered.input_ids, rendered.weights, strict=True) if weight]
    assert byte_level().decode(learned) == "7</s>\n  8</s>"


def test_a_turn_whose_surroundings_depend_on_it_is_refused() -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ 'short ' if m.content | length < 5 }}{{ m.content }}</s>{% endfor %}"
    )
    template = ChatTemplate(byte_level(), template=source + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    assert trained(template.render(talk(user("a question"), assistant("an answer")))) == ["an answer</s>"]
    assert trained(template.render(talk(user("a question"), assistant("no")))) == ["short no</s>"]
    vanishing = "{% for m in messages if m.content %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    refused = ChatTemplate(byte_level(), template=vanishing)
    with pytest.raises(RowRefused, match="turn 2 in a way that depends on what it says") as caught:
        refused.encode(talk(user("a question"), assistant("")))
    assert caught.value.reason == "template"


# ---- tools ----

WEATHER = {"name": "weather", "description": "Now.", "parameters": {"type": "object", "properties": {}}}
ARGUMENTS = '{"in": "Köln \\"Süd\\"", "days": 2}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
CALLS = {
    "object_calls": f"{CALL}<|im_end|>",
    "inside_results": f"<tool_call>weather{ARGUMENTS}</tool_call><|tool|>",
    "after_result": f"<tool_call>weather{ARGUMENTS}</tool_call></s>",
    "text_calls": f"<tool_call>weather\n```json\n{ARGUMENTS}\n```</tool_call></s>",
    "key_calls": '<tool_call>weather<in>Köln "Süd"</in><days>2</days></tool_call></s>',
    "think": f"\n{CALL}<|im_end|>",
    "channels": f" to=weather<|channel|>commentary<|message|>{ARGUMENTS}<|call|>",
    "plain": f"{CALL}</s>",
    "chatml": f"{CALL}<|im_end|>",
}


@pytest.mark.parametrize("form", [dict, str])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_learned_with_their_stop_and_results_never(name: str, form: type) -> None:
    call = ToolCall("weather", ARGUMENTS if form is str else json.loads(ARGUMENTS), "callid123")
    template = ChatTemplate(byte_level(), template=name) if name in BUILT_IN else own(name)
    result = Message("tool", "4 degrees", tool_call_id="callid123", name="weather")
    messages = (user("Weather?"), assistant("", tool_calls=(call,)), result, assistant("Cold."))
    segments = template.render(talk(*messages, tools=[WEATHER]))
    assert trained(segments)[0] == CALLS[name]
    assert len(trained(segments)) == 2
    assert trained(segments)[1].split("<|message|>")[-1].startswith("Cold.")
    shown = "".join(segment.text for segment in segments if not segment.trained)
    assert "4 degrees" in shown
    ignored = any("does not show the model which tools" in note for note in template.warnings)
    assert ignored == ("Now." not in shown and name != "key_calls")


def test_a_generation_prompt_is_mended_only_where_it_is_wrong() -> None:
    template = own("after_result")
    call = assistant("", tool_calls=(ToolCall("weather", "{}"),))
    for messages in ((user("Hi"),), (user("Hi"), call, Message("tool", "4"))):
        rendered, prompt = template.encode(talk(*messages, assistant("Cold."))), template.prompt(messages)
        chat = [template._as_dict(message) for message in messages]
        assert rendered.input_ids[: len(prompt)] == prompt
        assert stock(byte_level(), saved(template), chat, add_generation_prompt=True) == prompt
        assert trained(template.render(talk(*messages, assistant("Cold."))))[-1] == "Cold.</s>"


def test_calls_are_learned_where_reasoning_and_results_are_rewritten_later() -> None:
    calls = (ToolCall("weather", {"in": "<|call|>"}),)
    turns = (user("Hi"), assistant("", tool_calls=calls, thinking="so"), Message("tool", "4<|call|>"))
    conversation = talk(*turns, assistant("Cold.", thinking="ah"), user("And now?"), assistant("Cold."))
    assert trained(own("channels", data_has_thinking=True).render(conversation)) == [
        ' to=weather<|channel|>commentary<|message|>{"in": "<|call|>"}<|call|>',
        "<|channel|>final<|message|>Cold.<|end|>",
        "<|channel|>final<|message|>Cold.<|return|>",
    ]
    learned = trained(own("think", data_has_thinking=True).render(conversation))
    assert learned[0].startswith("\n<tool_call>")
    assert learned[0].endswith("</tool_call><|im_end|>")
    assert learned[1:] == ["Cold.<|im_end|>", "<think>\n\n</think>\n\nCold.<|im_end|>"]


def test_two_calls_in_one_turn_with_content_that_looks_like_them() -> None:
    calls = (ToolCall("a", {"x": "</tool_call><|im_end|>\n"}), ToolCall("b", {}))
    messages = (
        user("<tool_call>"),
        assistant("Both:<|im_end|>", tool_calls=calls),
        Message("tool", "1"),
        assistant("ok"),
    )
    assert trained(own("object_calls").render(talk(*messages))) == [
        (
            'Both:<|im_end|><tool_call>\n{"name": "a", "arguments": {"x": "</tool_call><|im_end|>\\n"}}\n</tool_call>'
            '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call><|im_end|>'
        ),
        "ok<|im_end|>",
    ]


def test_calls_that_cannot_be_rendered_are_refused() -> None:
    def refusal(name: str, arguments: Any) -> RowRefused:
        with pytest.raises(RowRefused) as caught:
            own(name).encode(talk(user("Hi"), assistant("", tool_calls=(ToolCall("f", arguments),))))
        return caught.value

    assert refusal("headers", {}).reason == "template"
    assert "does not render tool calls" in refusal("headers", {}).message
    assert refusal("object_calls", "{oops").reason == "tool_arguments"


def test_a_second_template_for_tools_is_used_for_rows_with_tools() -> None:
    fresh = PreTrainedTokenizerFast(tokenizer_object=byte_level()._tokenizer, bos_token="<s>", eos_token="</s>")
    sources = {name: (TEMPLATES / f"{name}.jinja").read_text() for name in ("key_calls", "text_calls")}
    fresh.chat_template = {"default": sources["text_calls"], "tool_use": sources["key_calls"]}
    template = ChatTemplate(fresh)
    chat = plain_chat("Hi", "Hello")
    for tools in ([], [{"type": "function", "function": WEATHER}]):
        expected = fresh.apply_chat_template(chat, tools=tools or None, return_dict=False)
        assert template.encode(talk(user("Hi"), assistant("Hello"), tools=tools)).input_ids == expected


# ---- roles and weights ----


def refused(template: ChatTemplate, *messages: Message) -> RowRefused:
    with pytest.raises(RowRefused) as caught:
        template.encode(talk(*messages))
    return caught.value


def test_roles_out_of_order_are_refused() -> None:
    template = own("object_calls")
    twice = refused(template, user("a"), assistant("b"), assistant("c"))
    assert twice.reason == "roles"
    assert "turns 2 and 3" in twice.message
    assert refused(template, user("a")).reason == "nothing_to_train"
    assert refused(template, user("a"), assistant("b", weight=0)).reason == "nothing_to_train"
    own_words = refused(own("strict"), user("a"), user("b"), assistant("c"))
    assert own_words.reason == "template"
    assert "Turns must alternate, and a user begins." in own_words.message
    assert "Turns must alternate" in refused(own("strict"), assistant("a"), user("b"), assistant("c")).message
    assert "System turns are not supported." in refused(own("turns"), Message("system", "a"), *TWO_TURNS).message


def test_what_a_template_takes_is_taken() -> None:
    template = own("object_calls")
    assert trained(template.render(talk(assistant("Welcome."), user("a"), assistant("b"), user("c")))) == [
        "Welcome.<|im_end|>",
        "b<|im_end|>",
    ]
    assert trained(template.render(talk(user("a"), user("b"), assistant("c")))) == ["c<|im_end|>"]
    assert trained(template.render(talk(user("a"), assistant(""), user("b"), assistant("")))) == ["<|im_end|>"] * 2


def test_a_turns_weight_scales_its_loss_and_nobody_elses() -> None:
    messages = (user("a"), assistant("b", weight=0), Message("user", "c", weight=1.0), assistant("d", weight=0.25))
    template = own("turns")
    rendered = template.encode(talk(*messages))
    assert trained(template.render(talk(*messages))) == ["d<end_of_turn>"]
    assert set(rendered.weights) == {0.0, 0.25}
    assert {role for role, weight in zip(rendered.roles, rendered.weights, strict=True) if weight} == {"assistant"}


def test_every_token_has_a_role() -> None:
    messages = (Message("system", "be brief"), *TWO_TURNS, user("last"))
    rendered = own("object_calls").encode(talk(*messages))
    assert list(dict.fromkeys(rendered.roles)) == ["system", "user", "assistant"]
    text = byte_level().decode([t for t, r in zip(rendered.input_ids, rendered.roles, strict=True) if r == "system"])
    assert "be brief" in text
    assert "Hi" not in text


def test_the_first_token_is_never_learned() -> None:
    source = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    rendered = ChatTemplate(byte_level(), template=source).encode(talk(assistant("Hello"), user("x")))
    assert rendered.weights[0] == 0.0
    assert rendered.weights[1] == 1.0


# ---- which template ----


def test_a_base_without_a_template_gets_a_named_one() -> None:
    template = ChatTemplate(byte_level())
    assert (template.name, template.stop_token()) == ("plain", StopToken("</s>", True))
    segments = template.render(talk(user("Hi"), assistant("Hello")))
    assert [segment.text for segment in segments] == ["<s>### User:\nHi\n\n### Assistant:\n", "Hello</s>", "\n\n"]
    assert own("turns").name.endswith("turns.jinja")
    assert ChatTemplate(byte_level(), template="chatml").name == "chatml"


def test_wrong_templates_and_tokenizers_say_what_to_do() -> None:
    with pytest.raises(RecipeError, match="did you mean chatml"):
        ChatTemplate(byte_level(), template="chat-ml")
    with pytest.raises(BaseError, match="Expected an expression") as broken:
        ChatTemplate(byte_level(), template="{% if %}")
    assert "base.chat_template" in broken.value.fix
    with pytest.raises(BaseError, match="does not render what an assistant says"):
        ChatTemplate(byte_level(), template="{{ messages[0].content }}")
    endless = PreTrainedTokenizerFast(tokenizer_object=byte_level()._tokenizer)
    with pytest.raises(BaseError, match="no end-of-text token") as without_end:
        ChatTemplate(endless)
    assert "eos_token" in without_end.value.fix

    class Slow:
        is_fast = False

    with pytest.raises(BaseError, match="fast tokenizer"):
        ChatTemplate(Slow())


def test_a_space_that_tokenizers_join_to_a_word_is_learned_with_it() -> None:
    tokenizer = sentencepiece_like()
    template = own("strict", tokenizer)
    rendered = template.encode(talk(user("Hi"), assistant("bye")))
    answer = [token for token, weight in zip(rendered.input_ids, rendered.weights, strict=True) if weight]
    assert tokenizer.convert_ids_to_tokens(answer) == ["▁b", "y", "e", "</s>"]
    assert rendered.input_ids[: len(template.prompt([user("Hi")]))] == template.prompt([user("Hi")])
    assert rendered.input_ids == stock(tokenizer, saved(template), plain_chat("Hi", "bye"))


# ---- any conversation ----

TRIMMED = {"headers", "strict", "turns"}
WRITTEN = {"strict": (" ", "</s>"), "headers": ("", "<|eot_id|>"), "turns": ("", "<end_of_turn>")}
WRITTEN |= {"object_calls": ("", "<|im_end|>"), "generation": ("", "<|im_end|>"), "late_system": (" ", "</s>")}
WRITTEN |= {"text_calls": ("", "</s>"), "think": ("", "<|im_end|>"), "two_marks": ("", "<|end|><|eot_id|>")}
PIECES = [
    *MARKS,
    "</s>",
    "<s>",
    "[INST]",
    "[/INST]",
    "assistant",
    "Tailorsentinel",
    "user\n",
    "{{ x }}",
    "日本",
    "😀",
    "é",
]
CONTENT = st.lists(st.one_of(st.sampled_from([*PIECES, "\n", " ", "\r\n", "\t"]), st.text(max_size=6)), max_size=5).map(
    "".join
)


@cache
def measured(name: str) -> ChatTemplate:
    return own(name)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(WRITTEN)), contents=st.lists(CONTENT, min_size=2, max_size=7))
def test_whatever_is_said_is_what_is_learned(name: str, contents: list[str]) -> None:
    template, chat = measured(name), plain_chat(*contents)
    conversation = talk(*(Message(turn["role"], turn["content"]) for turn in chat))
    rendered, segments = template.encode(conversation), template.render(conversation)
    assert rendered.input_ids == stock(byte_level(), saved(template), chat)
    before, stop = WRITTEN[name]
    said = [turn["content"].strip() if name in TRIMMED else turn["content"] for turn in chat[1::2]]
    assert trained(segments) == [before + content + stop for content in said]
    tokens = [token for token, weight in zip(rendered.input_ids, rendered.weights, strict=True) if weight]
    assert byte_level().decode(tokens) == byte_level().decode(
        [token for text in trained(segments) for token in byte_level()(text, add_special_tokens=False)["input_ids"]]
    )


# ---- the real files ----

REAL = SHARED / "chat_templates_a"
ENDED = {"alpaca": "{eos}", "vicuna": "{eos}", "zephyr": "{eos}", "mistral-instruct": "{eos}", "chatml": "<|im_end|>"}
ENDED |= {"llama-3-instruct": "<|eot_id|>", "phi-3": "<|end|>"}
NOT_ENDED = ("amberchat", "chatqa", "falcon-instruct", "solar-instruct")
SPACED = {"amberchat", "chatqa", "falcon-instruct", "mistral-instruct", "vicuna"}


@cache
def real_tokenizer(name: str) -> Any:
    folder = SHARED / name
    if not REAL.is_dir() or not folder.is_dir():
        pytest.skip(f"{REAL} and {folder} are not beside this checkout")
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("tokenizer_name", ["tokenizer_gpt2", "stories260k_llama/hf"])
@pytest.mark.parametrize("name", [*ENDED, *NOT_ENDED])
def test_real_templates_as_the_files_stand(name: str, tokenizer_name: str) -> None:
    tokenizer = real_tokenizer(tokenizer_name)
    source = (REAL / f"{name}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(tokenizer, template=str(REAL / f"{name}.jinja"))
    contents = ["Hi there", " Hello\r\n\r\nyou ", "more 日本", "Hi there"]
    chat = [{"role": "system", "content": "Be brief."}, *plain_chat(*contents)]
    messages = [Message(turn["role"], turn["content"]) for turn in chat]
    rendered, segments = template.encode(talk(*messages)), template.render(talk(*messages))
    for whose in (source, saved(template)):
        assert rendered.input_ids == stock(tokenizer, whose, chat)
    stop = ENDED.get(name, "").format(eos=tokenizer.eos_token)
    space, line = " " if name in SPACED else "", "\n" if name == "falcon-instruct" else "\r\n\r\n"
    assert trained(segments) == [f"{space}Hello{line}you{stop}", f"{space}Hi there{stop}"]
    assert template.stop_token() == (StopToken(stop, True) if stop else StopToken(None, False))
    prompt = template.prompt(messages[:-1])
    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.weights[len(prompt)] == 1.0
    assert stock(tokenizer, saved(template), chat, tokenize=False).startswith(
        stock(tokenizer, saved(template), chat[:-1], tokenize=False, add_generation_prompt=True)
    )
    with pytest.raises(RowRefused, match="Conversation roles must alternate") as caught:
        template.encode(talk(user("a"), user("b"), assistant("c")))
    assert caught.value.reason == "template"


@pytest.mark.parametrize("form", ["chat", "instruction"])
def test_reasoning_between_tags_in_a_text_is_reasoning(form: str, tmp_path: Path) -> None:
    """So that `drop` drops it, `auto` asks as it trains, and answers are compared without it."""
    answer = "<think>red things are warm</think>\n\nred"
    turns = [{"role": "user", "content": "which?"}, {"role": "assistant", "content": answer}]
    row = {"messages": turns} if form == "chat" else {"prompt": "which?", "completion": answer}
    data = write_rows(tmp_path / "rows.jsonl", [row] * 4)
    shown = {}
    for mode in ("auto", "drop"):
        recipe = make_recipe(save_llama(tmp_path / mode), data, tmp_path / "run", splits={"thinking": mode})
        prepared = prepare(recipe)
        example, _ = next(iter(prepared.held("train")))
        shown[mode] = trained(prepared.base.chat.render(example))
        assert prepared.objective.questions(example)[0].expected == "red"
    assert shown["auto"] == ["<think>\nred things are warm\n</think>\n\nred</s>"]
    assert shown["drop"] == ["red</s>"]
