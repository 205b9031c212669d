"""The files by which sentence-transformers knows a folder: a transformers model, the mean of its states, unit length."""

import json
from pathlib import Path
from typing import Any

MODULES = {
    "": "sentence_transformers.models.Transformer",
    "1_Pooling": "sentence_transformers.models.Pooling",
    "2_Normalize": "sentence_transformers.models.Normalize",
}


def write_sentence_encoder(folder: Path, width: int, limit: int) -> None:
    """Lay them beside weights and config.

    Args:
        width: numbers of a vector.
        limit: tokens after which a text is cut.
    """
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (path, kind) in enumerate(MODULES.items())
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    for path in MODULES:
        (folder / path).mkdir(exist_ok=True)
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})


def _write(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2), encoding="utf-8")
