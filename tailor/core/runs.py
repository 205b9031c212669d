"""The run folder: one place for everything a run leaves, written so that a crash never leaves half a file."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailor.core.errors import RunError, TailorError

SUMMARY = "summary.json"
LOGS = ("metrics.jsonl", "search/*.jsonl")
"""Files that the first step writes to."""


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """The artefact."""
        return self.path / "model"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def finished(self) -> bool:
        """Whether the run went through to its report."""
        return (self.path / SUMMARY).exists()

    @classmethod
    def create(cls, path: Path, *, resume: bool) -> "RunFolder":
        """A new folder, or with `resume` one that may be empty or hold an unfinished or finished run."""
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise RunError("the output is a file", where=str(path), fix="choose another output")
        if path.is_dir() and not resume:
            raise RunError(
                "this output folder exists",
                where=str(path),
                fix="add --resume, or choose another --output",
                code="exists",
            )
        ours = folder.recipe.exists() or (path / "checkpoints").exists()
        if path.is_dir() and not ours and any(path.iterdir()):
            raise RunError("this folder holds something else than a run", where=str(path), fix="choose another output")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the output folder cannot be made: {error.strerror}", where=str(path)) from None
        return folder

    @property
    def begun(self) -> bool:
        """Whether anything was trained or asked here, or in a part of it."""
        logs = (file for name in LOGS for file in self.path.rglob(name))
        return any(file.stat().st_size for file in logs) or any(self.path.rglob("checkpoints/*"))

    @contextlib.contextmanager
    def unless_refused(self) -> Iterator[None]:
        """What is refused before its first step leaves nothing behind that a mended recipe would stumble over."""
        new = not any(self.path.iterdir())
        try:
            yield
        except TailorError:
            if new and not self.begun:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """A folder that holds a run; raises `RunError` where it does not."""
        folder = cls(path)
        if not folder.recipe.exists():
            raise RunError(
                "this is no run folder: recipe.yaml is missing", where=str(path), fix="`tailor runs` lists runs"
            )
        return folder

    def write(self, name: str, values: Any) -> None:
        """One JSON file, whole or not at all."""
        write_text(self.path / name, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def read(self, name: str) -> Any:
        """One JSON file; None where it is missing."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a JSONL log."""
        file = self.path / name
        if not file.exists():
            return []
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def write_text(path: Path, text: str) -> None:
    """Write aside, fsync, rename; raises `RunError` where the disk is full.

    Half a surrogate pair, which models behind an API do answer and UTF-8 has no bytes for, is written as its escape, by
    which JSON gives it back.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"this file cannot be written: {error.strerror}", where=str(path), fix="make room") from None


def made_by(path: Path) -> Path:
    """The run that made a run folder's model: its last stage, where it has stages."""
    stages = [folder for folder in (path / "stages").glob("*-*") if (folder / "recipe.yaml").exists()]
    return max(stages, key=lambda folder: int(folder.name.partition("-")[0]), default=path)


def runs_below(root: Path) -> list[RunFolder]:
    """Every run folder at most three levels below a folder, oldest first."""
    found = {file.parent for depth in ("*", "*/*", "*/*/*") for file in root.glob(f"{depth}/recipe.yaml")}
    return [RunFolder(path) for path in sorted(found, key=lambda path: (path / "recipe.yaml").stat().st_mtime)]
