"""What of a recipe only its data and its base can tell: how it is divided, loaded and measured. All of it is saved."""

from typing import Any

from tailor.bases.loading import Source
from tailor.compose import Prepared, load_dtype
from tailor.core.contracts import Answer
from tailor.core.examples import Pair, Text
from tailor.engine.place import COMPUTE, Place
from tailor.evaluation.answering import room_for_answers
from tailor.evaluation.choosing import chosen_names
from tailor.recipe.recipe import Recipe
from tailor.verbs.measure import answered_rows, most_rows, takes_time

NAMES = {dtype: name for name, dtype in COMPUTE.items()}


def settle_rest(prepared: Prepared, place: Place) -> Recipe:
    """The prepared recipe with no `auto` left in `data`, `evaluate` and `base.dtype`: run again, it gives the same run."""
    recipe = prepared.recipe
    base = recipe.base.model_copy(update={"dtype": _dtype(recipe, place, prepared.base.source)})
    data = recipe.data.model_copy(update=_data(prepared))
    settled = {name: value for name, value in _measuring(prepared).items() if getattr(recipe.evaluate, name) == "auto"}
    evaluate = recipe.evaluate.model_copy(update=settled)
    return recipe.model_copy(update={"base": base, "data": data, "evaluate": evaluate})


def _dtype(recipe: Recipe, place: Place, source: Source) -> str:
    """A dtype that recipes have no word for is left as it is saved."""
    return NAMES.get(load_dtype(recipe, place, source), "auto")


def _data(prepared: Prepared) -> dict[str, Any]:
    data, shares = prepared.recipe.data, prepared.loaded.shares
    found: dict[str, Any] = {name: shares[name] for name in ("dev", "test") if getattr(data, name) == "auto"}
    if data.split_seed == "auto":
        found["split_seed"] = prepared.recipe.split_seed
    if data.thinking == "auto":
        found["thinking"] = "train" if prepared.base.options.data_has_thinking else "drop"
    return found


def _measuring(prepared: Prepared) -> dict[str, Any]:
    """What each `auto` of `evaluate` stands for; the rows that are answered decide, the first ones there are otherwise."""
    base, objective, options = prepared.base, prepared.objective, prepared.recipe.evaluate
    split = next(name for name in ("test", "dev", "train") if len(prepared.splits[name].store))
    examples = [example for example, _ in answered_rows(prepared, split)]
    draws = objective.answers == "image"
    writes = not draws and takes_time(prepared)
    expected = [Answer(example.id, {}, "", _expected(objective, example), None) for example in examples]
    primary, metrics = chosen_names(options, objective, expected)
    steps, guidance = base.drawn_by() if draws else (None, None)
    forgets = Text in base.encoders and objective.output.head == base.text_head
    return {
        "primary": primary,
        "metrics": metrics,
        "samples": most_rows(prepared) if draws or writes else None,
        "max_new_tokens": room_for_answers(base, objective, examples) if writes else None,
        "forgetting": options.old is not None or (forgets and len(prepared.splits["test"].store) > 0),
        "steps": steps,
        "guidance": guidance,
    }


def _expected(objective: Any, example: Any) -> Any:
    """What is expected of an answer, as far as a choice of metrics looks at it."""
    questions = objective.questions(example)
    if isinstance(example, Pair):
        return example.positive if example.score is None else example.score
    return questions[0].reference if questions else getattr(example, "label", None)
