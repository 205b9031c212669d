"""Bottleneck adapters: small layers between a frozen model's own, found by its structure, that change nothing at the start.

Houlsby et al. 2019 ("Parameter-Efficient Transfer Learning for NLP") put one after attention and one after the feed-forward
layers of every block; Pfeiffer et al. 2021 ("AdapterFusion") the latter alone.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

CONFIG_FILE, WEIGHTS_FILE = "adapter.json", "adapter.safetensors"
MARK = ".bottleneck."
"""Between the name of the layer that an adapter follows and that of the adapter's own weight."""

Placement = Literal["houlsby", "pfeiffer"]
ACTIVATIONS = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU, "tanh": torch.nn.Tanh}


@dataclass(frozen=True)
class BottleneckConfig:
    """Where adapters stand, how narrow they are, and the function between their two layers."""

    placement: Placement
    bottleneck: int
    activation: str


class Bottleneck(torch.nn.Module):
    """x + up(f(down(x))) for x (..., width), with `up` zero at the start; computed in its own fp32 outside of autocast."""

    def __init__(self, width: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.down = torch.nn.Linear(width, config.bottleneck)
        self.activation = ACTIVATIONS[config.activation]()
        self.up = torch.nn.Linear(config.bottleneck, width)
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The same shape and dtype."""
        narrow = self.activation(self.down(states.to(self.down.weight.dtype)))
        changed: torch.Tensor = states + self.up(narrow).to(states.dtype)
        return changed


class Adapted(torch.nn.Module):
    """A model with an adapter behind some of its layers, which keep their names: hooks put the adapters in between.

    Args:
        model: the model, left as it is.
        layers: names of the layers that an adapter follows.
    """

    def __init__(self, model: Any, layers: Iterable[str], config: BottleneckConfig) -> None:
        super().__init__()
        self.model = model
        self.bottleneck_config = config
        self.enabled = True
        self.bottlenecks = torch.nn.ModuleDict()
        for name in layers:
            layer = model.get_submodule(name)
            width = _width(layer) if _is_linear(layer) else model.config.get_text_config().hidden_size
            adapter = Bottleneck(width, config).to(next(layer.parameters()).device)
            self.bottlenecks[name.replace(".", "/")] = adapter  # a module's name has no dots
            layer.register_forward_hook(self._behind(adapter))

    def _behind(self, adapter: Bottleneck) -> Any:
        def follow(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            if not self.enabled:
                return output
            # Some mixtures of experts give what their router said as well.
            return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

        return follow

    def get_output_embeddings(self) -> Any:
        """The model's output layer."""
        return self.model.get_output_embeddings()

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    def forward(self, **inputs: Any) -> Any:
        """The model's outputs, its layers adapted."""
        return self.model(**inputs)

    def generate(self, **inputs: Any) -> Any:
        """The model's own generation, its layers adapted."""
        return self.model.generate(**inputs)

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The model as it is without adapters, its head as it was trained."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True

    def adapter_weights(self) -> dict[str, torch.Tensor]:
        """The adapters' weights by the layers that they follow."""
        return {
            f"{name.replace('/', '.')}{MARK}{part}": value
            for name, adapter in self.bottlenecks.items()
            for part, value in adapter.state_dict().items()
        }

    def save(self, folder: Path, head: Iterable[str], extra: Mapping[str, Any]) -> None:
        """One file of weights, those of the head's parameters among them, and one that says what they are."""
        own = dict(self.model.named_parameters())
        weights = self.adapter_weights() | {name: own[name] for name in head}
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, folder / WEIGHTS_FILE)
        settings = {"kind": "bottleneck", **asdict(self.bottleneck_config), **extra}
        (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


@torch.no_grad()
def read_adapter(model: Any, folder: Path) -> Adapted:
    """What `Adapted.save` wrote, on a base; raises `RuntimeError` or `AttributeError` where that has other layers."""
    settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config = BottleneckConfig(settings["placement"], settings["bottleneck"], settings["activation"])
    weights = load_file(folder / WEIGHTS_FILE)
    layers = list(dict.fromkeys(name.partition(MARK)[0] for name in weights if MARK in name))
    adapted = Adapted(model, layers, config)
    for name, own in (adapted.adapter_weights() | dict(model.named_parameters())).items():
        if name in weights:
            own.copy_(weights.pop(name))
    if weights:
        raise RuntimeError(f"it has no place for {next(iter(weights))}")
    return adapted


# --- structure --------------------------------------------------------------------------------------------------------


def find_layers(model: Any, placement: Placement) -> list[str]:
    """Names of the layers that adapters follow, block by block; raises `ValueError` where a block has none.

    A block is an entry of an outermost list of layers. In it, the last layer of each attention that gives the model's
    width ends that attention; the last one outside of attention ends the feed-forward part. Experts have no such layer,
    since each token has its own: there the part of the block that holds them is followed as a whole.
    """
    width = model.config.get_text_config().hidden_size
    found: list[str] = []
    for name, block in _blocks(model):
        attentions = _outermost(block, lambda module: "Attention" in type(module).__name__)
        inside = {id(module) for _, attention in attentions for module in attention.modules()}
        routed = _routed(block)
        ends = [_last(block, prefix, attention, width, set()) for prefix, attention in attentions]
        feedforward = routed or _last(block, "", block, width, inside)
        wanted = [*ends, feedforward] if placement == "houlsby" else [feedforward]
        if not wanted or None in wanted or (placement == "houlsby" and not ends):
            if placement == "houlsby" and not ends:
                raise ValueError(f"the block {name} has no attention that an adapter could follow")
            part = "feed-forward part" if feedforward is None else "attention"
            raise ValueError(f"the {part} of the block {name} ends in no linear layer of width {width}")
        found += [f"{name}.{layer}" for layer in wanted]
    if not found:
        raise ValueError("this model has no list of blocks")
    return found


def _blocks(model: Any) -> list[tuple[str, torch.nn.Module]]:
    """Entries of the outermost module lists that hold linear layers."""
    lists = _outermost(model, lambda module: isinstance(module, torch.nn.ModuleList) and _has_linear(module))
    return [(f"{name}.{place}", block) for name, some in lists for place, block in some.named_children()]


def _routed(block: torch.nn.Module) -> str | None:
    """The name of a block's part that holds experts: a list of alike parts, or weights with a matrix for each."""
    for name, part in block.named_children():
        if any(_is_list_of_experts(module) or _holds_matrices(module) for module in part.modules()):
            return name
    return None


def _is_list_of_experts(module: torch.nn.Module) -> bool:
    alike = isinstance(module, torch.nn.ModuleList) and len(module) > 1 and len({type(part) for part in module}) == 1
    return alike and _has_linear(module)


def _holds_matrices(module: torch.nn.Module) -> bool:
    fused = any(value.ndim == 3 for value in module.parameters(recurse=False))
    return fused and not isinstance(module, torch.nn.Conv1d)


def _outermost(module: torch.nn.Module, wanted: Any, prefix: str = "") -> list[tuple[str, torch.nn.Module]]:
    """Descendants that are wanted and lie in no other that is."""
    found: list[tuple[str, torch.nn.Module]] = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        found += [(full, child)] if wanted(child) else _outermost(child, wanted, f"{full}.")
    return found


def _last(block: torch.nn.Module, prefix: str, part: torch.nn.Module, width: int, without: set[int]) -> str | None:
    """The name, in the block, of a part's last linear layer that gives the model's width."""
    found = None
    for name, module in part.named_modules():
        if _is_linear(module) and _width(module) == width and id(module) not in without:
            found = ".".join(filter(None, (prefix, name)))
    return found


def _has_linear(module: torch.nn.Module) -> bool:
    return any(_is_linear(part) for part in module.modules())


def _is_linear(module: torch.nn.Module) -> bool:
    """A linear layer, or GPT-2's, which keeps its weight the other way round."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _width(layer: Any) -> int:
    """How wide a linear layer's outputs are."""
    return int(layer.out_features if hasattr(layer, "out_features") else layer.nf)
