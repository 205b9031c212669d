"""The embedded data, and public data where it lies beside the checkout: recognised, or asked about."""

from pathlib import Path

import pytest

from tailor.core.errors import DataError, RowRefused
from tailor.core.examples import Row
from tailor.data.columns import recognise
from tailor.data.load import load, peek
from tailor.data.read import read

SHARED = Path(__file__).parents[2] / "shared" / "data"
POCKET = Path(__file__).parents[1] / "tailor" / "bases" / "pocket" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data sets are not at {SHARED}")

REAL: dict[str, tuple[str, int]] = {
    "medical_abstracts_tc/medical_tc_test.csv": ("classification", 0),
    "amazon_reviews_books_kitchen": ("classification", 0),
    "nlupp/banking": ("classification", 88),
    "nlupp/hotels": ("classification", 274),
    "sgd_train_sample/messages.jsonl": ("chat", 0),
    "sgd_train_sample/dialogues_002.json": ("chat", 0),
    "raschka_instruct": ("instruction", 0),
    "raschka_preference": ("preference", 6),
    "gsm8k_train": ("instruction", 0),
    "legal_summarization": ("source_target", 0),
    "scitldr_a/train.jsonl": ("source_target", 0),
    "scitldr_a/dev.jsonl": ("source_target", 0),
    "xquad_part1": ("span_qa", 0),
    "tinyshakespeare": ("text", 0),
    "the_verdict": ("text", 0),
    "wikitext2_valid/valid.txt": ("text", 0),
    "dreambooth_dev/dog": ("images", 0),
    "llama_factory_formats_a/alpaca_en_demo.json": ("instruction", 0),
    "llama_factory_formats_a/identity.json": ("instruction", 0),
    "llama_factory_formats_a/glaive_toolcall_en_demo.json": ("chat", 0),
    "llama_factory_formats_a/dpo_en_demo.json": ("preference", 0),
    "llama_factory_formats_a/kto_en_demo.json": ("chat", 150),
    "llama_factory_formats_a/mllm_demo.json": ("chat", 6),
    "fastchat_conversations/dummy_conversation.json": ("chat", 0),
}
ASKED = {
    "self_instruct_seed_tasks": "unrecognised_columns",
    "abcd_sample/abcd_sample.json": "unrecognised_columns",
    "fastchat_conversations/mt_bench_question.jsonl": "unrecognised_columns",
    "mts_dialog_train/MTS-Dialog-TrainingSet.csv": "ambiguous_columns",
    "clinc_oos/data_small.json": "several_lists",
    "sst_sentiment/stsa.binary.dev": "unknown_kind",
}


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_data_is_recognised(name: str) -> None:
    form_name, refused = REAL[name]
    records = [record for record in read(SHARED / name) if isinstance(record, Row)]
    form = recognise(records)
    assert form.name == form_name
    count = 0
    for record in records:
        try:
            form.canonical(record.values)
        except RowRefused:
            count += 1
    assert count == refused


@needs_shared
def test_real_tool_calls() -> None:
    records = list(read(SHARED / "llama_factory_formats_a/glaive_toolcall_en_demo.json"))
    assert all(isinstance(record, Row) for record in records)
    form = recognise(records)  # type: ignore[arg-type]
    made = [form.canonical(record.values) for record in records]  # type: ignore[union-attr]
    calls = [call for row in made for turn in row["messages"] for call in turn.get("tool_calls", [])]
    assert len(calls) > 100
    assert all(isinstance(call["name"], str) and isinstance(call["arguments"], dict) for call in calls)
    defined = [{tool["function"]["name"] for tool in row["tools"]} for row in made]
    assert sum(bool(names) for names in defined) > 150
    roles = {turn["role"] for row in made for turn in row["messages"]}
    assert roles == {"user", "assistant", "tool"}


@needs_shared
@pytest.mark.parametrize("name", ASKED)
def test_real_data_that_needs_help_gets_a_question(name: str) -> None:
    with pytest.raises(DataError) as caught:
        peek(SHARED / name)
    assert caught.value.code == ASKED[name]
    assert caught.value.fix


@pytest.mark.parametrize("path", sorted(POCKET.glob("*.jsonl")), ids=lambda path: path.stem)
def test_embedded_data_is_recognised(path: Path) -> None:
    form = peek(f"pocket:{path.stem}")
    for record in read(path):
        assert isinstance(record, Row)
        form.canonical(record.values)


@needs_shared
def test_contradictory_abstracts_stay_on_one_side() -> None:
    loaded = load(SHARED / "medical_abstracts_tc" / "medical_tc_test.csv")
    assert loaded.report.duplicates["contradictory"] == 113
    sides = [{entry.row["texts"][0] for entry in part} for part in (loaded.train, loaded.dev, loaded.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert {entry.row["label"] for entry in loaded.test} == {"1", "2", "3", "4", "5"}


@needs_shared
def test_reviews_sorted_by_label_are_mixed() -> None:
    loaded = load(SHARED / "amazon_reviews_books_kitchen" / "books.jsonl")
    for part in (loaded.dev, loaded.test):
        positive = sum(entry.row["label"] == "positive" for entry in part)
        assert 98 <= positive <= 102


@needs_shared
def test_a_real_leak() -> None:
    folder = SHARED / "mts_dialog_train"
    loaded = load(
        folder / "MTS-Dialog-TrainingSet.csv",
        dev=0,
        test=str(folder / "MTS-Dialog-ValidationSet.csv"),
        columns={"input": "dialogue", "output": "section_header"},
    )
    assert loaded.form.name == "classification"
    assert loaded.report.leakage.normalised == 2  # their line ends differ
