"""How fast a step is, beside what people would use instead: the same model, data, order and precision, in turns.

`python benchmarks/speed.py [ROW …] [--rounds 3] [--chats 96]` runs every row in a process of its own, round after round, so
that what else the machine does falls on all of them alike, and prints medians with ranges, losses beside speeds, and shares
of the machine's measured limit (the fastest of the job's own matrix products). Kept in `benchmarks/results/speed.json`.

A row's tokens are the data's own, without padding; its seconds those from the first batch asked for to the last optimizer
step. Processor seconds are the process's: on a machine that does other work beside they say more than the clock.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TUNED = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456"
"""The allocator's settings that serve a trainer best which does not set them itself."""
TRL_PACKED = {"packing": True, "max_length": 512, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}

ROWS: dict[str, dict[str, Any]] = {
    "lora ours fp32": {"by": "ours", "kind": "lora"},
    "lora ours bf16": {"by": "ours", "kind": "lora", "precision": "bf16"},
    "lora ours naive fp32": {"by": "ours", "kind": "lora", "exact": "naive"},
    "lora TRL default fp32": {"by": "trl", "kind": "lora", "settings": {"gradient_checkpointing": True}},
    "lora TRL padding-free fp32": {
        "by": "trl",
        "kind": "lora",
        "settings": {"padding_free": True, "max_length": None},
        "tuned": True,
    },
    "lora TRL packed fp32": {"by": "trl", "kind": "lora", "settings": TRL_PACKED, "tuned": True},
    "lora TRL packed bf16": {"by": "trl", "kind": "lora", "settings": {**TRL_PACKED, "bf16": True}, "tuned": True},
    "full ours fp32": {"by": "ours", "kind": "full"},
    "full TRL padding-free fp32": {
        "by": "trl",
        "kind": "full",
        "settings": {"padding_free": True, "max_length": None},
        "tuned": True,
    },
    "full TRL packed fp32": {"by": "trl", "kind": "full", "settings": TRL_PACKED, "tuned": True},
    "text ours fp32": {"by": "ours", "kind": "text"},
    "text TRL packed fp32": {
        "by": "trl",
        "kind": "text",
        "settings": {"packing": True, "packing_strategy": "wrapped", "max_length": 512},
        "tuned": True,
    },
}
"""What is run: by whom, what learns (`text`: LoRA on packed raw text), and with which settings of theirs."""


def ours(row: dict[str, Any], folder: Path, output: Path) -> tuple[Any, float, list[float]]:
    """Our loop on the job: the trained model, seconds, and the loss of every step."""
    from speed_job import ALPHA, BATCH, RANK, RATE, same_start

    from tailor import compose
    from tailor.core.reporting import Reporter
    from tailor.engine.loop import fit
    from tailor.recipe.recipe import parse

    method = {"name": "lora", "rank": RANK, "alpha": ALPHA} if row["kind"] != "full" else "full"
    steady = {
        "schedule": {"name": "constant", "warmup": 0.0},
        "epochs": 1,
        "patience": None,
        "checkpoint_every": 10_000,
    }
    train = {**steady, "examples_per_batch": BATCH, "learning_rate": RATE, "precision": row.get("precision", "fp32")}
    if row.get("exact"):
        train["exact"] = row["exact"]
    text = row["kind"] == "text"
    data = {"train": str(folder / ("text.txt" if text else "chats.jsonl")), "dev": 0, "test": 0}
    if text:
        data["max_length"] = 512
    recipe = parse(
        {"base": str(folder / "base"), "data": data, "method": method, "train": train, "output": str(output)}
    )
    prepared = compose.prepare(recipe)
    place = compose.choose_place(recipe, prepared.base.source)
    prepared.recipe = compose.resolved_recipe(prepared, place)
    output.mkdir(parents=True, exist_ok=True)
    job = compose.make_job(prepared, prepared.recipe, place, output, Reporter(quiet=True))
    same_start(dict(job.attached.trainable()))
    outcome = fit(job)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return job.attached.model, outcome.state.seconds, [line["loss"] for line in lines if "loss" in line]


def trl(row: dict[str, Any], folder: Path, output: Path) -> tuple[Any, float, list[float]]:
    """TRL's SFTTrainer on the job, its data in our order."""
    import torch
    from datasets import Dataset, load_dataset
    from peft import LoraConfig
    from speed_job import ALPHA, BATCH, RANK, RATE, SEED, same_start
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):  # type: ignore[misc]
        """With its data in the order given."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    text = row["kind"] == "text"
    if text:
        data = Dataset.from_dict({"text": [(folder / "text.txt").read_text()]})
    else:
        data = load_dataset("json", data_files=str(folder / "pairs.jsonl"), split="train")
    plain = {"per_device_train_batch_size": BATCH, "gradient_checkpointing": False, "bf16": False}
    config = SFTConfig(
        output_dir=str(output), num_train_epochs=1, learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=SEED,
        **({} if text else {"completion_only_loss": True}), **{**plain, **row["settings"]},
    )  # fmt: skip
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32),
        args=config,
        train_dataset=data,
        peft_config=lora if row["kind"] != "full" else None,
    )
    if row["kind"] != "full":
        same_start({name: value for name, value in trainer.model.named_parameters() if value.requires_grad})
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return trainer.model, seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


RUNNERS: dict[str, Callable[[dict[str, Any], Path, Path], tuple[Any, float, list[float]]]] = {"ours": ours, "trl": trl}


def one(name: str, folder: Path, output: Path) -> dict[str, Any]:
    """One row in this process."""
    from speed_job import held_out_loss

    row = ROWS[name]
    before = resource.getrusage(resource.RUSAGE_SELF)
    model, seconds, losses = RUNNERS[row["by"]](row, folder, output)
    after = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, Any] = {
        "seconds": seconds,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_bytes": after.ru_maxrss * 1024,
        "steps": len(losses),
        "loss_first": losses[0],
        "loss_mean": statistics.fmean(losses),
    }
    return {**found, "held_out": held_out_loss(model, folder)}


def limit(dtype: str) -> float:
    """GFLOP/s of the fastest of the job's matrix products, best of five: what no trainer can pass here."""
    import torch

    best = 0.0
    for rows, inner, columns in (
        (1024, 384, 1024),
        (1024, 1024, 384),
        (2048, 384, 1024),
        (512, 384, 1536),
        (1024, 32000, 384),
    ):
        left = torch.randn(rows, inner, dtype=getattr(torch, dtype))
        right = torch.randn(columns, inner, dtype=getattr(torch, dtype)).t()
        left @ right
        for _ in range(5):
            start = time.perf_counter()
            left @ right
            best = max(best, 2e-9 * rows * inner * columns / (time.perf_counter() - start))
    return best


