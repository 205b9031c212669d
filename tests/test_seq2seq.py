"""Encoder-decoders: the loss is the stock model's own, the answers are what its generate writes, the proof goes through."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from tiny import (
    VOCABULARY,
    in_this_process,
    largest_difference,
    make_job,
    make_recipe,
    randomised,
    rows_of,
    save_bart,
    save_base,
    save_t5,
    trained_gradients,
    write_rows,
    writer_tokenizer,
)
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import tailor
from tailor import compose
from tailor.bases.loading import family_of, find
from tailor.bases.seq2seq import Seq2SeqBase
from tailor.core.contracts import EncodeOptions, OutputSpec
from tailor.core.errors import BaseError, DataError, RowRefused, TailorError
from tailor.core.examples import Conversation, Message, Origin
from tailor.core.reporting import Reporter
from tailor.engine.loop import Job
from tailor.evaluation import proof
from tailor.evaluation.answering import generate_ids
from tailor.recipe.base import BaseOptions
from tailor.verbs.check import check, examples
from tailor.verbs.evaluate import evaluate_model
from tailor.verbs.fit import run
from tailor.verbs.prove import prove_model

KINDS = ("t5", "bart")


def loaded(folder: Path, **options: Any) -> Seq2SeqBase:
    """A base with its weights, in fp32."""
    base = Seq2SeqBase(find(BaseOptions(name=str(folder))), EncodeOptions(**options))
    base.load(OutputSpec("tokens"), torch.float32)
    base.model.eval()
    return base


def job_on(base: Path, folder: Path, **sections: Any) -> Job:
    """A job on sources and targets of many lengths."""
    data = write_rows(folder / "rows.jsonl", rows_of("source_target"))
    return make_job(make_recipe(base, data, folder / "run", **sections))


def stock_loss(model: Any, words: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """By the book: one padded batch, the tokenizer's own targets, the model's own loss of its `labels`."""
    sources = words([row["source"] for row in rows], padding=True, return_tensors="pt")
    targets = words(text_target=[row["target"] for row in rows], padding=True, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    return model(input_ids=sources["input_ids"], attention_mask=sources["attention_mask"], labels=labels).loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradients_are_the_stock_models(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, method: str
) -> None:
    folder = request.getfixturevalue(kind)
    job = job_on(folder, tmp_path, method=method)
    moving = job.attached.trainable()
    randomised(moving)
    job.attached.model.eval()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()][:9]
    by_source = {row["source"]: row for row in rows}
    words = AutoTokenizer.from_pretrained(folder)
    features = [feature for feature in job.train if words.decode(feature.sequences[0], True) in by_source]
    assert len(features) == 9
    ours = trained_gradients(job, features, [[0, 1, 2], [3], [4, 5, 6, 7, 8]])
    job.attached.model.zero_grad()
    loss = stock_loss(job.attached.model, words, rows)
    loss.backward()
    assert ours.loss == pytest.approx(float(loss.detach()), abs=1e-6)
    theirs = {name: value.grad for name, value in moving.items() if value.grad is not None}
    assert largest_difference(ours.values, theirs) < 1e-5
    assert any(bool(value.any()) for value in theirs.values())


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_what_the_stock_model_writes_row_by_row(tmp_path: Path, kind: str) -> None:
    folder = {"t5": save_t5, "bart": save_bart}[kind](tmp_path / kind)
    if kind == "bart":  # a random one ends at once, unless it is to begin as BART does
        settings = json.loads((folder / "generation_config.json").read_text())
        begun = settings | {"forced_bos_token_id": 1}
        (folder / "generation_config.json").write_text(json.dumps(begun))
    base, words = loaded(folder), AutoTokenizer.from_pretrained(folder)
    stock = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    sources = ["the red stone", "a boat is near a tower " * 6, "grey"]
    prompts = [base.chat.prompt((Message("user", source),)) for source in sources]
    found = generate_ids(base, prompts, 12, torch.device("cpu"))
    for source, (ids, cut) in zip(sources, found, strict=True):
        encoded = words(source, return_tensors="pt")
        written = stock.generate(**encoded, max_new_tokens=12, do_sample=False)[0, 1:].tolist()
        stop = written.index(2) if 2 in written else len(written)
        assert ids == written[:stop]
        assert cut == (2 not in written)
    assert any(len(ids) > 1 for ids, _ in found)


def test_settings_of_the_makers_own_task_are_left_out(tmp_path: Path) -> None:
    folder = save_bart(tmp_path / "bart")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps(settings | {"num_beams": 4, "min_length": 20, "early_stopping": True})
    )
    plain = loaded(save_bart(tmp_path / "plain"))
    news, prompt = loaded(folder), plain.chat.prompt((Message("user", "the red stone"),))
    assert news.model.generation_config.num_beams == 4
    device = torch.device("cpu")
    assert generate_ids(news, [prompt], 24, device) == generate_ids(plain, [prompt], 24, device)


BART_LIKE = {
    **{"vocab_size": VOCABULARY, "d_model": 32, "max_position_embeddings": 256, "init_std": 0.1, "dropout": 0.0},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
    **{f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("attention_heads", 4))},
    **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
}
T5_LIKE = {
    **{"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    **{"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0, "dropout_rate": 0.0},
}
KIN = {
    "mbart": lambda: t.MBartConfig(**BART_LIKE),
    "marian": lambda: t.MarianConfig(**BART_LIKE),
    "pegasus": lambda: t.PegasusConfig(**BART_LIKE),
    "m2m_100": lambda: t.M2M100Config(**BART_LIKE),
    "blenderbot": lambda: t.BlenderbotConfig(**BART_LIKE),
    "mt5": lambda: t.MT5Config(**T5_LIKE),
    "umt5": lambda: t.UMT5Config(**T5_LIKE),
    "t5-1.1": lambda: t.T5Config(**T5_LIKE, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}


@pytest.mark.parametrize("kind", KIN)
def test_every_kin_has_the_loss_that_its_own_forward_has(tmp_path: Path, kind: str) -> None:
    folder = save_base(tmp_path / "base", KIN[kind](), AutoModelForSeq2SeqLM, writer_tokenizer("$A </s>"))
    base, stock = loaded(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    turns = [conversation(("user", f"the {n * 'red '}stone"), ("assistant", n * "is grey ")) for n in (1, 4, 2)]
    features = [base.encoders[Conversation](turn)[0] for turn in turns]
    batch = base.collate(features, OutputSpec("tokens"))
    with torch.no_grad():
        logits = base.forward(base.model, batch).logits
        found = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        for feature, losses in zip(features, found.split([size for _, size in batch.parts]), strict=True):
            source, target = (torch.tensor([ids]) for ids in feature.sequences)
            theirs = float(stock(input_ids=source, labels=target).loss)
            assert float(losses.mean()) == pytest.approx(theirs, rel=1e-6)


def test_a_model_that_listens_is_no_encoder_decoder_of_text() -> None:
    with pytest.raises(BaseError, match="a whisper model does not read and write text"):
        family_of(t.WhisperConfig(), "here")


def conversation(*turns: tuple[str, str], weight: float | None = None) -> Conversation:
    """Turns, the last one's weight as given."""
    *given, (role, content) = turns
    messages = (*(Message(*turn) for turn in given), Message(role, content, weight=weight))
    return Conversation(id="x", origin=Origin("x", 1), messages=messages)


