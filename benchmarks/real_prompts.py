"""Prompt search on real input with small local bases: `python benchmarks/real_prompts.py DATA`.

DATA is a folder with `sst_sentiment/` (SST-2), `clinc_oos/` (Larson et al. 2019) and `stories260k_llama/hf`, as their
sources publish them. Each base is asked bare, then behind the best prompt that the search finds on dev; both on the same
test rows. These bases are far below the size at which prompting is known to work, and the figures say so.
"""

import argparse
import json
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_approaches import figures, fitted, sentences, written

TRAIN, TEST = 600, 300
SEARCH = {"name": "prompt", "candidates": 16, "rows": 80}


def sentiment(data: Path, out: Path) -> dict[str, str]:
    """SST-2: positive or negative."""
    return {"train": sentences(data, out, "train", TRAIN), "test": sentences(data, out, "test", TEST)}


def intents(data: Path, out: Path) -> dict[str, str]:
    """The fifteen intents of clinc's banking domain, by name."""
    folder = data / "clinc_oos"
    banking = set(json.loads((folder / "domains.json").read_text(encoding="utf-8"))["banking"])
    rows = json.loads((folder / "data_small.json").read_text(encoding="utf-8"))

    def chosen(split: str) -> list[dict[str, str]]:
        pairs = [(text, label) for text, label in rows[split] if label in banking]
        return [{"text": text, "label": label.replace("_", " ")} for text, label in pairs]

    return {name: written(out / f"banking-{name}.jsonl", chosen(name)) for name in ("train", "test")}


def main() -> None:
    """Search for each task on each base, and keep the figures with date and hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    bases = {"stories260k": str(data / "stories260k_llama" / "hf"), "pocket:gpt": "pocket:gpt"}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for task, rows in {"sst": sentiment(data, out), "clinc_banking": intents(data, out)}.items():
            for name, base in bases.items():
                run = fitted(out / f"{task}-{name.partition(':')[2] or name}", base=base, data=rows, method=SEARCH)
                train = {key: run.summary["train"][key] for key in ("calls", "seconds")}
                found[f"{task}, {name}"] = figures(run) | {"train": train}
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    result = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__, "figures": found}
    target = Path(__file__).parent / "results" / "real_prompts.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
