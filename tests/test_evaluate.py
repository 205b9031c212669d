"""`tailor.evaluate` of models that Tailor did not train: against nothing, the wrong thing, and each other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_cli import call
from tiny import COLOURS, make_recipe, rows_of, tokenizer, write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

import tailor
from tailor.compose import prepare
from tailor.core.errors import TailorError
from tailor.core.reporting import Reporter
from tailor.engine.place import Place
from tailor.verbs.measure import evaluate


def classifier(bert: Path, folder: Path, labels: list[str]) -> Path:
    """A classifier with weights that do not depend on the order of its labels, saved with transformers alone."""
    torch.manual_seed(0)
    drawn = {name: torch.randn(32) for name in sorted(labels)}
    names = dict(enumerate(labels))
    model = BertForSequenceClassification.from_pretrained(bert, num_labels=len(labels), id2label=names)
    with torch.no_grad():
        model.bert.pooler.dense.weight.copy_(torch.eye(32))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.weight.copy_(torch.stack([drawn[name] for name in labels]))
        model.classifier.bias.zero_()
    model.save_pretrained(folder)
    tokenizer(encoder=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows_of("single", 40))


def only(answer: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = answer["tasks"]["default"]
    return task


def by_stock(folder: Path, rows: Path) -> float:
    """Accuracy, row by row, with transformers alone."""
    model, words = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    with torch.no_grad():
        said = [model(**words(row["text"], return_tensors="pt")).logits[0].argmax() for row in lines]
    right = [model.config.id2label[int(index)] == row["label"] for index, row in zip(said, lines, strict=True)]
    return sum(right) / len(right)


def test_anyones_classifier_without_a_base_is_held_against_a_guess(bert: Path, held_out: Path, tmp_path: Path) -> None:
    folder = classifier(bert, tmp_path / "colours", [*COLOURS])
    task = only(tailor.evaluate(folder, data=str(held_out)))
    assert task["baseline"] == "majority"
    assert task["metrics"]["accuracy"]["tuned"] == pytest.approx(by_stock(folder, held_out))


def test_an_adapter_of_peft_brings_its_head_and_numbers_for_names(bert: Path, tmp_path: Path) -> None:
    """PEFT saves the head beside the adapter and not what its outputs are called."""
    model = BertForSequenceClassification.from_pretrained(bert, num_labels=3)
    saved = {"task_type": "SEQ_CLS", "target_modules": ["query"], "modules_to_save": ["classifier", "pooler"]}
    tuned = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **saved)).eval()
    folder = tmp_path / "adapter"
    tuned.save_pretrained(folder)
    words = tokenizer(encoder=True)
    with torch.no_grad():
        said = [int(tuned(**words(row["text"], return_tensors="pt")).logits.argmax()) for row in rows_of("single", 30)]
    rows = [{"text": row["text"], "label": said[i] if i % 3 else i % 2} for i, row in enumerate(rows_of("single", 30))]
    task = only(tailor.evaluate(folder, data=str(write_rows(tmp_path / "rows.jsonl", rows))))
    right = [row["label"] == answer for row, answer in zip(rows, said, strict=True)]
    assert task["baseline"] == "majority"
    assert task["metrics"]["accuracy"]["tuned"] == pytest.approx(sum(right) / 30)
    named = write_rows(tmp_path / "named.jsonl", rows_of("single", 30))
    with pytest.raises(TailorError, match="unknown to this model") as raised:
        tailor.evaluate(folder, data=str(named))
    assert f"list the names in this order in {folder}/labels.json" in raised.value.fix


def test_anyones_regression_folder_is_measured(bert: Path, tmp_path: Path) -> None:
    BertForSequenceClassification.from_pretrained(bert, num_labels=1).save_pretrained(tmp_path / "number")
    tokenizer(encoder=True).save_pretrained(tmp_path / "number")
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("regression", 20))
    task = only(tailor.evaluate(tmp_path / "number", data=str(rows)))
    assert (task["baseline"], task["primary"]) == ("mean", "mse")


def test_anyones_folder_with_several_labels_a_text_is_measured(bert: Path, tmp_path: Path) -> None:
    folder = classifier(bert, tmp_path / "colours", [*COLOURS])
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("multi", 20))
    assert only(tailor.evaluate(folder, data=str(rows)))["primary"] == "macro_f1"


def test_a_base_is_measured_by_itself(llama: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("language", 12))
    answer = tailor.evaluate(llama, data=str(rows))
    loss = only(answer)["metrics"]["loss"]
    assert only(answer)["baseline"] == "itself"
    assert loss["base"] == loss["tuned"] > 0
    assert answer["forgetting"]["delta"] == 0


def test_labels_in_another_order_are_the_same_labels(bert: Path, held_out: Path, tmp_path: Path) -> None:
    one = classifier(bert, tmp_path / "one", sorted(COLOURS))
    other = classifier(bert, tmp_path / "other", sorted(COLOURS, reverse=True))
    task = only(tailor.evaluate(one, data=str(held_out), against=str(other)))
    assert task["baseline"] == "base", "and not a guess in its place"
    accuracy = task["metrics"]["accuracy"]
    assert accuracy["base"] == accuracy["tuned"] == pytest.approx(by_stock(other, held_out))


def test_a_model_of_other_labels_is_no_comparison(bert: Path, held_out: Path, tmp_path: Path) -> None:
    folder = classifier(bert, tmp_path / "colours", [*COLOURS])
    other = classifier(bert, tmp_path / "moods", ["glad", "sad"])
    with pytest.raises(TailorError, match=r"other labels \(glad, sad\)") as raised:
        tailor.evaluate(folder, data=str(held_out), against=str(other))
    assert (raised.value.code, raised.value.where) == ("other_labels", str(other))


def test_a_requirement_that_is_none_opens_no_test_split(
    bert: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = classifier(bert, tmp_path / "colours", [*COLOURS])
    words = ["evaluate", folder, "--data", held_out, "--json", "--quiet"]
    before = json.loads(call(capsys, *words)[1])["tasks"]["default"]["opened"]
    code, out, _ = call(capsys, *words, "--require", "accuracy>0.1")
    assert (code, json.loads(out)["error"]["where"]) == (2, "--require")
    assert json.loads(call(capsys, *words)[1])["tasks"]["default"]["opened"] == before + 1


@pytest.mark.parametrize("forgetting", ["auto", True])
def test_without_a_test_split_there_is_nothing_to_report_unless_asked(
    llama: Path, tmp_path: Path, forgetting: object
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("language", 6))
    recipe = make_recipe(llama, rows, tmp_path / "run", evaluate={"forgetting": forgetting})
    found = evaluate(
        prepare(recipe), recipe.base, recipe.base, Place("cpu", "fp32", ""), lambda digest: 1, Reporter(quiet=True)
    )
    assert found.evaluation["tasks"] == {}
    assert set(found.evaluation) == ({"tasks"} if forgetting == "auto" else {"tasks", "forgetting"})


@pytest.fixture(scope="module")
def tuned(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tailor.Run:
    """A short run on labels that asks for fewer rows than there are."""
    folder = tmp_path_factory.mktemp("tuned")
    data = write_rows(folder / "rows.jsonl", rows_of("single", 60))
    sections = {"evaluate": {"samples": 4}, "splits": {"test": 0.5}, "train": {"max_steps": 2}}
    return tailor.fit(make_recipe(bert, data, folder / "run", **sections))


def test_labels_are_scored_on_every_row(tuned: tailor.Run) -> None:
    assert only(tuned.evaluation)["n"] == 30


def test_fewer_rows_are_written_and_said(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("instruction", 40))
    sections = {"evaluate": {"samples": 3, "max_new_tokens": 2}, "splits": {"test": 0.5}, "train": {"max_steps": 1}}
    run = tailor.fit(make_recipe(llama, data, tmp_path / "run", **sections))
    code, out, err = call(capsys, "evaluate", run.path, "--json")
    assert (code, only(json.loads(out))["n"]) == (0, 3)
    assert "3 of 20 test rows (evaluate.samples=3" in err
    code, out, err = call(capsys, "evaluate", run.path, "evaluate.samples=null", "--json")
    assert (code, only(json.loads(out))["n"]) == (0, 20)
    assert "evaluate.samples" not in err


@pytest.mark.parametrize(
    ("text", "said"), [("train.epochs=3", "training, which is over"), ("rows.jsonl", "no override")]
)
def test_an_evaluation_changes_how_is_measured_alone(
    text: str, said: str, tuned: tailor.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "evaluate", tuned.path, text)
    assert code == 2
    assert said in err


def test_rows_that_were_trained_on_are_told(tuned: tailor.Run, tmp_path: Path) -> None:
    rows = tuned.path.parent / "rows.jsonl"
    (told,) = tailor.evaluate(tuned, data=str(rows))["warnings"]
    assert told.startswith("30 of 60 rows are rows that this run was trained on")
    fresh = write_rows(tmp_path / "rows.jsonl", rows_of("single", 20, seed=7))
    assert "warnings" not in tailor.evaluate(tuned, data=str(fresh))


@pytest.mark.parametrize(
    ("bound", "code"),
    [(">=0.0", 0), (">=0%", 0), ("<=100", 0), (">=99.9", 1), (">=99.9%", 1), (">=1.01", 1), ("<=1", 0), (">=101", 2)],
)
def test_a_requirement_may_be_in_points(
    bound: str, code: int, tuned: tailor.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, _ = call(capsys, "evaluate", tuned.path, "--require", f"accuracy{bound}", "--json", "--quiet")
    assert found == code
    assert code < 2 or json.loads(out)["error"]["where"] == "--require"


def test_a_requirement_on_a_plain_number_takes_no_per_cent(
    tuned: tailor.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "evaluate", tuned.path, "--require", "mcc>=10%", "--json", "--quiet")
    assert (code, json.loads(out)["error"]["fix"]) == (2, "--require 'mcc>=10'")


def test_a_scorer_that_fails_names_the_row_where_it_stands(tuned: tailor.Run, tmp_path: Path) -> None:
    scorer = tmp_path / "mine.py"
    scorer.write_text("def score(row, answer):\n    return 1 / (row['text'] != 'the last one')\n")
    fresh = write_rows(
        tmp_path / "rows.jsonl", [*rows_of("single", 9, seed=7), {"text": "the last one", "label": "red"}]
    )
    with pytest.raises(TailorError, match=f"failed on {fresh}:10: ZeroDivisionError") as raised:
        tailor.evaluate(tuned, data=str(fresh), overrides=[f"evaluate.metrics=[{scorer}:score]"])
    assert raised.value.where == f"{scorer}:2"
