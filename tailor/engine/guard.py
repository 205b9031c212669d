"""What can go wrong inside a run, caught early and said in one line."""

import contextlib
import signal
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FrameType

import torch

from tailor.core.errors import RunError


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the loop reads between steps, so that no step is left half done."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Listen while the block runs; a second signal stops at once. Outside the main thread there is nothing to hear."""
        try:
            old = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def finite(value: torch.Tensor, what: str, step: int, rows: Iterable[str]) -> None:
    """Raise `RunError` where a loss or a gradient norm is not a number; only then are the rows looked at, to name some."""
    if not bool(torch.isfinite(value)):
        raise RunError(
            f"the {what} is {float(value)} at step {step + 1}, on rows {', '.join(islice(rows, 3))}",
            where="train.learning_rate",
            fix="lower train.learning_rate, look at those rows, or set train.precision=fp32",
            code="not_finite",
        )


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What torch's allocators say: on a CPU under Linux and Windows, on MPS, and inside CUDA's libraries."""


@contextlib.contextmanager
def memory_explained(what: str, where: str, fix: str) -> Iterator[None]:
    """Turn running out of memory into a line that names the setting to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise RunError(f"out of memory {what}", where=where, fix=fix, code="out_of_memory") from None


def micro_batch_explained(tokens: int, examples: int) -> contextlib.AbstractContextManager[None]:
    """Running out of memory in a forward or a backward; an example that is alone already can only be made smaller."""
    if examples == 1:
        fix = "a new run with a smaller data.max_length (of pictures: objective.resolution), base or method"
        return memory_explained("with one example in a micro-batch", "train.tokens_per_micro_batch", fix)
    fix = f"train.tokens_per_micro_batch={max(1, tokens // 2)} (changes nothing but what dropout draws), then --resume"
    return memory_explained(f"with {tokens} tokens in a micro-batch", "train.tokens_per_micro_batch", fix)
