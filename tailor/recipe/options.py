"""What every options model shares: frozen, no unknown keys, short forms."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A small frozen group of user-facing options. Torch-free: CLI, YAML schema and forms have this one source."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def from_short_form(value: Any, key: str) -> Any:
    """`lora` for `{name: lora}`: a bare string or list stands for the model's main key."""
    return {key: value} if isinstance(value, str | list) else value
