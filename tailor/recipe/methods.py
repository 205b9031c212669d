"""Which weights move: one options model per method, with the learning rate that works for it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tailor.recipe.base import BaseOptions
from tailor.recipe.options import Options

Way = Literal["bootstrap", "nearest", "diverse"]
"""How demonstrations are chosen."""


class MethodOptions(Options):
    """What every method's options carry.

    `rate_at_2000` is the learning rate for a base of hidden size 2000; `auto` scales it by (2000 / hidden) ** 0.78, the
    law that thinkingmachines.ai's tinker-cookbook fitted for Llama shapes; full fine-tuning takes a tenth of LoRA's
    ("LoRA Without Regret", Schulman et al. 2025). 0: nothing moves along a gradient. `rate_for_pictures` is that of
    diffusers' own training scripts: no law of one width speaks of a pipeline.

    `asks`: answers are asked for in words, so that the base's own output layer gives them, whatever the task.
    """

    asks: ClassVar[bool] = False
    rate_at_2000: ClassVar[float]
    rate_for_pictures: ClassVar[float] = 1e-4
    form: ClassVar[tuple[str, ...]] = ()
    """The options that give its adapter its form; empty for a method that leaves none."""

    def goes_on_as(self, later: "MethodOptions") -> bool:
        """Whether its adapter can go on being trained by a later method: of the same kind and form."""
        alike = type(self) is type(later) and bool(self.form)
        return alike and all(getattr(self, key) == getattr(later, key) for key in self.form)


class FullOptions(MethodOptions):
    """Full fine-tuning: every weight moves."""

    rate_at_2000 = 5e-5
    rate_for_pictures = 1e-5
    name: Literal["full"] = "full"
    freeze: list[str] = Field([], description="glob patterns of parameter names that stay as they are")


class LoraOptions(MethodOptions):
    """Low-rank updates beside frozen linear layers (Hu et al. 2021), in PEFT's format."""

    rate_at_2000 = 5e-4
    form = ("rank", "alpha", "targets", "ranks", "rslora", "dora")
    name: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = Field("all-linear", description="names of linear layers, or all-linear")
    ranks: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="glob patterns of layer names, each with a rank of its own; the scale of the update stays"
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank), which stays stable at high ranks")
    dora: bool = Field(False, description="learn the size of each output beside its direction; slower")
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


class Ia3Options(MethodOptions):
    """Learned rescaling of keys, values and feed-forward activations (Liu et al. 2022), in PEFT's format."""

    rate_at_2000 = 5e-3
    form = ("targets", "feedforward")
    name: Literal["ia3"] = "ia3"
    targets: list[str] | None = Field(
        None, description="endings of layer names that are rescaled; null: keys, values and feed-forward outputs"
    )
    feedforward: list[str] = Field([], description="those of `targets` whose input is rescaled instead of their output")


DEFAULT_TEXT = (
    "Read what follows with care, and give exactly the answer that is asked for, in its usual form and no other."
)


class PrefixOptions(MethodOptions):
    """Learned keys and values in front of every layer (Li & Liang 2021), in PEFT's format.

    They start from those that the base computes for real tokens: on GSM8K that start and its rate were worth .416 against
    .186 (PEFT's method comparison).
    """

    rate_at_2000 = 1e-2
    form = ("tokens",)
    name: Literal["prefix"] = "prefix"
    tokens: int = Field(20, ge=1, description="how many virtual tokens; each row has as many fewer of its own")
    init: Literal["text", "vocabulary"] = Field("text", description="what the virtual tokens start from")
    text: str = Field(DEFAULT_TEXT, min_length=1, description="for init: text; cut or repeated to fit")


class SoftPromptOptions(MethodOptions):
    """Learned embeddings in front of the text (Lester et al. 2021), in PEFT's format.

    Start and rate decide: .057 at PEFT's defaults, .343 from sampled vocabulary at a higher rate (PEFT's comparison, GSM8K).
    """

    rate_at_2000 = 2e-2
    rate_for_pictures = 5e-3
    form = ("tokens",)
    name: Literal["soft_prompt"] = "soft_prompt"
    tokens: int = Field(20, ge=1, description="how many virtual tokens; each row has as many fewer of its own")
    init: Literal["text", "vocabulary", "random"] = Field("text", description="what the virtual tokens start from")
    text: str = Field(DEFAULT_TEXT, min_length=1, description="for init: text; cut or repeated to fit")


class AdapterOptions(MethodOptions):
    """Small layers between the base's own (Houlsby et al. 2019; Pfeiffer et al. 2021), that change nothing at the start."""

    rate_at_2000 = 5e-4
    form = ("placement", "bottleneck", "activation")
    name: Literal["adapter"] = "adapter"
    placement: Literal["houlsby", "pfeiffer"] = Field(
        "houlsby", description="houlsby: after attention and after the feed-forward layers; pfeiffer: after these alone"
    )
    bottleneck: int = Field(64, ge=1, description="width of the small layers")
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"


class PromptOptions(MethodOptions):
    """Prompt tuning by search: instruction and demonstrations that make the base do the task, by your own metric."""

    asks = True
    rate_at_2000 = 0.0
    name: Literal["prompt"] = "prompt"
    instruction: str | Annotated[list[str], Field(min_length=1)] = Field(
        "", description="your own task prompt, or several to begin from; the first is what the search is held against"
    )
    demonstrations: int = Field(8, ge=0, description="examples shown at most; fewer where the context is short")
    ways: list[Way] = Field(
        ["bootstrap", "nearest", "diverse"],
        description="how demonstrations are chosen: those that the base gets right, those like the question, unlike ones",
    )
    candidates: int = Field(24, ge=1, description="prompts that enter the race on dev")
    rows: int = Field(200, ge=8, description="dev rows used at most")
    calibrate: bool = Field(True, description="try subtracting what the base says of each label where nothing is asked")
    evolve: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="instructions rewritten by reflection (gepa); auto: 12 where a proposer is named, else none"
    )
    proposer: BaseOptions | None = Field(None, description="what reflects: any base; null: the base itself")
    max_calls: int | None = Field(None, ge=1, description="answers that the search may ask for")
    max_cost: float | None = Field(None, gt=0, description="what the search may cost, in the endpoint's currency")
    max_seconds: float | None = Field(
        None, gt=0, description="how long the search may take; what it finds then depends on the machine"
    )

    @field_validator("instruction")
    @classmethod
    def _said(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and not all(one.strip() for one in value):
            raise ValueError("an instruction of the list is empty")
        return value

    @property
    def instructions(self) -> tuple[str, ...]:
        """The user's own, the one to be held against first."""
        return tuple(filter(None, [self.instruction] if isinstance(self.instruction, str) else self.instruction))


METHODS: dict[str, type[MethodOptions]] = {
    "full": FullOptions,
    "lora": LoraOptions,
    "head": HeadOptions,
    "adapter": AdapterOptions,
    "ia3": Ia3Options,
    "prefix": PrefixOptions,
    "soft_prompt": SoftPromptOptions,
    "prompt": PromptOptions,
}
