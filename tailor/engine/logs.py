"""metrics.jsonl and timing.jsonl: append-only, cut back to the checkpoint on resume."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


class Logs:
    """The two logs of a run. Deterministic figures and timings are kept apart, so that the first are bit-identical."""

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        self._files: dict[str, TextIO] = {}
        for name in ("metrics", "timing"):
            path = folder / f"{name}.jsonl"
            path.touch()
            os.truncate(path, min(sizes.get(name, 0), path.stat().st_size))
            self._files[name] = path.open("a", encoding="utf-8")

    def metrics(self, values: Mapping[str, Any]) -> None:
        """One line of figures that the recipe determines."""
        self._write("metrics", values)

    def timing(self, values: Mapping[str, Any]) -> None:
        """One line of figures that the machine determines."""
        self._write("timing", values)

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        self._files[name].write(json.dumps(values) + "\n")

    def sync(self) -> dict[str, int]:
        """Bring both to disk; their sizes in bytes, which a checkpoint remembers."""
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = os.fstat(file.fileno()).st_size
        return sizes

    def close(self) -> None:
        """Close; lines that a full disk kept in memory are lost with the steps since the last checkpoint."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
