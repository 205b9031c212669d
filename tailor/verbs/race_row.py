"""One row of a comparison: a method with the settings that suit it, its runs with every seed, and what they cost.

Nothing here looks at the test split but runs that are finished, and what they find chooses nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tailor.core.runs import RunFolder
from tailor.engine.place import forget_peak
from tailor.recipe.methods import METHODS
from tailor.recipe.recipe import Recipe
from tailor.verbs import fit
from tailor.verbs.rate_search import RateSearch, Rules, Settings


def recipe_for(recipe: Recipe, name: str, folder: Path) -> Recipe:
    """The recipe with another method; what it says of its own method's options and learning rate is that method's alone."""
    own = recipe.method_options.name == name  # type: ignore[attr-defined]
    changes = {
        "method": recipe.method if own else METHODS[name](),
        "data": recipe.data.model_copy(update={"split_seed": recipe.split_seed}),
        "train": recipe.train if own else recipe.train.model_copy(update={"learning_rate": "auto"}),
        "output": str(folder),
    }
    return recipe.model_copy(update=changes)


def run_row(recipe: Recipe, rules: Rules) -> dict[str, Any]:
    """Make a method's runs below the recipe's output, and return what they cost.

    What was made before is not made again. Raises `TailorError` where the method cannot take part.
    """
    name, folder = recipe.method_options.name, Path(recipe.output)  # type: ignore[attr-defined]
    _, place = fit.settled(recipe, rules.shared.kept)
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(recipe, folder, rules)
    measured, summaries, runs = True, [], []
    # A solved head has no chance in it: one run stands for all seeds.
    for seed in rules.seeds[:1] if settings.driver == "solve" else rules.seeds:
        rules.reporter.say(f"{name}, seed {seed}")
        measured &= forget_peak(place.kind)
        train = settings.recipe.train.model_copy(update={"seed": seed})
        runs.append(RunFolder(folder / f"seed-{seed}"))
        one = settings.recipe.model_copy(update={"train": train, "output": str(runs[-1].path)})
        summaries.append(fit.run(one, resume=True, reporter=rules.reporter, shared=rules.shared))
    return {
        "seconds": settings.seconds + fmean(one["train"]["seconds"] for one in summaries),
        "memory_bytes": max(map(_peak, runs, summaries)) if measured else None,
        "artifact_bytes": _size(runs[0].model),
        "learning_rate": settings.recipe.train.learning_rate if settings.driver == "gradient" else None,
        "forgetting": _forgetting(summaries),
        "proved": all(one["proof"]["passed"] for one in summaries),
        "runs": [str(run.path.relative_to(folder.parent)) for run in runs],
    }


def _settings(recipe: Recipe, folder: Path, rules: Rules) -> Settings:
    """What a method is run with: a search for words finds its settings itself, within its time."""
    if not recipe.method_options.asks:
        return RateSearch(recipe, folder / f"seed-{rules.seeds[0]}", rules).settle()
    if rules.budget is not None:
        seconds = rules.budget / len(rules.seeds)
        recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"max_seconds": seconds})})
    return Settings(recipe, 0.0, "search")


def _peak(run: RunFolder, summary: dict[str, Any]) -> int:
    """The most memory that a run took, over all its sittings: steps that were made in the search among them."""
    logged = [int(line["memory_bytes"]) for line in run.lines("timing.jsonl") if "memory_bytes" in line]
    return max([*logged, int(summary["train"]["peak_memory_bytes"])])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _forgetting(summaries: Sequence[dict[str, Any]]) -> float | None:
    found = [one["evaluation"].get("forgetting") for one in summaries]
    return fmean(one["delta"] for one in found if one) if all(found) else None
