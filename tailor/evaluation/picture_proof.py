"""The proof of a tuned pipeline: what a fresh process with stock diffusers tells of fixed noisy latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STOCK = Path(__file__).with_name("stock_pictures.py")


@dataclass(frozen=True)
class PictureRow:
    """One question: a caption, noisy latents (channels, height, width), the timestep, and what is told of sizes."""

    caption: str
    noisy: torch.Tensor
    timestep: float
    sizes: Sequence[int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "caption": self.caption,
            "noisy": self.noisy.tolist(),
            "timestep": self.timestep,
            "sizes": list(self.sizes),
        }


@dataclass(frozen=True)
class PictureProbe:
    """What the fresh process is to load, and what it is asked.

    Args:
        artefact: the folder to prove; base: where stock diffusers finds the base, in which revision.
        under: adapters that belong to the base, innermost first.
    """

    artefact: str
    base: str
    rows: Sequence[PictureRow]
    revision: str = "main"
    under: Sequence[str] = ()
    own_loader: str = ""

    @property
    def script(self) -> Path:
        """The program that answers."""
        return STOCK

    def as_dict(self) -> dict[str, Any]:
        """What the program reads."""
        rows = [row.as_dict() for row in self.rows]
        return {**self.__dict__, "rows": rows, "under": list(self.under), "threads": torch.get_num_threads()}
