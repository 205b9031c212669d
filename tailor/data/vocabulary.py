"""The words that people use for columns and roles, as data. To recognise another habit, add a word here.

Column names are compared in lower case with `_` between words: `SystemPrompt`, `system-prompt` and `system prompt` are
`system_prompt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Names = tuple[str, ...]

MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "utterances", "chat")
TOOLS = ("tools", "functions")
SYSTEM = ("system", "system_prompt", "system_message")
HISTORY = ("history",)
MEDIA = ("images", "image", "audios", "audio", "videos", "video")
WANTED = ("label", "kto_tag")

PROMPT = ("prompt", "instruction", "question", "query", "input", "problem", "user_input")
MORE_INPUT = ("input", "context", "passage")
COMPLETION = ("completion", "response", "output", "answer", "solution", "reply")

SOURCE = ("source", "src", "source_text", "input_text")
TARGET = ("target", "tgt", "target_text")
LONG_TEXT = ("document", "article", "dialogue", "passage", "report", "text", "body", "content", "paragraph")
SHORT_TEXT = ("summary", "highlights", "tldr", "translation", "paraphrase", "simplification")

CHOSEN = ("chosen", "preferred_output", "chosen_messages", "preferred", "chosen_response")
REJECTED = ("rejected", "non_preferred_output", "rejected_messages", "dispreferred", "rejected_response")

TOKENS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "labels", "ner", "pos")

CONTEXT = ("context", "passage", "paragraph")
ANSWERS = ("answers", "answer")

ASKED = ("question", "question_stem", "stem", "query", "problem", "prompt", "ctx", "sentence", "input", "text")
OPTIONS = ("choices", "options", "answer_choices", "candidates", "endings", "alternatives")
RIGHT_OPTION = (
    *("answer", "answer_key", "correct_answer", "answer_index", "answer_idx", "correct", "label", "gold", "target"),
)

IMAGE = ("image", "image_path", "file_name")
CAPTION = ("caption", "text", "prompt", "description")

TEXT = (
    *("text", "sentence", "review", "content", "body", "comment", "document", "abstract", "utterance", "query"),
    *("message", "post", "tweet", "question", "passage", "article", "paragraph", "input", "prompt", "snippet", "email"),
    *(
        "ticket",
        "complaint",
        "feedback",
        "description",
        "transcript",
        "note",
        "headline",
        "statement",
        "claim",
        "title",
    ),
    *("story", "poem", "lyrics", "code", "markdown"),
)
RAW_TEXT = tuple(name for name in TEXT if name not in {"query", "question", "input", "prompt", "title", "headline"})
"""Names that are a text by themselves, and not half of something."""
LABEL = (
    *("label", "labels"),
    *("category", "categories", "class", "classes", "intent", "intents", "topic", "topics", "sentiment", "target"),
    *("stars", "score", "rating", "emotion", "emotions", "polarity", "toxicity", "stance", "genre", "department"),
    *("priority", "similarity", "relevance", "grade", "spam", "y", "gold_label", "gold", "tags"),
)
DECISIVE = {"label", "labels", "text"}
"""Names that win over every synonym of theirs; of several others for a label, none is preferred in silence."""

TEXT_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("sent1", "sent2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "answer"),
    ("question", "passage"),
    ("query", "document"),
    ("query", "passage"),
    ("claim", "evidence"),
)

ANCHOR_PAIRS = (
    (("anchor",), ("positive", "pos")),
    (("query",), ("positive", "pos", "positive_passage", "document", "doc", "passage")),
)
NEGATIVE = ("negative", "neg", "negatives", "hard_negative", "negative_passage")

BY_AFFIX = {"text", "label", "source", "target"}
"""Roles whose synonyms also count at the beginning or end of a name: `condition_label`, `medical_abstract`."""

METADATA = {
    *(
        "id",
        "idx",
        "index",
        "uid",
        "guid",
        "uuid",
        "key",
        "url",
        "link",
        "date",
        "time",
        "timestamp",
        "created",
        "file",
    ),
    *("filename", "file_name", "path", "source", "split", "lang", "language", "meta", "metadata", "author", "licence"),
    *("license", "version", "domain", "dump", "hash", "subset", "dataset", "user", "name", "column_1", "length"),
}
"""Names of columns that describe a row and are nothing to learn."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a form needs: role -> the names its column goes by, most telling first."""

    form: str
    required: Mapping[str, Names]
    optional: Mapping[str, Names] = field(default_factory=dict)


