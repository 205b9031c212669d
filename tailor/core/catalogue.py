"""Bases worth knowing: the embedded ones, and good open ones with size and licence in plain words. Data, not code."""

import json
import os
from pathlib import Path
from typing import Any

from tailor.core.paths import POCKET, embedded_base, embedded_data

OPEN = Path(__file__).with_name("catalogue.json")
STRONG_MEMORY = 8 * 2**30
"""Device memory from which a larger base is worth its download."""

FAMILY_OF_FORM = {"classification": "encoder", "tagging": "encoder", "span_qa": "encoder", "pairs": "encoder"}
"""Forms of data that an encoder serves best; a causal LM serves the rest."""


def bases() -> list[dict[str, Any]]:
    """Embedded bases first, then open ones: name, family, parameters, context, licence, and a path or a download size."""
    embedded = []
    for name in POCKET:
        folder = embedded_base(name)
        manifest = folder / "manifest.json" if folder else None
        if manifest is None or not manifest.exists():
            continue
        values = json.loads(manifest.read_text(encoding="utf-8"))
        known = {key: values.get(key) for key in ("family", "parameters", "context", "licence")}
        embedded.append(
            {"name": f"pocket:{name}", **known, "path": str(folder), "good_for": "trying things out: a toy"}
        )
    return embedded + [{**entry, "path": None} for entry in json.loads(OPEN.read_text(encoding="utf-8"))]


def data_sets() -> list[dict[str, Any]]:
    """The embedded data sets: name, path, rows, form and what they teach."""
    index = embedded_data() / "index.json"
    if not index.exists():
        return []
    entries = json.loads(index.read_text(encoding="utf-8"))
    return [
        {**entry, "name": f"pocket:{entry['name']}", "path": str(embedded_data() / entry["file"])} for entry in entries
    ]


def choose(form: str, device: str, memory: int) -> tuple[dict[str, Any], str]:
    """A base for a form of data and a machine, and why; what is neither cached nor allowed to be fetched is left out."""
    family = FAMILY_OF_FORM.get(form, "causal-lm")
    candidates = [entry for entry in bases() if entry["family"] == family]
    reachable = [entry for entry in candidates if entry["path"] is None and (not offline() or cached(entry["name"]))]
    kind = "labels" if family == "encoder" else "text"
    if not reachable:
        embedded = next(entry for entry in candidates if entry["path"])
        return (
            embedded,
            f"{kind} wants a base of family {family}; the hub is closed and nothing is cached, so a toy it is",
        )
    strong = device != "cpu" and memory >= STRONG_MEMORY
    fitting = [entry for entry in reachable if strong and entry["parameters"] * 8 < memory] or reachable[:1]
    chosen = max(fitting, key=lambda entry: entry["parameters"])
    return chosen, f"{kind} wants a base of family {family}; on this {device}: {chosen['good_for']}"


def offline() -> bool:
    """Whether the hub may not be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")


def cached(name: str) -> bool:
    """Whether a hub id lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)
