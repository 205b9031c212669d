"""What is kept in the cache folder, by kind: how much of it there is, and its removal. Everything can be made again."""

import shutil
from pathlib import Path

from tailor.core.errors import TailorError
from tailor.core.paths import cache_folder

KINDS = {
    "encoded": "rows as tokens",
    "frozen": "what bases said of examples before they were trained (references of preferences)",
    "pictures": "latents of pictures and embeddings of their captions",
    "prior": "pictures of a class, drawn by bases",
    "answers": "answers of models behind an API: asked for again, they are paid for again",
}
"""Kinds, which are the names of folders, and what they hold. What counts the openings of test splits is none of them."""


def kept(kind: str | None = None) -> dict[str, dict[str, int]]:
    """Of every kind, or of one, its files and their bytes; raises `TailorError` where there is no such kind."""
    if kind is not None and kind not in KINDS:
        raise TailorError(f"nothing of the kind {kind!r} is cached", where="KIND", fix=f"one of: {', '.join(KINDS)}")
    found = {}
    for name in KINDS if kind is None else [kind]:
        sizes = [file.stat().st_size for file in _files(name)]
        found[name] = {"files": len(sizes), "bytes": sum(sizes)}
    return found


def clear(kind: str | None = None) -> dict[str, dict[str, int]]:
    """Remove all kinds, or one; returns what there was."""
    before = kept(kind)
    for name in before:
        shutil.rmtree(cache_folder() / name, ignore_errors=True)
    return before


def _files(kind: str) -> list[Path]:
    return [file for file in (cache_folder() / kind).rglob("*") if file.is_file()]
