"""Conversations for models that read a source and write a target: plain text, without a chat template.

Everything before the last assistant turn is the source, turn below turn; that turn is the target, with the end of a text
behind it, so that the model learns to stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailor.bases.chat import Segment, StopToken
from tailor.bases.lengths import Overlong
from tailor.core.errors import refuse
from tailor.core.examples import Conversation, Message

CUTS = ("truncate", "truncate_prompt")


@dataclass(frozen=True)
class SourceAndTarget:
    """A conversation as token ids; `weight` is the target's, `cut` how many tokens were cut off."""

    source: list[int]
    target: list[int]
    weight: float
    cut: int


class PlainTurns:
    """What `chat.ChatTemplate` is to causal models.

    The limit holds for source and target by themselves. `truncate_prompt` and `truncate` cut the source at its end, since
    what stands at its beginning tells the task (T5's prefixes) and most of a text (the head of an article); `truncate`
    cuts the target too, which then has no end to learn.

    Args:
        tokenizer: a transformers tokenizer.
        limit: the most tokens of a source, and of a target.
        on_overlong: what becomes of a longer one.
    """

    def __init__(self, tokenizer: Any, limit: int, on_overlong: Overlong) -> None:
        self.tokenizer, self.limit, self.on_overlong = tokenizer, limit, on_overlong
        self.warnings: list[str] = []
        if tokenizer.eos_token_id is None:
            self.warnings.append("the tokenizer has no end of a text, so the model will not know when to stop")

    def encode(self, conversation: Conversation) -> SourceAndTarget:
        """Token ids of both; raises `RowRefused`: `nothing_to_train`, `tools`, `overlong`, `dropped_overlong`."""
        given, answer = _parted(conversation)
        if any(message.role == "assistant" and message.weight != 0 for message in given):
            self._warn("an encoder-decoder learns a conversation's last answer only: earlier ones are given to it")
        if answer.thinking:
            self._warn("reasoning before answers is left out: an encoder-decoder learns the answers alone")
        weight = 1.0 if answer.weight is None else float(answer.weight)
        if weight <= 0:
            raise refuse("nothing_to_train", "the assistant's last turn has weight 0")
        source, target = self._ids(_source(given)), self._target(answer.content)
        if self.on_overlong not in CUTS and max(len(source), len(target)) > self.limit:
            code = "overlong" if self.on_overlong == "error" else "dropped_overlong"
            told = f"{len(source)} tokens of source and {len(target)} of target, and {self.limit} is the limit of each"
            raise refuse(code, told)
        if self.on_overlong == "truncate_prompt" and len(target) > self.limit:
            raise refuse("overlong", f"the answer alone does not fit: {len(target)} tokens are to be trained")
        kept = self._cut(source), target[: self.limit]
        return SourceAndTarget(*kept, weight, len(source) + len(target) - len(kept[0]) - len(kept[1]))

    def render(self, conversation: Conversation) -> list[Segment]:
        """The source, which is given, and the target, which is learned."""
        found = self.encode(conversation)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=False) for ids in (found.source, found.target)]
        return [
            Segment(texts[0], tuple(found.source), False),
            Segment("\n", (), False),
            Segment(texts[1], tuple(found.target), True),
        ]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """The source that an answer follows, cut as in training."""
        return self._cut(self._ids(_source(messages)))

    def stop_ids(self) -> list[int]:
        """The end of a text."""
        end = self.tokenizer.eos_token_id
        return [] if end is None else [end]

    def stop_token(self) -> StopToken:
        """What ends a target, which is always learned where there is such a token."""
        return StopToken(self.tokenizer.eos_token, self.tokenizer.eos_token is not None)

    def _warn(self, note: str) -> None:
        if note not in self.warnings:
            self.warnings.append(note)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def _target(self, text: str) -> list[int]:
        """As the tokenizer writes targets, which may begin with a language's mark; the end of a text always last."""
        ids = list(self.tokenizer(text_target=text, verbose=False)["input_ids"])
        ends = self.stop_ids()
        return ids if ids[-1:] == ends else ids + ends

    def _cut(self, source: list[int]) -> list[int]:
        """The source within the limit, where sources may be cut: the tokens at its end stay that stand behind every text."""
        excess = len(source) - self.limit
        if excess <= 0 or self.on_overlong not in CUTS:
            return source
        closing = source[-1:] if source[-1] in self.tokenizer.all_special_ids else []
        return source[: self.limit - len(closing)] + closing


def _parted(conversation: Conversation) -> tuple[tuple[Message, ...], Message]:
    """What is given, and the assistant's last turn."""
    messages = conversation.messages
    place = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=None)
    if place is None:
        raise refuse("nothing_to_train", "the assistant has no turn")
    if conversation.tools or any(message.tool_calls for message in messages):
        raise refuse("tools", "an encoder-decoder model has no form for tools and calls; choose a causal base")
    if not place:
        raise refuse("no_source", "nothing stands before the assistant's turn")
    return messages[:place], messages[place]


def _source(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.content)
