"""Raw text: every token is learned from those before it, or masked tokens from those around them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tailor.core.contracts import AnswersKind, Base, ExampleSeat, Head, OutputSpec, Said
from tailor.core.errors import refuse
from tailor.core.examples import Example, Text
from tailor.objectives.tokens import TokenObjective
from tailor.recipe.objectives import LanguageOptions


class Language(TokenObjective):
    """Language modelling, for continued pre-training; masked (Devlin et al. 2019) on bases that learn text that way."""

    name: ClassVar[str] = "language"
    example: ClassVar[type[Text]] = Text
    generates: ClassVar[bool] = False
    turns: ClassVar[bool] = False
    fits_head: ClassVar[bool] = True

    def __init__(self, options: LanguageOptions) -> None:
        super().__init__(options)
        self.head: Head = "tokens"

    def meet(self, base: Base) -> None:
        """Take the head that this base learns raw text through."""
        self.head = base.text_head

    @property
    def answers(self) -> AnswersKind:
        """Raw text, of which all tokens or the masked ones are predicted."""
        return "masked" if self.head == "masked" else "raw"

    @property
    def output(self) -> OutputSpec:
        """Logits of the next token, or of masked ones."""
        return OutputSpec(self.head, mask=self.options.mask, whole_words=self.options.whole_words)

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Text:
        """`text`, and `document: False` for a block cut out of a longer one."""
        text = row["text"]
        if not text.strip():
            raise refuse("empty", "the text is empty")
        return Text(id=seat.id, origin=seat.origin, text=text, document=row.get("document", True))

    def conclude(self, examples: Sequence[Example], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """How likely the text is; where a few tokens of it are guessed, nothing is known of its bytes."""
        said = super().conclude(examples, measured)
        return [replace(one, bytes=0) for one in said] if self.answers == "masked" else said
