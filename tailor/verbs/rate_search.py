"""The learning rate of a method, searched on dev by whole runs, of which the best goes on as the first seed's own run.

Three rates are tried: the method's own, and one on either side. A run that is behind the best so far when half of its steps
are made is stopped at its next look at dev. Where there is a budget, a few timed steps tell how many steps it is worth. All
of it is kept in a file, so that an interrupted search goes on where it stopped.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tailor.compose import make_job
from tailor.core.errors import RecipeError, RunError
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.engine.loop import Job, fit
from tailor.engine.pace import pace
from tailor.engine.place import forget_peak
from tailor.recipe.recipe import Recipe
from tailor.verbs.fit import Shared, settled

NOTES = "search.json"
APART = 10**0.5
"""Factor between the rates that are tried."""
FEWEST_STEPS = 8


@dataclass(frozen=True)
class Rules:
    """What is alike for every method.

    Args:
        seeds: of the training; the division of the rows is the same for all.
        budget: seconds of training for a method, its search and all its seeds together; None: as long as the recipe says.
    """

    seeds: tuple[int, ...]
    budget: float | None
    shared: Shared
    reporter: Reporter


@dataclass(frozen=True)
class Settings:
    """A method's recipe with its settings, the seconds that finding them took, and what is done with the method."""

    recipe: Recipe
    seconds: float
    driver: str


Looks = Sequence[tuple[int, float]]
"""Looks at dev: step and loss."""


class RateSearch:
    """The search for one method, in its folder; `goal` is the folder that the best run becomes."""

    def __init__(self, recipe: Recipe, goal: Path, rules: Rules) -> None:
        self.recipe, self.goal, self.rules = recipe, goal, rules
        self.folder = RunFolder(goal.parent)
        self.notes: dict[str, Any] = self.folder.read(NOTES) or {"tried": [], "max_steps": recipe.train.max_steps}

    def settle(self) -> Settings:
        """The recipe with its rate, and with as many steps as the budget is worth.

        Raises `RunError` where no rate works, `RecipeError` where the budget is too small.
        """
        if "chosen" not in self.notes:
            self._find()
        lost = sum(one["seconds"] for one in self.notes["tried"] if one["learning_rate"] != self.notes["chosen"])
        seconds = lost + self.notes.get("pace_seconds", 0.0)
        return Settings(self._recipe(self.notes["chosen"]), seconds, self.notes["driver"])

    def _find(self) -> None:
        job = self._job("auto", self._place("auto"))
        own, dev = job.plan.learning_rate, len(job.dev)
        if "driver" not in self.notes:
            if job.attached.driver == "gradient" and self.rules.budget is not None:
                self._fit_into_budget(job)
            self._note(driver=job.attached.driver)
        del job
        shutil.rmtree(self._place("auto"), ignore_errors=True)
        if self.notes["driver"] != "gradient" or not dev:
            self._note(chosen=own)
            return
        for rate in [_short(own), _short(own * APART), _short(own / APART)][len(self.notes["tried"]) :]:
            self._try(rate)
        best = self._leader()
        if best is None:
            raise RunError(f"no learning rate worked: {self.notes['tried'][0]['why']}", where=str(self.folder.path))
        if self._place(best["learning_rate"]).exists():
            self._place(best["learning_rate"]).rename(self.goal)
        self._note(chosen=best["learning_rate"])

    def _fit_into_budget(self, job: Job) -> None:
        """As many steps as the search and all seeds have time for, and no more than the recipe asks for."""
        assert self.rules.budget is not None
        found = pace(job)
        runs = len(self.rules.seeds) + (2 if len(job.dev) else 0)
        steps = found.steps_in((self.rules.budget - found.spent) / runs)
        if steps < FEWEST_STEPS:
            raise RecipeError(
                f"{self.rules.budget:.0f} seconds are worth {max(0, steps)} steps in each of {runs} runs here: a step takes "
                f"{found.step:.2g} s, a look at dev {found.look:.2g} s",
                where="budget",
                fix="raise it, or lower the number of seeds",
                code="budget",
            )
        self._note(pace_seconds=found.spent, max_steps=min(steps, job.plan.steps))

    def _try(self, rate: float) -> None:
        """A whole run at a rate, or half of one that is behind; the better folder of the two is kept."""
        self.rules.reporter.say(f"{self.recipe.method_options.name} at a learning rate of {rate:g}")  # type: ignore[attr-defined]
        leader, path, start = self._leader(), self._place(rate), time.perf_counter()
        job = self._job(rate, path)
        forget_peak(job.place.kind)
        before = self._looks(leader["learning_rate"]) if leader else []
        job = replace(job, watch=_behind(before, self._looks(rate), job.plan.steps))
        told: dict[str, Any] = {"learning_rate": rate}
        try:
            state = fit(job).state
            told |= {"dev_loss": state.best_loss, "steps": state.step, "seconds": state.seconds}
        except RunError as error:
            if error.code != "not_finite":
                raise
            told |= {"dev_loss": None, "seconds": time.perf_counter() - start, "why": error.message}
        self._note(tried=[*self.notes["tried"], told])
        for one in self.notes["tried"]:
            if one is not self._leader():
                shutil.rmtree(self._place(one["learning_rate"]), ignore_errors=True)

    def _leader(self) -> dict[str, Any] | None:
        worked = [one for one in self.notes["tried"] if one["dev_loss"] is not None]
        return min(worked, key=lambda one: one["dev_loss"], default=None)

    def _job(self, rate: float | str, path: Path) -> Job:
        prepared, place = settled(self._recipe(rate), self.rules.shared.kept)
        folder = RunFolder.create(path, resume=True)
        prepared.recipe.save(folder.recipe)
        return make_job(prepared, prepared.recipe, place, path, self.rules.reporter)

    def _recipe(self, rate: float | str) -> Recipe:
        """The recipe at a rate, for the first seed and the folder that its run will have."""
        own = self.recipe.train
        values = {
            "learning_rate": own.learning_rate if rate == "auto" else rate,
            "max_steps": self.notes["max_steps"],
            "seed": self.rules.seeds[0],
        }
        return self.recipe.model_copy(update={"train": own.model_copy(update=values), "output": str(self.goal)})

    def _place(self, rate: float | str) -> Path:
        return self.folder.path / f"rate-{rate}"

    def _looks(self, rate: float) -> Looks:
        lines = RunFolder(self._place(rate)).lines("metrics.jsonl")
        return [(line["step"], line["dev_loss"]) for line in lines if "dev_loss" in line]

    def _note(self, **values: Any) -> None:
        self.notes |= values
        self.folder.write(NOTES, self.notes)


def _short(rate: float) -> float:
    return float(f"{rate:.1e}")


def _behind(leader: Looks, own: Looks, steps: int) -> Callable[[int, float], bool]:
    """Whether a run is behind another one at the same step, asked from the half of its steps on."""
    best = min((loss for _, loss in own), default=float("inf"))

    def watch(step: int, loss: float) -> bool:
        nonlocal best
        best = min(best, loss)
        reached = [other for at, other in leader if at <= step]
        return 2 * step >= steps and bool(reached) and best > min(reached)

    return watch
