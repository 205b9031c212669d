"""What the methods that go through PEFT share: its task types, the head trained beside, a folder without our paths."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, TaskType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from tailor.core.contracts import Base
from tailor.core.errors import RecipeError
from tailor.methods.attached import PlainAttached
from tailor.nn.taking_over import taken_over
from tailor.recipe.methods import HeadOptions, MethodOptions

TASKS = {
    "tokens": TaskType.CAUSAL_LM,
    "labels": TaskType.SEQ_CLS,
    "tags": TaskType.TOKEN_CLS,
    "span": None,
    "embedding": TaskType.FEATURE_EXTRACTION,
    "masked": None,
    "sequence": TaskType.SEQ_2_SEQ_LM,
    "noise": None,
}
"""Heads -> PEFT's task types. It has none for masked language models and denoisers, and the one that it has for spans
(QUESTION_ANS, in 0.21) swallows `token_type_ids`: question and context would be one segment while training, and two
once merged."""


ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
LEAD = "base_model.model."
"""How PEFT begins the names of weights in its files."""
SCALES = (
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "num_virtual_tokens"),
    *("alpha_pattern", "rank_pattern", "lora_bias", "target_parameters"),
)
"""What of an adapter's settings its weights have no meaning without."""
LAYERS = (".lora_", ".ia3_", "prompt_embeddings")
"""Marks of what PEFT adds; all else in its files is a head."""


class PeftAttached(PlainAttached):
    """A PEFT model laid onto a base: what it adds, and a new head, trained in fp32; the rest frozen.

    Args:
        peft: what PEFT made; model: what is run, where that is not the same.
        head_share: the multiple of the learning rate at which a new head learns.
        figures: what the summary shows.
    """

    def __init__(
        self,
        base: Base,
        peft: Any,
        *,
        model: Any = None,
        head_share: float = 1.0,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(base, peft if model is None else model)
        self._head_share = head_share
        self.peft = peft
        self._figures = dict(figures or {})

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """What PEFT added and copies of the head, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def rate_shares(self) -> Mapping[str, float]:
        """A head that is trained beside virtual tokens or factors learns at a head's rate, which is far below theirs."""
        return {name: self._head_share for name in self.trainable() if "modules_to_save" in name}

    def begin_with(self, adapter: Path, *, same_head: bool) -> None:
        """Take over the weights of a saved adapter; raises `RecipeError` where they are of another one than this."""
        own_format = getattr(self.base, "begin_adapter", None)
        if own_format is not None:
            with alike(adapter):
                own_format(self.peft, adapter)
            return
        settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        mine = self.peft.active_peft_config.to_dict()
        other = [key for key in SCALES if (settings.get(key) or None) != (mine.get(key) or None)]  # {} and none are one
        if other:
            raise not_alike(f"{other[0]} is {settings.get(other[0])} there and {mine.get(other[0])} here", adapter)
        held = load_file(adapter / ADAPTER_WEIGHTS)
        own = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        head = [name for name in own if not any(mark in name for mark in LAYERS)]
        with alike(adapter):
            prefix = self.base.model.base_model_prefix
            modules = [name.removeprefix(LEAD) for name, _ in self.peft.named_modules()]
            found = taken_over(_bare(held), _bare(own), prefix, [*_bare(dict.fromkeys(head))], LAYERS, modules)
        kept = same_head and settings.get("task_type") == mine.get("task_type")
        taken = {
            name: found.get(name.removeprefix(LEAD), value) for name, value in own.items() if kept or name not in head
        }
        set_peft_model_state_dict(self.peft, {**own, **taken})

    def save(self, folder: Path) -> None:
        """A PEFT folder that names its base as others know it, never by a path of this machine; or the base's own format."""
        own_format = getattr(self.base, "save_adapter", None)
        if own_format is not None:
            own_format(self.peft, folder)
            return
        self.peft.save_pretrained(folder)
        config = folder / ADAPTER_CONFIG
        values = json.loads(config.read_text(encoding="utf-8"))
        values["base_model_name_or_path"] = self.base.name
        config.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)

    def notes(self) -> Mapping[str, Any]:
        """Figures of the method's own."""
        return self._figures


@contextlib.contextmanager
def alike(adapter: Path) -> Iterator[None]:
    """Where a base takes over an adapter in its own format: its `ValueError` becomes the `RecipeError` of one not alike."""
    try:
        yield
    except ValueError as error:
        raise not_alike(str(error), adapter) from None


def _bare(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by the names that they have without PEFT."""
    return {name.removeprefix(LEAD): value for name, value in weights.items()}


def not_alike(why: str, adapter: Path) -> RecipeError:
    """An adapter that cannot go on being trained as the one that the recipe describes."""
    return RecipeError(
        f"the adapter in {adapter} is another than this recipe's, so it cannot go on being trained: {why}",
        where="base.continue_adapter",
        fix="give the method the options that it was made with, or leave continue_adapter out: it is merged then",
    )


def lay(base: Base, config: PeftConfig, *, called: str, where: str) -> Any:
    """A base as a PEFT model with what learns in fp32; PEFT's refusals become a `RecipeError` at `where`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PEFT corrects a layout it was not told of, and says so
            model = get_peft_model(base.model, config)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"{called} does not fit this base: {first}", where=where) from None
    for parameter in model.parameters():
        if parameter.requires_grad:  # PEFT leaves the copy of a head in the base's dtype
            parameter.data = parameter.data.float()
    return model


def share_of_head(options: MethodOptions) -> float:
    """The multiple of a method's learning rate at which a head learns well."""
    return HeadOptions.rate_at_2000 / options.rate_at_2000


def head_modules(base: Base) -> list[str]:
    """Modules of a new head. PEFT copies a module whole, so one inside another is not named again."""
    names = sorted({name.rpartition(".")[0] for name in base.head_parameters()})
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
