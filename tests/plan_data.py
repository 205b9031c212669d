# ruff: noqa: E501
# A case or a config is a line of a table.
"""What the advisor is held against: cases with the method and the rule expected, and public configs of real bases."""

from typing import Any

from tailor.recipe.methods import METHODS

ALL = dict.fromkeys(METHODS, True)
ENCODER = {name: True for name in METHODS if name not in ("prompt", "prefix")}

CASES: list[tuple[str, dict[str, Any], dict[str, bool], str | None, str]] = [
    ("new facts", {"objective": "chat", "family": "causal-lm", "rows": 900, "goal": "facts"}, ALL, None, "retrieval"),
    ("an API", {"objective": "chat", "family": "endpoint", "rows": 900, "weights": False}, {"prompt": True}, "prompt", "closed_weights"),
    ("a style", {"objective": "text_to_image", "family": "diffusion", "rows": 8}, ALL, "lora", "pictures"),
    ("many models", {"objective": "chat", "family": "causal-lm", "rows": 900, "served": 9}, ALL, "lora", "many_served"),
    ("a corpus", {"objective": "language", "family": "causal-lm", "rows": 10**6, "tokens": 2 * 10**9}, ALL, "full", "much_data"),
    ("a corpus, no room", {"objective": "language", "family": "causal-lm", "rows": 9, "tokens": 2 * 10**9}, ALL | {"full": False}, "lora", "much_data"),
    ("many rows", {"objective": "instruction", "family": "causal-lm", "rows": 80_000}, ALL, "full", "much_data"),
    ("notes for an encoder", {"objective": "language", "family": "encoder", "rows": 900}, ENCODER, "full", "raw_text_encoder"),
    ("notes for an LM", {"objective": "language", "family": "causal-lm", "rows": 900}, ALL, "lora", "lora"),
    ("eight a label", {"objective": "classification", "family": "encoder", "rows": 48, "labels": 6, "rarest": 8}, ENCODER, "head", "few_labels"),
    ("labels enough", {"objective": "classification", "family": "encoder", "rows": 900, "labels": 6, "rarest": 90}, ENCODER, "full", "encoder_task"),
    ("labels, no room", {"objective": "classification", "family": "encoder", "rows": 900, "labels": 6, "rarest": 90}, ENCODER | {"full": False}, "lora", "encoder_task"),
    ("tags", {"objective": "tagging", "family": "encoder", "rows": 900}, ENCODER, "full", "encoder_task"),
    ("few chats", {"objective": "chat", "family": "causal-lm", "rows": 20, "instructed": True}, ALL, "prompt", "prompt_first"),
    ("few chats, raw base", {"objective": "chat", "family": "causal-lm", "rows": 20}, ALL, "lora", "lora"),
    ("few preferences", {"objective": "preference", "family": "causal-lm", "rows": 20, "instructed": True}, ALL, "lora", "lora"),
    ("chats", {"objective": "chat", "family": "causal-lm", "rows": 900, "instructed": True}, ALL, "lora", "lora"),
    ("summaries", {"objective": "seq2seq", "family": "encoder-decoder", "rows": 900}, ALL, "lora", "lora"),
    ("nothing fits", {"objective": "chat", "family": "causal-lm", "rows": 900}, dict.fromkeys(METHODS, False), None, "lora"),
]  # fmt: skip

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
QWEN = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def llama(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "max_position_embeddings": 8192, **LLAMA, **more,
    }  # fmt: skip


CONFIGS: dict[str, tuple[str, dict[str, Any], int]] = {
    "gpt2": ("gpt", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}, 124_439_808),
    "smollm2-135m": ("gpt", llama(49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True), 134_515_008),
    "smollm2-360m": ("gpt", llama(49152, 960, 2560, 32, 15, 5, tie_word_embeddings=True), 361_821_120),
    "smollm2-1.7b": ("gpt", llama(49152, 2048, 8192, 24, 32, 32, tie_word_embeddings=True), 1_711_376_384),
    "qwen2.5-0.5b": ("gpt", llama(151936, 896, 4864, 24, 14, 2) | QWEN | {"tie_word_embeddings": True}, 494_032_768),
    "qwen2.5-7b": ("gpt", llama(152064, 3584, 18944, 28, 28, 4) | QWEN, 7_615_616_512),
    "llama-3.2-1b": ("gpt", llama(128256, 2048, 8192, 16, 32, 8, tie_word_embeddings=True), 1_235_814_400),
    "llama-3-8b": ("gpt", llama(128256, 4096, 14336, 32, 32, 8), 8_030_261_248),
    "llama-3-70b": ("gpt", llama(128256, 8192, 28672, 80, 64, 8), 70_553_706_496),
    "gemma-2-2b": ("gpt", {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "dtype": "bfloat16"}, 2_614_341_888),
    "bert-base": ("bert", {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}, 109_482_240),
    "t5-base": ("t5", {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 32128, "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "decoder_start_token_id": 0}, 222_903_552),
}  # fmt: skip
"""Public configs: the embedded base that lends its tokenizer, the config, and how many parameters the real model has."""
DATA = {"gpt": "pocket:support", "bert": "pocket:tickets", "t5": "pocket:summaries"}
HEADS = {"bert": 768 * 6 + 6 - 768 * 768 - 768}
"""What a task adds to the base's own parameters: the head for six teams on mean token states, whose trunk has no pooler."""
