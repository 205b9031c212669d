"""The one mechanism of laziness: names to implementations, imported when they are first asked for.

Third parties add theirs through entry points in the groups `tailor.method`, `tailor.objective` and `tailor.base`.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from tailor.core.errors import TailorError

Axis = Literal["method", "objective", "base"]

IMPLEMENTATIONS: dict[str, dict[str, str]] = {
    "method": {
        "full": "tailor.methods.full:Full",
        "head": "tailor.methods.head:HeadOnly",
        "lora": "tailor.methods.lora:Lora",
        "adapter": "tailor.methods.adapter:Adapter",
        "ia3": "tailor.methods.ia3:Ia3",
        "prefix": "tailor.methods.prefix:Prefix",
        "soft_prompt": "tailor.methods.soft_prompt:SoftPrompt",
        "prompt": "tailor.methods.prompt:PromptSearch",
    },
    "objective": {
        "language": "tailor.objectives.language:Language",
        "instruction": "tailor.objectives.instruction:Instruction",
        "chat": "tailor.objectives.chat:Chat",
        "classification": "tailor.objectives.classification:Classification",
        "choice": "tailor.objectives.choice:Choice",
        "multiple_choice": "tailor.objectives.multiple_choice:MultipleChoice",
        "tagging": "tailor.objectives.tagging:Tagging",
        "span_qa": "tailor.objectives.span_qa:SpanQA",
        "similarity": "tailor.objectives.similarity:Similarity",
        "preference": "tailor.objectives.preference:Preferring",
        "seq2seq": "tailor.objectives.seq2seq:SeqToSeq",
        "text_to_image": "tailor.objectives.text_to_image:TextToImage",
    },
    "base": {
        "causal-lm": "tailor.bases.causal:CausalBase",
        "encoder": "tailor.bases.encoder:EncoderBase",
        "encoder-decoder": "tailor.bases.seq2seq:Seq2SeqBase",
        "diffusion": "tailor.bases.diffusion:DiffusionBase",
        "endpoint": "tailor.bases.endpoint:EndpointBase",
    },
}


def names(axis: Axis) -> list[str]:
    """Every registered name of an axis, ours first."""
    return [*IMPLEMENTATIONS.get(axis, {}), *(point.name for point in entry_points(group=f"tailor.{axis}"))]


def load(axis: Axis, name: str) -> Any:
    """The implementation registered under a name; raises `TailorError` where there is none."""
    path = IMPLEMENTATIONS.get(axis, {}).get(name)
    if path is not None:
        return resolve(path)
    for point in entry_points(group=f"tailor.{axis}", name=name):
        return point.load()
    raise TailorError(f"no {axis} is named {name}", where=axis, fix=f"one of: {', '.join(names(axis))}")


def resolve(path: str) -> Any:
    """`package.module:attribute`, imported."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
