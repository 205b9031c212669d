"""PEFT's LoRA layers with our product in them: PEFT makes, names, saves and merges them as before.

Where a layer is more than a frozen linear layer with one pair of factors beside it (DoRA, dropout, a bias of its own,
quantised weights, several adapters at once), PEFT's own forward stays.
"""

import weakref
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as PeftLinear

from tailor.nn.lora import lora_linear


class FastLinear(PeftLinear):  # type: ignore[misc]
    """PEFT's layer; its own forward where an adapter is switched off, merged, or not the only one."""

    half: torch.Tensor | None
    """The frozen weight in the dtype of the products, where it is kept in another: cast once and not at every use."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As PEFT's, in the dtype that autocast asks for."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            found: torch.Tensor = super().forward(x, *args, **kwargs)
            return found
        name = self.active_adapters[0]
        weight, bias = self.base_layer.weight, self.base_layer.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = _shared_cast(x, dtype), self._in(dtype), bias if bias is None else bias.to(dtype)
        factors = self.lora_A[name].weight, self.lora_B[name].weight
        with torch.autocast(x.device.type, enabled=False):
            return lora_linear(x.to(weight.dtype), weight, bias, factors, self.scaling[name])

    def _in(self, dtype: torch.dtype) -> torch.Tensor:
        weight: torch.Tensor = self.base_layer.weight
        if weight.dtype == dtype:
            return weight
        if self.half is None or self.half.dtype != dtype or self.half.device != weight.device:
            self.half = weight.to(dtype)
        return self.half


_cast: dict[str, Any] = {}
"""The last input that was cast, and what became of it."""


def _shared_cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The input in another dtype: layers that are given one input (query, key and value, say) share one cast of it.

    Nothing is kept alive: what was cast last is only remembered for as long as its layers keep it for their gradients.
    """
    if x.dtype == dtype:
        return x
    state = (dtype, x._version, torch.is_grad_enabled())
    held = _cast["to"]() if _cast and _cast["from"]() is x and _cast["state"] == state else None
    if held is not None:
        return held  # type: ignore[no-any-return]
    cast = x.to(dtype)
    _cast.update({"from": weakref.ref(x), "to": weakref.ref(cast), "state": state})
    return cast


def quicken(model: torch.nn.Module) -> int:
    """Give our forward to all layers of a PEFT model that it computes the same for; returns how many."""
    fitting = [module for module in model.modules() if _fits(module)]
    for module in fitting:
        module.half = None  # type: ignore[assignment]
        module.__class__ = FastLinear
    return len(fitting)


def _fits(module: Any) -> bool:
    if type(module) is not PeftLinear or type(module.base_layer) is not torch.nn.Linear or module.fan_in_fan_out:
        return False
    plain = all(isinstance(part, torch.nn.Identity) for part in module.lora_dropout.values())
    return plain and not module.lora_variant and not any(module.lora_bias.values()) and not _moves(module.base_layer)


def _moves(layer: torch.nn.Module) -> bool:
    return any(value.requires_grad for value in layer.parameters())
