"""From the command to the first step, beside what nobody can do without: importing torch, the model's class and peft, and
loading the same base.

`python benchmarks/start.py [--rounds 5]` starts both in turns, in fresh processes, and prints the ratio of their medians, by
the clock and in processor seconds. The job is that of `speed.py`; its rows have been encoded before, the cache is its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from speed import HERE, machine
from speed_job import RANK, write_job

STOCK = """
import sys, torch, peft
from transformers import LlamaForCausalLM
LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""


def spent(pid: int) -> float:
    """Processor seconds of a process that still runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until_first_step(folder: Path, output: Path) -> tuple[float, float]:
    """Seconds, and processor seconds, from `tailor fit` to the line that its first step logs; then it is ended."""
    command = [
        sys.executable,
        "-m",
        "tailor",
        "fit",
        "--base",
        str(folder / "base"),
        "--data",
        str(folder / "chats.jsonl"),
    ]
    command += ["--output", str(output), "--yes", "--quiet", f'method={{"name": "lora", "rank": {RANK}}}', "data.dev=0"]
    command += ["data.test=0", "train.examples_per_batch=1", "train.precision=fp32", "train.max_steps=1000"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        log = output / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size):
            if child.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
            time.sleep(0.002)
        found = time.perf_counter() - start, spent(child.pid)
        child.kill()
    return found


def stock(folder: Path) -> tuple[float, float]:
    """The same for imports and loading alone."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", STOCK, str(folder / "base")], check=True, capture_output=True)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, processor


def main() -> None:
    """Measure in turns, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default="/tmp/tailor-speed")
    asked = parser.parse_args()
    folder = Path(asked.folder) / "96"
    folder.mkdir(parents=True, exist_ok=True)
    write_job(folder, 96)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TAILOR_CACHE": str(folder / "cache")}
    runs = [
        (stock(folder), until_first_step(folder, folder / "runs" / f"start-{os.getpid()}-{turn}"))
        for turn in range(asked.rounds + 1)
    ][1:]  # the first one fills the machine's own caches
    result = {"date": date.today().isoformat(), "machine": machine(), "rounds": asked.rounds}
    for place, unit in enumerate(("seconds", "processor_seconds")):
        theirs, ours = (statistics.median(run[side][place] for run in runs) for side in (0, 1))
        ratios = sorted(run[1][place] / run[0][place] for run in runs)
        result[unit] = {"stock": theirs, "ours": ours, "ratio": ours / theirs, "range": [ratios[0], ratios[-1]]}
        print(f"{unit}: imports and base {theirs:.2f}, to the first step {ours:.2f}: {ours / theirs:.2f} times")
    (HERE / "results" / "start.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
