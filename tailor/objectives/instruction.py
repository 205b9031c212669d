"""Single turn: an instruction and its answer, as the shortest conversation."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tailor.core.contracts import ExampleSeat, Question
from tailor.core.examples import Conversation, Message
from tailor.objectives.tokens import TokenObjective


class Instruction(TokenObjective):
    """Single-turn instruction tuning, through the chat template, so that serving renders what was trained."""

    name: ClassVar[str] = "instruction"
    example: ClassVar[type[Conversation]] = Conversation

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`prompt` and `completion`, with an optional `system` and the `thinking` before the completion."""
        system = (Message("system", row["system"]),) if row.get("system") else ()
        turns = (Message("user", row["prompt"]), Message("assistant", row["completion"], thinking=row.get("thinking")))
        return Conversation(id=seat.id, origin=seat.origin, messages=system + turns)

    def questions(self, example: Conversation) -> list[Question]:
        """The instruction, and its completion as the answer expected."""
        return self.posed(Question(example.messages[:-1], (), example.messages[-1].content))
