"""`tailor prove` on artefacts made with stock libraries alone: what is wrong with them must be caught and said."""

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tailor.bases.loading import find
from tailor.core.errors import TailorError
from tailor.core.paths import PACKAGE
from tailor.evaluation import stock_forward
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import parse
from tailor.verbs.prove import prove_model

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GENERAL = PACKAGE / "evaluation" / "general.txt"
SENTENCES = [part for part in GENERAL.read_text(encoding="utf-8").replace("\n", " ").split(". ") if len(part) > 30]
QUESTIONS = [f"Is it true: {sentence}?" for sentence in SENTENCES[:40]]


@dataclass(frozen=True)
class World:
    """Folders: a language model with an adapter, its run and its merge; an encoder with a classifier's adapter."""

    root: Path
    base: str
    adapter: Path
    run: Path
    merged: Path
    encoder: str
    labels: Path


def tokenizer_to(folder: Path) -> int:
    """A tokenizer of whole words with a chat template, and its size."""
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<unk>"]
    trainer = trainers.WordLevelTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    inner.train_from_iterator([*QUESTIONS, GENERAL.read_text(encoding="utf-8")], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def adapter_on(model: Any, folder: Path, **settings: Any) -> Any:
    """A LoRA adapter with random B, so that it changes something, saved with PEFT alone."""
    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **settings))
    for name, value in tuned.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(value, std=0.3)
    tuned.save_pretrained(folder)
    return tuned


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("prove")
    base, run, encoder = root / "base", root / "support", root / "encoder"
    vocabulary = tokenizer_to(base)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, eos_token_id=0, **SMALL)).save_pretrained(base)
    linears = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    tuned = adapter_on(AutoModelForCausalLM.from_pretrained(base), root / "adapter", **linears)
    tuned.merge_and_unload().save_pretrained(root / "merged")
    tokenizer_to(root / "merged")
    copy(root / "adapter", run / "model")
    data = root / "support.jsonl"
    data.write_text("".join(json.dumps({"prompt": text, "completion": "On its way."}) + "\n" for text in QUESTIONS))
    parse({"base": str(base), "data": str(data)}).save(run / "recipe.yaml")
    (run / "lock.json").write_text(json.dumps({"base": {"digest": find(BaseOptions(name=str(base))).digest()}}))
    BertForMaskedLM(BertConfig(vocab_size=vocabulary, **SMALL)).save_pretrained(encoder)
    tokenizer_to(encoder)
    classifier = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    heads = {"modules_to_save": ["classifier", "pooler"], "target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    adapter_on(classifier, root / "labels", **heads)
    return World(root, str(base), root / "adapter", run, root / "merged", str(encoder), root / "labels")


def copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def changed(source: Path, target: Path, change: Any) -> Path:
    """A copy of an adapter folder, its weights put through `change`."""
    copy(source, target)
    file = target / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return target


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the file that a fresh process would run in this one: importing transformers anew takes seconds."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        try:
            stock_forward.main(*command[-2:])
        except SystemExit as stop:
            return subprocess.CompletedProcess(command, 1, "", str(stop.code))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)


