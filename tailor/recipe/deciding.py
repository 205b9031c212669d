"""What of a recipe decides its run: a run goes on, or is taken for done, under any recipe that agrees in this."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tailor.core.errors import RunError
from tailor.core.reporting import Reporter
from tailor.core.runs import SUMMARY, RunFolder
from tailor.recipe.many import AnyRecipe, StagedRecipe, TasksRecipe, load_any
from tailor.recipe.recipe import Recipe

FREE_ENDPOINT = ("api_key_env", "prices", "budget", "concurrency", "timeout", "retries", "cache")
FREE = (
    "schema",
    "output",
    *(f"train.{key}" for key in ("tokens_per_micro_batch", "checkpoint_every", "trackers")),
    *(f"{base}.endpoint.{key}" for base in ("base", "method.proposer") for key in FREE_ENDPOINT),
    "method.max_calls",
    "method.max_cost",
    "method.max_seconds",
)
"""Keys that change nothing of what comes out: where it lies, how it is computed, and how much may be paid for it."""


def deciding(recipe: AnyRecipe, free: Sequence[str] = (*FREE, "evaluate")) -> dict[str, Any]:
    """What decides the model that a recipe makes; of stages and tasks, of every one."""
    path = Path(recipe.output)
    if isinstance(recipe, StagedRecipe):
        stages = [recipe.stage(place, recipe.base.name, path) for place in range(len(recipe.stages))]
        asked = {} if "evaluate" in free else {"compare": recipe.compare}
        return {"stages": {str(place): deciding(stage, free) for place, stage in enumerate(stages, 1)}, **asked}
    if isinstance(recipe, TasksRecipe):
        parts = {name: recipe.task(name, path) for name in recipe.tasks}
        tasks = {name: deciding(one, free) | {"weight": recipe.tasks[name].weight} for name, one in parts.items()}
        mixing = recipe.mixing.model_dump(mode="json", exclude={"single"} if "evaluate" in free else None)
        return {"tasks": tasks, "mixing": mixing}
    values = recipe.as_dict()
    for key in (*free, *(("train.epochs",) if recipe.train.max_steps is not None else ())):
        _drop(values, key.split("."))
    return values


def check_same(before: AnyRecipe, now: AnyRecipe, run: Path) -> None:
    """Raise `RunError` where a run that is not finished was begun with a recipe that decides otherwise."""
    found = next(differences(deciding(before), deciding(now)), None)
    if found is not None:
        raise _another(run, "begun with", found, "set it back, or give another output")


def finished(folder: RunFolder, recipe: AnyRecipe, reporter: Reporter) -> dict[str, Any] | None:
    """The summary of a finished run, which stays as it is; None where there is something to be done.

    That is a run that is not finished, or a search that its budget ended and that is now given a larger one.

    Raises:
        RunError: another recipe made the run.
    """
    if not folder.finished:
        return None
    summary: dict[str, Any] = folder.read(SUMMARY)
    before, ended_by = load_any(folder.recipe), summary["train"].get("ended_by")
    _check_made_by(before, recipe, folder.path)
    if ended_by is not None and _raised(before, recipe, ended_by):
        return None
    reporter.say(f"{folder.path} is finished, and stays as it is")
    return summary


def _check_made_by(before: AnyRecipe, now: AnyRecipe, run: Path) -> None:
    """Raise where a finished run was made by a recipe that decides otherwise, or measured something else.

    `auto` agrees with whatever it was settled to.
    """
    sides = [deciding(one, FREE) for one in (before, _as_settled(now, before))]
    found = next(differences(*sides, settled=True), None)
    if found is not None:
        measured = "evaluate" in found[0].split(".")
        fix = f"`tailor evaluate {run}` measures anew, or give another output" if measured else "give another output"
        raise _another(run, "made by", found, fix)


def differences(before: Any, now: Any, *, settled: bool = False, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys in which two recipes differ, with both values; with `settled`, `auto` differs from nothing."""
    if settled and now == "auto":
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            below = f"{key}.{name}" if key else name
            yield from differences(before.get(name), now.get(name), settled=settled, key=below)
    elif before != now:
        yield key, before, now


def _raised(before: AnyRecipe, now: AnyRecipe, key: str) -> bool:
    """Whether the later recipe allows more under a key that bounds a number; null bounds nothing."""
    old, new = (_at(recipe.as_dict(), key.split(".")) for recipe in (before, now))
    return old is not None and (new is None or new > old)


def _at(values: Any, path: Sequence[str]) -> Any:
    for part in path:
        values = (values or {}).get(part)
    return values


def _another(run: Path, made: str, found: tuple[str, Any, Any], fix: str) -> RunError:
    key, was, now = found
    return RunError(
        f"{run} was {made} another recipe: {key} was {was!r}, is {now!r}", where=key, fix=fix, code="another_recipe"
    )


def _as_settled(now: AnyRecipe, before: AnyRecipe) -> AnyRecipe:
    """With the objective that the run made of it, where answers came to be written."""
    if not (isinstance(now, Recipe) and isinstance(before, Recipe)):
        return now
    written = getattr(now.objective, "written", lambda: now.objective)()
    return now.model_copy(update={"objective": written}) if type(written) is type(before.objective) else now


def _drop(values: dict[str, Any], path: list[str]) -> None:
    for part in path[:-1]:
        values = values.get(part) or {}
    values.pop(path[-1], None)
