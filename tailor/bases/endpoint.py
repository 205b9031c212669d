"""A model behind an API: it takes a prompt and gives an answer, and nothing else of it can be had."""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.bases.chat import Segment, StopToken
from tailor.bases.loading import Remote
from tailor.core.contracts import EncodeOptions, Head, Need, OutputSpec
from tailor.core.examples import Conversation, Example, Features
from tailor.wire.generator import ApiGenerator, as_sent

UNBOUNDED = 2**31 - 1
"""The server knows its context, and says so where a request does not fit."""


class Turns:
    """A conversation as it is sent: how the server's template renders it is not to be seen from here."""

    warnings: tuple[str, ...] = ()

    def stop_token(self) -> StopToken:
        """The server's own."""
        return StopToken(None, False)

    def render(self, conversation: Conversation) -> list[Segment]:
        """The turns as JSON, a segment each, of which no token is known and nothing is trained."""
        sent = as_sent(conversation.messages)
        return [Segment(json.dumps(turn, ensure_ascii=False) + "\n", (), False) for turn in sent]


class EndpointBase:
    """A base without weights or tokenizer; its `generator` answers. Lengths of examples are counted in bytes."""

    family: ClassVar[str] = "endpoint"
    has: ClassVar[frozenset[Need]] = frozenset({"prompt_text"})
    heads: ClassVar[frozenset[Head]] = frozenset()
    pools: ClassVar[bool] = False
    text_head: ClassVar[Head] = "tokens"
    head: Head = "tokens"
    model = None
    tokenizer = None
    packing = None
    new_head = False
    context = limit = UNBOUNDED

    def __init__(self, source: Remote, options: EncodeOptions) -> None:
        self.source, self.options = source, options
        self.name = source.name
        self.chat = Turns()
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {Conversation: self._encode}

    @cached_property
    def generator(self) -> ApiGenerator:
        """What answers; raises `RecipeError` where the key is missing in the environment."""
        return ApiGenerator.of(self.source.endpoint, self.source.key)

    @property
    def longest_answer(self) -> int:
        """Tokens that an answer may have: references do not tell, since reasoning counts too."""
        return self.source.endpoint.max_new_tokens

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Nothing to load; a missing key is said now, before anything else is done."""
        _ = self.generator

    def save_tokenizer(self, folder: Path) -> None:
        """There is none here."""

    def _encode(self, conversation: Conversation) -> list[Features]:
        """The bytes of all that is said: what tells long rows from short ones where no tokenizer is at hand."""
        said = "\n".join(str(turn["content"]) for turn in as_sent(conversation.messages)).encode("utf-8", "replace")
        return [Features(conversation.id, list(said or b"\n"))]
