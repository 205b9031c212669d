"""What is measured about packing holds for the architectures of the installed transformers, each as a tiny random twin."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from peft import PeftModel
from tiny import (
    SMALL,
    VOCABULARY,
    copies,
    in_this_process,
    load_causal,
    random_features,
    rows_of,
    save_base,
    stock_gradients,
    token_job,
    tokenizer,
    trained_gradients,
    write_rows,
)
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PretrainedConfig

from tailor.bases.packing import IMPLEMENTATION, PROBED_WINDOW, Packing, measure
from tailor.core.errors import RecipeError
from tailor.core.reporting import Reporter
from tailor.engine.loop import fit
from tailor.evaluation import proof
from tailor.nn.bottleneck import read_adapter
from tailor.recipe.methods import AdapterOptions, FullOptions, LoraOptions, MethodOptions, PrefixOptions
from tailor.recipe.recipe import parse
from tailor.verbs.fit import run

EXACT = 1e-5
MOST = 0.9
"""Of the weights that multiply activations, those of experts among them; a router may be left out."""
LENGTHS = (5, 40, 3, 17, 29, 2, 11, 70)
WINDOW = 12

GROUPED = {**SMALL, "num_key_value_heads": 2}
SHAPED = {**GROUPED, "head_dim": 8}
NAMED = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.1,
}
SLIDING = {**SHAPED, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
LINEAR = {
    **SHAPED,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A config, how its rows are laid out, whether LoRA fits it, and the least share of it that LoRA reaches."""

    config: Callable[[], PretrainedConfig]
    mode: str = "segments"
    lora: str = "most"
    share: float = MOST


ARCHITECTURES = {
    "llama": Architecture(lambda: t.LlamaConfig(**GROUPED)),
    "mistral, sliding window": Architecture(lambda: t.MistralConfig(**SHAPED, sliding_window=WINDOW)),
    "qwen2, sliding window": Architecture(
        lambda: t.Qwen2Config(**GROUPED, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=1)
    ),
    "qwen3": Architecture(lambda: t.Qwen3Config(**SHAPED)),
    "qwen3.5": Architecture(lambda: t.Qwen3_5TextConfig(**LINEAR), "padded"),
    "qwen3-next": Architecture(
        lambda: t.Qwen3NextConfig(**LINEAR, **EXPERTS, shared_expert_intermediate_size=24), "padded"
    ),
    "qwen3-moe": Architecture(lambda: t.Qwen3MoeConfig(**SHAPED, **EXPERTS)),
    "mixtral": Architecture(lambda: t.MixtralConfig(**GROUPED, num_local_experts=4)),
    "deepseek-v3": Architecture(
        lambda: t.DeepseekV3Config(
            **{**SMALL, "num_key_value_heads": 4},
            **{
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "n_group": 1,
                "topk_group": 1,
                "first_k_dense_replace": 1,
            },
            **{"moe_intermediate_size": 16, "q_lora_rank": 8, "kv_lora_rank": 8, "v_head_dim": 8},
            **{"qk_rope_head_dim": 4, "qk_nope_head_dim": 4},
        )
    ),
    "gemma2, soft caps": Architecture(lambda: t.Gemma2Config(**SHAPED, sliding_window=WINDOW), "padded"),
    "gemma3": Architecture(lambda: t.Gemma3TextConfig(**SLIDING)),
    "gemma3 with images": Architecture(
        lambda: t.Gemma3Config(
            text_config=t.Gemma3TextConfig(**SLIDING).to_dict(),
            vision_config={**VISION, "image_size": 28, "patch_size": 14},
        ),
        share=0.6,  # the vision part's patches and projector are no linear layers
    ),
    "gemma4": Architecture(
        lambda: t.Gemma4TextConfig(
            **SLIDING, global_head_dim=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY
        )
    ),
    "gpt-oss, sinks": Architecture(
        lambda: t.GptOssConfig(**SLIDING, num_local_experts=4, num_experts_per_tok=2), "padded"
    ),
    "llama4, chunks": Architecture(
        lambda: t.Llama4TextConfig(
            **SHAPED,
            **{"intermediate_size_mlp": 48, "num_local_experts": 4, "attention_chunk_size": 32, "moe_layers": [1]},
            layer_types=["chunked_attention", "full_attention"],
        )
    ),
    "phi": Architecture(lambda: t.PhiConfig(**GROUPED)),
    "phi3": Architecture(lambda: t.Phi3Config(**GROUPED, pad_token_id=0, bos_token_id=1, eos_token_id=2)),
    "gpt2": Architecture(lambda: t.GPT2Config(**NAMED, bos_token_id=1, eos_token_id=2)),
    "gpt-neox": Architecture(lambda: t.GPTNeoXConfig(**SMALL)),
    "gpt-neo": Architecture(
        lambda: t.GPTNeoConfig(
            **{
                name: SMALL[name]
                for name in ("vocab_size", "hidden_size", "max_position_embeddings", "initializer_range")
            },
            **{"num_layers": 2, "num_heads": 4, "window_size": WINDOW, "attention_types": [[["global", "local"], 1]]},
            **{"bos_token_id": 1, "eos_token_id": 2},
        ),
        "padded",
    ),
    "opt": Architecture(
        lambda: t.OPTConfig(
            **{name: SMALL[name] for name in ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers")},
            **{"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 256, "init_std": 0.1},
        )
    ),
    "bloom, alibi": Architecture(
        lambda: t.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.1),
        "padded",
    ),
    "falcon": Architecture(
        lambda: t.FalconConfig(
            **{name: SMALL[name] for name in ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers")},
            initializer_range=0.1,
        ),
        "padded",
    ),
    "lfm2, convolutions": Architecture(
        lambda: t.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"]), "padded"
    ),
    "granite 4, state space": Architecture(
        lambda: t.GraniteMoeHybridConfig(
            **GROUPED,
            **{"layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1},
            **{"mamba_d_state": 8, "num_local_experts": 0, "shared_intermediate_size": 48},
        ),
        "padded",
    ),
    "mpt, alibi": Architecture(
        lambda: t.MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=256),
        "padded",
    ),
    "mamba": Architecture(
        lambda: t.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.1),
        "padded",
        lora="refused",
    ),
}
OF_IMAGES = re.compile(r"vision|projector")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Architecture, Path]:
    """An architecture, and the folder of a random base of it."""
    architecture = ARCHITECTURES[request.param]
    folder = tmp_path_factory.mktemp("base")
    return architecture, save_base(folder, architecture.config(), AutoModelForCausalLM, tokenizer())


