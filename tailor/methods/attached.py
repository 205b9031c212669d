"""What most attached methods share: steps along the gradient where they name no other driver, and nothing after one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from tailor.core.contracts import Base
from tailor.core.errors import RecipeError
from tailor.core.prompts import Prompt


class PlainAttached:
    """Defaults; see `core.contracts.Attached`."""

    def __init__(self, base: Base, model: Any) -> None:
        self.base = base
        self.model = model
        self.driver: Literal["gradient", "solve", "search"] = "gradient"
        self.linear: torch.nn.Linear | None = None
        self.prompt: Prompt | None = None

    def train_mode(self) -> None:
        """The whole model: the base's own dropout regularises what is trained beside it as it would the base."""
        self.model.train()

    def rate_shares(self) -> Mapping[str, float]:
        """Everything learns at the one rate."""
        return {}

    def begin_with(self, adapter: Path, *, same_head: bool) -> None:
        """There is no adapter to start from."""
        raise RecipeError(
            "this method has no adapter that could go on being trained",
            where="base.continue_adapter",
            fix="leave it out, or choose the method by which the adapter was made",
        )

    def after_step(self, step: int) -> None:
        """Nothing to do."""
