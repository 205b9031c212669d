"""A model at hand: answers, labels, and the exact rendering it was trained with."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tailor.bases.chat import Segment
from tailor.bases.loading import HEAD_DESCRIPTION, find
from tailor.compose import choose_place, load_dtype
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, ExampleSeat, OutputSpec
from tailor.core.errors import BaseError, TailorError
from tailor.core.examples import Features, Message, Origin, Text
from tailor.core.runs import RunFolder, made_by
from tailor.data.canonical import BUILDERS, Cells
from tailor.evaluation.answer_parts import split_answer
from tailor.evaluation.answering import Asking, Held, generate_ids, measure_all, score
from tailor.objectives.chat import Chat
from tailor.recipe.base import BaseOptions
from tailor.recipe.objectives import OBJECTIVES, ChatOptions
from tailor.recipe.recipe import Recipe, load, parse

HERE = Origin("prompt", 1)


@dataclasses.dataclass
class Model:
    """A loaded base or run, ready to answer."""

    base: Any
    place: Any
    objective: Any
    output: OutputSpec

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
        asked = self.objective.asked(messages) if self.objective is not None else tuple(messages)
        prompt = self.base.chat.prompt(asked, tuple(tools))
        ids = self._write(prompt, limit, seed)
        return split_answer(self.base.tokenizer.decode(ids, skip_special_tokens=False), self.base.tokenizer).text

    def generate(self, prompt: str, *, max_new_tokens: int = 256, seed: int | None = None) -> str:
        """The answer to one prompt, through the chat template; a model of raw text goes on with it."""
        if self.objective is not None and self.output.head == "tokens" and not self.objective.turns:
            ids = list(self.base.tokenizer(prompt)["input_ids"])
            return str(self.base.tokenizer.decode(self._write(ids, max_new_tokens, seed), skip_special_tokens=True))
        return self.reply([Message("user", prompt)], limit=max_new_tokens, seed=seed)

    def _write(self, prompt: list[int], limit: int, seed: int | None) -> list[int]:
        if self.base.room(len(prompt)) < 1:
            raise BaseError(
                f"the prompt has {len(prompt)} tokens, and the context of {self.base.context} leaves no room for an answer",
                where=self.base.name,
                fix="shorten it",
                code="overlong",
            )
        sampling = {} if seed is None else {"do_sample": True, "temperature": 1.0, "top_p": 0.95}
        torch.manual_seed(seed or 0)
        with self.place.autocast():
            ids, _ = generate_ids(self.base, [prompt], limit, self.place.device, **sampling)[0]
        return ids

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Any]:
        """What the model reads off each text (or pair of texts): a label, labels, a number, tags, a span."""
        if self.objective is None or self.objective.turns or self.objective.example is Text:
            raise BaseError("this model writes text and gives no labels", where=self.base.name, fix="use generate")
        both = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        examples = [self.objective.blank(parts, ExampleSeat(str(number), HERE)) for number, parts in enumerate(both)]
        asking = Asking(self.place.device, 4096, None, self.place.autocast)
        held = [Held(example, {}, self._features(example)) for example in examples]
        return [answer.given for answer in score(self.base, self.objective, self.output, held, asking)]

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


def model_of(name: str) -> Model:
    """Load a run folder (as what it was trained to be) or a base (as what its family does by itself)."""
    path = made_by(Path(name))
    if not (path / "recipe.yaml").exists():
        return open_model(BaseOptions(name=name), parse({"base": name, "data": "none"}))
    if not RunFolder(path).model.is_dir() and not (path / HEAD_DESCRIPTION).exists():
        raise TailorError("this run has no model yet", where=name, fix=f"tailor fit {path / 'recipe.yaml'} --resume")
    recipe = load(path / "recipe.yaml")
    return open_model(recipe.base.model_copy(update={"name": name, "chat_template": None, "revision": None}), recipe)


def open_model(options: BaseOptions, recipe: Recipe, labels: Sequence[str] = ()) -> Model:
    """A base loaded for what a recipe teaches; `labels` are the outputs where the base names none itself."""
    source = find(options)
    place = choose_place(recipe, source)
    objective = _objective(recipe, source.labels or tuple(labels))
    limit = recipe.data.max_length
    reads = objective is not None and not objective.generates and limit != "auto"  # as much of a text as in training
    encoding = EncodeOptions(max_length=limit if reads and limit != "auto" else None, on_overlong="truncate")
    base = registry.load("base", source.family)(source, encoding)
    if objective is not None:
        objective.meet(base)
    output = objective.output if objective is not None else OutputSpec("tokens")
    if source.pooling == "mean":
        output = dataclasses.replace(output, pooling="mean")
    base.load(output, load_dtype(recipe, place, source))
    base.model.to(place.device).eval()
    return Model(base, place, objective, output)


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


def sides(name: str, limit: int) -> dict[str, Callable[[str], str]]:
    """A run's base and tuned model (or a base alone) as functions from a user's line to an answer, with histories."""
    file = made_by(Path(name)) / "recipe.yaml"
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
        if not self.model.objective or self.model.objective.turns:
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
