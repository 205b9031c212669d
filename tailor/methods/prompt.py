"""A searched prompt: no weight moves, the artefact is words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.prompts import PROMPT_FILE, PROMPT_PAGE, Prompt
from tailor.core.runs import write_text
from tailor.methods.attached import PlainAttached
from tailor.recipe.methods import PromptOptions


class PromptSearch:
    """Instruction and demonstrations by search; a base needs nothing but to take a prompt."""

    name: ClassVar[str] = "prompt"
    needs: ClassVar[frozenset[Need]] = frozenset({"prompt_text"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: PromptOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> "InFront":
        """Lay an empty prompt in front of the base."""
        return InFront(base)


class InFront(PlainAttached):
    """A prompt in front of a base; the search fills it in."""

    def __init__(self, base: Base) -> None:
        super().__init__(base, torch.nn.Module() if base.model is None else base.model)
        self.driver = "search"
        self.prompt = Prompt()

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Nothing."""
        return {}

    def save(self, folder: Path) -> None:
        """The prompt for machines and for readers."""
        assert self.prompt is not None
        write_text(folder / PROMPT_FILE, self.prompt.as_json())
        write_text(folder / PROMPT_PAGE, self.prompt.as_markdown())

    def notes(self) -> Mapping[str, Any]:
        """How long the prompt is, and how much of it is demonstrations."""
        assert self.prompt is not None
        return {"instruction_characters": len(self.prompt.lead), "demonstrations": self.prompt.most}
