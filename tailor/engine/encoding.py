"""Rows -> examples -> features: what can be used of a split, what was refused or cut on the way, and what is replayed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailor.core.contracts import ExampleSeat
from tailor.core.errors import DataError, RecipeError, RowRefused
from tailor.core.examples import Origin, Text
from tailor.data.load import Loaded, load
from tailor.data.store import FeatureStore
from tailor.data.table import Entry, Table
from tailor.recipe.recipe import Recipe

SHOWN = 20
ASKED_FOR = {"dropped_overlong"}
"""Refusals that the recipe asked for: counted, and no error."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that could be read and yet not be used."""

    reason: str
    origin: Origin
    message: str


@dataclass
class Encoded:
    """One split as features, which of its rows they came from, what was cut or refused on the way, and what was replayed."""

    store: FeatureStore = field(default_factory=FeatureStore)
    rows: list[int] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    truncated: int = 0
    truncated_tokens: int = 0
    trained: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    replayed: int = 0


def encode(table: Iterable[Entry], objective: Any, base: Any) -> Encoded:
    """Rows -> examples -> features, with every refusal and every cut counted."""
    result = Encoded()
    for index, entry in enumerate(table):
        try:
            example = objective.led(objective.read(entry.row, ExampleSeat(entry.id, entry.origin)))
            target = objective.target(example)
            features = base.encoders[type(example)](example)
        except RowRefused as refusal:
            result.refused.append(Refusal(refusal.reason, entry.origin, refusal.message))
            continue
        for part in features:
            result.store.append(part.with_target(target))
            result.rows.append(index)
            result.tokens += len(part)
            for role, count in part.trained.items():
                result.trained[role] = result.trained.get(role, 0) + count
        cut = sum(part.truncated for part in features)
        result.truncated += bool(cut)
        result.truncated_tokens += cut
    return result


def check_refused(recipe: Recipe, *splits: Encoded) -> None:
    """Raise with every refused row at once, where the recipe does not ask to skip them."""
    refused = [refusal for split in splits for refusal in split.refused if refusal.reason not in ASKED_FOR]
    if refused and recipe.data.on_bad_row == "error":
        raise _listed(refused)


def _listed(refused: list[Refusal]) -> DataError:
    """Every refusal at once, with the line to add to the recipe."""
    shown = "; ".join(f"{refusal.origin}: {refusal.message}" for refusal in refused[:SHOWN])
    more = f"; +{len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    overlong = all(refusal.reason == "overlong" for refusal in refused)
    fix = "data.on_overlong=truncate_prompt (or truncate, drop)" if overlong else "mend them, or data.on_bad_row=skip"
    count = "1 row cannot" if len(refused) == 1 else f"{len(refused)} rows cannot"
    return DataError(f"{count} be used: {shown}{more}", where=str(refused[0].origin), fix=fix, code=refused[0].reason)


def replay_rows(recipe: Recipe, objective: Any, root: Path | None) -> Loaded:
    """The general text that a recipe names."""
    if objective.example is not Text:
        raise RecipeError("only raw text is replayed beside raw text", where="data.replay", fix="leave it out")
    assert recipe.data.replay is not None
    return load(recipe.data.replay, dev=0.0, test=0.0, root=root, objective=objective.name)


def replay(recipe: Recipe, objective: Any, base: Any, train: Encoded, general: Table) -> int:
    """Add general text to the training examples, as many tokens as its share asks for; returns how many were added.

    A few per cent keep most of what continued pre-training would forget (Ibrahim et al. 2024, arXiv 2403.08763). What is
    taken is the same for every run: the texts by their ids, each at most once.
    """
    wanted = train.tokens * recipe.data.replay_share / (1 - recipe.data.replay_share)
    added = 0
    for index in sorted(range(len(general)), key=lambda place: general[place].id):
        entry = general[index]
        example = objective.read(entry.row, ExampleSeat(f"replay-{entry.id}", entry.origin))
        for part in base.encoders[Text](example):
            if added >= wanted:
                return added
            train.store.append(part)
            added += len(part)
    return added
