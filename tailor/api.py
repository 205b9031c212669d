"""The verbs. Everything heavy is reached through `core.registry`, so that importing this imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor.core import registry
from tailor.core.catalogue import bases as catalogue_bases
from tailor.core.catalogue import cached, choose, data_sets, offline
from tailor.core.errors import DataError, RecipeError
from tailor.core.kept import KINDS as CACHED
from tailor.core.kept import clear as remove_kept
from tailor.core.kept import kept
from tailor.core.paths import cache_folder
from tailor.core.reporting import Reporter
from tailor.core.runs import SUMMARY, RunFolder
from tailor.data.load import load as load_rows
from tailor.data.load import peek
from tailor.recipe.many import KINDS, AnyRecipe, StagedRecipe, TasksRecipe, parse_any
from tailor.recipe.race import RaceOptions
from tailor.recipe.recipe import Recipe, RecipeFile, base_options, checked, laid_over, override, read_recipe

RECIPES = (".yaml", ".yml")
AUTO = "runs/auto"
"""An output that is left open."""
CARRIED_BY = {
    Recipe: "tailor.verbs.fit",
    StagedRecipe: "tailor.verbs.stages",
    TasksRecipe: "tailor.verbs.tasks",
}
"""Kinds of recipes, and what plans them and carries them through."""


@dataclass(frozen=True)
class Run:
    """A run folder and what can be done with it."""

    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON answer of `fit`."""
        values: dict[str, Any] = RunFolder.existing(self.path).read(SUMMARY) or {}
        return values

    @property
    def evaluation(self) -> dict[str, Any]:
        """evaluation.json."""
        values: dict[str, Any] = RunFolder.existing(self.path).read("evaluation.json") or {}
        return values

    @property
    def proof(self) -> dict[str, Any]:
        """proof.json."""
        values: dict[str, Any] = RunFolder.existing(self.path).read("proof.json") or {}
        return values

    def generate(self, prompt: str, *, max_new_tokens: int = 256, seed: int = 0) -> Any:
        """The tuned model's answer to one prompt: text through the template it was trained with, greedy; or a picture.

        Args:
            max_new_tokens: of a text; seed: of a picture, which is a `PIL.Image`.
        """
        model = self._model()
        if model.draws:
            return model.draw(prompt, seed=seed)[0]
        return model.generate(prompt, max_new_tokens=max_new_tokens)

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Any]:
        """Labels, label tuples, numbers or tags of texts; answers to (question, context); how alike (text, text) are."""
        found: list[Any] = self._model().predict(texts)
        return found

    def task(self, name: str) -> "Run":
        """One task of a run that has several: it predicts by itself."""
        folder = self.path / "model" / "heads" / name
        if not folder.is_dir():
            known = sorted(entry.name for entry in folder.parent.glob("*"))
            raise RecipeError(f"this run has no task {name!r}", where=str(self.path), fix=f"one of: {', '.join(known)}")
        return Run(folder)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of unit length for each text, from a model of similarity."""
        vectors: list[list[float]] = self._model().embed(texts)
        return vectors

    def _model(self) -> Any:
        return registry.resolve("tailor.verbs.talk:model_of")(str(self.path))


def make_recipe(
    what: str | Path | AnyRecipe | Mapping[str, Any] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    reporter: Reporter | None = None,
    **axes: Any,
) -> AnyRecipe:
    """A recipe from a file, from data alone, or from its parts; what is left open is chosen and said.

    Args:
        what: a recipe file, a recipe's keys and values, or any data source.
        columns: role -> column.
        overrides: `KEY=VALUE` texts, laid over everything.
        resume: an output that is left open is the last one that this recipe was given, not a new one.
        reporter: hears of every choice.
        axes: `base`, `data`, `objective`, `method`, `train`, `evaluate`, `output` as in the recipe, laid over the file's.
    """
    values: dict[str, Any] = {}
    if isinstance(what, RecipeFile):
        values = what.as_dict()
    elif isinstance(what, Mapping):
        values = laid_over({}, what)
    elif what is not None and Path(what).suffix in RECIPES:
        values = read_recipe(Path(what))
    elif what is not None:
        values = laid_over({}, {"data": {"train": str(what)}})
    values = laid_over(values, {key: value for key, value in axes.items() if value is not None})
    texts = []
    if columns:
        texts.append(f"data.columns={json.dumps(dict(columns))}")
    values = override(values, [*texts, *overrides])
    if "data" not in values and not KINDS.keys() & values.keys():
        raise RecipeError("there is no data", where="data", fix="tailor fit DATA, or --data DATA", code="missing_key")
    say = (reporter or Reporter(quiet=True)).say
    if "base" not in values:
        parse_any({**values, "base": "any"})  # what is wrong with the rest is said before a base is looked for
        values["base"] = _chosen_base(_first_data(values), say)
    recipe = parse_any(values)
    if recipe.output == AUTO:
        output = _output(_named_after(recipe.base.name, recipe.described()), resume)
        recipe = recipe.model_copy(update={"output": str(output)})
    return recipe


def _chosen_base(data: Any, say: Any) -> str:
    sources, columns = (data["train"], data.get("columns", {})) if isinstance(data, dict) else (data, {})
    form = peek(sources, columns=columns)
    place = registry.resolve("tailor.engine.place:device_memory")()
    chosen, why = choose(form.name, *place)
    size = f", a download of {chosen['download_bytes'] / 1e6:,.0f} MB" if not chosen["path"] else ", embedded"
    say(f"base: {chosen['name']} — {why}{size}; licence {chosen['licence']}")
    return str(chosen["name"])


def _first_data(values: Mapping[str, Any]) -> Any:
    """The data that a base is chosen for: of the last stage or the first task, where there are several."""
    parts = values.get("stages") or list((values.get("tasks") or {}).values())
    whole = parts[-1] if parts else values
    if not isinstance(whole, dict) or "data" not in whole:
        raise RecipeError("there is no data to choose a base for", where="base", fix="add --base B", code="missing_key")
    return whole["data"]


def _named_after(base: str, others: Sequence[str]) -> list[str]:
    return [base.rstrip("/").rpartition("/")[2], *others]


def _output(parts: Sequence[str], resume: bool) -> Path:
    """`runs/BASE-METHOD-DATA`, numbered where that exists; the last one of these to resume."""
    name = "-".join(parts).replace(":", "-")
    root = Path("runs").resolve()
    taken = 0
    while (root / _numbered(name, taken + 1)).exists():
        taken += 1
    return root / _numbered(name, taken if resume and taken else taken + 1)


def _numbered(name: str, count: int) -> str:
    return name if count == 1 else f"{name}-{count}"


def fit(
    what: str | Path | AnyRecipe | Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    **parts: Any,
) -> Run:
    """Carry a recipe (or data, or `base=`, `data=`, `method=`, …) through training, proof, evaluation and report."""
    recipe = make_recipe(what, resume=resume, reporter=reporter, **parts)
    reporter = reporter or Reporter(quiet=True)
    if resume and not Path(recipe.output).exists():
        reporter.say(f"there is nothing at {recipe.output} to go on with: a new run begins")
    carry = registry.resolve(f"{CARRIED_BY[type(recipe)]}:run")
    carry(recipe, resume=resume, reporter=reporter)
    return Run(Path(recipe.output))


def check(
    data: Any,
    *,
    base: str | None = None,
    test: str | None = None,
    columns: Mapping[str, str] | None = None,
    fix: str | Path | None = None,
    redact: bool = False,
    html: str | Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """What the data is and what a model will learn from it; `severity: error` marks what would stop `fit`.

    Args:
        base: adds what its tokenizer and template make of the data, and judges labels by its features.
        test: a test source of its own, which training should not hold.
        fix: where to write a cleaned copy, `*.jsonl`, with its changes beside it; the data themselves are left alone.
        redact: without personal data and secrets.
        html: where to write a page of it.
    """
    if redact and fix is None:
        raise RecipeError("there is no copy to redact", where="--redact", fix="add --fix OUT.jsonl")
    outputs = {"fix": None if fix is None else Path(fix), "html": None if html is None else Path(html)}
    preview = "tailor.verbs.preview"
    registry.resolve(f"{preview}:refuse_outputs")(**outputs)
    report, loaded, embed = _loaded_report(data, base, test, columns or {})
    complete = registry.resolve(f"{preview}:examined")
    answer: dict[str, Any] = complete(
        report, loaded, reporter or Reporter(quiet=True), embed=embed, redact=redact, **outputs
    )
    return answer


def _loaded_report(data: Any, base: str | None, test: str | None, columns: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """(report, data, features of the base): with the base's view of the data where they can be trained on."""
    stopping: DataError | None = None
    if base is not None:
        overrides = [f"data.test={json.dumps(test)}"] if test else []
        recipe = make_recipe(base=base, data=data, columns=columns, overrides=[*overrides, "data.on_bad_row=skip"])
        try:
            return registry.resolve("tailor.verbs.check:check")(recipe)  # type: ignore[no-any-return]
        except DataError as error:
            stopping = (
                error  # the rows can be read, it seems, and yet not be trained on: say what they are, and why not
            )
    loaded = load_rows(data, columns=columns, on_bad_row="skip", test=test or "auto")
    report: dict[str, Any] = registry.resolve("tailor.verbs.preview:without_base")(loaded)
    if stopping is not None and not any(problem["severity"] == "error" for problem in report["problems"]):
        report["problems"].insert(0, _as_problem(stopping))
    return report, loaded, None


