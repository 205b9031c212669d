"""How long `tailor check` takes on many rows, and how much memory: `python benchmarks/check_speed.py [ROWS ...]`.

Chats of made-up words, 1 % of them near-copies, are written to a temporary file and checked in a process of its own, so that
its peak is its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VOCABULARY = 20_000
"""Words of the made-up language, drawn by Zipf's law."""


def write(path: Path, rows: int) -> None:
    """Questions of 8 to 40 words and answers of 20; every hundredth question nearly repeats the one before."""
    draw = np.random.default_rng(0)
    before: list[str] = []
    with path.open("w") as file:
        for number in range(rows):
            words = [f"w{word % VOCABULARY}" for word in draw.zipf(1.3, int(draw.integers(28, 60)))]
            asked = [*before[:-1], "other"] if number % 100 == 99 else words[20:]
            before = asked
            turns = [
                {"role": "user", "content": " ".join(asked)},
                {"role": "assistant", "content": " ".join(words[:20])},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def processor() -> float:
    """Seconds of processor time of all checks so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a line for each number of rows, fewest first, since the peak is that of all checks so far."""
    for rows in sorted(map(int, sys.argv[1:] or ["10000", "100000", "1000000"])):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write(path, rows)
            size, start, spent = path.stat().st_size, time.perf_counter(), processor()
            command = [sys.executable, "-m", "tailor", "check", str(path), "--json"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, worked = time.perf_counter() - start, processor() - spent
        near = json.loads(done.stdout)["duplicates"]["near"]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"| {rows:,} | {size / 1e6:.0f} MB | {seconds:.0f} s | {worked:.0f} s | {peak:.0f} MB | {near:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