SPECS = (
    Spec(
        "preference",
        {"chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": (*PROMPT, *MESSAGES), "input": MORE_INPUT, "system": SYSTEM, "tools": TOOLS},
    ),
    Spec(
        "chat",
        {"messages": MESSAGES},
        {"system": SYSTEM, "tools": TOOLS, "wanted": WANTED, "media": MEDIA},
    ),
    Spec(
        "multiple_choice",
        {"options": OPTIONS, "question": ASKED, "answer": RIGHT_OPTION},
        {"context": CONTEXT},
    ),
    Spec("tagging", {"tokens": TOKENS, "tags": TAGS}),
    Spec("span_qa", {"context": CONTEXT, "question": ("question", "query"), "answers": ANSWERS}),
    Spec("images", {"image": IMAGE}, {"caption": CAPTION}),
    *(Spec("classification", {"text": (one,), "text2": (two,), "label": LABEL}) for one, two in TEXT_PAIRS),
    Spec(
        "instruction",
        {"prompt": PROMPT, "completion": COMPLETION},
        {"input": MORE_INPUT, "system": SYSTEM, "history": HISTORY, "wanted": WANTED, "media": MEDIA, "tools": TOOLS},
    ),
    Spec("source_target", {"source": SOURCE, "target": TARGET}),
    Spec("source_target", {"source": LONG_TEXT, "target": SHORT_TEXT}),
    *(
        Spec("pairs", {"text": anchor, "positive": positive}, {"negative": NEGATIVE})
        for anchor, positive in ANCHOR_PAIRS
    ),
    Spec("classification", {"text": TEXT, "label": LABEL}, {"text2": ()}),
    Spec("text", {"text": RAW_TEXT}),
)
"""The forms, in the order in which they are tried."""

INPUT_ROLE = {
    "classification": "text",
    "pairs": "text",
    "text": "text",
    "instruction": "prompt",
    "preference": "prompt",
    "source_target": "source",
    "multiple_choice": "question",
}
OUTPUT_ROLE = {"classification": "label", "instruction": "completion", "multiple_choice": "answer"}
"""What `input` and `output` of a column map stand for in each form."""

ALIASES = {"instruction": "prompt", "response": "completion", "text1": "text", "anchor": "text"}
"""Further words that a column map may use for a role."""

ROLES = (
    *("input", "output", "text", "text2", "label", "prompt", "completion", "system", "history", "source", "target"),
    *(
        "messages",
        "tools",
        "tokens",
        "tags",
        "context",
        "question",
        "answers",
        "options",
        "answer",
        "chosen",
        "rejected",
        "image",
        "caption",
        "positive",
        "negative",
    ),
    "group",
)
"""The roles a column map may name."""

# Messages

ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text", "utterance")
THINKING_KEYS = ("thinking", "reasoning_content", "reasoning")
WEIGHT_KEYS = ("weight", "loss_weight", "train", "trainable")

SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model", "ai", "agent", "chatbot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), "call"),
}
"""What a turn's speaker is called -> who that is; `call` is an assistant's turn that is nothing but a tool call."""

# Objectives

OBJECTIVES = {
    "chat": "chat",
    "instruction": "instruction",
    "source_target": "instruction",
    "text": "language",
    "classification": "classification",
    "multiple_choice": "multiple_choice",
    "tagging": "tagging",
    "span_qa": "instruction",
    "preference": "preference",
    "images": "text_to_image",
    "pairs": "similarity",
}
"""What a form teaches a base, unless `FOR_BASE` says otherwise."""

FOR_BASE = {
    ("source_target", "encoder-decoder"): "seq2seq",
    ("instruction", "encoder-decoder"): "seq2seq",
    ("span_qa", "encoder-decoder"): "seq2seq",
    ("span_qa", "encoder"): "span_qa",
    ("classification", "endpoint"): "choice",
}

SERVES = {
    "language": {"text": "text"},
    "classification": {"classification": "classification"},
    "choice": {"classification": "classification"},
    "instruction": {"instruction": "instruction", "source_target": "source_target", "span_qa": "instruction"},
    "seq2seq": {"instruction": "instruction", "source_target": "source_target", "span_qa": "instruction"},
    "chat": {"chat": "chat", "instruction": "chat"},
    "multiple_choice": {"multiple_choice": "multiple_choice"},
    "tagging": {"tagging": "tagging"},
    "span_qa": {"span_qa": "span_qa"},
    "preference": {"preference": "preference"},
    "text_to_image": {"images": "images"},
    "similarity": {"pairs": "pairs", "classification": "scored_pairs"},
}
"""Objective -> the forms that can serve it, and the form that they are then given."""

PROBLEMS = {"single_label": "class", "multi_label": "list", "regression": "number"}
"""Classification problems -> what their label is."""
