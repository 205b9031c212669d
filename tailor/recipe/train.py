"""How long, how fast, how precisely."""

from typing import Annotated, Literal

from pydantic import Field

from tailor.recipe.options import Options

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)]


class OptimizerOptions(Options):
    """AdamW, with fp32 state on fp32 weights."""

    weight_decay: float = Field(0.0, ge=0, description="not applied to biases, norms and other vectors")
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    clip: float | None = Field(1.0, gt=0, description="largest norm of the whole gradient; null: no clipping")


class ScheduleOptions(Options):
    """The learning rate over the run."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the rate rises from 0")
    final: float = Field(0.0, ge=0, le=1, description="share of the peak rate that is left at the end")


class TrainOptions(Options):
    """The loop's options."""

    epochs: Count | Auto = Field("auto", description="auto: from 3 to 10 by the number of rows; raw text 1")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; instead of epochs")
    examples_per_batch: int = Field(16, ge=1, description="examples per optimizer step")
    tokens_per_micro_batch: Count | Auto = Field(
        "auto", description="bounds the memory of one forward; changes nothing but what dropout draws"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field("auto", description="auto: by method and hidden size")
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    checkpoint_every: Count | Auto = Field("auto", description="optimizer steps between checkpoints")
    patience: Count | Auto | None = Field(
        "auto", description="looks at dev without a gain before stopping; null: never"
    )
    exact: Literal["fast", "naive"] = Field(
        "fast", description="naive: nothing packed, shared, cached or skipped, to check us by; the same weights, slower"
    )
    trackers: list[str] = Field([], description="accelerate's trackers by name: tensorboard, wandb, mlflow, trackio")
