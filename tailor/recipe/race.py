"""What a comparison of methods is given beside a recipe."""

import re
from typing import Any

from pydantic import Field, field_validator

from tailor.core.errors import RecipeError
from tailor.recipe.methods import METHODS
from tailor.recipe.options import Options
from tailor.recipe.recipe import nearest_name

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class RaceOptions(Options):
    """The race: who runs, for how long, how often, and what counts as good enough."""

    methods: tuple[str, ...] = Field(tuple(METHODS), min_length=1, description="names of methods")
    budget: float | None = Field(
        None,
        gt=0,
        description="seconds of training for each method, its search and all its seeds together; 90s, 10m, 1h",
    )
    seeds: int = Field(3, ge=1, description="runs of each method")
    margin: float = Field(2.0, gt=0, description="points below the best that still count as good enough")

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for name in methods:
            if name not in METHODS:
                fix = nearest_name(name, METHODS)
                raise RecipeError(f"there is no method named {name!r}", where="methods", fix=fix, code="unknown_name")
        return tuple(dict.fromkeys(methods))

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, budget: Any) -> Any:
        if not isinstance(budget, str):
            return budget
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", budget)
        if found is None:
            raise ValueError(f"{budget!r} is no length of time: write 90s, 10m or 1h")
        return float(found[1]) * UNITS[found[2]]
