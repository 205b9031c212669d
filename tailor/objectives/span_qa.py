"""The answer to a question as a span of its context, or none (Rajpurkar et al. 2016, 2018)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy, pad

from tailor.core.contracts import AnswersKind, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Said
from tailor.core.errors import DataError
from tailor.core.examples import Features, Span
from tailor.objectives.plain import PlainObjective

NONE = float("-inf")


@dataclass(frozen=True, slots=True)
class Found:
    """What one window says: its best span with its score, the score of no answer, and the loss of the right one."""

    score: float
    begin: int
    end: int
    null: float
    nats: float


class SpanQA(PlainObjective):
    """Extractive question answering; a context longer than a row is read in windows."""

    name: ClassVar[str] = "span_qa"
    example: ClassVar[type[Span]] = Span
    answers: ClassVar[AnswersKind] = "span"

    @property
    def output(self) -> OutputSpec:
        """Logits of the first and of the last token."""
        return OutputSpec("span")

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Span:
        """`question`, `context`, and `answers` as lists `text` and `answer_start`; none: the context does not tell."""
        answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        held = tuple((text, start) for text, start in answers if text.strip())
        return Span(id=seat.id, origin=seat.origin, question=row["question"], context=row["context"], answers=held)

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Span:
        """A question and its context; raises `DataError` where either is missing."""
        if len(texts) != 2:
            raise DataError("an answer is found for a question and its context", fix="give (question, context)")
        return Span(id=seat.id, origin=seat.origin, question=texts[0], context=texts[1], answers=())

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """Mean of the cross-entropies of the first and the last token; one unit of weight per window."""
        losses = _nats(outputs.logits, batch.targets)
        return LossSum((losses * batch.weights).sum(), float(batch.weights.sum()))

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> Found:
        """The best span of a window: the largest sum of both logits over all spans in the context up to the limit."""
        begin = torch.tensor(features.marks["begin"], device=logits.device)
        inside = begin >= 0
        first, last = logits[0, :, : len(begin)].masked_fill(~inside, NONE)
        widest = min(self.options.max_answer_tokens, len(begin))
        sums = first[:, None] + pad(last, (0, widest - 1), value=NONE).unfold(0, widest, 1)
        place, width = divmod(int(sums.argmax()), widest)
        return Found(
            score=float(sums[place, width]),
            begin=features.marks["begin"][place],
            end=features.marks["end"][min(place + width, len(begin) - 1)],
            null=float(logits[0, :, 0].sum()),
            nats=float(_nats(logits, targets)),
        )

    def conclude(self, examples: Sequence[Span], measured: Sequence[Sequence[Found]]) -> list[Said]:
        """The best span of all windows, unless no answer leads it by the threshold.

        The score of no answer is the smallest over the windows: most of them rightly lack the answer.
        """
        said = []
        for example, windows in zip(examples, measured, strict=True):
            best, null = max(windows, key=lambda found: found.score), min(found.null for found in windows)
            silent = best.score == NONE or null - best.score > self.options.null_threshold
            given = "" if silent else example.context[best.begin : best.end]
            references = tuple(dict.fromkeys(text for text, _ in example.answers))
            said.append(Said(references, given, sum(found.nats for found in windows), len(windows)))
        return said

    def guess(self, examples: Sequence[Span]) -> tuple[str, Callable[[Span], str]]:
        """No answer, always."""
        return "empty", lambda example: ""


def _nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logits (rows, 2, positions) and targets (rows, 2) to the mean loss of both ends of each row, (rows,)."""
    ends = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return ends.view(-1, 2).mean(1)