def test_the_last_turn_is_learned_with_its_end_and_all_before_it_is_the_source(t5: Path) -> None:
    base = loaded(t5)
    turns = conversation(
        ("system", "be brief"), ("user", "a stone"), ("assistant", "grey"), ("user", "and?"), ("assistant", "red"),
        weight=0.5,
    )  # fmt: skip
    (feature,) = base.encoders[Conversation](turns)
    source, target = feature.sequences
    assert base.tokenizer.decode(source) == "be brief\na stone\ngrey\nand?</s>"
    assert base.tokenizer.decode(target) == "red</s>"
    assert feature.weights == [0.0] * len(source) + [0.5] * len(target)
    assert base.inputs_alone(feature) == {"input_ids": source, "decoder_input_ids": [0, *target[:-1]]}
    thoughtful = replace(turns, messages=(*turns.messages[:-1], replace(turns.messages[-1], thinking="hm")))
    assert base.encoders[Conversation](thoughtful)[0].sequences == feature.sequences
    assert base.chat.warnings == [
        "an encoder-decoder learns a conversation's last answer only: earlier ones are given to it",
        "reasoning before answers is left out: an encoder-decoder learns the answers alone",
    ]
    shown = base.chat.render(turns)
    assert [segment.text for segment in shown if segment.trained] == ["red</s>"]
    asked = turns.messages[:-1]
    assert base.chat.prompt(asked) == source


def test_an_end_that_the_tokenizer_does_not_write_is_written(tmp_path: Path) -> None:
    folder = save_t5(tmp_path / "t5")
    writer_tokenizer("$A").save_pretrained(folder)
    (feature,) = loaded(folder).encoders[Conversation](conversation(("user", "a"), ("assistant", "b")))
    assert feature.input_ids[-1] == 2
    assert feature.parts[1] == 2


