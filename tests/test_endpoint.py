"""A model behind an API as a base: evaluated, compared, recorded and talked to like any other, and nothing beyond that."""

import io
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import Script, serving

import tailor
from tailor.bases.loading import find
from tailor.cli.main import main
from tailor.core.errors import RecipeError, TailorError
from tailor.core.examples import Message
from tailor.core.paths import embedded_data
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import base_options, override, parse
from tailor.verbs.talk import model_of

SECRET = "sk-test-0123456789abcdef"
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
MOODS = {"good": "positive", "bad": "negative"}


def last(body: Mapping[str, Any]) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def adds(body: Mapping[str, Any]) -> str:
    first, second = re.findall("|".join(NUMBERS), last(body))
    return str(NUMBERS[first] + NUMBERS[second])


def feels(body: Mapping[str, Any]) -> str:
    return f"The label is {'positive' if 'good' in last(body) else 'negative'}."


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script() -> Script:
    return Script(rule=adds)


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


@pytest.fixture
def sums(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"What is {one} plus {other}?", "completion": str(NUMBERS[one] + NUMBERS[other])}
        for one in NUMBERS
        for other in NUMBERS
    ]
    return written(tmp_path / "sums.jsonl", rows)


@pytest.fixture
def moods(tmp_path: Path) -> str:
    words = [(mood, number) for number in range(20) for mood in MOODS]
    rows = [{"text": f"Visit {number} was {mood}.", "label": MOODS[mood]} for mood, number in words]
    return written(tmp_path / "moods.jsonl", rows)


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(str(end.value.code))


