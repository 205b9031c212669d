"""Every method on an embedded task, three seeds: `python benchmarks/compare_methods.py [RECIPE] [OUTPUT]`.

By default the tickets on pocket:bert, as `recipes/full.yaml` trains them. It goes on where it was stopped. The table
is written into docs/comparing.md between its marks.
"""

import sys
from datetime import date
from pathlib import Path

import torch

import tailor
from tailor.core.reporting import Reporter
from tailor.evaluation.race_wording import HEADINGS, cells, sentence

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "comparing.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main(recipe: str, output: str) -> None:
    """Run (or go on with) the race and write its table."""
    found = tailor.compare(recipe, output=output, resume=Path(output).exists(), reporter=Reporter())
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    lines += [f"| {' | '.join(cells(row))} |" for row in found["rows"] if row["value"] is not None]
    lines += [
        "",
        *(f"{row['method']} takes no part: {row['reason']}." for row in found["rows"] if row["value"] is None),
    ]
    where = f"{date.today()}, CPU, torch {torch.__version__}, {found['n']} test rows, {found['seeds']} seeds."
    table = "\n".join([f"`{Path(recipe).name}`, {where} {sentence(found)}", "", *lines])
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else str(ROOT / "recipes" / "full.yaml"),
        given[1] if len(given) > 1 else "runs/compare-methods",
    )
