"""What goes wrong between us and a server: what passes, how long to wait for it, and what to tell where it does not."""

import email.utils
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai

from tailor.core.errors import TailorError
from tailor.recipe.base import EndpointOptions
from tailor.wire.keys import NO_KEY, variable_of

PASSING = {408, 409, 425, 429}
"""Statuses that pass, as those from 500 on do."""
NOT_THERE = {501, 505}
NOBODY_THERE = (ConnectionRefusedError, socket.gaierror)
SPENT_QUOTA = "insufficient_quota"
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""
SHOWN = 300
SECRET_LENGTH = 16
"""Characters from which on a key is taken for a secret; a shorter one (`EMPTY`, `token`) is an ordinary word."""


@dataclass(eq=False)
class Failure(Exception):
    """One request without an answer.

    Args:
        error: what to tell where it is final.
        passes: whether it makes sense to try again.
        wait: seconds that the server asks to be left alone.
        perhaps_billed: the request may have been worked on.
    """

    error: TailorError
    passes: bool = True
    wait: float | None = None
    perhaps_billed: bool = False


@dataclass(frozen=True, slots=True)
class Blame:
    """Puts failures of one endpoint into words, in which its key never appears."""

    options: EndpointOptions
    key: str

    def clean(self, text: str) -> str:
        """An error's text without the key, for some servers repeat it."""
        return text.replace(self.key, "…") if self.key != NO_KEY else text

    def redacted(self, answer: str) -> str:
        """A good answer as it came, but for a secret that it repeats: answers are kept in files."""
        return self.clean(answer) if len(self.key) >= SECRET_LENGTH else answer

    def of(self, error: Exception, reached: bool) -> Failure:
        """A failure of the client as one of ours; `reached` says whether the server has ever answered."""
        if isinstance(error, openai.APITimeoutError):
            told = f"the server gives no sign for {self.options.timeout:g} seconds"
            return self._failure(told, "raise base.endpoint.timeout", perhaps_billed=True)
        if isinstance(error, openai.APIConnectionError):
            reason = str(error.__cause__ or error).strip() or "no connection"
            causes = list(_causes(error))
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
                fix = "give the address by the name that its certificate has, or trust its issuer by SSL_CERT_FILE"
                return self._failure(f"the server's certificate is not to be trusted: {reason}", fix, passes=False)
            if any(isinstance(cause, NOBODY_THERE) for cause in causes):
                return self._failure(f"the server cannot be reached: {reason}", "start it", passes=reached)
            return self._failure(f"the connection breaks off: {reason}", perhaps_billed=True)
        if isinstance(error, openai.APIStatusError):
            return self._status(error)
        return self._failure(f"the request cannot be made: {_first_line(error)}", passes=False)

    def garbled(self, reason: str) -> Failure:
        """An answer that is none."""
        told = f"the answer is not what an OpenAI-compatible API gives ({reason})"
        return self._failure(told, "give the address up to /v1", perhaps_billed=True)

    def unreadable(self, reason: str) -> Failure:
        """An answer that is none of a kind that can be read, and would be so again."""
        fix = "name a model that answers with text, or ask it for text by base.endpoint.request"
        told = f"the answer cannot be read: {reason}"
        return self._failure(told, fix, "unreadable", passes=False, perhaps_billed=True)

    def _status(self, error: openai.APIStatusError) -> Failure:
        status, told, options = error.status_code, _told(error), self.options
        if status in (401, 403):
            name = variable_of(options)
            fix = (
                f"set {name} to its key" if name else "name the variable that holds its key: base.endpoint.api_key_env"
            )
            refused = (
                "the server refuses the key" if self.key != NO_KEY else "the server wants a key, and none was sent"
            )
            return self._failure(f"{refused}: {told}", fix, "key_refused", False)
        if status == 404:
            fix = "name a model that the server offers, and the address up to /v1"
            return self._failure(f"there is no model {options.model!r} there: {told}", fix, "no_model", False)
        if status == 429 and SPENT_QUOTA in json.dumps(error.body, default=str):
            return self._failure(f"the account's quota is used up: {told}", "", SPENT_QUOTA, False)
        if status in PASSING or (status >= 500 and status not in NOT_THERE):
            wait = retry_after(error.response.headers)
            if wait is not None and wait > LONGEST_WAIT:
                return self._failure(
                    f"the server asks to wait {wait:.0f} seconds: {told}", "start again then", passes=False
                )
            return self._failure(f"the server answers {status}: {told}", wait=wait)
        fix = "base.endpoint.request adds keys to the request, or with null takes them out"
        return self._failure(f"the server does not take the request ({status}): {told}", fix, "bad_request", False)

    def _failure(
        self,
        told: str,
        fix: str = "",
        code: str = "server",
        passes: bool = True,
        *,
        wait: float | None = None,
        perhaps_billed: bool = False,
    ) -> Failure:
        error = TailorError(self.clean(told)[:SHOWN], where=self.options.name, fix=fix, code=code)
        return Failure(error, passes, wait, perhaps_billed)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """What an error came of, down to the operating system's own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def retry_after(headers: Any) -> float | None:
    """Seconds that a server asks to be left alone: `retry-after-ms`, or `Retry-After` as seconds or as a date (RFC 9110)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, date.timestamp() - time.time())


def _told(error: openai.APIStatusError) -> str:
    """The server's own words."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if message:
            return " ".join(str(message).split())
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
