"""One endpoint on the wire: each request is answered once, however often it is made, and retried while that makes sense."""

import json
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai

from tailor.core.errors import TailorError
from tailor.core.paths import cache_folder
from tailor.recipe.base import LIMITS, EndpointOptions
from tailor.wire.answers import Unreadable, fault_of
from tailor.wire.cache import AnswerCache, content_key
from tailor.wire.failures import Blame, Failure
from tailor.wire.keys import key_of
from tailor.wire.ledger import Accounts, Usage

FIRST_WAIT, LAST_WAIT = 0.5, 30.0
"""Seconds before the first retry; doubled with each further one, up to the last."""
LATER = (1.0, 1.1)
"""By how much requests come later than the server asks for, so that they do not come all at once."""
OVERHEAD = 512
"""Tokens that a server's own template may add to a request, beyond those that its JSON has bytes for."""
MILLION = 1e6
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class Stopped(Exception):
    """Another request has failed for good, so this one is not made."""


class ApiClient:
    """An endpoint: its requests, their retries, and the answers that are known already.

    Args:
        options: the endpoint.
        kept: the folder that keeps answers where the options ask for no cache; None: none does.

    Raises:
        RecipeError: there is no key where the recipe names one, or it would be sent in the open.
    """

    def __init__(self, options: EndpointOptions, kept: Path | None = None) -> None:
        self.options = options
        key = key_of(options)
        self._blame = Blame(options, key)
        self._client = openai.OpenAI(base_url=options.url, api_key=key, timeout=options.timeout, max_retries=0)
        kept = cache_folder() / "answers" if options.cache else kept
        self._cache = AnswerCache(kept) if kept is not None else None
        self._known: dict[str, Mapping[str, Any]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._quiet_until = 0.0
        self._reached = False

    def ask(self, body: Mapping[str, Any], accounts: Accounts, stop: threading.Event) -> Mapping[str, Any]:
        """The server's answer to a request's body, from the cache where it is known.

        Raises:
            TailorError: it is refused, or fails more often than is retried; `BudgetSpent` where it does not fit.
            Stopped: `stop` is set before it is sent.
        """
        key = content_key(self.options.url, self.options.protocol, body)
        with self._locks.setdefault(key, threading.Lock()):  # the same question twice at once: the second waits
            known = self._known.get(key) or self._kept(key)
            if known is not None:
                usage = self._usage(body, known)
                accounts.reserve(key, usage.cost, cached=True)
                accounts.settle(key, usage, cached=True)
            else:
                known = self._paid(key, body, accounts, stop)
            self._known[key] = known
        return known

    def _kept(self, key: str) -> Mapping[str, Any] | None:
        """What the cache holds; what cannot be read of it is asked for anew."""
        answer = self._cache.get(key) if self._cache else None
        try:
            return None if answer is None or fault_of(answer, self.options.protocol) else answer
        except Unreadable:
            return None

    def _paid(self, key: str, body: Mapping[str, Any], accounts: Accounts, stop: threading.Event) -> Mapping[str, Any]:
        for failed in range(self.options.retries + 1):
            self._wait_for_turn(stop)
            accounts.reserve(key, self._most(body))
            if stop.is_set():  # while it waited for room
                accounts.release(key, perhaps_billed=False)
                raise Stopped
            try:
                answer = self._send(body)
            except Failure as failure:
                if final := self._final(failure, failed):
                    stop.set()  # before its room is given to a request that waits for it
                accounts.release(key, perhaps_billed=failure.perhaps_billed)
                if final is not None:
                    raise final from None
                self._pause(failure, failed, stop)
                continue
            except BaseException:
                stop.set()
                accounts.release(key, perhaps_billed=True)
                raise
            self._reached = True
            accounts.settle(key, self._usage(body, answer), cached=False)
            if self._cache:
                self._cache.put(key, {"url": self.options.url, **body}, answer)
            return answer
        raise AssertionError("the last failure is final")

    def _send(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        rest = dict(body)
        try:
            if self.options.protocol == "chat":
                asked: Any = {"model": rest.pop("model"), "messages": rest.pop("messages")}
                raw = self._client.chat.completions.with_raw_response.create(**asked, extra_body=rest)
            else:
                asked = {"model": rest.pop("model"), "prompt": rest.pop("prompt")}
                raw = self._client.completions.with_raw_response.create(**asked, extra_body=rest)
            text = raw.http_response.content.decode("utf-8")
        except openai.OpenAIError as error:
            raise self._blame.of(error, self._reached) from None
        except UnicodeDecodeError:
            raise self._blame.garbled("no UTF-8") from None
        return self._checked(text)

    def _checked(self, text: str) -> Mapping[str, Any]:
        """An answer's JSON, which must hold what the protocol promises."""
        try:
            answer = json.loads(self._blame.redacted(text))
        except ValueError:
            raise self._blame.garbled("no JSON") from None
        told = answer.get("error") if isinstance(answer, dict) else None
        if told:
            raise self._blame.garbled(f"an error: {told.get('message', told) if isinstance(told, dict) else told}")
        try:
            fault = fault_of(answer, self.options.protocol)
        except Unreadable as error:
            raise self._blame.unreadable(str(error)) from None
        if fault:
            raise self._blame.garbled(fault)
        return answer  # type: ignore[no-any-return]

    def _final(self, failure: Failure, failed: int) -> TailorError | None:
        """What to tell of a failure after which nothing is tried again; None where something is."""
        if failure.passes and failed < self.options.retries:
            return None
        error = failure.error
        times = f", {failed + 1} times in a row" if failure.passes and failed else ""
        return TailorError(error.message + times, where=error.where, fix=error.fix, code=error.code)

    def _pause(self, failure: Failure, failed: int, stop: threading.Event) -> None:
        """Wait before the next try: a while that doubles, and not less than the server asks for."""
        pause = min(LAST_WAIT, FIRST_WAIT * 2**failed) * random.uniform(0.75, 1.25)
        if failure.wait is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + failure.wait)
            pause = max(pause, failure.wait * random.uniform(*LATER))
        stop.wait(pause)

    def _wait_for_turn(self, stop: threading.Event) -> None:
        """A server that asks to be left alone is left alone by every request."""
        while (left := self._quiet_until - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(left * random.uniform(*LATER))
        if stop.is_set():
            raise Stopped

    def _most(self, body: Mapping[str, Any]) -> float:
        """The most that a request can cost: a token is a byte of text at least."""
        prices, length = self.options.prices, len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return (prices.prompt * (length + OVERHEAD) + prices.completion * _limit(body)) / MILLION

    def _usage(self, body: Mapping[str, Any], answer: Mapping[str, Any]) -> Usage:
        """What the server says that a request took; what it leaves unsaid is taken for its bytes."""
        said = answer.get("usage")
        said = said if isinstance(said, dict) else {}
        prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
        if not isinstance(prompt, int):
            prompt = len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if not isinstance(completion, int):
            completion = len(json.dumps(answer["choices"], ensure_ascii=False).encode("utf-8", "surrogatepass"))
        prices = self.options.prices
        return Usage(prompt, completion, (prices.prompt * prompt + prices.completion * completion) / MILLION)


def longest_answer(options: EndpointOptions, limit: int) -> int:
    """Tokens that an endpoint may answer with where so many are asked for: what its recipe adds to a request counts too."""
    return _limit({"max_tokens": limit, **options.request})


def _limit(body: Mapping[str, Any]) -> int:
    return max((body[name] or 0 for name in LIMITS if name in body), default=0)
