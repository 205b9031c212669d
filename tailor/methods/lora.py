"""LoRA through PEFT, whose on-disk format is ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.attached import ByGradient
from tailor.recipe.methods import LoraOptions

TASKS = {
    "tokens": TaskType.CAUSAL_LM,
    "labels": TaskType.SEQ_CLS,
    "tags": TaskType.TOKEN_CLS,
    "span": None,
    "embedding": TaskType.FEATURE_EXTRACTION,
    "masked": None,
    "sequence": TaskType.SEQ_2_SEQ_LM,
}
"""Heads -> PEFT's task types. It has none for masked language models, and the one that it has for spans (QUESTION_ANS, in
0.21) swallows `token_type_ids`: question and context would be one segment while training, and two once merged."""


class LoraModel(ByGradient):
    """A PEFT model: adapters in fp32 on frozen linears, and a new head trained in full beside them."""

    def __init__(self, base: Base, model: Any, adapted_share: float) -> None:
        super().__init__(base, model)
        self.adapted_share = adapted_share

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Adapter matrices and head copies, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def save(self, folder: Path) -> None:
        """A PEFT folder that names its base as others know it, never by a path of this machine."""
        self.model.save_pretrained(folder)
        config = folder / "adapter_config.json"
        values = json.loads(config.read_text(encoding="utf-8"))
        values["base_model_name_or_path"] = self.base.name
        config.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)

    def notes(self) -> Mapping[str, Any]:
        """The share of the linear weights that an adapter reaches."""
        return {"adapted_share": self.adapted_share}


class Lora:
    """Low-rank updates W + (alpha / rank) B A, with B = 0 at the start, so that step 0 is the base."""

    name: ClassVar[str] = "lora"
    needs: ClassVar[frozenset[Need]] = frozenset({"linears"})
    mergeable: ClassVar[bool] = True

    def __init__(self, options: LoraOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> LoraModel:
        """Lay adapters onto a loaded base; raises `RecipeError` where they would reach under half the linear weights."""
        heads = sorted({name.rpartition(".")[0] for name in base.head_parameters()})
        config = LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha,  # type: ignore[arg-type]  # PEFT divides by rank; a float is exact
            lora_dropout=self.options.dropout,
            target_modules=self.options.targets,
            exclude_modules=_routers(base.model) or None,
            modules_to_save=_top_modules(heads) or None,
            task_type=TASKS[base.head],
        )
        total = _linear_weights(base.model, set(heads))
        try:
            model = get_peft_model(base.model, config)
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise RecipeError(f"LoRA does not fit this base: {first}", where="method.targets") from None
        for parameter in model.parameters():
            if parameter.requires_grad:  # PEFT leaves the copy of a head in the base's dtype
                parameter.data = parameter.data.float()
        share = _adapted(model) / max(1, total)
        if share < 0.5 and not self.options.allow_partial:
            raise RecipeError(
                f"the adapter reaches only {share:.0%} of this base's linear weights: much of it would stay as it is",
                where="method.targets",
                fix="choose method: full, name other targets, or set method.allow_partial=true",
                code="adapted_share",
            )
        return LoraModel(base, model, share)


def _top_modules(names: list[str]) -> list[str]:
    """PEFT copies a module whole, so a module inside another one on the list is not named again."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _routers(model: Any) -> list[str]:
    """Llama 4's and Phi MoE's routers are linear layers that return more than a tensor: PEFT cannot wrap them."""
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linears if name.endswith(".router")]


def _linear_weights(model: Any, heads: set[str]) -> int:
    """Weights that multiply activations: matrices and fused experts, but not embeddings, the output layer, a new head."""
    left_out = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:
        left_out.add(id(output.weight))
    return sum(
        value.numel()
        for name, value in model.named_parameters()
        if value.ndim >= 2 and id(value) not in left_out and not any(name.startswith(f"{head}.") for head in heads)
    )


def _adapted(model: Any) -> int:
    """Weights that an adapter reaches; PEFT wraps fused experts by parameter, several wrappers around one module."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    reached = [
        layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight for layer in layers
    ]
    return sum(weight.numel() for weight in reached)