def test_rows_in_the_mode_that_was_measured_train_as_rows_alone(
    built: tuple[Architecture, Path], tmp_path: Path
) -> None:
    architecture, folder = built
    job = token_job(load_causal(folder), FullOptions(), random_features(LENGTHS), tmp_path)
    features = list(job.train)
    assert job.base.packing.mode == architecture.mode
    groups = job.base.micro_batches(features, 100_000)
    batch = job.base.collate(features, job.output)
    laid_out = job.base.packing.mode_for(LENGTHS)
    assert batch.inputs["input_ids"].shape[0] == (len(features) if laid_out == "padded" else 1)
    ours = trained_gradients(job, features, groups)
    book = stock_gradients(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), features)
    assert ours.difference(book) < EXACT


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_of_training_are_saved_for_stock_classes(
    built: tuple[Architecture, Path], tmp_path: Path, method: str
) -> None:
    architecture, folder = built
    lora = LoraOptions(rank=4)
    features = random_features(LENGTHS)
    if method == "lora" and architecture.lora == "refused":
        with pytest.raises(RecipeError, match="LoRA does not fit this base"):
            token_job(load_causal(folder), lora, features, tmp_path)
        return
    job = token_job(load_causal(folder), lora if method == "lora" else FullOptions(), features, tmp_path, steps=2)
    assert job.attached.notes().get("adapted_share", 1.0) > architecture.share
    start = copies(job.attached.trainable())
    fit(job)
    moved = copies(job.attached.trainable())
    assert all(bool(torch.isfinite(value).all()) for value in moved.values())
    assert not [name for name in start if torch.equal(start[name], moved[name]) and not OF_IMAGES.search(name)]
    job.attached.save(tmp_path / "model")
    assert not [file for file in tmp_path.glob("model/*.json") if IMPLEMENTATION in file.read_text()]
    artefact = folder if method == "lora" else tmp_path / "model"
    again = AutoModelForCausalLM.from_pretrained(artefact, dtype=torch.float32)
    again = PeftModel.from_pretrained(again, tmp_path / "model") if method == "lora" else again
    row = torch.tensor([[1, *range(20, 50)]])
    with torch.no_grad():
        ours, theirs = (model.eval()(input_ids=row).logits for model in (job.attached.model, again))
    assert float((ours - theirs).abs().max()) < EXACT


