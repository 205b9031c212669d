"""How a picture's latents are made noisy, what the base is to tell of them, and how much each timestep counts.

All chance is keyed by (seed, epoch, example id) and what it is for, so that neither the batch nor a resume can change it.
"""

import hashlib
from typing import Any, Literal

import torch

from tailor.bases.with_diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, compute_snr
from tailor.core.errors import RecipeError
from tailor.core.noise import NoiseSpec

Key = tuple[int, int, str]
"""Seed, epoch, example id."""


def chance(key: Key, purpose: str) -> torch.Generator:
    """A generator that is a function of the key and of what it is for."""
    digest = hashlib.sha256("\n".join([*map(str, key), purpose]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def share(key: Key, purpose: str) -> float:
    """A number in 0..1."""
    return float(torch.rand((), generator=chance(key, purpose), dtype=torch.float64))


class Noising:
    """The noise schedule that a pipeline was trained on, whatever sampler it comes with.

    `targets`: what is told of a noisy picture: the noise (Ho et al. 2020), v (Salimans & Ho 2022), the clean picture,
    or the flow from it to the noise (Lipman et al. 2023; Esser et al. 2024).
    """

    def __init__(self, sampler: Any) -> None:
        self.flow = type(sampler).__name__.startswith("FlowMatch")
        self.scheduler = (FlowMatchEulerDiscreteScheduler if self.flow else DDPMScheduler).from_config(sampler.config)
        self.targets: Literal["flow", "epsilon", "v_prediction", "sample"] = (
            "flow" if self.flow else self.scheduler.config.prediction_type
        )
        self.steps = int(self.scheduler.config.num_train_timesteps)

    def check(self, spec: NoiseSpec) -> None:
        """Raise where a recipe asks for what this schedule does not have."""
        if spec.min_snr is not None and self.flow:
            raise RecipeError(
                "flow matching has no signal-to-noise ratio to weight by", where="objective.min_snr", fix="leave it out"
            )

    def draw(self, key: Key, density: str) -> int:
        """A place in the schedule, by chance."""
        if density == "logit_normal" or (density == "auto" and self.flow):
            drawn = torch.randn((), generator=chance(key, "timestep"), dtype=torch.float64)
            return min(self.steps - 1, int(torch.sigmoid(drawn) * self.steps))
        return int(share(key, "timestep") * self.steps)

    def timesteps(self, places: torch.Tensor) -> torch.Tensor:
        """What the denoiser is told of places in the schedule, (rows,)."""
        told: torch.Tensor = self.scheduler.timesteps[places] if self.flow else places
        return told

    def noisy(
        self, clean: torch.Tensor, noise: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents and what is to be told of them, both (rows, channels, height, width)."""
        if self.flow:
            sigmas = self.scheduler.sigmas[places].reshape(-1, 1, 1, 1)
            return (1 - sigmas) * clean + sigmas * noise, noise - clean
        laid = self.scheduler.add_noise(clean, noise, places)
        if self.targets == "v_prediction":
            return laid, self.scheduler.get_velocity(clean, noise, places)
        return laid, clean if self.targets == "sample" else noise

    def weights(self, places: torch.Tensor, min_snr: float | None) -> torch.Tensor:
        """(rows,) weights of the squared errors: 1, or by the capped signal-to-noise ratio (Hang et al. 2023, table 1)."""
        if min_snr is None:
            return torch.ones(len(places))
        snr: torch.Tensor = compute_snr(self.scheduler, places)
        capped = snr.clamp(max=min_snr)
        if self.targets == "sample":
            return capped
        return capped / (snr + 1) if self.targets == "v_prediction" else capped / snr.clamp(min=1e-8)
