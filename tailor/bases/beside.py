"""Adapters that stay beside their base, laid onto a model that is loaded for use: nothing of them can be merged."""

from pathlib import Path
from typing import Any

from peft import PeftModel

from tailor.bases.loading import Source, explained
from tailor.core.errors import BaseError
from tailor.nn.bottleneck import CONFIG_FILE, Adapted, read_adapter
from tailor.nn.in_front import InFront

INTO_THE_CACHE = "PREFIX_TUNING"
"""PEFT's virtual tokens that are keys and values, and so have no row in the outputs."""


def lay_on(source: Source, model: Any) -> Any:
    """The model with what the source keeps beside it; as it is, where that is nothing."""
    if source.kept is None:
        return model
    if (source.kept / CONFIG_FILE).exists():
        return load_adapter(model, source.kept)
    with explained(source.name):
        tuned = PeftModel.from_pretrained(model, str(source.kept))
    kind = str(tuned.active_peft_config.peft_type.value)
    return InFront(tuned) if source.virtual_tokens and kind != INTO_THE_CACHE else tuned


def load_adapter(model: Any, folder: Path) -> Adapted:
    """A base with bottleneck adapters and the head that were saved; raises `BaseError` where they do not fit."""
    try:
        return read_adapter(model, folder)
    except (KeyError, RuntimeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise BaseError(f"this adapter does not fit the base: {first}", where=str(folder)) from None
