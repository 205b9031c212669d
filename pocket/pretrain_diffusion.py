"""Make `pocket:diffusion` from drawn scenes: an autoencoder, a text encoder, and a U-Net on both of them, frozen.

Standard diffusers classes, so that the folder is a pipeline like any other. The U-Net predicts v on a noise schedule
that ends in pure noise (Lin et al. 2023, arXiv 2305.08891): with fewer steps to sample, and grounds as dark and as
light as they were drawn.
"""

import copy
import itertools
import json
import math
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy, l1_loss, mse_loss
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pocket.cards import write_card, write_manifest
from pocket.scenes import SIDE, abstract, plain_prompts, scenes
from tailor.core.paths import POCKET, POCKET_FOLDER
from tailor.evaluation.drawings import COLOURS, GROUNDS, NUMBERS, PLACES, SHAPES, read_drawing, shows

SEED = 0
SCENES, ABSTRACTS = 24_000, 4_000
STEPS = {"autoencoder": 3000, "text encoder": 600, "denoiser": 12_000}
BATCH = {"autoencoder": 32, "text encoder": 128, "denoiser": 32}
RATES = {"autoencoder": 3e-3, "text encoder": 1e-3, "denoiser": 2e-3}
LENGTH, WIDTH, CHANNELS = 24, 96, 4
ROUGH = 0.1
"""Noise on the latents that the decoder learns to see through, as a share of their spread: samples are never exact."""
WITHOUT_CAPTION = 0.1
AVERAGED = 0.998
CHECKED = 200
SAMPLING = {"num_inference_steps": 12, "guidance_scale": 3.0}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own kind of tokenizer: the world's words are a token each, any other is spelled."""
    texts = [*plain_prompts(2000, "tokenizer"), *("a drawing of two shapes by a shape",) * 100]
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator(texts, trainer)
    letters = pre_tokenizers.ByteLevel.alphabet()
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = [*sorted(letters), *sorted(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def small_autoencoder() -> AutoencoderKL:
    """Drawings of 32 x 32 as latents of 8 x 8 x 4."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )


def small_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text model, three layers deep."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            pad_token_id=tokenizer.pad_token_id,
            **ends,
        )
    )


def small_unet() -> UNet2DConditionModel:
    """Two levels, 8 x 8 and 4 x 4; at the lower one it attends to itself and to the caption."""
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # heads, whatever its name says
        norm_num_groups=16,
    )


def noise_schedule() -> DDIMScheduler:
    """v-prediction down to pure noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def pixels_of(pictures: list[Image.Image]) -> torch.Tensor:
    """(n, 3, side, side) in -1..1."""
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def batches_of(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of batches, every index once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


def descend(
    parameters: list[torch.nn.Parameter], what: str, steps: int, loss_of: Callable[[int], torch.Tensor]
) -> Iterator[None]:
    """AdamW with warm-up and cosine; yields after every step."""
    optimizer = torch.optim.AdamW(parameters, lr=RATES[what], betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    start, running = time.perf_counter(), math.nan
    for step in range(steps):
        factor = min(1.0, (step + 1) / 50) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = RATES[what] * factor
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"{what} {step + 1}/{steps}  loss {running:.4f}  {time.perf_counter() - start:.0f} s", flush=True)
        yield


def unlike(drawn: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """How unlike two batches of drawings are: in their pixels, and in the steps from one to the next, which are edges."""
    edges = l1_loss(drawn.diff(dim=2), shown.diff(dim=2)) + l1_loss(drawn.diff(dim=3), shown.diff(dim=3))
    return l1_loss(drawn, shown) + mse_loss(drawn, shown) + edges


def fit_autoencoder(pixels: torch.Tensor, steps: int) -> AutoencoderKL:
    """Reconstruct drawings; the latents are drawn a little towards the unit normal."""
    torch.manual_seed(SEED)
    autoencoder = small_autoencoder()
    with torch.no_grad():  # the spread that is drawn from when a picture is encoded stays small
        autoencoder.quant_conv.weight[CHANNELS:] = 0
        autoencoder.quant_conv.bias[CHANNELS:] = -6
    batches = batches_of(len(pixels), BATCH["autoencoder"], SEED)

    def loss_of(_: int) -> torch.Tensor:
        shown = pixels[next(batches)]
        with torch.autocast("cpu", torch.bfloat16):
            latents = autoencoder.encode(shown).latent_dist
            rough = latents.mean + ROUGH * latents.mean.std().detach() * torch.randn_like(latents.mean)
            drawn = autoencoder.decode(rough).sample.float()
        return unlike(drawn, shown) + 1e-6 * latents.kl().mean()

    for _ in descend(list(autoencoder.parameters()), "autoencoder", steps, loss_of):
        pass
    return autoencoder.eval()


@torch.no_grad()
def reconstructed(autoencoder: AutoencoderKL) -> float:
    """The share of unseen drawings that the checker reads as before once they have been through the autoencoder."""
    pictures = [picture for picture, _ in itertools.islice(scenes("reconstruct"), CHECKED)]
    decoded = autoencoder.decode(autoencoder.encode(pixels_of(pictures)).latent_dist.mean).sample
    drawn = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    read = [
        (read_drawing(one), read_drawing(Image.fromarray(other))) for one, other in zip(pictures, drawn, strict=True)
    ]
    alike = [replace(one, centre=(0, 0)) == replace(other, centre=(0, 0)) for one, other in read]
    return sum(alike) / len(alike)


@torch.no_grad()
def latents_of(autoencoder: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Mean latents of many drawings; sets the factor that gives them a standard deviation of 1."""
    parts = [autoencoder.encode(part).latent_dist.mean for part in pixels.split(256)]
    latents = torch.cat(parts)
    autoencoder.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return latents * autoencoder.config.scaling_factor


def asked_of(caption: str) -> list[int]:
    """Which number, colour, shape, ground and side a caption tells, each as a place in its list; past its end: none."""
    words = set(re.findall(r"[a-z]+", caption))
    number = next((count - 1 for word, count in NUMBERS.items() if word in words), 3)
    shape = next((place for place, name in enumerate(SHAPES) if words & {name, f"{name}s", f"{name}es"}), len(SHAPES))
    kinds = (COLOURS, GROUNDS, PLACES)
    named = [next((at for at, name in enumerate(names) if name in words), len(names)) for names in kinds]
    return [number, shape, *named]


def fit_text_encoder(captions: list[str], tokenizer: CLIPTokenizer, steps: int) -> CLIPTextModel:
    """What captions tell is to be read off the state at their end, as CLIP's is read off against pictures.

    Left to learn together with the U-Net it hardly told one caption from another after thousands of steps.
    """
    torch.manual_seed(SEED)
    text_encoder = small_text_encoder(tokenizer)
    sizes = [3, len(SHAPES), len(COLOURS), len(GROUNDS), len(PLACES)]  # as `asked_of` tells them
    heads = torch.nn.ModuleList([torch.nn.Linear(WIDTH, size + 1) for size in sizes])
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    told = torch.tensor([asked_of(caption) for caption in captions])
    batches = batches_of(len(captions), BATCH["text encoder"], SEED)

    def loss_of(_: int) -> torch.Tensor:
        chosen = next(batches)
        states = text_encoder(tokens[chosen]).pooler_output
        return sum(cross_entropy(head(states), told[chosen, place]) for place, head in enumerate(heads))

    for _ in descend([*text_encoder.parameters(), *heads.parameters()], "text encoder", steps, loss_of):
        pass
    return text_encoder.eval()


@torch.no_grad()
def states_of(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """(captions, LENGTH, WIDTH)."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return torch.cat([text_encoder(part).last_hidden_state for part in tokens.split(256)])


def fit_denoiser(latents: torch.Tensor, states: torch.Tensor, steps: int) -> UNet2DConditionModel:
    """The U-Net on latents and the states of their captions, the first of which are those of no caption.

    What is kept is the running mean of its weights.
    """
    torch.manual_seed(SEED)
    unet, schedule = small_unet(), noise_schedule()
    averaged = copy.deepcopy(unet)
    batches = batches_of(len(latents), BATCH["denoiser"], SEED)

    def loss_of(_: int) -> torch.Tensor:
        chosen = next(batches)
        clean = latents[chosen]
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        words = states[torch.where(torch.rand(len(clean)) < WITHOUT_CAPTION, 0, chosen + 1)]
        prediction = unet(schedule.add_noise(clean, noise, timesteps), timesteps, words).sample
        return mse_loss(prediction, schedule.get_velocity(clean, noise, timesteps))

    for step, _ in enumerate(descend(list(unet.parameters()), "denoiser", steps, loss_of)):
        decay = min(AVERAGED, (1 + step) / (10 + step))
        for kept, now in zip(averaged.parameters(), unet.parameters(), strict=True):
            kept.data.lerp_(now.data, 1 - decay)
    return averaged.eval()


def share_right(pipeline: StableDiffusionPipeline, prompts: list[str]) -> float:
    """The share of prompts whose seeded sample passes the checker."""
    pipeline.set_progress_bar_config(disable=True)
    right = 0
    for start in range(0, len(prompts), 20):
        asked = prompts[start : start + 20]
        seeds = [torch.Generator().manual_seed(start + place) for place in range(len(asked))]
        pictures = pipeline(asked, generator=seeds, **SAMPLING).images
        right += sum(shows(picture, prompt)[0] for picture, prompt in zip(pictures, asked, strict=True))
    return right / len(prompts)


def make_diffusion(most_steps: int | None) -> None:
    """Pre-train and save the text-to-image base; `most_steps` bounds the steps of each part, for a quick look."""
    steps = {name: min(count, most_steps or count) for name, count in STEPS.items()}
    shown = list(itertools.islice(scenes(SEED), SCENES))
    captions = [words for _, words in shown]
    pixels = pixels_of([picture for picture, _ in shown])
    rng = random.Random(SEED)
    others = pixels_of([abstract(rng) for _ in range(ABSTRACTS)])
    tokenizer = clip_tokenizer()
    everything = torch.cat([pixels, others])
    autoencoder = fit_autoencoder(everything, steps["autoencoder"])
    text_encoder = fit_text_encoder(captions, tokenizer, steps["text encoder"])
    states = states_of(text_encoder, tokenizer, ["", *captions])
    unet = fit_denoiser(latents_of(autoencoder, pixels), states, steps["denoiser"])
    print(f"{reconstructed(autoencoder):.1%} of drawings are read alike before and after the autoencoder", flush=True)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    right = share_right(pipeline, plain_prompts(CHECKED, "check"))
    print(f"{right:.1%} of {CHECKED} prompts come out right")
    parameters = sum(part.numel() for model in (autoencoder, text_encoder, unet) for part in model.parameters())
    facts = {
        "family": "diffusion",
        "parameters": parameters,
        "context": LENGTH,
        "licence": "Apache-2.0",
        "seed": SEED,
        "steps": steps["denoiser"],
        "pictures": steps["denoiser"] * BATCH["denoiser"],
        "prompts_right": round(right, 4),
        "prompts_checked": CHECKED,
    }
    save(pipeline, facts)


def save(pipeline: StableDiffusionPipeline, facts: dict[str, object]) -> None:
    """Write the pipeline, its card and its manifest to a folder beside the final one, then exchange the two."""
    final = POCKET_FOLDER / POCKET["diffusion"]
    fresh, old = final.with_suffix(".new"), final.with_suffix(".old")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(fresh)
    for weights in Path(fresh).rglob("*.safetensors"):
        weights.chmod(0o644)
    write_card(fresh, facts)
    write_manifest(fresh, facts)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)
