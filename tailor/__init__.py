"""Tailor: make your model from a base foundation model. Importing this imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailor.api import Run, check, compare, evaluate, fit, load, plan, prove, record, render
    from tailor.core.errors import TailorError

__version__ = "0.1.0"
__all__ = [
    "Run",
    "TailorError",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "fit",
    "load",
    "plan",
    "prove",
    "record",
    "render",
]

_HOMES = dict.fromkeys(__all__, "tailor.api") | {"TailorError": "tailor.core.errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tailor' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
