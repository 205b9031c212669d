"""How likely a few endings are after many prompts: what prompts share is computed once, each prompt's own part once.

The keys and values of the shared part (instruction and demonstrations) are computed for one row and laid under all; those of
a prompt's rest once for all of its endings. `tests/test_prompt_likelihoods.py` holds it to the plain forward of whole rows.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

Ids = Sequence[int]


@torch.no_grad()
def ending_nats(
    model: Any, prompts: Sequence[Ids], endings: Sequence[Ids], device: torch.device, budget: int
) -> np.ndarray:
    """Summed log-likelihoods of endings after prompts, (prompts, endings), in nats.

    Args:
        prompts: token ids; equal ones are computed once. endings: token ids, the same for every prompt, none empty.
        budget: tokens held in memory at once, keys and values of what is shared counted for every row.
    """
    distinct = sorted({tuple(prompt) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))
    shared = _shared(distinct)
    under = _keys_and_values(model, list(distinct[0][:shared]), device) if shared else None
    found: dict[tuple[int, ...], np.ndarray] = {}
    for rows in _groups(distinct, shared, budget):
        rests = [list(row[shared:]) for row in rows]
        found |= zip(rows, _of_rows(model, rests, endings, under, shared, device, budget), strict=True)
    return np.stack([found[tuple(prompt)] for prompt in prompts])


def _shared(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


def _keys_and_values(model: Any, ids: list[int], device: torch.device) -> Any:
    row = torch.tensor([ids], device=device)
    mask = torch.ones_like(row)
    return model(input_ids=row, attention_mask=mask, use_cache=True, logits_to_keep=1).past_key_values


def _groups(prompts: Sequence[tuple[int, ...]], shared: int, budget: int) -> Iterator[list[tuple[int, ...]]]:
    """Prompts in the order given, which is by length, within the budget of tokens."""
    group: list[tuple[int, ...]] = []
    for prompt in prompts:
        if group and (len(group) + 1) * len(prompt) > budget:
            yield group
            group = []
        group.append(prompt)
    yield group


def _of_rows(
    model: Any,
    rests: Sequence[list[int]],
    endings: Sequence[Ids],
    under: Any,
    shared: int,
    device: torch.device,
    budget: int,
) -> np.ndarray:
    """Nats (rows, endings) of some prompts, given the keys and values of what they share."""
    lengths = torch.tensor([len(rest) for rest in rests], device=device)
    longest = int(lengths.max())
    ids, mask = _filled(rests, shared, device)
    place = shared + torch.arange(longest, device=device).expand(len(rests), -1)
    ends = torch.unique(lengths - 1)
    cache = _repeated(under, len(rests)) if under is not None else None
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=place,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=ends,
    )
    last = out.logits[torch.arange(len(rests)), torch.searchsorted(ends, lengths - 1)].float().log_softmax(-1)
    nats = torch.stack([last[:, ending[0]] for ending in endings], 1).double()
    longer = [place for place, ending in enumerate(endings) if len(ending) > 1]
    at_once = max(1, budget // (len(rests) * (shared + longest)))
    for start in range(0, len(longer), at_once):
        some = longer[start : start + at_once]
        nats[:, some] += _further(
            model, [list(endings[one]) for one in some], out.past_key_values, mask, lengths, shared
        )
    return nats.cpu().numpy()  # type: ignore[no-any-return]


def _further(
    model: Any, endings: Sequence[list[int]], before: Any, mask: torch.Tensor, lengths: torch.Tensor, shared: int
) -> torch.Tensor:
    """Nats (rows, endings) of all but the first token of some endings, given the keys and values of the rows."""
    rows, count, device = len(lengths), len(endings), lengths.device
    ids, own = _filled([ending[:-1] for ending in endings], 0, device)
    targets, _ = _filled([ending[1:] for ending in endings], 0, device)
    width = ids.shape[1]
    whole = torch.cat([mask.repeat_interleave(count, 0), own.repeat(rows, 1)], 1)
    place = (shared + lengths).repeat_interleave(count)[:, None] + torch.arange(width, device=device)
    logits = model(
        input_ids=ids.repeat(rows, 1),
        attention_mask=whole,
        position_ids=place,
        past_key_values=_repeated(before, count),
        use_cache=True,
    ).logits
    nats = logits.float().log_softmax(-1).gather(-1, targets.repeat(rows, 1)[..., None])[..., 0]
    return (nats.double() * own.repeat(rows, 1)).sum(1).view(rows, count)


def _filled(rows: Sequence[list[int]], before: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows, longest) padded on the right, and the mask with `before` places of what lies under them."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * (before + len(row)) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


def _repeated(cache: Any, times: int) -> Any:
    """A copy of keys and values with every row repeated; a forward writes into the one that it is given."""
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(times)
    return copied
