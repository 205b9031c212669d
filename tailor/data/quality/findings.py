"""What an examination has to say: the parts of `tailor check`'s answer that go beyond loading."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from tailor.data.load import SHOWN_PAIRS
from tailor.data.quality import private
from tailor.data.quality.examine import JUDGED, Examination
from tailor.data.quality.lenses import rows_that
from tailor.data.report import Problem

FEW_REPEATS = 0.005
"""Fewer near-duplicates change nothing that could be told."""
SHOWN_CLUSTERS, SHOWN_ROWS = 20, 10
FEW = 0.02
"""Fewer of a test split drawn from the data itself are turns of phrase, and flatter no score that could be told."""


def with_findings(report: Mapping[str, Any], seen: Examination) -> dict[str, Any]:
    """A data report with everything that an examination found. No row's text is in it.

    Where personal data was found, messages that quote a row are redacted and the first words of requests are left out.
    """
    figures = {name: value for lens in seen.lenses for name, value in lens.figures().items()}
    problems = [asdict(problem) for problem in _problems(seen)]
    merged = {**report, **figures, "problems": [*report["problems"], *problems], "label_noise": _label_noise(seen)}
    if seen.judgement is not None:
        merged["label_agreement"] = seen.judgement.agreement
    near = sum(len(rows) - 1 for rows in seen.clusters)
    merged["duplicates"] = {**report["duplicates"], "near": near, "clusters": _clusters(seen)}
    merged["leakage"] = _leakage(report["leakage"], seen)
    return _without_text(merged) if merged["privacy"] == "strict" else merged


def _without_text(report: dict[str, Any]) -> dict[str, Any]:
    if "variety" in report:
        report["variety"] = {key: value for key, value in report["variety"].items() if key != "most_common"}
    report["problems"] = [one | {"message": private.redact(one["message"])} for one in report["problems"]]
    return report


def _place(seen: Examination, number: int) -> dict[str, Any]:
    return asdict(seen.entry(number).origin)


def _clusters(seen: Examination) -> list[dict[str, Any]]:
    return [
        {"rows": len(rows), "places": [_place(seen, number) for number in rows[:SHOWN_ROWS]]}
        for rows in seen.clusters[:SHOWN_CLUSTERS]
    ]


def _leakage(report: Mapping[str, Any], seen: Examination) -> dict[str, Any]:
    kinds = {kind: sum(leak.kind == kind for leak in seen.leaks) for kind in ("near", "overlap")}
    pairs = [
        {"test": _place(seen, leak.test), "train": _place(seen, leak.train), "kind": leak.kind, "share": leak.share}
        for leak in seen.leaks[:SHOWN_PAIRS]
    ]
    return {**report, **kinds, "pairs": [*report["pairs"], *pairs]}


def _label_noise(seen: Examination) -> list[dict[str, Any]]:
    """Every judged row, the most suspect first."""
    if seen.judgement is None:
        return []
    return [
        {
            **_place(seen, doubt.row),
            "given": doubt.given,
            "suggested": doubt.suggested,
            "score": doubt.score,
            "flagged": doubt.flagged,
        }
        for doubt in seen.judgement.doubts
    ]


def _problems(seen: Examination) -> list[Problem]:
    found = [problem for lens in seen.lenses for problem in lens.problems()]
    return [*_leak_problems(seen), *found, *_near_problems(seen), *_noise_problems(seen)]


def _at(seen: Examination, number: int) -> tuple[str, int]:
    origin = seen.entry(number).origin
    return origin.file, origin.line


def _near_problems(seen: Examination) -> list[Problem]:
    if not seen.clusters:
        return []
    count = sum(len(rows) - 1 for rows in seen.clusters)
    text = (
        f"{rows_that(count, 'repeat')} an earlier one nearly word for word (clusters: {len(seen.clusters)}, the largest of "
        f"{len(seen.clusters[0])} rows): "
        "keep one of each, or name what they share as `group` (`--columns group=COLUMN`), so that no split divides them"
    )
    severity: Literal["info", "warning"] = "info" if count < FEW_REPEATS * seen.own else "warning"
    return [Problem(severity, "near_duplicates", text, *_at(seen, seen.clusters[0][1]), count)]


def _leak_problems(seen: Examination) -> list[Problem]:
    found = []
    texts = {
        "near": "nearly word for word among those to train on",
        "overlap": "in one long run of words among those to train on",
    }
    mend = "--fix OUT.jsonl leaves those rows out of training"
    drawn = bool(seen.tests) and seen.tests[0] < seen.own
    if drawn:
        mend = "name what such rows share as `group` (`--columns group=COLUMN`), so that no split divides them"
    for kind, what in texts.items():
        leaks = [leak for leak in seen.leaks if leak.kind == kind]
        if leaks:
            text = f"{rows_that(len(leaks), 'stand')} in the test data and {what}, so that a score flatters: {mend}"
            few = drawn and len(leaks) < FEW * len(seen.tests)
            severity: Literal["info", "warning"] = "info" if few else "warning"
            found.append(Problem(severity, f"{kind}_leakage", text, *_at(seen, leaks[0].test), len(leaks)))
    return found


def _noise_problems(seen: Examination) -> list[Problem]:
    if seen.judgement is None:
        return []
    flagged = [doubt for doubt in seen.judgement.doubts if doubt.flagged]
    found = []
    if flagged:
        text = (
            f"{rows_that(len(flagged), 'have')} a label that a model which never saw them doubts: read them, the "
            "most suspect first (`label_noise` in --json)"
        )
        found.append(Problem("warning", "label_noise", text, *_at(seen, flagged[0].row), len(flagged)))
    elif seen.judgement.doubts and not seen.judgement.trusted:
        text = (
            f"labels were not judged: a quick model agrees with them too little (kappa {seen.judgement.agreement:.2f}); "
            "features of a good base (--base) may do better"
        )
        found.append(Problem("info", "labels_not_judged", text))
    if seen.own > JUDGED:
        found.append(Problem("info", "labels_sampled", f"labels were judged on about {JUDGED} evenly spread rows"))
    return found
