"""Tiny random pipelines of every kind, in diffusers' own classes, and small pictures of odd sizes."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

KINDS = ("sd", "sdv", "sdxl", "sd3", "flux")
WIDTH = 32


def tokenizer(length: int = 16) -> CLIPTokenizer:
    """CLIP's, with single letters alone."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=length)


def t5_tokenizer() -> T5Tokenizer:
    """T5's, with single letters alone."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    pieces += list("abcdefghijklmnopqrstuvwxyz")
    return T5Tokenizer(vocab=[(piece, -float(number)) for number, piece in enumerate(pieces)], extra_ids=0)


def text_encoder(projecting: bool = False, width: int = WIDTH) -> CLIPTextModel:
    """Two layers of CLIP's text model."""
    known = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(known),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=width,
        bos_token_id=known.bos_token_id,
        eos_token_id=known.eos_token_id,
        pad_token_id=known.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projecting else CLIPTextModel)(config)


def t5_encoder() -> T5EncoderModel:
    """Two layers of T5's encoder."""
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=WIDTH, d_kv=16, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0)
    )


def autoencoder(channels: int = 4) -> AutoencoderKL:
    """Latents of half the side."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        shift_factor=0.1 if channels > 4 else None,
    )


def unet(**more: object) -> UNet2DConditionModel:
    """Two levels."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        **{"cross_attention_dim": WIDTH, **more},
    )


def noise(prediction: str) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def make(kind: str, seed: int = 0) -> DiffusionPipeline:
    """A pipeline of one of `KINDS`, its weights random."""
    torch.manual_seed(seed)
    return {"sd": stable, "sdv": stable_v, "sdxl": stable_xl, "sd3": stable_3, "flux": flux}[kind]()


def stable(prediction: str = "epsilon") -> DiffusionPipeline:
    """Stable Diffusion 1.x."""
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=noise(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_v() -> DiffusionPipeline:
    """Stable Diffusion 2.x."""
    return stable("v_prediction")


def stable_xl() -> DiffusionPipeline:
    """SDXL."""
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(projecting=True),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=noise("epsilon"),
    )


def stable_3() -> DiffusionPipeline:
    """SD3."""
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH,
            out_channels=8,
            pos_embed_max_size=24,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(8),
        text_encoder=text_encoder(projecting=True),
        tokenizer=tokenizer(),
        text_encoder_2=text_encoder(projecting=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def flux() -> DiffusionPipeline:
    """Flux."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(8),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=32,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def saved(kind: str, folder: Path) -> Path:
    """A pipeline's folder."""
    make(kind).save_pretrained(folder)
    return folder


COLOURS = ("red", "green", "blue", "yellow")


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    """A square of some colour on another."""
    shown = Image.new("RGB", size, COLOURS[number % 4])
    ImageDraw.Draw(shown).rectangle(
        (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=COLOURS[(number + 1) % 4]
    )
    return shown


def captioned(
    folder: Path, count: int = 12, sizes: tuple[tuple[int, int], ...] = ((40, 40), (61, 37), (33, 50))
) -> Path:
    """Pictures of odd sizes with captions in metadata.jsonl."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        picture(number, sizes[number % len(sizes)]).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"a wug {COLOURS[number % 4]} {number}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def picture_rows(folder: Path, count: int) -> list[dict[str, str]]:
    """Rows that name pictures by their paths, with captions."""
    folder.mkdir()
    rows = []
    for number in range(count):
        file = folder / f"{number}.png"
        shown = picture(number, (32, 32))
        shown.putpixel((number % 32, number // 32), (0, 0, 0))  # no two alike
        shown.save(file)
        rows.append({"image": str(file), "caption": f"a wug {COLOURS[number % 4]}"})
    return rows
