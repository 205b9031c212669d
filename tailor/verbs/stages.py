"""Stages one after the other: each is a run of its own, and the last one is also trained without those before it.

Every stage is checked before the first one trains, on the recipe's own base: the bases to come are of its kind.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailor.core import registry
from tailor.core.errors import RecipeError, within
from tailor.core.reporting import Reporter
from tailor.core.runs import SUMMARY, RunFolder, write_text
from tailor.evaluation.report import with_notice
from tailor.evaluation.wording import verdict_sentence
from tailor.recipe.deciding import check_same, finished
from tailor.recipe.many import STAGE_KEYS, StagedRecipe, load_any
from tailor.recipe.recipe import Recipe, load
from tailor.verbs import fit
from tailor.verbs.evaluate import evaluate_model
from tailor.wire.ledger import one_command

ALONE = "without"
"""Where the last stage lies that had none before it."""
MIRRORED = ("lock.json", "data_report.json", "metrics.jsonl", "timing.jsonl", "proof.json", "report.html", "README.md")


@one_command()
def run(recipe: StagedRecipe, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Carry every stage through; the top folder mirrors the last one and adds what the earlier ones were worth."""
    folder = RunFolder.create(Path(recipe.output), resume=resume)
    if (done := finished(folder, recipe, reporter)) is not None:
        return done
    with folder.unless_refused():
        return _carried(recipe, folder, resume, reporter)


def _carried(recipe: StagedRecipe, folder: RunFolder, resume: bool, reporter: Reporter) -> dict[str, Any]:
    recipe, _ = looked_ahead(recipe)
    _begin(folder, recipe)
    names, base, last = recipe.names(), recipe.base.name, {}
    for place, name in enumerate(names):
        reporter.say(f"stage {place + 1} of {len(names)}: {name.partition('-')[2]}")
        path = folder.path / "stages" / name
        last = fit.run(recipe.stage(place, base, path), resume=resume and path.exists(), reporter=reporter)
        base = str(path)
    added = _worth(recipe, folder, base, resume, reporter) if recipe.compare and last["evaluation"]["tasks"] else None
    return _mirror(folder, Path(base), last, names, added)


def dry_run(recipe: StagedRecipe) -> dict[str, Any]:
    """What `run` would do: the resolved recipe, and of every stage the data report and the plan."""
    resolved, outlooks = looked_ahead(recipe)
    return {"recipe": resolved.as_dict(), "stages": dict(zip(resolved.names(), outlooks, strict=True))}


def looked_ahead(recipe: StagedRecipe) -> tuple[StagedRecipe, list[dict[str, Any]]]:
    """The recipe with every `auto` of its stages' training settled, and what each of them is going to do.

    Raises `TailorError` for whatever a stage's data, columns, metrics, method or base would stop at before its first step.
    """
    parts, outlooks, dtypes, behind_prompt = [], [], set(), False
    for place in range(len(recipe.stages)):
        with within(f"stages.{place + 1}", STAGE_KEYS):
            _check_start(recipe, place)
            prepared, where = fit.settled(recipe.stage(place, recipe.base.name, Path(recipe.output)))
            outlooks.append(fit.outlook(prepared, where))
        # How long a row is behind a prompt, and what it then teaches, is known once that prompt has been found.
        parts.append(_divided(recipe, place, prepared.recipe) if behind_prompt else _settled(prepared.recipe))
        dtypes.add(prepared.recipe.base.dtype)
        behind_prompt = behind_prompt or prepared.recipe.method_options.asks
    base = recipe.base.model_copy(update={"dtype": dtypes.pop()}) if len(dtypes) == 1 else recipe.base
    whole = recipe.model_copy(update={"base": base, "stages": parts})
    whole.check_parts()
    return whole, outlooks


def _settled(stage: Recipe) -> dict[str, Any]:
    values = stage.as_dict()
    return {key: values[key] for key in STAGE_KEYS}


