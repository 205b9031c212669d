"""A model at hand: answers, labels, and the exact rendering it was trained with."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tailor.bases.chat import Segment
from tailor.bases.loading import HEAD_DESCRIPTION, Source, find
from tailor.compose import choose_place, load_dtype
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, ExampleSeat, OutputSpec, Question
from tailor.core.errors import BaseError, TailorError
from tailor.core.examples import Features, Message, Origin, Text
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, made_by
from tailor.data.canonical import BUILDERS, Cells
from tailor.evaluation.answering import Asking, Held, generate_ids, measure_all, score
from tailor.evaluation.generators import generator_of
from tailor.evaluation.written import answers_to, asked_of, first_that_fits
from tailor.objectives.chat import Chat
from tailor.recipe.base import BaseOptions
from tailor.recipe.evaluate import EvaluateOptions
from tailor.recipe.objectives import OBJECTIVES, ChatOptions
from tailor.recipe.recipe import Recipe, base_options, load, parse
from tailor.wire.ledger import one_command

HERE = Origin("prompt", 1)
LABELS = ("label", "labels", "number")
"""Kinds of answers that are predicted, also where they are written."""
CHOICE_TOKENS = 64
"""Of an answer that names a choice, where its likelihood cannot be told."""


@dataclasses.dataclass
class Model:
    """A loaded base or run, ready to answer."""

    base: Any
    place: Any
    objective: Any
    output: OutputSpec
    evaluate: EvaluateOptions = dataclasses.field(default_factory=EvaluateOptions)

    @cached_property
    def generator(self) -> Any:
        """What answers its questions."""
        asking = Asking(self.place.device, 4096, None, self.place.autocast)
        return generator_of(self.base, asking, Reporter(quiet=True))

    def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        limit: int = 256,
        seed: int | None = None,
    ) -> str:
        """The next assistant turn, as text: greedy, or sampled where a seed is given."""
        if self.output.head != "tokens":
            raise BaseError("this model reads texts and writes none", where=self.base.name, fix="use predict")
        question = Question(tuple(messages), tuple(tools), "")
        objective = self.objective
        questions = [question] if objective is None else objective.posed(objective.typed(question))
        asked = first_that_fits(self.generator, questions)
        if asked is None:
            raise self._no_room("the prompt")
        temperature = 0.0 if seed is None else 1.0
        text: str = self.generator.reply([asked], max_new_tokens=limit, temperature=temperature, seed=seed or 0)[0].text
        return text

    def generate(self, prompt: str, *, max_new_tokens: int = 256, seed: int | None = None) -> str:
        """The answer to one prompt, through the chat template; raw text is gone on with, choices are chosen from."""
        if self.objective is not None and self.objective.choices and self.objective.turns:
            return str(self.predict([prompt])[0])
        if self.objective is not None and self.output.head == "tokens" and not self.objective.turns:
            ids = list(self.base.tokenizer(prompt)["input_ids"])
            return str(self.base.tokenizer.decode(self._write(ids, max_new_tokens, seed), skip_special_tokens=True))
        return self.reply([Message("user", prompt)], limit=max_new_tokens, seed=seed)

    @property
    def draws(self) -> bool:
        """Whether its answers are pictures."""
        return self.output.head == "noise"

    def draw(
        self, prompt: str, count: int = 1, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> list[Any]:
        """Pictures for a prompt, from seeds that follow on; steps and guidance as the run was evaluated, unless given."""
        if not self.draws:
            raise BaseError("this model writes or reads text and draws nothing", where=self.base.name)
        known_steps, known_guidance = self.evaluate.drawing
        steps, guidance = steps or known_steps, guidance if guidance is not None else known_guidance
        seeds = list(range(seed, seed + count))
        pictures: list[Any] = self.base.paint([prompt] * count, seeds, self.place.device, steps, guidance)
        return pictures

    def _no_room(self, what: str) -> BaseError:
        return BaseError(
            f"{what} leaves no room for an answer in the context of {self.base.context} tokens",
            where=self.base.name,
            fix="shorten it",
            code="overlong",
        )

    def _write(self, prompt: list[int], limit: int, seed: int | None) -> list[int]:
        if self.base.room(len(prompt)) < 1:
            raise self._no_room(f"the prompt has {len(prompt)} tokens, and it")
        sampling = {} if seed is None else {"do_sample": True, "temperature": 1.0, "top_p": 0.95}
        torch.manual_seed(seed or 0)
        with self.place.autocast():
            ids, _ = generate_ids(self.base, [prompt], limit, self.place.device, **sampling)[0]
        return ids

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Any]:
        """What the model reads off each text (or pair of texts): a label, labels, a number, tags, a span."""
        writes = self.objective is None or self.objective.turns or self.objective.example is Text
        if writes and (self.objective is None or self.objective.answers not in LABELS):
            raise BaseError("this model writes text and gives no labels", where=self.base.name, fix="use generate")
        both = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        examples = [self.objective.blank(parts, ExampleSeat(str(number), HERE)) for number, parts in enumerate(both)]
        if self.objective.turns:
            asked = [asked_of(self.generator, self.objective, example, {}) for example in examples]
            return [answer.given for answer in answers_to(self.generator, self.objective, asked, CHOICE_TOKENS)]
        asking = Asking(self.place.device, 4096, None, self.place.autocast)
        held = [Held(example, {}, self._features(example)) for example in examples]
        return [answer.given for answer in score(self.base, self.objective, self.output, held, asking)]

    @property
    def reads(self) -> bool:
        """Whether labels (or numbers) are read off its texts."""
        return self.output.head == "labels"

    def told(self, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """What it reads off each example, and how sure it is."""
        features = [part for example in examples for part in self._features(example)]
        asking = Asking(self.place.device, 4096, None, self.place.autocast)
        measured = measure_all(self.base, self.objective, self.output, features, asking)
        decided = self.objective.conclude(examples, [[one] for one in measured])
        return [
            {"answer": one.given, "probability": self.objective.probability(scores)}
            for one, (scores, _) in zip(decided, measured, strict=True)
        ]

    def told_of(self, text: str) -> dict[str, Any]:
        """The same, of one text."""
        return self.told([self.objective.blank((text,), ExampleSeat("0", HERE))])[0]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of unit length for each text; texts beyond the limit are cut."""
        if self.output.head != "embedding":
            raise BaseError("this model gives no vectors", where=self.base.name, fix="fit it with objective=similarity")
        limit = self.base.limit
        ids = [self.base.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
        features = [Features(str(number), list(row)) for number, row in enumerate(ids)]
        asking = Asking(self.place.device, 4096, None, self.place.autocast)
        vectors = measure_all(self.base, self.objective, self.output, features, asking)
        return [rows[0].tolist() for rows in vectors]

    def _features(self, example: Any) -> list[Features]:
        target = self.objective.target(example)
        return [part.with_target(target) for part in self.base.encoders[type(example)](example)]


def model_of(name: str | Mapping[str, Any]) -> Model:
    """Load a run folder (as what it was trained to be) or a base (as what its family does by itself)."""
    given = base_options(name)
    path = made_by(Path(given.name))
    if not (path / "recipe.yaml").exists():
        return open_model(given, parse({"base": given.model_dump(), "data": "none"}))
    if not RunFolder(path).model.is_dir() and not (path / HEAD_DESCRIPTION).exists():
        fix = f"tailor fit {path / 'recipe.yaml'} --resume"
        raise TailorError("this run has no model yet", where=given.name, fix=fix)
    recipe = load(path / "recipe.yaml")
    own = {"name": given.name, "chat_template": None, "revision": None, "endpoint": None}
    return open_model(recipe.base.model_copy(update=own), recipe)


def open_model(options: BaseOptions, recipe: Recipe, labels: Sequence[str] = ()) -> Model:
    """A base loaded for what a recipe teaches; `labels` are the outputs where the base names none itself."""
    source = find(options)
    place = choose_place(recipe, source)
    base, objective = described(source, recipe, labels)
    plain = OutputSpec("noise" if "noise" in base.heads else "tokens")
    output = objective.output if objective is not None else plain
    if source.pooling == "mean":
        output = dataclasses.replace(output, pooling="mean")
    base.load(output, load_dtype(recipe, place, source))
    if base.model is not None:
        base.model.to(place.device).eval()
    return Model(base, place, objective, output, recipe.evaluate)


def described(source: Source, recipe: Recipe, labels: Sequence[str] = ()) -> tuple[Any, Any]:
    """A base for what a recipe teaches, without its weights, and the objective that asks it, behind the prompt in force."""
    objective = _objective(recipe, source.labels or tuple(labels))
    limit = recipe.data.max_length
    reads = objective is not None and not objective.generates and limit != "auto"  # as much of a text as in training
    encoding = EncodeOptions(
        max_length=limit if reads and limit != "auto" else None,
        on_overlong="truncate",
        subject=recipe.data.subject,
    )
    base = registry.load("base", source.family)(source, encoding)
    if objective is not None:
        objective.meet(base)
        own = next(iter(getattr(recipe.method, "instructions", ())), "")
        objective = objective.under(source.prompt or objective.bare(own))
    return base, objective


def _objective(recipe: Recipe, labels: Sequence[str]) -> Any:
    """The recipe's objective with a model's labels; without one: chat, or the labels of the model's own head."""
    options = recipe.objective
    if isinstance(options, str):
        if not labels:
            return None
        options = OBJECTIVES["classification"]()
    objective = registry.load("objective", options.name)(options)  # type: ignore[attr-defined]
    if labels:
        objective.adopt(labels)
    return objective


@one_command()
def sides(name: str | Mapping[str, Any], limit: int) -> dict[str, Callable[[str], str]]:
    """A run's base and tuned model (or a base alone) as functions from a user's line to an answer, with histories."""
    file = made_by(Path(base_options(name).name)) / "recipe.yaml"
    tuned = model_of(name)
    models = {"tuned": tuned} if file.exists() else {"base": tuned}
    if file.exists():
        recipe = load(file)
        models = {"base": open_model(recipe.base, recipe, tuned.output.labels), **models}
    return {side: _Talk(model, limit).say for side, model in models.items()}


class _Talk:
    """One conversation with one model; a model of labels answers each line by itself."""

    def __init__(self, model: Model, limit: int) -> None:
        self.model, self.limit = model, limit
        self.history: list[Message] = []

    def say(self, line: str) -> str:
        objective = self.model.objective
        if objective is None or (objective.turns and not objective.choices):
            return self._reply(line)
        if self.model.objective.example is not Text:
            return "(no head for this task)" if self.model.base.new_head else str(self.model.predict([line])[0])
        return self.model.generate(line, max_new_tokens=self.limit)

    def _reply(self, line: str) -> str:
        self.history.append(Message("user", line))
        answer = self.model.reply(self.history, limit=self.limit)
        self.history.append(Message("assistant", answer))
        return answer


def render(base: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
    """A conversation as a base's template renders it: text, token ids, and whether they are trained."""
    values = {"messages": list(messages), "tools": list(tools)}
    row = BUILDERS["chat"](Cells(values, {key: key for key in values}, "", frozenset()))
    source = find(BaseOptions(name=base))
    loaded = registry.load("base", source.family)(source, EncodeOptions())
    example = Chat(ChatOptions()).read(row, ExampleSeat("render", HERE))
    return list(loaded.chat.render(example))
