"""What a newcomer meets first: hints, summaries, files answered, Python calls as the pages show them."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from test_cli import call
from tiny import make_recipe, rows_of, write_rows

import tailor
from tailor import api
from tailor.core import reporting
from tailor.core.errors import DataError, RecipeError, TailorError
from tailor.core.reporting import Reporter
from tailor.data.load import load, peek
from tailor.recipe.many import parse_any
from tailor.verbs import stages

ROOT = Path(__file__).parents[1]


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def labelled(folder: Path, count: int = 40) -> Path:
    return write_rows(folder / "rows.jsonl", rows_of("single", count))


@pytest.fixture(scope="module")
def classifier(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    data = labelled(folder, 60)
    train = {"max_steps": 3}
    return tailor.fit(make_recipe(bert, data, folder / "run", train=train, method="full")).path


@pytest.fixture(scope="module")
def writer(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writer")
    data = write_rows(folder / "rows.jsonl", rows_of("instruction", 24))
    return tailor.fit(make_recipe(llama, data, folder / "run", train={"max_steps": 1})).path


# --- data ----------------------------------------------------------------------------------------------------------


def test_a_label_column_that_holds_nothing_is_asked_about(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{**row, "label": None} for row in rows_of("single", 30)])
    with pytest.raises(DataError, match="'label' is named like a label and holds nothing") as raised:
        peek(str(data))
    assert "--columns text=text" in raised.value.fix
    assert peek(str(data), columns={"text": "text"}).name == "text"


def sorted_texts(folder: Path, names: tuple[str, ...], each: int = 3) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            (folder / name / f"{number}.txt").write_text(f"what {name} says, number {number}")
    return folder


def test_folders_of_texts_are_their_labels(tmp_path: Path) -> None:
    loaded = load(str(sorted_texts(tmp_path / "reviews", ("neg", "pos"), 20)))
    assert loaded.form.name == "classification"
    assert {entry.row["label"] for entry in loaded.train} == {"neg", "pos"}
    assert load(str(tmp_path / "reviews"), objective="language").form.name == "text"


@pytest.mark.parametrize("names", [("train", "test"), ("all",)])
def test_other_folders_of_texts_are_raw_text(names: tuple[str, ...], tmp_path: Path) -> None:
    assert peek(str(sorted_texts(tmp_path / "texts", names))).name == "text"


def test_columns_the_wrong_way_round_are_asked_about(tmp_path: Path) -> None:
    rows = [{"Team": ["post", "billing"][i % 2], "Ticket": f"my order number {i} has not come yet"} for i in range(40)]
    data = str(write_rows(tmp_path / "rows.jsonl", rows))
    swapped = load(data, columns={"input": "Team", "output": "Ticket"}).report.problems
    assert next(one.message for one in swapped if one.code == "swapped").endswith("--columns input=Ticket,output=Team")
    right = load(data, columns={"input": "Ticket", "output": "Team"}).report.problems
    assert not [one for one in right if one.code == "swapped"]


# --- answers to rows ----------------------------------------------------------------------------------------------


def test_a_classifier_labels_one_text(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "generate", classifier, "--prompt", "the box is red 1 red", "--json")
    (told,) = json.loads(out)["answers"]
    assert code == 0
    assert told["answer"] == tailor.load(classifier).predict(["the box is red 1 red"])[0]
    assert 0.25 <= told["probability"] <= 1
    code, out, _ = call(capsys, "generate", classifier, "--prompt", "the box is red 1 red")
    assert out == f"{told['answer']} ({100 * told['probability']:.1f} %)\n"


def test_a_classifier_labels_a_file(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [row["text"] for row in rows_of("single", 9, seed=3)]
    data = write_rows(tmp_path / "new.jsonl", [{"text": text, "id": i} for i, text in enumerate(texts)])
    words = ["generate", classifier, "--data", data, "--out", tmp_path / "told.jsonl", "--json", "--quiet"]
    code, out, _ = call(capsys, *words)
    lines = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert (code, json.loads(out)["answers"]) == (0, 9)
    assert [line["answer"] for line in lines] == tailor.load(classifier).predict(texts)
    assert [line["row"]["id"] for line in lines] == list(range(9))
    assert all(0.25 <= line["probability"] <= 1 for line in lines)
    assert call(capsys, *words)[0] == 2, "a file is never written over"


def test_a_writer_answers_a_file(writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [row["prompt"] for row in rows_of("instruction", 3, seed=5)]
    data = write_rows(tmp_path / "new.jsonl", [{"prompt": prompt} for prompt in prompts])
    out = tmp_path / "told.jsonl"
    code, _, _ = call(capsys, "generate", writer, "--data", data, "--out", out, "--max-new-tokens", "5", "--quiet")
    assert code == 0
    given = [json.loads(line)["answer"] for line in out.read_text().splitlines()]
    assert given == [tailor.load(writer).generate(prompt, max_new_tokens=5) for prompt in prompts]


def test_a_row_that_cannot_be_answered_is_named(writer: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "new.jsonl", [{"prompt": "good"}, {"question": "bad"}])
    with pytest.raises(TailorError) as raised:
        api.answer_rows(str(writer), str(data), out=tmp_path / "told.jsonl")
    assert raised.value.where == f"{data}:2"
    assert not (tmp_path / "told.jsonl").exists()


# --- Python --------------------------------------------------------------------------------------------------------


def test_a_recipe_is_also_a_dict_and_its_axes_are_keywords(bert: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path)
    parts = {
        "base": bert,
        "data": {"train": data, "dev": 0, "test": 0},
        "train": {"max_steps": 1, "learning_rate": 1e-5},
    }
    by_dict = tailor.fit({**parts, "output": tmp_path / "one"})
    by_words = tailor.fit(
        **parts, method={"name": "lora", "rank": 2}, evaluate={"forgetting": False}, output=tmp_path / "two"
    )
    assert by_dict.summary["train"]["steps"] == by_words.summary["train"]["steps"] == 1
    settings = json.loads((tmp_path / "two" / "model" / "adapter_config.json").read_text())
    assert settings["r"] == 2
    with pytest.raises(RecipeError, match="unknown key") as raised:
        tailor.fit(**parts, metod="lora")
    assert "method" in raised.value.fix


def test_the_snippet_that_loads_anywhere_loads_an_embedded_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("chat", 24))
    train = {"max_steps": 1}
    tailor.fit(
        base="pocket:gpt", data={"train": rows, "dev": 0, "test": 0}, train=train, output=tmp_path / "runs/support"
    )
    shown = call(capsys, "bases")[1]
    folder = next(line.split()[-1] for line in shown.splitlines() if line.startswith("pocket:gpt"))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "PeftModel" in block)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet.replace("HuggingFaceTB/SmolLM2-135M-Instruct", folder), names)
    assert names["model"].peft_config["default"].base_model_name_or_path
    assert names["tokenizer"].chat_template


# --- hints and summaries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "near"), [("pockt:gpt", "pocket:gpt"), ("pocket:brt", "pocket:bert")])
def test_a_mistyped_embedded_base_is_recognised(
    name: str, near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "fit", labelled(tmp_path), "--base", name, "--dry-run", "--json", "--quiet")
    assert (code, json.loads(out)["error"]["where"]) == (2, name)
    assert f"did you mean {near}?" in json.loads(out)["error"]["fix"]


def test_a_dry_run_is_a_page_and_on_demand_everything(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", labelled(tmp_path), "--base", bert, "--method", "full", "--output", tmp_path / "run", "--dry-run"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert len(out.splitlines()) <= 14
    for part in (
        str(bert),
        "rows: 24 train, 8 dev, 8 test",
        "method: full",
        " steps of 16 examples",
        "Accuracy",
        "output: ",
    ):
        assert part in out
    code, out, _ = call(capsys, *words, "--verbose")
    assert "learning_rate:" in out
    assert "method: full" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_fetches_nothing_and_says_what_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(socket.socket, "connect", closed)
    monkeypatch.setattr(socket, "getaddrinfo", closed)
    data = write_rows(tmp_path / "rows.jsonl", rows_of("chat", 24))
    for extra in ([], ["--yes"], ["--base", "somebody/some-model"]):
        code, out, _ = call(capsys, "fit", data, "--dry-run", "--json", *extra)
        download = json.loads(out)["download"]
        assert code == 0
        assert (download["bytes"] is None) == ("--base" in extra)
        assert f"download: {download['base']}" in call(capsys, "fit", data, "--dry-run", *extra)[1]


def test_what_takes_long_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(reporting, "AGAIN", 0.01)
    heard = Heard()
    with heard.waiting("a fresh process"):
        time.sleep(0.2)
    assert heard.said[0] == "a fresh process"
    assert "s so far" in heard.said[1]
    count = len(heard.said)
    time.sleep(0.05)
    assert len(heard.said) == count


def test_a_proof_says_what_it_does(classifier: Path, bert: Path) -> None:
    heard = Heard()
    assert tailor.prove(classifier, base=str(bert), reporter=heard)["passed"]
    assert any("is held against its base" in line for line in heard.said)
    assert any("fresh process" in line for line in heard.said)


def test_stages_that_train_other_parts_of_a_pipeline_are_refused_before_the_first(
    pipeline: Path, tmp_path: Path
) -> None:
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (32, 32), (40 * number, 0, 90)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a wug {number}")
    data = {"train": str(tmp_path), "dev": 0, "test": 0}
    first = {"data": data, "objective": "text_to_image", "method": "lora", "train": {"max_steps": 1}}
    second = {**first, "objective": {"name": "text_to_image", "text_encoder": True}}
    recipe = parse_any({"base": str(pipeline), "stages": [first, second], "output": str(tmp_path / "run")})
    with pytest.raises(RecipeError) as raised:
        stages.dry_run(recipe)  # type: ignore[arg-type]
    assert (raised.value.where, raised.value.code) == ("stages.2.objective.text_encoder", "other_form")
