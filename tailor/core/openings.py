"""How often each test split has been opened on this machine: a split that chose anything no longer reports honestly."""

import json
import os
from pathlib import Path

from tailor.core.paths import cache_folder


def opened(digest: str, run: str) -> int:
    """Record one opening of the split with this content digest, and return how many there have been."""
    path = cache_folder() / "openings.jsonl"
    line = json.dumps({"split": digest, "run": run}) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())  # one write of one line: appends of several processes do not mix
        finally:
            os.close(descriptor)
        return _count(path, digest)
    except OSError:
        return 1  # a machine without a place to remember


def _count(path: Path, digest: str) -> int:
    return sum(f'"split": "{digest}"' in line for line in path.read_text(encoding="utf-8").splitlines())
