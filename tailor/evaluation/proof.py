"""Proof that what was saved is what was trained: reloaded by stock libraries in a fresh process, and compared.

Half the field's silent failures end here: an export equal to the base (LLaMA-Factory #9051, Unsloth #2142), a head that was
never saved (PEFT #577, SetFit #526), a merge that loses the adapter (PEFT #1836).
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tailor.core.errors import RunError
from tailor.core.paths import PACKAGE
from tailor.evaluation.picture_proof import PictureProbe
from tailor.evaluation.stock_forward import read_off

HOME = str(PACKAGE.parent)
STOCK = Path(__file__).with_name("stock_forward.py")
RELOADED, MERGED, FACTOR = 1e-4, 1e-3, 100
OFF = 1e-5
"""Below this an adapter's layers change nothing: rounding alone."""

ROWS = 8

CLASSES = {
    "tokens": "AutoModelForCausalLM",
    "labels": "AutoModelForSequenceClassification",
    "tags": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
    "masked": "AutoModelForMaskedLM",
    "embedding": "AutoModel",
    "sequence": "AutoModelForSeq2SeqLM",
}
"""What is read off a model -> the stock class that gives it."""

Logits = Mapping[int, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """What the fresh process is to load, and the rows it is to run.

    Args:
        artefact: the folder to prove; base: where stock classes find the base, in which revision.
        under: adapters that belong to the base, innermost first.
        head: a key of `CLASSES`; labels: how many outputs it has, 0: as the config says; problem: transformers' problem
            type.
        rows: forward arguments of each row, as lists.
        prompts: token ids to be continued greedily by artefact and base, by up to `new_tokens` or to one of `stops`.
        quantize: how the base's weights are packed, `4bit` or not at all.
        own_loader: the module of ours that loads the artefact where stock libraries cannot.
    """

    artefact: str
    base: str
    head: str
    rows: Sequence[Mapping[str, list[int]]]
    labels: int = 0
    problem: str | None = None
    mean_pool: bool = False
    trust_remote_code: bool = False
    revision: str = "main"
    under: Sequence[str] = ()
    prompts: Sequence[Sequence[int]] = ()
    stops: Sequence[int] = ()
    new_tokens: int = 0
    quantize: str | None = None
    own_loader: str = ""

    @property
    def script(self) -> Path:
        """The program that answers."""
        return STOCK

    def as_dict(self) -> dict[str, Any]:
        """What `stock_forward.py` reads."""
        adapter = (Path(self.artefact) / "adapter_config.json").exists()
        return {
            **self.__dict__,
            "rows": [dict(row) for row in self.rows],
            "model_class": CLASSES[self.head],
            "adapter": adapter,
            "threads": torch.get_num_threads(),
        }


@dataclass
class Found:
    """What the fresh process computed.

    Args:
        off: the adapter's layers switched off beside the head that was saved with them; empty where there is none.
        missing: weights that neither the artefact nor its base holds.
        unloaded: adapter weights that the file lacks; unplaced: those in the file that the base has no place for.
        not_finite: weights that hold NaN or infinity.
        by: which libraries loaded the artefact, `stock` or `tailor`.
        texts: of `reloaded` and `base`, for each prompt the token ids that follow, `STOP` last where they end, and by how
            much each one's logit led the next best.
    """

    reloaded: Logits
    base: Logits
    merged: Logits
    off: Logits
    missing: list[str]
    unloaded: list[str]
    unplaced: list[str]
    not_finite: list[str]
    texts: Mapping[str, list[tuple[list[int], list[float]]]]
    by: str = "stock"


@dataclass
class Proof:
    """The verdict. Differences are the largest of any logit, in fp32; `problems` says in words what failed."""

    passed: bool
    by: str
    rows: int
    max_difference: float | None = None
    merged_difference: float | None = None
    base_difference: float | None = None
    tolerance: float = RELOADED
    problems: list[str] = field(default_factory=list)
    served: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """`proof.json`; a difference that is no number is null."""
        known = {name: value for name, value in self.__dict__.items() if name != "served" or value is not None}
        unbounded = {name for name, value in known.items() if isinstance(value, float) and not math.isfinite(value)}
        return known | dict.fromkeys(unbounded)

    def add(self, problem: str) -> None:
        """One more reason why the proof fails."""
        self.problems.append(problem)
        self.passed = False


@torch.no_grad()
def own_outputs(model: Any, rows: Sequence[Mapping[str, list[int]]]) -> dict[int, torch.Tensor]:
    """The trained model's logits in fp32 on the CPU, each row alone and unpadded, as the fresh process runs them."""
    model.eval().float().cpu()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # 4-bit layers compute in a dtype of their own
            module.compute_dtype = torch.float32
    found = {}
    for index, row in enumerate(rows):
        inputs = {name: torch.tensor([values]) for name, values in row.items()}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        found[index] = read_off(model(**inputs), len(row["input_ids"]))
    return found


def run_stock(probe: Probe | PictureProbe) -> Found:
    """Run a probe's program in a fresh process; raises `RunError` with its last line where it fails."""
    with tempfile.TemporaryDirectory(prefix="tailor-proof-") as folder:
        question, answer = Path(folder) / "probe.json", Path(folder) / "out.safetensors"
        question.write_text(json.dumps(probe.as_dict()))
        program = ["-m", probe.own_loader] if probe.own_loader else ["-I", str(probe.script)]
        done = subprocess.run(
            [sys.executable, *program, str(question), str(answer)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [HOME, os.environ.get("PYTHONPATH")]))},
        )
        if done.returncode or not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RunError(f"a fresh process cannot load what was saved: {last[0]}", where=probe.artefact, code="proof")
        parts: dict[str, dict[int, torch.Tensor]] = {"reloaded": {}, "base": {}, "merged": {}, "off": {}}
        with safe_open(answer, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part, _, index = name.partition("/")
                parts[part][int(index)] = file.get_tensor(name)
            report = json.loads(file.metadata()["report"])
    by = "tailor" if probe.own_loader else "stock"
    return Found(parts["reloaded"], parts["base"], parts["merged"], parts["off"], **report, by=by)


def largest_difference(one: Logits, other: Logits) -> float:
    """The largest difference of any logit; infinite where shapes differ or a value is not a number."""
    worst = 0.0
    for index, values in one.items():
        if index not in other or other[index].shape != values.shape:
            return float("inf")
        difference = float((values - other[index]).abs().max())
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def judge(found: Found, trained: Logits | None) -> Proof:
    """Hold what stock libraries computed against the trained model (where it is at hand), the merge and the base."""
    proof = Proof(True, found.by, len(found.base))
    for problem in _problems_of_weights(found):
        proof.add(problem)
    if found.not_finite or not found.reloaded:
        return proof
    if trained is not None:
        proof.max_difference = largest_difference(trained, found.reloaded)
        if proof.max_difference > RELOADED:
            proof.add(f"the reloaded artefact differs from the trained model by {proof.max_difference:.2g}")
    if found.merged:
        proof.merged_difference = largest_difference(found.reloaded, found.merged)
        if proof.merged_difference > MERGED:
            proof.add(f"the merged model differs from the adapter by {proof.merged_difference:.2g}")
    proof.base_difference = largest_difference(found.reloaded, found.base)
    if proof.base_difference < FACTOR * RELOADED:
        proof.add(f"the artefact answers as the base does: the largest difference is {proof.base_difference:.2g}")
    if found.off and largest_difference(found.reloaded, found.off) < OFF:
        proof.add("the adapter's layers change nothing: only the head that was saved beside them does")
    return proof


def _problems_of_weights(found: Found) -> list[str]:
    """What the weights alone tell, in words."""
    said = {
        "was not saved and would be left at random": found.missing,
        "of the adapter is not in its file, so that it has no effect": found.unloaded,
        "of the adapter's file has no place in this base and is not loaded": found.unplaced,
        "is not a number (NaN or infinity)": found.not_finite,
    }
    problems = [f"{_counted(names)} {problem}" for problem, names in said.items() if names]
    if not found.not_finite and not all(bool(values.isfinite().all()) for values in found.reloaded.values()):
        problems.append("the artefact's answers are not numbers (NaN or infinity)")
    return problems


def _counted(names: Sequence[str]) -> str:
    return f"the weight {names[0]}" if len(names) == 1 else f"each of {len(names)} weights, {names[0]} among them,"