@torch.no_grad()
def test_labels_are_as_likely_as_in_rows_of_their_own(built: tuple[Architecture, Path], tmp_path: Path) -> None:
    """Below and beyond the windows of those that have one."""
    _, folder = built
    base = token_job(load_causal(folder), FullOptions(), random_features(LENGTHS), tmp_path).base
    base.model.eval()
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    draw = torch.Generator().manual_seed(0)
    ids = lambda count: torch.randint(7, VOCABULARY - 4, (count,), generator=draw).tolist()  # noqa: E731
    device = torch.device("cpu")
    for shared in (4, 3 * WINDOW):
        begin = ids(shared)
        prompts, endings = [begin + ids(count) for count in (1, 5, 3)], [ids(count) for count in (1, 4, 2)]
        found = base.nats(device)(prompts, endings, device, 1000)
        for prompt, row in zip(prompts, found, strict=True):
            for ending, nats in zip(endings, row, strict=True):
                alone = stock(torch.tensor([prompt + ending]), use_cache=False).logits[0].log_softmax(-1)
                at = range(len(prompt) - 1, len(prompt) + len(ending) - 1)
                assert nats == pytest.approx(float(alone[at, ending].sum()), abs=2e-3)


def test_lora_that_would_miss_fused_experts_says_so(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "base", ARCHITECTURES["gpt-oss, sinks"].config(), AutoModelForCausalLM, tokenizer())
    some = ["q_proj", "k_proj", "v_proj", "o_proj"]
    with pytest.raises(RecipeError, match=r"reaches only .* of this base's linear weights") as raised:
        token_job(load_causal(folder), LoraOptions(targets=some), random_features(LENGTHS), tmp_path)
    assert raised.value.code == "adapted_share"
    assert "method.allow_partial=true" in raised.value.fix
    allowed = LoraOptions(targets=some, allow_partial=True)
    job = token_job(load_causal(folder), allowed, random_features(LENGTHS), tmp_path)
    assert 0 < job.attached.notes()["adapted_share"] < 0.5
    for options, where in ((LoraOptions(dora=True), "method.dora"), (LoraOptions(dropout=0.1), "method.dropout")):
        with pytest.raises(RecipeError, match="fused experts") as raised:
            token_job(load_causal(folder), options, random_features(LENGTHS), tmp_path)
        assert raised.value.where == where


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss, sinks"])
def test_lora_on_experts_is_proved_by_stock_libraries(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved, laid on by PEFT's own loading, merged, and held against the base."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    folder = save_base(tmp_path / "base", ARCHITECTURES[name].config(), AutoModelForCausalLM, tokenizer())
    data = write_rows(tmp_path / "rows.jsonl", rows_of("instruction"))
    train = {"max_steps": 4, "learning_rate": 1e-2, "precision": "fp32"}
    settings = {"data": {"train": str(data), "dev": 0, "test": 0.2}, "evaluate": {"max_new_tokens": 2, "samples": 2}}
    recipe = parse({"base": str(folder), "method": "lora", "train": train, "output": str(tmp_path / "run"), **settings})
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"], answer["proof"]
    assert answer["train"]["adapted_share"] > MOST


# What is measured


def test_a_forward_that_does_not_take_segments_is_padded(llama: Path) -> None:
    class Strict(LlamaForCausalLM):
        def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    model = Strict.from_pretrained(llama)
    assert measure(model).mode == "padded"
    assert model.config._attn_implementation == "sdpa"
    assert measure(LlamaForCausalLM.from_pretrained(llama)).mode == "segments"


def test_a_head_that_runs_everywhere_is_read_where_something_is_learned(llama: Path, tmp_path: Path) -> None:
    base = load_causal(llama)
    job = token_job(base, FullOptions(), random_features(LENGTHS), tmp_path)
    features = list(job.train)
    expected = trained_gradients(job, features, [range(8)])
    forward = base.model.forward
    base.model.forward = lambda logits_to_keep, **inputs: forward(**inputs)
    assert trained_gradients(job, features, [range(8)]).difference(expected) < EXACT


def test_rounding_in_low_precision_is_no_contamination() -> None:
    """Padding alone changes these logits by more than a hundredth of their spread."""
    torch.manual_seed(0)
    shape = {**SHAPED, "num_hidden_layers": 12, "hidden_size": 64}
    for config in (t.LlamaConfig(**shape), t.Qwen3MoeConfig(**shape, **EXPERTS)):
        assert measure(AutoModelForCausalLM.from_config(config).to(torch.bfloat16)).mode == "segments"
    hybrid = t.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"])
    assert measure(AutoModelForCausalLM.from_config(hybrid).to(torch.bfloat16)).mode == "padded"


def test_rows_across_a_switch_of_rotary_frequencies_share_no_micro_batch(tmp_path: Path) -> None:
    """LongRoPE takes its frequencies by the longest row of a forward, so that a long row would change a short one."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 32}
    config = t.Phi3Config(
        **GROUPED,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "original_max_position_embeddings": 32},
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors},
    )
    folder = save_base(tmp_path / "base", config, AutoModelForCausalLM, tokenizer())
    job = token_job(load_causal(folder), FullOptions(), random_features(LENGTHS), tmp_path)
    features = list(job.train)
    book = stock_gradients(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), features)
    groups = job.base.micro_batches(features, 100_000)
    assert groups == [[0, 2, 3, 4, 5, 6], [1, 7]]
    assert trained_gradients(job, features, groups).difference(book) < EXACT
    assert trained_gradients(job, features, [range(len(features))]).difference(book) > 1e-3


def test_rows_beyond_what_was_looked_past_are_padded() -> None:
    wide = PROBED_WINDOW + 88
    config = t.MistralConfig(**{**SHAPED, "max_position_embeddings": 1024}, sliding_window=wide)
    found = measure(AutoModelForCausalLM.from_config(config))
    assert found.longest_segment == wide
    assert [found.mode_for((20, length)) for length in (wide, wide + 1)] == ["segments", "padded"]
    assert found.groups((20, wide + 1, wide, 30), 10_000) == [[0, 2, 3], [1]]
    assert Packing("segments", 0.0).mode_for((10**6,)) == "segments"


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss, sinks", "deepseek-v3", "llama4, chunks"])
def test_an_adapter_follows_experts_as_a_whole(name: str, tmp_path: Path) -> None:
    """Bit for bit the base at the start, in the part of each block that routes; what learns is all of it."""
    folder = save_base(tmp_path / "base", ARCHITECTURES[name].config(), AutoModelForCausalLM, tokenizer())
    job = token_job(load_causal(folder), AdapterOptions(bottleneck=4), random_features(LENGTHS), tmp_path, steps=2)
    parts = {layer.rpartition("/")[2] for layer in job.attached.model.bottlenecks}
    assert parts & {"mlp", "feed_forward"}
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    row = torch.tensor([[1, *range(20, 50)]])
    with torch.no_grad():
        assert torch.equal(job.attached.model.eval()(input_ids=row).logits, stock(input_ids=row).logits)
    start = copies(job.attached.trainable())
    fit(job)
    moved = copies(job.attached.trainable())
    assert all(any(not torch.equal(start[key], moved[key]) for key in start if part in key) for part in parts)
    (tmp_path / "model").mkdir()
    job.attached.save(tmp_path / "model")
    again = read_adapter(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path / "model").eval()
    with torch.no_grad():
        ours = job.attached.model.eval()(input_ids=row).logits
        assert float((ours - again(input_ids=row).logits).abs().max()) < EXACT
        assert not torch.equal(ours, stock(input_ids=row).logits)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("qwen3-next", PrefixOptions(tokens=3), "layer 0 of this base keeps one state for all earlier tokens"),
        ("lfm2, convolutions", PrefixOptions(tokens=3), "layer 0 of this base keeps one state for all earlier tokens"),
        ("mamba", PrefixOptions(tokens=3), "this base's layers keep one state for all earlier tokens"),
        ("qwen3.5", AdapterOptions(bottleneck=4), r"the block model\.layers\.0 has no attention"),
    ],
)
def test_what_a_hybrid_has_no_place_for_is_refused_with_the_reason(
    name: str, options: MethodOptions, reason: str, tmp_path: Path
) -> None:
    folder = save_base(tmp_path / "base", ARCHITECTURES[name].config(), AutoModelForCausalLM, tokenizer())
    with pytest.raises(RecipeError, match=reason) as raised:
        token_job(load_causal(folder), options, random_features(LENGTHS), tmp_path)
    assert raised.value.code == "no_such_pair"
