"""Source and target: the target is learned, given the source."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tailor.core.contracts import ExampleSeat, Question
from tailor.core.examples import Conversation, Message
from tailor.objectives.instruction import Instruction


class SeqToSeq(Instruction):
    """Summaries, translations and the like, with words before every source that tell the task, where T5 wants them."""

    name: ClassVar[str] = "seq2seq"

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`prompt` and `completion`, with an optional `system`."""
        example = super().read(row, seat)
        return replace(example, messages=self._prefixed(example.messages))

    def typed(self, question: Question) -> Question:
        """The question with the prefix before its first turn."""
        return replace(question, messages=self._prefixed(question.messages))

    def _prefixed(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        first, *rest = messages
        return (replace(first, content=self.options.prefix + first.content), *rest)
