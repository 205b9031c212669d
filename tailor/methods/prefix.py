"""Prefix tuning through PEFT: learned keys and values in every layer, that start as those of real tokens."""

from typing import Any, ClassVar

import torch
from peft import PrefixTuningConfig, initialize_kv_prefix_from_past_key_values

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.soft_prompt import UNPACKED, start_ids
from tailor.methods.with_peft import TASKS, PeftAttached, head_modules, lay, share_of_head
from tailor.recipe.methods import PrefixOptions


class Prefix:
    """Virtual tokens as keys and values that every layer attends to, all else frozen (Li & Liang 2021).

    Without the projection of the paper: it trains ten times the weights, and is thrown away in the end.
    """

    name: ClassVar[str] = "prefix"
    needs: ClassVar[frozenset[Need]] = frozenset({"past_kv"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: PrefixOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> PeftAttached:
        """Put the prefix in front of a loaded base; raises `RecipeError` where its layers keep no plain keys and values."""
        base.pad_rows(UNPACKED)
        ids = start_ids(base.tokenizer, self.options.init, self.options.text, self.options.tokens)
        cache = _cache_of(base.model, ids)
        _check_layers(cache)
        config = PrefixTuningConfig(
            num_virtual_tokens=self.options.tokens,
            modules_to_save=head_modules(base) or None,
            task_type=TASKS[base.head],
        )
        model = lay(base, config, called="prefix tuning", where="method")
        try:
            initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise RecipeError(
                f"this base's layers do not all keep keys and values of one shape: {error}",
                where="method",
                fix="choose method: soft_prompt or lora",
                code="no_such_pair",
            ) from None
        return PeftAttached(base, model, head_share=share_of_head(self.options))


def _check_layers(cache: Any) -> None:
    """Raise where a layer keeps no keys and values of its tokens: state spaces, linear attention, convolutions."""
    layers = getattr(cache, "layers", None) or []
    without = [
        place for place, layer in enumerate(layers) if not isinstance(getattr(layer, "keys", None), torch.Tensor)
    ]
    if layers and not without:
        return
    which = f"layer {without[0]} of this base keeps" if without else "this base's layers keep"
    raise RecipeError(
        f"{which} one state for all earlier tokens instead of their keys and values, so a prefix has no place in it",
        where="method",
        fix="choose method: soft_prompt or lora",
        code="no_such_pair",
    )


@torch.no_grad()
def _cache_of(model: Any, ids: list[int]) -> Any:
    """The keys and values that the base computes for a row of tokens."""
    was_training = model.training
    model.eval()
    row = torch.tensor([ids], device=next(model.parameters()).device)
    trunk = model.base_model  # a head for tags gives no cache back
    found = trunk(input_ids=row, attention_mask=torch.ones_like(row), use_cache=True)
    model.train(was_training)
    return getattr(found, "past_key_values", None)
