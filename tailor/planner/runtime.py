"""How long a run takes: the work that was traced, over rates that this machine was measured at.

The probe takes a few seconds, once for each machine, torch, number of threads and width; what it found is kept.
"""

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tailor.core.paths import cache_folder
from tailor.engine.loop import Plan
from tailor.planner.memory import COPY, MOMENTS, Step

KIND_SECONDS = 0.6
"""How long each rate is measured: with seven of them the probe stays far below ten seconds."""
NARROWEST, WIDEST = 64, 4096
STEP_BYTES = 28
"""Bytes that clipping and AdamW read and write for each weight that moves: the gradient twice, weight and moments."""
WRITTEN = MOMENTS + 2 * COPY
"""Bytes of a checkpoint for each weight that moves: itself, the best one so far, the moments."""


@dataclass(frozen=True)
class Rates:
    """What a device does in a second: operations of products by precision and of attention, bytes moved, operations begun,
    bytes written and hashed."""

    products_32: float
    products_16: float
    attention: float
    attention_backward: float
    bytes: float
    calls: float
    disk: float

    def seconds(self, work: Mapping[str, float]) -> float:
        """How long a piece of work takes; see `Ledger.work`."""
        rates: dict[str, float] = asdict(self)
        return sum(amount / rates[kind] for kind, amount in work.items())


@dataclass(frozen=True)
class Amount:
    """How much a run does: tokens that are trained on and tokens of dev, and how often it looks at them and saves."""

    tokens: int
    dev_tokens: int
    plan: Plan

    @property
    def looks(self) -> int:
        """Looks at dev."""
        return -(-self.plan.steps // self.plan.look_every) if self.dev_tokens else 0

    @property
    def saves(self) -> int:
        """Checkpoints."""
        return -(-self.plan.steps // self.plan.checkpoint_every)


def run_seconds(step: Step, amount: Amount, rates: Rates) -> float:
    """From the first batch to the last optimizer step, looks at dev and checkpoints in between included."""
    a_token = rates.seconds(step.work) / max(1, step.tokens)
    if not step.gradient:
        return a_token * amount.tokens
    look = rates.seconds(step.forward) / max(1, step.tokens) * amount.dev_tokens
    stepping = STEP_BYTES * step.moving / rates.bytes
    saving = WRITTEN * step.moving / rates.disk
    return a_token * amount.tokens + stepping * amount.plan.steps + look * amount.looks + saving * amount.saves


def rates_here(width: int) -> Rates:
    """This machine's rates for a base of a hidden width, measured where nobody did so before."""
    width = min(WIDEST, max(NARROWEST, 2 ** round((max(1, width)).bit_length() - 1)))
    file = cache_folder() / "rates" / f"{_machine(width)}.json"
    try:
        return Rates(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = probe(width)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(found)), encoding="utf-8")
        part.replace(file)
    except OSError:
        pass  # a machine without a place to keep it measures again
    return found


def _machine(width: int) -> str:
    here = [platform.node(), platform.machine(), os.cpu_count(), torch.__version__, torch.get_num_threads(), width]
    return hashlib.sha256(json.dumps([*here, torch.backends.cpu.get_cpu_capability()]).encode()).hexdigest()[:24]


def probe(width: int) -> Rates:
    """Measure the rates of this CPU."""
    rows = 1024
    products = {dtype: _products(rows, width, dtype) for dtype in (torch.float32, torch.bfloat16)}
    forward, backward = _attention()
    large, small = torch.randn(rows, 4 * width), torch.randn(16, requires_grad=True)
    moved = 3 * large.nbytes / _once(lambda: large * large)
    return Rates(
        products_32=products[torch.float32],
        products_16=products[torch.bfloat16],
        attention=forward,
        attention_backward=backward,
        bytes=moved,
        calls=1 / _once(lambda: _chain(small)) * CHAIN * 2,
        disk=_disk(),
    )


def _products(rows: int, width: int, dtype: torch.dtype) -> float:
    """Operations per second of a feed-forward layer's product."""
    left, right = torch.randn(rows, width, dtype=dtype), torch.randn(width, 2 * width, dtype=dtype)
    return 2 * rows * width * 2 * width / _once(lambda: left @ right)


CHAIN = 32


def _chain(value: torch.Tensor) -> None:
    """So many operations forward, and as many backward, with next to nothing to compute."""
    for _ in range(CHAIN):
        value = value * 1.01
    value.sum().backward()


def _attention() -> tuple[float, float]:
    """Operations per second of the whole square, forward and backward, where causality spares half of them."""
    heads, length, depth = 8, 256, 64
    query, key, value = states = [torch.randn(1, heads, length, depth, requires_grad=True) for _ in range(3)]
    found = scaled_dot_product_attention(query, key, value, is_causal=True)
    square = 4 * heads * length * length * depth
    ahead = _once(lambda: scaled_dot_product_attention(query, key, value, is_causal=True))
    back = _once(lambda: torch.autograd.grad(found, states, found, retain_graph=True))
    return square / ahead, 2.5 * square / back


def _disk() -> float:
    """Bytes that are written, synced and hashed in a second, as a checkpoint is."""
    content = os.urandom(16 * 2**20)
    file = cache_folder() / f"probe.{os.getpid()}"

    def write() -> None:
        with file.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        for _ in range(2):
            hashlib.sha256(file.read_bytes()).hexdigest()

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return len(content) / _once(write)
    except OSError:
        return 100e6
    finally:
        file.unlink(missing_ok=True)


def _once(work: Callable[[], Any]) -> float:
    """Seconds that a piece of work takes: the median of what fits into a moment, after a first time that does not count."""
    work()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 3 or (time.perf_counter() - begun < KIND_SECONDS and len(taken) < 200):
        before = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before)
    return statistics.median(taken)
