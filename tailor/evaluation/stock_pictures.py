"""A fresh process that loads a tuned pipeline as anyone would, with diffusers and torch alone, and tells noise.

Run as a file with `python -I`, so that nothing of Tailor can be imported: what it finds is what others will get.
Usage: stock_pictures.py PROBE.json OUT.safetensors
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

LORA = "pytorch_lora_weights.safetensors"
WORDS = {
    "text_encoder": "learned_embeds.safetensors",
    "text_encoder_2": "learned_embeds_2.safetensors",
    "text_encoder_3": "learned_embeds_3.safetensors",
}
FLUX_GUIDANCE = 3.5


class Findings:
    """What goes back: tensors by part and row, and what is wrong with the weights."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.tensors: dict[str, torch.Tensor] = {}
        self.report: dict[str, Any] = {"missing": [], "unloaded": [], "unplaced": [], "not_finite": [], "texts": {}}

    @torch.no_grad()
    def run(self, part: str, pipeline: Any) -> None:
        """What the pipeline tells of every row, (channels, height, width)."""
        for index, row in enumerate(self.rows):
            self.tensors[f"{part}/{index}"] = told(pipeline, row)[0].float().contiguous()

    def check(self, pipeline: Any) -> None:
        """Note the weights that are not numbers."""
        for name, part in pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                bad = [weight for weight, value in part.named_parameters() if not value.isfinite().all()]
                self.report["not_finite"] += [f"{name}.{weight}" for weight in bad]


def told(pipeline: Any, row: dict[str, Any]) -> Any:
    """The denoiser's prediction for one row, called as the pipeline itself calls it."""
    noisy, timestep = torch.tensor([row["noisy"]]), torch.tensor([row["timestep"]])
    caption, device = [row["caption"]], torch.device("cpu")
    transformer = getattr(pipeline, "transformer", None)
    if isinstance(transformer, FluxTransformer2DModel):
        return told_by_flux(pipeline, noisy, timestep, caption)
    if isinstance(transformer, SD3Transformer2DModel):
        states, _, pooled, _ = pipeline.encode_prompt(
            caption, caption, caption, device=device, do_classifier_free_guidance=False
        )
        asked = {"hidden_states": noisy, "encoder_hidden_states": states, "pooled_projections": pooled}
        return transformer(timestep=timestep, **asked).sample
    if row["sizes"]:
        states, _, pooled, _ = pipeline.encode_prompt(caption, device=device, do_classifier_free_guidance=False)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([row["sizes"]])}
        return pipeline.unet(noisy, timestep.long(), encoder_hidden_states=states, added_cond_kwargs=added).sample
    states = pipeline.encode_prompt(caption, device, 1, False)[0]
    return pipeline.unet(noisy, timestep.long(), encoder_hidden_states=states).sample


def told_by_flux(pipeline: Any, noisy: torch.Tensor, timestep: torch.Tensor, caption: list[str]) -> Any:
    """Flux packs its latents and takes time in 0..1."""
    states, pooled, text_ids = pipeline.encode_prompt(caption)
    _, channels, height, width = noisy.shape
    guided = pipeline.transformer.config.guidance_embeds
    prediction = pipeline.transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, 1, channels, height, width),
        timestep=timestep / 1000,
        guidance=torch.tensor([FLUX_GUIDANCE]) if guided else None,
        pooled_projections=pooled,
        encoder_hidden_states=states,
        txt_ids=text_ids,
        img_ids=FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32),
    ).sample
    return FluxPipeline._unpack_latents(prediction, height, width, 1)


def load(location: str, revision: str = "main") -> Any:
    """A pipeline in fp32."""
    index = json.loads((Path(location) / "model_index.json").read_text()) if Path(location).is_dir() else {}
    empty = {part: None for part, kind in index.items() if isinstance(kind, list) and kind[0] is None}
    left_out = {
        part: None for part in ("safety_checker", "feature_extractor", "image_encoder") if part in index
    } | empty
    settings = {"dtype": torch.float32, "use_safetensors": True, "revision": revision}
    return DiffusionPipeline.from_pretrained(location, **settings, **left_out)


def load_words(pipeline: Any, folder: Path) -> None:
    """Learned words of every text encoder."""
    for part, name in WORDS.items():
        if (folder / name).exists():
            tokenizer = getattr(pipeline, part.replace("text_encoder", "tokenizer"))
            encoder = getattr(pipeline, part)
            pipeline.load_textual_inversion(str(folder), weight_name=name, tokenizer=tokenizer, text_encoder=encoder)


def prove_lora(pipeline: Any, folder: Path, found: Findings) -> None:
    """The LoRA laid on, then merged; every weight of its file must have found a place."""
    pipeline.load_lora_weights(str(folder), weight_name=LORA)
    held = load_file(str(folder / LORA))
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    layers = {
        f"{name}.{layer}"
        for name, part in parts.items()
        for layer, module in part.named_modules()
        if hasattr(module, "lora_A")
    }
    found.report["unplaced"] = [name for name in held if name.partition(".lora_")[0] not in layers]
    found.check(pipeline)
    found.run("reloaded", pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    found.run("merged", pipeline)


def main(probe_file: str, out: str) -> None:
    """The base, and the artefact by whichever way its files ask for."""
    probe = json.loads(Path(probe_file).read_text())
    torch.set_num_threads(probe["threads"])
    artefact, found = Path(probe["artefact"]), Findings(probe["rows"])
    pipeline = load(probe["base"], probe["revision"])
    for folder in map(Path, probe["under"]):
        if (folder / LORA).exists():
            pipeline.load_lora_weights(str(folder), weight_name=LORA)
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        else:
            load_words(pipeline, folder)
    found.run("base", pipeline)
    if (artefact / LORA).exists():
        prove_lora(pipeline, artefact, found)
    elif (artefact / WORDS["text_encoder"]).exists():
        load_words(pipeline, artefact)
        found.check(pipeline)
        found.run("reloaded", pipeline)
    else:
        tuned = load(str(artefact))
        found.check(tuned)
        found.run("reloaded", tuned)
    save_file(found.tensors, out, metadata={"report": json.dumps(found.report)})


if __name__ == "__main__":
    main(*sys.argv[1:])
