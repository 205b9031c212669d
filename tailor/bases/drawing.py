"""A pipeline from its folder and back: loaded with its adapters, drawn with, and its adapters written as diffusers has
them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from tailor.bases.denoisers import Denoiser, kind_of
from tailor.bases.loading import LORA_OF_PIPELINE, WORDS_OF_PIPELINE, Source, explained
from tailor.bases.noising import Noising
from tailor.bases.with_diffusers import DiffusionPipeline
from tailor.core.errors import BaseError
from tailor.nn.words import GrownTable

AT_ONCE = 4
"""Pictures drawn together: the memory of more would be large, and the time for each hardly less."""
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
PEFT_PREFIX = "base_model.model."


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


def write_lora(adapted: Any, folder: Path) -> None:
    """A PEFT model's LoRA as `load_lora_weights` takes it.

    The scale alpha / rank goes into B: the file's format has no sure place for it, and a loader that takes it to be 1
    (diffusers before 0.35, other programs) draws with the trained strength all the same.
    """
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    weights = {}
    for name, value in get_peft_model_state_dict(adapted).items():
        scale = 1.0
        if ".lora_B" in name:
            (scale,) = layers[name.partition(".lora_B")[0]].scaling.values()
        weights[name.removeprefix(PEFT_PREFIX)] = (value.detach().float().cpu() * scale).contiguous()
    save_file(weights, folder / LORA_OF_PIPELINE, metadata={"format": "pt"})


def write_words(token: str, tables: Sequence[GrownTable], folder: Path) -> None:
    """Learned rows of each text encoder, (count, width), under their token."""
    for number, table in enumerate(tables, start=1):
        name = WORDS_OF_PIPELINE if number == 1 else f"learned_embeds_{number}.safetensors"
        save_file({token: table.rows.detach().float().cpu().contiguous()}, folder / name, metadata={"format": "pt"})
