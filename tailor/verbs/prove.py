"""`tailor prove`: is this artefact, or the model behind this server, really the tuned one? For anyone's adapters."""

from pathlib import Path
from typing import Any

from tailor.bases.loading import Source, find, load_tokenizer
from tailor.core.errors import TailorError
from tailor.core.paths import PACKAGE
from tailor.core.runs import RunFolder
from tailor.evaluate.proof import Probe, judge, run_stock
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import load

PROMPTS = 12
PROMPT_TOKENS = 48


def prove_model(model: str, *, base: str | None, served: str | None) -> dict[str, Any]:
    """Run probe prompts through the artefact as stock libraries load it, its merge, and its base; then a server, if named.

    Raises `TailorError` where the artefact or the base cannot be loaded at all; a proof that fails is an answer.
    """
    artefact = _artefact(Path(model))
    below = find(BaseOptions(name=base or _named_base(Path(model))))
    tuned = find(BaseOptions(name=str(artefact)))
    labels = tuned.labels
    probe = Probe(
        artefact=str(artefact),
        base=below.location,
        head="labels" if labels or tuned.family == "encoder" else "tokens",
        rows=_rows(tuned, below),
        labels=len(labels),
        mean_pool=tuned.mean_pool_head is not None,
    )
    proof = judge(run_stock(probe), None)
    return proof.as_dict()


def _artefact(path: Path) -> Path:
    if not path.is_dir():
        raise TailorError("there is no such folder", where=str(path), fix="name a run, an adapter or a merged folder")
    return path / "model" if (path / "recipe.yaml").exists() else path


def _named_base(path: Path) -> str:
    """What the run or the adapter was made from."""
    if (path / "recipe.yaml").exists():
        return load(RunFolder.existing(path).recipe).base.name
    source = find(BaseOptions(name=str(path)))
    if not source.adapters:
        raise TailorError("this folder does not say what it was made from", where=str(path), fix="add --base BASE")
    return source.location


def _rows(tuned: Source, below: Source) -> list[dict[str, list[int]]]:
    tokenizer = load_tokenizer(tuned if _has_tokenizer(tuned) else below)
    lines = (PACKAGE / "evaluate" / "general.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][:PROMPTS]
    encoded = [tokenizer(text, truncation=True, max_length=PROMPT_TOKENS) for text in texts]
    kept = ("input_ids", "token_type_ids")
    return [{name: list(row[name]) for name in kept if name in row} for row in encoded]


def _has_tokenizer(source: Source) -> bool:
    return any((Path(place) / "tokenizer_config.json").exists() for place in (source.location, *source.adapters))
