"""LoRA through PEFT, whose on-disk format is ours."""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.fast_lora import quicken
from tailor.methods.with_peft import TASKS, PeftAttached, head_modules, lay
from tailor.recipe.methods import LoraOptions

POOLERS = ("pooler", "pooler.dense")
"""Where token states are read, a stock model has a pooler that ours lacks: who loads the folder is to lay nothing on it."""


class Lora:
    """Low-rank updates W + (alpha / rank) B A, with B = 0 at the start, so that step 0 is the base."""

    name: ClassVar[str] = "lora"
    needs: ClassVar[frozenset[Need]] = frozenset({"linears"})
    mergeable: ClassVar[bool] = True

    def __init__(self, options: LoraOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> PeftAttached:
        """Lay adapters onto a loaded base; raises `RecipeError` where they would reach under half the linear weights."""
        heads = head_modules(base)
        experts = self._experts(base.model)
        total = _linear_weights(base.model, set(heads))
        model = self._laid(base, heads, experts)
        left_out = _left_out(model, heads) if experts else []
        if left_out:
            # PEFT takes the layers of shared experts and dense blocks, that are called as its experts are, for these.
            base.model = model.unload()
            model = self._laid(base, heads, [*experts, *left_out])
        _check_ranks(model, self.options.ranks)
        share = _adapted(model) / max(1, total)
        if share < 0.5 and not self.options.allow_partial:
            raise RecipeError(
                f"the adapter reaches only {share:.0%} of this base's linear weights: much of it would stay as it is",
                where="method.targets",
                fix="choose method: full, name other targets, or set method.allow_partial=true",
                code="adapted_share",
            )
        if not base.options.naive:
            quicken(model)
        return PeftAttached(base, model, figures={"adapted_share": share})

    def _laid(self, base: Base, heads: list[str], parameters: list[str]) -> Any:
        """PEFT's model, with weights adapted that are named beside its linear layers."""
        ranks = {_expression(pattern): rank for pattern, rank in self.options.ranks.items()}
        config = LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha,  # type: ignore[arg-type]  # PEFT divides by rank; a float is exact
            lora_dropout=self.options.dropout,
            use_rslora=self.options.rslora,
            use_dora=self.options.dora,
            target_modules=self._targets(base.model),
            target_parameters=parameters or None,
            rank_pattern=ranks,
            alpha_pattern={name: self._alpha(rank) for name, rank in ranks.items()},
            exclude_modules=[*_routers(base.model), *(POOLERS if base.head == "embedding" else ())] or None,
            modules_to_save=heads or None,
            task_type=TASKS[base.head],
        )
        return lay(base, config, called="LoRA", where="method.targets")

    def _experts(self, model: Any) -> list[str]:
        """Fused experts among the targets; raises `RecipeError` where the options are such that PEFT cannot adapt them."""
        experts = _fused_experts(model) if self.options.targets == "all-linear" else []
        if experts and (self.options.dora or self.options.dropout):
            option = "dora" if self.options.dora else "dropout"
            raise RecipeError(
                f"fused experts ({experts[0]}) take no {option}: what is learned beside them is added to their weights",
                where=f"method.{option}",
                fix=f"leave {option} out, or name the linear layers in method.targets with method.allow_partial=true",
            )
        return experts

    def _targets(self, model: Any) -> str | list[str]:
        """PEFT finds all linear layers of transformers' classes alone; in others convolutions are among them."""
        if self.options.targets != "all-linear" or isinstance(model, PreTrainedModel):
            return self.options.targets
        kinds = (torch.nn.Linear, torch.nn.Conv2d)
        return [name for name, module in model.named_modules() if isinstance(module, kinds)]

    def _alpha(self, rank: int) -> float:
        """The alpha with which a layer of this rank has the scale of all others."""
        share = rank / self.options.rank
        return self.options.alpha * (math.sqrt(share) if self.options.rslora else share)


def _expression(pattern: str) -> str:
    """A glob as PEFT takes it: a regular expression for the end of a layer's name, from a dot on."""
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _check_ranks(model: Any, ranks: Mapping[str, int]) -> None:
    """Every pattern must name a layer, and no layer two ranks: PEFT's folder does not keep their order."""
    layers = [name for name, module in model.base_model.model.named_modules() if isinstance(module, BaseTunerLayer)]
    named: dict[str, str] = {}
    for pattern in ranks:
        expression = re.compile(rf"(.*\.)?({_expression(pattern)})$")
        matched = [name for name in layers if expression.match(name)]
        if not matched:
            endings = sorted({name.rpartition(".")[2] for name in layers})
            raise RecipeError(
                f"no adapted layer is named like {pattern!r}", where="method.ranks", fix=f"known: {', '.join(endings)}"
            )
        twice = next((name for name in matched if name in named), None)
        if twice is not None:
            raise RecipeError(
                f"the layer {twice} is named by both {named[twice]!r} and {pattern!r}",
                where="method.ranks",
                fix="write patterns that name different layers",
            )
        named |= dict.fromkeys(matched, pattern)


def _routers(model: Any) -> list[str]:
    """Llama 4's and Phi MoE's routers are linear layers that return more than a tensor: PEFT cannot wrap them."""
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linears if name.endswith(".router")]


def _fused_experts(model: Any) -> list[str]:
    """How the names of weights end that hold a matrix per expert, which is no linear layer of its own.

    Where there are such, PEFT adds the router's weights by itself for the kinds of models that it knows.
    """
    found = {
        f"{name.rpartition('.')[2]}.{own}"
        for name, module in model.named_modules()
        for own, value in module.named_parameters(recurse=False)
        if value.ndim == 3 and not isinstance(module, torch.nn.Conv1d)
    }
    return sorted(found)


def _left_out(model: Any, heads: list[str]) -> list[str]:
    """Weights of linear layers that no adapter reaches, but for the output layer, a new head and routers."""
    inner = model.base_model.model
    output = getattr(inner, "get_output_embeddings", lambda: None)()
    apart = {*heads, *_routers(inner)}
    return [
        f"{name}.weight"
        for name, module in inner.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not isinstance(module, BaseTunerLayer)
        and module is not output
        and not any(part in name for part in ("base_layer", "lora_", "modules_to_save"))
        and not any(f"{name}.".startswith(f"{other}.") for other in apart)
    ]


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
