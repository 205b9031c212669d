"""Tiny random bases and data, and the few lines that every numerics test needs."""

import contextlib
import copy
import dataclasses
import importlib
import json
import random
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from tailor import compose
from tailor.bases.causal import CausalBase
from tailor.bases.loading import find
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, OutputSpec
from tailor.core.examples import Features
from tailor.core.reporting import Reporter
from tailor.engine.loop import Job
from tailor.engine.order import plain_order
from tailor.engine.place import Place, Trackers
from tailor.engine.settings import Facts, plan_of, resolve
from tailor.objectives.language import Language
from tailor.recipe.base import BaseOptions
from tailor.recipe.methods import MethodOptions
from tailor.recipe.objectives import LanguageOptions
from tailor.recipe.recipe import Recipe, parse
from tailor.recipe.train import TrainOptions

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
ROLES = ["<|user|>", "<|assistant|>", "<|system|>"]
COLOURS = ["red", "green", "blue", "grey"]
THINGS = ["stone", "river", "cloud", "lamp", "boat", "tower", "garden", "coat"]
VOCABULARY = 384
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}


@cache
def tokenizer(encoder: bool = False, pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """A byte-level BPE with a chat template, or with BERT's [CLS] and [SEP]."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ROLES),
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f"the {colour} {thing} is near a" for colour in COLOURS for thing in THINGS], trainer)
    specials: dict[str, Any] = {"pad_token": pad, "unk_token": "<unk>", "model_max_length": 256}
    if encoder:
        ends = [("[CLS]", SPECIALS.index("[CLS]")), ("[SEP]", SPECIALS.index("[SEP]"))]
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=inputs, **specials, **names)
    names = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": ROLES}
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=TEMPLATE, **specials, **names)


@cache
def writer_tokenizer(form: str) -> PreTrainedTokenizerFast:
    """For encoder-decoders: no chat template, and a text stands in `form`, `$A </s>` say."""
    words = copy.deepcopy(tokenizer())
    words.chat_template = None
    marks = [(mark, SPECIALS.index(mark)) for mark in ("<s>", "</s>")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=marks)
    return words


def save_base(folder: Path, config: PretrainedConfig, auto: Any, words: PreTrainedTokenizerFast) -> Path:
    """A random base as anyone would publish it; vectors (norms, biases, sinks) are drawn too, so that all matter."""
    torch.manual_seed(0)
    model = auto.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim < 2:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_llama(folder: Path, pad: str = "<pad>") -> Path:
    """A causal LM."""
    config = LlamaConfig(**SMALL, num_key_value_heads=2, attention_bias=True)
    return save_base(folder, config, AutoModelForCausalLM, tokenizer(pad=pad))


def save_bert(folder: Path, **settings: Any) -> Path:
    """A masked LM without dropout."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**SMALL, **{**still, **settings})
    return save_base(folder, config, AutoModelForMaskedLM, tokenizer(encoder=True))


def save_t5(folder: Path, **settings: Any) -> Path:
    """An encoder-decoder with relative positions, whose decoder begins with the padding token."""
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "n_positions": 256}
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    config = T5Config(**shape, **ids, **{"dropout_rate": 0.0, **settings})
    return save_base(folder, config, AutoModelForSeq2SeqLM, writer_tokenizer("$A </s>"))


