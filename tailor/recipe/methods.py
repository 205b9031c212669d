"""Which weights move: one options model per method, with the learning rate that works for it."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tailor.recipe.options import Options


class MethodOptions(Options):
    """What every gradient method's options carry.

    `rate_at_2000` is the learning rate for a base of hidden size 2000; `auto` scales it by (2000 / hidden) ** 0.78, the
    law that thinkingmachines.ai's tinker-cookbook fitted for Llama shapes; full fine-tuning takes a tenth of LoRA's
    ("LoRA Without Regret", Schulman et al. 2025).
    """

    rate_at_2000: ClassVar[float]


class FullOptions(MethodOptions):
    """Full fine-tuning: every weight moves."""

    rate_at_2000 = 5e-5
    name: Literal["full"] = "full"
    freeze: list[str] = Field([], description="glob patterns of parameter names that stay as they are")


class LoraOptions(MethodOptions):
    """Low-rank updates beside frozen linear layers (Hu et al. 2021), in PEFT's format."""

    rate_at_2000 = 5e-4
    name: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = Field("all-linear", description="names of linear layers, or all-linear")
    allow_partial: bool = Field(False, description="train although the adapter reaches under half the linear weights")


class HeadOptions(MethodOptions):
    """Transfer learning: a new head on a frozen trunk; blocks of the trunk may follow one by one (Howard & Ruder 2018)."""

    rate_at_2000 = 2e-3
    name: Literal["head"] = "head"
    head: Literal["auto", "stock", "mean_pool"] = Field(
        "auto",
        description="the family's own head, or a linear layer on the mean token state; auto: that on encoders, for labels",
    )
    solver: Literal["auto", "exact", "gradient"] = Field(
        "auto", description="features once, then solved; or trained step by step. auto: solved where the head is linear"
    )
    unfreeze: int = Field(
        0, ge=0, description="blocks of the trunk, from the top, that are unfrozen one after the other"
    )
    unfreeze_every: int = Field(50, ge=1, description="steps from one block to the next")

    @model_validator(mode="after")
    def _either(self) -> "HeadOptions":
        if self.solver == "exact" and self.unfreeze:
            raise ValueError("a head on a trunk that moves cannot be solved: leave out solver or unfreeze")
        return self


METHODS: dict[str, type[MethodOptions]] = {"full": FullOptions, "lora": LoraOptions, "head": HeadOptions}
