"""Rows longer than the model takes: cut, refused or counted, never in silence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tailor.core.errors import refuse

RAW_TEXT_LIMIT = 1024
"""Tokens of a window of raw text where the context is longer and nothing else is asked: what fits most machines."""

Overlong = Literal["error", "truncate_prompt", "truncate", "drop"]
Row = tuple[list[int], list[float]]
"""Token ids and their weights."""


@dataclass(frozen=True)
class LengthPolicy:
    """The most tokens a row may have, and what becomes of a longer one."""

    limit: int
    on_overlong: Overlong

    def fit(self, ids: list[int], weights: list[float]) -> tuple[list[int], list[float], int]:
        """A row within the limit, and how many tokens were cut; raises `RowRefused`, also when nothing trained is left."""
        excess = len(ids) - self.limit
        if excess <= 0:
            return ids, weights, 0
        if self.on_overlong == "error":
            raise refuse("overlong", f"{len(ids)} tokens, and {self.limit} is the limit")
        if self.on_overlong == "drop":
            raise refuse("dropped_overlong", f"{len(ids)} tokens, and {self.limit} is the limit")
        if self.on_overlong == "truncate":
            ids, weights = ids[: self.limit], weights[: self.limit]
        else:
            ids, weights = _without_prompt_start(ids, weights, excess)
        if not any(weights):
            raise refuse("truncated_away", "truncation leaves nothing to train")
        return ids, weights, excess

    def fit_all(self, rows: Sequence[Row]) -> tuple[list[Row], int]:
        """Rows that belong together within the limit, each cut by what the longest has too much, and tokens cut in all."""
        longest = max(len(ids) for ids, _ in rows)
        if longest <= self.limit or self.on_overlong in ("error", "drop"):
            self.fit(*max(rows, key=lambda row: len(row[0])))
            return list(rows), 0
        if self.on_overlong == "truncate":
            parts = [self.fit(*row) for row in rows]
            return [(ids, weights) for ids, weights, _ in parts], sum(cut for *_, cut in parts)
        excess = longest - self.limit
        return [_without_prompt_start(ids, weights, excess) for ids, weights in rows], excess * len(rows)


def _without_prompt_start(ids: list[int], weights: list[float], excess: int) -> tuple[list[int], list[float]]:
    """Cut the tokens after the first one (a BOS, where there is one); the answer at the end stays whole."""
    first_trained = next(index for index, weight in enumerate(weights) if weight)
    if first_trained - 1 < excess:
        raise refuse("overlong", f"the answer alone does not fit: {len(ids) - first_trained} tokens are to be trained")
    return ids[:1] + ids[1 + excess :], weights[:1] + weights[1 + excess :]


def context_of(config: Any, tokenizer: Any) -> int:
    """The longest sequence a base takes: the smaller of what its config and its tokenizer state."""
    text = config.get_text_config()
    stated = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits = [value for value in (*stated, tokenizer.model_max_length) if isinstance(value, int) and 0 < value < 10**9]
    return min(limits) if limits else 2048
