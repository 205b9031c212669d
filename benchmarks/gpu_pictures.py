"""LoRA on a pipeline of SDXL's shape at 1024², its weights random: `python benchmarks/gpu_pictures.py` (`make bench-gpu`).

Pictures a second and peak memory of Tailor's loop, and of a plain loop that does what diffusers' own
`train_text_to_image_lora_sdxl.py` does with the same settings (the script itself needs torchvision): rank 16 on the
attention's four maps, frozen parts in bf16, adapters in fp32, AdamW; there the autoencoder and the text encoders read
every batch anew. Each measurement is a process of its own. The figures need a CUDA device; without one this says so and
ends.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tailor import compose
from tailor.core.reporting import Reporter
from tailor.engine.loop import fit
from tailor.recipe.recipe import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the tokenizer made there

from tiny_pipelines import noise, tokenizer

RESULTS = Path(__file__).parent / "results" / "gpu_pictures.json"
SIDE, PICTURES, STEPS, WARM = 1024, 16, 30, 5
RANK, TARGETS = 16, ["to_k", "to_q", "to_v", "to_out.0"]
BATCHES = (1, 4)


def text_encoder(kind: type, width: int, layers: int, heads: int, **more: Any) -> Any:
    """CLIP's text model of a size, for the one tokenizer that is made here."""
    known = tokenizer(77)
    ends = {"bos_token_id": known.bos_token_id, "eos_token_id": known.eos_token_id, "pad_token_id": known.pad_token_id}
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    return kind(CLIPTextConfig(**sizes, num_hidden_layers=layers, num_attention_heads=heads, **ends, **more))


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL 1.0 by its published configuration, with random weights."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=0.13025,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=text_encoder(CLIPTextModel, 768, 12, 12),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, 1280, 32, 20, hidden_act="gelu"),
        tokenizer=tokenizer(77),
        tokenizer_2=tokenizer(77),
        unet=unet,
        scheduler=noise("epsilon"),
    )


def pictures(folder: Path, side: int) -> Path:
    """Noise with captions, each picture another."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((side, side)).save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": f"picture number {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def rate(seconds: list[float], batch: int, device: str) -> dict[str, float]:
    """Pictures a second after the warm-up, by the clock at the end of each step, and peak memory in GiB."""
    found = {"pictures_per_second": batch * (len(seconds) - WARM) / (seconds[-1] - seconds[WARM - 1])}
    if device == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def ours(work: Path, batch: int, side: int, device: str) -> dict[str, float]:
    """Tailor's loop: latents and captions are read once, before the first step."""
    latents = batch * (side // 8) ** 2
    values = {
        "base": str(work / "base"),
        "data": {"train": str(work / "pictures"), "dev": 0, "test": 0},
        "objective": {"name": "text_to_image", "resolution": side},
        "method": {"name": "lora", "rank": RANK, "targets": TARGETS, "allow_partial": True},
        "train": {"max_steps": STEPS, "examples_per_batch": batch, "tokens_per_micro_batch": latents},
        "output": str(work / f"run-{batch}"),
    }
    recipe = parse(values)
    prepared = compose.prepare(recipe)
    place = compose.choose_place(recipe, prepared.base.source)
    prepared.recipe = compose.resolved_recipe(prepared, place)
    Path(recipe.output).mkdir()
    job = compose.make_job(prepared, prepared.recipe, place, Path(recipe.output), Reporter(quiet=True))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fit(job)
    lines = (Path(recipe.output) / "timing.jsonl").read_text().splitlines()
    return rate([json.loads(line)["seconds"] for line in lines if "seconds" in line], batch, device)


def plain(work: Path, batch: int, side: int, device: str) -> dict[str, float]:
    """diffusers' classes and peft alone, reading every batch anew."""
    pipeline = DiffusionPipeline.from_pretrained(work / "base", dtype=torch.bfloat16)
    pipeline.vae.float()
    pipeline.to(device)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.unet):
        part.requires_grad_(False)
    unet = get_peft_model(pipeline.unet, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS))
    learned = [weight for weight in unet.parameters() if weight.requires_grad]
    for weight in learned:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(learned, lr=1e-4)
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    shown = [(file, json.loads(line)["text"]) for file, line in _rows(work / "pictures")]
    times = torch.tensor([[side, side, 0, 0, side, side]] * batch, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start, seconds = time.perf_counter(), []
    for step in range(STEPS):
        some = [shown[(step * batch + place) % len(shown)] for place in range(batch)]
        pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file, _ in some])
        pixels = pixels.permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
        with torch.no_grad():
            clean = pipeline.vae.encode(pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
            states, _, pooled, _ = pipeline.encode_prompt(
                [caption for _, caption in some], device=device, do_classifier_free_guidance=False
            )
        drawn, places = torch.randn_like(clean), torch.randint(0, 1000, (batch,), device=device)
        with torch.autocast(device, torch.bfloat16):
            added = {"text_embeds": pooled, "time_ids": times}
            noisy = schedule.add_noise(clean, drawn, places)
            told = unet(noisy, places, encoder_hidden_states=states, added_cond_kwargs=added).sample
            loss = torch.nn.functional.mse_loss(told.float(), drawn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device, as a loop that logs does
        seconds.append(time.perf_counter() - start)
    return rate(seconds, batch, device)


def _rows(folder: Path) -> list[tuple[Path, str]]:
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [(folder / json.loads(line)["file_name"], line) for line in lines]


LOOPS = {"tailor": ours, "plain": plain}


def main() -> None:
    """Every loop with every batch size, each in a process of its own; figures are kept with date and hardware."""
    if not torch.cuda.is_available():
        raise SystemExit("no figures: this measures on a CUDA device, and torch finds none here")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", nargs="*", help="a loop, a batch size and a folder: what the processes are told")
    one = parser.parse_args().one
    if one:
        print(json.dumps(LOOPS[one[0]](Path(one[2]), int(one[1]), SIDE, "cuda")))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdxl().to(dtype=torch.bfloat16).save_pretrained(work / "base")
        pictures(work / "pictures", SIDE)
        for batch in BATCHES:
            for loop in LOOPS:
                asked = [sys.executable, __file__, loop, str(batch), folder]
                done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True)
                found[f"{loop}, batch {batch}"] = json.loads(done.stdout.splitlines()[-1])
                print(loop, batch, found[f"{loop}, batch {batch}"], flush=True)
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    result = {"date": date.today().isoformat(), "machine": machine, "side": SIDE, "figures": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
