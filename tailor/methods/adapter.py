"""Bottleneck adapters, which PEFT does not have, in a format of our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from tailor.core.contracts import Base, Head, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.attached import PlainAttached
from tailor.methods.with_peft import not_alike
from tailor.nn.bottleneck import CONFIG_FILE, MARK, WEIGHTS_FILE, Adapted, BottleneckConfig, find_layers
from tailor.nn.taking_over import taken_over
from tailor.recipe.methods import AdapterOptions


class AdapterAttached(PlainAttached):
    """Adapters and a new head in fp32, everything else frozen."""

    def __init__(self, base: Base, model: Adapted, read_off: Head) -> None:
        super().__init__(base, model)
        self._head, self._read_off = base.head_parameters(), read_off
        own = dict(model.model.named_parameters())
        for parameter in own.values():
            parameter.requires_grad_(False)
        for name in self._head:
            own[name].requires_grad_(True)
            own[name].data = own[name].data.float()

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Adapter weights and the head's, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def begin_with(self, adapter: Path, *, same_head: bool) -> None:
        """Take over the weights of an adapter of ours; raises `RecipeError` where they have no place here."""
        if not (adapter / CONFIG_FILE).exists():
            raise not_alike("it is none of Tailor's own", adapter)
        layers, named = self.model.adapter_weights(), dict(self.model.model.named_parameters())
        own = layers | {name: named[name] for name in self._head}
        try:
            held, prefix = load_file(adapter / WEIGHTS_FILE), self.base.model.base_model_prefix
            modules = [name for name, _ in self.model.model.named_modules()]
            found = taken_over(held, own, prefix, self._head, [MARK], modules)
        except ValueError as error:
            raise not_alike(str(error), adapter) from None
        for name, value in found.items():
            if same_head or name in layers:
                own[name].copy_(value)

    def save(self, folder: Path) -> None:
        """`adapter.safetensors` with the head in it, and `adapter.json` with the base's name and digest."""
        base = self.base.source.identity()
        extra = {"base_model_name_or_path": base["name"], "base_digest": base["digest"], "head": self._read_off}
        self.model.save(folder, self._head, extra)

    def notes(self) -> Mapping[str, Any]:
        """How many layers have an adapter behind them."""
        return {"adapters": len(self.model.bottlenecks)}


class Adapter:
    """Small layers between those of a frozen base (Houlsby et al. 2019; Pfeiffer et al. 2021)."""

    name: ClassVar[str] = "adapter"
    needs: ClassVar[frozenset[Need]] = frozenset({"blocks", "linears"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> AdapterAttached:
        """Put adapters into a loaded base; raises `RecipeError` where its blocks have no place for them."""
        options = self.options
        try:
            layers = find_layers(base.model, options.placement)
        except ValueError as error:
            raise RecipeError(
                f"no adapter can be put into this base: {error}",
                where="method",
                fix="choose method: lora, or placement: pfeiffer where attention is what differs",
                code="no_such_pair",
            ) from None
        config = BottleneckConfig(options.placement, options.bottleneck, options.activation)
        return AdapterAttached(base, Adapted(base.model, layers, config), base.head)
