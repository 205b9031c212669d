"""What an objective of pictures asks of a base: how they are shown, and how noise is laid over them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class NoiseSpec:
    """How pictures are shown, and made noisy, to a base that is to tell the noise.

    Args:
        resolution: side of a square of as many pixels as every picture is brought to; None: what the base was made for.
        buckets: keep a picture's shape as nearly as the base can; else all are cut square.
        crop: what is cut off where shapes differ: the same margins, or others every epoch.
        flip: half of the time mirrored.
        caption_dropout: the share of examples that are shown without their caption.
        learn_text: captions are read by text encoders that learn too.
        min_snr: the cap on the signal-to-noise ratio that a timestep's weight grows with (arXiv 2303.09556); None: all
            alike.
        density: how timesteps are drawn; auto: uniform, and logit-normal for flow matching (arXiv 2403.03206).
        prior: prompts whose pictures by the base itself are learned beside each example, so that they stay (DreamBooth,
            arXiv 2208.12242), taken in turn; prior_pictures: how many; prior_weight: of their loss; prior_steps,
            prior_guidance: how they are drawn, None for the pipeline's own way.
        once: keep what frozen encoders make of pictures and captions.
    """

    resolution: int | None = None
    buckets: bool = True
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    caption_dropout: float = 0.0
    learn_text: bool = False
    min_snr: float | None = None
    density: Literal["auto", "uniform", "logit_normal"] = "auto"
    prior: tuple[str, ...] = ()
    prior_pictures: int = 100
    prior_weight: float = 1.0
    prior_steps: int | None = None
    prior_guidance: float | None = None
    once: bool = True
