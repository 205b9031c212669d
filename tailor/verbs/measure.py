"""Evaluate: a tuned model against its base, on the same held-out rows, by the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tailor.bases.loading import Source, find
from tailor.compose import Prepared, freeze_splits, load_dtype, make_base, output_of
from tailor.core.contracts import UNTRAINED, Answer, Base, ExampleSeat, OutputSpec
from tailor.core.errors import BaseError, DataError, RecipeError, RowRefused
from tailor.core.examples import Origin, Text
from tailor.core.openings import opened
from tailor.core.paths import PACKAGE
from tailor.core.reporting import Reporter
from tailor.data.load import load
from tailor.engine.place import Place
from tailor.evaluation.answering import Asking, Held, answer_all
from tailor.evaluation.compare import task_result
from tailor.evaluation.picturing import SHOWN, Drawing, with_pictures
from tailor.evaluation.scorers import LIKELIHOODS, METRICS, auto, resolve
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import Recipe

GUESSED = {"label", "labels", "number", "tags", "span"}
"""Kinds of answers that a base gives by a guess alone, having no head for them."""

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


@dataclass(frozen=True)
class Sitting:
    """One model's answers to the test split; None where it lacks what the task needs (a head of its own, say)."""

    answers: list[Answer] | None
    general_loss: float | None
    old: Sequence[Answer] = ()
    """Answers to rows of what the base could do before, where the recipe names such."""


def evaluate(
    prepared: Prepared, tuned: BaseOptions, base: BaseOptions, place: Place, run: str, reporter: Reporter
) -> Measured:
    """Both models' answers to the test split, compared; an empty split gives an evaluation without tasks."""
    _freeze(prepared, base, place, reporter)
    reporter.say("the tuned model answers the test rows")
    after = sit(prepared, tuned, place, reporter)
    reporter.say("the base answers the same rows")
    before = sit(prepared, base, place, reporter)
    forgetting = _forgetting(prepared, before, after)
    if after.answers is None:
        raise BaseError("this model has no head for this task, so it cannot be measured", where=tuned.name)
    if not after.answers:
        return Measured({"tasks": {}, "forgetting": forgetting})
    baseline, base_answers = ("base", before.answers) if before.answers else _no_information(prepared, after.answers)
    metrics, primary = choose_metrics(prepared, base_answers, after.answers)
    result = task_result(
        base_answers,
        after.answers,
        metrics,
        primary,
        baseline=baseline,
        opened=opened(prepared.loaded.report.digests["test"], run),
        margin_points=prepared.recipe.evaluate.margin,
    )
    deciding = next(metric for metric in metrics if metric.name == primary)
    evaluation = {"tasks": {"default": result}, "forgetting": forgetting}
    return Measured(evaluation, base_answers, after.answers, deciding)


def _forgetting(prepared: Prepared, before: Sitting, after: Sitting) -> dict[str, Any] | None:
    """What became of what the base could do: on rows that the recipe names, else by the loss on the general text."""
    if before.old and after.old:
        metrics, _ = choose_metrics(prepared, before.old, after.old)
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
    answers = _answered(prepared, base, output, _held(prepared, base), place, reporter)
    if prepared.recipe.evaluate.forgetting is False:
        return Sitting(answers, None)
    old = _answered(prepared, base, output, _old(prepared, base), place, reporter)
    return Sitting(answers, general_loss(base, output, asking(prepared.recipe, place)), old)


def _answered(
    prepared: Prepared, base: Any, output: OutputSpec, held: Sequence[Held], place: Place, reporter: Reporter
) -> list[Answer]:
    """Answers to held-out rows, with pictures where these are what is answered."""
    if not held:
        return []
    recipe, objective = prepared.recipe, prepared.objective
    answers = answer_all(base, objective, output, held, asking(recipe, place), reporter)
    if objective.answers != "image":
        return answers
    options = recipe.evaluate
    steps = None if options.steps == "auto" else options.steps
    guidance = None if options.guidance == "auto" else options.guidance
    count = len(answers) if looks_at_answers(recipe) else SHOWN
    return with_pictures(base, answers, count, Drawing(place.device, steps, guidance), reporter)


def looks_at_answers(recipe: Recipe) -> bool:
    """Whether a metric that the recipe names needs more than likelihoods."""
    options = recipe.evaluate
    named = [*(() if options.metrics == "auto" else options.metrics), options.primary]
    return any(name not in (*LIKELIHOODS, "auto") for name in named)


def _old(prepared: Prepared, base: Base) -> list[Held]:
    """Rows of what the base could do before, as many as are asked of the test split."""
    recipe = prepared.recipe
    if recipe.evaluate.old is None:
        return []
    rows = load(recipe.evaluate.old, dev=0.0, test=0.0, objective=prepared.objective.name).train
    asked = recipe.evaluate.samples
    most = asked if asked != "auto" else DRAWN_ROWS if prepared.objective.answers == "image" else GENERATED_ROWS
    chosen = sorted(rows, key=lambda entry: entry.id)[:most]
    examples = [(prepared.objective.read(entry.row, ExampleSeat(entry.id, entry.origin)), entry) for entry in chosen]
    return [
        Held(example, {**entry.values, **entry.row}, base.encoders[type(example)](example))
        for example, entry in examples
    ]


def _loaded(prepared: Prepared, model: BaseOptions, place: Place) -> tuple[Any, OutputSpec]:
    """A model with its weights, that encodes by its own tokenizer and template, and the output it was asked for."""
    recipe, objective = prepared.recipe, prepared.objective
    source = find(model)
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


def _held(prepared: Prepared, base: Base) -> list[Held]:
    """Test rows encoded anew by the model's own tokenizer and template: what was saved with it is what is used."""
    asked = prepared.recipe.evaluate.samples
    most = asked if asked != "auto" else (GENERATED_ROWS if prepared.objective.generates else None)
    if prepared.objective.answers == "image":  # the loss is cheap and pictures are not
        most = None if not looks_at_answers(prepared.recipe) else DRAWN_ROWS if asked == "auto" else asked
    store = prepared.splits["test"].store
    frozen = {part.example_id: part.frozen for part in store} if prepared.objective.needs_frozen else {}
    held = []
    for example, row in prepared.held("test", most):
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


def asking(recipe: Recipe, place: Place) -> Asking:
    """How answers are taken on a device."""
    new, budget = recipe.evaluate.max_new_tokens, recipe.train.tokens_per_micro_batch
    return Asking(
        device=place.device,
        tokens_at_once=budget if isinstance(budget, int) else 4096,
        max_new_tokens=None if new == "auto" else new,
        autocast=place.autocast,
    )


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


def choose_metrics(prepared: Prepared, base: Sequence[Answer], tuned: Sequence[Answer]) -> tuple[list[Any], str]:
    """The metrics of the recipe, or those that suit the answers; the primary one among them, whatever was named."""
    options, output = prepared.recipe.evaluate, prepared.objective.output
    primary, names = auto(prepared.objective.name, [*base, *tuned])
    # Of masked tokens loss and perplexity alone: what was not hidden is not predicted, and no byte of it has a likelihood.
    names = [name for name in names if prepared.objective.answers in METRICS[name][0]]
    if options.metrics != "auto":
        names = list(options.metrics)
        primary = names[0]
    if options.primary != "auto":
        primary = options.primary
    return resolve([primary, *names], labels=output.labels, answers_kind=prepared.objective.answers), primary


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
