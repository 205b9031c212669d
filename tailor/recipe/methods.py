"""Which weights move: one options model per method, with the learning rate that works for it."""

from typing import ClassVar, Literal

from pydantic import Field

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
    """Transfer learning: a new head on a frozen trunk."""

    rate_at_2000 = 2e-3
    name: Literal["head"] = "head"
    head: Literal["stock", "mean_pool"] = Field(
        "stock", description="the family's own head, or a linear layer on the mean token state (sentence encoders)"
    )


METHODS: dict[str, type[MethodOptions]] = {"full": FullOptions, "lora": LoraOptions, "head": HeadOptions}
