"""Rows are turned into tokens once: what took long to encode is kept by content, for the next run on the same data.

The key holds all that decides the tokens (rows, tokenizer and template, options, our code and the libraries'), so that
nothing has to be told when something of it changes. Splits in which something was refused are not kept, nor what numbers
and words cannot hold (pictures).
"""

import dataclasses
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tailor.bases.loading import local_folder
from tailor.core.paths import cache_folder, code_digest
from tailor.data.store import FeatureStore
from tailor.data.table import Table
from tailor.engine.encoding import Encoded, encode
from tailor.nn.kept import Values, keep, make_room, read

WORTH_SECONDS = 1.0
"""What took less is sooner made again than looked up."""
MOST_BYTES = 4 << 30
"""Of what is kept on disk; the longest unused goes first."""
LIBRARIES = ("transformers", "tokenizers", "jinja2")
WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".gguf")


def encode_once(table: Table, objective: Any, base: Any) -> Encoded:
    """As `encode`, from disk where the same has been encoded before; everything anew where `train.exact` is naive."""
    ours = type(objective).__module__.startswith("tailor.")
    if (
        base.options.naive or not ours or "weights" not in base.has
    ):  # a base without weights here has no tokenizer either
        return encode(table, objective, base)
    folder, key = cache_folder() / "encoded", _key(table, objective, base)
    kept = None if key is None else read(folder / f"{key}.safetensors")
    if kept is not None:
        return _from_values(kept)
    start = time.perf_counter()
    made = encode(table, objective, base)
    if key is not None and not made.refused and time.perf_counter() - start >= WORTH_SECONDS:
        values = _as_values(made)
        if values is not None:
            keep(folder / f"{key}.safetensors", values)
            make_room(folder, MOST_BYTES)
    return made


def _key(table: Table, objective: Any, base: Any) -> str | None:
    """A digest of all that decides what rows become; None where some of it is no plain value."""
    source = base.source
    try:
        total = hashlib.sha256(
            json.dumps(
                {
                    "code": code_digest(),
                    "libraries": [version(name) for name in LIBRARIES],
                    "words": [_words_digest(place) for place in _places(source)],
                    "base": [source.options.model_dump(), base.family, base.limit, base.context],
                    "options": dataclasses.asdict(base.options),
                    "objective": [objective.options.model_dump(), dataclasses.asdict(objective.output)],
                    "prompt": None if objective.prompt is None else objective.prompt.as_json(),
                },
                sort_keys=True,
            ).encode()
        )
        for entry in table:
            total.update(json.dumps([entry.id, entry.row], sort_keys=True).encode("utf-8", "surrogatepass"))
    except (TypeError, AttributeError):
        return None
    return total.hexdigest()


def _places(source: Any) -> list[Path]:
    """Folders that a tokenizer may come from."""
    beside = [source.begun, source.prompt_file and source.prompt_file.parent, *source.adapters]
    return [local_folder(str(source.location), source.options.revision), *(Path(place) for place in beside if place)]


def _words_digest(folder: Path) -> str:
    """Of everything in a model's folder but its weights: tokenizer, template, config."""
    total = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file() and file.suffix not in WEIGHTS):
        total.update(file.name.encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _as_values(made: Encoded) -> Values | None:
    """As tensors; None where it holds what JSON does not give back as it was."""
    numbers, starts, rows = made.store.contents()
    counts = {name: getattr(made, name) for name in ("truncated", "truncated_tokens", "trained", "tokens")}
    told = {"rows": rows, "counts": counts}
    try:
        text = json.dumps(told)
    except TypeError:
        return None
    if json.loads(text) != told:
        return None
    return {
        "numbers": torch.from_numpy(np.array(numbers)),
        "starts": torch.tensor(starts),
        "places": torch.tensor(made.rows),
        "told": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8),
    }


def _from_values(values: Values) -> Encoded:
    told = json.loads(values["told"].numpy().tobytes())
    store = FeatureStore.of(values["numbers"].numpy(), values["starts"].tolist(), told["rows"])
    return Encoded(store=store, rows=values["places"].tolist(), **told["counts"])
