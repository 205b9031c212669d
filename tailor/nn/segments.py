"""Packing without contamination: several sequences in one row, attention inside each of them only.

A dense T x T mask is slower than padding on CPU (403 against 187 ms, measured), FlexAttention has no backward there
(pytorch #148752), so each segment runs its own causal SDPA: 50 ms for the same work. The gradient is exactly that of
separate sequences; `bases/packing.py` measures it for a base before it is trusted.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tailor.nn.prefix_tree import Forest, tree_attention

SEGMENTS = "segments"
"""The keyword under which a model's forward hands the segment lengths, or a forest, down to its attention."""


SHORT = 256
"""Tokens of a segment from which on a CPU's bf16 attention is as fast as its fp32 one."""
PADDING = 1.25
"""Cells that a padded group may have for each real token."""


def segmented_causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    *,
    window: int | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Causal attention inside each segment.

    Args:
        query: (1, heads, T, d).
        key, value: (1, kv_heads, T, d); kv_heads divides heads.
        lengths: segment lengths that sum to T.
        window: how many positions back a query sees, itself included; None: all of them.

    Returns:
        (1, T, heads, d), as transformers' attention functions do.
    """
    grouped = key.shape[1] != query.shape[1]
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    widened = _widening_pays(query, dtype, lengths)
    if widened:
        query, key, value = query.float(), key.float(), value.float()
    parts = []
    with torch.autocast(kind, enabled=False) if widened else contextlib.nullcontext():
        for q, k, v in zip(*(states.split(list(lengths), dim=2) for states in (query, key, value)), strict=True):
            band = _band(q.shape[2], window, q.device) if window is not None and window < q.shape[2] else None
            parts.append(
                scaled_dot_product_attention(
                    q, k, v, attn_mask=band, is_causal=band is None, scale=scale, dropout_p=dropout, enable_gqa=grouped
                )
            )
    return torch.cat(parts, dim=2).transpose(1, 2).to(dtype).contiguous()


def _widening_pays(query: torch.Tensor, dtype: torch.dtype, lengths: Sequence[int]) -> bool:
    """Whether fp32 is the faster precision: the backward of a CPU's bf16 kernel is what short segments suffer from."""
    if not query.requires_grad or query.device.type != "cpu" or dtype != torch.bfloat16:
        return False
    return sum(length**2 for length in lengths) < SHORT * sum(lengths)


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which keys a query sees, (length, length): itself and the `window - 1` before it."""
    back = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (back >= 0) & (back < window)


def pack(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Sequences laid end to end: ids (1, T), positions (1, T) that restart at every sequence, and their lengths."""
    lengths = tuple(len(sequence) for sequence in sequences)
    ids = torch.tensor([[token for sequence in sequences for token in sequence]], dtype=torch.long)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return ids, positions, lengths


def pad(sequences: Sequence[Sequence[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences padded on the right: values (B, L) and a mask (B, L) made from lengths, never from the padding id."""
    longest = max(len(sequence) for sequence in sequences)
    values = torch.full((len(sequences), longest), fill, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        values[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    return values, mask


def best_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that each group's lengths sum to at most `budget` (one longer item stands alone).

    Best fit, longest first; groups and their members come back in index order, so that equal input gives equal packs.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [slot for slot in range(len(groups)) if room[slot] >= lengths[index]]
        if fitting:
            slot = min(fitting, key=lambda s: (room[s], s))
            groups[slot].append(index)
            room[slot] -= lengths[index]
        else:
            groups.append([index])
            room.append(budget - lengths[index])
    return sorted(sorted(group) for group in groups)


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped for models that must be padded: rows of like length, rows x longest within `budget` cells.

    A group is closed, too, once its padding would pass a quarter of its real tokens: short rows are cheaper by themselves.
    """
    groups: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        cells = (len(groups[-1]) + 1) * lengths[index] if groups else 0
        if groups and cells <= min(budget, (real + lengths[index]) * PADDING):
            groups[-1].append(index)
            real += lengths[index]
        else:
            groups.append([index])
            real = lengths[index]
    return sorted(sorted(group) for group in groups)


def attention_with_segments(stock: Any) -> Any:
    """An attention function for transformers' `AttentionInterface`: by segments or forest if given, else the stock one."""

    def forward(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        layout = kwargs.pop(SEGMENTS, None)
        if layout is None:
            result: tuple[torch.Tensor, torch.Tensor | None] = stock(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
            )
            return result
        how: dict[str, Any] = {"window": kwargs.get("sliding_window"), "scale": scaling, "dropout": dropout}
        if isinstance(layout, Forest):
            return tree_attention(query, key, value, layout.nodes, **how), None
        return segmented_causal_attention(query, key, value, layout, **how), None

    return forward
