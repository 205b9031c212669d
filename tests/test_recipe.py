"""Recipes: short forms, overrides, paths, refusals, and a round trip through YAML."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor import api
from tailor.core.errors import RecipeError
from tailor.recipe.recipe import Recipe, load, override, parse, schema

PLAIN = {"base": "pocket:gpt", "data": "rows.jsonl"}


def test_short_forms_stand_for_the_main_key() -> None:
    long = {"base": {"name": "pocket:gpt"}, "data": {"train": "rows.jsonl"}, "method": {"name": "lora"}}
    assert parse(PLAIN | {"method": "lora"}) == parse(long)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("method.rank=8", ("method", "rank"), 8),
        ("train.learning_rate=2e-4", ("train", "learning_rate"), 2e-4),
        ("train.schedule={name: constant, warmup: 0.0}", ("train", "schedule", "warmup"), 0.0),
        ("data.max_length=128", ("data", "max_length"), 128),
        ("data.test=0", ("data", "test"), 0),
        ("base.dtype=bf16", ("base", "dtype"), "bf16"),
        ("evaluate.metrics=[accuracy, mcc]", ("evaluate", "metrics"), ["accuracy", "mcc"]),
    ],
)
def test_overrides_reach_into_short_forms(text: str, path: tuple[str, ...], value: object) -> None:
    found: object = parse(override(PLAIN | {"method": "lora"}, [text])).as_dict()
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert found == value


def test_an_override_of_a_group_keeps_its_other_keys() -> None:
    values = override({**PLAIN, "data": {"train": "rows.jsonl", "dev": 0}}, ["data=other.jsonl"])
    assert parse(values).data.dev == 0
    assert str(parse(values).data.train).endswith("other.jsonl")


@pytest.mark.parametrize(
    ("values", "where", "fix"),
    [
        ({**PLAIN, "metod": "lora"}, "metod", "method"),
        ({**PLAIN, "train": {"epoch": 3}}, "train.epoch", "epochs"),
        ({**PLAIN, "method": {"name": "lora", "rnk": 2}}, "method.rnk", "rank"),
        ({**PLAIN, "train": {"schedule": {"warmpu": 0.1}}}, "train.schedule.warmpu", "warmup"),
        ({"base": "pocket:gpt"}, "data", "add"),
        ({**PLAIN, "method": "lor"}, "method", "lora"),
        ({**PLAIN, "objective": "chta"}, "objective", "chat"),
        ({**PLAIN, "objective": {"mask": 0.2}}, "objective.name", "chat"),
        ({**PLAIN, "method": {"rnk": 2}}, "method.rnk", "rank"),
    ],
)
def test_unknown_and_missing_keys_name_the_nearest_known(values: dict[str, object], where: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(values)
    assert caught.value.where == where
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("values", "where", "fix"),
    [
        ({**PLAIN, "train": {"learning_rate": -1}}, "train.learning_rate", "learning_rate: auto: by method"),
        ({**PLAIN, "train": {"max_steps": "many"}}, "train.max_steps", "optimizer steps"),
        ({**PLAIN, "train": {"schedule": {"warmup": 7}}}, "train.schedule.warmup", "share of the steps"),
        ({**PLAIN, "method": {"name": "lora", "alpha": "x"}}, "method.alpha", "alpha / rank"),
        ({**PLAIN, "data": None}, "data", "--schema"),
    ],
)
def test_a_bad_value_names_its_key_and_what_the_key_is(values: dict[str, object], where: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(values)
    assert (caught.value.where, caught.value.code) == (where, "bad_value")
    assert fix in caught.value.fix


def test_options_without_a_name_are_those_of_the_method_that_is_used_where_none_is_named() -> None:
    method = parse(override(PLAIN, ["method.rank=4"])).method
    assert method.model_dump() == {**parse(PLAIN).method.model_dump(), "rank": 4}


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="share") as caught:
        parse({**PLAIN, "data": {"train": "rows.jsonl", "test": share}})
    assert caught.value.where == "data.test"


def test_paths_in_a_file_are_relative_to_it_and_overrides_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    recipe = tmp_path / "there" / "recipe.yaml"
    recipe.write_text("base: pocket:gpt\ndata: {train: rows.jsonl, test: org/set}\noutput: out\n")
    monkeypatch.chdir(tmp_path / "here")
    found = load(recipe)
    assert found.data.train == str(tmp_path / "there" / "rows.jsonl")
    assert found.data.test == "org/set", "a hub id is no path"
    assert found.output == str(tmp_path / "there" / "out")
    laid = parse(override({**PLAIN}, ["data.train=rows.jsonl"]))
    assert laid.data.train == str(tmp_path / "here" / "rows.jsonl")


@given(
    rank=st.integers(1, 512),
    rate=st.one_of(st.just("auto"), st.floats(1e-6, 1.0)),
    epochs=st.one_of(st.just("auto"), st.integers(1, 50)),
    test=st.one_of(st.just("auto"), st.floats(0, 0.9)),
)
def test_a_saved_recipe_is_read_back_as_it_was(rank: int, rate: object, epochs: object, test: object) -> None:
    recipe = parse(
        {
            "base": "pocket:gpt",
            "data": {"train": "/rows.jsonl", "test": test},
            "method": {"name": "lora", "rank": rank},
            "train": {"learning_rate": rate, "epochs": epochs},
            "output": "/out",
        }
    )
    assert parse(recipe.as_dict()) == recipe


def test_options_stay_small() -> None:
    groups = [model for model in schema()["$defs"].values() if "properties" in model]
    assert max(len(group["properties"]) for group in groups) <= 13
    assert set(Recipe.model_fields) == {
        "schema_version", "base", "data", "objective", "method", "train", "evaluate", "output",
    }  # fmt: skip


def test_recipes_need_no_torch() -> None:
    import subprocess

    code = "import tailor.recipe.recipe, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_wrong_key_is_told_before_a_base_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(api, "_chosen_base", lambda *_: looked.append(1) or "pocket:gpt")
    with pytest.raises(RecipeError, match="unknown key"):
        api.make_recipe("rows.jsonl", overrides=["train.epoch=2"])
    assert not looked
    assert api.make_recipe("rows.jsonl", overrides=["output=out"]).base.name == "pocket:gpt"
