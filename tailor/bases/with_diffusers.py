"""diffusers' and Pillow's parts that pipelines are handled with, or one line that says how to install them."""

from tailor.core.errors import MissingExtra

try:
    import diffusers
    from diffusers import (
        DDPMScheduler,
        DiffusionPipeline,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
        SD3Transformer2DModel,
        UNet2DConditionModel,
    )
    from diffusers.training_utils import compute_snr
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as error:
    raise MissingExtra("diffusers", "diffusion") from error

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

__all__ = [
    "DDPMScheduler",
    "DiffusionPipeline",
    "FlowMatchEulerDiscreteScheduler",
    "FluxPipeline",
    "FluxTransformer2DModel",
    "Image",
    "ImageOps",
    "SD3Transformer2DModel",
    "UNet2DConditionModel",
    "UnidentifiedImageError",
    "compute_snr",
    "diffusers",
]
