"""The job on which speed is measured: a base of a given shape, chats of lognormal length, raw text; all from a seed.

One set of files serves everyone: `chats.jsonl` (messages) for us, `pairs.jsonl` (the same chats as prompt and completion, in
the order in which our loop sees them) for trainers that are told an order, `held_out.jsonl` for the loss afterwards.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tailor.engine.order import permutation

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MEDIAN, SIGMA, SHORTEST, LONGEST = 87, 0.64, 16, 479
RANK, ALPHA, RATE, BATCH, SEED = 16, 32, 2e-4, 8, 0
WINDOW = 512


@dataclass(frozen=True)
class Shape:
    """A Llama's measures; the default is the 27 M of the published comparison."""

    width: int = 384
    inner: int = 1024
    layers: int = 8
    heads: int = 6
    vocabulary: int = 32_000

    @property
    def body(self) -> int:
        """Weights of the linear layers, the head's left out."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.inner)

    @property
    def adapters(self) -> int:
        """Weights of LoRA on all linear layers."""
        return self.layers * RANK * (4 * 2 * self.width + 3 * (self.width + self.inner))

    def useful_flops(self, kind: str, lengths: list[int], supervised: int) -> float:
        """Multiplications and additions that one pass over the data needs, with nothing computed twice.

        Forward and backward through frozen weights are 4 per weight and token, through moving ones 6; the head counts on
        supervised tokens alone; causal attention 6 width layers length^2.
        """
        tokens, head = sum(lengths), self.width * self.vocabulary
        attention = 6 * self.width * self.layers * sum(length**2 for length in lengths)
        if kind == "full":
            return float(6 * (tokens * self.body + supervised * head) + attention)
        return float(tokens * (4 * self.body + 6 * self.adapters) + 4 * supervised * head + attention)


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word is a token."""
    words = {
        word: index for index, word in enumerate([*SPECIALS, *(f"w{i}" for i in range(vocabulary - len(SPECIALS)))])
    }
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=TEMPLATE,
        extra_special_tokens=SPECIALS[4:],
        model_max_length=2048,
        **marks,
    )


def write_base(folder: Path, shape: Shape) -> None:
    """Random weights of a shape, as anyone would publish them."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(shape.vocabulary).save_pretrained(folder)


def _chats(draw: random.Random, count: int, vocabulary: int) -> list[dict[str, Any]]:
    """One question, one answer, about half of the tokens each."""
    chats = []
    for _ in range(count):
        length = min(LONGEST, max(SHORTEST, round(MEDIAN * draw.lognormvariate(0, SIGMA)))) - 4
        asked = max(2, round(length * draw.uniform(0.3, 0.65)))
        words = [f"w{draw.randrange(vocabulary - len(SPECIALS))}" for _ in range(length)]
        turns = [("user", words[:asked]), ("assistant", words[asked:])]
        chats.append({"messages": [{"role": role, "content": " ".join(said)} for role, said in turns]})
    return chats


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_job(folder: Path, chats: int, shape: Shape | None = None) -> None:
    """Base and data into a folder; what is there already stays."""
    if (folder / "done").exists():
        return
    shape = shape or Shape()
    write_base(folder / "base", shape)
    draw = random.Random(SEED)
    rows = _chats(draw, chats, shape.vocabulary)
    _write(folder / "chats.jsonl", rows)
    turns = [rows[index]["messages"] for index in permutation(SEED, 0, chats)]
    _write(folder / "pairs.jsonl", [{"prompt": messages[:1], "completion": messages[1:]} for messages in turns])
    _write(folder / "held_out.jsonl", _chats(draw, 32, shape.vocabulary))
    words = [f"w{draw.randrange(shape.vocabulary - len(SPECIALS))}" for _ in range(32 * (WINDOW - 1))]
    (folder / "text.txt").write_text(" ".join(words), encoding="utf-8")
    (folder / "done").touch()


def same_start(parameters: dict[str, torch.nn.Parameter]) -> None:
    """Every trainer starts from the same adapter, whatever it has drawn before: A from a seed, B zero."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for _, value in sorted(
            (name[name.index("layers.") :], value) for name, value in parameters.items() if "lora_A" in name
        ):
            value.copy_(torch.randn(value.shape, generator=generator) / value.shape[1] ** 0.5)


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, folder: Path) -> float:
    """Nats per supervised token of the held-out chats, each by itself, in fp32: the same few lines for every trainer."""
    words = tokenizer(model.config.vocab_size)  # type: ignore[attr-defined,union-attr,arg-type]
    model.float().eval()
    total = count = 0.0
    for line in (folder / "held_out.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        ids = words.apply_chat_template(messages, tokenize=True, return_dict=False)
        asked = len(
            words.apply_chat_template(messages[:1], tokenize=True, add_generation_prompt=True, return_dict=False)
        )
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, asked - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[asked:]), reduction="sum"))
        count += len(ids) - asked
    return total / count
