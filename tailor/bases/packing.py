"""Whether a base can be packed exactly is measured, never listed.

Two short rows are run apart, by the stock implementation, and packed into one. Linear-attention hybrids carry state across
the boundary in silence, models with attention sinks or soft caps need more than the segments know: all of that shows here.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tailor.nn.segments import SEGMENTS, attention_with_segments, pack

Mode = Literal["segments", "positions", "padded"]
"""Attention per segment; the stock implementation told by restarting positions; rows of a padded batch."""

IMPLEMENTATION = "tailor_segments"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of logits, in units of their standard deviation, that rounding alone explains in each dtype."""

AttentionInterface.register(IMPLEMENTATION, attention_with_segments(ALL_ATTENTION_FUNCTIONS["sdpa"]))
AttentionMaskInterface.register(IMPLEMENTATION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@dataclass(frozen=True)
class Packing:
    """What the measurement found: the mode to use, the difference it left, and how long a segment it holds for."""

    mode: Mode
    difference: float
    longest_segment: int | None = None

    def mode_for(self, lengths: tuple[int, ...]) -> Mode:
        """The mode for one pack: segments know no sliding window, so longer ones are left to the stock implementation."""
        too_long = self.longest_segment is not None and max(lengths) > self.longest_segment
        return "positions" if self.mode == "segments" and too_long else self.mode


def packed_inputs(ids: torch.Tensor, positions: torch.Tensor, lengths: tuple[int, ...], mode: Mode) -> dict[str, Any]:
    """Forward arguments for one pack. The 4-D mask is handed on as it is, which spares the dense T x T one."""
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    if mode == "segments":
        inputs |= {SEGMENTS: lengths, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}
    return inputs


@torch.no_grad()
def measure(model: Any) -> Packing:
    """Try segments, then positions, against the two rows apart; leaves the model with the attention of what it found."""
    config = model.config.get_text_config()
    stock = model.config._attn_implementation
    rows = _probe_rows(config)
    was_training = model.training
    model.eval()
    apart = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    tolerance = TOLERANCE.get(apart.dtype, 1e-4)
    found = Packing("padded", float("inf"))
    modes: list[Mode] = ["segments", "positions"] if stock == "sdpa" else ["positions"]
    for mode in modes:
        difference = _difference(model, rows, apart, mode, stock)
        if difference <= tolerance:
            found = Packing(mode, difference, _window(config) if mode == "segments" else None)
            break
        found = Packing("padded", difference)
    model.set_attn_implementation(IMPLEMENTATION if found.mode == "segments" else stock)
    model.train(was_training)
    return found


def _probe_rows(config: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, config.vocab_size, (length,), generator=generator) for length in (11, 17)]


def _difference(model: Any, rows: list[torch.Tensor], apart: torch.Tensor, mode: Mode, stock: str) -> float:
    model.set_attn_implementation(IMPLEMENTATION if mode == "segments" else stock)
    ids, positions, lengths = pack([row.tolist() for row in rows])
    try:
        packed = model(**packed_inputs(ids, positions, lengths, mode), use_cache=False).logits[0]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        # A forward that does not take these arguments is one that cannot be packed this way.
        return float("inf")
    return float((packed.float() - apart.float()).abs().max() / apart.float().std())


def _window(config: Any) -> int | None:
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    known = [window for window in windows if isinstance(window, int)]
    return min(known) if known else None
