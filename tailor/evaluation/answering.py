"""A model's answers to held-out examples: generated where the answer is text, decided where it is a label."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tailor.core.answer_parts import split_answer
from tailor.core.contracts import Answer, Base, Objective, OutputSpec, Question
from tailor.core.examples import Features
from tailor.core.reporting import Reporter
from tailor.nn.rows import rows_of_outputs

ROWS_AT_ONCE = 32
ANSWER_END = 4
"""Tokens that a template may put around an answer."""


@dataclass(frozen=True)
class Asking:
    """How answers are taken.

    Args:
        tokens_at_once: budget of tokens of one forward.
        max_new_tokens: of a generated answer; None: half as much again as the longest expected one, plus 16.
        autocast: the context that forwards run in.
    """

    device: torch.device
    tokens_at_once: int
    max_new_tokens: int | None
    autocast: Any = contextlib.nullcontext


@dataclass(frozen=True)
class Held:
    """A held-out example with its row and its features, all three of which an answer needs."""

    example: Any
    row: Mapping[str, Any]
    features: Sequence[Features]


@torch.no_grad()
def answer_all(
    base: Base, objective: Objective, output: OutputSpec, held: Sequence[Held], asking: Asking, reporter: Reporter
) -> list[Answer]:
    """One answer per example, in order; the model is put into evaluation mode."""
    base.model.eval()
    base.model.to(asking.device)
    scored = score(base, objective, output, held, asking)
    if not objective.generates:
        return scored
    questions = [_askable(base, objective.questions(item.example)) for item in held]
    left_out = sum(question is None for question in questions)
    if left_out:
        reporter.say(
            f"{left_out} of {len(held)} rows do not fit the context with an answer: they are measured by loss alone"
        )
    given = generate(base, [question for question in questions if question is not None], asking, reporter)
    filled = iter(given)
    return [
        answer if question is None else _filled(answer, question, next(filled), base)
        for answer, question in zip(scored, questions, strict=True)
    ]


def _askable(base: Any, questions: Sequence[Question]) -> Question | None:
    """The first question that fits the context together with the answer expected."""
    for question in questions:
        prompt = base.chat.prompt(question.messages, question.tools)
        if answer_length(base, question) <= base.room(len(prompt)):
            return question
    return None


def answer_length(base: Any, question: Question) -> int:
    """Tokens of the expected answer, with room for its end."""
    return len(base.tokenizer(str(question.expected), add_special_tokens=False)["input_ids"]) + ANSWER_END


def _filled(answer: Answer, question: Question, generated: tuple[list[int], bool], base: Base) -> Answer:
    """A scored answer with what the model wrote: reasoning stripped, calls parsed where calls were expected."""
    ids, cut = generated
    parts = split_answer(base.tokenizer.decode(ids, skip_special_tokens=False), base.tokenizer.all_special_tokens)
    wants_calls = not isinstance(question.expected, str)
    prompt = "\n".join(f"{message.role}: {message.content}" for message in question.messages)
    return Answer(
        answer.example_id,
        answer.row,
        prompt,
        question.expected,
        parts.calls if wants_calls else parts.text,
        answer.nll,
        answer.tokens,
        answer.bytes,
        thinking=parts.thinking,
        cut=cut or parts.unfinished_thinking,
        origin=answer.origin,
    )


def _flat(held: Sequence[Held]) -> tuple[list[Features], list[int]]:
    pairs = [(features, index) for index, item in enumerate(held) for features in item.features]
    return [features for features, _ in pairs], [index for _, index in pairs]


def score(base: Base, objective: Objective, output: OutputSpec, held: Sequence[Held], asking: Asking) -> list[Answer]:
    """What can be read off the model's outputs for each example: decisions, spans, likelihoods."""
    flat, owner = _flat(held)
    kept: list[list[Any]] = [[] for _ in held]
    for index, measured in enumerate(measure_all(base, objective, output, flat, asking)):
        kept[owner[index]].append(measured)
    said = objective.conclude([item.example for item in held], kept)
    return [
        Answer(
            item.example.id,
            item.row,
            item.example.shown,
            one.expected,
            one.given,
            nll=one.nll,
            tokens=one.tokens,
            bytes=one.bytes,
            origin=str(item.example.origin),
        )
        for item, one in zip(held, said, strict=True)
    ]


