"""The model behind an OpenAI-compatible server: does it answer as the tuned model does, or as the base?

A server that forgot the adapter, or renders another system prompt or template than training did (ms-swift #6267), still
answers fluently; greedy texts on the same prompts tell.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import openai

from tailor.core.errors import TailorError
from tailor.evaluation.stock_forward import STOP
from tailor.recipe.base import EndpointOptions
from tailor.wire.keys import key_of

NEW_TOKENS = 24
ENOUGH = 0.8
"""Share of the telling prompts on which a server must agree; quantised weights turn even a clear choice now and then."""

LEADS, WANTED, FEWEST = (1.0, 0.5, 0.25), 8, 3
"""A logit's lead that lower precision hardly turns, from sure to likely; how many telling prompts are wanted, and needed."""

TIMEOUT = 120.0
NO_CHAT = {400, 404, 405, 501}
"""Answers of servers that complete text and do not chat."""

THINKING_MARKS = re.compile(r"</?think(?:ing)?>")


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue.

    Args:
        ids: the tokens that the model itself is given.
        text: the same as text, without what the tokenizer adds by itself.
        messages: the conversation behind it, as the API takes it; empty for raw text.
    """

    ids: Sequence[int]
    text: str
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Beginning:
    """How a model's answer begins, or all of it where it `ends` there."""

    text: str
    ends: bool

    def fits(self, text: str) -> bool:
        """Whether a server's text begins so, or is that."""
        own, other = _bare(self.text), _bare(text)
        return other == own if self.ends else other.startswith(own)


@dataclass(frozen=True)
class Contrast:
    """By what to know two models on one prompt: neither beginning fits an answer of the other one."""

    tuned: Beginning
    base: Beginning


Continuation = tuple[list[int], list[float]]
"""Token ids, `STOP` last where the text ends, and by how much each one's logit led the next best."""


def tell_apart(tuned: Sequence[Continuation], base: Sequence[Continuation], tokenizer: Any) -> list[Contrast | None]:
    """For each prompt a contrast, or None where the two models cannot be told apart.

    The tuned model's text counts as far as every token leads clearly: beyond that, a server of it in lower precision may
    rightly go on otherwise. How clearly is asked less strictly where too few prompts would be left.
    """
    found: list[Contrast | None] = []
    for lead in LEADS:
        pairs = [(_sure(*ours, lead), before) for ours, (before, _) in zip(tuned, base, strict=True)]
        found = [_contrast(ours, before, tokenizer) for ours, before in pairs]
        if sum(contrast is not None for contrast in found) >= WANTED:
            break
    return found


def _sure(ids: list[int], leads: list[float], lead: float) -> list[int]:
    return ids[: next((place for place, value in enumerate(leads) if not value >= lead), len(ids))]


def _contrast(tuned: list[int], base: list[int], tokenizer: Any) -> Contrast | None:
    """Of what the base writes, only what leads up to where the two part is looked at."""
    parting = next(
        (place for place, (ours, theirs) in enumerate(zip(tuned, base, strict=False)) if ours != theirs), None
    )
    if parting is None:
        return None
    ours, theirs = _beginning(tuned, tokenizer), _beginning(base[: parting + 1], tokenizer)
    # Other tokens can be the same text, or half a character, or space.
    alike = ours.fits(theirs.text) or theirs.fits(ours.text)
    return None if alike else Contrast(ours, theirs)


def _beginning(ids: list[int], tokenizer: Any) -> Beginning:
    ends = ids[-1] == STOP
    return Beginning(tokenizer.decode(ids[:-1] if ends else ids, skip_special_tokens=True), ends)