def save_bart(folder: Path, **settings: Any) -> Path:
    """An encoder-decoder with learned positions, whose decoder begins with the end of a text."""
    shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 256, "init_std": 0.1}
    sides = {
        f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("attention_heads", 4), ("ffn_dim", 48))
    }
    ids = {
        "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    config = BartConfig(vocab_size=VOCABULARY, **shape, **sides, **ids, **{"dropout": 0.0, **settings})
    return save_base(folder, config, AutoModelForSeq2SeqLM, writer_tokenizer("<s> $A </s>"))


def rows_of(form: str, count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Rows that can be learned: what colour a thing has. Their lengths differ, and how much of each is learned."""
    draw = random.Random(seed)
    return [_row(form, draw, index) for index in range(count)]


def _row(form: str, draw: random.Random, index: int) -> dict[str, Any]:
    thing, colour, near = draw.choice(THINGS), draw.choice(COLOURS), " near" * draw.randrange(6)
    text = f"the {thing}{near} is {colour} {index}"
    answer = " ".join([colour] * draw.randrange(1, 7))
    match form:
        case "language":
            return {"text": " ".join([text] * draw.randrange(1, 6))}
        case "instruction":
            return {"prompt": text, "completion": answer}
        case "chat":
            turns = [("user", text), ("assistant", answer), ("user", f"and the {thing}?"), ("assistant", colour)]
            messages = [{"role": role, "content": content} for role, content in turns]
            return {"messages": [*messages[:1], {**messages[1], "weight": 0.5}, *messages[2:]]}
        case "single":
            return {"text": f"{text} {answer}", "label": colour}
        case "multi":
            shown = [name for name in COLOURS if draw.random() < 0.5] or [colour]
            return {"text": " ".join([thing, *shown * 3]), "label": shown}
        case "pair":
            kind, word = draw.choice([("thing", THINGS[0]), ("colour", COLOURS[0])])
            return {"premise": text, "hypothesis": " ".join([word] * draw.randrange(4, 12)), "label": kind}
        case "source_target":
            return {"source": text, "target": answer}
        case "preference":
            worse = draw.choice([name for name in COLOURS if name != colour])
            return {"prompt": text, "chosen": answer, "rejected": " ".join([worse] * draw.randrange(1, 7))}
        case "tags":
            words = text.split()
            kind = {thing: "B-THING", colour: "B-COLOUR"}
            return {"tokens": words, "tags": [kind.get(word, "O") for word in words]}
        case "span":
            asked, held = draw.choice([("thing", thing), ("colour", colour), ("number", "")])
            answers = {"text": [held] if held else [], "answer_start": [text.index(held)] if held else []}
            return {"context": text, "question": f"{asked}?", "answers": answers}
        case "triplet":
            return {
                "anchor": f"{thing[::-1]} {index % 3}",
                "positive": f"the {thing} is {colour}",
                "negative": text[::-1],
            }
        case "regression":
            return {"text": f"{text} {answer}", "label": 0.25 + COLOURS.index(colour)}
    raise ValueError(form)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_recipe(base: Path, data: Path, output: Path, **sections: Any) -> Recipe:
    """A recipe for CPU tests: fp32, a constant rate, no clipping, all rows in train; `sections` are laid over it."""
    train = {
        "examples_per_batch": 8,
        "max_steps": 5,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "schedule": {"name": "constant", "warmup": 0.0},
        **sections.pop("train", {}),
    }
    rows = {"train": str(data), "dev": 0, "test": 0, **sections.pop("splits", {})}
    return parse({"base": str(base), "data": rows, "train": train, "output": str(output), **sections})


def make_job(recipe: Recipe, reporter: Reporter | None = None) -> Job:
    """The pieces that `fit` puts together, up to the loop; the run folder is the recipe's output."""
    return prepare_job(recipe, reporter)[1]


def prepare_job(recipe: Recipe, reporter: Reporter | None = None) -> tuple[compose.Prepared, Job]:
    """The same, with the data that it was made from."""
    prepared = compose.prepare(recipe)
    place = Place("cpu", "fp32", "tests compute alike everywhere")
    prepared.recipe = compose.resolved_recipe(prepared, place)
    folder = Path(recipe.output)
    folder.mkdir(parents=True, exist_ok=True)
    job = compose.make_job(prepared, prepared.recipe, place, folder, reporter or Reporter(quiet=True))
    return prepared, job


def in_this_process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What a fresh process would run, without the seconds that it takes to start."""
    name = command[2] if command[1] == "-m" else f"tailor.evaluation.{Path(command[2]).stem}"
    importlib.import_module(name).main(*command[-2:])  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(command, 0, "", "")


class InterruptingReporter(Reporter):
    """A user who presses Ctrl-C while a given step is taken, and reads what is said."""

    def __init__(self, at: int = -1) -> None:
        super().__init__(quiet=True)
        self.at, self.step, self.said = at, 0, list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator["InterruptingReporter"]:
        self.step = done
        yield self

    def advance(self, text: str) -> None:
        self.step += 1
        if self.step == self.at:
            signal.raise_signal(signal.SIGINT)


def token_job(
    base: CausalBase, method: MethodOptions, features: Sequence[Features], folder: Path, steps: int = 1
) -> Job:
    """A job on ready-made features, all of them in every batch."""
    output = OutputSpec("tokens")
    torch.manual_seed(0)
    attached = registry.load("method", method.name)(method).attach(base, output)  # type: ignore[attr-defined]
    options = TrainOptions(max_steps=steps, examples_per_batch=len(features), learning_rate=1e-3)
    plan = plan_of(resolve(options, method, Facts(len(features), 32, "cpu", False)), len(features))
    place, trackers = Place("cpu", "fp32", "tests compute alike everywhere"), Trackers((), folder, {})
    objective, reporter = Language(LanguageOptions()), Reporter(quiet=True)
    order = plain_order(plan.seed, len(features), plan.examples_per_batch)
    return Job(base, attached, objective, output, features, (), plan, place, folder, reporter, trackers, order)


def load_causal(folder: Path, packing: bool = True) -> CausalBase:
    """A causal base with its weights, in fp32."""
    base = CausalBase(find(BaseOptions(name=str(folder))), EncodeOptions(packing=packing))
    base.load(OutputSpec("tokens"), torch.float32)
    return base


def random_features(lengths: Sequence[int], vocabulary: int = VOCABULARY) -> list[Features]:
    """Sequences of random tokens; of each, a random half is learned, with weight 1 or 0.5."""
    draw = random.Random(0)
    features = []
    for index, length in enumerate(lengths):
        ids = [draw.randrange(len(SPECIALS), vocabulary) for _ in range(length)]
        weights = [0.0, 1.0, *(draw.choice([0.0, 0.0, 0.5, 1.0]) for _ in range(length - 2))]
        features.append(Features(str(index), ids, weights))
    return features


def randomised(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Draw the matrices of a fresh adapter that are zero, so that every gradient has something to show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in parameters.items():
            if "lora_B" in name:
                value.normal_(std=0.1, generator=generator)


def trained_gradients(job: Any, features: Sequence[Features], groups: Sequence[Sequence[int]]) -> "Gradients":
    """Loss and gradients through the job's own collate, forward and loss, group by group."""
    job.attached.model.zero_grad()
    total = weight = 0.0
    for group in groups:
        batch = job.base.collate([features[index] for index in group], job.output)
        loss = job.objective.loss(job.base.forward(job.attached.model, batch), batch)
        loss.total.backward()
        total, weight = total + float(loss.total.detach()), weight + loss.weight
    return Gradients(total / weight, _taken(job.attached.trainable(), weight))


def stock_gradients(model: torch.nn.Module, features: Sequence[Features]) -> "Gradients":
    """The same for a causal LM by the book: every row alone through the stock forward, one weighted mean over all."""
    model.zero_grad()
    total, weight = torch.zeros(()), sum(sum(feature.weights) for feature in features)
    for feature in features:
        ids = torch.tensor([feature.input_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + (losses * torch.tensor(feature.weights[1:])).sum()
    total.backward()
    moving = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return Gradients(float(total.detach()) / weight, _taken(moving, weight))


def _taken(parameters: Mapping[str, torch.nn.Parameter], weight: float) -> dict[str, torch.Tensor]:
    return {name: value.grad / weight for name, value in parameters.items() if value.grad is not None}


@dataclasses.dataclass(frozen=True)
class Gradients:
    """A mean loss, and every gradient by parameter."""

    loss: float
    values: Mapping[str, torch.Tensor]

    def difference(self, other: "Gradients") -> float:
        """The largest difference of the loss or of any gradient's element."""
        return max(abs(self.loss - other.loss), largest_difference(self.values, other.values))


def largest_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of any element; infinite where names or shapes differ, or a value is not a number."""
    if set(one) != set(other) or any(one[name].shape != other[name].shape for name in one):
        return float("inf")
    worst = max((float((one[name] - other[name]).detach().abs().max()) for name in one), default=float("inf"))
    return worst if worst == worst else float("inf")


def copies(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values as they are now."""
    return {name: value.detach().clone() for name, value in parameters.items()}