def measure_all(
    base: Base, objective: Objective, output: OutputSpec, features: Sequence[Features], asking: Asking
) -> list[Any]:
    """What the objective keeps of the outputs for each feature, in order."""
    found: list[Any] = [None] * len(features)
    read = rows_of_outputs(base, output, features, asking.tokens_at_once, asking.device, asking.autocast)
    for index, member, rows, targets in read:
        found[index] = objective.measure(member, rows, targets)
    return found


def generate(
    base: Any, questions: Sequence[Question], asking: Asking, reporter: Reporter, **sampling: Any
) -> list[tuple[list[int], bool]]:
    """Answers to questions, greedy unless told how to sample: token ids without the stop, and whether the limit cut them."""
    prompts = [base.chat.prompt(question.messages, question.tools) for question in questions]
    limit = asking.max_new_tokens or _room_for_answers(base, questions)
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, tuple[list[int], bool]] = {}
    roomy = [index for index in order if limit <= base.room(len(prompts[index]))]
    groups = [roomy[start : start + ROWS_AT_ONCE] for start in range(0, len(roomy), ROWS_AT_ONCE)]
    groups += [[index] for index in order[len(roomy) :]]  # alone, so that nobody's answer is cut for another's length
    with reporter.progress("answering", len(groups)) as progress:
        for group in groups:
            with asking.autocast():
                answers = generate_ids(base, [prompts[index] for index in group], limit, asking.device, **sampling)
            found.update(zip(group, answers, strict=True))
            progress.advance(f"{len(found)} of {len(prompts)} answers")
    return [found[index] for index in range(len(prompts))]


@torch.no_grad()
def generate_ids(
    base: Any, prompts: Sequence[Sequence[int]], limit: int, device: torch.device, **sampling: Any
) -> list[tuple[list[int], bool]]:
    """Answer token prompts in one padded batch: new ids up to the stop token, and whether the limit cut them."""
    limit = max(1, min(limit, base.room(max(len(prompt) for prompt in prompts))))
    stops = base.chat.stop_ids()
    text = _stop_as_text(base, stops)
    by_text = {"stop_strings": [text], "tokenizer": base.tokenizer} if text else {}
    written = base.write(
        prompts,
        device,
        max_new_tokens=limit,
        eos_token_id=stops or None,
        pad_token_id=stops[0] if stops else 0,
        **({"do_sample": False, "temperature": None, "top_p": None, "top_k": None} | sampling | by_text),
    )
    return [_until_stop(row, set(stops), text, base.tokenizer) for row in written]


def _stop_as_text(base: Any, stops: Sequence[int]) -> str | None:
    """The mark that ends a turn, where it is ordinary text and no single token."""
    text: str | None = base.chat.stop_token().text
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return None if len(ids) == 1 and ids[0] in stops else text


def _until_stop(ids: list[int], stops: set[int], text: str | None, tokenizer: Any) -> tuple[list[int], bool]:
    """Ids before the first stop token, or before the stop written out as ordinary text; whether neither came."""
    for place, token in enumerate(ids):
        if token in stops:
            return ids[:place], False
    if text and text in (whole := tokenizer.decode(ids, skip_special_tokens=False)):
        return list(tokenizer(whole.partition(text)[0], add_special_tokens=False)["input_ids"]), False
    return ids, True


def room_for_answers(base: Any, objective: Objective, examples: Sequence[Any]) -> int:
    """Tokens that an answer to any of these examples may have: from the longest one expected, or as an API's own limit."""
    own: int | None = getattr(base, "longest_answer", None)
    if own is not None:
        return own
    asked = [_askable(base, objective.questions(example)) for example in examples]
    return _room_for_answers(base, [question for question in asked if question is not None])


def _room_for_answers(base: Any, questions: Sequence[Question]) -> int:
    return max((answer_length(base, question) for question in questions), default=0) * 3 // 2 + 16
