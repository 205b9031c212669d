"""What a search for words works on: what answers, with its answers on disk or within its budget, and the rows it answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailor.core.paths import code_digest
from tailor.core.reporting import Reporter
from tailor.engine.loop import SearchSpace
from tailor.engine.place import Place
from tailor.engine.settings import CPU_TOKENS
from tailor.evaluation.answering import Asking
from tailor.evaluation.generators import Kept, generator_of
from tailor.recipe.base import BudgetOptions
from tailor.recipe.recipe import Recipe
from tailor.wire.ledger import Ledger

FOLDER = "search"


def asking(recipe: Recipe, place: Place) -> Asking:
    """How answers are taken on a device."""
    new, budget = recipe.evaluate.max_new_tokens, recipe.train.tokens_per_micro_batch
    return Asking(
        device=place.device,
        tokens_at_once=budget if isinstance(budget, int) else CPU_TOKENS,
        max_new_tokens=None if new == "auto" else new,
        autocast=place.autocast,
    )


def search_space(
    recipe: Recipe,
    place: Place,
    folder: Path,
    base: Any,
    proposer: Any,
    examples: Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]],
) -> SearchSpace:
    """A loaded base, the one that reflects (None: the same), and the rows of train and dev, as a search takes them."""
    options: Any = recipe.method
    budget = Ledger(BudgetOptions(max_calls=options.max_calls, max_cost=options.max_cost), "method")
    settings = asking(recipe, place)
    named = {"answers": base, **({"proposals": proposer} if proposer is not None else {})}
    kept = {name: _kept(one, settings, folder / FOLDER / f"{name}.jsonl", place, budget) for name, one in named.items()}
    return SearchSpace(kept["answers"], kept.get("proposals"), examples, options, recipe.evaluate)


def _kept(base: Any, settings: Asking, file: Path, place: Place, budget: Ledger) -> Any:
    """What answers for a base: its answers are kept in the run (or the cache of what was paid for), under the budget."""
    generator = generator_of(base, settings, Reporter(quiet=True))
    if base.model is None:
        return generator.within(budget, file.with_suffix(""))
    identity = [base.source.digest(), base.source.options.quantize, place.kind, place.precision, code_digest()]
    return Kept(generator, file, json.dumps(identity))
