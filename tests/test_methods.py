"""What each method does to a base, against twins written without it, and how its artefact comes back."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALL, make_job, make_recipe, rows_of, save_base, save_llama, tokenizer, write_rows
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    GPT2Config,
    LlamaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from tailor.bases import weights
from tailor.bases.loading import find
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, OutputSpec
from tailor.core.errors import BaseError, MissingExtra, RecipeError
from tailor.core.examples import Message
from tailor.core.reporting import Reporter
from tailor.engine.loop import Job
from tailor.evaluation import proof, stock_forward
from tailor.evaluation.answering import generate_ids
from tailor.nn.bottleneck import find_layers
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import parse
from tailor.verbs import own_forward
from tailor.verbs.fit import run
from tailor.verbs.prove import prove_model
from tailor.verbs.talk import model_of

EXACT = 1e-5
CPU = torch.device("cpu")


def job_for(base: Path, folder: Path, form: str, method: Any, **sections: Any) -> Job:
    data = write_rows(folder / f"{form}.jsonl", rows_of(form))
    return make_job(make_recipe(base, data, folder / "run", method=method, **sections))


def shaken(job: Job) -> Job:
    """What learns, moved at random, so that all of it matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in job.attached.trainable().values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    job.attached.model.eval()
    return job


def saved(job: Job, base: Path) -> Path:
    """A run folder as `fit` leaves it, without its proof and evaluation."""
    folder = job.folder / "model"
    folder.mkdir()
    job.attached.save(folder)
    job.base.save_tokenizer(folder)
    if job.output.labels:
        (folder / "labels.json").write_text(json.dumps(list(job.output.labels)))
    (folder / "base.json").write_text(json.dumps(job.base.source.identity()))
    parse({"base": str(base), "data": "none"}).save(job.folder / "recipe.yaml")
    return job.folder


def reopened(folder: Path, output: OutputSpec) -> Any:
    """A run as a base, loaded in fp32."""
    source = find(BaseOptions(name=str(folder)))
    base = registry.load("base", source.family)(source, EncodeOptions())
    base.load(output, torch.float32)
    base.model.eval()
    return base


def rows_out(base: Any, model: Any, job: Job, count: int = 6) -> torch.Tensor:
    """A model's outputs for the first training rows, by the base's own collate and forward."""
    with torch.no_grad():
        return base.forward(model, base.collate([job.train[index] for index in range(count)], job.output)).logits


# LoRA


def test_rslora_scales_by_the_root_of_the_rank_and_ranks_keep_the_scale(llama: Path, tmp_path: Path) -> None:
    for rslora, scale in ((False, 32 / 16), (True, 32 / 4)):
        (folder := tmp_path / str(rslora)).mkdir()
        method = {"name": "lora", "rslora": rslora, "ranks": {"v_proj": 4, "model.layers.1.mlp.*": 8}}
        model = job_for(llama, folder, "chat", method).attached.model.get_base_model()
        layer, narrow = model.model.layers[1].self_attn.q_proj, model.model.layers[0].self_attn.v_proj
        assert layer.scaling["default"] == pytest.approx(scale)
        assert narrow.scaling["default"] == pytest.approx(scale)
        assert narrow.lora_A["default"].weight.shape[0] == 4
        assert model.model.layers[1].mlp.up_proj.lora_A["default"].weight.shape[0] == 8
        assert model.model.layers[0].mlp.up_proj.lora_A["default"].weight.shape[0] == 16


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [
        ({"nothing_proj": 4}, "no adapted layer is named like 'nothing_proj'"),
        ({"q_*": 4, "q_proj": 8}, "named by both"),
    ],
)
def test_ranks_that_name_no_layer_or_one_twice_are_refused(
    llama: Path, tmp_path: Path, ranks: dict[str, int], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason) as raised:
        job_for(llama, tmp_path, "chat", {"name": "lora", "ranks": ranks})
    assert raised.value.where == "method.ranks"
    assert raised.value.fix


def test_dora_learns_the_size_of_each_output(llama: Path, tmp_path: Path) -> None:
    job = job_for(llama, tmp_path, "chat", {"name": "lora", "dora": True})
    assert [name for name in job.attached.trainable() if "magnitude" in name]


# (IA)^3


