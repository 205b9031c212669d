"""What makes two rows the same: exactly, when written a little differently, or on the side of the input alone."""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tailor.core.errors import refuse

Canonical = Mapping[str, Any]

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str).encode

_PUNCTUATION = ".,;:!?¡¿…'\"`´‘’“”«»‚„()[]{}_–—、。「」『』\u00ad\u200b"
_BLANKS = str.maketrans(_PUNCTUATION, " " * len(_PUNCTUATION))
"""What may differ between two spellings of one text. Signs of arithmetic and code stay: 2+2 is not 2-2."""


def normalise(text: str) -> str:
    """A text without differences of case, width, white space and punctuation; itself if nothing else is in it."""
    folded = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or text


def digest(text: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def canonical_json(row: Canonical) -> str:
    """A canonical row as one line, the same for equal rows.

    Raises:
        RowRefused: text that is no Unicode text (half of a surrogate pair), which no tokenizer takes.
    """
    line = _encode(row)
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise refuse("broken_unicode", f"holds half of a surrogate pair ({line[error.start]!r})") from error
    return line


def identity(form: str, row: Canonical) -> Canonical:
    """What a row's content is: the row itself; of a picture its bytes, wherever its file lies."""
    return {**row, "image": picture_key(row["image"])} if form == "images" else row


def picture_key(path: str) -> str:
    """The digest of a picture's file; its path where there is no such file, which is refused later on."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return path


def content_key(line: str) -> str:
    """The identity of a row's content: 16 hex digits of SHA-256 over its canonical JSON."""
    return hashlib.sha256(line.encode()).hexdigest()[:16]


def sides(form: str, row: Canonical) -> tuple[str, str]:
    """(input, target) of a row: what a model is given, and what it is to learn from it.

    For a conversation the input is everything before the last assistant turn but the system prompt: two conversations
    that ask the same are kept on one side of a split, two that merely begin with the same greeting, or share a
    system prompt, are not. Where a row has no input, all of it stands in for one.
    """
    given, target = _SIDES[form](row)
    return given if given.strip() else f"{given}{target}", target


def place(form: str, row: Canonical, given: str) -> str:
    """What decides on which side of a split a row falls. Questions about one context go together: the answer to one is
    read off the text of another."""
    return row["context"] if form == "span_qa" else given


def labels(form: str, row: Canonical) -> tuple[str, ...]:
    """The labels a row carries, for forms whose labels must all occur in training."""
    if form == "tagging":
        return tuple(sorted(set(row["tags"])))
    label = row.get("label")
    if form != "classification" or isinstance(label, float):
        return ()
    return (label,) if isinstance(label, str) else tuple(label or ())


def _turns(value: Any) -> str:
    """A text, or messages as text: who says what, with tool calls."""
    if isinstance(value, str):
        return value
    return "\n".join(
        f"{turn['role']}: {turn['content']}" + (_encode(turn["tool_calls"]) if "tool_calls" in turn else "")
        for turn in value
    )


def _chat(row: Canonical) -> tuple[str, str]:
    turns = [turn for turn in row["messages"] if turn["role"] != "system"]
    last = max((number for number, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    system = [turn for turn in row["messages"] if turn["role"] == "system"]
    return _turns(turns[:last]), _turns([*system, *turns[last:]])


def _written(row: Canonical) -> tuple[str, str]:
    return row["prompt"], row.get("system", "") + row["completion"]


def _preference(row: Canonical) -> tuple[str, str]:
    prompt = row["prompt"]
    asked = prompt if isinstance(prompt, str) else [turn for turn in prompt if turn["role"] != "system"]
    return _turns(asked), f"{_turns(row['chosen'])}\n{_turns(row['rejected'])}"


_SIDES: dict[str, Callable[[Canonical], tuple[str, str]]] = {
    "chat": _chat,
    "instruction": _written,
    "source_target": _written,
    "text": lambda row: (row["text"], ""),
    "classification": lambda row: ("\n".join(row["texts"]), _encode(row["label"])),
    "multiple_choice": lambda row: ("\n".join([row["question"], *row["options"]]), str(row["answer"])),
    "tagging": lambda row: (" ".join(row["tokens"]), " ".join(row["tags"])),
    "span_qa": lambda row: (f"{row['context']}\n{row['question']}", _encode(row["answers"])),
    "preference": _preference,
    "pairs": lambda row: (row["anchor"], "\n".join([row["positive"], *row["negatives"]])),
    "scored_pairs": lambda row: (f"{row['anchor']}\n{row['positive']}", str(row["score"])),
    "images": lambda row: (picture_key(row["image"]), row["caption"] or ""),
}
