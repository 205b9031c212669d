"""Where a run computes and in what precision. accelerate lives only here.

One precision rule: trainable weights and optimizer state in fp32, frozen weights in the load dtype, compute in bf16 where
the hardware has it (a CPU with AVX512-BF16 or AMX included), fp16 with loss scaling where it has not.
"""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tailor.core.errors import RecipeError

Precision = Literal["fp32", "bf16", "fp16"]

ORDER = ("cuda", "xpu", "mps", "cpu")
COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KEEP_FREED = ((-4, 0), (-1, 2**31 - 1), (-2, 1 << 28))
"""glibc's malloc.h: M_MMAP_MAX, no block by mmap; M_TRIM_THRESHOLD, never trimmed; M_TOP_PAD, bytes asked for ahead."""
SMALL = 20_000_000
"""Parameters under which a CPU run stays in fp32: casting costs such a model more than bf16 products save."""


def available_devices() -> list[str]:
    """Kinds of device that this torch can use, best first."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available()}
    for kind in ("xpu", "mps"):
        backend = getattr(torch, kind, None) or getattr(torch.backends, kind, None)
        usable[kind] = bool(backend is not None and backend.is_available())
    return [kind for kind in ORDER if usable[kind]]


def has_bf16(kind: str) -> bool:
    """Whether the hardware multiplies bf16 natively."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return kind == "xpu"


def choose_precision(asked: str, kind: str, parameters: int) -> tuple[Precision, str]:
    """The precision to compute in and the reason, in words; raises where the device cannot do what was asked."""
    if asked == "fp16" and kind == "cpu":
        raise RecipeError("a CPU trains in fp32 or bf16", where="train.precision", fix="train.precision=auto")
    if asked != "auto":
        return asked, "as the recipe says"  # type: ignore[return-value]
    if kind == "cpu" and parameters < SMALL:
        return "fp32", f"a base of {parameters / 1e6:.1f} M parameters gains nothing from bf16 on a CPU"
    if has_bf16(kind):
        return "bf16", f"this {kind} multiplies bf16 natively; trainable weights stay fp32"
    if kind == "cpu":
        return "fp32", "this CPU has no bf16 products"
    return "fp16", f"this {kind} has no native bf16; the loss is scaled"


def settle_threads(kind: str, parameters: int) -> None:
    """A small base on a CPU runs on one thread.

    Its products are too small to share, and threads that wait for each other spin: with other work on the machine that was
    measured to cost several times the processor time. One thread also gives the same bits on machines of any size.
    """
    if kind == "cpu" and parameters < SMALL:
        torch.set_num_threads(1)


def settle_memory(kind: str) -> None:
    """On a CPU, memory that a step frees stays with the process for the next step.

    glibc hands large blocks back to the kernel at once and asks for them anew, zeroed page by page: up to a third of a small
    model's time. Elsewhere than with glibc there is nothing to settle.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if kind == "cpu" and mallopt is not None:
        for option, value in KEEP_FREED:
            mallopt(option, value)


def device_memory() -> tuple[str, int]:
    """The best device at hand and its bytes of memory; the machine's own for a CPU."""
    kind = available_devices()[0]
    if kind == "cuda":
        return kind, int(torch.cuda.get_device_properties(0).total_memory)
    return kind, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Place:
    """A device and a precision."""

    kind: str
    precision: Precision
    reason: str

    @property
    def device(self) -> torch.device:
        """The torch device."""
        return torch.device(self.kind)

    @property
    def frozen_dtype(self) -> torch.dtype:
        """The dtype frozen weights are loaded in where the recipe leaves it open: that of the products."""
        return COMPUTE[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in the compute dtype, reductions in fp32; nothing at all for fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=COMPUTE[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16; a scaler that passes everything through for the rest."""
        return torch.amp.GradScaler(self.kind, enabled=self.precision == "fp16")

    def peak_memory(self) -> int:
        """Peak bytes of this process so far: device memory on a GPU, resident memory on a CPU."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(kind: str) -> bool:
    """Have the peak of memory begin anew, for the next of several runs of one process; whether that can be done here."""
    gc.collect()
    if kind == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)  # what was freed does not count as the next run's
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak resident set size
        return True
    except OSError:
        return False


def resident_bytes() -> int:
    """Resident memory of this process now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Trackers:
    """accelerate's experiment trackers by name; none asked for, none imported."""

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        self._accelerator: Any = None
        if not names:
            return
        from accelerate import Accelerator

        try:
            self._accelerator = Accelerator(log_with=list(names), project_dir=str(folder), cpu=True)
            self._accelerator.init_trackers("tailor", config=dict(config))
        except (ValueError, ImportError) as error:
            raise RecipeError(f"a tracker cannot start: {error}", where="train.trackers") from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand one step's figures on."""
        if self._accelerator is not None:
            self._accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """Flush what the trackers hold."""
        if self._accelerator is not None:
            self._accelerator.end_training()
