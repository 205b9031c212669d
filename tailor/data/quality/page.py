"""The page of `tailor check --html`: one file that needs no other. It shows numbers and places of rows; of their texts
only the first words of rows whose labels are doubted, and those only where no personal data was found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tailor.core.errors import RecipeError
from tailor.data.quality.examine import Examination

DOUBTED = 30
EXCERPT = 200
BARS = 40


def refuse_other_ending(out: Path) -> None:
    """A page is written over an older one, and over nothing else."""
    if out.suffix not in (".html", ".htm"):
        raise RecipeError(
            f"{out} does not end in .html, which the page is", where="--html", fix="e.g. --html report.html"
        )


def write(report: Mapping[str, Any], seen: Examination, out: Path) -> None:
    """Write the page of a report."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("page.html.jinja").render(
        report=report, charts=_charts(report), doubts=_doubted(report, seen), strict=report["privacy"] == "strict"
    )
    out.write_text(page, encoding="utf-8")


def _charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Titles and bars: (name, count, share of the longest bar in percent)."""
    charts = [("Rows by label", report.get("labels", {})), ("Rows by language", report["languages"])]
    for side, title in (("given", "Characters of what is given"), ("target", "Characters of what is learned")):
        held = report["characters"][side]["rows_from"]
        charts.append((title, {f"from {edge}": count for edge, count in held.items()} if len(held) > 1 else {}))
    charts.append(("Trained tokens by role", (report.get("tokens") or {}).get("by_role", {})))
    charts.append(("First words of requests", report.get("variety", {}).get("most_common", {})))
    return [{"title": title, "bars": _bars(counts), "more": len(counts) - BARS} for title, counts in charts if counts]


def _bars(counts: Mapping[str, int]) -> Sequence[tuple[str, int, float]]:
    most = max(counts.values())
    return [(name, count, 100 * count / max(1, most)) for name, count in list(counts.items())[:BARS]]


def _doubted(report: Mapping[str, Any], seen: Examination) -> list[dict[str, Any]]:
    """The most suspect rows, with their first words where no personal data was found."""
    if seen.judgement is None:
        return []
    strict = report["privacy"] == "strict"
    found = []
    for doubt in [doubt for doubt in seen.judgement.doubts if doubt.flagged][:DOUBTED]:
        entry = seen.entry(doubt.row)
        text = "" if strict else " / ".join(entry.row["texts"])[:EXCERPT]
        found.append({"place": str(entry.origin), "doubt": doubt, "text": text})
    return found
