"""What a search for a prompt, and its test, can ask for and cost at most: said before anything is paid for."""

import json
from dataclasses import dataclass
from typing import Any

from tailor.compose import Prepared
from tailor.core.contracts import Question
from tailor.engine.proposals import WORDS
from tailor.engine.reflect import PROPOSAL_TOKENS, REFLECTED, rounds_of
from tailor.engine.search_plan import most_of
from tailor.recipe.base import EndpointOptions
from tailor.verbs.measure import evaluation_calls
from tailor.wire.client import MILLION, OVERHEAD, longest_answer
from tailor.wire.generator import as_sent

DRESS = 64
"""Bytes that a prompt puts around a row's own words."""
WHY = 512
"""Bytes that a scorer says of an answer; one of the user's own that says more is not reckoned with."""
TEMPLATE = 1024
"""Bytes of gepa's question for a better instruction, around what is reflected on."""


@dataclass(frozen=True)
class AtMost:
    """Bounds of a run; `cost` is None where no prices are known. Tries that fail and are made again are not in them."""

    search: int
    test: int
    calls: int
    cost: float | None

    def as_dict(self) -> dict[str, Any]:
        """Their part of the plan."""
        return {"calls_at_most": self.calls, **({} if self.cost is None else {"cost_at_most": self.cost})}

    def said(self) -> str:
        """For the reader."""
        whole = self.search + self.test
        budget = f", of which the budget allows {self.calls:,}" if self.calls < whole else ""
        cost = "" if self.cost is None else f" · cost at most {self.cost:.4g}"
        return f"at most {whole:,} calls{budget}: {self.search:,} in the search, {self.test:,} on the test rows{cost}"


def at_most(prepared: Prepared) -> AtMost:
    """The most that a recipe whose method asks in words asks for: a token has a byte at least."""
    options: Any = prepared.recipe.method
    own, proposer = prepared.recipe.base.endpoint, _endpoint(options.proposer) or prepared.recipe.base.endpoint
    rows = {name: len(prepared.splits[name].store) for name in ("train", "dev")}
    calibrates = options.calibrate and bool(prepared.objective.choices) and bool(getattr(prepared.base, "nats", None))
    most, test = most_of(options, rows["train"], rows["dev"], calibrates=calibrates), evaluation_calls(prepared)
    answers, reflections = most.answers, most.reflections
    if options.max_calls is not None:
        answers, reflections = min(answers, options.max_calls), min(reflections, options.max_calls)
    search = answers + reflections if options.max_calls is None else min(answers + reflections, options.max_calls)
    calls = search + test
    if own is not None and own.budget.max_calls is not None:
        elsewhere = 0 if proposer is not None and proposer.name == own.name else reflections
        calls = min(calls, own.budget.max_calls + elsewhere)
    if not _priced(own) and not _priced(proposer):
        return AtMost(search, test, calls, None)
    question = _longest(prepared)
    asked = reflections * _price(proposer, _reflected(prepared, question), PROPOSAL_TOKENS)
    one = _price(own, _prompted(prepared, question), prepared.base.longest_answer if own else 0)
    paid = answers * one + asked
    paid = (paid if options.max_cost is None else min(paid, options.max_cost)) + test * one
    if own is not None and own.budget.max_cost is not None:
        paid = min(paid, own.budget.max_cost + (0.0 if proposer is None or proposer.name == own.name else asked))
    return AtMost(search, test, calls, paid)


def _endpoint(base: Any) -> EndpointOptions | None:
    return None if base is None else base.endpoint


def _priced(endpoint: EndpointOptions | None) -> bool:
    return endpoint is not None and bool(endpoint.prices.prompt or endpoint.prices.completion)


def _price(endpoint: EndpointOptions | None, prompt: int, answer: int) -> float:
    """Of one request; nothing for a base that is here."""
    if endpoint is None:
        return 0.0
    return (endpoint.prices.prompt * prompt + endpoint.prices.completion * longest_answer(endpoint, answer)) / MILLION


def _longest(prepared: Prepared) -> int:
    """Bytes of the longest row of all splits as it is asked, with the answer expected."""
    pairs = (pair for split in prepared.splits for pair in prepared.held(split))
    questions = (next(iter(prepared.objective.under(None).questions(example)), None) for example, _ in pairs)
    return max((_bytes(one) for one in questions if one is not None), default=0)


def _bytes(question: Question) -> int:
    parts = [as_sent(question.messages), list(question.tools), str(question.expected)]
    return len(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _lead(prepared: Prepared) -> int:
    """Bytes (of a rewritten instruction, tokens) of what says what to do."""
    options: Any = prepared.recipe.method
    bare = prepared.objective.under(None).bare("")
    words = [*options.instructions, *(one for words in WORDS.values() for one in words.instructions)]
    instruction = max(len(one.encode()) for one in words)
    if rounds_of(options):
        instruction = max(instruction, PROPOSAL_TOKENS)
    before = prepared.objective.prompt  # that of a run on which this one goes on
    known = max((len(one.as_json().encode()) for one in (bare, before) if one is not None), default=0)
    return instruction + known


def _prompted(prepared: Prepared, row: int) -> int:
    """Tokens of one request of the search or the test."""
    shown: int = prepared.recipe.method.demonstrations  # type: ignore[attr-defined]
    return _lead(prepared) + (1 + shown) * (row + DRESS) + OVERHEAD


def _reflected(prepared: Prepared, row: int) -> int:
    """Tokens of one question for a better instruction."""
    answer: int = prepared.base.longest_answer if prepared.recipe.base.endpoint is not None else row
    return TEMPLATE + _lead(prepared) + REFLECTED * (row + answer + WHY) + OVERHEAD
