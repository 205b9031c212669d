"""`check` without a base: form and counts, and what an examination of every row adds. Torch-free."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tailor.core.reporting import Reporter
from tailor.data.load import Loaded
from tailor.data.quality import mend, page
from tailor.data.quality.examine import Embed, Examination
from tailor.data.quality.findings import with_findings

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


def refuse_outputs(fix: Path | None, html: Path | None) -> None:
    """Refuse places that cannot be written to, before any work is done."""
    if fix is not None:
        mend.refuse_existing(fix)
    if html is not None:
        page.refuse_other_ending(html)


def examined(
    report: Mapping[str, Any],
    loaded: Loaded,
    reporter: Reporter,
    *,
    embed: Embed | None = None,
    fix: Path | None = None,
    redact: bool = False,
    html: Path | None = None,
) -> dict[str, Any]:
    """A report with what a pass over every row finds; with the copy and the page that were asked for."""
    seen = Examination(loaded, reporter, embed)
    full = with_findings(report, seen)
    full["problems"] = as_stopping(full["problems"], ())
    if fix is not None:
        full["fixed"] = mend.write(loaded, seen, fix, redact=redact)
    if html is not None:
        page.write(full, seen, html)
        full["html"] = str(html)
    return full