def test_ia3_finds_layers_by_name_and_says_where_it_cannot(llama: Path, tmp_path: Path) -> None:
    from tailor.methods.ia3 import Ia3
    from tailor.recipe.methods import Ia3Options

    method = Ia3(Ia3Options())
    unknown = AutoModelForCausalLM.from_pretrained(llama)
    unknown.config.model_type = "nobody-knows"
    assert method._layers(unknown) == (["k_proj", "v_proj", "down_proj"], ["down_proj"])
    for block in unknown.model.layers:
        block.mlp.strange = block.mlp.down_proj
        del block.mlp.down_proj
    with pytest.raises(RecipeError, match="feed-forward outputs of a nobody-knows model") as raised:
        method._layers(unknown)
    assert "strange" in raised.value.fix


def test_ia3_takes_layers_by_name(llama: Path, tmp_path: Path) -> None:
    method = {"name": "ia3", "targets": ["q_proj", "up_proj"], "feedforward": ["up_proj"]}
    trainable = job_for(llama, tmp_path, "chat", method).attached.trainable()
    assert len(trainable) == 4
    assert {tuple(value.shape) for value in trainable.values()} == {(32, 1), (1, 32)}
    with pytest.raises(RecipeError, match=r"is not one of method\.targets"):
        job_for(llama, tmp_path, "chat", {**method, "feedforward": ["down_proj"]})


# Virtual tokens


