"""Raw text: every token is learned from those before it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tailor.core.contracts import AnswersKind, ExampleSeat
from tailor.core.errors import refuse
from tailor.core.examples import Text
from tailor.objectives.tokens import TokenObjective


class Language(TokenObjective):
    """Language modelling, for continued pre-training."""

    name: ClassVar[str] = "language"
    example: ClassVar[type[Text]] = Text
    generates: ClassVar[bool] = False
    turns: ClassVar[bool] = False
    answers: ClassVar[AnswersKind] = "raw"

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Text:
        """`text`, and `document: False` for a block cut out of a longer one."""
        text = row["text"]
        if not text.strip():
            raise refuse("empty", "the text is empty")
        return Text(id=seat.id, origin=seat.origin, text=text, document=row.get("document", True))
