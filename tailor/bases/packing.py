"""Whether a base can be packed exactly is measured, never listed.

Rows are run apart, by the stock implementation, then packed into one; what padding does to the same rows shows how much of
a difference rounding alone explains. Linear-attention hybrids carry state across the boundary in silence, others put biases
into their attention that segments know nothing of: all of that shows here, and such a base is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tailor.nn.prefix_tree import Forest, plant
from tailor.nn.segments import SEGMENTS, attention_with_segments, best_fit, by_length, pack, pad

Mode = Literal["segments", "positions", "padded"]
"""Attention per segment; a flash kernel told by restarting positions; rows of a padded batch.

Restarting positions are exact with other stock kernels too, by a dense T x T mask: 2.6 (SDPA) and 6.7 (eager) times slower
than padding on a CPU, measured at 4,500 tokens, so those are padded.
"""

IMPLEMENTATION = "tailor_segments"
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Root-mean-square difference of a token's logits, in units of their standard deviation, that is rounding in each dtype."""

SHORT, LONG = 11, 17
PROBED_WINDOW = 512
"""Sliding windows up to this one are looked past by a longer row; rows beyond a wider window are padded."""

AttentionInterface.register(IMPLEMENTATION, attention_with_segments(ALL_ATTENTION_FUNCTIONS["sdpa"]))
AttentionMaskInterface.register(IMPLEMENTATION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@dataclass(frozen=True)
class Packing:
    """What was found about a base.

    Args:
        mode: how its rows are laid out; difference: what that left of one; reason: why they are padded, if they are.
        longest_segment: how long a row was measured for; None: any.
        rotary_switch: beyond this length LongRoPE turns to other frequencies, for every row of a forward at once.
        shares: whether what rows begin with in common can be run once.
    """

    mode: Mode
    difference: float
    longest_segment: int | None = None
    reason: str = ""
    rotary_switch: int | None = None
    shares: bool = False

    def mode_for(self, lengths: tuple[int, ...]) -> Mode:
        """The mode for one pack: segments longer than what was measured are padded."""
        too_long = self.longest_segment is not None and max(lengths) > self.longest_segment
        return "padded" if too_long else self.mode

    def groups(self, lengths: Sequence[int], budget: int, longest: Sequence[int] = ()) -> list[list[int]]:
        """Indices of each micro-batch, within a budget of tokens; rows that would change each other share none.

        `longest` is each example's longest sequence, where it holds several.
        """
        sides: dict[tuple[bool, bool], list[int]] = {}
        for index, length in enumerate(longest or lengths):
            switched = self.rotary_switch is not None and length > self.rotary_switch
            sides.setdefault((self.mode_for((length,)) == "padded", switched), []).append(index)
        found: list[list[int]] = []
        for (padded, _), side in sides.items():
            fit = by_length if padded else best_fit
            found += [[side[place] for place in group] for group in fit([lengths[index] for index in side], budget)]
        return sorted(found)


def forest_inputs(forest: Forest) -> dict[str, Any]:
    """Forward arguments for one forest."""
    ids, positions = torch.tensor([forest.ids]), torch.tensor([forest.positions])
    return packed_inputs(ids, positions, (), "segments") | {SEGMENTS: forest}


def packed_inputs(ids: torch.Tensor, positions: torch.Tensor, lengths: tuple[int, ...], mode: Mode) -> dict[str, Any]:
    """Forward arguments for one pack. The 4-D mask is handed on as it is, which spares the dense T x T one."""
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    if mode == "segments":
        inputs |= {SEGMENTS: lengths, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}
    return inputs


def drops_out(model: Any) -> bool:
    """Whether something is dropped at random while this model trains, by its layers or by its attention's settings."""
    if not model.training:
        return False
    layers = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())
    settings = model.config.get_text_config().to_dict()
    shares = [value for name, value in settings.items() if "drop" in name and isinstance(value, float)]
    return layers or any(share > 0 for share in shares)


@torch.no_grad()
def measure(model: Any) -> Packing:
    """Hold a pack against its rows run apart; leaves the model with the attention of what was found."""
    stock = model.config._attn_implementation
    config = model.config.get_text_config()
    switch = _rotary_switch(config)
    mode: Mode = "segments" if stock == "sdpa" else "positions" if "flash" in stock else "padded"
    if mode == "padded":
        reason = f"its attention ({stock}) is not one that packs"
        return Packing("padded", float("inf"), reason=reason, rotary_switch=switch)
    if model.device.type == "meta":  # nothing can be measured without weights: a plan takes it that rows can be packed
        model.set_attn_implementation(IMPLEMENTATION if mode == "segments" else stock)
        return Packing(mode, 0.0, rotary_switch=switch, shares=mode == "segments")
    window: int = getattr(config, "sliding_window", None) or 0
    looked_past = 0 < window <= PROBED_WINDOW
    rows = _probe_rows(config, max(LONG, window + window // 2) if looked_past else LONG)
    rows.append(torch.cat([rows[-1][:-SHORT], rows[0]]))  # begins as the one before it
    was_training = model.training
    model.eval()
    apart = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    allowed = max(ROUNDING.get(apart.dtype, 1e-5), 2 * _difference(_padded(model, rows), apart))
    model.set_attn_implementation(IMPLEMENTATION if mode == "segments" else stock)
    difference = _difference(_packed(model, rows, mode), apart)
    shares = mode == "segments" and _difference(_as_forest(model, rows), apart) <= allowed
    model.train(was_training)
    if not difference <= allowed:  # NaN included
        model.set_attn_implementation(stock)
        reason = f"rows side by side change its logits by {difference:.2g} of their spread"
        return Packing("padded", difference, reason=reason, rotary_switch=switch)
    unseen = [getattr(config, "attention_chunk_size", None), 0 if looked_past else window]
    longest = min((limit for limit in unseen if limit), default=None)
    return Packing(mode, difference, longest_segment=longest, rotary_switch=switch, shares=shares)


def _rotary_switch(config: Any) -> int | None:
    rotary = getattr(config, "rope_parameters", None) or {}
    return rotary.get("original_max_position_embeddings") if rotary.get("rope_type") == "longrope" else None


def _probe_rows(config: Any, longest: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, config.vocab_size, (length,), generator=generator) for length in (SHORT, longest)]


def _padded(model: Any, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    ids, mask = pad([row.tolist() for row in rows], fill=0)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.bool()]


def _packed(model: Any, rows: Sequence[torch.Tensor], mode: Mode) -> torch.Tensor | None:
    """The pack's logits; None for a forward that does not take these arguments."""
    try:
        inputs = packed_inputs(*pack([row.tolist() for row in rows]), mode)
        logits: torch.Tensor = model(**inputs, use_cache=False).logits[0]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    return logits


def _as_forest(model: Any, rows: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The logits of rows that share what they begin with, row by row; None for a forward that does not take a forest."""
    forest = plant([row.tolist() for row in rows])
    try:
        logits: torch.Tensor = model(**forest_inputs(forest), use_cache=False).logits[0]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    return torch.cat([logits[forest.places(place)] for place in range(len(rows))])


def _difference(found: torch.Tensor | None, apart: torch.Tensor) -> float:
    """The token that differs most, by the root mean square over its logits, in units of the logits' deviation."""
    if found is None or found.shape != apart.shape:
        return float("inf")
    by_token = (found.float() - apart.float()).square().mean(-1).sqrt()
    return float(by_token.max() / apart.float().std())
