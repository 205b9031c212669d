"""What differs between pipelines: how their denoisers are called, and what they are told of a caption and a picture's size.

One class per kind of denoiser, chosen by the class (and, of U-Nets, the config) that the pipeline holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch

from tailor.bases.pictures import View
from tailor.bases.with_diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tailor.core.errors import BaseError

Told = Mapping[str, torch.Tensor]
"""What a denoiser is told beside the noisy latents, by name, a row each."""

FLUX_GUIDANCE = 3.5
"""The guidance that a guidance-distilled Flux is told while it is trained: diffusers' scripts' own."""


class Denoiser(Protocol):
    """One kind of denoiser; `part` is its name in the pipeline."""

    part: ClassVar[str]

    def read(self, pipeline: Any, captions: Sequence[str], device: torch.device) -> Told:
        """Captions as the pipeline itself encodes prompts."""
        ...

    def sizes(self, view: View) -> list[int]:
        """What it is told of how a picture is shown."""
        ...

    def step(self, denoiser: Any) -> int:
        """What the sides of latents must be multiples of."""
        ...

    def predict(self, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
        """What it says of noisy latents, in their shape."""
        ...


class PlainUNet:
    """Stable Diffusion 1.x and 2.x."""

    part: ClassVar[str] = "unet"

    def read(self, pipeline: Any, captions: Sequence[str], device: torch.device) -> Told:
        """Hidden states of the one text encoder."""
        return {"states": pipeline.encode_prompt(list(captions), device, 1, False)[0]}

    def sizes(self, view: View) -> list[int]:
        """Nothing."""
        return []

    def step(self, denoiser: Any) -> int:
        """Each level but one halves the sides."""
        return int(2 ** (len(denoiser.config.block_out_channels) - 1))

    def predict(self, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
        """The U-Net's sample."""
        prediction: torch.Tensor = model(sample=noisy, timestep=timesteps, encoder_hidden_states=told["states"])
        return prediction


class SizedUNet(PlainUNet):
    """SDXL: two text encoders, and the sizes and cuts that pictures were shown at (Podell et al. 2023, section 2.2)."""

    def read(self, pipeline: Any, captions: Sequence[str], device: torch.device) -> Told:
        """Hidden states of both text encoders side by side, and the second one's pooled state."""
        states, _, pooled, _ = pipeline.encode_prompt(list(captions), device=device, do_classifier_free_guidance=False)
        return {"states": states, "pooled": pooled}

    def sizes(self, view: View) -> list[int]:
        """Height and width of the original, top and left of the cut, height and width shown."""
        (width, height), (left, top) = view.picture.size, view.offset
        return [height, width, top, left, view.size[1], view.size[0]]

    def predict(self, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
        """The U-Net's sample."""
        added = {"text_embeds": told["pooled"], "time_ids": told["sizes"]}
        prediction: torch.Tensor = model(
            sample=noisy, timestep=timesteps, encoder_hidden_states=told["states"], added_cond_kwargs=added
        )
        return prediction


class SD3Transformer(PlainUNet):
    """Stable Diffusion 3: a transformer that is told hidden and pooled states of three text encoders."""

    part: ClassVar[str] = "transformer"

    def read(self, pipeline: Any, captions: Sequence[str], device: torch.device) -> Told:
        """Hidden states of all encoders end to end, and the pooled ones of the first two."""
        prompts = list(captions)
        states, _, pooled, _ = pipeline.encode_prompt(
            prompts, prompts, prompts, device=device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def step(self, denoiser: Any) -> int:
        """Latents are read in patches."""
        return int(denoiser.config.patch_size)

    def predict(self, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
        """The transformer's sample."""
        prediction: torch.Tensor = model(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=told["states"],
            pooled_projections=told["pooled"],
        )
        return prediction


class FluxTransformer(PlainUNet):
    """Flux: latents in packed patches of 2 x 2 with places of their own, time in 0..1; `guided`: distilled with guidance."""

    part: ClassVar[str] = "transformer"

    def __init__(self, guided: bool) -> None:
        self.guided = guided

    def read(self, pipeline: Any, captions: Sequence[str], device: torch.device) -> Told:
        """T5's hidden states and CLIP's pooled one."""
        states, pooled, _ = pipeline.encode_prompt(list(captions), device=device)
        return {"states": states, "pooled": pooled}

    def step(self, denoiser: Any) -> int:
        """Patches."""
        return 2

    def predict(self, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
        """The transformer's sample, unpacked."""
        rows, channels, height, width = noisy.shape
        states, device = told["states"], noisy.device
        prediction = model(
            hidden_states=FluxPipeline._pack_latents(noisy, rows, channels, height, width),
            timestep=timesteps / 1000,
            guidance=torch.full((rows,), FLUX_GUIDANCE, device=device) if self.guided else None,
            pooled_projections=told["pooled"],
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=device),
            img_ids=FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, device, noisy.dtype),
        )
        unpacked: torch.Tensor = FluxPipeline._unpack_latents(prediction, height, width, 1)
        return unpacked


def kind_of(pipeline: Any) -> Denoiser:
    """The kind of a pipeline's denoiser; raises `BaseError` where there is none that we know."""
    unet, transformer = getattr(pipeline, "unet", None), getattr(pipeline, "transformer", None)
    if isinstance(unet, UNet2DConditionModel):
        if unet.config.in_channels != unet.config.out_channels:
            raise BaseError("this U-Net takes more than noisy latents (inpainting, say)", where=type(pipeline).__name__)
        return SizedUNet() if unet.config.addition_embed_type == "text_time" else PlainUNet()
    if isinstance(transformer, SD3Transformer2DModel):
        return SD3Transformer()
    if isinstance(transformer, FluxTransformer2DModel):
        return FluxTransformer(bool(transformer.config.guidance_embeds))
    raise BaseError(
        f"a {type(pipeline).__name__} has no denoiser that can be trained here",
        where=type(pipeline).__name__,
        fix="Stable Diffusion 1.x, 2.x, XL and 3, and Flux can",
    )
