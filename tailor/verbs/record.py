"""`tailor record`: a model's answers in a file, to compare with when the model itself is gone."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailor.compose import choose_place, resolved_recipe
from tailor.core.contracts import Answer
from tailor.core.errors import TailorError
from tailor.core.reporting import Reporter
from tailor.core.runs import write_text
from tailor.recipe.base import BaseOptions
from tailor.verbs.evaluate import on_rows, settings_for, subject
from tailor.verbs.measure import sit
from tailor.verbs.recorded import ENDING
from tailor.wire.ledger import one_command


@one_command()
def record(model: str | Mapping[str, Any], *, data: Any, out: str, reporter: Reporter) -> dict[str, Any]:
    """Write a model's answers to all rows of the data, one JSON line each, and return their number and what they cost."""
    if not out.endswith(ENDING):
        raise TailorError(f"{out!r} is no name for answers", where="--out", fix=f"end it in {ENDING}", code="usage")
    given, _, recipe = subject(model)
    settings = settings_for(recipe, recipe.base if recipe else given, data, None)
    # All rows, not the sample that an evaluation takes.
    everything = settings.evaluate.model_copy(update={"samples": sys.maxsize, "forgetting": False})
    settings = settings.model_copy(update={"evaluate": everything})
    prepared = on_rows(settings, recipe, given)
    if prepared.objective.answers == "image":
        raise TailorError(
            "answers that are pictures are no lines of a file",
            where=given.name,
            fix=f"tailor evaluate OTHER --against {given.name}, while both are there",
        )
    place = choose_place(settings, prepared.base.source)
    prepared.recipe = resolved_recipe(prepared, place)
    sitting = sit(prepared, given, place, reporter)
    if sitting.answers is None:
        raise TailorError("this model has no head for this task, so it has no answers", where=given.name)
    lines = [json.dumps(_as_line(answer, given)) for answer in sitting.answers]
    write_text(Path(out), "".join(f"{line}\n" for line in lines))
    return {"model": given.name, "answers": len(lines), "out": out, "spent": sitting.spent}


def _as_line(answer: Answer, model: BaseOptions) -> dict[str, Any]:
    kept = ("prompt", "expected", "given", "nll", "tokens", "bytes", "thinking", "cut")
    values = {name: getattr(answer, name) for name in kept}
    return {"id": answer.example_id, "model": model.name, **values}
