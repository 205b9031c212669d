"""A pipeline from its folder and back: loaded with its adapters, drawn with, and its adapters written as diffusers has
them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tailor.bases.denoisers import Denoiser, kind_of
from tailor.bases.folders import LORA_OF_PIPELINE, WORDS_OF_PIPELINE
from tailor.bases.loading import Source, explained
from tailor.bases.noising import Noising
from tailor.bases.with_diffusers import DiffusionPipeline, diffusers
from tailor.core.errors import BaseError
from tailor.nn.words import GrownTable

AT_ONCE = 4
"""Pictures drawn together: the memory of more would be large, and the time for each hardly less."""
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
PEFT_PREFIX = "base_model.model."
OTHERS_SCALE = "lora_adapter_metadata"
"""What diffusers writes into the head of a LoRA's file where its scale is not 1."""


@dataclass(frozen=True)
class Weights:
    """A loaded pipeline, what kind of denoiser it has, what that was trained to tell, and the words learned beside it."""

    pipeline: Any
    kind: Denoiser
    noising: Noising
    words: dict[str, str]


def load_pipeline(source: Source, dtype: torch.dtype) -> Weights:
    """A pipeline with every part frozen and its adapters on it, LoRA merged in fp32; the autoencoder stays in fp32.

    What checks pictures for a service (a safety checker) is left out: nothing is shown to anyone here.
    """
    source.verify()
    empty = [part for part, kind in source.config.items() if isinstance(kind, list) and kind[0] is None]
    left_out = [part for part in LEFT_OUT if part in source.config] + empty
    with explained(source.location):
        pipeline = DiffusionPipeline.from_pretrained(
            source.location,
            dtype=torch.float32 if source.adapters else dtype,
            use_safetensors=True,
            **dict.fromkeys(left_out),
        )
    words: dict[str, str] = {}
    for folder in source.adapters:
        words |= lay_on(pipeline, Path(folder))
    pipeline.set_progress_bar_config(disable=True)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to(torch.float32 if name == "vae" else dtype)
    return Weights(pipeline, kind_of(pipeline), Noising(pipeline.scheduler), words)


def lay_on(pipeline: Any, folder: Path) -> dict[str, str]:
    """Merge a LoRA, or add learned words; returns the words of captions that learned tokens stand for."""
    if (folder / LORA_OF_PIPELINE).exists():
        pipeline.load_lora_weights(str(folder), weight_name=LORA_OF_PIPELINE)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        return {}
    tokens = set()
    for part, file in word_files(folder):
        tokens |= set(stored_tokens(file))
        tokenizer = getattr(pipeline, part.replace("text_encoder", "tokenizer"))
        pipeline.load_textual_inversion(
            str(folder), weight_name=file.name, tokenizer=tokenizer, text_encoder=getattr(pipeline, part)
        )
    if not tokens:
        raise BaseError("this folder holds no adapter that diffusers knows", where=str(folder))
    return {token.strip("<>"): token for token in tokens}


def word_files(folder: Path) -> list[tuple[str, Path]]:
    """Text encoders and the files of their learned words."""
    names = {"text_encoder": WORDS_OF_PIPELINE}
    names |= {f"text_encoder_{number}": f"learned_embeds_{number}.safetensors" for number in (2, 3)}
    return [(part, folder / name) for part, name in names.items() if (folder / name).exists()]


def stored_tokens(file: Path) -> list[str]:
    """The tokens that a file of learned words holds."""
    with safe_open(file, framework="pt") as stored:
        return list(stored.keys())


def spelled(text: str, words: Mapping[str, str]) -> str:
    """A text with the tokens that were learned in the place of the words that they stand for."""
    for word, token in words.items():
        text = re.sub(rf"(?<![\w<]){re.escape(word)}(?![\w>])", token, text, flags=re.IGNORECASE)
    return text