def measure(names: list[str], folder: Path, rounds: int) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float]]:
    """Every row once a round, each in a fresh process; and the best that the machine's products showed in any round."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    limits = {"float32": 0.0, "bfloat16": 0.0}
    for turn in range(rounds):
        for dtype in limits:
            limits[dtype] = max(limits[dtype], float(_child(["--limit", dtype], tuned=False)))
        for name in names:
            output = folder / "runs" / f"{name.replace(' ', '-')}-{turn}-{os.getpid()}"
            answer = json.loads(_child(["--one", name, str(folder), str(output)], tuned=ROWS[name].get("tuned", False)))
            found[name].append(answer)
            spent = f"{answer['seconds']:.1f} s, {answer['processor_seconds']:.1f} of the processor"
            print(f"{turn + 1}: {name}: {spent}, held out {answer['held_out']:.5f}", flush=True)
    return found, limits


def _child(arguments: list[str], *, tuned: bool) -> str:
    """The last line that this file prints in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if tuned:
        environment["GLIBC_TUNABLES"] = TUNED
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def amounts(folder: Path, chats: int) -> dict[str, dict[str, Any]]:
    """Real tokens, supervised ones and useful work of each kind of row."""
    from speed_job import WINDOW, Shape, tokenizer

    shape, words = Shape(), tokenizer(Shape().vocabulary)
    lengths, supervised = [], 0
    for line in (folder / "chats.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        lengths.append(len(words.apply_chat_template(messages, return_dict=False)))
        supervised += len(messages[1]["content"].split()) + 1
    windows = [WINDOW] * 32
    texts = {
        "tokens": sum(windows),
        "supervised": sum(windows),
        "flops": shape.useful_flops("text", windows, sum(windows)),
    }
    one = {"tokens": sum(lengths), "supervised": supervised}
    return {
        "lora": {**one, "flops": shape.useful_flops("lora", lengths, supervised)},
        "full": {**one, "flops": shape.useful_flops("full", lengths, supervised)},
        "text": texts,
    }


def table(found: dict[str, list[dict[str, Any]]], limits: dict[str, float], work: dict[str, Any]) -> dict[str, Any]:
    """Medians and ranges by row, printed as they are made."""
    rows = {}
    for name, runs in found.items():
        kind = work[ROWS[name]["kind"]]
        speeds = sorted(kind["tokens"] / run["seconds"] for run in runs)
        middle = statistics.median(speeds)
        limit = limits["bfloat16" if "bf16" in name else "float32"]
        rows[name] = {
            "tokens_per_second": {"median": middle, "range": [speeds[0], speeds[-1]], "n": len(speeds)},
            "tokens_per_processor_second": statistics.median(kind["tokens"] / run["processor_seconds"] for run in runs),
            "share_of_limit": kind["flops"] / kind["tokens"] * middle / limit / 1e9,
            "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
            **{
                key: statistics.median(run[key] for run in runs)
                for key in ("steps", "loss_first", "loss_mean", "held_out")
            },
        }
        print(
            f"{name:30} {middle:8.0f} tokens/s ({speeds[0]:.0f}–{speeds[-1]:.0f}) {rows[name]['share_of_limit']:6.1%} of "
            f"the limit · {rows[name]['peak_bytes'] / 2**30:.1f} GiB · loss {rows[name]['loss_mean']:.4f}, held out "
            f"{rows[name]['held_out']:.4f}"
        )
    return rows


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure the named rows (all by default), print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="; ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chats", type=int, default=96)
    parser.add_argument("--folder", default="/tmp/tailor-speed")
    parser.add_argument("--keep", default=str(HERE / "results" / "speed.json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.limit:
        print(limit(asked.limit))
        return
    if asked.one:
        name, folder, output = asked.one
        print(json.dumps(one(name, Path(folder), Path(output))))
        return
    from speed_job import write_job

    folder = Path(asked.folder) / str(asked.chats)
    folder.mkdir(parents=True, exist_ok=True)
    write_job(folder, asked.chats)
    found, limits = measure(asked.rows or list(ROWS), folder, asked.rounds)
    work = amounts(folder, asked.chats)
    rows = table(found, limits, work)
    target = Path(asked.keep)
    earlier = json.loads(target.read_text())["rows"] if target.exists() else {}
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "gflops_limit": limits,
        "work": work,
        "rows": {**earlier, **rows},
    }
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
