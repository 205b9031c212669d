"""Evaluate: a tuned model against its base, on the same held-out rows, by the same questions."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tailor.bases.loading import Source, find
from tailor.compose import Prepared, freeze_splits, load_dtype, make_base, output_of, writer
from tailor.core.contracts import UNTRAINED, Answer, Base, ExampleSeat, OutputSpec
from tailor.core.errors import BaseError, DataError, RecipeError, RowRefused
from tailor.core.examples import Example, Origin, Text
from tailor.core.paths import PACKAGE
from tailor.core.prompts import Prompt
from tailor.core.reporting import Reporter
from tailor.data.load import load
from tailor.engine.guard import memory_explained
from tailor.engine.place import Place
from tailor.engine.space import asking
from tailor.evaluation.answering import Asking, Held, answer_all
from tailor.evaluation.choosing import choose_metrics
from tailor.evaluation.compare import task_result
from tailor.evaluation.generators import generator_of
from tailor.evaluation.judge import Judged, judge
from tailor.evaluation.picturing import SHOWN, Drawing, with_pictures
from tailor.evaluation.scorers import LIKELIHOODS, resolve
from tailor.evaluation.slices import regressions, slices
from tailor.evaluation.votes import Vote
from tailor.evaluation.written import answers_to, asked_of, left_out
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import Recipe

GUESSED = {"label", "labels", "number", "tags", "span"}
"""Kinds of answers that a base gives by a guess alone, having no head for them."""

Recorded = Callable[[Sequence[Answer]], list[Answer]]
"""Answers of a model that need not be there any more: those to the rows that another one has answered."""
Rows = Sequence[tuple[Example, Mapping[str, Any]]]
"""Examples with their rows as read."""
WRITTEN = {"text"}
"""Kinds of answers that a model which never answers would leave out."""
GENERATED_ROWS = 200
DRAWN_ROWS = 16
GENERAL_WINDOW = 128
"""Tokens of a window of the general text: fixed, so that every run of a base starts from the same figure."""
GENERAL_TEXT = PACKAGE / "evaluation" / "general.txt"


@dataclass(frozen=True)
class Measured:
    """What an evaluation found: evaluation.json, and the answers behind it."""

    evaluation: dict[str, Any]
    base: Sequence[Answer] = ()
    tuned: Sequence[Answer] = ()
    primary: Any = None
    answering: float = 0.0
    """Seconds that the tuned model took for an answer."""
    votes: Mapping[str, Vote] = field(default_factory=dict)
    """Those of a judge between both models' answers, by row."""


@dataclass(frozen=True)
class Sitting:
    """One model's answers to the test split; None where it lacks what the task needs (a head of its own, say).

    `spent` is what they cost, where a model behind an API gave them; `seconds` what all of them took.
    """

    answers: list[Answer] | None
    general_loss: float | None
    spent: Mapping[str, float] | None = None
    old: Sequence[Answer] = ()
    """Answers to rows of what the base could do before, where the recipe names such."""
    seconds: float = 0.0

    @property
    def answering(self) -> float:
        """Seconds for an answer."""
        return self.seconds / max(1, len(self.answers or ()))


def evaluate(
    prepared: Prepared,
    tuned: BaseOptions,
    base: BaseOptions | Recorded | Sitting | None,
    place: Place,
    opening: Callable[[str], int],
    reporter: Reporter,
) -> Measured:
    """Both models' answers to the test split, compared; an empty split gives an evaluation without tasks.

    `base`: a model, its answers, a function that picks those to the same rows from others, or None for a guess that takes
    no look at a row; where nothing can be guessed (raw text), the model is held against itself. `opening` counts how often
    the split with a digest has been opened, this time included.
    """
    options = prepared.recipe.evaluate
    if not len(prepared.splits["test"].store) and options.forgetting is not True and options.old is None:
        return Measured({"tasks": {}})
    _freeze(prepared, base if isinstance(base, BaseOptions) else tuned, place, reporter)
    reporter.say(f"the tuned model answers {_how_many(prepared)}")
    after = sit(prepared, tuned, place, reporter)
    before = _before(prepared, base, after, place, reporter)
    forgetting = _forgetting(prepared, before, after)
    if after.answers is None:
        raise BaseError("this model has no head for this task, so it cannot be measured", where=tuned.name)
    if not after.answers:
        return Measured({"tasks": {}, "forgetting": forgetting})
    name = "itself" if before is after else "base"
    baseline, base_answers = (name, before.answers) if before.answers else _no_information(prepared, after.answers)
    metrics, primary = choose_metrics(options, prepared.objective, [*base_answers, *after.answers])
    group = prepared.recipe.data.columns.get("group")
    result = task_result(
        base_answers,
        after.answers,
        metrics,
        primary,
        baseline=baseline,
        opened=opening(prepared.loaded.report.digests["test"]),
        margin_points=options.margin,
        groups=_groups(group, base_answers),
    )
    deciding = next(metric for metric in metrics if metric.name == primary)
    result |= {"group": group} if group else {}
    result["slices"] = slices(base_answers, after.answers, deciding)
    result["regressions"] = regressions(base_answers, after.answers, deciding)
    votes: Mapping[str, Vote] = {}
    if options.judge is not None:
        judged = _judged(prepared, base_answers, after.answers, place, reporter)
        result["judge"], votes = {"model": options.judge.base.name, **judged.as_dict()}, judged.votes
    evaluation: dict[str, Any] = {"tasks": {"default": result}, "forgetting": forgetting}
    costs = {"tuned": after.spent, "base": before.spent}
    if any(costs.values()):
        evaluation["spent"] = {name: cost for name, cost in costs.items() if cost}
    return Measured(evaluation, base_answers, after.answers, deciding, after.answering, votes)


