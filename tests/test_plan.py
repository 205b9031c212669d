"""The advisor: rules as a table of cases, memory traced without weights, recipes that run, rows that tell."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plan_data import ALL, CASES, CONFIGS, DATA, HEADS
from scipy.stats import binomtest

import tailor
from tailor import api, compose
from tailor.compose import output_of
from tailor.core import registry
from tailor.core.errors import RecipeError
from tailor.core.paths import embedded_base
from tailor.engine.place import Place
from tailor.planner import memory
from tailor.planner.facts import Facts
from tailor.planner.places import cards, methods_that_fit, parse_memory, stated
from tailor.planner.plan import Planner, Wishes, found
from tailor.planner.power import detectable, rows_needed
from tailor.planner.rules import RULES, advise
from tailor.recipe.methods import METHODS
from tailor.recipe.recipe import Recipe, parse


@pytest.mark.parametrize(("case", "facts", "fits", "method", "rule"), CASES, ids=[case[0] for case in CASES])
def test_the_expected_method_by_the_expected_rule(
    case: str, facts: dict[str, Any], fits: dict[str, bool], method: str | None, rule: str
) -> None:
    advice = advise(Facts(**facts), fits)
    assert (advice.method, advice.rules[0].name) == (method, rule)


def test_every_rule_cites_and_some_case_shows_it() -> None:
    assert len(RULES) <= 12
    assert all(rule.source and rule.conditions and rule.unsure for rule in RULES)
    noted = advise(Facts("chat", "causal-lm", 900, parameters=10**9, domain=True), ALL)
    shown = {case[4] for case in CASES} | {rule.name for rule in noted.rules}
    assert {rule.name for rule in RULES} == shown
    assert noted.leads == ("domain",)


def test_nothing_is_recommended_that_base_and_method_do_not_allow() -> None:
    for rule in RULES:
        assert set(rule.prefers) <= set(METHODS)
    for case in CASES:
        advice = advise(Facts(**case[1]), {"ia3": True})
        assert advice.method in (None, "ia3")


# --- memory -----------------------------------------------------------------------------------------------------------


def folder_of(config: dict[str, Any], tokenizer: str, folder: Path) -> Path:
    """A base of a config and a tokenizer, and nothing else."""
    folder.mkdir()
    lent = embedded_base(tokenizer)
    assert lent is not None
    for file in lent.iterdir():
        if file.name != "config.json" and file.suffix not in (".safetensors", ".md"):
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def planner_for(base: str, data: str, wishes: Wishes | None = None) -> Planner:
    recipe = parse({"base": base, "data": data})
    assert isinstance(recipe, Recipe)
    source = found(recipe.base)
    return Planner(compose.prepare(recipe, source=source), Place("cpu", "bf16", "as asked"), wishes or Wishes())


@pytest.mark.parametrize("name", CONFIGS)
def test_real_configs_are_traced_in_seconds_without_weights(name: str, tmp_path: Path) -> None:
    tokenizer, config, parameters = CONFIGS[name]
    planner = planner_for(str(folder_of(config, tokenizer, tmp_path / name)), DATA[tokenizer])
    begun = time.process_time()
    sheets = {method: planner.sheet(method, stated("h200", None)) for method in ("full", "lora")}
    assert time.process_time() - begun < 10.0  # of two methods; half of it on a machine that does nothing else
    full, lora = sheets["full"], sheets["lora"]
    assert full.step is not None, full.why
    assert lora.step is not None, lora.why
    assert abs(full.step.total - parameters - HEADS.get(tokenizer, 0)) in (
        0,
        768 * 768 + 768 if tokenizer == "bert" else 0,
    )
    assert full.step.weights >= 4 * parameters * 0.99
    assert lora.step.moving < 0.2 * full.step.moving
    assert full.fits == (parameters < 9e9)
    assert lora.fits == (parameters < 60e9)
    assert lora.need is not None
    assert full.need is not None
    assert lora.need.peak < full.need.peak


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("base", "layers"), [("gpt", 9), ("bert", 7)])
def test_two_depths_say_what_the_whole_model_would(
    base: str, layers: int, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = embedded_base(base)
    assert lent is not None
    config = json.loads((lent / "config.json").read_text()) | {"num_hidden_layers": layers}
    config.pop("layer_types", None)
    planner = planner_for(str(folder_of(config, base, tmp_path / "deep")), DATA[base])
    recipe = planner.recipe(method, planner.here)
    short = memory.trace(planner.prepared, recipe, planner.here)
    asked: list[int] = []
    monkeypatch.setattr(memory, "_samples", lambda config, depth: asked.append(depth) or (depth, 0))
    whole = memory.trace(planner.prepared, recipe, planner.here)
    assert asked == [layers]
    assert max(short.peaks) == max(whole.peaks)
    assert (short.weights, short.moving, short.total) == (whole.weights, whole.moving, whole.total)
    assert short.work == pytest.approx(whole.work)


@pytest.mark.parametrize(("base", "method"), [("gpt", "lora"), ("gpt", "full"), ("bert", "full"), ("t5", "lora")])
def test_tensors_without_data_take_the_bytes_of_real_ones(base: str, method: str) -> None:
    """The naive twin: the same step on the loaded base, with its bytes, by the same ledger."""
    planner = planner_for(f"pocket:{base}", DATA[base])
    recipe = planner.recipe(method, planner.here)
    traced = memory.trace(planner.prepared, recipe, planner.here)
    real, output = planner.prepared.base, output_of(recipe, planner.prepared.objective)
    real.load(output, compose.load_dtype(recipe, planner.here, real.source))
    attached = registry.load("method", method)(recipe.method).attach(real, output)
    group, several = memory.largest_micro_batch(planner.prepared, recipe, real, output)
    again = memory._run(real, attached, planner.prepared.objective, output, group, planner.here, several)
    assert again.weights == traced.weights
    assert again.moving == traced.moving
    assert max(again.peaks) == pytest.approx(max(traced.peaks), rel=0.01)
    assert again.work["products_16"] == traced.work["products_16"]


def test_a_smaller_micro_batch_is_found_where_the_usual_one_does_not_fit(tmp_path: Path) -> None:
    tokenizer, config, _ = CONFIGS["smollm2-1.7b"]
    planner = planner_for(str(folder_of(config, tokenizer, tmp_path / "base")), DATA[tokenizer])
    usual = planner.sheet("lora", stated(None, "80GB"))
    assert usual.need is not None
    tight = usual.need.fixed + usual.need.batch // 2
    sheet = planner.sheet("lora", stated(None, f"{tight / 2**30 / 0.95 + 0.9:.2f}GB"))
    assert sheet.fits
    assert sheet.lowered is not None
    assert sheet.recipe is not None
    assert sheet.recipe.train.tokens_per_micro_batch == sheet.lowered
    assert not planner.sheet("lora", stated(None, "2GB")).fits


# --- places and power -------------------------------------------------------------------------------------------------


def test_memory_and_cards_are_understood_or_refused() -> None:
    assert parse_memory("24GB") == 24 * 2**30
    assert parse_memory("512 MiB") == 512 * 2**20
    with pytest.raises(RecipeError, match="24GB"):
        parse_memory("lots")
    with pytest.raises(RecipeError, match="h100"):
        stated("gtx", None)
    spot = stated("H100", "40GB")
    assert spot is not None
    assert spot.memory == 40 * 2**30
    assert spot.seconds(989e12 * 0.35) == pytest.approx(1.0)
    assert all(card.source and card.peak for card in cards())


def test_what_fits_follows_the_weights() -> None:
    assert methods_that_fit(135_000_000, "cpu", 8 * 2**30) == ["full", "lora"]
    assert methods_that_fit(4_000_000_000, "cuda", 24 * 2**30) == ["lora"]
    assert methods_that_fit(70_000_000_000, "cuda", 24 * 2**30) == []


@pytest.mark.parametrize(("difference", "differing"), [(0.05, 0.25), (0.1, 0.25), (0.1, 0.1)])
def test_so_many_rows_show_the_difference_in_four_of_five_repetitions(difference: float, differing: float) -> None:
    rows, draw = rows_needed(difference, differing), np.random.default_rng(0)
    won = draw.binomial(rows, (differing + difference) / 2, 600)
    lost = draw.binomial(rows - won, (differing - difference) / 2 / (1 - (differing + difference) / 2))
    shown = [binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b in zip(won, lost, strict=True) if a + b]
    assert 0.72 <= np.mean(shown) <= 0.97
    least = detectable(rows, differing)
    assert least is not None
    assert least <= difference


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tailor.planner.runtime.KIND_SECONDS", 0.02)


@pytest.mark.usefixtures("quick_probe")
def test_the_plan_and_a_recipe_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "recipes" / "mine.yaml"
    answer = tailor.plan("pocket:tickets", base="pocket:bert", recipe=out)
    assert answer["recommended"] == "full"
    assert answer["reasons"][0]["rule"] == "encoder_task"
    by_name = {entry["method"]: entry for entry in answer["methods"]}
    assert set(by_name) == set(METHODS)
    assert by_name["full"]["fits"]
    assert by_name["full"]["memory_bytes"] > by_name["lora"]["memory_bytes"] > 0
    assert by_name["full"]["seconds"] > 0
    assert not by_name["prefix"]["fits"]
    assert "prefix" in by_name["prefix"]["why"]
    assert answer["where"][0]["device"] == "this machine"
    assert answer["test_rows"]["rows"] == 120
    text = out.read_text()
    assert "# " in text
    assert "arXiv 1902.00751" in text
    preview = api.plan_fit(api.make_recipe(out))
    assert preview["plan"]["memory_bytes"] == by_name["full"]["memory_bytes"]
    run = tailor.fit(out, output=tmp_path / "run", overrides=["train.max_steps=2"])
    assert run.summary["proof"]["passed"]
    assert run.summary["train"]["trainable_parameters"] == by_name["full"]["trainable_parameters"]


@pytest.mark.usefixtures("quick_probe")
def test_few_labels_become_two_stages(tmp_path: Path) -> None:
    rows = [{"text": f"{word} {number}", "label": word} for word in ("red", "blue", "green") for number in range(12)]
    data = tmp_path / "few.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "few.yaml"
    answer = tailor.plan(str(data), base="pocket:bert", recipe=out)
    assert (answer["recommended"], answer["stages"]) == ("head", ["contrast"])
    assert "train: few.jsonl" in out.read_text()
    run = tailor.fit(
        out, output=tmp_path / "run", overrides=["stages.1.train.max_steps=2", "stages.1.train.epochs=auto"]
    )
    assert run.summary["method"] == "head"


@pytest.mark.usefixtures("quick_probe")
def test_a_recipe_is_planned_with_its_own_settings(tmp_path: Path) -> None:
    recipes = Path(__file__).parent.parent / "recipes"
    answer = tailor.plan(recipes / "lora.yaml", gpu="l4")
    lora = next(entry for entry in answer["methods"] if entry["method"] == "lora")
    assert answer["data"]["form"] == "classification"
    wider = tmp_path / "wider.yaml"
    wider.write_text((recipes / "lora.yaml").read_text().replace("rank: 16", "rank: 32"))
    again = next(one for one in tailor.plan(wider, gpu="l4")["methods"] if one["method"] == "lora")
    assert again["trainable_parameters"] > 1.5 * lora["trainable_parameters"]
    with pytest.raises(RecipeError, match="several parts"):
        tailor.plan(recipes / "domain-adaptation.yaml")


@pytest.mark.usefixtures("quick_probe")
def test_new_facts_are_not_trained(tmp_path: Path) -> None:
    answer = tailor.plan("pocket:support", base="pocket:gpt", goal="facts", gpu="l4")
    assert answer["recommended"] is None
    assert "retrieval" in answer["reasons"][0]["text"]
    with pytest.raises(RecipeError, match="nothing is recommended"):
        tailor.plan("pocket:support", base="pocket:gpt", goal="facts", gpu="l4", recipe=tmp_path / "r.yaml")
    assert not (tmp_path / "r.yaml").exists()


def test_bases_say_what_fits_here() -> None:
    entries = api.bases(fits=True)["bases"]
    assert all("fits" in entry for entry in entries)
    assert entries[0]["fits"] == ["full", "lora"]
    assert "fits" not in api.bases()["bases"][0]


def test_the_probe_is_made_once(quick_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from tailor.planner import runtime

    torch.set_num_threads(1)
    first = runtime.rates_here(64)
    monkeypatch.setattr(runtime, "probe", lambda width: pytest.fail("measured again"))
    assert runtime.rates_here(64) == first
    assert min(first.products_32, first.products_16, first.attention, first.bytes, first.calls, first.disk) > 0