@pytest.mark.parametrize(
    ("turns", "weight", "reason"),
    [
        ([("user", "a")], None, "nothing_to_train"),
        ([("assistant", "a")], None, "no_source"),
        ([("user", "a"), ("assistant", "b")], 0.0, "nothing_to_train"),
    ],
)
def test_a_row_that_teaches_nothing_is_refused(t5: Path, turns: Any, weight: Any, reason: str) -> None:
    with pytest.raises(RowRefused) as refused:
        loaded(t5).encoders[Conversation](conversation(*turns, weight=weight))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("on_overlong", "source", "target", "expected"),
    [
        (None, 30, 3, "overlong"),
        ("error", 3, 30, "overlong"),
        ("drop", 30, 3, "dropped_overlong"),
        ("truncate_prompt", 30, 3, (20, 4, 11)),
        ("truncate_prompt", 3, 30, "overlong"),
        ("truncate", 30, 30, (20, 20, 22)),
    ],
)
def test_source_and_target_have_a_limit_each(
    t5: Path, on_overlong: Any, source: int, target: int, expected: Any
) -> None:
    base = loaded(t5, max_length=20, on_overlong=on_overlong)
    turns = conversation(("user", "b" * source), ("assistant", "b" * target))
    if isinstance(expected, str):
        with pytest.raises(RowRefused) as refused:
            base.encoders[Conversation](turns)
        assert refused.value.reason == expected
        return
    (feature,) = base.encoders[Conversation](turns)
    assert (*feature.parts, feature.truncated) == expected
    assert feature.sequences[0][-1] == 2  # the end of the source is what stands at its end, cut or not
    assert base.chat.prompt(turns.messages[:1]) == feature.sequences[0]


def test_a_prefix_stands_before_every_source_in_training_and_in_use(
    t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = {"name": "seq2seq", "prefix": "colour: "}
    data = write_rows(tmp_path / "rows.jsonl", rows_of("source_target", 60))
    recipe = make_recipe(
        t5, data, tmp_path / "run", objective=objective, method="full",
        train={"max_steps": 3}, splits={"test": 0.2}, evaluate={"max_new_tokens": 4},
    )  # fmt: skip
    words = AutoTokenizer.from_pretrained(t5)
    store = compose.prepare(recipe).splits["train"].store
    assert all(words.decode(feature.sequences[0]).startswith("colour: the ") for feature in store)
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    run(recipe, resume=False, reporter=Reporter(quiet=True))
    model = tailor.load(str(tmp_path / "run"))
    stock = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model").eval()
    written = stock.generate(**words("colour: the stone", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert model.generate("the stone", max_new_tokens=4) == words.decode(written[0], True).strip()


@pytest.mark.parametrize(("kind", "method"), [("t5", "full"), ("bart", "lora")])
def test_a_run_from_recipe_to_proof(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    if method == "lora":  # the other one is proved by a process of its own
        monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    rows = [{**row, "target": "red red red red red"} for row in rows_of("source_target", 60)]
    recipe = make_recipe(
        request.getfixturevalue(kind), write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run", method=method,
        train={"max_steps": 40, "learning_rate": 2e-2}, splits={"dev": 0.1, "test": 0.2},
        evaluate={"max_new_tokens": 8},
    )  # fmt: skip
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["objective"] == "seq2seq"
    assert answer["proof"]["passed"]
    result = answer["evaluation"]["tasks"]["default"]
    assert result["primary"] == "rouge_l"
    assert result["metrics"]["exact_match"]["tuned"] == 1.0
    assert result["metrics"]["exact_match"]["base"] == 0.0
    assert tailor.load(str(tmp_path / "run")).generate("the stone is") == "red red red red red"
    again = evaluate_model(str(tmp_path / "run"), data=None, against=None, margin=None, reporter=Reporter(quiet=True))
    assert again["tasks"]["default"]["metrics"]["rouge_l"]["tuned"] == result["metrics"]["rouge_l"]["tuned"]
    assert "AutoModelForSeq2SeqLM" in (tmp_path / "run" / "README.md").read_text()
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    found = prove_model(str(tmp_path / "run"), base=None, served=None)
    assert found["passed"], found
    bare = prove_model(str(tmp_path / "run" / "model"), base=str(request.getfixturevalue(kind)), served=None)
    assert bare["passed"], bare
    with pytest.raises(TailorError, match="only a model that goes on with text can be proved through a server"):
        prove_model(str(tmp_path / "run"), base=None, served="http://127.0.0.1:9/v1")


def test_check_says_what_is_learned(t5: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("source_target"))
    report, _, _ = check(make_recipe(t5, data, tmp_path / "run"))
    assert report["objective"] == "seq2seq"
    assert report["stop_token"] == {"text": "</s>", "labelled": True}
    assert report["tokens"]["by_role"]["user"] == 0
    assert report["tokens"]["by_role"]["assistant"] == report["tokens"]["trained"] > 0
    shown = examples(make_recipe(t5, data, tmp_path / "run"), 1)[0]
    assert [segment["trained"] for segment in shown] == [False, False, True]
    overlong = make_recipe(t5, data, tmp_path / "run", splits={"max_length": 6})
    with pytest.raises(DataError, match="6 is the limit of each"):
        check(overlong)
