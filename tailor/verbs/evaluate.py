"""`tailor evaluate`: any model, ours or anyone's, against another on held-out rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tailor.bases.loading import LABELS_FILE, Source, find, numbered
from tailor.compose import (
    Prepared,
    base_beside,
    check_pair,
    choose_place,
    load_data,
    make_base,
    make_objective,
    prepare,
    resolved_recipe,
)
from tailor.core.errors import RecipeError, TailorError
from tailor.core.openings import opened
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, made_by
from tailor.data.load import Loaded
from tailor.engine.encoding import check_refused, encode
from tailor.evaluation.votes import VOTES, agreement, read_votes
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import Recipe, base_options, load, override, parse
from tailor.verbs.measure import evaluate
from tailor.verbs.recorded import ENDING, recorded
from tailor.wire.ledger import one_command


@one_command()
def evaluate_model(
    model: str | Mapping[str, Any],
    *,
    data: Any,
    against: Any,
    margin: float | None,
    reporter: Reporter,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """evaluation.json for a run folder, a base, a PEFT adapter folder, a merged folder or a model behind an API.

    Args:
        model: a name, a YAML file that names a base, or a base's options.
        data: held-out rows; None: the run's own test split, which must be what it was when the run was made.
        against: what to compare with: a model, or a file of recorded answers; None: the run's base, or the base an adapter
            names; where there is none, the guess that takes no look at a row, or for raw text the model itself.
        margin: points within which the model counts as not worse.
        overrides: `KEY=VALUE` texts, laid over the run's own settings of how it is measured.
    """
    tuned, path, recipe = subject(model)
    if recipe is None and data is None:
        raise TailorError("there is no data to evaluate on", where=tuned.name, fix="add --data D", code="missing_data")
    answers = recorded(Path(against)) if isinstance(against, str) and against.endswith(ENDING) else None
    other = None if against is None or answers else base_options(against)
    if other is not None and recipe is not None:
        other = recipe.base.model_copy(update=_own(other))
    base = other or (recipe.base if recipe else below(tuned))
    settings = settings_for(recipe, base or tuned, data, margin)
    if other is not None or data is not None:
        settings = _as_long_as_these_need(settings)
    settings = _laid_over(settings, overrides)
    prepared = prepare(settings) if data is None else on_rows(settings, recipe, tuned)
    if data is None:
        _same_test(RunFolder.existing(path), prepared)
    if other is not None:
        _same_labels(prepared, other.name, find(other))
    place = choose_place(settings, prepared.base.source)
    prepared.recipe = resolved_recipe(prepared, place)
    held = base_beside(base, path) if base and other is None else base
    learned = _learned_rows(prepared) if recipe is not None and data is not None else ""
    if learned:
        reporter.say(f"warning: {learned}")
    opening = partial(opened, run=str(path))
    measured = evaluate(prepared, tuned, answers or held, place, opening, reporter)
    evaluation = measured.evaluation
    if measured.votes and against is None and data is None:
        people = agreement(measured.votes, read_votes(path / VOTES))
        evaluation["tasks"]["default"]["judge"]["with_people"] = people
    return {**evaluation, **({"warnings": [learned]} if learned else {})}


def _as_long_as_these_need(settings: Recipe) -> Recipe:
    """Other rows, or another tokenizer, may need longer answers than a run's own; a prompt is measured as it was found."""
    if settings.method_options.asks:
        return settings
    return settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"max_new_tokens": "auto"})})


def _laid_over(settings: Recipe, overrides: Sequence[str]) -> Recipe:
    """Settings with what the user asks for now; raises for what only a training could do."""
    values = override(settings.as_dict(), overrides)
    for text in overrides:
        if text.partition(".")[0] != "evaluate":
            raise RecipeError(
                f"{text!r} is about the training, which is over",
                where=text,
                fix="write evaluate.KEY=VALUE",
                code="usage",
            )
    return parse(values)


def _learned_rows(prepared: Prepared) -> str:
    """What to say where rows that a model is measured on are among those that it learned from; empty where none is."""
    learned = {entry.id.partition("-")[0] for entry in prepared.table("train")}
    found = [entry for entry in prepared.table("test") if entry.id.partition("-")[0] in learned]
    if not found:
        return ""
    rows = "1 row is one" if len(found) == 1 else f"{len(found)} of {len(prepared.table('test'))} rows are rows"
    return f"{rows} that this run was trained on (the first: {found[0].origin}), which flatters it"


def subject(model: str | Mapping[str, Any]) -> tuple[BaseOptions, Path, Recipe | None]:
    """A model as a base's options, the folder that it would be a run in, and that run's recipe where it is one."""
    given = base_options(model)
    path = made_by(Path(given.name))
    recipe = load(path / "recipe.yaml") if (path / "recipe.yaml").exists() else None
    return (given if recipe is None else recipe.base.model_copy(update=_own(given))), path, recipe


