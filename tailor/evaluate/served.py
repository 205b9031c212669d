"""The model behind an OpenAI-compatible server: does it answer as the tuned model does, or as the base?

A server that forgot the adapter, or renders another system prompt or template than training did (ms-swift #6267), still
answers fluently; greedy texts on the same prompts tell.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import openai

from tailor.core.errors import TailorError

NEW_TOKENS = 24
ENOUGH = 0.8
"""Share of the telling prompts on which a server must agree: rounding in low precision turns a near tie at times."""

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
class Heard:
    """A server's greedy answers, one per prompt."""

    url: str
    model: str
    offered: tuple[str, ...]
    texts: tuple[str, ...]


def listen(url: str, prompts: Sequence[Prompt], names: Sequence[str]) -> Heard:
    """Ask a server greedily.

    Args:
        url: with or without `/v1`.
        names: what the artefact is called: the model to ask for where the server offers several, else its first one.

    Raises:
        TailorError: the server cannot be reached, refuses, or does not speak the API.
    """
    root = url.rstrip("/") if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
    key = os.environ.get("OPENAI_API_KEY") or "none"
    with _explained(url), openai.OpenAI(base_url=root, api_key=key, timeout=TIMEOUT, max_retries=1) as client:
        offered = tuple(str(model.id) for model in client.models.list().data)
        if not offered:
            raise TailorError("this server offers no model", where=url)
        model = next((name for name in offered if PurePosixPath(name).name in names), offered[0])
        return Heard(url, model, offered, tuple(_ask(client, model, prompts)))


def _ask(client: openai.OpenAI, model: str, prompts: Sequence[Prompt]) -> Iterator[str]:
    chats = True
    for prompt in prompts:
        if chats and prompt.messages:
            try:
                yield _chat(client, model, prompt)
                continue
            except openai.APIStatusError as error:
                if error.status_code not in NO_CHAT:
                    raise
                chats = False
        done = client.completions.create(model=model, prompt=prompt.text, max_tokens=NEW_TOKENS, temperature=0)
        yield done.choices[0].text


def _chat(client: openai.OpenAI, model: str, prompt: Prompt) -> str:
    messages: Any = list(prompt.messages)
    done = client.chat.completions.create(model=model, messages=messages, max_tokens=NEW_TOKENS, temperature=0)
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


def judge_served(heard: Heard, tuned: Sequence[str], base: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Whom the server agrees with on the prompts on which the two models differ, and what is wrong with that."""
    rows = [tuple(map(_bare, texts)) for texts in zip(heard.texts, tuned, base, strict=True)]
    telling = [row for row in rows if row[1] != row[2]]
    as_tuned = sum(served == ours for served, ours, _ in telling)
    as_base = sum(served == before for served, _, before in telling)
    count = len(telling)
    answer = {
        "url": heard.url,
        "model": heard.model,
        "prompts": count,
        "equal_to_tuned": as_tuned,
        "equal_to_base": as_base,
    }
    if not count:
        asked = f"on none of the {len(rows)} prompts do the tuned model and the base write different texts"
        return answer, [f"{asked}, so it cannot be told which of them is served"]
    if as_tuned >= ENOUGH * count:
        return answer, []
    others = [name for name in heard.offered if name != heard.model]
    also = f" (asked for {heard.model}; it also offers {', '.join(others[:5])})" if others else ""
    if as_base > as_tuned:
        return answer, [f"the server answers as the base does on {as_base} of {count} prompts{also}"]
    neither = count - as_tuned - as_base
    doubt = "it renders another system prompt or chat template, or serves another model"
    agrees = f"the server answers as the tuned model does on only {as_tuned} of {count} prompts"
    return answer, [f"{agrees}, and as neither model on {neither}: {doubt}{also}"]


def _bare(text: str) -> str:
    """A text without marks around reasoning, which servers treat differently, and with single spaces."""
    return " ".join(THINKING_MARKS.sub(" ", text).split())
