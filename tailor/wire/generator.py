"""Questions to a model behind an API, and its answers: the wire's own `Generator`."""

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tailor.core.answer_parts import split_answer
from tailor.core.contracts import Question, Reply
from tailor.core.errors import RecipeError
from tailor.core.examples import Message
from tailor.recipe.base import LIMITS, BudgetOptions, EndpointOptions
from tailor.wire.answers import text_of
from tailor.wire.client import ApiClient, Stopped
from tailor.wire.ledger import Accounts, Ledger, ledger_of


class ApiGenerator:
    """What answers through an endpoint.

    Args:
        client: the endpoint.
        budgets: ledgers that its requests are entered in, beside one of its own that only counts.
    """

    def __init__(self, client: ApiClient, *budgets: Ledger) -> None:
        self._client, self._budgets = client, budgets
        self._count = Ledger(BudgetOptions(), "")
        self._accounts = Accounts(*budgets, self._count)
        self.options = client.options
        for budget in budgets:
            _check_bound(self.options, budget)

    @classmethod
    def of(cls, options: EndpointOptions, key: str = "base") -> "ApiGenerator":
        """An endpoint, under the budget of its options, which holds for all that one command asks of it.

        `key` is where the recipe names it, for the words of a budget that is spent.
        """
        return cls(ApiClient(options), ledger_of(options.name, options.budget, f"{key}.endpoint.budget"))

    def keeping(self, later: int) -> AbstractContextManager[None]:
        """While this lasts, the endpoint's budget keeps room for so many later requests."""
        return self._budgets[0].keeping(later)

    def within(self, budget: Ledger, kept: Path | None = None) -> "ApiGenerator":
        """The same endpoint under a further budget, which several generators may share; it counts from here on.

        Without a cache its answers lie in the folder `kept`: what can be resumed must not pay twice.
        """
        client = self._client if self.options.cache or kept is None else ApiClient(self.options, kept)
        return ApiGenerator(client, *self._budgets, budget)

    def reply(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """The answers, in the order of the questions; a question that was answered before is not asked again.

        Where one fails for good, those under way are waited for, since they are paid for, and kept.

        Raises:
            TailorError: the first failure, in the order of the questions; `BudgetSpent` where the budget does not suffice.
        """
        bodies = [self._body(question, max_new_tokens, temperature, seed) for question in questions]
        stop = threading.Event()

        def ask(body: Mapping[str, Any]) -> Mapping[str, Any]:
            if stop.is_set():
                raise Stopped
            try:
                return self._client.ask(body, self._accounts, stop)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(max(1, min(self.options.concurrency, len(bodies)))) as pool:
            under_way = [pool.submit(ask, body) for body in bodies]
            try:
                failures = [failure for one in under_way if (failure := one.exception()) is not None]
            except BaseException:
                stop.set()
                raise
        for failure in failures:
            if not isinstance(failure, Stopped):
                raise failure
        return [self._reply(one.result()) for one in under_way]

    def request(self, question: Question) -> str:
        """What is sent, but for how the answer is drawn: canonical JSON."""
        asked = {"model": self.options.model, **self._asked(question)}
        return json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    def fits(self, question: Question) -> bool:
        """Nothing is known of its context from here: the server says where a request is too long."""
        return True

    def spent(self) -> Mapping[str, float]:
        """Answered requests, their tokens and cost; `cached_calls` of them came from the cache, `paid` was paid now."""
        ledger = self._count
        return {
            "calls": ledger.calls,
            "prompt_tokens": ledger.prompt_tokens,
            "completion_tokens": ledger.completion_tokens,
            "cost": ledger.cost,
            "cached_calls": ledger.cached_calls,
            "paid": ledger.paid,
        }

    def _body(self, question: Question, limit: int | None, temperature: float, seed: int) -> dict[str, Any]:
        drawn = {"temperature": temperature, **({"seed": seed} if temperature else {})}
        length = {"max_tokens": limit or self.options.max_new_tokens}
        body = {"model": self.options.model, **self._asked(question), **length, **drawn, **self.options.request}
        return {key: value for key, value in body.items() if value is not None}

    def _asked(self, question: Question) -> dict[str, Any]:
        if self.options.protocol == "completions":
            return {"prompt": "\n".join(message.content for message in question.messages if message.content)}
        tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in question.tools]
        return {"messages": as_sent(question.messages), **({"tools": tools} if tools else {})}

    def _reply(self, answer: Mapping[str, Any]) -> Reply:
        choice = answer["choices"][0]
        cut = choice.get("finish_reason") == "length"
        if self.options.protocol == "completions":
            parts = split_answer(choice["text"])
            return Reply(parts.text, parts.calls, parts.thinking, cut or parts.unfinished_thinking)
        message = choice["message"]
        parts = split_answer(text_of(message))
        calls = tuple(call for call in map(_as_call, message.get("tool_calls") or ()) if call is not None)
        thinking = message.get("reasoning_content") or message.get("reasoning") or parts.thinking
        return Reply(parts.text, calls or parts.calls, str(thinking), cut or parts.unfinished_thinking)


def as_sent(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns as the chat protocol takes them; calls without an id are numbered, and their results after them."""
    sent: list[dict[str, Any]] = []
    made = answered = 0
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.name:
            turn["name"] = message.name
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                arguments = call.arguments
                text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
                function = {"name": call.name, "arguments": text}
                calls.append({"id": call.id or f"call_{made}", "type": "function", "function": function})
                made += 1
            turn["tool_calls"] = calls
        if message.role == "tool":
            turn["tool_call_id"] = message.tool_call_id or f"call_{answered}"
            answered += 1
        sent.append(turn)
    return sent


def _as_call(call: Any) -> Mapping[str, Any] | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # scored as the text that it is
            arguments = json.loads(arguments or "{}")
    return {"name": function["name"], "arguments": arguments}


def _check_bound(options: EndpointOptions, budget: Ledger) -> None:
    """A budget of money can only be kept where the length of an answer is bounded and has a price."""
    if budget.limits.max_cost is None:
        return
    if not (options.prices.prompt or options.prices.completion):
        raise RecipeError(
            "a cost can only be kept to where prices are known",
            where=f"{budget.where}.max_cost",
            fix="add base.endpoint.prices={prompt: …, completion: …}",
        )
    if not any({"max_tokens": options.max_new_tokens, **options.request}.get(name) for name in LIMITS):
        raise RecipeError(
            "a cost can only be kept to where answers are bounded",
            where="base.endpoint.request",
            fix="add max_completion_tokens",
        )