@torch.no_grad()
def paint(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    device: torch.device,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    side: int | None = None,
) -> list[Any]:
    """PIL pictures, one for each prompt and seed; what is None is the pipeline's own."""
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "height": side, "width": side}
    settings = {name: value for name, value in asked.items() if value is not None}
    modes = [(part, part.training) for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    for part, _ in modes:
        part.to(device).eval()
    found: list[Any] = []
    for start in range(0, len(prompts), AT_ONCE):
        some = list(prompts[start : start + AT_ONCE])
        chances = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + AT_ONCE]]
        found += pipeline(prompt=some, generator=chances, **settings).images
    for part, training in modes:
        part.train(training)
    return found


def own_settings(pipeline: str) -> tuple[int, float]:
    """The number of steps and the guidance that a pipeline of diffusers draws with, where it is told neither."""
    asked = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    return int(asked["num_inference_steps"].default), float(asked["guidance_scale"].default)


def write_lora(adapted: Any, folder: Path) -> None:
    """A PEFT model's LoRA as `load_lora_weights` takes it.

    The scale alpha / rank goes into B: the file's format has no sure place for it, and a loader that takes it to be 1
    (diffusers before 0.35, other programs) draws with the trained strength all the same.
    """
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    weights = {}
    for name, value in get_peft_model_state_dict(adapted).items():
        scaled = value.detach().float().cpu() * _strength(layers, name)
        weights[name.removeprefix(PEFT_PREFIX)] = scaled.contiguous()
    save_file(weights, folder / LORA_OF_PIPELINE, metadata={"format": "pt"})


def read_lora(adapted: Any, folder: Path) -> None:
    """Take what `write_lora` wrote over into a PEFT model; raises `ValueError` where it is no LoRA of the same form."""
    file = folder / LORA_OF_PIPELINE
    if not file.exists():
        raise ValueError("it is no LoRA of a pipeline")
    with safe_open(file, framework="pt") as stored:
        if OTHERS_SCALE in (stored.metadata() or {}):
            raise ValueError("its file has a scale of its own, so that another program has written it")
        held = {PEFT_PREFIX + name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    own = get_peft_model_state_dict(adapted)
    other = sorted(name for name in own.keys() | held.keys() if _shape(own.get(name)) != _shape(held.get(name)))
    if other:
        raise ValueError(f"{len(other)} of its weights have no counterpart, {other[0]} among them")
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    set_peft_model_state_dict(adapted, {name: value / _strength(layers, name) for name, value in held.items()})


def _shape(weight: torch.Tensor | None) -> torch.Size | None:
    return None if weight is None else weight.shape


def _strength(layers: Mapping[str, Any], weight: str) -> float:
    """What a weight of a LoRA is multiplied by in its file: B, by the scale of its layer."""
    if ".lora_B" not in weight:
        return 1.0
    (scale,) = layers[weight.partition(".lora_B")[0]].scaling.values()
    return float(scale)


def write_words(token: str, tables: Sequence[GrownTable], folder: Path) -> None:
    """Learned rows of each text encoder, (count, width), under their token."""
    for number, table in enumerate(tables, start=1):
        name = WORDS_OF_PIPELINE if number == 1 else f"learned_embeds_{number}.safetensors"
        save_file({token: table.rows.detach().float().cpu().contiguous()}, folder / name, metadata={"format": "pt"})


def read_words(token: str, tables: Mapping[str, GrownTable], folder: Path) -> None:
    """Take learned rows over into the tables of text encoders; raises `ValueError` where they are another word's."""
    files = dict(word_files(folder))
    if files.keys() != tables.keys():
        raise ValueError("it holds no learned word for each of these text encoders")
    for part, table in tables.items():
        held = load_file(files[part])
        if held.keys() != {token} or held[token].shape != table.rows.shape:
            found = ", ".join(f"{name} with {len(rows)} embeddings" for name, rows in held.items())
            raise ValueError(f"it holds {found} and not {token} with {len(table.rows)}")
        table.rows.data.copy_(held[token])
