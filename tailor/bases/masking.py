"""Raw text for encoders: windows of it, and words hidden to be guessed (Devlin et al. 2019).

Which words are hidden is a function of the seed, the epoch and the window's id, never of the batch that it stands in.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from tailor.core.contracts import OutputSpec
from tailor.core.errors import BaseError, RecipeError, refuse
from tailor.core.examples import Features, Text

HIDDEN, SWAPPED = 0.8, 0.1
"""Shares of the chosen tokens that the mask stands for, and another token; the rest is left as it was."""

LONGEST_WORD = 8
"""Tokens that are hidden together at most: where no spaces part words, a tokenizer takes a sentence for one."""

NO_WORD = -1


@dataclass(frozen=True)
class Masking:
    """Windows of raw text and draws of masks, for one tokenizer."""

    tokenizer: Any

    @cached_property
    def ends(self) -> tuple[list[int], list[int]]:
        """The tokens that stand before and behind every row."""
        whole, bare = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        before = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
        return whole[:before], whole[before + len(bare) :]

    @cached_property
    def mask(self) -> int:
        """The token that stands for a hidden one; raises `BaseError` where the tokenizer has none."""
        if self.tokenizer.mask_token_id is None:
            raise BaseError("this tokenizer has no mask token, so nothing can be hidden", fix="choose another base")
        return int(self.tokenizer.mask_token_id)

    @cached_property
    def others(self) -> np.ndarray:
        """Tokens that may stand in another one's place."""
        return np.setdiff1d(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids)

    def windows(self, example: Text, window: int) -> list[Features]:
        """A text in rows of at most `window` tokens; `word` marks which word a token belongs to, -1 for none."""
        encoded = self.tokenizer(example.text, add_special_tokens=False)
        ids, words = list(encoded["input_ids"]), self._words(encoded)
        if max(words, default=NO_WORD) == NO_WORD:
            raise refuse("too_short", "the tokenizer knows no word of this text")
        before, after = self.ends
        room = window - len(before) - len(after)
        if room < 1:
            raise RecipeError(
                f"{window} tokens leave no room for text between this base's own marks", where="data.max_length"
            )
        rows = []
        for index, start in enumerate(range(0, len(ids), room)):
            shown, some = ids[start : start + room], words[start : start + room]
            learned = sum(word != NO_WORD for word in some)
            if not learned:
                continue
            row = [*before, *shown, *after]
            extras = {"token_type_ids": [0] * len(row)} if "token_type_ids" in encoded else {}
            marks = {"word": [NO_WORD] * len(before) + some + [NO_WORD] * len(after)}
            rows.append(Features(f"{example.id}/{index}", row, extras=extras, marks=marks, trained={"text": learned}))
        return rows

    def _words(self, encoded: Any) -> list[int]:
        """The word of each token, counted from 0; special and unknown tokens belong to none."""
        ids = encoded["input_ids"]
        owners = encoded.word_ids() if self.tokenizer.is_fast else list(range(len(ids)))
        special = set(self.tokenizer.all_special_ids)
        words: list[int] = []
        count, length = -1, 0
        for token, (before, owner) in zip(ids, pairwise([object(), *owners]), strict=True):
            length += 1
            if owner is None or owner != before or length > LONGEST_WORD:
                count, length = count + 1, 1
            words.append(NO_WORD if token in special else count)
        return words

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The same rows with words hidden; weight 1 stands where a token is to be guessed, `original` marks which."""
        return [self._drawn(row, output, key) for row in features]

    def _drawn(self, row: Features, output: OutputSpec, key: tuple[int, int]) -> Features:
        """Each word is chosen by itself with the share that is asked for, and one where chance chose none."""
        original, words = np.array(row.input_ids), np.array(row.marks["word"])
        known = words != NO_WORD
        units = words if output.whole_words else np.where(known, np.arange(len(words)), NO_WORD)
        seed = hashlib.sha256(f"{key[0]}/{key[1]}/{row.example_id}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(seed))
        there = np.unique(units[known])
        chosen = there[random.random(len(there)) < output.mask]
        hit = np.isin(units, chosen if len(chosen) else random.choice(there, 1))
        fate, strangers = random.random(len(words)), random.choice(self.others, len(words))
        seen = np.where(hit & (fate < HIDDEN), self.mask, original)
        seen = np.where(hit & (fate >= HIDDEN) & (fate < HIDDEN + SWAPPED), strangers, seen)
        marks = {**row.marks, "original": row.input_ids}
        return replace(row, input_ids=seen.tolist(), weights=hit.astype(float).tolist(), marks=marks)
