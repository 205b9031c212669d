"""`tailor doctor`: what this machine has, and what of it Tailor was tested on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from tailor.core.catalogue import offline
from tailor.engine.place import available_devices, device_memory, has_bf16
from tailor.verbs.fit import LIBRARIES

TESTED = {"cpu": "tested on every change"}
EXTRAS = {"xlsx": "openpyxl", "trackers": "tensorboard", "prompt": "gepa", "diffusion": "diffusers"}


def look() -> dict[str, Any]:
    """Devices best first, versions, extras with the command that installs a missing one."""
    kind, memory = device_memory()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory,
        "devices": [
            {"kind": name, "bf16": has_bf16(name), "note": _note(name, name == kind)} for name in available_devices()
        ],
        "versions": {name: version(name) for name in ("tailor", *LIBRARIES)},
        "extras": {
            name: {"installed": _installed(module), "fix": f"pip install 'tailor[{name}]'"}
            for name, module in EXTRAS.items()
        },
        "offline": offline(),
    }


def _note(kind: str, used: bool) -> str:
    products = "bf16 products" if has_bf16(kind) else "no bf16 products"
    return f"{products}, {TESTED.get(kind, 'not tested by us')}{', used by default' if used else ''}"


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
