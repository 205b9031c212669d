"""LoRA on Stable Diffusion with nothing between you and torch, diffusers and peft.

The no-abstraction twin of `tailor/engine/loop.py` with `tailor/bases/diffusion.py` and `tailor/methods/lora.py`: the same
pictures in the same order, the same noise and timesteps, the same loss, and so the same losses to the last digits that
rounding leaves (the tests hold both against each other).

    python examples/plain_diffusion_lora.py BASE FOLDER OUTPUT

BASE is a hub id or a folder of a Stable Diffusion 1.x or 2.x pipeline, FOLDER holds pictures and metadata.jsonl with one
{"file_name": ..., "text": ...} per line. OUTPUT/pytorch_lora_weights.safetensors is what `load_lora_weights` takes.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch.nn.functional import mse_loss


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; Tailor's names for them stand in `tailor/recipe/train.py` and `tailor/recipe/methods.py`."""

    steps: int = 100
    examples_per_batch: int = 4
    learning_rate: float = 1e-4
    rank: int = 16
    alpha: float = 32
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Shown:
    """A picture's pixels (3, side, side) in -1..1, its caption, and an id by their content."""

    id: str
    pixels: torch.Tensor
    caption: str


def read(folder: Path, side: int) -> list[Shown]:
    """Every picture upright, scaled to cover a square and cut in the middle."""
    found = []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        file = folder / row["file_name"]
        content = {"caption": row["text"], "image": hashlib.sha256(file.read_bytes()).hexdigest()}
        name = hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()[:16]
        picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        factor = side / min(picture.size)
        width, height = (max(side, round(length * factor)) for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        cut = picture.resize((width, height), Image.Resampling.LANCZOS).crop((left, top, left + side, top + side))
        found.append(Shown(name, torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 127.5 - 1, row["text"]))
    return found


def chance(settings: Settings, epoch: int, shown: Shown, purpose: str) -> torch.Generator:
    """Chance that is a function of the seed, the epoch, the picture and what it is for."""
    text = "\n".join([str(settings.seed), str(epoch), shown.id, purpose])
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1)


def batch_of(settings: Settings, step: int, count: int) -> tuple[int, list[int]]:
    """Which epoch a step is in, and which pictures it sees: each epoch in an order of its own."""
    per_epoch = -(-count // settings.examples_per_batch)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([settings.seed, epoch]).permutation(count).tolist()
    return epoch, order[place * settings.examples_per_batch : (place + 1) * settings.examples_per_batch]


def loss_of(
    settings: Settings, pipeline: Any, unet: Any, schedule: DDPMScheduler, epoch: int, batch: list[Shown]
) -> torch.Tensor:
    """The mean squared error of the noise (or v) that the U-Net tells of noisy latents."""
    scale = pipeline.vae.config.scaling_factor
    with torch.no_grad():
        spread = pipeline.vae.encode(torch.stack([one.pixels for one in batch])).latent_dist
        drawn = [torch.randn(spread.mean[0].shape, generator=chance(settings, epoch, one, "latents")) for one in batch]
        latents = (spread.mean + spread.std * torch.stack(drawn)) * scale
        states = pipeline.encode_prompt([one.caption for one in batch], torch.device("cpu"), 1, False)[0]
    shape, steps = latents[0].shape, schedule.config.num_train_timesteps
    noise = torch.stack([torch.randn(shape, generator=chance(settings, epoch, one, "noise")) for one in batch])
    shares = [torch.rand((), generator=chance(settings, epoch, one, "timestep"), dtype=torch.float64) for one in batch]
    timesteps = torch.tensor([int(share * steps) for share in shares])
    noisy = schedule.add_noise(latents, noise, timesteps)
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    return mse_loss(unet(noisy, timesteps, encoder_hidden_states=states).sample, target)


def train(base: str, folder: Path, settings: Settings) -> tuple[Any, list[float]]:
    """The U-Net with its LoRA, and the loss of every step."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32, safety_checker=None)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.requires_grad_(False).eval()
    shown = read(folder, pipeline.unet.config.sample_size * pipeline.vae_scale_factor)
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    maps = (torch.nn.Linear, torch.nn.Conv2d)
    targets = [name for name, module in pipeline.unet.named_modules() if isinstance(module, maps)]
    torch.manual_seed(settings.seed)
    unet = get_peft_model(pipeline.unet, LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets))
    learned = [value for value in unet.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=0.0)
    losses = []
    for step in range(settings.steps):
        epoch, indices = batch_of(settings, step, len(shown))
        loss = loss_of(settings, pipeline, unet.train(), schedule, epoch, [shown[index] for index in indices])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1}  loss {losses[-1]:.4f}")
    return unet, losses


def save(unet: Any, settings: Settings, output: Path) -> None:
    """Under diffusers' names, with the scale alpha / rank in B, where every loader finds it."""
    output.mkdir(parents=True, exist_ok=True)
    weights = {
        name.replace("base_model.model.", "unet."): value * (settings.alpha / settings.rank if "lora_B" in name else 1)
        for name, value in get_peft_model_state_dict(unet).items()
    }
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, output / "pytorch_lora_weights.safetensors"
    )


if __name__ == "__main__":
    trained, _ = train(sys.argv[1], Path(sys.argv[2]), Settings())
    save(trained, Settings(), Path(sys.argv[3]))
