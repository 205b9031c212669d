"""Captions and pictures: the base learns to tell the noise that was laid over a picture, given its caption."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.core.contracts import AnswersKind, Base, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Said
from tailor.core.errors import refuse
from tailor.core.examples import Captioned, Features
from tailor.core.noise import NoiseSpec
from tailor.objectives.plain import PlainObjective
from tailor.recipe.objectives import PriorOptions, TextToImageOptions

SUBJECT = "{subject}"


class TextToImage(PlainObjective):
    """Denoising (Ho et al. 2020) or flow matching (Lipman et al. 2023), by whatever target the base was trained for."""

    name: ClassVar[str] = "text_to_image"
    example: ClassVar[type[Captioned]] = Captioned

    def __init__(self, options: TextToImageOptions) -> None:
        super().__init__(options)
        self.subject: str | None = None

    @property
    def answers(self) -> AnswersKind:
        """Pictures."""
        return "image"

    @property
    def output(self) -> OutputSpec:
        """What was added to each noisy picture."""
        options = self.options
        prior = options.prior
        noise = NoiseSpec(
            resolution=None if options.resolution == "auto" else options.resolution,
            buckets=options.buckets,
            crop=options.crop,
            flip=options.flip,
            caption_dropout=options.caption_dropout,
            learn_text=options.text_encoder,
            min_snr=options.min_snr,
            density=options.timesteps,
            prior=_prompts(prior),
            prior_pictures=prior.pictures if prior else 0,
            prior_weight=prior.weight if prior else 0.0,
            prior_steps=prior.steps if prior and prior.steps != "auto" else None,
            prior_guidance=prior.guidance if prior and prior.guidance != "auto" else None,
            once=options.crop != "random" if options.once == "auto" else options.once,
        )
        return OutputSpec("noise", noise=noise)

    def meet(self, base: Base) -> None:
        """Take the word for the one subject of all pictures, where there is one."""
        self.subject = base.options.subject

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Captioned:
        """`image`, a path, and `caption`, or none where all pictures are of one subject."""
        caption = row["caption"]
        if caption is None:
            subject = self.subject or Path(row["image"]).parent.name.replace("_", " ")
            caption = self.options.caption.replace(SUBJECT, subject)
        if not str(caption).strip():
            raise refuse("no_caption", "the caption is empty")
        return Captioned(id=seat.id, origin=seat.origin, image=row["image"], caption=str(caption).strip())

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """The mean squared error of each row over all of its numbers, weighted, summed; an example counts as one."""
        errors = squared_error(outputs.logits, batch.targets)
        return LossSum((errors * batch.weights).sum(), float(len(batch.parts)))

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> list[float]:
        """The squared error at each timestep."""
        return [float(error) for error in squared_error(logits, targets)]

    def conclude(self, examples: Sequence[Captioned], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """The mean error of each picture; what is drawn for its caption is asked for apart."""
        return [
            Said(example.caption, None, nll=sum(errors), tokens=len(errors))
            for example, (errors,) in zip(examples, measured, strict=True)
        ]


def _prompts(prior: PriorOptions | None) -> tuple[str, ...]:
    if prior is None:
        return ()
    return (prior.prompt,) if isinstance(prior.prompt, str) else tuple(prior.prompt)


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(rows,) means over channels and places, in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