class TestNaming:
    def test_an_address_with_a_model_is_a_base(self) -> None:
        base = base_options("http://localhost:8000#org/model")
        assert (base.name, base.endpoint and base.endpoint.model) == ("http://localhost:8000/v1#org/model", "org/model")
        assert base_options(base.model_dump()) == base
        assert find(base).family == "endpoint"

    def test_a_file_or_a_mapping_names_one_with_its_options(self, tmp_path: Path) -> None:
        options = {"endpoint": {"url": "http://localhost:8000/v1", "model": "m", "concurrency": 3}}
        for name, values in (("recipe.yaml", {"base": options, "data": "x"}), ("base.yml", options)):
            (tmp_path / name).write_text(yaml.safe_dump(values))
            assert base_options(str(tmp_path / name)) == base_options(options)
        assert base_options(options).endpoint.concurrency == 3  # type: ignore[union-attr]

    def test_overrides_reach_into_it_and_another_base_takes_its_place(self) -> None:
        values = {"base": {"endpoint": {"url": "http://localhost:8000/v1", "model": "m"}}, "data": "x.jsonl"}
        assert parse(override(values, ["base.endpoint.concurrency=3"])).base.endpoint.concurrency == 3  # type: ignore[union-attr]
        assert parse(override(values, ["base=pocket:gpt"])).base == BaseOptions(name="pocket:gpt")
        there = parse(override(values, ["base=http://elsewhere/v1#other"])).base
        assert there == base_options("http://elsewhere/v1#other")
        recipe = parse(values)
        assert parse(recipe.as_dict()) == recipe

    @pytest.mark.parametrize(
        ("base", "told"),
        [
            ("http://localhost:8000/v1", "named with its model"),
            ({"endpoint": {"url": "localhost:8000", "model": "m"}}, "base.endpoint.url: is an address such as"),
            ({"endpoint": {"url": "http://x/v1"}}, "base.endpoint.model: this key is missing"),
            ({"endpoint": {"url": "http://x/v1", "model": "m", "key": "k"}}, "base.endpoint.key: unknown key"),
            ({"endpoint": {"url": "http://x/v1", "model": "m", "request": {"stream": True}}}, "stream is not for"),
            ({"endpoint": {"url": "http://x/v1", "model": "m"}, "quantize": "4bit"}, "no quantize"),
            ({"endpoint": {"url": "http://x/v1", "model": "m"}, "name": "pocket:gpt"}, "a name or an endpoint"),
        ],
    )
    def test_mistakes_are_said_with_their_key(self, base: Any, told: str) -> None:
        with pytest.raises(RecipeError, match=re.escape(told)):
            parse({"base": base, "data": "x.jsonl"})

    def test_the_example_of_the_page_is_valid(self, tmp_path: Path) -> None:
        page = (Path(__file__).parents[1] / "docs" / "endpoints.md").read_text(encoding="utf-8")
        [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        (tmp_path / "base.yaml").write_text(block)
        assert base_options(str(tmp_path / "base.yaml")).name == "https://api.openai.com/v1#gpt-4o-mini"


class TestWhatItHasNot:
    @pytest.mark.parametrize(
        ("method", "lacks"),
        [
            ("lora", "linear layers"),
            ("soft_prompt", "place in front"),
            ("prefix", "keys and values"),
            ("full", "weights"),
        ],
    )
    def test_a_method_that_needs_more_is_refused_with_the_reason(
        self, url: str, sums: str, script: Script, method: str, lacks: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("fit", f"base={url}#m", f"data={sums}", f"method={method}", "output=run") == 2
        told = capsys.readouterr().err
        assert f"the method {method} takes hold of the" in told
        assert lacks in told
        assert "which a model behind an API does not have — choose another method: prompt" in told
        assert not script.heard

    def test_raw_text_is_refused(self, url: str, tmp_path: Path) -> None:
        data = written(tmp_path / "text.jsonl", [{"text": "It rains in the north today. " * 9}] * 3)
        with pytest.raises(RecipeError, match="does not take text examples"):
            tailor.evaluate(f"{url}#m", data=data)


class TestEvaluate:
    def test_generated_answers_against_no_answer(self, url: str, sums: str, script: Script) -> None:
        evaluation = tailor.evaluate(f"{url}#m", data=sums)
        task = evaluation["tasks"]["default"]
        assert (task["baseline"], task["n"], task["verdict"]) == ("empty", 64, "better")
        assert task["metrics"]["exact_match"]["tuned"] == 1.0
        assert "loss" not in task["metrics"], "nobody tells its likelihoods"
        assert evaluation["spent"]["tuned"]["calls"] == len(script.answered) == 64
        again = tailor.evaluate(f"{url}#m", data=sums)
        assert again["tasks"]["default"]["metrics"] == task["metrics"]
        assert again["spent"]["tuned"]["cached_calls"] == 64
        assert len(script.answered) == 64

    def test_labels_are_asked_for_in_words_and_read_from_the_answer(self, url: str, moods: str, script: Script) -> None:
        script.rule = feels
        task = tailor.evaluate(f"{url}#m", data=moods)["tasks"]["default"]
        assert (task["primary"], task["baseline"]) == ("accuracy", "majority")
        assert task["metrics"]["accuracy"]["tuned"] == 1.0
        assert "negative, positive" in json.dumps(script.heard[0]["messages"]), "what can be answered is said"

    def test_two_models_behind_apis(self, url: str, sums: str, script: Script) -> None:
        script.rule = lambda body: adds(body) if body["model"] == "good" else "12"
        task = tailor.evaluate(f"{url}#good", data=sums, against=f"{url}#poor")["tasks"]["default"]
        exact = task["metrics"]["exact_match"]
        assert (task["baseline"], exact["tuned"], exact["base"]) == ("base", 1.0, 7 / 64)

    def test_against_a_local_model_and_from_it(self, url: str, sums: str) -> None:
        ours = tailor.evaluate(f"{url}#m", data=sums, against="pocket:gpt")["tasks"]["default"]
        theirs = tailor.evaluate("pocket:gpt", data=sums, against=f"{url}#m")["tasks"]["default"]
        assert ours["verdict"] == "better"
        assert theirs["verdict"] == "worse"
        assert ours["metrics"]["token_f1"]["base"] == theirs["metrics"]["token_f1"]["tuned"]

    def test_the_command_line_takes_a_requirement(self, url: str, sums: str) -> None:
        assert run("evaluate", f"{url}#m", "--data", sums, "--require", "exact_match>=0.9", "--quiet") == 0
        assert run("evaluate", f"{url}#m", "--data", sums, "--require", "exact_match<=0.9", "--quiet") == 1

    def test_the_same_model_over_the_wire_scores_the_same(self, url: str, tmp_path: Path, script: Script) -> None:
        model, one_at_a_time = model_of("pocket:gpt"), threading.Lock()

        def answer(body: Mapping[str, Any]) -> str:
            turns = [Message(turn["role"], turn["content"]) for turn in body["messages"]]
            with one_at_a_time:
                return model.reply(turns, limit=body["max_tokens"])

        script.rule = answer
        lines = (embedded_data() / "support.jsonl").read_text(encoding="utf-8").splitlines()[:8]
        data = written(tmp_path / "support.jsonl", [json.loads(line) for line in lines])
        (tmp_path / "recipe.yaml").write_text(
            yaml.safe_dump({"base": {"endpoint": {"url": url, "model": "m", "max_new_tokens": 128}}})
        )
        there = tailor.evaluate(str(tmp_path / "recipe.yaml"), data=data, against="pocket:gpt")["tasks"]["default"]
        tailor.record(str(tmp_path / "recipe.yaml"), data=data, out="wire.jsonl")
        tailor.record("pocket:gpt", data=data, out="here.jsonl")
        wire, here = (
            [json.loads(line) for line in Path(name).read_text().splitlines()] for name in ("wire.jsonl", "here.jsonl")
        )
        assert [line["given"] for line in wire] == [line["given"] for line in here]
        assert len({line["given"] for line in here}) > 4
        assert there["metrics"]["rouge_l"]["tuned"] > 0

    def test_a_budget_ends_it_and_what_was_paid_for_is_kept(self, url: str, sums: str, script: Script) -> None:
        base = {"url": url, "model": "m", "concurrency": 16}
        with pytest.raises(TailorError) as caught:
            tailor.evaluate({"endpoint": {**base, "budget": {"max_calls": 20}}}, data=sums)
        assert caught.value.code == "budget_spent"
        assert len(script.answered) == 20
        tailor.evaluate({"endpoint": base}, data=sums)
        assert len(script.answered) == 64

    @pytest.mark.parametrize("cache", [True, False])
    def test_a_budget_holds_for_both_sides_of_a_comparison(
        self, url: str, sums: str, script: Script, cache: bool
    ) -> None:
        base = {"url": url, "model": "m", "cache": cache}
        bounded, other = {**base, "budget": {"max_calls": 100}}, {**base, "request": {"top_p": 0.5}}
        before = 0
        for sides in ((bounded, other), (other, bounded)):
            with pytest.raises(TailorError, match="100 calls"):
                tailor.evaluate({"endpoint": sides[0]}, data=sums, against={"endpoint": sides[1]})
            assert len(script.answered) - before <= 100
            before = len(script.answered)


class TestRecord:
    def test_answers_outlive_their_model(self, sums: str, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
        script.rule = lambda body: adds(body) if "two" in last(body) else "none"
        with serving(script) as url:
            assert run("record", f"{url}#old", "--data", sums, "--out", "old.jsonl", "--json", "--quiet") == 0
            kept = json.loads(capsys.readouterr().out)
            assert (kept["answers"], kept["out"]) == (64, "old.jsonl")
            before = tailor.evaluate(f"{url}#old", data=sums)["tasks"]["default"]["metrics"]
        lines = [json.loads(line) for line in Path("old.jsonl").read_text().splitlines()]
        assert {line["model"] for line in lines} == {f"{url}#old"}
        with serving(Script(rule=adds)) as other:
            task = tailor.evaluate(f"{other}#new", data=sums, against="old.jsonl")["tasks"]["default"]
        exact = task["metrics"]["exact_match"]
        assert (exact["base"], exact["tuned"]) == (before["exact_match"]["tuned"], 1.0)
        assert task["verdict"] == "better"

    def test_a_local_model_can_be_recorded_and_compared_with_itself(self, sums: str) -> None:
        tailor.record("pocket:gpt", data=sums, out="own.jsonl")
        task = tailor.evaluate("pocket:gpt", data=sums, against="own.jsonl")["tasks"]["default"]
        assert all(entry["delta"] == 0 for entry in task["metrics"].values())
        assert "loss" in task["metrics"], "likelihoods are kept too"

    def test_answers_with_any_character_are_read_back_as_they_were(self, url: str, sums: str, script: Script) -> None:
        odd = "one\u2028two\x85three\x0b\x1c\ud800 and \r\n four"
        script.rule = lambda body: odd
        tailor.record(f"{url}#m", data=sums, out="odd.jsonl")
        lines = Path("odd.jsonl").read_text(encoding="ascii").split("\n")
        assert {json.loads(line)["given"] for line in lines if line} == {odd}
        raw = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines if line]
        Path("raw.jsonl").write_text("\n".join(raw).replace("\ud800", "\\ud800"), encoding="utf-8")
        for file in ("odd.jsonl", "raw.jsonl"):
            metrics = tailor.evaluate(f"{url}#m", data=sums, against=file)["tasks"]["default"]["metrics"]
            assert all(entry["delta"] == 0 for entry in metrics.values())

    @pytest.mark.slow
    def test_a_classifier_with_a_head_is_held_against_answers_in_words(
        self, url: str, moods: str, script: Script
    ) -> None:
        script.rule = lambda body: "positive"
        tailor.record(f"{url}#m", data=moods, out="api.jsonl")
        run = tailor.fit(base="pocket:bert", data=moods, method="head", output="run")
        accuracy = tailor.evaluate(run, data=moods, against="api.jsonl")["tasks"]["default"]["metrics"]["accuracy"]
        assert accuracy["base"] == 0.5
        assert accuracy["tuned"] > 0.5

    def test_every_row_is_recorded_and_rows_that_are_not_are_named(
        self, url: str, script: Script, tmp_path: Path
    ) -> None:
        script.rule = lambda body: "yes"
        data = written(tmp_path / "many.jsonl", [{"prompt": f"Is {n} odd?", "completion": "yes"} for n in range(230)])
        assert tailor.record(f"{url}#m", data=data, out="many.out.jsonl")["answers"] == 230
        more = written(
            tmp_path / "more.jsonl", [{"prompt": f"Is {n} odd?", "completion": "yes"} for n in range(229, 239)]
        )
        with pytest.raises(TailorError, match="9 of 10 rows have no recorded answer"):
            tailor.evaluate(f"{url}#m", data=more, against="many.out.jsonl")

    def test_a_file_of_something_else_is_refused_with_its_line(self, url: str, sums: str) -> None:
        with pytest.raises(TailorError, match="no recorded answer") as caught:
            tailor.evaluate(f"{url}#m", data=sums, against=sums)
        assert caught.value.where.endswith("sums.jsonl:1")


class TestTalk:
    def test_what_is_sent_can_be_seen(self, url: str, script: Script) -> None:
        [segment] = tailor.render(
            f"{url}#m", [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]
        )[:1]
        assert json.loads(segment.text) == {"role": "user", "content": "hi"}
        assert not segment.trained
        assert not script.heard

    def test_generate(self, url: str, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
        script.rule = lambda body: f"{last(body)} {body['temperature']} {body.get('seed')} {body['max_tokens']}"
        assert run("generate", f"{url}#m", "--prompt", "hi", "-n", "3", "--max-new-tokens", "9", "--json") == 0
        answers = json.loads(capsys.readouterr().out)["answers"]
        assert answers == ["hi 0.0 None 9", "hi 1.0 1 9", "hi 1.0 2 9"]

    def test_chat_keeps_the_history(
        self, url: str, script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script.rule = lambda body: f"{len(body['messages'])} turns"
        monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\n"))
        assert run("chat", f"{url}#m", "--json", "--quiet") == 0
        turns = json.loads(capsys.readouterr().out)["turns"]
        assert [turn["base"] for turn in turns] == ["1 turns", "3 turns"]

    def test_labels_are_not_predicted_without_a_task(self, url: str) -> None:
        with pytest.raises(TailorError, match="use generate"):
            model_of(f"{url}#m").predict(["a"])


def test_the_key_is_in_no_file_of_a_run_nor_on_the_screen(
    url: str,
    moods: str,
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    script.key, script.rule = SECRET, lambda body: f"{feels(body)} {SECRET}"
    endpoint = {"url": url, "model": "m", "api_key_env": "MY_KEY"}
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            {
                "base": {"endpoint": endpoint},
                "data": {"train": moods, "dev": 0.3, "test": 0.3},
                "method": {"name": "prompt", "candidates": 4},
                "output": "run",
            }
        )
    )
    assert run("fit", "recipe.yaml") == 0
    assert run("record", "recipe.yaml", "--data", moods, "--out", "kept.jsonl") == 0
    script.key = "another"
    assert run("generate", "recipe.yaml", "--prompt", "something new") == 2
    shown = capfd.readouterr()
    assert "the server refuses the key" in shown.err
    assert SECRET not in shown.out + shown.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"proof.json", "report.html", "prompt.json", "kept.jsonl"} <= {file.name for file in files}
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


@pytest.mark.slow
def test_a_prompt_is_searched_for_over_the_wire_and_a_second_run_pays_nothing(
    url: str, moods: str, script: Script
) -> None:
    """The server follows only a prompt that shows it examples."""
    script.rule = lambda body: feels(body) if len(body["messages"]) > 4 else "hm"
    parts: dict[str, Any] = {
        "base": {"endpoint": {"url": url, "model": "m", "concurrency": 4}},
        "data": {"train": moods, "dev": 0.3, "test": 0.3},
        "method": {"name": "prompt", "candidates": 6},
    }
    summary = tailor.fit(**parts, output="one").summary
    task = summary["evaluation"]["tasks"]["default"]["metrics"]["accuracy"]
    assert (task["base"], task["tuned"]) == (0.0, 1.0)
    assert summary["proof"]["passed"]
    paid = len(script.answered)
    assert paid == len({json.dumps(body) for body in script.answered}), "no call is paid twice"
    again = tailor.fit(**parts, output="two").summary
    assert len(script.answered) == paid
    assert again["evaluation"]["tasks"] == {
        "default": {**summary["evaluation"]["tasks"]["default"], "opened": 2},
    }
