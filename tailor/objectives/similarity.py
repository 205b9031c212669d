"""Vectors of texts: what belongs together points the same way (Reimers & Gurevych 2019)."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from tailor.core.contracts import AnswersKind, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Said
from tailor.core.errors import DataError
from tailor.core.examples import Features, Pair
from tailor.nn.losses import cosent_sum, in_batch_negatives_sum, squared_error_sum
from tailor.objectives.plain import PlainObjective
from tailor.recipe.options import Options

FIVE = 5.0
"""The top of the scale that likeness is often scored on (STS)."""


class Similarity(PlainObjective):
    """Pairs and triplets against all other texts of the batch, or pairs of texts by their scores."""

    name: ClassVar[str] = "similarity"
    example: ClassVar[type[Pair]] = Pair
    couples: ClassVar[bool] = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.scored = False
        self.top = 1.0
        self.groups: dict[str, list[str]] = {}

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Whether pairs are scored, and on which scale: up to 1, up to 5, or up to the highest score; texts by label."""
        if self.options.from_labels:
            for row in rows:
                self.groups.setdefault(str(row["label"]), []).append(row["texts"][0])
            return
        scores = [row["score"] for row in rows if "score" in row]
        self.scored = bool(scores)
        highest = max(scores, default=1.0)
        self.top = 1.0 if highest <= 1 else max(FIVE, highest)

    @property
    def answers(self) -> AnswersKind:
        """How alike two texts are, or the place of the right text among all."""
        return "score" if self.scored else "ranking"

    @property
    def output(self) -> OutputSpec:
        """A vector per text."""
        return OutputSpec("embedding")

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Pair:
        """`anchor` and `positive`, with `negatives` or a `score`."""
        if self.options.from_labels:
            return self._alike(row, seat)
        score = row["score"] / self.top if "score" in row else None
        texts = (row["anchor"], row["positive"], tuple(row.get("negatives", ())))
        return Pair(id=seat.id, origin=seat.origin, anchor=texts[0], positive=texts[1], negatives=texts[2], score=score)

    def _alike(self, row: Mapping[str, Any], seat: ExampleSeat) -> Pair:
        """A text and another one of its label, chosen by the row's id (Tunstall et al. 2022, SetFit)."""
        anchor, label = row["texts"][0], str(row["label"])
        others = [text for text in self.groups.get(label, ()) if text != anchor] or [anchor]
        chosen = int(hashlib.sha256(seat.id.encode()).hexdigest(), 16) % len(others)
        place = sorted(self.groups).index(label) if label in self.groups else len(self.groups)
        return Pair(id=seat.id, origin=seat.origin, anchor=anchor, positive=others[chosen], group=place)

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Pair:
        """Two texts of which it is asked how alike they are; raises `DataError` for any other number."""
        if len(texts) != 2:
            raise DataError("likeness is between two texts", fix="give (text, text), or use embed for vectors")
        return Pair(id=seat.id, origin=seat.origin, anchor=texts[0], positive=texts[1], score=0.0)

    def target(self, example: Pair) -> float | None:
        """The score, or the number of the group, where there is one."""
        return example.score if example.group is None else float(example.group)

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """In-batch negatives for pairs; for scored ones the cosine's squared error or CoSENT; one unit of weight each.

        A text that is the anchor's own, the anchor itself, or belongs to an anchor that reads the same, is no negative.
        """
        vectors = normalize(outputs.logits.float(), dim=-1)
        sizes = [len(part) for part in batch.parts]
        anchors = torch.tensor([0, *accumulate(sizes[:-1])], device=vectors.device)
        own = anchors + 1
        scores = batch.targets[anchors]
        if self.scored:
            cosines = (vectors[anchors] * vectors[own]).sum(-1)
            if self.options.scored == "order":
                return cosent_sum(cosines, scores, self.options.scale)
            return squared_error_sum(cosines[:, None], scores, torch.ones_like(scores))
        texts = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
        texts[anchors] = False
        same = _same(batch.inputs["input_ids"])
        right = _right(same, anchors, own)
        if self.options.from_labels:
            right |= scores[:, None] == batch.targets[None]
        right |= same[anchors]
        right[torch.arange(len(own), device=own.device), own] = False
        return in_batch_negatives_sum(vectors[anchors] @ vectors.T, own, right | ~texts, self.options.scale)

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The unit vectors of an example's texts, (texts, width)."""
        return normalize(logits.float(), dim=-1).cpu()

    def conclude(self, examples: Sequence[Pair], measured: Sequence[Sequence[torch.Tensor]]) -> list[Said]:
        """The cosine of scored pairs; else the place of each anchor's text among all texts of the examples."""
        vectors = [rows for [rows] in measured]
        if examples and examples[0].score is not None:
            return [
                Said(example.score, float(rows[0] @ rows[1])) for example, rows in zip(examples, vectors, strict=True)
            ]
        return _ranked(examples, vectors)


def _same(ids: torch.Tensor) -> torch.Tensor:
    """Which rows hold the same text, (rows, rows)."""
    return (ids[:, None] == ids[None]).all(-1)


def _right(same: torch.Tensor, anchors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Which rows are right for which anchor, (anchors, rows): texts equal to its own, and those of equal anchors."""
    mates = same[anchors][:, anchors].float()
    return (mates @ same[own].float()) > 0


def _kin(example: Pair) -> str | int:
    """Examples whose texts are right for each other: those of one group, or of one anchor."""
    return example.anchor if example.group is None else example.group


def _ranked(examples: Sequence[Pair], vectors: Sequence[torch.Tensor]) -> list[Said]:
    """The rank of each example's text among the texts that are not right for its anchor as well; ties count against it."""
    corpus: dict[str, torch.Tensor] = {}
    right: dict[str | int, set[str]] = {}
    for example, rows in zip(examples, vectors, strict=True):
        right.setdefault(_kin(example), set()).add(example.positive)
        for text, vector in zip((example.positive, *example.negatives), rows[1:], strict=True):
            corpus.setdefault(text, vector)
    place = {text: index for index, text in enumerate(corpus)}
    table = torch.stack(list(corpus.values())) if corpus else torch.empty(0, 0)
    said = []
    for example, rows in zip(examples, vectors, strict=True):
        cosines = table @ rows[0]
        wrong = torch.ones(len(place), dtype=torch.bool)
        wrong[[place[text] for text in right[_kin(example)]]] = False
        if example.anchor in place:  # its own text may be another's answer, and no text is more like it
            wrong[place[example.anchor]] = False
        rank = 1 + int((cosines[wrong] >= cosines[place[example.positive]]).sum())
        said.append(Said(example.positive, rank))
    return said
