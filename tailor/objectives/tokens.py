"""What the objectives that learn tokens share: the loss, and how likely the reference is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import cross_entropy

from tailor.core.contracts import AnswersKind, Batch, LossSum, Outputs, OutputSpec, Question, Said
from tailor.core.examples import Conversation, Example, Features, Text
from tailor.nn.losses import cross_entropy_sum
from tailor.objectives.plain import PlainObjective


class TokenObjective(PlainObjective):
    """Cross-entropy on the tokens that carry weight."""

    generates: ClassVar[bool] = True
    turns: ClassVar[bool] = True
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"

    @property
    def answers(self) -> AnswersKind:
        """A text."""
        return "text"

    @property
    def output(self) -> OutputSpec:
        """Next-token logits."""
        return OutputSpec("tokens")

    def led(self, example: Any) -> Any:
        """A conversation behind the instruction; its assistant's turns are learned as before."""
        if self.prompt is None or not isinstance(example, Conversation):
            return example
        return replace(example, messages=self.prompt.apply(example.messages, 0))

    def posed(self, question: Question) -> list[Question]:
        """A question behind the prompt: with all its demonstrations, and for a short context with ever fewer of them."""
        if self.prompt is None:
            return [question]
        return [replace(question, messages=turns) for turns in self.prompt.variants(question.messages)]

    def guess(self, examples: Sequence[Any]) -> tuple[str, Callable[[Any], Any]]:
        """No answer to anything, where answers are texts."""
        if self.answers != "text":
            return super().guess(examples)
        return "empty", lambda example: ""

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """Weighted negative log-likelihood in nats, and the weight it sums over."""
        if outputs.unread is not None:
            total = outputs.unread.cross_entropy(batch.targets, batch.weights)
            return LossSum(total, float(batch.weights.sum()))
        return cross_entropy_sum(outputs.logits, batch.targets, batch.weights)

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, int]:
        """Summed negative log-likelihood in nats, and over how many tokens."""
        return float(cross_entropy(logits, targets, reduction="none").double().sum()), len(targets)

    def conclude(self, examples: Sequence[Example], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """How likely the reference is; what the model writes itself is asked for apart."""
        return [
            Said(None, None, sum(nats for nats, _ in parts), sum(count for _, count in parts), reference_bytes(example))
            for example, parts in zip(examples, measured, strict=True)
        ]


def reference_bytes(example: Example) -> int:
    """UTF-8 bytes of what is learned."""
    match example:
        case Text():
            return len(example.text.encode())
        case Conversation():
            answers = [message.content for message in example.messages if message.role == "assistant"]
            return sum(len(answer.encode()) for answer in answers)
    return 0