def _as_problem(error: DataError) -> dict[str, Any]:
    file, _, line = error.where.rpartition(":")
    where = {"file": file, "line": int(line)} if line.isdigit() else {"file": error.where, "line": 0}
    return {"severity": "error", "code": error.code, "message": error.message, **where, "count": 1}


def plan(
    data: Any,
    *,
    base: str | Mapping[str, Any] | None = None,
    memory: str | None = None,
    gpu: str | None = None,
    recipe: str | Path | None = None,
    reporter: Reporter | None = None,
    **aim: Any,
) -> dict[str, Any]:
    """Which approach, with reasons and sources; memory and time of each method; where else it would fit.

    Args:
        data: what to learn from, or a recipe file with one task.
        memory, gpu: a device instead of this machine: `24GB`, `h100`.
        recipe: a file that a recipe is written to, with the reasons as comments.
        aim: `goal` (task, or facts), `served` (how many models), `text` (raw text of the domain), `columns`.
    """
    columns = aim.pop("columns", None)
    is_recipe = isinstance(data, str | Path) and Path(data).suffix in RECIPES
    given = {"what": data} if is_recipe else {"data": data}
    made = make_recipe(base=base, columns=columns, reporter=reporter, **given)
    if not isinstance(made, Recipe):
        raise RecipeError(
            "this recipe has several parts, and a plan is for one",
            where=str(data),
            fix="name the data of one of them; `tailor fit RECIPE --dry-run` shows all",
            code="several_parts",
        )
    wishes = {"goal": "task", "served": 1, "text": None, **aim}
    out = None if recipe is None else str(recipe)
    advise = registry.resolve("tailor.verbs.plan:advise")
    return advise(made, gpu=gpu, memory=memory, out=out, **wishes)  # type: ignore[no-any-return]


