"""`check` without a base: form and counts, torch-free and at once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tailor.data.load import Loaded

BENIGN = {"dropped_overlong"}


def without_base(loaded: Loaded) -> dict[str, Any]:
    """The report on data that no tokenizer has seen: everything but tokens and stop token, which are null."""
    report = loaded.report.as_dict()
    refused = {
        *report["rows"]["refused"],
        *(key for counts in report["held_out"].values() for key in counts["refused"]),
    }
    return report | {
        "objective": loaded.form.objective_for("encoder" if loaded.form.name == "classification" else "causal"),
        "problems": as_stopping(report["problems"], refused),
        "tokens": None,
        "stop_token": None,
        "label_noise": [],
    }


def as_stopping(problems: Sequence[Mapping[str, Any]], refused: Collection[str]) -> list[dict[str, Any]]:
    """Refused rows as errors, since they would stop `fit`; errors first."""
    stopping = set(refused) - BENIGN
    marked = [
        {**problem, "severity": "error"} if problem["code"] in stopping else dict(problem) for problem in problems
    ]
    order = ["error", "warning", "info"]
    return sorted(marked, key=lambda problem: order.index(problem["severity"]))
