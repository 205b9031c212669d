"""What is adapted."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tailor.recipe.options import Options, from_short_form


class BaseOptions(Options):
    """The base model. A bare string is its `name`."""

    name: str = Field(description="hub id, local folder, run folder, or an embedded base such as pocket:gpt")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    trust_remote_code: bool = Field(False, description="run code that the base's repository brings along")
    chat_template: str | None = Field(
        None, description="a built-in template's name or a .jinja file, instead of the tokenizer's own"
    )
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="dtype of frozen weights; auto: as saved"
    )
    quantize: Literal["4bit"] | None = Field(
        None, description="4bit: frozen weights in NF4 through bitsandbytes (QLoRA, with method: lora)"
    )

    continue_adapter: bool = Field(
        False, description="the adapter that this base ends in goes on being trained; false: it is merged first"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return from_short_form(value, "name")
