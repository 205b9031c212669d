"""`tailor evaluate`: any model, ours or anyone's, against another on held-out rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailor.bases.loading import LABELS_FILE, Source, find, numbered
from tailor.compose import (
    Prepared,
    base_beside,
    check_pair,
    check_refused,
    choose_place,
    encode,
    load_data,
    make_base,
    make_objective,
    prepare,
    resolved_recipe,
)
from tailor.core.errors import TailorError
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, made_by
from tailor.data.load import Loaded
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import Recipe, load, override, parse
from tailor.verbs.measure import evaluate


def evaluate_model(
    model: str, *, data: Any, against: str | None, margin: float | None, reporter: Reporter
) -> dict[str, Any]:
    """evaluation.json for a run folder, a base, a PEFT adapter folder or a merged folder.

    Args:
        data: held-out rows; None: the run's own test split, which must be what it was when the run was made.
        against: what to compare with; None: the run's base, the base an adapter names, or nothing where neither is.
        margin: points within which the model counts as not worse.
    """
    path = made_by(Path(model))
    run = (path / "recipe.yaml").exists()
    recipe = load(path / "recipe.yaml") if run else None
    source = find(BaseOptions(name=model)) if recipe is None else None
    if recipe is None and data is None:
        raise TailorError("there is no data to evaluate on", where=model, fix="add --data D", code="missing_data")
    tuned = BaseOptions(name=model) if recipe is None else recipe.base.model_copy(update=_own(model))
    asked = recipe.base.model_copy(update=_own(against)) if recipe and against else BaseOptions(name=against or model)
    named = BaseOptions(name=source.location) if source and source.adapters else None
    base = asked if against else (recipe.base if recipe else named)
    if base is None:
        reporter.say(f"{model} names no base, so it is measured by itself; --against BASE compares")
    below = base if against or base is None else base_beside(base, path)
    settings = _recipe(recipe, base or tuned, data, margin)
    prepared = prepare(settings) if data is None else _on_rows(settings, recipe, find(tuned))
    if data is None:
        _same_test(RunFolder.existing(path), prepared)
    if against:
        _same_labels(prepared, against, find(asked))
    place = choose_place(settings, prepared.base.source)
    prepared.recipe = resolved_recipe(prepared, place)
    return evaluate(prepared, tuned, below, place, str(path), reporter).evaluation


def _own(model: str) -> dict[str, Any]:
    return {"name": model, "chat_template": None, "revision": None}


def _recipe(recipe: Recipe | None, base: BaseOptions, data: Any, margin: float | None) -> Recipe:
    """The run's settings, or a base's own; `data` takes the place of the run's rows."""
    values: dict[str, Any] = (
        recipe.as_dict() if recipe else {"base": base.model_dump(), "data": {"on_overlong": "truncate"}}
    )
    if data is not None:
        rows = override({}, [f"data.train={json.dumps(data)}"])["data"]
        values["data"] = {**values["data"], **rows, "dev": 0, "test": 0, "max_length": "auto"}
    if margin is not None:
        values.setdefault("evaluate", {})["margin"] = margin
    return parse(values)


def _on_rows(recipe: Recipe, run: Recipe | None, tuned: Source) -> Prepared:
    """All rows of the data as the test split, read with the labels that the tuned model names.

    What a guess without information would say is learned from the run's own training rows, where there is a run.
    """
    source = find(recipe.base)
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
    loaded = Loaded(held_out.form, train, held_out.dev, held_out.train, report)
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
