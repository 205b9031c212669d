"""`tailor compare`: the methods on the same rows and the same budget, and the cheapest that is shown to be good enough."""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from tailor.compose import Kept, Prepared
from tailor.core.contracts import Answer, Metric
from tailor.core.errors import Interrupted, RecipeError, RunError, TailorError
from tailor.core.openings import opened
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, write_text
from tailor.engine.place import Place
from tailor.evaluation.choosing import choose_metrics
from tailor.evaluation.race import Scores, rank
from tailor.evaluation.race_report import render_race
from tailor.evaluation.scorers import LIKELIHOODS, resolve
from tailor.recipe.methods import METHODS
from tailor.recipe.race import RaceOptions
from tailor.recipe.recipe import Recipe
from tailor.verbs import fit
from tailor.verbs.measure import Measured, prompt_of
from tailor.verbs.race_row import recipe_for, run_row
from tailor.verbs.rate_search import Rules
from tailor.wire.ledger import one_command

RACE, RESULT, ROW, SCORES = "race.json", "compare.json", "row.json", "scores.npz"
BASE, ZERO_SHOT = "base", "zero_shot"
PROMPT = "prompt"
UNMEASURED: dict[str, Any] = {
    "value": None,
    "ci95": None,
    "delta_to_best": None,
    "delta_ci95": None,
    "within_margin": "unknown",
    "seconds": None,
    "memory_bytes": None,
    "artifact_bytes": None,
}


@one_command()
def compare(recipe: Recipe, options: RaceOptions, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Run the race into the recipe's output folder, and return compare.json; finished rows are not run again."""
    folder = _begun(Path(recipe.output), recipe, options, resume)
    race = _Race(recipe, options, folder, reporter)
    try:
        return race.run()
    except Interrupted as stopped:
        raise Interrupted(
            f"{stopped.message}; finished rows are kept", fix="the same command with --resume goes on"
        ) from None


def _begun(path: Path, recipe: Recipe, options: RaceOptions, resume: bool) -> RunFolder:
    """A new folder, or one that was begun with the same recipe, budget and seeds; methods and margin may change."""
    folder = RunFolder(path)
    told = {"recipe": recipe.as_dict(), "budget": options.budget, "seeds": options.seeds}
    before = folder.read(RACE)
    if before is None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            "this folder holds something else than a comparison", where=str(path), fix="choose another output"
        )
    if before is not None and not resume:
        fix = "add --resume, or choose another --output"
        raise RunError("this output folder exists", where=str(path), fix=fix, code="exists")
    if before is not None and before != told:
        changed = next(key for key in told if before[key] != told[key])
        raise RunError(f"this comparison was begun with another {changed}", where=str(path), fix="choose a new output")
    path.mkdir(parents=True, exist_ok=True)
    folder.write(RACE, told)
    return folder


