"""(IA)^3 through PEFT: one learned factor per key, value and feed-forward channel, all of them one at the start."""

from typing import Any, ClassVar

import torch
from peft import IA3Config
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.with_peft import TASKS, PeftAttached, head_modules, lay, share_of_head
from tailor.recipe.methods import Ia3Options

KEYS_AND_VALUES = ("k_proj", "v_proj", "key", "value", "k", "v", "query_key_value", "qkv_proj", "c_attn", "Wqkv")
FEEDFORWARD = (
    "down_proj",
    "fc2",
    "dense_4h_to_h",
    "w2",
    "wo",
    "fc_out",
    "lin2",
    "output_linear",
    "mlp.Wo",
    "mlp.c_proj",
)
"""How transformers ends the names of these layers, for models that PEFT has no line for."""


class Ia3:
    """Rescaling of what attention reads and of what the feed-forward layers pass on (Liu et al. 2022)."""

    name: ClassVar[str] = "ia3"
    needs: ClassVar[frozenset[Need]] = frozenset({"blocks", "linears"})
    mergeable: ClassVar[bool] = True

    def __init__(self, options: Ia3Options) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> PeftAttached:
        """Lay the factors onto a loaded base; raises `RecipeError` where no layer can be told by its name."""
        targets, feedforward = self._layers(base.model)
        config = IA3Config(
            target_modules=targets,
            feedforward_modules=feedforward,
            modules_to_save=head_modules(base) or None,
            task_type=TASKS[base.head],
        )
        return PeftAttached(
            base, lay(base, config, called="(IA)^3", where="method.targets"), head_share=share_of_head(self.options)
        )

    def _layers(self, model: Any) -> tuple[list[str], list[str]]:
        """Endings of the names of all layers that are rescaled, and of those among them that are at their input."""
        if self.options.targets is not None:
            strange = sorted(set(self.options.feedforward) - set(self.options.targets))
            if strange:
                raise RecipeError(f"{strange[0]!r} is not one of method.targets", where="method.feedforward")
            return self.options.targets, self.options.feedforward
        kind = model.config.get_text_config().model_type
        if kind in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
            known = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[kind]
            return list(known), list(TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, []))
        attention, feedforward = _present(model, KEYS_AND_VALUES), _present(model, FEEDFORWARD)
        if not attention or not feedforward:
            lacking = "keys and values" if not attention else "feed-forward outputs"
            raise RecipeError(
                f"the {lacking} of a {kind} model cannot be told by the names of its layers",
                where="method.targets",
                fix=f"name them in method.targets and method.feedforward; its layers end in {_endings(model)}",
            )
        return [*attention, *feedforward], feedforward


def _linears(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]


def _present(model: Any, endings: tuple[str, ...]) -> list[str]:
    names = _linears(model)
    return [ending for ending in endings if any(f".{name}".endswith(f".{ending}") for name in names)]


def _endings(model: Any) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in _linears(model)})) or "nothing known"
