"""Every fast way gives what the naive one gives: the loss, and every gradient."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import (
    make_job,
    make_recipe,
    random_features,
    randomised,
    rows_of,
    save_base,
    save_llama,
    tokenizer,
    trained_gradients,
    write_rows,
)
from torch.nn.functional import cross_entropy, linear
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from tailor.engine.loop import Job
from tailor.methods.fast_lora import FastLinear, quicken
from tailor.nn.head import CHUNK_BYTES, FEWEST_ROWS, UnreadRows, before_head, chunk_rows, head_is_last
from tailor.nn.lora import lora_linear
from tailor.nn.segments import segmented_causal_attention

EXACT = 1e-5


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def job_for(base: Path, folder: Path, exact: str, method: Any, form: str = "chat") -> Job:
    folder.mkdir()
    data = write_rows(folder / f"{form}.jsonl", rows_of(form))
    job = make_job(make_recipe(base, data, folder / "run", method=method, train={"exact": exact}))
    randomised(job.attached.trainable())
    return job


# The layer


@pytest.mark.parametrize("rows", [3, 400])
@pytest.mark.parametrize("bias", [True, False])
def test_a_lora_layer_has_the_gradients_of_its_products_one_by_one(rows: int, bias: bool) -> None:
    """Few rows take the factors one by one, many take them multiplied into the weight."""
    leaves = [drawn(2, rows, 48), drawn(8, 48, seed=1), drawn(64, 8, seed=2)]
    weight, shift, upstream = drawn(64, 48, seed=3), drawn(64, seed=4) if bias else None, drawn(2, rows, 64, seed=5)
    ours, book = [[leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2)]
    found = lora_linear(ours[0], weight, shift, (ours[1], ours[2]), 0.7)
    expected = linear(book[0], weight, shift) + linear(linear(book[0], book[1]), book[2]) * 0.7
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=EXACT)
    (found * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for own, theirs in zip(ours, book, strict=True):
        assert float((own.grad - theirs.grad).abs().max() / theirs.grad.abs().max()) < EXACT


def test_a_small_update_is_not_rounded_away_in_half_precision() -> None:
    x, weight = drawn(512, 64).bfloat16(), drawn(64, 64, seed=1).bfloat16()
    a, b = drawn(4, 64, seed=2), 1e-4 * drawn(64, 4, seed=3)
    moved = (lora_linear(x, weight, None, (a, b), 1.0) - linear(x, weight)).float()
    rounded = linear(x, (weight.float() + b @ a).bfloat16()) - linear(x, weight)
    expected = linear(linear(x.float(), a), b)
    correlation = torch.corrcoef(torch.stack([moved.flatten(), expected.flatten()]))[0, 1]
    worse = torch.corrcoef(torch.stack([rounded.float().flatten(), expected.flatten()]))[0, 1]
    assert correlation > worse


def peft_model(base: Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **settings))


def test_peft_keeps_its_own_forward_where_a_layer_is_more_than_two_products(llama: Path) -> None:
    assert quicken(peft_model(llama)) == 14
    for settings in ({"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}):
        assert quicken(peft_model(llama, **settings)) == 0


def test_an_adapter_that_is_switched_off_or_merged_is_so(llama: Path) -> None:
    model, ids = peft_model(llama), torch.arange(5)[None]
    base = model.get_base_model()
    quicken(model)
    randomised(dict(model.named_parameters()))
    tuned = model(input_ids=ids).logits
    with model.disable_adapter():
        off = model(input_ids=ids).logits
    assert float((tuned - off).detach().abs().max()) > 1e-2
    assert sum(isinstance(module, FastLinear) for module in base.modules()) == 14
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, tuned, atol=1e-4, rtol=1e-4)


def test_layers_that_share_an_input_share_its_cast_and_no_later_one(llama: Path) -> None:
    model = peft_model(llama)
    quicken(model)
    layer = next(module for module in model.modules() if isinstance(module, FastLinear))
    x = drawn(1, 6, 32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = layer(x), layer(x)
        casts = [found.grad_fn.saved_tensors[0] for found in (first, second)]
        with torch.no_grad():
            x.add_(1)
        third = layer(x)
    assert casts[0].data_ptr() == casts[1].data_ptr()
    torch.testing.assert_close(third.grad_fn.saved_tensors[0], x.detach().bfloat16())


def kept_bytes(model: Any, ids: torch.Tensor) -> int:
    """Of what a forward keeps for its backward, parameters apart."""
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        states = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state
    del states
    return sum(kept.values())


def test_nothing_is_kept_that_the_gradient_does_not_need(tmp_path: Path) -> None:
    """Frozen weights in bf16 and factors in fp32, as a large base is trained: PEFT keeps each layer's input once more."""
    base = save_llama(tmp_path / "base")
    ids, sizes = torch.arange(128)[None], []
    for fast in (False, True):
        model = peft_model(base).bfloat16()
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.data = value.data.float()
        if fast:
            quicken(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sizes.append(kept_bytes(model, ids))
    assert sizes[1] < 0.8 * sizes[0]


# The output layer


@pytest.mark.parametrize("moving", ["states", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_of_logits_have_the_loss_and_the_gradients_of_all_logits(
    moving: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailor.nn.head.FEWEST_ROWS", 16)
    monkeypatch.setattr("tailor.nn.head.CHUNK_BYTES", 16)
    head = torch.nn.Linear(24, 50, bias=bias).requires_grad_(moving == "all")
    states, targets, weights = drawn(70, 24), torch.arange(70) % 50, drawn(70).abs()
    results = []
    for fast in (True, False):
        own = states.clone().requires_grad_()
        head.zero_grad()
        logits = head(own)
        naive = (cross_entropy(logits, targets, reduction="none") * weights).sum()
        total = UnreadRows(own, head, None).cross_entropy(targets, weights) if fast else naive
        (3 * total).backward()
        results.append([total.detach(), own.grad, *(value.grad for value in head.parameters() if moving == "all")])
    for ours, book in zip(*results, strict=True):
        torch.testing.assert_close(ours, book, atol=EXACT, rtol=EXACT)


def test_an_adapted_output_layer_is_run_by_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailor.nn.head.FEWEST_ROWS", 16)
    head = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.Linear(8, 50))
    head.out_features = 1 << 40  # as large a vocabulary as makes chunks of sixteen rows
    states, targets, weights = drawn(70, 24), torch.arange(70) % 50, drawn(70).abs()
    total = UnreadRows(states, head, None).cross_entropy(targets, weights)
    found = torch.autograd.grad(total, list(head.parameters()))
    book = (cross_entropy(head(states), targets, reduction="none") * weights).sum()
    for ours, theirs in zip(found, torch.autograd.grad(book, list(head.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, atol=EXACT, rtol=EXACT)


def test_chunks_are_bounded_in_bytes_and_in_rows() -> None:
    assert chunk_rows(1000) * 4 * 1000 <= CHUNK_BYTES
    assert chunk_rows(1 << 20) == FEWEST_ROWS


def test_logits_that_are_capped_behind_the_output_layer_are_left_to_the_model(tmp_path: Path) -> None:
    shape = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    capped = save_base(tmp_path / "gemma", Gemma2Config(**shape, **heads), AutoModelForCausalLM, tokenizer())
    plain = save_base(tmp_path / "llama", LlamaConfig(**shape, **heads), AutoModelForCausalLM, tokenizer())
    assert not head_is_last(AutoModelForCausalLM.from_pretrained(capped))
    model = AutoModelForCausalLM.from_pretrained(plain)
    assert head_is_last(model)
    ids = torch.arange(5)[None]
    states = before_head(model.lm_head, lambda: model(input_ids=ids))
    torch.testing.assert_close(model.lm_head(states), model(input_ids=ids).logits)
    fast, naive = (job_for(capped, tmp_path / exact, exact, "full") for exact in ("fast", "naive"))
    features = random_features((5, 17, 9))
    found = trained_gradients(fast, features, [range(3)])
    assert found.difference(trained_gradients(naive, features, [range(3)])) < EXACT


# Attention


@pytest.mark.parametrize("autocast", [True, False])
def test_short_segments_in_half_precision_are_attended_in_full(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotary positions leave queries in fp32 where autocast asks for less; bf16 is what comes out in either case."""
    rounded = [drawn(1, heads, 60, 16, seed=heads).bfloat16() for heads in (4, 2, 2)]
    states = [(state.float() if autocast else state).requires_grad_() for state in rounded]
    exact = segmented_causal_attention(*(state.float() for state in states), (20, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        wide = segmented_causal_attention(*states, (20, 40))
        monkeypatch.setattr("tailor.nn.segments.SHORT", 0)
        half = segmented_causal_attention(*states, (20, 40))
    assert wide.dtype == torch.bfloat16
    assert torch.equal(wide, exact.bfloat16())
    assert not torch.equal(half, wide)
    for ours, theirs in zip(
        torch.autograd.grad(wide.float().sum(), states), torch.autograd.grad(exact.sum(), states), strict=True
    ):
        torch.testing.assert_close(ours.float(), theirs.float(), atol=0.05, rtol=0.02)


# The whole step


@pytest.mark.parametrize(
    "method",
    [
        "full",
        {"name": "lora", "rank": 4},
        {"name": "lora", "rank": 4, "dora": True},
        {"name": "soft_prompt", "tokens": 4},
    ],
    ids=["full", "lora", "dora", "soft_prompt"],
)
def test_the_switch_changes_no_gradient(llama: Path, tmp_path: Path, method: Any) -> None:
    fast, naive = (job_for(llama, tmp_path / exact, exact, method) for exact in ("fast", "naive"))
    assert naive.base.packing.mode == "padded"
    features = random_features((5, 40, 3, 17, 29, 2, 11, 64))
    found = trained_gradients(fast, features, [range(8)])
    book = trained_gradients(naive, features, [range(8)])
    assert found.difference(book) < EXACT
    assert max(float(value.abs().max()) for value in book.values.values()) > 1e-4


def test_the_switch_turns_off_what_is_ours(llama: Path, tmp_path: Path) -> None:
    layers = {}
    for exact in ("fast", "naive"):
        job = job_for(llama, tmp_path / exact, exact, "lora")
        batch = job.base.collate(random_features((5, 17)), job.output)
        outputs = job.base.forward(job.attached.model, batch)
        fast = sum(isinstance(module, FastLinear) for module in job.attached.model.modules())
        layers[exact] = fast, outputs.unread is not None, batch.computed_tokens
    assert layers == {"fast": (14, True, 22), "naive": (0, False, 34)}


def test_the_fast_way_is_the_faster_one(tmp_path: Path) -> None:
    """Steps taken in turns, so that whatever else the machine does falls on both; no seconds are asked for."""
    shape = {"vocab_size": 8192, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512)
    base = save_base(tmp_path / "base", config, AutoModelForCausalLM, tokenizer())
    jobs = {exact: job_for(base, tmp_path / exact, exact, "lora") for exact in ("naive", "fast")}
    features = random_features((16, 240, 30, 50, 20, 70, 40, 90))
    spent: dict[str, list[float]] = {exact: [] for exact in jobs}
    for _ in range(4):
        for exact, job in jobs.items():
            start = time.process_time()
            trained_gradients(job, features, [range(8)])
            spent[exact].append(time.process_time() - start)
    assert min(spent["naive"]) > 2 * min(spent["fast"])