class _Race:
    """One sitting of a comparison."""

    def __init__(self, recipe: Recipe, options: RaceOptions, folder: RunFolder, reporter: Reporter) -> None:
        self.recipe, self.options, self.folder, self.reporter = recipe, options, folder, reporter
        self.kept = Kept()
        self.sittings: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Every row, and what they tell together."""
        rows: dict[str, dict[str, Any]] = {}
        refused: list[TailorError] = []
        makers = {BASE: self._base, ZERO_SHOT: self._zero_shot, **dict.fromkeys(self.options.methods, self._method)}
        for name, make in makers.items():
            row = RunFolder(self.folder.path / name)
            try:
                rows[name] = row.read(ROW) or make(name)
                row.write(ROW, rows[name])
            except TailorError as error:
                rows[name] = {**UNMEASURED, "reason": error.message}
                refused += [error] if name in self.options.methods else []
                self.reporter.say(f"{name} takes no part: {error.message}")
        if len(refused) == len(self.options.methods):
            raise refused[0]
        return self._told(rows)

    # --- rows -------------------------------------------------------------------------------------------------------

    def _shared(self, name: str) -> fit.Shared:
        """What a row's runs share with all others; the row opens the test split once, however many runs it has."""
        opening = cache(lambda digest: opened(digest, str(self.folder.path / name)))
        return fit.Shared(opening, _keep_scores, self.kept, self.sittings)

    def _method(self, name: str) -> dict[str, Any]:
        seeds = tuple(self.recipe.train.seed + place for place in range(self.options.seeds))
        rules = Rules(seeds, self.options.budget, self._shared(name), self.reporter)
        row = run_row(recipe_for(self.recipe, name, self.folder.path / name), rules)
        answering = [float(one["answering"]) for one in _read_scores(self.folder.path, name, row)]
        return row | {"inference_seconds": fmean(answering)}

    @cached_property
    def _plain(self) -> tuple[Prepared, Place]:
        """The task as a method that moves weights learns it, ready for the base to answer."""
        refused: TailorError | None = None
        for name in (one for one in METHODS if not METHODS[one].asks):
            try:
                return self._settled(name)
            except RecipeError as error:
                refused = error
        raise RecipeError("it has no weights that could be reached: see what it answers when it is asked") from refused

    def _base(self, name: str) -> dict[str, Any]:
        return self._untrained(name, *self._plain)

    def _zero_shot(self, name: str) -> dict[str, Any]:
        prepared, place = self._settled(PROMPT)
        if self._measured(BASE) and _asked(self._plain[0]) == _asked(prepared):
            raise RecipeError("the base is asked in the same words")
        return self._untrained(name, prepared, place)

    def _settled(self, method: str) -> tuple[Prepared, Place]:
        return fit.settled(recipe_for(self.recipe, method, self.folder.path / method), self.kept)

    def _untrained(self, name: str, prepared: Prepared, place: Place) -> dict[str, Any]:
        shared = self._shared(name)
        sitting = shared.before(prepared, prepared.recipe.base, place, self.reporter)
        if not sitting.answers:
            raise RecipeError("it has no head for this task" if sitting.answers is None else "there are no test rows")
        shared.opening(prepared.loaded.report.digests["test"])
        path = self.folder.path / name
        path.mkdir(exist_ok=True)
        _write_scores(path, prepared, sitting.answers, sitting.answering)
        nothing = dict.fromkeys(("memory_bytes", "learning_rate", "forgetting", "proved"))
        return {"seconds": 0.0, "artifact_bytes": 0, "inference_seconds": sitting.answering, "runs": [], **nothing}

    # --- the answer -------------------------------------------------------------------------------------------------

    def _measured(self, name: str) -> bool:
        return (self.folder.path / name / ROW).exists()

    def _told(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """compare.json and the report: standings where there are scores, the reason where there are none."""
        kept = {name: _read_scores(self.folder.path, name, row) for name, row in rows.items() if "reason" not in row}
        metric = self._metric(next(iter(kept.values()))[0]["metric"])
        ids = sorted(set.intersection(*(set(one["ids"]) for runs in kept.values() for one in runs)))
        scores = [
            Scores(
                name, np.stack([_rows(one, ids) for one in runs]), (rows[name]["seconds"], rows[name]["artifact_bytes"])
            )
            for name, runs in kept.items()
        ]
        ranking = rank(scores, metric, self.options.margin)
        standings = {one.method: one.as_dict() for one in ranking.standings}
        names = [*standings, *(name for name in rows if name not in standings)]
        told = [{"method": name, "metric": metric.name, **standings.get(name, {}), **rows[name]} for name in names]
        answer = {
            "rows": told,
            "best": ranking.best,
            "cheapest_adequate": ranking.cheapest_adequate,
            "rows_needed": ranking.rows_needed,
            "n": len(ids),
            "better": metric.better,
            "margin_points": self.options.margin,
            "seeds": self.options.seeds,
            "budget_seconds": self.options.budget,
            "base": self.recipe.base.name,
            "output": str(self.folder.path),
        }
        self.folder.write(RESULT, answer)
        write_text(self.folder.path / "report.html", render_race(answer, self.folder.read(RACE)["recipe"]))
        return answer

    def _metric(self, name: str) -> Metric:
        """The metric of the rows that were scored; a user's own scorer is found by the recipe."""
        prepared = self._plain[0] if self._measured(BASE) or not self._measured(PROMPT) else self._settled(PROMPT)[0]
        primary = self.recipe.evaluate.primary
        asked = name if primary == "auto" else primary
        return resolve([asked], labels=prepared.objective.output.labels, answers_kind=prepared.objective.answers)[0]


def _keep_scores(run: RunFolder, prepared: Prepared, measured: Measured) -> None:
    _write_scores(run.path, prepared, measured.tuned, measured.answering)


def _asked(prepared: Prepared) -> str:
    """What an untrained base is asked: for two tasks the same where its answers would be."""
    return repr((prepared.objective.options, prompt_of(prepared.base, prepared)))


def _write_scores(path: Path, prepared: Prepared, answers: Sequence[Answer], answering: float) -> None:
    """The primary metric's statistics of every test row, beside the run: all that a comparison needs of it."""
    metrics, primary = choose_metrics(prepared.recipe.evaluate, prepared.objective, answers)
    metric = next(one for one in metrics if one.name == primary)
    scored = [one for one in answers if one.expected is not None or primary in LIKELIHOODS]
    if not scored:
        raise RecipeError(f"there are no rows for {primary} to score", where="evaluate.primary")
    rows = metric.statistics(scored)
    if not np.isfinite(rows).all():
        raise RunError(f"{primary} is not a finite number on some rows", where=str(path), code="not_finite")
    ids = np.array([one.example_id for one in scored])
    part = path / f".{SCORES}"
    with part.open("wb") as file:
        np.savez_compressed(file, ids=ids, rows=rows, metric=primary, answering=answering)
    part.replace(path / SCORES)


def _read_scores(folder: Path, name: str, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Scores of each of a row's runs; those of an untrained base lie in its own folder."""
    found: list[Mapping[str, Any]] = []
    for run in row["runs"] or [name]:
        with np.load(folder / run / SCORES) as file:
            values = {key: file[key] for key in file.files}
        found.append({**values, "ids": values["ids"].tolist(), "metric": str(values["metric"])})
    return found


def _rows(scores: Mapping[str, Any], ids: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(scores["ids"])}
    return np.asarray(scores["rows"][[places[name] for name in ids]])