def test_a_prefix_starts_as_its_text_in_front(llama: Path, tmp_path: Path) -> None:
    job = job_for(llama, tmp_path, "chat", {"name": "prefix", "tokens": 7, "text": "the red stone is near"})
    start = tokenizer()("the red stone is near", add_special_tokens=False)["input_ids"]
    front = (start * 7)[:7]
    stock = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    for index in range(4):
        ids = list(job.train[index].input_ids)
        ours = job.attached.model.eval()(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
        twin = stock(input_ids=torch.tensor([front + ids])).logits[:, len(front) :]
        assert float((ours - twin).abs().max()) < EXACT


def test_a_soft_prompt_starts_as_its_text_in_front(llama: Path, tmp_path: Path) -> None:
    job = job_for(llama, tmp_path, "chat", {"name": "soft_prompt", "tokens": 5, "text": "the red stone is near a boat"})
    front = tokenizer()("the red stone is near a boat", add_special_tokens=False)["input_ids"][:5]
    stock = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    feature = job.train[0]
    ours = rows_out(job.base, job.attached.model.eval(), job, 1)
    twin = stock(input_ids=torch.tensor([[*front, *feature.input_ids]])).logits[0, len(front) :]
    places = [place - 1 for place, weight in enumerate(feature.weights) if weight]
    assert float((ours - twin[places]).detach().abs().max()) < EXACT


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_a_soft_prompt_can_start_from_the_vocabulary_or_at_random(bert: Path, tmp_path: Path, init: str) -> None:
    job = job_for(bert, tmp_path, "single", {"name": "soft_prompt", "init": init, "tokens": 6})
    rows = job.attached.peft.prompt_encoder["default"].embedding.weight
    table = job.attached.peft.word_embeddings.weight
    found = (rows[:, None] == table[None]).all(-1).any(1)
    assert bool(found.all()) == (init == "vocabulary")
    assert float(rows.std() / table.std()) == pytest.approx(1, abs=0.4)


CASES = [
    *((method, "chat", "llama") for method in ("prefix", "soft_prompt")),
    *((method, "tags", "llama") for method in ("prefix", "soft_prompt")),
    ("prefix", "single", "llama"),
    *(("soft_prompt", form, "bert") for form in ("single", "tags", "pair")),
]


@pytest.mark.parametrize(("method", "form", "family"), CASES)
def test_our_forward_is_pefts_own_on_rows_alone(
    request: pytest.FixtureRequest, tmp_path: Path, method: str, form: str, family: str
) -> None:
    """Rows padded into a batch, positions counted without virtual tokens; PEFT gets each row alone, its outputs whole."""
    job = shaken(job_for(request.getfixturevalue(family), tmp_path, form, {"name": method, "tokens": 4}))
    count = 5
    ours = rows_out(job.base, job.attached.model, job, count)
    peft, twins = job.attached.peft, []
    for index in range(count):
        feature = job.train[index]
        inputs = {"input_ids": torch.tensor([feature.input_ids])}
        inputs |= {name: torch.tensor([values]) for name, values in feature.extras.items()}
        with torch.no_grad():
            whole = peft(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits[0]
        if form in ("single", "pair"):
            twins.append(whole[None])
            continue
        assert len(whole) == len(feature) + (4 if method == "soft_prompt" else 0)
        own = whole[-len(feature) :]
        places = (
            [place - 1 for place, weight in enumerate(feature.weights) if weight]
            if form == "chat"
            else [place for place, first in enumerate(feature.marks["first"]) if first]
        )
        twins.append(own[places])
    assert float((ours - torch.cat(twins)).abs().max()) < EXACT


@pytest.mark.parametrize("method", ["prefix", "soft_prompt"])
def test_rows_are_padded_with_the_reason_and_have_room_for_virtual_tokens(
    llama: Path, tmp_path: Path, method: str
) -> None:
    job = job_for(llama, tmp_path, "chat", {"name": method, "tokens": 30})
    assert job.base.packing.mode == "padded"
    assert job.base.packing.reason == "virtual tokens stand in front of every row"
    assert job.base.context == 256 - 30


@pytest.mark.parametrize("method", ["prefix", "soft_prompt", "adapter"])
def test_a_run_that_cannot_be_merged_is_a_base_that_answers_but_not_one_to_train_on(
    llama: Path, tmp_path: Path, method: str
) -> None:
    job = shaken(job_for(llama, tmp_path, "chat", method))
    trained = rows_out(job.base, job.attached.model, job)
    folder = saved(job, llama)
    base = reopened(folder, job.output)
    assert float((rows_out(base, base.model, job) - trained).abs().max()) < EXACT
    prompts = [
        base.chat.prompt((Message("user", text),)) for text in ("the stone", "the boat is near near near a lamp")
    ]
    together = generate_ids(base, prompts, 6, CPU)
    assert together == [generate_ids(base, [prompt], 6, CPU)[0] for prompt in prompts]
    assert [ids for ids, _ in together] == [greedily(base, prompt, 6) for prompt in prompts]
    with pytest.raises(RecipeError, match="cannot be merged") as raised:
        job_for(folder, tmp_path, "chat", "lora")
    assert raised.value.where == "base"
    assert raised.value.fix


def greedily(base: Any, prompt: list[int], limit: int) -> list[int]:
    """The same without a cache, by one whole forward per token."""
    ids, stops = list(prompt), base.chat.stop_ids()
    while len(ids) < len(prompt) + limit:
        row = torch.tensor([ids])
        with torch.no_grad():
            chosen = int(base.model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, -1].argmax())
        if chosen in stops:
            break
        ids.append(chosen)
    return ids[len(prompt) :]


@pytest.mark.parametrize("method", ["soft_prompt", "adapter"])
def test_an_encoders_run_brings_its_head_back(bert: Path, tmp_path: Path, method: str) -> None:
    job = shaken(job_for(bert, tmp_path, "single", method))
    trained = rows_out(job.base, job.attached.model, job)
    base = reopened(saved(job, bert), job.output)
    assert not base.new_head
    assert float((rows_out(base, base.model, job) - trained).abs().max()) < EXACT
    other = OutputSpec("labels", ("x", "y"), "single_label_classification")
    assert reopened(job.folder, other).new_head


@pytest.mark.parametrize(
    ("method", "form", "family", "reason"),
    [
        ("prefix", "single", "bert", "keys and values of earlier tokens"),
        ("soft_prompt", "single", "llama", "finds the end of a row by its token ids"),
    ],
)
def test_virtual_tokens_that_cannot_be_say_why(
    request: pytest.FixtureRequest, tmp_path: Path, method: str, form: str, family: str, reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason) as raised:
        job_for(request.getfixturevalue(family), tmp_path, form, method)
    assert raised.value.fix


# Adapters


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize(("family", "form"), [("llama", "chat"), ("bert", "tags")])
def test_an_adapter_changes_nothing_at_the_start(
    request: pytest.FixtureRequest, tmp_path: Path, placement: str, family: str, form: str
) -> None:
    method = {"name": "adapter", "placement": placement, "bottleneck": 4}
    job = job_for(request.getfixturevalue(family), tmp_path, form, method)
    model: Any = job.attached.model.eval()
    start = rows_out(job.base, model, job)
    with model.disable_adapter():
        assert torch.equal(rows_out(job.base, model, job), start)
    moved = rows_out(job.base, shaken(job).attached.model, job)
    assert not torch.equal(moved, start)


def test_an_adapter_is_the_book_formula_behind_its_layer(llama: Path, tmp_path: Path) -> None:
    """A twin whose layer is replaced by one that computes o + U gelu(D o) itself."""
    job = shaken(job_for(llama, tmp_path, "chat", {"name": "adapter", "placement": "pfeiffer", "bottleneck": 4}))
    weights = job.attached.model.adapter_weights()
    stock = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    for place, block in enumerate(stock.model.layers):
        block.mlp.down_proj = ByTheBook(block.mlp.down_proj, weights, f"model.layers.{place}.mlp.down_proj.bottleneck")
    for index in range(3):
        row = torch.tensor([job.train[index].input_ids])
        with torch.no_grad():
            ours = job.attached.model(input_ids=row, attention_mask=torch.ones_like(row)).logits
            assert float((ours - stock(input_ids=row).logits).abs().max()) < EXACT


class ByTheBook(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module, weights: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.layer, self.weights, self.name = layer, weights, name

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out, part = self.layer(states), {key: self.weights[f"{self.name}.{key}"] for key in KEYS}
        narrow = torch.nn.functional.gelu(out @ part["down.weight"].T + part["down.bias"])
        return out + narrow @ part["up.weight"].T + part["up.bias"]


KEYS = ("down.weight", "down.bias", "up.weight", "up.bias")


def test_layers_are_found_by_structure(llama: Path, bert: Path) -> None:
    small = {"vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(**small))
    assert find_layers(gpt2, "houlsby") == ["transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_proj"]
    first = find_layers(AutoModelForCausalLM.from_pretrained(llama), "houlsby")[:2]
    assert first == ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"]
    encoder = find_layers(AutoModelForMaskedLM.from_pretrained(bert), "houlsby")[:2]
    assert encoder == ["bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.output.dense"]
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4))
    assert find_layers(t5, "houlsby") == [
        "encoder.block.0.layer.0.SelfAttention.o",
        "encoder.block.0.layer.1.DenseReluDense.wo",
        "decoder.block.0.layer.0.SelfAttention.o",
        "decoder.block.0.layer.1.EncDecAttention.o",
        "decoder.block.0.layer.2.DenseReluDense.wo",
    ]
    assert find_layers(t5, "pfeiffer") == [
        "encoder.block.0.layer.1.DenseReluDense.wo",
        "decoder.block.0.layer.2.DenseReluDense.wo",
    ]


def test_blocks_without_a_place_for_an_adapter_are_refused(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    for block in model.model.layers:
        block.mlp = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"feed-forward part of the block model\.layers\.0"):
        find_layers(model, "pfeiffer")


# The base that an artefact was made on


@pytest.mark.parametrize("method", ["lora", "ia3", "prefix", "adapter"])
def test_a_wrong_base_is_refused_by_its_digest(tmp_path: Path, method: str) -> None:
    base = save_llama(tmp_path / "base")
    folder = saved(job_for(base, tmp_path, "chat", method), base)
    reopened(folder, OutputSpec("tokens"))
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.norm.weight.add_(1)
    other.save_pretrained(base)
    with pytest.raises(BaseError, match="made on another base") as raised:
        reopened(folder, OutputSpec("tokens"))
    assert raised.value.code == "wrong_base"


def test_an_adapter_on_a_base_of_another_shape_does_not_fit(llama: Path, bert: Path, tmp_path: Path) -> None:
    folder = saved(job_for(llama, tmp_path, "chat", "adapter"), bert) / "model"
    (folder / "base.json").unlink()
    settings = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps({**settings, "base_digest": None}))
    with pytest.raises(BaseError, match="does not fit the base"):
        reopened(folder.parent, OutputSpec("masked"))