def _judged(
    prepared: Prepared, base: Sequence[Answer], tuned: Sequence[Answer], place: Place, reporter: Reporter
) -> Judged:
    """What the judge that the recipe names says of both models' answers."""
    options = prepared.recipe.evaluate.judge
    assert options is not None
    model = writer(options.base, prepared.recipe, place, "evaluate.judge.base")
    reporter.say(f"{options.base.name} judges both answers to up to {options.rows} rows, each twice")
    return judge(
        generator_of(model, asking(prepared.recipe, place), reporter), options.rubric, base, tuned, options.rows
    )


def _groups(column: str | None, answers: Sequence[Answer]) -> list[str] | None:
    """What each row belongs to: rows of one document or user tell less than as many that have nothing in common.

    A row that names nothing stands for itself.
    """
    if column is None:
        return None
    shared = [answer.row.get(column) for answer in answers]
    return [f"own {a.example_id}" if one is None else f"of {one}" for a, one in zip(answers, shared, strict=True)]


def _before(
    prepared: Prepared, base: BaseOptions | Recorded | Sitting | None, after: Sitting, place: Place, reporter: Reporter
) -> Sitting:
    if isinstance(base, Sitting):
        return base
    if base is None:
        return Sitting(None, None) if prepared.objective.answers in GUESSED | WRITTEN else after
    if not isinstance(base, BaseOptions):
        return Sitting(base(after.answers or []), None)
    reporter.say("the base answers the same rows")
    return sit(prepared, base, place, reporter)


def _forgetting(prepared: Prepared, before: Sitting, after: Sitting) -> dict[str, Any] | None:
    """What became of what the base could do: on rows that the recipe names, else by the loss on the general text."""
    if before.old and after.old:
        metrics, _ = choose_metrics(prepared.recipe.evaluate, prepared.objective, [*before.old, *after.old])
        metric = next((one for one in metrics if one.name not in LIKELIHOODS), metrics[0])
        base, tuned = (float(metric.value(metric.statistics(side).sum(0))) for side in (before.old, after.old))
        return {"base": base, "tuned": tuned, "delta": tuned - base, "metric": metric.name, "n": len(before.old)}
    if before.general_loss is None or after.general_loss is None:
        return None
    delta = after.general_loss - before.general_loss
    return {"base": before.general_loss, "tuned": after.general_loss, "delta": delta}


def _freeze(prepared: Prepared, model: BaseOptions, place: Place, reporter: Reporter) -> None:
    """What the objective wants to know of the base about the test rows, unless the training's base has told it."""
    store = prepared.splits["test"].store
    if not prepared.objective.needs_frozen or not len(store) or store[0].frozen:
        return
    base, output = _loaded(prepared, model, place)
    freeze_splits(replace(prepared, base=base), output, place, ("test",), reporter)


def _no_information(prepared: Prepared, answers: Sequence[Answer]) -> tuple[str, list[Answer]]:
    """The best guess without looking at a row: the score to beat where the base has no head for the task."""
    objective, train = prepared.objective, prepared.loaded.train
    if not len(train):
        raise DataError("there are no training labels to guess from", where="data.train", fix="add labelled rows")
    seen = [objective.read(entry.row, ExampleSeat(entry.id, entry.origin)) for entry in train]
    name, guess = objective.guess(seen)
    asked = {example.id: guess(example) for example, _ in prepared.held("test")}
    given = [replace(answer, given=asked[answer.example_id], nll=None) for answer in answers]
    return name, given


