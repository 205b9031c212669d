"""Which examples a step sees: a function of (seed, epoch, position) and of nothing else, so that resume needs no state."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch, (count,) indices."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def steps_per_epoch(count: int, batch: int) -> int:
    """Optimizer steps per epoch; the last batch may be smaller, and no example is left out."""
    return -(-count // batch)


def batch_indices(seed: int, step: int, count: int, batch: int) -> tuple[int, list[int]]:
    """The epoch and the examples of a 0-based optimizer step."""
    epoch, place = divmod(step, steps_per_epoch(count, batch))
    order = permutation(seed, epoch, count)
    return epoch, [int(index) for index in order[place * batch : (place + 1) * batch]]


def step_seed(seed: int, step: int, part: int) -> int:
    """The seed of everything random inside one micro-batch (dropout): independent of what ran before it."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint32)[0])