@pytest.mark.parametrize(("method", "form", "family"), [("adapter", "single", "bert"), ("prefix", "chat", "llama")])
def test_a_whole_run_is_proved_in_a_fresh_process_and_opens_again(
    request: pytest.FixtureRequest, tmp_path: Path, method: str, form: str, family: str
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form, 60))
    sections = {"splits": {"dev": 0.2, "test": 0.2}, "evaluate": {"max_new_tokens": 4}}
    train = {"learning_rate": 2e-2, "max_steps": 10}
    recipe = make_recipe(
        request.getfixturevalue(family), data, tmp_path / "run", method=method, train=train, **sections
    )
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"], answer["proof"]
    assert answer["proof"]["by"] == ("tailor" if method == "adapter" else "stock")
    model = model_of(str(tmp_path / "run"))
    assert (
        model.predict(["the red stone"])[0] in model.output.labels if form == "single" else model.generate("the stone")
    )


@pytest.mark.parametrize("method", ["adapter", "soft_prompt", "ia3"])
def test_prove_opens_each_kind_of_artefact_and_tells_a_wrong_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    base = save_llama(tmp_path / "base")
    folder = saved(shaken(job_for(base, tmp_path, "chat", method)), base)
    answer = prove_model(str(folder), base=None, served=None)
    assert answer["passed"], answer
    assert answer["by"] == ("tailor" if method == "adapter" else "stock")
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.norm.weight.add_(1)
    other.save_pretrained(base)
    if method == "adapter":
        with pytest.raises(BaseError, match="made on another base"):
            prove_model(str(folder), base=None, served=None)
        return
    answer = prove_model(str(folder), base=None, served=None)
    assert not answer["passed"]
    assert any("made from another base" in problem for problem in answer["problems"])


