"""How likely a few endings are after many prompts: what prompts share is computed once, each prompt's own part once.

The keys and values of the shared part (instruction and demonstrations) are computed for one row and laid under all. The
endings of a prompt stand side by side behind it in one row, each seeing the prompt and itself: a prefix tree of depth three.
`whole_rows` computes the same by plain forwards. Not every architecture takes such rows (positions that are counted by
place, recurrent states, masks of its own): `EndingNats` holds the one to the other on the model at hand before it is used.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

Ids = Sequence[int]
KEPT = 4
"""Keys and values of shared tokens are cheap beside a forward: so many times the budget of tokens may lie in memory."""
ROUNDING = {torch.float32: 1e-3, torch.float16: 5e-2}
"""Nats by which two ways of computing three tokens may differ in a dtype; `COARSE` in others."""
COARSE = 0.3
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""How configs call the number of tokens that some layer looks back at most."""


class EndingNats:
    """Likelihoods of endings on one model: what prompts share once where that was measured to be exact, else in whole rows.

    Attributes:
        reason: why this model is run in whole rows; None where it is not.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self.reason = _what_differs(model, device)

    def __call__(self, prompts: Sequence[Ids], endings: Sequence[Ids], device: torch.device, budget: int) -> np.ndarray:
        """As `ending_nats`."""
        return (whole_rows if self.reason else ending_nats)(self.model, prompts, endings, device, budget)


def _what_differs(model: Any, device: torch.device) -> str | None:
    """Both ways on a few tokens, without autocast: whether they agree."""
    draw = np.random.default_rng(0)
    size = model.config.get_text_config().vocab_size
    shared, *rests = (draw.integers(0, size, count).tolist() for count in (8, 2, 5))
    endings = [draw.integers(0, size, count).tolist() for count in (3, 1, 3)]
    rows = [shared + rest for rest in rests]
    allowed = ROUNDING.get(next(model.parameters()).dtype, COARSE)
    with torch.autocast(device.type, enabled=False):
        plain = whole_rows(model, rows, endings, device, 1000)
        try:
            difference = float(np.abs(ending_nats(model, rows, endings, device, 1000) - plain).max())
        except Exception as error:  # whatever an architecture makes of rows that it was not written for
            return f"this architecture does not take endings ({type(error).__name__})"
    return None if difference <= allowed else f"its likelihoods change by {difference:.2g} nats for endings"


@torch.no_grad()
def ending_nats(
    model: Any, prompts: Sequence[Ids], endings: Sequence[Ids], device: torch.device, budget: int
) -> np.ndarray:
    """Summed log-likelihoods of endings after prompts, (prompts, endings), in nats.

    Args:
        prompts: token ids; equal ones are computed once. endings: token ids, the same for every prompt, none empty.
        budget: tokens of one forward; keys and values of the shared part count for a quarter.
    """
    longest = max(map(len, prompts)) + max(map(len, endings))
    if longest > (_window(model) or longest):
        return whole_rows(model, prompts, endings, device, budget)
    distinct = sorted({tuple(prompt) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))
    shared = _shared(distinct)
    under = _keys_and_values(model, list(distinct[0][:shared]), device) if shared else None
    side_by_side = sum(len(ending) - 1 for ending in endings)
    found: dict[tuple[int, ...], np.ndarray] = {}
    for rows in _groups(distinct, shared, side_by_side, budget):
        rests = [list(row[shared:]) for row in rows]
        found |= zip(rows, _of_rows(model, rests, endings, under, shared, device), strict=True)
    return np.stack([found[tuple(prompt)] for prompt in prompts])


@torch.no_grad()
def whole_rows(
    model: Any, prompts: Sequence[Ids], endings: Sequence[Ids], device: torch.device, budget: int
) -> np.ndarray:
    """The same by a forward of every prompt with every ending: for models whose layers forget what is far away."""
    rows = [[*prompt, *ending] for prompt in prompts for ending in endings]
    at_once = max(1, budget // max(map(len, rows)))
    nats: list[float] = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        ids, mask = _filled(some, 0, device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
        found = logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].double()
        for place, row in enumerate(some, start):
            count = len(endings[place % len(endings)])
            nats.append(float(found[place - start, len(row) - count - 1 : len(row) - 1].sum()))
    return np.array(nats).reshape(len(prompts), len(endings))


def _window(model: Any) -> int | None:
    """Tokens that some layer looks back at most; None where every layer sees everything."""
    config = model.config.get_text_config()
    return min((window for name in WINDOWS if (window := getattr(config, name, None))), default=None)


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


def _keys_and_values(model: Any, ids: list[int], device: torch.device) -> Any:
    row = torch.tensor([ids], device=device)
    mask = torch.ones_like(row)
    return model(input_ids=row, attention_mask=mask, use_cache=True, logits_to_keep=1).past_key_values


def _groups(
    prompts: Sequence[tuple[int, ...]], shared: int, beside: int, budget: int
) -> Iterator[list[tuple[int, ...]]]:
    """Prompts in the order given, which is by length, within the budget of tokens."""
    group: list[tuple[int, ...]] = []
    for prompt in prompts:
        cost = shared / KEPT + len(prompt) - shared + beside
        if group and (len(group) + 1) * cost > budget:
            yield group
            group = []
        group.append(prompt)
    yield group


def _of_rows(
    model: Any, rests: Sequence[list[int]], endings: Sequence[Ids], under: Any, shared: int, device: torch.device
) -> np.ndarray:
    """Nats (rows, endings) of some prompts, given the keys and values of what they share."""
    lengths = torch.tensor([len(rest) for rest in rests], device=device)
    ids, mask = _filled(rests, shared, device)
    place = shared + torch.arange(ids.shape[1], device=device).expand(len(rests), -1)
    ends = torch.unique(lengths - 1)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=place,
        past_key_values=_repeated(under, len(rests)) if under is not None else None,
        use_cache=True,
        logits_to_keep=ends,
    )
    logits = out.logits if out.logits.shape[1] == len(ends) else out.logits[:, ends]
    last = logits[torch.arange(len(rests)), torch.searchsorted(ends, lengths - 1)].float().log_softmax(-1)
    nats = torch.stack([last[:, ending[0]] for ending in endings], 1).double()
    if any(len(ending) > 1 for ending in endings):
        nats += _further(model, endings, out.past_key_values, mask, shared + lengths)
    return nats.cpu().numpy()  # type: ignore[no-any-return]


def _further(
    model: Any, endings: Sequence[Ids], before: Any, mask: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Nats (rows, endings) of all but the first token of each ending, given the keys and values of the rows."""
    rows, device = len(lengths), lengths.device
    owner = torch.tensor([place for place, ending in enumerate(endings) for _ in ending[1:]], device=device)
    depth = torch.tensor([depth for ending in endings for depth in range(len(ending) - 1)], device=device)
    ids = torch.tensor([token for ending in endings for token in ending[:-1]], device=device)
    targets = torch.tensor([token for ending in endings for token in ending[1:]], device=device)
    own = (owner[:, None] == owner) & (depth[:, None] >= depth)
    seen = torch.cat([mask[:, None, :].bool().expand(-1, len(ids), -1), own.expand(rows, -1, -1)], -1)
    if model.config._attn_implementation == "eager":  # which adds what it is given
        kind = next(model.parameters()).dtype
        seen = torch.zeros(seen.shape, dtype=kind, device=device).masked_fill(~seen, torch.finfo(kind).min)
    logits = model(
        input_ids=ids.expand(rows, -1),
        attention_mask=seen[:, None],
        position_ids=lengths[:, None] + depth,
        past_key_values=before,
        use_cache=True,
    ).logits
    nats = logits.float().log_softmax(-1).gather(-1, targets.expand(rows, -1)[..., None])[..., 0].double()
    return torch.zeros(rows, len(endings), dtype=torch.double, device=device).index_add_(1, owner, nats)


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
