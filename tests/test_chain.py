"""A run as a base: what was learned first is still there, and the second artefact is proved against the merged base."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tailor
from tailor.bases.heads import HEADS
from tailor.bases.loading import find
from tailor.bases.weights import merged
from tailor.recipe.base import BaseOptions

SHORT = ["train.max_steps=4", "evaluate.samples=4", "evaluate.max_new_tokens=4", "evaluate.forgetting=false"]


@pytest.mark.slow
def test_a_run_is_a_base_for_the_next(tmp_path: Path) -> None:
    first = tailor.fit(
        base="pocket:gpt", data="pocket:support", method="lora", output=str(tmp_path / "first"), overrides=SHORT
    )
    second = tailor.fit(
        base=str(first.path),
        data="pocket:instructions",
        method="lora",
        output=str(tmp_path / "second"),
        overrides=SHORT,
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


def prepared_job(tmp_path: Path, **recipe: object):  # type: ignore[no-untyped-def]
    """A job of a few rows, ready to step."""
    from tailor.compose import choose_place, make_job, prepare, resolved_recipe
    from tailor.core.reporting import Reporter
    from tailor.recipe.recipe import parse

    prepared = prepare(parse(recipe))
    place = choose_place(prepared.recipe, prepared.base.source)
    prepared.recipe = resolved_recipe(prepared, place)
    return make_job(prepared, prepared.recipe, place, tmp_path, Reporter(quiet=True))


def quick_run(tmp_path: Path, base: str, data: str) -> Path:
    """A run's artefact without its proof and evaluation: two steps of LoRA, and the folder as `fit` leaves it."""
    import json

    from tailor.engine.loop import fit
    from tailor.recipe.recipe import parse

    recipe = {"base": base, "data": data, "method": "lora", "train": {"max_steps": 2}, "output": str(tmp_path)}
    job = prepared_job(tmp_path, **recipe)
    fit(job)
    job.attached.save(tmp_path / "model")
    job.base.save_tokenizer(tmp_path / "model")
    if job.output.labels:
        (tmp_path / "model" / "labels.json").write_text(json.dumps(list(job.output.labels)))
    parse(recipe).save(tmp_path / "recipe.yaml")
    return tmp_path


def test_a_chained_run_packs_exactly(tmp_path: Path) -> None:
    """Saving the merged base on the way must not change the attention that training runs with."""
    from tailor.engine.loop import dev_loss

    (tmp_path / "one").mkdir()
    first = quick_run(tmp_path / "one", "pocket:gpt", "pocket:support")
    job = prepared_job(
        tmp_path / "two", base=str(first), data="pocket:support", method="lora", output=str(tmp_path / "two")
    )
    assert job.base.packing.mode == "segments"
    packed = dev_loss(job)
    job.base.packing = replace(job.base.packing, mode="padded")
    assert dev_loss(job) == pytest.approx(packed, abs=1e-5)


def test_an_encoder_takes_other_labels_on_top_of_a_run(tmp_path: Path) -> None:
    """The inner adapter's head is of another size: it is left behind, and the new one counts as new."""
    (tmp_path / "one").mkdir()
    first = quick_run(tmp_path / "one", "pocket:bert", "pocket:reviews")
    job = prepared_job(
        tmp_path / "two", base=str(first), data="pocket:tickets", method="lora", output=str(tmp_path / "two")
    )
    assert job.base.new_head
    assert len(job.output.labels) == 6


@pytest.mark.parametrize(("base", "data"), [("pocket:gpt", "pocket:support"), ("pocket:bert", "pocket:tickets")])
def test_under_bf16_what_learns_is_fp32_and_positions_are_not_rounded(tmp_path: Path, base: str, data: str) -> None:
    import torch

    job = prepared_job(
        tmp_path, base=base, data=data, method="lora", train={"precision": "bf16"}, output=str(tmp_path / "out")
    )
    assert {value.dtype for value in job.attached.trainable().values()} == {torch.float32}
    frozen = {value.dtype for value in job.attached.model.parameters() if not value.requires_grad}
    assert frozen == {torch.bfloat16}
    buffers = dict(job.attached.model.named_buffers())
    assert all(value.dtype == torch.float32 for name, value in buffers.items() if "inv_freq" in name)


@pytest.mark.parametrize(("first", "second"), [("labels", "embedding"), ("embedding", "labels"), ("masked", "labels")])
def test_an_adapter_is_merged_under_another_head_too(bert: Path, tmp_path: Path, first: str, second: str) -> None:
    """What its layers compute is the same, whatever the trunk is called in the model that it was made on."""
    made_on, wanted = (HEADS[head].model_class.from_pretrained(bert) for head in (first, second))
    trunk_of = {"embedding": lambda model: model}
    lora = LoraConfig(
        target_modules="all-linear", init_lora_weights=False, exclude_modules=["classifier", "cls", "pooler"]
    )
    torch.manual_seed(0)
    tuned = get_peft_model(made_on, lora)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = tuned.merge_and_unload()
    found = merged(wanted, tmp_path / "adapter")
    pick = [trunk_of.get(head, lambda model: model.bert)(model) for head, model in ((first, expected), (second, found))]
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        outputs = [model.eval()(input_ids=ids).last_hidden_state for model in pick]
        plain = HEADS["embedding"].model_class.from_pretrained(bert).eval()(input_ids=ids).last_hidden_state
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert not torch.allclose(outputs[1], plain, atol=1e-2)
