"""Of two answers one is preferred: direct preference optimisation (Rafailov et al. 2023)."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import logsigmoid

from tailor.core.contracts import AnswersKind, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Question, Said
from tailor.core.examples import Features, Message, Preference
from tailor.nn.losses import preference_sum, reward_margins, sequence_log_probabilities
from tailor.objectives.chat import as_message
from tailor.objectives.plain import PlainObjective

REFERENCE = "reference"
"""Under this name the base's log-probabilities of both answers are kept."""

WANTED = "above 0"
"""What a margin should be, for readers of a report."""


class Preferring(PlainObjective):
    """The chosen answer is to gain on the rejected one, measured from the base."""

    name: ClassVar[str] = "preference"
    example: ClassVar[type[Preference]] = Preference
    turns: ClassVar[bool] = True
    needs_frozen: ClassVar[bool] = True
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"
    answers: ClassVar[AnswersKind] = "margin"

    @property
    def output(self) -> OutputSpec:
        """Next-token logits."""
        return OutputSpec("tokens")

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Preference:
        """`prompt`, `chosen` and `rejected`, each a text or a list of messages; `tools` and `system` where there are any."""
        system = (Message("system", row["system"]),) if row.get("system") else ()
        return Preference(
            id=seat.id,
            origin=seat.origin,
            prompt=system + _turns(row["prompt"], "user"),
            chosen=_turns(row["chosen"], "assistant"),
            rejected=_turns(row["rejected"], "assistant"),
            tools=tuple(row.get("tools") or ()),
        )

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """The sigmoid loss of each pair, in nats."""
        sizes = [size for parts in batch.parts for size in parts]
        found = sequence_log_probabilities(outputs.logits, batch.targets, batch.weights, sizes)
        return preference_sum(found.reshape(-1, 2), batch.frozen[REFERENCE], self.options.beta)

    def freeze(
        self, features: Features, logits: torch.Tensor, targets: torch.Tensor
    ) -> Mapping[str, tuple[float, ...]]:
        """The base's log-probabilities of the chosen and the rejected answer."""
        return {REFERENCE: tuple(_pair(features, logits, targets).tolist())}

    def questions(self, example: Preference) -> list[Question]:
        """The prompt, and the chosen answer as the one expected."""
        return [Question(example.prompt, example.tools, example.chosen[-1].content)]

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """The reward margin of the pair."""
        reference = torch.tensor(features.frozen[REFERENCE], device=logits.device)
        return float(reward_margins(_pair(features, logits, targets)[None], reference[None], self.options.beta))

    def conclude(self, examples: Sequence[Preference], measured: Sequence[Sequence[float]]) -> list[Said]:
        """The margin of each pair, and its loss."""
        return [Said(WANTED, margin, -float(logsigmoid(torch.tensor(margin))), 1) for [margin] in measured]


def _turns(value: Any, speaker: str) -> tuple[Message, ...]:
    """Messages, or a text that is one turn."""
    return (Message(speaker, value),) if isinstance(value, str) else tuple(as_message(turn) for turn in value)


def _pair(features: Features, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (2,) of the chosen and the rejected answer, from the rows of outputs of one pair."""
    ends = list(accumulate(features.parts))
    sides = [features.weights[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    learned = [[weight for weight in side if weight] for side in sides]
    weights = torch.tensor([weight for side in learned for weight in side], device=logits.device)
    return sequence_log_probabilities(logits, targets, weights, [len(side) for side in learned])