# 4-bit bases


def importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


four_bit = pytest.mark.skipif(not importable("bitsandbytes"), reason="bitsandbytes is not installed")


def in_this_process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What a fresh process would run, which sees no library but those installed."""
    (own_forward if command[1] == "-m" else stock_forward).main(*command[-2:])
    return subprocess.CompletedProcess(command, 0, "", "")


def test_without_bitsandbytes_the_extra_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "is_bitsandbytes_available", lambda: False)
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat"))
    with pytest.raises(MissingExtra) as raised:
        make_job(four_bit_recipe(llama, data, tmp_path / "run", "lora"))
    assert raised.value.fix == "pip install 'tailor[quant]'"


def four_bit_recipe(base: Path, data: Path, output: Path, method: str, **sections: Any) -> Any:
    recipe = make_recipe(base, data, output, method=method, **sections)
    return recipe.model_copy(update={"base": recipe.base.model_copy(update={"quantize": "4bit"})})


def test_weights_of_a_four_bit_base_cannot_move(llama: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat"))
    with pytest.raises(RecipeError, match="those of a 4-bit base cannot move"):
        make_job(four_bit_recipe(llama, data, tmp_path / "run", "full"))


def test_an_adapter_below_a_four_bit_base_cannot_be_merged(llama: Path, tmp_path: Path) -> None:
    folder = saved(job_for(llama, tmp_path, "chat", "lora"), llama)
    source = find(BaseOptions(name=str(folder), quantize="4bit"))
    assert source.kept == folder / "model"
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat"))
    with pytest.raises(RecipeError, match="cannot be merged"):
        make_job(four_bit_recipe(folder, data, tmp_path / "second", "lora"))


@four_bit
def test_qlora_learns_and_is_proved_on_the_base_quantised_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    wide = LlamaConfig(**{**SMALL, "hidden_size": 64, "intermediate_size": 128}, num_key_value_heads=2)
    base = save_base(tmp_path / "base", wide, AutoModelForCausalLM, tokenizer())
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat", 40))
    train, splits = {"learning_rate": 1e-2, "max_steps": 10}, {"dev": 0.2, "test": 0.2}
    recipe = four_bit_recipe(
        base, data, tmp_path / "run", "lora", train=train, splits=splits, evaluate={"max_new_tokens": 4}
    )
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"], answer["proof"]
    assert answer["proof"]["merged_difference"] is None
    assert answer["train"]["loss_last"] < answer["train"]["loss_first"]
    opened = model_of(str(tmp_path / "run")).base.model.get_base_model()
    assert type(opened.model.layers[0].mlp.down_proj.base_layer).__name__ == "Linear4bit"
