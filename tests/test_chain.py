"""A run as a base: what was learned first is still there, and the second artefact is proved against the merged base."""

from pathlib import Path

import pytest

import tailor
from tailor.bases.loading import find
from tailor.recipe.base import BaseOptions

SHORT = ["train.max_steps=4", "evaluate.samples=4", "evaluate.max_new_tokens=4", "evaluate.forgetting=false"]


@pytest.mark.slow
def test_a_run_is_a_base_for_the_next(tmp_path: Path) -> None:
    first = tailor.fit(
        base="pocket:gpt", data="pocket:support", method="lora", output=str(tmp_path / "first"), overrides=SHORT
    )
    second = tailor.fit(
        base=str(first.path), data="pocket:instructions", method="lora", output=str(tmp_path / "second"), overrides=SHORT
    )
    assert second.proof["passed"]
    assert (second.path / "base" / "model.safetensors").exists()
    assert find(BaseOptions(name=str(second.path))).adapters == (
        str(first.path / "model"),
        str(second.path / "model"),
    )
    assert tailor.evaluate(second)["tasks"]["default"]["n"] == 4


def test_an_adapter_on_an_adapter_is_found_innermost_first(tmp_path: Path) -> None:
    """A folder without a recipe is resolved by the base its adapter names."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder, base in ((inner, "pocket:gpt"), (outer, str(inner))):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
    source = find(BaseOptions(name=str(outer)))
    assert source.adapters == (str(inner), str(outer))
    assert source.name == "pocket:gpt+inner+outer"