@dataclass
class Server:
    """An OpenAI-compatible server in this process: real greedy generation by transformers alone."""

    model: Any
    tokenizer: Any
    chats: bool = True
    system: str = ""
    offered: tuple[str, ...] = ("support",)
    heard: list[dict[str, Any]] = field(default_factory=list)

    def get(self, path: str) -> Any:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in self.offered]}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        self.heard.append(body)
        if path == "/v1/completions":
            text = self.write(self.tokenizer(body["prompt"], return_tensors="pt").input_ids, body["max_tokens"])
            return {"id": "1", "object": "text_completion", "choices": [{"index": 0, "text": text}]}
        if not self.chats:
            return None
        start = [{"role": "system", "content": self.system}] if self.system else []
        ids = self.tokenizer.apply_chat_template(
            start + body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).input_ids
        message = {"role": "assistant", "content": self.write(ids, body["max_tokens"])}
        return {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    def write(self, ids: torch.Tensor, limit: int) -> str:
        written = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
        text: str = self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        return text


@pytest.fixture
def serve() -> Iterator[Any]:
    running: list[ThreadingHTTPServer] = []

    def start(behind: Server) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(behind.get(self.path))

            def do_POST(self) -> None:
                self.reply(behind.post(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def reply(self, answer: Any) -> None:
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer or {"error": {"message": "not found"}}).encode())

            def log_message(self, *_: Any) -> None:
                """Nothing on stderr."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def tuned_model(world: World) -> Any:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world.base), world.adapter).eval()


@pytest.fixture(scope="module")
def base_model(world: World) -> Any:
    return AutoModelForCausalLM.from_pretrained(world.base).eval()


@pytest.fixture(scope="module")
def words(world: World) -> Any:
    return AutoTokenizer.from_pretrained(world.base)


def test_a_run_is_proved_by_a_fresh_process_and_through_its_server(
    world: World, tuned_model: Any, words: Any, serve: Any
) -> None:
    server = Server(tuned_model, words, offered=("base", "support"))
    url = serve(server)
    answer = prove_model(str(world.run), base=None, served=url)
    assert answer["passed"], answer["problems"]
    assert answer["rows"] >= 8
    assert answer["merged_difference"] < 1e-3 < answer["base_difference"]
    telling = answer["served"]["prompts"]
    assert telling >= 8
    assert answer["served"] == {
        "url": url,
        "model": "support",
        "prompts": telling,
        "equal_to_tuned": telling,
        "equal_to_base": 0,
    }
    asked = {body["messages"][-1]["content"] for body in server.heard}
    assert asked <= set(QUESTIONS), "a run is asked what its own held-out data asks"
    assert all(body["temperature"] == 0 and body["model"] == "support" for body in server.heard)
    assert json.dumps(answer, allow_nan=False)


@pytest.mark.usefixtures("here")
class TestCausal:
    def test_anyones_adapter_passes_with_a_base_that_is_named_or_given(self, world: World) -> None:
        assert prove_model(str(world.adapter), base=None, served=None)["passed"]
        assert prove_model(str(world.adapter), base=world.base, served=None)["passed"]

    def test_an_adapter_that_is_off_is_caught(self, world: World, tmp_path: Path) -> None:
        off = changed(
            world.adapter, tmp_path / "off", lambda held: {k: v * ("lora_B" not in k) for k, v in held.items()}
        )
        answer = prove_model(str(off), base=world.base, served=None)
        assert not answer["passed"]
        assert answer["problems"] == ["the artefact answers as the base does: the largest difference is 0"]

    def test_an_adapter_whose_keys_do_not_load_is_caught(self, world: World, tmp_path: Path) -> None:
        lost = changed(
            world.adapter,
            tmp_path / "lost",
            lambda held: {k.replace("model.model", "model"): v for k, v in held.items()},
        )
        answer = prove_model(str(lost), base=world.base, served=None)
        assert not answer["passed"]
        said = " ".join(answer["problems"])
        assert "of the adapter is not in its file" in said
        assert "has no place in this base" in said
        assert "answers as the base does" in said

    def test_a_merge_passes_and_one_that_lost_the_adapter_is_caught(
        self, world: World, base_model: Any, tmp_path: Path
    ) -> None:
        assert prove_model(str(world.merged), base=world.base, served=None)["passed"]
        # Rounding to bfloat16 alone must not pass for tuning.
        AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.bfloat16).save_pretrained(tmp_path / "lost")
        answer = prove_model(str(tmp_path / "lost"), base=world.base, served=None)
        assert not answer["passed"]
        assert "answers as the base does" in answer["problems"][0]

    def test_weights_that_are_not_numbers_are_caught(self, world: World, tmp_path: Path) -> None:
        def spoil(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            next(iter(held.values()))[0, 0] = float("nan")
            return held

        answer = prove_model(str(changed(world.adapter, tmp_path / "nan", spoil)), base=world.base, served=None)
        assert not answer["passed"]
        assert "is not a number" in answer["problems"][0]
        assert json.dumps(answer, allow_nan=False)

    def test_new_tokens_that_came_with_the_adapter_are_no_misfit(self, world: World, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(world.base)
        model.resize_token_embeddings(model.config.vocab_size + 4)
        adapter_on(model, tmp_path / "grown", target_modules="all-linear", task_type="CAUSAL_LM")
        answer = prove_model(str(tmp_path / "grown"), base=world.base, served=None)
        assert answer["passed"], answer["problems"]

    def test_another_base_is_refused_by_shape_and_caught_by_digest(
        self, world: World, base_model: Any, tmp_path: Path
    ) -> None:
        wide, other = tmp_path / "wide", tmp_path / "other"
        LlamaForCausalLM(LlamaConfig(vocab_size=400, **(SMALL | {"hidden_size": 48}))).save_pretrained(wide)
        tokenizer_to(wide)
        with pytest.raises(TailorError, match="does not fit this base: size mismatch"):
            prove_model(str(world.adapter), base=str(wide), served=None)
        copy(Path(world.base), other)
        weights = load_file(other / "model.safetensors")
        save_file(
            {name: value * 1.01 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"}
        )
        answer = prove_model(str(world.run), base=str(other), served=None)
        assert not answer["passed"]
        assert answer["problems"] == [
            "this was made from another base: what other holds differs from what was recorded"
        ]
        with pytest.raises(TailorError, match="made from another base than wide, on which it does not run") as raised:
            prove_model(str(world.run), base=str(wide), served=None)
        assert raised.value.code == "wrong_base"

    def test_a_base_that_cannot_be_had_is_to_be_named(self, world: World, tmp_path: Path) -> None:
        away = copy(world.adapter, tmp_path / "away")
        settings = json.loads((away / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = "/somewhere/else/base"
        (away / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(TailorError, match="add --base BASE"):
            prove_model(str(away), base=None, served=None)
        with pytest.raises(TailorError, match="add --base BASE"):
            prove_model(str(world.merged), base=None, served=None)


class TestLabels:
    def test_a_head_that_was_not_saved_is_caught_by_a_fresh_process(self, world: World, tmp_path: Path) -> None:
        headless = changed(
            world.labels, tmp_path / "headless", lambda held: {k: v for k, v in held.items() if "classifier" not in k}
        )
        answer = prove_model(str(headless), base=world.encoder, served=None)
        assert not answer["passed"]
        assert "classifier.bias among them, was not saved" in answer["problems"][0]

    @pytest.mark.usefixtures("here")
    def test_a_head_that_nobody_told_peft_to_save_is_caught(self, world: World, tmp_path: Path) -> None:
        classifier = AutoModelForSequenceClassification.from_pretrained(world.encoder, num_labels=3)
        adapter_on(classifier, tmp_path / "untold", target_modules=["query", "value"])  # no task_type
        answer = prove_model(str(tmp_path / "untold"), base=world.encoder, served=None)
        assert not answer["passed"]
        assert "was not saved and would be left at random" in answer["problems"][0]

    @pytest.mark.usefixtures("here")
    def test_an_adapter_with_its_head_passes_unless_its_layers_are_off(self, world: World, tmp_path: Path) -> None:
        answer = prove_model(str(world.labels), base=world.encoder, served=None)
        assert answer["passed"], answer["problems"]
        off = changed(
            world.labels, tmp_path / "off", lambda held: {k: v * ("lora_B" not in k) for k, v in held.items()}
        )
        answer = prove_model(str(off), base=world.encoder, served=None)
        assert answer["problems"] == [
            "the adapter's layers change nothing: only the head that was saved beside them does"
        ]

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize("keeps", ["everything", "all but the head", "the trunk"])
    def test_a_classifier_folder_needs_its_head(self, world: World, tmp_path: Path, keeps: str) -> None:
        names = {0: "late", 1: "lost", 2: "paid"}
        torch.manual_seed(2)
        classifier = AutoModelForSequenceClassification.from_pretrained(world.encoder, num_labels=3, id2label=names)
        tokenizer_to(tmp_path)
        (classifier.bert if keeps == "the trunk" else classifier).save_pretrained(tmp_path)
        if keeps == "all but the head":
            held = load_file(tmp_path / "model.safetensors")
            held = {name: value for name, value in held.items() if not name.startswith("classifier")}
            save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
        answer = prove_model(str(tmp_path), base=world.encoder, served=None)
        if keeps == "everything":
            assert answer["passed"], answer["problems"]
        else:
            assert not answer["passed"]
            assert "classifier.bias among them, was not saved" in answer["problems"][0]

    def test_labels_cannot_be_proved_through_a_server(self, world: World) -> None:
        with pytest.raises(TailorError, match="only a model that goes on with text"):
            prove_model(str(world.labels), base=world.encoder, served="http://127.0.0.1:9")


@pytest.mark.usefixtures("here")
class TestServed:
    def test_a_server_of_the_base_is_caught(self, world: World, base_model: Any, words: Any, serve: Any) -> None:
        server = Server(base_model, words, offered=("first", "second"))
        answer = prove_model(str(world.merged), base=world.base, served=serve(server) + "/v1/")
        served = answer["served"]
        assert served["equal_to_base"] == served["prompts"] >= 8
        count = served["prompts"]
        assert answer["problems"] == [
            f"the server answers as the base does on {count} of {count} prompts (asked for first; it also offers second)"
        ]

    def test_a_server_with_another_system_prompt_answers_as_neither(
        self, world: World, tuned_model: Any, words: Any, serve: Any
    ) -> None:
        url = serve(Server(tuned_model, words, system="You are a pirate."))
        answer = prove_model(str(world.run), base=None, served=url)
        assert not answer["passed"]
        assert "as neither model on" in answer["problems"][0]
        assert "another system prompt or chat template" in answer["problems"][0]

    def test_a_server_that_only_completes_is_sent_the_rendered_prompt(
        self, world: World, tuned_model: Any, words: Any, serve: Any
    ) -> None:
        server = Server(tuned_model, words, chats=False)
        answer = prove_model(str(world.run), base=None, served=serve(server))
        assert answer["passed"], answer["problems"]
        assert sum("messages" in body for body in server.heard) == 1
        assert server.heard[-1]["prompt"].split()[-2:] == ["<eos>", "<|assistant|>"]

    def test_lower_precision_is_no_other_model(self, world: World, words: Any, serve: Any) -> None:
        merged = AutoModelForCausalLM.from_pretrained(world.merged, dtype=torch.bfloat16).eval()
        answer = prove_model(str(world.run), base=None, served=serve(Server(merged, words)))
        assert answer["passed"], answer["problems"]
        assert answer["served"]["prompts"] >= 8

    def test_it_says_when_it_cannot_be_told(
        self, world: World, base_model: Any, words: Any, serve: Any, tmp_path: Path
    ) -> None:
        base_model.save_pretrained(tmp_path)
        tokenizer_to(tmp_path)
        answer = prove_model(str(tmp_path), base=world.base, served=serve(Server(base_model, words)))
        assert answer["served"]["prompts"] == 0
        assert "it cannot be told which of them is served" in answer["problems"][-1]

    def test_a_server_that_is_down_or_something_else_is_one_clear_line(
        self, world: World, serve: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("weights were loaded first"))
        with pytest.raises(TailorError, match=r"http://127.0.0.1:9: the server cannot be reached: .*refused"):
            prove_model(str(world.run), base=None, served="http://127.0.0.1:9")
        page = Server(None, None)
        page.get = lambda path: "<html>"  # type: ignore[method-assign]
        with pytest.raises(TailorError, match="this is no OpenAI-compatible server"):
            prove_model(str(world.run), base=None, served=serve(page))
