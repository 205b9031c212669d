"""Where things lie: embedded bases and data inside the package, the user's cache outside it."""

import hashlib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
POCKET_FOLDER = PACKAGE / "bases" / "pocket"

POCKET: dict[str, str] = {"gpt": "gpt-v2", "bert": "bert-v2", "t5": "t5-v1", "diffusion": "diffusion-v2"}
"""Embedded bases: public name -> folder, which carries its version; a re-train is a new folder."""


def embedded_base(name: str) -> Path | None:
    """The folder of `pocket:NAME`, or None where there is no such base."""
    folder = POCKET.get(name)
    return POCKET_FOLDER / folder if folder else None


def embedded_data() -> Path:
    """The folder of the embedded data sets, one `NAME.jsonl` each."""
    return POCKET_FOLDER / "data"


def cache_folder() -> Path:
    """Where what can be computed again is kept: `TAILOR_CACHE`, else `~/.cache/tailor`."""
    return Path(os.environ.get("TAILOR_CACHE") or Path.home() / ".cache" / "tailor")


def code_digest() -> str:
    """sha256 over the package's own source files."""
    total = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        total.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return total.hexdigest()
