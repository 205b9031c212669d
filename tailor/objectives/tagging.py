"""A tag for each word: names, slots, parts of speech."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy

from tailor.core.contracts import AnswersKind, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Said
from tailor.core.errors import DataError
from tailor.core.examples import Features, Tagged
from tailor.nn.losses import cross_entropy_sum
from tailor.objectives.plain import PlainObjective
from tailor.recipe.options import Options

OUTSIDE = "O"


class Tagging(PlainObjective):
    """Token classification: a word is tagged at its first piece."""

    name: ClassVar[str] = "tagging"
    example: ClassVar[type[Tagged]] = Tagged
    answers: ClassVar[AnswersKind] = "tags"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.tags: tuple[str, ...] = ()

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The tag set, O first; every kind that begins somewhere can also go on."""
        found = {str(tag) for row in rows for tag in row["tags"]}
        found |= {f"I-{tag[2:]}" for tag in found if tag.startswith("B-")}
        if len(found) < 2:
            raise DataError("every word has the same tag: there is nothing to tell apart", where="data.train")
        self.tags = tuple(sorted(found, key=lambda tag: (tag != OUTSIDE, tag[2:], tag)))

    def adopt(self, labels: Sequence[str], row: Mapping[str, Any] | None = None) -> None:
        """The tags of a model that is already trained, in its order."""
        self.tags = tuple(labels)

    @property
    def output(self) -> OutputSpec:
        """One output per tag."""
        return OutputSpec("tags", self.tags)

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Tagged:
        """`tokens` and `tags`, as many of each."""
        return Tagged(id=seat.id, origin=seat.origin, words=tuple(row["tokens"]), tags=tuple(map(str, row["tags"])))

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Tagged:
        """A text whose tags are asked for, in words as white space parts them; the tags that it holds are any."""
        words = tuple(" ".join(texts).split())
        return Tagged(id=seat.id, origin=seat.origin, words=words, tags=(self.tags[0],) * len(words))

    def target(self, example: Tagged) -> list[int]:
        """The index of each word's tag."""
        return [self.tags.index(tag) for tag in example.tags]

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """Cross-entropy of each word's tag, in nats."""
        return cross_entropy_sum(outputs.logits, batch.targets, batch.weights)

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> tuple[list[str], float]:
        """The best tag of each word, and the summed loss of the right ones."""
        best = [self.tags[index] for index in logits.argmax(-1).tolist()]
        return best, float(cross_entropy(logits, targets, reduction="sum"))

    def conclude(self, examples: Sequence[Tagged], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """A tag per word; words beyond the context have none, which counts as O."""
        said = []
        for example, [(best, nats)] in zip(examples, measured, strict=True):
            beyond = (OUTSIDE,) * (len(example.words) - len(best))
            said.append(Said(example.tags, (*best, *beyond), nats, len(best)))
        return said

    def guess(self, examples: Sequence[Tagged]) -> tuple[str, Callable[[Tagged], tuple[str, ...]]]:
        """O everywhere; the most frequent tag where no word is O."""
        counts = Counter(tag for example in examples for tag in example.tags)
        usual = OUTSIDE if OUTSIDE in counts else min(counts, key=lambda tag: (-counts[tag], tag))
        return "all-O" if usual == OUTSIDE else "majority", lambda example: (usual,) * len(example.words)
