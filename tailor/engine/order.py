"""Which examples a step sees: a function of (seed, epoch, position) and of nothing else, so that resume needs no state."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate

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


def plain_order(seed: int, count: int, batch: int) -> Callable[[int], tuple[int, list[int]]]:
    """The order of a run with one task: a step's epoch and examples."""
    return partial(batch_indices, seed, count=count, batch=batch)


class TaskOrder:
    """Which task a step is for, and which of its examples it sees: every step is one task's (MT-DNN: Liu et al. 2019).

    The task that lags farthest behind its share comes next, so after n steps each has had its share of n, but for one.

    Args:
        sizes: examples of each task; they lie one task after the other.
        shares: of the steps, summing to 1.
        batch: examples per step.
    """

    def __init__(self, seed: int, sizes: Sequence[int], shares: Sequence[float], batch: int) -> None:
        self.seed, self.sizes, self.shares, self.batch = seed, list(sizes), list(shares), batch
        self.starts = [0, *accumulate(sizes)][:-1]
        self._tasks: list[int] = []
        self._counts = [0] * len(sizes)
        self._before: list[int] = []

    def task(self, step: int) -> int:
        """The task of a 0-based step."""
        while len(self._tasks) <= step:
            behind = [
                share * (len(self._tasks) + 1) - count for share, count in zip(self.shares, self._counts, strict=True)
            ]
            chosen = max(range(len(behind)), key=lambda place: (behind[place], -place))
            self._before.append(self._counts[chosen])
            self._tasks.append(chosen)
            self._counts[chosen] += 1
        return self._tasks[step]

    def __call__(self, step: int) -> tuple[int, list[int]]:
        """The task's own epoch and the examples of a step."""
        task = self.task(step)
        epoch, own = batch_indices(self.seed, self._before[step], self.sizes[task], self.batch)
        return epoch, [self.starts[task] + index for index in own]


def task_shares(sizes: Sequence[int], weights: Sequence[float], temperature: float, cap: int | None) -> list[float]:
    """Shares of the steps: rows, at most `cap`, to the power of 1 / temperature, times the weight (Raffel et al. 2020)."""
    parts = [weight * min(size, cap or size) ** (1 / temperature) for size, weight in zip(sizes, weights, strict=True)]
    return [part / sum(parts) for part in parts]


def step_seed(seed: int, step: int, part: int) -> int:
    """The seed of everything random inside one micro-batch (dropout): independent of what ran before it."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint32)[0])
