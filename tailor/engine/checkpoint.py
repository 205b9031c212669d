"""Checkpoints that a crash at any moment leaves whole: written aside, fsynced, checksummed, renamed.

transformers 5 writes into `checkpoint-N` in place and resumes from the highest N without a check (transformers #35782);
here the newest one whose every byte verifies is resumed, and an older one is removed only after the newer has been verified.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tailor.core.errors import RunError

MANIFEST = "manifest.json"
PREFIX = "step-"
PART = ".part-"
TENSORS = ("weights", "optimizer", "best")
STATE = "state.json"
FILES = {STATE, *(f"{name}.safetensors" for name in TENSORS)}


@dataclass
class State:
    """Where a run stands, beside its tensors.

    Args:
        step: optimizer steps taken.
        tokens, supervised_tokens, computed_tokens: sums over the steps so far.
        seconds: training time so far, over all sittings.
        sizes: bytes of each log file that belong to these steps; what lies beyond is cut off on resume.
        best_step, best_loss: the best look at dev so far, and how many looks have passed without a better one.
        scaler: fp16 loss scaling.
    """

    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0
    loss_first: float | None = None
    loss_last: float | None = None
    best_step: int = 0
    best_loss: float | None = None
    looks_without_gain: int = 0
    stopped: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint in memory: the state, the trainable weights, the optimizer's state by parameter, the best weights."""

    state: State
    weights: Tensors
    optimizer: Tensors
    best: Tensors


class Checkpoints:
    """The checkpoints of one run, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, snapshot: Snapshot) -> Path:
        """Write one checkpoint and remove those it supersedes; raises `RunError` on a full disk, older ones intact."""
        name = f"{PREFIX}{snapshot.state.step:08d}"
        part, target = self.folder / f"{PART}{name}-{os.getpid()}", self.folder / name
        if verify(target) is None:
            return target  # written already: a step that fails right after a checkpoint changes nothing
        try:
            with self.disk_explained():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._clear_parts()
                _fill(part, snapshot)
                shutil.rmtree(target, ignore_errors=True)
                part.rename(target)
                _sync(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._remove_superseded(target)
        return target

    @contextlib.contextmanager
    def disk_explained(self) -> Iterator[None]:
        """Turn a failure to write, of a checkpoint or a log, into a line that names the last checkpoint."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise self._explained(error) from None

    def newest(self, say: Callable[[str], None]) -> Snapshot | None:
        """The newest checkpoint that verifies, or None; every one that is passed over is named through `say`."""
        for folder in self._all():
            problem = verify(folder)
            if problem is None:
                return _read(folder)
            say(f"checkpoint {folder} is passed over: {problem}")
        return None

    def newest_path(self) -> Path | None:
        """Where the newest checkpoint that verifies lies."""
        return next((folder for folder in self._all() if verify(folder) is None), None)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"), reverse=True) if self.folder.is_dir() else []

    def _clear_parts(self) -> None:
        for leftover in self.folder.glob(f"{PART}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _remove_superseded(self, newest: Path) -> None:
        if verify(newest) is None:
            for folder in self._all():
                if folder < newest:
                    shutil.rmtree(folder, ignore_errors=True)

    def _explained(self, error: OSError | SafetensorError) -> RunError:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        kept = self.newest_path()
        what = "the disk is full" if full else f"the run's state could not be written: {error}"
        last = f"the last checkpoint is {kept}" if kept else "no checkpoint had been written before"
        return RunError(
            f"{what}; {last}",
            where=str(self.folder),
            fix="make room, then run again with --resume",
            code="disk_full" if full else "checkpoint",
        )


def _fill(part: Path, snapshot: Snapshot) -> None:
    """Every file of a checkpoint, on the disk when this returns."""
    part.mkdir()
    for name in TENSORS:
        tensors = {key: value.contiguous() for key, value in getattr(snapshot, name).items()}
        save_file(tensors, part / f"{name}.safetensors")
    (part / STATE).write_text(json.dumps(asdict(snapshot.state), indent=1))
    manifest = {file.name: _digest(file) for file in sorted(part.iterdir())}
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for file in part.iterdir():
        _sync(file)
    _sync(part)


def verify(folder: Path) -> str | None:
    """None where every file has the digest its manifest states, else what is wrong, in words."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return "its manifest is missing"
    except (OSError, ValueError):
        return "its manifest cannot be read"
    if set(manifest) != FILES:
        return "its manifest names other files"
    for name, digest in manifest.items():
        file = folder / name
        if not file.exists():
            return f"{name} is missing"
        if _digest(file) != digest:
            return f"{name} is not what was written"
    return None


def _read(folder: Path) -> Snapshot:
    tensors = {name: load_file(folder / f"{name}.safetensors") for name in TENSORS}
    return Snapshot(State(**json.loads((folder / STATE).read_text())), **tensors)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