def sit(prepared: Prepared, model: BaseOptions, place: Place, reporter: Reporter) -> Sitting:
    """Load one model and take its answers, and its loss on the general text where it predicts text."""
    base, output = _loaded(prepared, model, place)
    if base.new_head:
        return Sitting(None, None)
    asked = replace(prepared, objective=prepared.objective.under(prompt_of(base, prepared)))
    start = time.perf_counter()
    answers = _answers(asked, base, output, answered_rows(asked), place, reporter)
    seconds = time.perf_counter() - start
    own = getattr(base, "generator", None)
    spent = _told(own, reporter) if own is not None else None
    if prepared.recipe.evaluate.forgetting is False:
        return Sitting(answers, None, spent, seconds=seconds)
    old = _answers(asked, base, output, _old_rows(asked), place, reporter)
    return Sitting(answers, general_loss(base, output, asking(prepared.recipe, place)), spent, old, seconds)


def prompt_of(base: Any, prepared: Prepared) -> Prompt | None:
    """What a model is asked behind: the prompt that lies beside it, else the task in the user's plain words."""
    if base.source.prompt is not None:
        return base.source.prompt  # type: ignore[no-any-return]
    own = getattr(prepared.recipe.method, "instructions", ())
    return prepared.objective.bare(next(iter(own), ""))  # type: ignore[no-any-return]


def _told(generator: Any, reporter: Reporter) -> Mapping[str, float]:
    """What answers through an API have cost."""
    spent: Mapping[str, float] = generator.spent()
    reporter.say(
        f"{spent['calls']:.0f} calls, {spent['cached_calls']:.0f} of them answered from the cache; "
        f"{spent['prompt_tokens']:,.0f} + {spent['completion_tokens']:,.0f} tokens; {spent['paid']:.4g} paid now"
    )
    return spent


def _answers(
    prepared: Prepared, base: Any, output: OutputSpec, rows: Rows, place: Place, reporter: Reporter
) -> list[Answer]:
    """Answers to rows: asked for behind a prompt, or read off; with pictures where these are what is answered."""
    if not rows:
        return []
    objective, settings = prepared.objective, asking(prepared.recipe, place)
    if objective.prompt is not None or getattr(base, "generator", None) is not None:
        return _asked(prepared, base, rows, settings, reporter)
    answers = answer_all(base, objective, output, _held(prepared, base, rows), settings, reporter)
    return _with_pictures(prepared.recipe, base, answers, place, reporter) if objective.answers == "image" else answers


def _asked(prepared: Prepared, base: Any, rows: Rows, settings: Asking, reporter: Reporter) -> list[Answer]:
    """Answers to rows by a model that is asked behind a prompt."""
    generator = generator_of(base, settings, reporter)
    asked = [asked_of(generator, prepared.objective, example, row) for example, row in rows]
    left_out(asked, reporter)
    return answers_to(generator, prepared.objective, asked, settings.max_new_tokens)


def _with_pictures(
    recipe: Recipe, base: Any, answers: Sequence[Answer], place: Place, reporter: Reporter
) -> list[Answer]:
    """Answers with a picture each where a metric looks at them, else with as many as a report shows."""
    options = recipe.evaluate
    count = len(answers) if looks_at_answers(recipe) else SHOWN
    with memory_explained(
        "while pictures were drawn", "evaluate", "a larger device, then --resume: the training is kept"
    ):
        return with_pictures(base, answers, count, Drawing(place.device, *options.drawing), reporter)


def looks_at_answers(recipe: Recipe) -> bool:
    """Whether a metric that the recipe names needs more than likelihoods."""
    options = recipe.evaluate
    named = [*(() if options.metrics == "auto" else options.metrics), options.primary]
    return any(name not in (*LIKELIHOODS, "auto") for name in named)


def _loaded(prepared: Prepared, model: BaseOptions, place: Place) -> tuple[Any, OutputSpec]:
    """A model with its weights, that encodes by its own tokenizer and template, and the output it was asked for."""
    recipe, objective = prepared.recipe, prepared.objective
    source = find(model)
    if objective.output.labels != source.labels and set(objective.output.labels) == set(source.labels):
        objective.adopt(source.labels)  # the same labels, counted in another order
    # What is written may be as long as the context; what is read is cut where training cut it.
    data = recipe.data.model_copy(update={"max_length": "auto"} if objective.generates else {})
    base = make_base(recipe.model_copy(update={"base": model, "data": data}), source, objective, prepared.loaded)
    output = _output_for(recipe, objective, source)
    torch.manual_seed(recipe.train.seed)
    base.load(output, load_dtype(recipe, place, source))
    return base, output


