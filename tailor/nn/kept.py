"""What can be computed again, kept on disk by content: whole files only, and the longest unused makes room."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

Values = Mapping[str, torch.Tensor]


def read(path: Path) -> Values | None:
    """What was kept, or None; a file that was read counts as used."""
    try:
        values: Values = load_file(path)
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return values


def keep(path: Path, values: Values) -> None:
    """Write whole or not at all; a machine without a place to keep it computes it again."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(values), part)
        part.replace(path)
    part.unlink(missing_ok=True)


def make_room(folder: Path, most_bytes: int) -> None:
    """Remove the longest unused files of a folder until the rest is within bounds."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > most_bytes:
            file.unlink(missing_ok=True)
