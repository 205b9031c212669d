"""`tailor plan`, with the recipe that it may write."""

from pathlib import Path
from typing import Any

from tailor.core.errors import RecipeError
from tailor.core.runs import write_text
from tailor.planner.places import stated
from tailor.planner.plan import Wishes, plan
from tailor.planner.written import recipe_text
from tailor.recipe.recipe import Recipe


def advise(
    recipe: Recipe, *, gpu: str | None, memory: str | None, goal: str, served: int, text: str | None, out: str | None
) -> dict[str, Any]:
    """The JSON answer; writes a recipe to `out`, and raises `RecipeError` where there is nothing to write one for."""
    if goal not in ("task", "facts"):
        raise RecipeError(f"{goal!r} is no aim", where="--goal", fix="task, or facts that answers must contain")
    wishes = Wishes(stated(gpu, memory), goal, served, text is not None)  # type: ignore[arg-type]
    planned = plan(recipe, wishes)
    if out is None:
        return planned.values
    if planned.sheet is None:
        raise RecipeError(
            f"no recipe is written, since nothing is recommended to be trained: {planned.values['reasons'][0]['text']}",
            where="--recipe",
            fix="leave out --recipe to see the whole answer",
            code="nothing_to_train",
        )
    file = Path(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, recipe_text(recipe, planned, file, text))
    return {**planned.values, "recipe": str(file)}
