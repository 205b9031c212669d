"""Tokenizers of the bases, and their pre-training batches."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
GPT_VOCABULARY, BERT_VOCABULARY = 2304, 3072
GPT_LENGTH, GPT_TOKENS = 512, 2048
BERT_LENGTH, BERT_TOKENS = 256, 2048
T5_VOCABULARY, T5_LENGTH, T5_TOKENS = 2048, 256, 2048
SENTINELS = [f"<extra_id_{number}>" for number in range(32)]
POOL_OF_TEXTS = 1024  # texts sorted by length at a time: little padding, and still several kinds of text in a batch
MASK_RATE = 0.15
Batch = dict[str, torch.Tensor]
T = TypeVar("T")


def byte_level(texts: Iterable[str], vocabulary: int, special: list[str]) -> Tokenizer:
    """Byte-level BPE: any text encodes. Digits stand alone, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def gpt_tokenizer(texts: Iterable[str], template: str) -> PreTrainedTokenizerFast:
    """BPE with the marks of the chat template."""
    marks = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    special = ["<|pad|>", END, "<|im_start|>", "<|im_end|>"]
    plain = (text.replace(special[2], "\n") for text in texts)
    tokenizer = byte_level(plain, GPT_VOCABULARY - len(marks), special)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|pad|>",
        model_max_length=GPT_LENGTH,
        additional_special_tokens=special[2:],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    wrapped.chat_template = template
    return wrapped


def t5_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """BPE with sentinels for masked spans; every text ends with the end token."""
    special = ["<pad>", "</s>", *SENTINELS]
    tokenizer = byte_level(texts, T5_VOCABULARY, special)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=T5_LENGTH,
        additional_special_tokens=SENTINELS,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def bert_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Lower-cased WordPiece."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    printable = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=BERT_VOCABULARY, special_tokens=special, initial_alphabet=printable, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=BERT_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def gpt_batches(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Documents, each closed by the end token, packed into full rows; every fourth batch has long rows."""
    buffer: list[int] = []
    for number in itertools.count():
        while len(buffer) < GPT_TOKENS:
            for ids in tokenizer(list(itertools.islice(texts, 256)), add_special_tokens=False)["input_ids"]:
                buffer += [*ids, tokenizer.eos_token_id]
        length = GPT_LENGTH // 2 if number % 4 else GPT_LENGTH
        yield {"input_ids": torch.tensor(buffer[:GPT_TOKENS]).view(-1, length), "tokens": torch.tensor(GPT_TOKENS)}
        buffer = buffer[GPT_TOKENS:]


class Masker:
    """Whole-word masking: 15 % of the words, `rates` of some; of these 80 % are masked, 10 % exchanged, 10 % left.

    The first word masked out of those with a rate of their own is asked at [CLS] too: there a classifier will look.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, rates: dict[str, float]) -> None:
        self.tokenizer = tokenizer
        self.generator = torch.Generator().manual_seed(seed)
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self.continues = torch.tensor([piece.startswith("##") for piece in pieces])
        self.rates = torch.tensor([rates.get(piece, MASK_RATE) for piece in pieces])
        self.telling = torch.tensor([piece in rates for piece in pieces])
        self.rates[tokenizer.all_special_ids] = 0

    def __call__(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels for a batch of token ids."""
        begins = ~self.continues[ids]
        word = begins.cumsum(1) - 1
        rate = torch.zeros(ids.shape).scatter_add(1, word, self.rates[ids] * begins).gather(1, word)
        draw = torch.rand(ids.shape, generator=self.generator).gather(1, word) / rate
        labels = torch.where(draw < 1, ids, -100)
        random_ids = torch.randint(len(self.tokenizer), ids.shape, generator=self.generator)
        inputs = torch.where(draw < 0.8, self.tokenizer.mask_token_id, ids)
        inputs = torch.where((draw >= 0.8) & (draw < 0.9), random_ids, inputs)
        asked = (draw < 0.8) & self.telling[ids]
        first = labels.gather(1, asked.int().argmax(1, keepdim=True))
        labels[:, :1] = torch.where(asked.any(1, keepdim=True), first, -100)
        return inputs, labels


def two_parts(text: str, number: int) -> tuple[str, str | None]:
    """Every third text of several sentences is seen as two segments."""
    if number % 3 or ". " not in text:
        return text, None
    sentences = text.split(". ")
    middle = (len(sentences) + 1) // 2
    return ". ".join(sentences[:middle]) + ".", ". ".join(sentences[middle:])


def by_length(encoded: list[T], length: Callable[[T], int], most: int) -> list[list[T]]:
    """Batches of like length, none with more than `most` tokens, padding included."""
    encoded = sorted(encoded, key=length)
    batches, start = [], 0
    for stop in range(1, len(encoded) + 1):
        if stop == len(encoded) or (stop + 1 - start) * length(encoded[stop]) > most:
            batches.append(encoded[start:stop])
            start = stop
    return batches


def bert_batches(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast, mask: Masker) -> Iterator[Batch]:
    """Masked texts of like length, about the same number of tokens in each batch."""
    while True:
        pairs = [two_parts(text, number) for number, text in enumerate(itertools.islice(texts, POOL_OF_TEXTS))]
        encoded = [tokenizer(*pair, truncation=True, max_length=BERT_LENGTH) for pair in pairs]
        batches = by_length(encoded, lambda features: len(features["input_ids"]), BERT_TOKENS)
        for index in torch.randperm(len(batches), generator=mask.generator).tolist():
            batch = dict(tokenizer.pad(batches[index], return_tensors="pt"))
            tokens = batch["attention_mask"].sum()
            batch["input_ids"], batch["labels"] = mask(batch["input_ids"])
            yield {**batch, "tokens": tokens}


def corrupt(ids: list[int], sentinels: list[int], generator: random.Random) -> tuple[list[int], list[int]]:
    """Spans of one to five tokens, 15 % in all, replaced by sentinels; and what stood there, sentinel by sentinel."""
    inputs, targets, position = [], [], 0
    spans = iter(sentinels)
    while position < len(ids):
        if generator.random() < 0.06 and (sentinel := next(spans, None)) is not None:
            length = generator.randint(1, 5)
            inputs.append(sentinel)
            targets += [sentinel, *ids[position : position + length]]
            position += length
        inputs += ids[position : position + 1]
        position += 1
    return inputs, targets


def t5_batches(
    texts: Iterator[str], asked: Iterator[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, seed: int
) -> Iterator[Batch]:
    """One part texts with masked spans, two parts skills, of like length."""
    generator, end = random.Random(seed), [tokenizer.eos_token_id]
    sentinels = tokenizer.convert_tokens_to_ids(SENTINELS)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"][: T5_LENGTH - 1]

    while True:
        plain = [corrupt(encode(text), sentinels, generator) for text in itertools.islice(texts, POOL_OF_TEXTS // 3)]
        pairs = [pair for pair in plain if pair[1]]
        pairs += [(encode(text), encode(answer)) for text, answer in itertools.islice(asked, 2 * POOL_OF_TEXTS // 3)]
        batches = by_length(pairs, lambda pair: len(pair[0]) + len(pair[1]) + 2, T5_TOKENS)
        generator.shuffle(batches)
        for batch in batches:
            inputs = [torch.tensor(source + end) for source, _ in batch]
            labels = [torch.tensor(target + end) for _, target in batch]
            yield {
                "input_ids": (ids := pad_sequence(inputs, batch_first=True, padding_value=tokenizer.pad_token_id)),
                "attention_mask": ids != tokenizer.pad_token_id,
                "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
                "tokens": torch.tensor(sum(map(len, inputs + labels))),
            }
