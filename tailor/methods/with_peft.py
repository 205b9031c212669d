"""What the methods that go through PEFT share: its task types, the head trained beside, a folder without our paths."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, TaskType, get_peft_model

from tailor.core.contracts import Base
from tailor.core.errors import RecipeError
from tailor.methods.attached import ByGradient
from tailor.recipe.methods import HeadOptions, MethodOptions

TASKS = {
    "tokens": TaskType.CAUSAL_LM,
    "labels": TaskType.SEQ_CLS,
    "tags": TaskType.TOKEN_CLS,
    "span": None,
    "embedding": TaskType.FEATURE_EXTRACTION,
    "masked": None,
    "sequence": TaskType.SEQ_2_SEQ_LM,
    "noise": None,
}
"""Heads -> PEFT's task types. It has none for masked language models and denoisers, and the one that it has for spans
(QUESTION_ANS, in 0.21) swallows `token_type_ids`: question and context would be one segment while training, and two
once merged."""


class PeftAttached(ByGradient):
    """A PEFT model laid onto a base: what it adds, and a new head, trained in fp32; the rest frozen.

    Args:
        peft: what PEFT made; model: what is run, where that is not the same.
        head_share: the multiple of the learning rate at which a new head learns.
        figures: what the summary shows.
    """

    def __init__(
        self,
        base: Base,
        peft: Any,
        *,
        model: Any = None,
        head_share: float = 1.0,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(base, peft if model is None else model)
        self._head_share = head_share
        self.peft = peft
        self._figures = dict(figures or {})

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """What PEFT added and copies of the head, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def rate_shares(self) -> Mapping[str, float]:
        """A head that is trained beside virtual tokens or factors learns at a head's rate, which is far below theirs."""
        return {name: self._head_share for name in self.trainable() if "modules_to_save" in name}

    def save(self, folder: Path) -> None:
        """A PEFT folder that names its base as others know it, never by a path of this machine; or the base's own format."""
        own_format = getattr(self.base, "save_adapter", None)
        if own_format is not None:
            own_format(self.peft, folder)
            return
        self.peft.save_pretrained(folder)
        config = folder / "adapter_config.json"
        values = json.loads(config.read_text(encoding="utf-8"))
        values["base_model_name_or_path"] = self.base.name
        config.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)

    def notes(self) -> Mapping[str, Any]:
        """Figures of the method's own."""
        return self._figures


def lay(base: Base, config: PeftConfig, *, called: str, where: str) -> Any:
    """A base as a PEFT model with what learns in fp32; PEFT's refusals become a `RecipeError` at `where`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PEFT corrects a layout it was not told of, and says so
            model = get_peft_model(base.model, config)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"{called} does not fit this base: {first}", where=where) from None
    for parameter in model.parameters():
        if parameter.requires_grad:  # PEFT leaves the copy of a head in the base's dtype
            parameter.data = parameter.data.float()
    return model


def share_of_head(options: MethodOptions) -> float:
    """The multiple of a method's learning rate at which a head learns well."""
    return HeadOptions.rate_at_2000 / options.rate_at_2000


def head_modules(base: Base) -> list[str]:
    """Modules of a new head. PEFT copies a module whole, so one inside another is not named again."""
    names = sorted({name.rpartition(".")[0] for name in base.head_parameters()})
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
