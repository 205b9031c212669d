"""The invented world, its two pools, and what was made from it."""

import hashlib
import itertools
import json
import random
import re
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `pocket` is not part of the installed package

from pocket.embedded import DATA, as_jsonl, index, rows_of, texts_of
from pocket.names import SYLLABLES, all_names, pools
from pocket.stream import documents, tasks
from pocket.tokens import SENTINELS, Masker, corrupt
from pocket.world import World, belongs, sentences

POCKET = Path(__file__).resolve().parents[1] / "tailor" / "bases" / "pocket"
BASES = ("gpt-v2", "bert-v2", "t5-v1")
SAMPLE = 6000


@pytest.fixture(scope="module")
def stream() -> list[str]:
    """The beginning of all bases' pre-training text."""
    texts = [text for family in ("gpt", "bert") for text in itertools.islice(documents(0, family), SAMPLE // 2)]
    return texts + ["\n".join(pair) for pair in itertools.islice(tasks(0), SAMPLE // 4)]


@pytest.fixture(scope="module")
def data() -> dict[str, list[dict]]:
    """The embedded data as they lie on the disk."""
    return {
        name: [json.loads(line) for line in (POCKET / "data" / f"{name}.jsonl").read_text().splitlines()]
        for name in DATA
    }


def words(text: str) -> set[str]:
    """All words, lower-cased, without the plural's s as well."""
    found = set(re.findall(r"[a-z]+", text.lower()))
    return found | {word.removesuffix("s") for word in found}


def test_same_seed_same_stream() -> None:
    first, again, other = (list(itertools.islice(documents(seed, "gpt"), 50)) for seed in (7, 7, 8))
    assert first == again != other


def test_name_pools_are_disjoint() -> None:
    assert not all_names("pretrain") & all_names("task")
    for kind in SYLLABLES:
        assert len(pools()["pretrain"][kind]) >= 300
        assert len(pools()["task"][kind]) >= 80


def test_stream_and_data_share_no_name(stream: list[str], data: dict[str, list[dict]]) -> None:
    in_stream = set().union(*(words(text) for text in stream))
    in_data = set().union(*(words(texts_of(row)) for rows in data.values() for row in rows))
    assert not in_stream & all_names("task")
    assert not in_data & all_names("pretrain")
    assert len(in_stream & all_names("pretrain")) > 1000  # the check sees names at all


def test_stream_and_data_share_no_sentence(stream: list[str], data: dict[str, list[dict]]) -> None:
    in_stream = {sentence for text in stream for sentence in sentences(text)}
    in_data = {sentence for rows in data.values() for row in rows for sentence in sentences(texts_of(row))}
    assert not in_stream & in_data
    # and no sentence of the unseen rest can be shared: every sentence belongs to one side
    assert all(belongs(text, "pretrain") for text in stream)
    assert all(belongs(texts_of(row), "task") for rows in data.values() for row in rows)


def test_every_sentence_has_one_side() -> None:
    text = World("task", 0).say("The {aspect} of the {product} is {good}.")
    assert belongs(text, "task")
    assert not belongs(text, "pretrain")


@pytest.mark.parametrize("name", DATA)
def test_data_regenerate(name: str) -> None:
    file = POCKET / "data" / f"{name}.jsonl"
    assert as_jsonl(rows_of(name)) == file.read_text()


def test_data_have_an_index_and_fit() -> None:
    folder = POCKET / "data"
    assert json.loads((folder / "index.json").read_text()) == index()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2.5e6


@pytest.mark.parametrize("name", [name for name in DATA if "label" in DATA[name].form.split("/")])
def test_labels_are_balanced_and_do_not_contradict(name: str, data: dict[str, list[dict]]) -> None:
    rows = data[name]
    counts = [sum(row["label"] == label for row in rows) for label in {row["label"] for row in rows}]
    assert min(counts) >= 0.8 * max(counts)
    texts = [tuple(value for key, value in row.items() if key != "label") for row in rows]
    assert len(set(texts)) == len(texts)


def test_spans_lie_where_they_say(data: dict[str, list[dict]]) -> None:
    for row in data["questions"]:
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text


@pytest.mark.parametrize("base", BASES)
def test_manifest_tells_the_truth(base: str) -> None:
    from safetensors import safe_open

    manifest = json.loads((POCKET / base / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((POCKET / base / name).read_bytes()).hexdigest() == digest
    with safe_open(POCKET / base / "model.safetensors", "pt") as weights:
        stored = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
    assert {part.get_dtype() for part in stored} == {"BF16"}
    assert 1e6 < manifest["parameters"] <= 2e6


def test_bases_are_small() -> None:
    *older, t5 = (sum(file.stat().st_size for file in (POCKET / base).iterdir()) for base in BASES)
    assert sum(older) <= 8e6
    assert t5 <= 3e6


@pytest.mark.parametrize("base", ["gpt-v2", "t5-v1"])
def test_byte_level_tokenizers_encode_anything(base: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(POCKET / base)
    text = "Zażółć 🙂 \x00 漢字\n\ttab"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_telling_words_are_masked_more_often_and_asked_at_the_start() -> None:
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "bert-v2")
    ids = tokenizer(["verdict: good\nsome paper in the garden"] * 2000, return_tensors="pt")["input_ids"]
    inputs, labels = Masker(tokenizer, 0, {"good": 0.6})(ids)
    good = tokenizer.convert_tokens_to_ids("good")
    assert 0.55 < float((labels[:, 1:] == good).any(1).float().mean()) < 0.65
    masked = ((ids == good) & (inputs == tokenizer.mask_token_id)).any(1)
    assert (labels[:, 0] == good).sum() >= masked.sum() > 900
    assert (inputs[:, 0] == tokenizer.cls_token_id).all()


def test_t5_corruption_can_be_undone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "t5-v1")
    sentinels = tokenizer.convert_tokens_to_ids(SENTINELS)
    ids = tokenizer(" ".join(itertools.islice(documents(0, "t5"), 3)), add_special_tokens=False)["input_ids"]
    inputs, targets = corrupt(ids, sentinels, random.Random(0))
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            spans[token] = []
        else:
            spans[[*spans][-1]].append(token)
    assert list(itertools.chain(*(spans.get(token, [token]) for token in inputs))) == ids
    assert list(spans) == sentinels[: len(spans)]


def test_t5_starts_from_padding_and_stops() -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(POCKET / "t5-v1")
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "t5-v1")
    assert (tokenizer.pad_token_id, tokenizer.eos_token) == (0, "</s>")
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == 0
    assert model.get_input_embeddings().weight is model.lm_head.weight
    text = "Which team should handle this message?\nI was charged twice for the Zelra lamp."
    written = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=10, do_sample=False)[0].tolist()
    assert written[-1] == tokenizer.eos_token_id


def test_template_renders_a_tool_call(data: dict[str, list[dict]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "gpt-v2")
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"town": "Belalmere"}}}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [call]},
        {"role": "tool", "content": "no"},
    ]
    text = tokenizer.apply_chat_template(
        messages, tools=data["tools"][0]["tools"], tokenize=False, add_generation_prompt=True
    )
    answer = '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Belalmere"}}\n</tool_call><|im_end|>'
    assert (
        f"<|im_start|>assistant\n<think>\nAsk.\n</think>\n\n{answer}\n<|im_start|>tool\nno<|im_end|>\n<|im_start|>assistant\n"
        in text
    )
    features = tokenizer.apply_chat_template(
        messages, enable_thinking=False, return_dict=True, return_assistant_tokens_mask=True
    )
    masked = [token for token, mask in zip(features["input_ids"], features["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(masked) == answer
