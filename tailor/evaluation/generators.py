"""What answers questions here: a loaded base through its template, with its answers kept on disk by content."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tailor.core.answer_parts import split_answer
from tailor.core.contracts import Generator, Question, Reply
from tailor.core.errors import RunError
from tailor.core.examples import Conversation, Message, Origin
from tailor.core.reporting import Reporter
from tailor.evaluation.answering import Asking, answer_length, generate

REMEMBERED = 4096
"""Rendered questions that are kept in memory."""
NOWHERE = Origin("question", 1)


class Local:
    """A loaded base that writes; see `core.contracts.Generator`."""

    def __init__(self, base: Any, asking: Asking, reporter: Reporter) -> None:
        self.base, self.asking, self.reporter = base, asking, reporter
        self._spent = {"calls": 0.0, "prompt_tokens": 0.0, "completion_tokens": 0.0, "cost": 0.0}
        self._rendered: OrderedDict[str, list[int]] = OrderedDict()

    def reply(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """Greedy answers, or sampled ones; equal questions are computed once."""
        keys = [self.request(question) for question in questions]
        distinct = dict(zip(keys, questions, strict=True))
        limit = max_new_tokens or self.asking.max_new_tokens
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature else {}
        torch.manual_seed(seed)
        asking = replace(self.asking, max_new_tokens=limit)
        written = generate(self.base, list(distinct.values()), asking, self.reporter, **sampling)
        found = dict(zip(distinct, map(self._parted, written), strict=True))
        self._count(distinct.values(), sum(len(ids) for ids, _ in written))
        return [found[key] for key in keys]

    def _parted(self, written: tuple[list[int], bool]) -> Reply:
        ids, cut = written
        tokenizer = self.base.tokenizer
        parts = split_answer(tokenizer.decode(ids, skip_special_tokens=False), tokenizer.all_special_tokens)
        return Reply(parts.text, parts.calls, parts.thinking, cut or parts.unfinished_thinking)

    def request(self, question: Question) -> str:
        """The prompt as its template renders it."""
        text: str = self.base.tokenizer.decode(self._prompt(question), skip_special_tokens=False)
        return text

    def fits(self, question: Question) -> bool:
        """Whether the context holds the question and the answer that is expected."""
        room: int = self.base.room(len(self._prompt(question)))
        return answer_length(self.base, question) <= room

    def spent(self) -> Mapping[str, float]:
        """Answers that were computed, and their tokens."""
        return dict(self._spent)

    def _prompt(self, question: Question) -> list[int]:
        """Token ids; templates are slow, and every question is looked at several times."""
        key = repr((question.messages, question.tools))
        if key not in self._rendered:
            self._rendered[key] = self.base.chat.prompt(question.messages, question.tools)
            if len(self._rendered) > REMEMBERED:
                self._rendered.popitem(last=False)
        return self._rendered[key]

    def _count(self, questions: Any, completion: int) -> None:
        prompts = [len(self._prompt(question)) for question in questions]
        self._spent["calls"] += len(prompts)
        self._spent["prompt_tokens"] += sum(prompts)
        self._spent["completion_tokens"] += completion


class LocalWithLikelihoods(Local):
    """A loaded base that tells how likely an answer is."""

    def __init__(self, base: Any, asking: Asking, reporter: Reporter) -> None:
        super().__init__(base, asking, reporter)
        self._told = False

    def likelihoods(self, questions: Sequence[Question], choices: Sequence[str]) -> np.ndarray:
        """Nats of each choice as the whole answer, the end of the turn included, (questions, choices)."""
        prompts = [self._prompt(question) for question in questions]
        endings = self._endings(questions[0], prompts[0], choices)
        if self._endings(questions[-1], prompts[-1], choices) == endings:
            nats = self._nats(prompts, endings)
        else:  # a tokenizer that writes a label otherwise behind another question
            own = [self._endings(*pair, choices) for pair in zip(questions, prompts, strict=True)]
            nats = np.concatenate([self._nats([row], ends) for row, ends in zip(prompts, own, strict=True)])
        self._count(questions, 0)
        return nats

    def _nats(self, prompts: Sequence[list[int]], endings: Sequence[list[int]]) -> np.ndarray:
        nats = self.base.nats(self.asking.device)
        if nats.reason and not self._told:
            self.reporter.say(
                f"every prompt is run whole with every label, which is slower: {nats.reason} side by side"
            )
            self._told = True
        with self.asking.autocast():
            found: np.ndarray = nats(prompts, endings, self.asking.device, self.asking.tokens_at_once)
        return found

    def _endings(self, question: Question, prompt: list[int], choices: Sequence[str]) -> list[list[int]]:
        """What each choice adds to a prompt, up to the last token that training would learn."""
        found = []
        for choice in choices:
            turns = (*(_unlearned(turn) for turn in question.messages), Message("assistant", choice))
            whole = self.base.chat.encode(Conversation(id="", origin=NOWHERE, messages=turns, tools=question.tools))
            end = max(place for place, weight in enumerate(whole.weights) if weight) + 1
            start = min(len(prompt), next(place for place, weight in enumerate(whole.weights) if weight))
            found.append(list(whole.input_ids[start:end]))
        return found


def _unlearned(turn: Message) -> Message:
    return replace(turn, weight=0.0) if turn.role == "assistant" else turn


def generator_of(base: Any, asking: Asking, reporter: Reporter) -> Any:
    """What answers for a base: what it brings itself, else its own weights."""
    own = getattr(base, "generator", None)
    if own is not None:
        return own
    if base.model is not None:  # without weights it tells what would be asked
        base.model.eval().to(asking.device)
    return (LocalWithLikelihoods if getattr(base, "nats", None) else Local)(base, asking, reporter)


class Kept:
    """A generator whose answers are kept in a file by content: a search that goes on pays for none of them twice.

    The key is the exact request, with everything else that decides an answer; `identity` names the model and how it runs.
    """

    def __init__(self, inner: Any, file: Path, identity: str) -> None:
        self.inner, self.file, self.identity = inner, file, identity
        self._found = _kept_in(file)
        self._asked: set[str] = set()
        file.parent.mkdir(parents=True, exist_ok=True)
        if hasattr(inner, "likelihoods"):
            self.likelihoods = self._likelihoods
        self.fits = inner.fits

    def reply(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """Answers from the file where they lie there."""
        how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        ask = lambda some: [asdict(one) for one in self.inner.reply(some, **how)]  # noqa: E731
        return [_reply(values) for values in self._answers(questions, how, ask)]

    def _likelihoods(self, questions: Sequence[Question], choices: Sequence[str]) -> np.ndarray:
        ask = lambda some: self.inner.likelihoods(some, choices).tolist()  # noqa: E731
        return np.array(self._answers(questions, {"choices": list(choices)}, ask))

    def request(self, question: Question) -> str:
        """As without the file."""
        text: str = self.inner.request(question)
        return text

    def spent(self) -> Mapping[str, float]:
        """Answers that were asked for, wherever they came from; tokens of those computed now."""
        return {**self.inner.spent(), "calls": float(len(self._asked))}

    def _keys(self, questions: Sequence[Question], how: Mapping[str, Any]) -> list[str]:
        fixed = json.dumps([self.identity, how], sort_keys=True)
        return [hashlib.sha256(f"{fixed}\n{self.request(one)}".encode()).hexdigest() for one in questions]

    def _answers(
        self, questions: Sequence[Question], how: Mapping[str, Any], ask: Callable[[list[Question]], list[Any]]
    ) -> list[Any]:
        keys = self._keys(questions, how)
        self._asked.update(keys)
        new = {key: one for key, one in zip(keys, questions, strict=True) if key not in self._found}
        if new:
            answers = dict(zip(new, ask(list(new.values())), strict=True))
            self._found |= answers
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps([key, answer]) + "\n" for key, answer in answers.items())
        return [self._found[key] for key in keys]


def _kept_in(file: Path) -> dict[str, Any]:
    """Answers by their keys; a last line that a kill in mid-write has torn is cut off the file.

    Raises:
        RunError: the file cannot be read, or another line of it is damaged.
    """
    if not file.exists():
        return {}
    found: dict[str, Any] = {}
    try:
        whole, ended, torn = file.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(file, len(whole) + len(ended))
    except OSError as error:
        raise RunError(f"the answers kept so far cannot be read: {error.strerror}", where=str(file)) from None
    for number, line in enumerate(whole.split(b"\n") if ended else (), 1):
        try:
            key, answer = json.loads(line)
            found[str(key)] = answer
        except (ValueError, TypeError):
            raise RunError(
                "this line of the answers kept so far is damaged",
                where=f"{file}:{number}",
                fix="delete the line: its answer is then computed again",
                code="damaged",
            ) from None
    return found


def _reply(values: Mapping[str, Any]) -> Reply:
    return Reply(values["text"], tuple(values["calls"]), values["thinking"], values["cut"])


def cost_of(*generators: Generator) -> dict[str, float]:
    """What several have cost together."""
    whole: dict[str, float] = {}
    for one in {id(generator): generator for generator in generators}.values():
        for name, value in one.spent().items():
            whole[name] = whole.get(name, 0.0) + value
    return whole
