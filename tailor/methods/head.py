"""Transfer learning: a new head on a frozen trunk, solved or trained; blocks of the trunk may follow one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.full import WholeModel
from tailor.recipe.methods import HeadOptions

SOLVABLE = {"labels", "tags"}
"""Outputs whose loss has one minimum in a linear head."""


class HeadOnly:
    """Only the head moves; the trunk is frozen and its dropout is off, so that its features never change."""

    name: ClassVar[str] = "head"
    needs: ClassVar[frozenset[Need]] = frozenset({"head", "weights"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: HeadOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> WholeModel:
        """Lay the method onto a loaded base; raises where the task brings no head of its own."""
        moving = set(base.head_parameters())
        if not moving:
            raise RecipeError(
                "this task uses the base's own output layer and brings no new head",
                where="method",
                fix="choose method: lora or full",
            )
        owners = sorted({name.rpartition(".")[0] for name in moving})
        modules = [base.model.get_submodule(owner) for owner in owners]
        if self.options.unfreeze:
            return Unfreezing(base, moving, modules, self._blocks(base), self.options.unfreeze_every)
        linear = modules[0] if len(modules) == 1 and isinstance(modules[0], torch.nn.Linear) else None
        # A decoder's own head has no bias and scores every token of a row, not the row.
        solvable = linear if linear is not None and linear.bias is not None and output.head in SOLVABLE else None
        if self.options.solver == "exact" and solvable is None:
            raise RecipeError(
                f"a head for {output.head} with {len(owners)} layers is not solved but trained",
                where="method.solver",
                fix="method.solver=gradient",
            )
        return FrozenTrunk(base, moving, modules, solvable if self.options.solver != "gradient" else None)

    def _blocks(self, base: Base) -> list[torch.nn.Module]:
        """The trunk's topmost blocks, the highest first."""
        lists = [module for module in base.model.modules() if isinstance(module, torch.nn.ModuleList)]
        blocks = max(lists, key=lambda each: sum(value.numel() for value in each.parameters()), default=None)
        if blocks is None or len(blocks) < self.options.unfreeze:
            count = 0 if blocks is None else len(blocks)
            raise RecipeError(f"this base has {count} blocks", where="method.unfreeze", fix="name fewer")
        return list(blocks)[::-1][: self.options.unfreeze]


class FrozenTrunk(WholeModel):
    """A head on a trunk that stays as it is; solved, where it is one linear layer."""

    def __init__(
        self, base: Base, moving: set[str], modules: list[torch.nn.Module], linear: torch.nn.Linear | None
    ) -> None:
        super().__init__(base, moving, modules)
        self.linear = linear
        self.driver = "gradient" if linear is None else "solve"


class Unfreezing(WholeModel):
    """The head first; then, every so many steps, one block of the trunk more, from the top."""

    def __init__(
        self,
        base: Base,
        moving: set[str],
        modules: list[torch.nn.Module],
        blocks: Sequence[torch.nn.Module],
        every: int,
    ) -> None:
        own = {id(value) for block in blocks for value in block.parameters()}
        follows = {name for name, value in base.model.named_parameters() if id(value) in own}
        super().__init__(base, moving | follows, modules)
        self._names, self._heads, self._blocks, self._every = sorted(moving | follows), modules, blocks, every
        self.after_step(0)

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Head and blocks, also those whose turn has not come yet."""
        named = dict(self.model.named_parameters())
        return {name: named[name] for name in self._names}

    def after_step(self, step: int) -> None:
        """Unfreeze the blocks whose turn has come."""
        free = min(len(self._blocks), step // self._every)
        for place, block in enumerate(self._blocks):
            block.requires_grad_(place < free)
        self._training = [*self._heads, *self._blocks[:free]]

    def notes(self) -> Mapping[str, Any]:
        """How many blocks there are to unfreeze."""
        return {"unfrozen_blocks": len(self._blocks)}