def load(path: str | Path) -> Run:
    """A finished run."""
    return Run(RunFolder.existing(Path(path)).path)


def evaluate(
    model: Run | str | Path | Mapping[str, Any],
    *,
    data: Any = None,
    against: Any = None,
    margin: float | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """A model against another (its base, where none is named) on held-out data (the run's own test split, by default).

    A model is a run, a name, or a base's options (`{"endpoint": {…}}`); `against` may be a file of recorded answers too.
    `overrides`: `evaluate.KEY=VALUE` texts, laid over the run's own settings.
    """
    answer: dict[str, Any] = registry.resolve("tailor.verbs.evaluate:evaluate_model")(
        _named(model),
        data=data,
        against=against,
        margin=margin,
        overrides=overrides,
        reporter=reporter or Reporter(quiet=True),
    )
    return answer


def record(
    model: Run | str | Path | Mapping[str, Any], *, data: Any, out: str | Path, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Keep a model's answers to all rows of the data in a file that `evaluate` takes as `against`."""
    answer: dict[str, Any] = registry.resolve("tailor.verbs.record:record")(
        _named(model), data=data, out=str(out), reporter=reporter or Reporter(quiet=True)
    )
    return answer


def compare(
    what: str | Path | AnyRecipe,
    *,
    methods: Sequence[str] | None = None,
    budget: str | float | None = None,
    seeds: int = 3,
    margin: float = 2.0,
    output: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """The methods on the same rows and budget, and the cheapest whose loss against the best is shown to be below the margin.

    Args:
        methods: names; None: all there are.
        budget: of each method's training, its search and all its seeds together: seconds, or `90s`, `10m`, `1h`.
        seeds: runs of each method.
        margin: points.
        output: where the runs and the report go; by default the recipe's output, else a new folder below `runs`.
    """
    asked = {"budget": budget, "seeds": seeds, "margin": margin, **({} if methods is None else {"methods": methods})}
    options = checked(RaceOptions, asked)
    target = str(output or _written_output(what))
    recipe = make_recipe(what, output="runs/compare" if target == AUTO else target, reporter=reporter)
    if not isinstance(recipe, Recipe):
        fix = "name a recipe without them"
        raise RecipeError("methods are compared on one task, without stages", where="stages", fix=fix)
    if target == AUTO:
        parts = ["compare", *_named_after(recipe.base.name, recipe.described()[1:])]
        recipe = recipe.model_copy(update={"output": str(_output(parts, resume))})
    run = registry.resolve("tailor.verbs.compare:compare")
    answer: dict[str, Any] = run(recipe, options, resume=resume, reporter=reporter or Reporter(quiet=True))
    return answer


def review(run: str | Path, *, port: int = 0, reporter: Reporter | None = None) -> dict[str, Any]:
    """Serve a page for blind votes between base and tuned answers until all are given or Ctrl-C, and return the win rate."""
    found: dict[str, Any] = registry.resolve("tailor.verbs.review:review")(
        str(run), port=port, reporter=reporter or Reporter()
    )
    return found


def _written_output(what: str | Path | AnyRecipe) -> str:
    if isinstance(what, RecipeFile):
        return what.output
    return str(read_recipe(Path(what)).get("output", AUTO)) if Path(what).suffix in RECIPES else AUTO


def _named(model: Run | str | Path | Mapping[str, Any]) -> str | Mapping[str, Any]:
    if isinstance(model, Mapping):
        return model
    return str(model.path if isinstance(model, Run) else model)


def prove(
    model: Run | str | Path, *, base: str | None = None, served: str | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Is this artefact, or the model behind this server, really the tuned one?"""
    answer: dict[str, Any] = registry.resolve("tailor.verbs.prove:prove_model")(
        _named(model), base=base, served=served, reporter=reporter or Reporter(quiet=True)
    )
    return answer


def render(base: str, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()) -> list[Any]:
    """A conversation as a base's template renders it, in segments of (text, token_ids, trained): what is trained on."""
    segments: list[Any] = registry.resolve("tailor.verbs.talk:render")(base, messages, tools)
    return segments


def examples(data: Any, *, base: str | None, columns: Mapping[str, str], count: int) -> list[Any]:
    """The first training examples as segments of text, each marked as trained or not."""
    if base is None:
        raise RecipeError("only a base's tokenizer can tell what is trained", where="--show", fix="add --base B")
    recipe = make_recipe(base=base, data=data, columns=columns, overrides=["data.on_bad_row=skip"])
    return registry.resolve("tailor.verbs.check:examples")(recipe, count)  # type: ignore[no-any-return]


def plan_fit(recipe: AnyRecipe) -> dict[str, Any]:
    """What `fit` would do: the resolved recipe, data report and plan (of each stage or task); nothing is written.

    Nothing is fetched either: of a base that is not here, the recipe as it stands and what would be downloaded.
    """
    if needs_download(recipe) and not offline():
        sizes = {entry["name"]: entry.get("download_bytes") for entry in catalogue_bases()}
        download = {"base": recipe.base.name, "bytes": sizes.get(recipe.base.name)}
        return {"recipe": recipe.as_dict(), "download": download}
    return registry.resolve(f"{CARRIED_BY[type(recipe)]}:dry_run")(recipe)  # type: ignore[no-any-return]


def needs_download(recipe: AnyRecipe) -> bool:
    """Whether the base is a hub id that is not in the local cache."""
    name = recipe.base.name
    if recipe.base.endpoint is not None:
        return False
    looks_like_hub_id = ":" not in name and not name.startswith((".", "/", "~")) and name.count("/") < 2
    return looks_like_hub_id and not Path(name).exists() and not cached(name)


def cache(kind: str | None = None, *, clear: bool = False) -> dict[str, Any]:
    """What is cached, by kind: files, bytes and what they hold; with `clear`, what there was and is removed now."""
    found = remove_kept(kind) if clear else kept(kind)
    kinds = {name: {**size, "holds": CACHED[name]} for name, size in found.items()}
    return {"folder": str(cache_folder()), "kinds": kinds}


def generate(
    model: str | Mapping[str, Any],
    prompt: str,
    *,
    number: int = 1,
    max_new_tokens: int = 256,
    output: str | Path | None = None,
) -> list[Any]:
    """Answers to one prompt: the first greedy, the others sampled with fixed seeds; for a model that draws, files of
    pictures; of a model that reads labels off texts, its label as `{"answer", "probability"}`.

    Args:
        output: where pictures are written; None: `generated` in the run folder, or here for a base.
    """
    loaded = registry.resolve("tailor.verbs.talk:model_of")(model)
    if loaded.reads:
        return [loaded.told_of(prompt)]
    if not loaded.draws:
        return [loaded.generate(prompt, max_new_tokens=max_new_tokens, seed=seed or None) for seed in range(number)]
    name = Path(base_options(model).name)
    folder = Path(output) if output is not None else (name if name.is_dir() else Path()) / "generated"
    write = registry.resolve("tailor.verbs.pictures:write_pictures")
    return [str(file) for file in write(loaded.draw(prompt, number), prompt, folder)]


def answer_rows(
    run: str, data: Any, *, out: str | Path, max_new_tokens: int = 256, reporter: Reporter | None = None
) -> int:
    """Write a run's answer to every row of the data as JSON lines, and return how many; labels with how sure it is."""
    count: int = registry.resolve("tailor.verbs.answer_rows:answer_rows")(
        run, data, Path(out), max_new_tokens, reporter or Reporter(quiet=True)
    )
    return count


def chat_sides(model: str | Mapping[str, Any], *, max_new_tokens: int = 256) -> dict[str, Any]:
    """Functions from a user's line to an answer, each with its own history: `base` and `tuned` for a run."""
    return registry.resolve("tailor.verbs.talk:sides")(model, max_new_tokens)  # type: ignore[no-any-return]


def bases(*, fits: bool = False) -> dict[str, Any]:
    """Embedded bases and data with their folders, and a catalogue of good open ones; with `fits`, by which methods each
    can be tuned here."""
    found = catalogue_bases()
    if fits:
        kind, memory = registry.resolve("tailor.engine.place:device_memory")()
        fitting = registry.resolve("tailor.planner.places:methods_that_fit")
        found = [{**entry, "fits": fitting(entry["parameters"], kind, memory)} for entry in found]
    return {"bases": found, "data": data_sets()}


def doctor() -> dict[str, Any]:
    """Hardware, versions, extras, and what of it was tested."""
    return registry.resolve("tailor.verbs.doctor:look")()  # type: ignore[no-any-return]
