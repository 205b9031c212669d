"""Weights into a stock transformers class, and what must not be missing afterwards."""

import copy
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from tailor.bases.folders import ADAPTER_WEIGHTS, weights_file
from tailor.bases.loading import Source, explained
from tailor.core.errors import BaseError, MissingExtra

PREFIXES = ("base_model.model.", "base_model.")
"""How PEFT begins the names of the base's own weights: under adapters, and under virtual tokens."""


def load_weights(source: Source, model_class: Any, dtype: torch.dtype, **settings: Any) -> tuple[Any, list[str]]:
    """The model in `dtype`, and the names of parameters that its checkpoint did not hold.

    Adapters in the source are merged in fp32, then cast: a merge in low precision loses them (PEFT #1836).
    """
    if source.weightless:
        return without_weights(source, model_class, dtype, settings), []
    source.verify()
    if source.options.quantize:
        settings |= {"quantization_config": four_bits(source, dtype)}
    first = torch.float32 if source.merged else dtype
    with explained(source.name):
        model, info = model_class.from_pretrained(
            source.location,
            dtype=first,
            use_safetensors=True,
            output_loading_info=True,
            **source.hub_options(),
            **settings,
        )
    missing = {*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", []))}
    for adapter in source.merged:
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        with explained(source.name), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a head of another size is counted as new below
            model = merged(model, Path(adapter))
        missing -= {name for name, shape in brought_along(Path(adapter)).items() if shapes.get(name) == shape}
    if source.merged:
        cast_parameters(model, dtype)
    if source.kept:  # laid on once the model has its head
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        missing -= {name for name, shape in brought_along(source.kept).items() if shapes.get(name) == shape}
    return model, sorted(missing)


def without_weights(source: Source, model_class: Any, dtype: torch.dtype, settings: Mapping[str, Any]) -> Any:
    """The model as its config describes it, on the meta device: shapes and dtypes, and not a byte of weights."""
    config = copy.deepcopy(source.config)
    for key in sorted(settings.keys() - {"ignore_mismatched_sizes"}):
        setattr(config, key, settings[key])
    with torch.device("meta"), explained(source.name):
        return model_class.from_config(config, dtype=dtype, trust_remote_code=source.options.trust_remote_code)


def merged(model: Any, adapter: Path) -> Any:
    """A model with an adapter merged in, also where that was made on the bare trunk or under another head.

    PEFT goes by names: a trunk's weights are called otherwise in a model with a head, and what finds no place is only
    warned of, so that nothing would be merged in silence.
    """
    held = load_file(adapter / ADAPTER_WEIGHTS)
    renamed = _renamed(set(held), {name for name, _ in model.named_modules()}, model.base_model_prefix)
    if not renamed:
        return PeftModel.from_pretrained(model, str(adapter), ignore_mismatched_sizes=True).merge_and_unload()
    config = PeftConfig.from_pretrained(str(adapter))
    config.task_type = config.modules_to_save = None  # the head stays behind: it is another one
    config.target_modules = {_path(name) for name in renamed.values()}
    tuned = get_peft_model(model, config)
    found = set_peft_model_state_dict(tuned, {new: held[old] for old, new in renamed.items()})
    lost = [key for key in found.unexpected_keys if "modules_to_save" not in key]
    if lost:
        raise BaseError(f"the adapter does not fit this model: {len(lost)} weights have no place", where=str(adapter))
    return tuned.merge_and_unload()


def _renamed(held: set[str], modules: set[str], prefix: str) -> dict[str, str]:
    """Names in an adapter's file -> as this model calls them; empty where they fit as they are.

    Args:
        modules: the model's modules; prefix: what its trunk is called in a model with a head.
    """
    parts = {key: key.removeprefix(PREFIXES[0]) for key in held if ".lora_" in key or ".ia3_" in key}
    paths = {key: _path(name) for key, name in parts.items()}
    if not paths or any(path in modules for path in paths.values()):
        return {}
    if any(f"{prefix}.{path}" in modules for path in paths.values()):
        return {key: f"{PREFIXES[0]}{prefix}.{parts[key]}" for key in parts}
    bare = {key: path.partition(".")[2] for key, path in paths.items()}
    return {key: f"{PREFIXES[0]}{parts[key].partition('.')[2]}" for key, path in bare.items() if path in modules}


def _path(name: str) -> str:
    """The module that a weight of an adapter belongs to."""
    return re.split(r"\.(?:lora|ia3)_", name.removeprefix(PREFIXES[0]))[0]


def four_bits(source: Source, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with quantised constants, computed in `dtype` (QLoRA, Dettmers et al. 2023); raises where it cannot be had."""
    if source.merged:
        raise BaseError(
            "an adapter cannot be merged into 4-bit weights",
            where=source.name,
            fix="leave out base.quantize, or name the base that the adapter was made on",
            code="not_mergeable",
        )
    if not is_bitsandbytes_available():
        raise MissingExtra("bitsandbytes", "quant")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def cast_parameters(model: Any, dtype: torch.dtype) -> None:
    """Cast weights and leave buffers: rotary frequencies rounded to bf16 are another position code."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def brought_along(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Whole parameters in an adapter's file, by name, with their shapes: a head trained beside it."""
    with safe_open(adapter / weights_file(adapter), framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {
        name.removeprefix(next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")): shape
        for name, shape in shapes.items()
    }


def without_silent_gaps(name: str, missing: list[str]) -> None:
    """Raise where weights would be left at random without anyone noticing."""
    if missing:
        raise BaseError(
            f"the checkpoint lacks {len(missing)} weights, {missing[0]} among them: they would be left at random",
            where=name,
            fix="name a complete checkpoint",
        )
