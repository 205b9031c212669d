"""Texts that are read and not written, as an encoder (or a causal LM with a task head) takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailor.core.errors import refuse
from tailor.core.examples import Features, Labelled, Tagged


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
        if not cut and sum(first) < len(words):
            lost = next(index for index in range(len(words)) if index not in owners)
            raise refuse("no_token", f"the tokenizer makes nothing of the word {words[lost]!r}")
        extras = self.extras(kept)
        return [Features(example.id, list(kept["input_ids"]), extras=extras, marks={"first": first}, truncated=cut)]

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
