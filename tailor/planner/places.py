"""Where a run could take place: this machine, a card that is named, or so much memory."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tailor.core.errors import RecipeError

CARDS = Path(__file__).with_name("cards.json")
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([GMT])i?B?)\s*", re.IGNORECASE)
UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
GPU_BASELINE = int(0.8 * 2**30)
"""What CUDA's context and libraries take for themselves (0.5 to 0.8 GB)."""
SLACK = 0.95
"""The share of a device's memory that can be used before fragments of it are in the way."""
USED = 0.35
"""The share of a card's peak that training reaches: .33 to .41 in published runs on H100 (torchtitan, NeMo)."""


@dataclass(frozen=True)
class Spot:
    """A device with its memory in bytes, its peak in FLOP/s (None: not known), and where that is published."""

    name: str
    title: str
    memory: int
    precision: Literal["fp32", "bf16", "fp16"]
    peak: float | None = None
    source: str = ""

    @property
    def room(self) -> float:
        """Bytes that a run may take there above an empty process."""
        return SLACK * self.memory - GPU_BASELINE

    def seconds(self, operations: float) -> float | None:
        """How long so many floating-point operations take."""
        return None if self.peak is None else operations / (USED * self.peak)


def cards() -> list[Spot]:
    """Common cards, by memory."""
    entries = json.loads(CARDS.read_text(encoding="utf-8"))
    found = [
        Spot(
            entry["name"],
            entry["title"],
            entry["memory_gib"] * 2**30,
            entry["precision"],
            entry["tflops"] * 1e12,
            entry["source"],
        )
        for entry in entries
    ]
    return sorted(found, key=lambda spot: spot.memory)


BYTES = {
    "cpu": {"full": 28, "lora": 4},
    "gpu": {"full": 16, "lora": 2},
}
"""Bytes for each of a base's parameters before any activation. Full: weights, gradients and two moments in fp32, and on a
CPU, where they lie in the same memory, the best weights so far and a checkpoint's copy of the moments. LoRA: the weights."""
ALLOWANCE = 2 * 2**30
"""What activations, adapters and libraries are given beside that; `tailor plan` traces them."""


def methods_that_fit(parameters: int, kind: str, memory: int) -> list[str]:
    """Which of full fine-tuning and LoRA a device has the memory for, by the weights alone; the costlier first."""
    each = BYTES["cpu" if kind == "cpu" else "gpu"]
    return [name for name, size in each.items() if parameters * size + ALLOWANCE <= SLACK * memory]


def parse_memory(text: str) -> int:
    """`24GB` in bytes; raises `RecipeError`."""
    match = SIZE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise RecipeError(f"{text!r} is no amount of memory", where="--memory", fix="e.g. --memory 24GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def stated(gpu: str | None, memory: str | None) -> Spot | None:
    """The device that the user has in mind; None for this machine. Raises `RecipeError` for a card nobody knows."""
    size = parse_memory(memory) if memory else None
    if gpu is None:
        return None if size is None else Spot("stated", f"a GPU of {size / 2**30:.0f} GB", size, "bf16")
    known = {spot.name: spot for spot in cards()}
    spot = known.get(gpu.lower().replace(" ", "").replace("_", "-"))
    if spot is None:
        raise RecipeError(
            f"there is no card named {gpu!r} in the table",
            where="--gpu",
            fix=f"one of {', '.join(known)}; or --memory 24GB alone",
            code="unknown_name",
        )
    return spot if size is None else Spot(spot.name, spot.title, size, spot.precision, spot.peak, spot.source)
