"""What can go wrong inside a run, caught early and said in one line."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import torch

from tailor.core.errors import RunError


class Interrupted(Exception):
    """The user asked to stop; the state has been saved. The command line exits with 130."""


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


def finite(value: torch.Tensor, what: str, step: int, examples: list[str]) -> None:
    """Raise `RunError` where a loss or a gradient norm is not a number; nothing has been changed by then."""
    if not bool(torch.isfinite(value)):
        shown = ", ".join(examples[:3])
        raise RunError(
            f"the {what} is {float(value)} at step {step + 1}, on rows {shown}",
            where="train.learning_rate",
            fix="lower train.learning_rate, look at those rows, or set train.precision=fp32",
            code="not_finite",
        )


@contextlib.contextmanager
def memory_explained(tokens_per_micro_batch: int) -> Iterator[None]:
    """Turn running out of memory into a line that names the setting to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "not enough memory" not in str(error):
            raise
        raise RunError(
            f"out of memory with {tokens_per_micro_batch} tokens in a micro-batch",
            where="train.tokens_per_micro_batch",
            fix=f"train.tokens_per_micro_batch={max(1, tokens_per_micro_batch // 2)} (changes no result), then --resume",
            code="out_of_memory",
        ) from None
