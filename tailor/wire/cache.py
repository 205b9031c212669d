"""Answers that were paid for, on disk by content: one file each, written whole or not at all."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailor.core.errors import RunError


def content_key(*parts: Any) -> str:
    """sha256 of plain values, whatever the order of their keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AnswerCache:
    """Answers by the key of what was asked; several threads and processes may share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Mapping[str, Any] | None:
        """An answer, or None where none is kept; a file that cannot be read counts as none."""
        try:
            kept = json.loads(self._file(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        answer = kept.get("answer") if isinstance(kept, dict) else None
        return answer if isinstance(answer, dict) else None

    def put(self, key: str, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer beside what was asked; raises `RunError` where the disk is full."""
        file = self._file(key)
        text = json.dumps({"asked": asked, "answer": answer}, ensure_ascii=True)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            number, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=file.parent)
            with os.fdopen(number, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(part).replace(file)
        except OSError as error:
            raise RunError(
                f"an answer cannot be kept: {error.strerror}",
                where=str(file.parent),
                fix="make room, or set TAILOR_CACHE to another folder",
            ) from None

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