def _divided(recipe: StagedRecipe, place: int, settled: Recipe) -> dict[str, Any]:
    """A stage as it was written, but for how its rows are divided: that does not hang on a prompt."""
    data = recipe.stage(place, recipe.base.name, Path(recipe.output)).data
    data = data.model_copy(update={"dev": settled.data.dev, "test": settled.data.test})
    return {**recipe.stages[place], "data": data.model_dump(mode="json")}


def _check_start(recipe: StagedRecipe, place: int) -> None:
    """Raise where what the stage before leaves can neither be merged nor go on being trained."""
    if not place:
        return
    path = Path(recipe.output)
    earlier, now = recipe.stage(place - 1, recipe.base.name, path), recipe.stage(place, str(path), path)
    before = earlier.method_options
    if now.base.continue_adapter and _of_text(earlier) != _of_text(now):
        raise RecipeError(
            "the adapter of the stage before goes on being trained, and it lies on other parts of the pipeline",
            where="objective.text_encoder",
            fix="give both stages the same objective.text_encoder",
            code="other_form",
        )
    if not before.form or now.base.continue_adapter:
        return
    name = before.name  # type: ignore[attr-defined]
    if recipe.base.quantize or not registry.load("method", name).mergeable:
        onto = "weights of 4 bits" if recipe.base.quantize else "weights"
        raise RecipeError(
            f"what {name} learns in the stage before cannot be merged into {onto}, so another method cannot start from it",
            where="method",
            fix=f"choose method: {name} with the same options, or lora, ia3 or full before",
            code="not_mergeable",
        )


def _of_text(stage: Recipe) -> bool:
    """Whether the text encoders of a pipeline learn too."""
    return getattr(stage.objective, "text_encoder", False)


def _begin(folder: RunFolder, recipe: StagedRecipe) -> None:
    """Keep the recipe; an unfinished run that was begun with another one is not gone on with."""
    if folder.recipe.exists():
        check_same(load_any(folder.recipe), recipe, folder.path)
    recipe.save(folder.recipe)


def _worth(recipe: StagedRecipe, folder: RunFolder, staged: str, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """The last stage from the base itself, and the staged model against it on the same test rows."""
    reporter.say("the last stage once more, from the base itself: what were the earlier stages worth?")
    path = folder.path / ALONE
    alone = recipe.stage(len(recipe.stages) - 1, recipe.base.name, path)
    # What the stages before it made of its objective (answers that are written, behind a prompt) holds for it alone too.
    alone = alone.model_copy(update={"objective": load(Path(staged) / "recipe.yaml").objective})
    fit.run(alone, resume=resume and path.exists(), reporter=reporter)
    evaluation = evaluate_model(staged, data=None, against=str(path), margin=None, reporter=reporter)
    return {name: task | {"baseline": "without_earlier_stages"} for name, task in evaluation["tasks"].items()}


def _mirror(
    folder: RunFolder, last: Path, summary: Mapping[str, Any], names: list[str], added: dict[str, Any] | None
) -> dict[str, Any]:
    """The last stage's files at the top, with the comparison, and last the summary."""
    each = {name: RunFolder(last.parent / name).read("evaluation.json")["tasks"] for name in names}
    evaluation = {**summary["evaluation"], **({"without_earlier_stages": added} if added else {}), "stages": each}
    shutil.rmtree(folder.model, ignore_errors=True)
    shutil.copytree(last / "model", folder.model, copy_function=_link)
    for name in MIRRORED:
        (folder.path / name).unlink(missing_ok=True)
        _link(last / name, folder.path / name)
    notices = [f"Stage {name}: {_said(tasks)}" for name, tasks in each.items() if tasks]
    notices += [f"Against the last stage alone: {_said(added)}"] if added else []
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    for notice in notices:
        page = with_notice(page, notice)
    write_text(folder.path / "report.html", page)
    folder.write("evaluation.json", evaluation)
    whole = {**summary, "run": str(folder.path), "stages": names, "evaluation": evaluation}
    folder.write(SUMMARY, whole)
    return whole


def _said(tasks: Mapping[str, Any]) -> str:
    return " ".join(verdict_sentence(task) for task in tasks.values())


def _link(source: str | Path, target: str | Path) -> None:
    """A second name for the same bytes; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
