"""Recipes of several parts: stages one after the other, tasks side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from tailor.core.errors import RecipeError
from tailor.recipe.base import BaseOptions
from tailor.recipe.options import Options
from tailor.recipe.recipe import Recipe, RecipeFile, checked, parse

STAGE_KEYS = ("data", "objective", "method", "train", "evaluate")
TASK_KEYS = ("data", "objective")


class StagedRecipe(RecipeFile):
    """Stages, each of which starts from the model that the one before made (domain adaptation: Gururangan et al. 2020)."""

    schema_version: Literal[1] = Field(1, alias="schema")
    base: BaseOptions
    stages: list[dict[str, Any]] = Field(min_length=2, description="recipes without base and output, in order")
    compare: bool = Field(True, description="train the last stage also without the earlier ones, and compare")
    output: str = Field("runs/auto", description="the run folder")

    @field_validator("stages")
    @classmethod
    def _parts_only(cls, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for stage in stages:
            foreign = sorted(set(stage) - set(STAGE_KEYS))
            if foreign:
                raise ValueError(f"a stage has no {foreign[0]} of its own")
        return stages

    def check_parts(self) -> None:
        """Every stage reads as a recipe; stages on the same rows divide them alike, so that no test row is trained on."""
        divided: dict[str, tuple[int, tuple[Any, ...]]] = {}
        for place in range(len(self.stages)):
            stage = self.stage(place, self.base.name, Path(self.output))
            how = (stage.split_seed, stage.data.dev, stage.data.test)
            before, other = divided.setdefault(str(stage.data.train), (place, how))
            if other != how:
                raise RecipeError(
                    f"stage {before + 1} divides the same rows otherwise, and would train on what this stage tests on",
                    where=f"stages.{place + 1}.data",
                    fix="give both the same dev, test and train.seed",
                )

    def described(self) -> list[str]:
        """The stages."""
        return [name.partition("-")[2] for name in self.names()]

    def names(self) -> list[str]:
        """Folder names of the stages: their number and what they teach."""
        return [f"{place}-{_taught(stage)}" for place, stage in enumerate(self.stages, 1)]

    def stage(self, place: int, base: str, output: Path) -> Recipe:
        """One stage as a recipe of its own; errors name the key inside the stage.

        On the run of the stage before, that one's adapter goes on being trained where this one's is of the same form.
        """
        own = {"chat_template": None, "revision": None, "endpoint": None}
        options = self.base.model_dump() | ({} if base == self.base.name else own)
        values = {**self.stages[place], "base": options | {"name": base}, "output": str(output)}
        try:
            recipe = parse(values)
        except RecipeError as error:
            raise RecipeError(error.message, where=f"stages.{place + 1}.{error.where}", fix=error.fix) from None
        if not place or base == self.base.name:
            return recipe
        before = self.stage(place - 1, self.base.name, output).method_options
        continued = recipe.base.model_copy(update={"continue_adapter": before.goes_on_as(recipe.method_options)})
        return recipe.model_copy(update={"base": continued})

    def as_dict(self) -> dict[str, Any]:
        """Plain values that give the same recipe back."""
        return self.model_dump(mode="json", by_alias=True)


def _taught(stage: Mapping[str, Any]) -> str:
    objective = stage.get("objective", "auto")
    name = objective.get("name", "auto") if isinstance(objective, dict) else str(objective)
    data = stage.get("data")
    source = data.get("train") if isinstance(data, dict) else data
    first = source[0] if isinstance(source, list) else source
    return name if name != "auto" else Path(str(first).partition(":")[2] or str(first)).stem


class TaskOptions(Options):
    """One of several tasks."""

    data: Any = Field(description="as in a recipe")
    objective: Any = Field("auto", description="as in a recipe")
    weight: float = Field(1.0, gt=0, description="multiplies the task's share of the steps")
    primary: str = Field("auto", description="the metric that decides the task's verdict")
    evaluate: Any = Field({}, description="as in a recipe, laid over what holds for all tasks")


class MixingOptions(Options):
    """How often each task is seen: its rows to the power of 1 / temperature, times its weight."""

    temperature: float = Field(1.0, ge=1, description="1: in proportion to rows; large: all alike")
    cap: int | None = Field(None, ge=1, description="rows beyond this many give a task no further share")
    single: bool = Field(False, description="train each task alone as well, for as many steps, and compare")


class TasksRecipe(RecipeFile):
    """Several tasks over one trunk (MT-DNN: Liu et al. 2019): every step is one task's, heads are their own."""

    schema_version: Literal[1] = Field(1, alias="schema")
    base: BaseOptions
    tasks: dict[str, TaskOptions] = Field(min_length=2)
    mixing: MixingOptions = MixingOptions()
    method: Any = Field("full", description="as in a recipe")
    train: Any = Field({}, description="as in a recipe")
    evaluate: Any = Field({}, description="as in a recipe")
    output: str = Field("runs/auto", description="the run folder")

    @field_validator("tasks")
    @classmethod
    def _plain_names(cls, tasks: dict[str, TaskOptions]) -> dict[str, TaskOptions]:
        for name in tasks:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is no plain name: letters, digits and _")
        return tasks

    def check_parts(self) -> None:
        """Every task reads as a recipe."""
        for name in self.tasks:
            if self.task(name, Path(self.output)).method_options.asks:
                raise RecipeError(
                    "several tasks share weights, and this method moves none",
                    where="method",
                    fix="make each task a recipe of its own",
                    code="no_such_pair",
                )

    def described(self) -> list[str]:
        """The tasks."""
        return list(self.tasks)

    def task(self, name: str, output: Path) -> Recipe:
        """One task as a recipe of its own; errors name the key inside the task."""
        task = self.tasks[name]
        evaluate = {**self.evaluate, **task.evaluate} | ({} if task.primary == "auto" else {"primary": task.primary})
        values = {"base": self.base.model_dump(), "data": task.data, "objective": task.objective, "output": str(output)}
        try:
            return parse({**values, "method": self.method, "train": self.train, "evaluate": evaluate})
        except RecipeError as error:
            raise RecipeError(error.message, where=f"tasks.{name}.{error.where}", fix=error.fix) from None

    def as_dict(self) -> dict[str, Any]:
        """Plain values that give the same recipe back."""
        return self.model_dump(mode="json", by_alias=True)


AnyRecipe = Recipe | StagedRecipe | TasksRecipe
KINDS: dict[str, type[StagedRecipe] | type[TasksRecipe]] = {"stages": StagedRecipe, "tasks": TasksRecipe}
"""The key that tells what kind of recipe it is; a recipe without either is a plain one."""


def parse_any(values: Mapping[str, Any]) -> AnyRecipe:
    """A recipe of whatever kind its keys say; raises `RecipeError` as `parse` does."""
    found = [key for key in KINDS if key in values]
    if not found:
        return parse(values)
    if len(found) > 1:
        raise RecipeError("a recipe has stages or tasks, not both", where="tasks", fix="make the tasks a stage's data")
    recipe = checked(KINDS[found[0]], values)
    recipe.check_parts()
    return recipe


def load_any(path: Path) -> AnyRecipe:
    """A recipe file as a finished run keeps it, its paths resolved."""
    return parse_any(yaml.safe_load(path.read_text(encoding="utf-8")))
