"""Transfer learning: a new head on a frozen trunk."""

from typing import ClassVar, Literal

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.full import WholeModel
from tailor.recipe.methods import HeadOptions


class HeadOnly:
    """Only the head moves; the trunk is frozen and its dropout is off, so that its features never change."""

    name: ClassVar[str] = "head"
    driver: ClassVar[Literal["gradient"]] = "gradient"
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
        owners = {name.rpartition(".")[0] for name in moving}
        return WholeModel(base, moving, [base.model.get_submodule(owner) for owner in sorted(owners)])