def _own(model: BaseOptions) -> dict[str, Any]:
    own = {"chat_template": None, "revision": None, "continue_adapter": False}
    return {"name": model.name, "endpoint": model.endpoint, **own}


def below(model: BaseOptions) -> BaseOptions | None:
    """The base that an adapter's folder names; None for a model that was made from nothing that is known."""
    source = find(model)
    return BaseOptions(name=source.location) if source.adapters else None


def settings_for(recipe: Recipe | None, base: BaseOptions, data: Any, margin: float | None) -> Recipe:
    """The run's settings, or a base's own; `data` takes the place of the run's rows."""
    values: dict[str, Any] = (
        recipe.as_dict() if recipe else {"base": base.model_dump(), "data": {"on_overlong": "truncate"}}
    )
    if data is not None:
        rows = override({}, [f"data.train={json.dumps(data)}"])["data"]
        if recipe is not None and recipe.data.test == 0:
            values["evaluate"]["forgetting"] = "auto"  # the run was not asked, having held nothing back
        values["data"] = {**values["data"], **rows, "dev": 0, "test": 0, "max_length": "auto"}
    if margin is not None:
        values.setdefault("evaluate", {})["margin"] = margin
    return parse(values)


def on_rows(recipe: Recipe, run: Recipe | None, model: BaseOptions) -> Prepared:
    """All rows of the data as the test split, read with the labels that the tuned model names.

    What a guess without information would say is learned from the run's own training rows, where there is a run.
    """
    source, tuned = find(recipe.base), find(model)
    held_out = load_data(recipe, tuned.family)
    objective = make_objective(recipe, held_out, tuned)
    base = make_base(recipe, source, objective, held_out)
    check_pair(objective, base, source)
    if tuned.labels:
        _known_labels(objective, tuned, held_out)
    else:
        objective.prepare(entry.row for entry in held_out.train)
    rows = encode(held_out.train, objective, base)
    check_refused(recipe, rows)
    train = load_data(run, tuned.family).train if run else held_out.train
    digests = {**held_out.report.digests, "test": held_out.report.digests["train"]}
    report = replace(held_out.report, digests=digests)
    loaded = replace(held_out, train=train, test=held_out.train, report=report)
    nothing = encode((), objective, base)
    return Prepared(recipe, base, objective, loaded, {"train": rows, "dev": nothing, "test": rows})


def _known_labels(objective: Any, tuned: Source, loaded: Loaded) -> None:
    """Adopt the model's labels; raise at the first row with one that it cannot give."""
    objective.adopt(tuned.labels, next((entry.row for entry in loaded.train), None))
    if objective.output.problem == "regression":
        return
    for entry in loaded.train:
        row = entry.row["label" if "label" in entry.row else "tags"]
        found = set(map(str, row) if isinstance(row, list | tuple) else [str(row)]) - set(tuned.labels)
        if found:
            raise TailorError(
                f"the label {sorted(found)[0]!r} is unknown to this model",
                where=str(entry.origin),
                fix=f"it knows: {', '.join(tuned.labels[:20])}{_how_to_name(tuned)}",
                code="unknown_label",
            )


def _how_to_name(tuned: Source) -> str:
    """What to do where a model's outputs are only numbered, and the rows have names."""
    if tuned.labels != numbered(len(tuned.labels)):
        return ""
    folder = tuned.adapters[-1] if tuned.adapters else tuned.location
    return f"; if these are numbers of names, list the names in this order in {folder}/{LABELS_FILE}"


def _same_labels(prepared: Prepared, against: str, source: Source) -> None:
    """Raise where a model that is compared with has a head for labels of its own: a guess must not stand in for it."""
    ours, theirs = prepared.objective.output.labels, source.labels
    if ours and any(ours) and theirs and set(ours) != set(theirs):
        raise TailorError(
            f"it gives other labels ({', '.join(theirs[:5])}) than those that are asked for ({', '.join(ours[:5])})",
            where=against,
            fix="name a model of the same labels, or leave --against out",
            code="other_labels",
        )


def _same_test(folder: RunFolder, prepared: Prepared) -> None:
    lock = folder.read("lock.json")
    # One task of several lies at RUN/model/heads/NAME, and the run's lock knows its data by its name.
    known = lock["data"] if lock else RunFolder(folder.path.parents[2]).read("lock.json")["data"][folder.path.name]
    before = known.get("test")
    if before != prepared.loaded.report.digests["test"]:
        raise TailorError(
            "the data has changed since this run was made, so its test split is another one",
            where=str(folder.path / "lock.json"),
            fix="name held-out rows with --data",
            code="data_changed",
        )