def _output_for(recipe: Recipe, objective: Any, source: Source) -> OutputSpec:
    """A folder whose head reads the mean token state is read so, whatever method made it."""
    output = output_of(recipe, objective)
    return replace(output, pooling="mean" if source.pooling == "mean" else output.pooling)


def answered_rows(prepared: Prepared, split: str = "test") -> Rows:
    """Held-out rows, fewer where an answer is written or drawn."""
    return list(prepared.held(split, most_rows(prepared) if takes_time(prepared) else None))


def _how_many(prepared: Prepared) -> str:
    """The test rows in words; where some are left out, what decides that."""
    there, most = len(set(prepared.splits["test"].rows)), most_rows(prepared)
    if most is None or most >= there or not takes_time(prepared):
        return "the test rows"
    return f"{most} of {there} test rows (evaluate.samples={most}; null: all of them)"


def takes_time(prepared: Prepared) -> bool:
    """Whether answers are written (by a model behind an API, labels too) or drawn; what is read off is read off all rows."""
    objective = prepared.objective
    if objective.answers == "image":
        return looks_at_answers(prepared.recipe)
    return objective.generates and not (objective.choices and "weights" in prepared.base.has)


def most_rows(prepared: Prepared) -> int | None:
    """How many answers are written or drawn at most."""
    asked, objective = prepared.recipe.evaluate.samples, prepared.objective
    if asked != "auto":
        return asked
    return DRAWN_ROWS if objective.answers == "image" else None if objective.choices else GENERATED_ROWS


def evaluation_calls(prepared: Prepared) -> int:
    """The most requests that measuring a model and its base takes, where both are asked in words."""
    return 2 * (len(answered_rows(prepared)) + len(_old_rows(prepared)))


def _old_rows(prepared: Prepared) -> Rows:
    """Rows of what the base could do before, as many as are asked of the test split."""
    options, objective = prepared.recipe.evaluate, prepared.objective
    if options.old is None:
        return []
    rows = load(options.old, dev=0.0, test=0.0, objective=objective.name).train
    chosen = sorted(rows, key=lambda entry: entry.id)[: most_rows(prepared)]
    return [
        (objective.read(entry.row, ExampleSeat(entry.id, entry.origin)), {**entry.values, **entry.row})
        for entry in chosen
    ]


def _held(prepared: Prepared, base: Base, rows: Rows) -> list[Held]:
    """Rows encoded anew by the model's own tokenizer and template: what was saved with it is what is used."""
    store = prepared.splits["test"].store
    frozen = {part.example_id: part.frozen for part in store} if prepared.objective.needs_frozen else {}
    held = []
    for example, row in rows:
        target = prepared.objective.target(example)
        try:
            encoded = base.encoders[type(example)](example)
        except RowRefused as refusal:
            raise DataError(f"{base.name} cannot take this row: {refusal.message}", where=str(example.origin)) from None
        features = [
            replace(part.with_target(target), frozen=frozen.get(part.example_id, part.frozen)) for part in encoded
        ]
        held.append(Held(example, row, features))
    return held


def check_metrics(prepared: Prepared) -> None:
    """Raise where a metric that the recipe names is unknown or unfit: before the training, not after it."""
    options = prepared.recipe.evaluate
    named = [*(() if options.metrics == "auto" else options.metrics), options.primary]
    names = [name for name in named if name != "auto"]
    if prepared.objective.answers in GUESSED and LIKELIHOODS & set(names):
        raise RecipeError(
            f"{sorted(LIKELIHOODS & set(names))[0]} needs likelihoods, which the guess that such a model is held against "
            "does not have",
            where="evaluate.metrics",
            fix="name a metric of its answers",
        )
    resolve(names, labels=prepared.objective.output.labels, answers_kind=prepared.objective.answers)


@torch.no_grad()
def general_loss(base: Any, output: OutputSpec, settings: Asking) -> float | None:
    """Nats per token (or masked token) on a fixed general text; None for a model that predicts no text."""
    if Text not in base.encoders or output.head != base.text_head:
        return None
    example = Text(id="general", origin=Origin("general.txt", 1), text=GENERAL_TEXT.read_text(encoding="utf-8"))
    windows = base.draw(base.windows(example, min(GENERAL_WINDOW, base.context)), output, UNTRAINED)
    total, count = 0.0, 0
    for indices in base.micro_batches(windows, settings.tokens_at_once):
        batch = base.collate([windows[index] for index in indices], output).to(settings.device)
        with settings.autocast():
            logits = base.forward(base.model, batch).logits
        total += float(torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum"))
        count += len(batch.targets)
    return total / count
