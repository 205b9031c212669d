"""Tokenizers of the two bases, and their pre-training batches."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
GPT_VOCABULARY, BERT_VOCABULARY = 2304, 3072
GPT_LENGTH, GPT_TOKENS = 512, 4096
BERT_LENGTH, BERT_TOKENS = 256, 6144
POOL_OF_TEXTS = 4096  # texts sorted by length at a time, so that a batch holds little padding
Batch = dict[str, torch.Tensor]


def gpt_tokenizer(texts: Iterable[str], template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text encodes. Digits stand alone, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    special = ["<|pad|>", END, "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=GPT_VOCABULARY - len(marks),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = (text.replace(mark, "\n") for text in texts for mark in [special[2]])
    tokenizer.train_from_iterator(plain, trainer)
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
        length = GPT_LENGTH if number % 4 == 3 else GPT_LENGTH // 2
        yield {"input_ids": torch.tensor(buffer[:GPT_TOKENS]).view(-1, length), "tokens": torch.tensor(GPT_TOKENS)}
        buffer = buffer[GPT_TOKENS:]


class Masker:
    """Whole-word masking: 15 % of the words; of these 80 % are masked, 10 % exchanged, 10 % left as they are."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.generator = torch.Generator().manual_seed(seed)
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self.continues = torch.tensor([piece.startswith("##") for piece in pieces])
        self.special = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.special[tokenizer.all_special_ids] = True

    def __call__(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels for a batch of token ids."""
        word = (~self.continues[ids]).cumsum(1) - 1
        draw = torch.rand(ids.shape, generator=self.generator).gather(1, word.clamp(min=0))
        chosen = (draw < 0.15) & ~self.special[ids]
        labels = torch.where(chosen, ids, -100)
        random_ids = torch.randint(len(self.tokenizer), ids.shape, generator=self.generator)
        inputs = torch.where(chosen & (draw < 0.12), self.tokenizer.mask_token_id, ids)
        return torch.where(chosen & (draw >= 0.12) & (draw < 0.135), random_ids, inputs), labels


def two_parts(text: str, number: int) -> tuple[str, str | None]:
    """Every third text of several sentences is seen as two segments."""
    if number % 3 or ". " not in text:
        return text, None
    sentences = text.split(". ")
    middle = (len(sentences) + 1) // 2
    return ". ".join(sentences[:middle]) + ".", ". ".join(sentences[middle:])


def bert_batches(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast, mask: Masker) -> Iterator[Batch]:
    """Masked texts of like length, about the same number of tokens in each batch."""
    while True:
        pairs = [two_parts(text, number) for number, text in enumerate(itertools.islice(texts, POOL_OF_TEXTS))]
        encoded = [tokenizer(*pair, truncation=True, max_length=BERT_LENGTH) for pair in pairs]
        encoded.sort(key=lambda features: len(features["input_ids"]))
        batches, start = [], 0
        for stop in range(1, len(encoded) + 1):
            if stop == len(encoded) or (stop + 1 - start) * len(encoded[stop]["input_ids"]) > BERT_TOKENS:
                batches.append(encoded[start:stop])
                start = stop
        for index in torch.randperm(len(batches), generator=mask.generator).tolist():
            batch = dict(tokenizer.pad(batches[index], return_tensors="pt"))
            tokens = batch["attention_mask"].sum()
            batch["input_ids"], batch["labels"] = mask(batch["input_ids"])
            yield {**batch, "tokens": tokens}
