"""What a folder says of the model or adapter in it, by the names and the heads of its files; no weights are loaded."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tailor.nn.bottleneck import CONFIG_FILE, WEIGHTS_FILE

ADAPTERS = ("adapter_config.json", CONFIG_FILE)
"""Files by which an adapter's folder is known: PEFT's and ours."""
OUTPUT_LAYERS = (".classifier.weight", ".score.weight", ".out_proj.weight", ".logits_proj.weight")
"""How transformers names the last layer of classifiers."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PIPELINE_INDEX = "model_index.json"
LORA_OF_PIPELINE, WORDS_OF_PIPELINE = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
"""Weights beside a pipeline that diffusers knows by the names of their files alone."""
BASE_FILE = "base.json"
"""Beside an adapter: the name and the digest of the base that it was made on."""


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What an adapter's folder says of itself: PEFT's, or ours; empty where it is none."""
    for name in ADAPTERS:
        if (folder / name).exists():
            settings: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            return settings
    if any((folder / name).exists() for name in (LORA_OF_PIPELINE, WORDS_OF_PIPELINE)):
        return {"base_model_name_or_path": (_written(folder / BASE_FILE) or {}).get("name")}
    return {}


def _written(file: Path) -> dict[str, str] | None:
    if not file.exists():
        return None
    values: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return values


def weights_file(folder: Path) -> str:
    """The name of an adapter's file of weights."""
    beside = next((name for name in (LORA_OF_PIPELINE, WORDS_OF_PIPELINE) if (folder / name).exists()), None)
    return beside or (WEIGHTS_FILE if (folder / CONFIG_FILE).exists() else ADAPTER_WEIGHTS)


def head_outputs(adapter: Path) -> int:
    """How many outputs the classifier's head has that was saved with an adapter; 0 where there is none."""
    file = adapter / weights_file(adapter)
    if not file.exists() or not adapter_settings(adapter).get("modules_to_save"):
        return 0
    with safe_open(file, framework="pt") as held:
        sizes = [held.get_slice(name).get_shape()[0] for name in held.keys() if name.endswith(OUTPUT_LAYERS)]  # noqa: SIM118
    return int(sizes[0]) if sizes else 0


def recorded_base(folder: Path) -> dict[str, str] | None:
    """Name and digest of the base that an adapter was made on, where its folder tells."""
    recorded = _written(folder / BASE_FILE)
    if recorded is not None:
        return recorded
    settings = adapter_settings(folder)
    digest = settings.get("base_digest")
    return {"name": str(settings.get("base_model_name_or_path")), "digest": digest} if digest else None


def mergeable(folder: Path) -> bool:
    """Whether an adapter can become part of its base's weights: not virtual tokens or words, and not layers of its own."""
    own = (folder / CONFIG_FILE).exists() or (folder / WORDS_OF_PIPELINE).exists()
    return "num_virtual_tokens" not in adapter_settings(folder) and not own


def folder_digest(folder: Path) -> str:
    """sha256 over a model folder's config and weights, file names and contents in sorted order."""
    total = hashlib.sha256()
    patterns = ["*config.json", "*.safetensors"]
    if (folder / PIPELINE_INDEX).exists():
        patterns += [PIPELINE_INDEX, "*/*config.json", "*/*.safetensors"]
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        state = file.stat()
        total.update(file.relative_to(folder).as_posix().encode())
        total.update(_file_digest(file, state.st_size, state.st_mtime_ns))
    return total.hexdigest()


@cache
def _file_digest(file: Path, size: int, changed: int) -> bytes:
    """Read once per process, unless the file has another size or time: a run asks for its base's digest several times."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