class Server:
    """An OpenAI-compatible server and the model to ask it for.

    Attributes:
        url: as it was given, with or without `/v1`.
        model: the one that is asked for; offered: all that the server names.
    """

    def __init__(self, url: str, model: str, offered: Sequence[str], client: openai.OpenAI) -> None:
        self.url = url
        self.model = model
        self.offered = offered
        self._client = client
        self._chats = True

    @classmethod
    def at(cls, url: str, names: Sequence[str]) -> "Server":
        """The server at an address; of several models the one that bears one of `names`, else the first.

        Raises:
            TailorError: the server cannot be reached, refuses, or does not speak the API.
        """
        root = url.rstrip("/") if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
        key = key_of(EndpointOptions(url=root, model="any"))
        with _explained(url):
            client = openai.OpenAI(base_url=root, api_key=key, timeout=TIMEOUT, max_retries=1)
            offered = [str(model.id) for model in client.models.list().data]
            if not offered:
                raise TailorError("this server offers no model", where=url, code="server")
        model = next((name for name in offered if PurePosixPath(name).name in names), offered[0])
        return cls(url, model, offered, client)

    def ask(self, prompt: Prompt) -> str:
        """The greedy answer to a prompt; from a server that does not chat, the completion of the rendered prompt."""
        with _explained(self.url):
            if prompt.messages and self._chats:
                try:
                    return self._chat(prompt)
                except openai.APIStatusError as error:
                    if error.status_code not in NO_CHAT:
                        raise
                    self._chats = False
            done = self._client.completions.create(
                model=self.model, prompt=prompt.text, max_tokens=NEW_TOKENS, temperature=0
            )
            return done.choices[0].text

    def _chat(self, prompt: Prompt) -> str:
        messages: Any = list(prompt.messages)
        done = self._client.chat.completions.create(
            model=self.model, messages=messages, max_tokens=NEW_TOKENS, temperature=0
        )
        message = done.choices[0].message
        # Some servers take reasoning out of the answer; a model's own text has it in front.
        return (getattr(message, "reasoning_content", None) or "") + (message.content or "")


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Whatever goes wrong between us and a server, as one line."""
    try:
        yield
    except openai.APITimeoutError:
        raise _error(url, f"the server does not answer within {TIMEOUT:.0f} seconds") from None
    except openai.APIConnectionError as error:
        reason = str(error.__cause__ or error).strip() or "no connection"
        raise _error(url, f"the server cannot be reached: {reason}", "start it, or correct --served") from None
    except openai.AuthenticationError:
        raise _error(url, "the server refuses the key", "set OPENAI_API_KEY to its key") from None
    except openai.OpenAIError as error:
        raise _error(url, f"the server answers with an error: {str(error).splitlines()[0]}") from None
    except (AttributeError, TypeError, IndexError, ValueError):
        # The client hands through whatever it was sent: a web page, say.
        raise _error(url, "this is no OpenAI-compatible server", "give its address up to /v1") from None


def _error(url: str, message: str, fix: str = "") -> TailorError:
    return TailorError(message, where=url, fix=fix, code="server")


def judge_served(
    server: Server, prompts: Sequence[Prompt], contrasts: Sequence[Contrast | None]
) -> tuple[dict[str, Any], list[str]]:
    """Whom a server agrees with on the prompts that tell tuned and base apart, and what is wrong with that."""
    pairs = zip(prompts, contrasts, strict=True)
    telling = [(server.ask(prompt), contrast) for prompt, contrast in pairs if contrast is not None]
    as_tuned = sum(contrast.tuned.fits(text) for text, contrast in telling)
    as_base = sum(contrast.base.fits(text) and not contrast.tuned.fits(text) for text, contrast in telling)
    count = len(telling)
    answer = {
        "url": server.url,
        "model": server.model,
        "prompts": count,
        "equal_to_tuned": as_tuned,
        "equal_to_base": as_base,
    }
    if count < FEWEST:
        asked = f"on {count or 'none'} of the {len(prompts)} prompts does the tuned model surely write another text"
        return answer, [f"{asked} than the base, so it cannot be told which of them is served"]
    if as_tuned >= ENOUGH * count:
        return answer, []
    others = [name for name in server.offered if name != server.model]
    also = f" (asked for {server.model}; it also offers {', '.join(others[:5])})" if others else ""
    if as_base > as_tuned:
        return answer, [f"the server answers as the base does on {as_base} of {count} prompts{also}"]
    doubt = "it renders another system prompt or chat template, or serves another model"
    agrees = f"the server answers as the tuned model does on only {as_tuned} of {count} prompts"
    return answer, [f"{agrees}, and as neither model on {count - as_tuned - as_base}: {doubt}{also}"]


def _bare(text: str) -> str:
    """A text without half a character at its end and marks around reasoning, which servers drop, in single spaces."""
    return " ".join(THINKING_MARKS.sub(" ", text.rstrip("\ufffd")).split())
