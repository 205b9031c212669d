"""A cleaned copy of the training source, and beside it what was changed: one line for each row left out or altered.

The copy is JSON lines in the source's own columns. The log names rows by file and line and says why; it quotes nothing.
What a person must judge stays: near-duplicates within the source, doubted labels, lengths.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tailor.core.errors import RecipeError
from tailor.core.examples import Origin
from tailor.data.load import Loaded
from tailor.data.quality import damage, private
from tailor.data.quality.examine import Examination
from tailor.data.quality.lenses import no_signal


def log_of(out: Path) -> Path:
    """Where the changes of a copy are written: `OUT.changes.jsonl`."""
    return out.with_suffix(".changes.jsonl")


def refuse_existing(out: Path) -> None:
    """Refuse to write over anything, before any work is done."""
    if out.suffix != ".jsonl":
        raise RecipeError(
            f"{out} does not end in .jsonl, which the copy is", where="--fix", fix="e.g. --fix clean.jsonl"
        )
    for path in (out, log_of(out)):
        if path.exists():
            raise RecipeError(f"{path} exists, and nothing is written over", where="--fix", fix="name another file")
    if not out.parent.is_dir():
        raise RecipeError(f"there is no folder {out.parent}", where="--fix", fix="make it first")


def write(loaded: Loaded, seen: Examination, out: Path, *, redact: bool) -> dict[str, Any]:
    """Write copy and log; rows in, kept, left out by reason, altered by reason.

    Args:
        redact: put `[EMAIL]` and the like in the place of personal data and secrets.
    """
    refuse_existing(out)
    source = loaded.source
    left_out = removals(loaded, seen) if source is loaded.pools["train"] else {}
    gone, altered = Counter(source.refused), Counter[str]()
    kept = 0
    with out.open("x", encoding="utf-8") as copy, log_of(out).open("x", encoding="utf-8") as log:
        for bad in source.bad:
            log.write(_line(bad.origin, "left_out", bad.reason))
        for number in range(len(source)):
            entry = source.store[number]
            if number in left_out:
                gone[left_out[number]] += 1
                log.write(_line(entry.origin, "left_out", left_out[number]))
                continue
            values, changes = _mended(entry.values, redact)
            for change in changes:
                altered[change] += 1
                log.write(_line(entry.origin, "altered", change))
            copy.write(json.dumps(values, ensure_ascii=False, default=str) + "\n")
            kept += 1
    counts = {"in": source.rows_in, "kept": kept, "left_out": dict(gone), "altered": dict(altered)}
    return {"file": str(out), "changes": str(log_of(out)), **counts}


def _line(origin: Origin, what: str, why: str) -> str:
    return (
        json.dumps({"file": origin.file, "line": origin.line, "change": what, "reason": why}, ensure_ascii=False) + "\n"
    )


def removals(loaded: Loaded, seen: Examination) -> dict[int, str]:
    """Row of the training source -> why it is left out of the copy."""
    pool = loaded.pools["train"]
    repeats = pool.repeats()
    labelled = any(pool.labels)
    found: dict[int, str] = {}
    for number, given in enumerate(pool.normalised_inputs):
        if labelled and given in repeats.contradicted:
            found[number] = "contradictory_duplicate"
    found |= dict(_leaked(loaded, seen))
    for reason, numbers in (("exact_duplicate", repeats.exact), ("normalised_duplicate", repeats.normalised)):
        for number in numbers:
            found.setdefault(number, reason)
    if loaded.form.name == "preference":
        for number in range(len(pool)):
            if no_signal(pool.store[number].row):
                found.setdefault(number, "no_signal")
    return found


def _leaked(loaded: Loaded, seen: Examination) -> Iterator[tuple[int, str]]:
    """Training rows that a test source of its own also holds."""
    if "test" in loaded.drawn:
        return
    tests = set(loaded.pools["test"].normalised_inputs)
    for number, given in enumerate(loaded.pools["train"].normalised_inputs):
        if given in tests:
            yield number, "leakage"
    for pair in seen.near:
        if pair.first < seen.own <= pair.second:
            yield pair.first, "near_leakage"
    for leak in seen.leaks:
        if leak.kind == "overlap":
            yield leak.train, "overlap_leakage"


def _mended(values: Mapping[str, Any], redact: bool) -> tuple[Any, list[str]]:
    """The row with its texts mended, and the words for what was changed."""
    changes = []
    for change, alter in (("encoding", damage.mend), *((("redacted", private.redact),) if redact else ())):
        altered = _throughout(values, alter)
        if altered != values:
            changes.append(change)
            values = altered
    return values, changes


def _throughout(value: Any, alter: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return alter(value)
    if isinstance(value, Mapping):
        return {key: _throughout(inner, alter) for key, inner in value.items()}
    return [_throughout(inner, alter) for inner in value] if isinstance(value, list | tuple) else value
