"""Full fine-tuning: every weight moves, in fp32."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.attached import PlainAttached
from tailor.recipe.methods import FullOptions


class WholeModel(PlainAttached):
    """A model whose own parameters move, all or some; its artefact is the whole model."""

    def __init__(self, base: Base, moving: set[str], training: list[torch.nn.Module]) -> None:
        super().__init__(base, base.model)
        self._training = training
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in moving)
            if name in moving:
                parameter.data = parameter.data.float()

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that move, in the model's order; tied ones once."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def train_mode(self) -> None:
        """Dropout is on where something learns, and off elsewhere."""
        self.model.eval()
        for module in self._training:
            module.train()

    def save(self, folder: Path) -> None:
        """The whole model."""
        self.base.save(self.model, folder)

    def notes(self) -> Mapping[str, Any]:
        """Nothing of its own to show."""
        return {}


class Full:
    """Every weight moves, but for those that `freeze` names."""

    name: ClassVar[str] = "full"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: FullOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> WholeModel:
        """Lay full fine-tuning onto a loaded base; raises where a freeze pattern fits nothing or everything."""
        names = [name for name, _ in base.model.named_parameters()]
        for pattern in self.options.freeze:
            if not any(fnmatch(name, pattern) for name in names):
                raise RecipeError(
                    f"no parameter is named like {pattern!r}", where="method.freeze", fix=f"e.g. {names[0]}"
                )
        moving = {name for name in names if not any(fnmatch(name, pattern) for pattern in self.options.freeze)}
        if not moving:
            raise RecipeError("every parameter is frozen: nothing can learn", where="method.freeze")
        return WholeModel(base, moving, [base.model])
