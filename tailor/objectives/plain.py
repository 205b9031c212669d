"""What most objectives share: nothing to learn from the rows beforehand, nothing to ask, nothing to compute in advance."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch

from tailor.core.contracts import Base, ExampleSeat, Question
from tailor.core.errors import BaseError
from tailor.core.examples import Example, Features
from tailor.core.prompts import Prompt
from tailor.recipe.options import Options


class PlainObjective:
    """Defaults; see `core.contracts.Objective`."""

    generates: ClassVar[bool] = False
    turns: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    needs_frozen: ClassVar[bool] = False
    fits_head: ClassVar[bool] = False
    on_overlong: ClassVar[Literal["error", "truncate"]] = "truncate"

    choices: tuple[str, ...] = ()
    prompt: Prompt | None = None

    def __init__(self, options: Options) -> None:
        self.options: Any = options

    def answered(self, text: str, question: Question) -> Any:
        """The text itself."""
        return text

    def bare(self, instruction: str) -> Prompt | None:
        """The user's instruction before the row as it is."""
        return Prompt(instruction) if instruction else None

    def under(self, prompt: Prompt | None) -> Self:
        """The same, asking by another prompt."""
        other = copy.copy(self)
        other.prompt = prompt
        return other

    def led(self, example: Any) -> Any:
        """What asks nothing has no prompt."""
        return example

    def meet(self, base: Base) -> None:
        """The same on every base."""

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Nothing to see beforehand."""

    def adopt(self, labels: Sequence[str], row: Mapping[str, Any] | None = None) -> None:
        """A model that is already trained brings no outputs of its own that could differ."""

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Example:
        """What cannot be read off a text alone cannot be predicted."""
        raise BaseError("this model predicts nothing of a text by itself", fix="use generate")

    def target(self, example: Any) -> Any:
        """The base's encoder knows the target."""
        return None

    def typed(self, question: Question) -> Question:
        """A user's question is like those of the rows."""
        return question

    def posed(self, question: Question) -> list[Question]:
        """The question as it is."""
        return [question]

    def questions(self, example: Any) -> list[Question]:
        """Nothing is asked: answers are read off."""
        return []

    def freeze(
        self, features: Features, logits: torch.Tensor, targets: torch.Tensor
    ) -> Mapping[str, tuple[float, ...]]:
        """Nothing is kept of the untrained model."""
        return {}

    def guess(self, examples: Sequence[Any]) -> tuple[str, Callable[[Any], Any]]:
        """A base without the head for it is no base for this objective."""
        raise BaseError(
            "a base without the head for this has nothing to be held against", fix="name another: --against"
        )
