"""What the model learns from, what chooses, and what reports."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tailor.recipe.options import Options, from_short_form

Split = float | str
"""`auto`, a share of the training rows between 0 and 1 (0 skips the split), or a path."""


class DataOptions(Options):
    """Data. A bare string or list is `train`."""

    train: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="path, list of paths, folder, glob, hub id, or embedded pocket:NAME"
    )
    dev: Split = Field("auto", description="chooses: early stopping, best checkpoint")
    test: Split = Field("auto", description="reports; opened once per finished run, and the openings are counted")
    split_seed: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="another one, another division of the rows; auto: train.seed"
    )
    columns: dict[str, str] = Field({}, description="role: column, only where recognition needs help")
    max_length: Annotated[int, Field(ge=2)] | Literal["auto"] = Field(
        "auto", description="tokens; auto: the longest row, bounded by the context"
    )
    on_overlong: Literal["auto", "error", "truncate_prompt", "truncate", "drop"] = Field(
        "auto", description="auto: truncate for labels, error for generation; does not apply to raw text"
    )
    on_bad_row: Literal["error", "skip"] = Field("error", description="skip: bad rows are counted and left out")
    thinking: Literal["auto", "train", "empty", "drop"] = Field("auto", description="what to do with reasoning parts")
    replay: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="general text that is learned beside raw text, against forgetting"
    )
    replay_share: float = Field(0.05, gt=0, lt=1, description="share of the training tokens that is replayed")
    subject: str | None = Field(None, description="the instance word of one subject's photos")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return from_short_form(value, "train")

    @field_validator("dev", "test")
    @classmethod
    def _shares(cls, share: Split) -> Split:
        if isinstance(share, float) and not 0 <= share < 1:
            raise ValueError("a share of the rows is at least 0 and below 1")
        return share
