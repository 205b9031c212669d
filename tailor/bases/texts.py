"""Texts that are read and not written, as an encoder (or a causal LM with a task head) takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from tailor.core.errors import BaseError, refuse
from tailor.core.examples import Features, Labelled, Pair, Span, Tagged

OVERLAP = 128
"""Tokens that two windows of a long context share at most, so that an answer at a seam is whole in one (BERT's own)."""

NO_ANSWER = (0, 0)
"""First and last token where a window does not hold the answer: the one that begins every row (Devlin et al. 2019)."""


@dataclass(frozen=True)
class TextReader:
    """Tokens of texts within a limit; rows that are longer are cut, refused or dropped, as asked."""

    tokenizer: Any
    limit: int
    on_overlong: str | None

    def labelled(self, example: Labelled) -> list[Features]:
        """One text, or two side by side."""
        whole = self.tokenizer(*example.texts)
        cut = self._excess(len(whole["input_ids"]))
        kept = self.tokenizer(*example.texts, truncation=True, max_length=self.limit) if cut else whole
        return [Features(example.id, list(kept["input_ids"]), extras=self.extras(kept), truncated=cut)]

    def compared(self, example: Pair) -> list[Features]:
        """The anchor, the other text and what is unlike it, each a row by itself, end to end in one feature.

        They have no `token_type_ids`, which are 0 for a text alone: what models take them to be anyway.
        """
        rows, cut = [], 0
        for text in (example.anchor, example.positive, *example.negatives):
            ids = list(self.tokenizer(text)["input_ids"])
            if excess := self._excess(len(ids)):
                ids, cut = list(self.tokenizer(text, truncation=True, max_length=self.limit)["input_ids"]), cut + excess
            rows.append(ids)
        together = [token for row in rows for token in row]
        return [Features(example.id, together, parts=tuple(map(len, rows)), truncated=cut)]

    def tagged(self, example: Tagged) -> list[Features]:
        """Words in pieces; `first` marks the piece at which a word is tagged (Devlin et al. 2019)."""
        words = list(example.words)
        whole = self.tokenizer(words, is_split_into_words=True)
        cut = self._excess(len(whole["input_ids"]))
        kept = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=self.limit) if cut else whole
        owners = kept.word_ids()
        first = [
            int(word is not None and word != before) for before, word in zip([None, *owners], owners, strict=False)
        ]
        seen = 1 + max((owner for owner in owners if owner is not None), default=-1)
        lost = next((index for index in range(seen if cut else len(words)) if index not in owners), None)
        if lost is not None:
            raise refuse("no_token", f"the tokenizer makes nothing of the word {words[lost]!r}")
        extras = self.extras(kept)
        return [Features(example.id, list(kept["input_ids"]), extras=extras, marks={"first": first}, truncated=cut)]

    def asked(self, example: Span) -> list[Features]:
        """A question beside each window of its context; the target is the answer's (first, last) token in the row.

        `begin` and `end` mark the characters of the context that a token stands for, -1 outside of it. The question is
        cut, where the recipe lets it be, at half a row.
        """
        encoded, cut = self._beside(example)
        owners = encoded.sequence_ids()
        if 1 not in owners:
            raise refuse("no_token", "the tokenizer makes nothing of the context")
        start, count = owners.index(1), owners.count(1)
        after = len(owners) - start - count
        offsets = encoded["offset_mapping"][start : start + count]
        spans = _with_marks(example.context, [_trimmed(example.context, *one) for one in offsets])
        answers = [_tokens_of(example.context, text, place, spans) for text, place in example.answers]
        lanes = {"input_ids": list(encoded["input_ids"]), **self.extras(encoded)}
        room, rows = self.limit - start - after, []
        for index, first in enumerate(_windows(count, room)):
            size = min(room, count - first)
            shown = slice(start + first, start + first + size)
            extras = {name: lane[:start] + lane[shown] + lane[start + count :] for name, lane in lanes.items()}
            inside = ((a - first, b - first) for a, b in answers if first <= a and b < first + size)
            begin, end = zip(*spans[first : first + size], strict=True)
            row = Features(
                f"{example.id}/{index}",
                extras.pop("input_ids"),
                extras=extras,
                marks={"begin": [-1] * start + [*begin] + [-1] * after, "end": [-1] * start + [*end] + [-1] * after},
                target=next(((start + a, start + b) for a, b in inside), NO_ANSWER),
                truncated=0 if index else cut,
            )
            rows.append(row)
        return rows

    def _beside(self, example: Span) -> tuple[Any, int]:
        """Question and context as one row of any length, and how many tokens of the question were cut."""
        if not self.tokenizer.is_fast:
            raise BaseError("this tokenizer does not tell which characters a token stands for", fix="another base")
        encoded = self.tokenizer(example.question, example.context, return_offsets_mapping=True)
        owners = encoded.sequence_ids()
        excess = len(owners) - owners.count(1) - self.limit // 2
        if excess <= 0:
            return encoded, 0
        self._excess(self.limit + excess)
        ends = [end for (_, end), owner in zip(encoded["offset_mapping"], owners, strict=True) if owner == 0]
        if excess >= len(ends):
            raise refuse("overlong", f"{self.limit} tokens are too few for a question and its context")
        shorter = example.question[: ends[-excess - 1]]
        return self.tokenizer(shorter, example.context, return_offsets_mapping=True), excess

    def _excess(self, length: int) -> int:
        """How many tokens are to be cut; raises `RowRefused` where the recipe wants no row cut."""
        excess = max(0, length - self.limit)
        if excess and self.on_overlong == "error":
            raise refuse("overlong", f"{length} tokens, and {self.limit} is the limit")
        if excess and self.on_overlong == "drop":
            raise refuse("dropped_overlong", f"{length} tokens, and {self.limit} is the limit")
        return excess

    @staticmethod
    def extras(encoded: Mapping[str, Any]) -> dict[str, list[int]]:
        """What the model's forward takes beside the ids."""
        return {"token_type_ids": list(encoded["token_type_ids"])} if "token_type_ids" in encoded else {}


def _windows(count: int, room: int) -> range:
    """Where windows of `room` tokens begin that cover `count` of them."""
    step = room - min(OVERLAP, room // 2)
    return range(0, max(1, count - room + step), step)


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    """A token's characters without white space (byte-level tokens carry it); (-1, -1) where none are left."""
    while begin < end and text[begin].isspace():
        begin += 1
    while begin < end and text[end - 1].isspace():
        end -= 1
    return (begin, end) if begin < end else (-1, -1)


def _with_marks(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tokens with the combining characters behind them that no token stands for.

    Tokenizers that take accents off drop vowels of Arabic, Hebrew and Thai with them, and an answer would lose its end.
    """
    covered = {place for begin, end in spans for place in range(begin, end)}
    found = []
    for begin, end in spans:
        while begin >= 0 and end < len(text) and end not in covered and category(text[end]).startswith("M"):
            end += 1
        found.append((begin, end))
    return found


def _tokens_of(context: str, answer: str, place: int, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first and the last token, counted from the context's first, of an answer that begins at a character."""
    begin, end = _trimmed(context, place, place + len(answer))
    inside = [index for index, (a, b) in enumerate(spans) if a < end and b > begin and a >= 0]
    if not inside:
        raise refuse("no_token", f"the tokenizer makes nothing of the answer {answer!r}")
    return inside[0], inside[-1]
