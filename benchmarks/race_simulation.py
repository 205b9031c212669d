"""How often `tailor compare` is wrong, by simulation: `python benchmarks/race_simulation.py [REPETITIONS]`.

Methods whose true quality is known answer test rows right or wrong. Rows differ in difficulty, so that methods agree more
often than chance (a Gaussian copula), and every seed of a method is a little better or worse than the method itself. Asked
are: how often a method that is truly 10 points worse is named adequate (margin 2 points), how often anything is named where
two methods are truly alike, and how often the true order of three methods is found. The table is written into
docs/comparing.md between its marks.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from tailor.evaluation.race import Scores, rank
from tailor.evaluation.scorers import resolve

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparing.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
ACCURACY = resolve(["accuracy"], answers_kind="label")[0]
SIZES = (20, 50, 100, 200, 500, 1000, 2000)
MARGIN = 2.0
HEADINGS = (
    "test rows",
    "10 points worse, named: 80 % against 90 %",
    "50 % against 60 %",
    "one seed, rows much alike",
    "five rivals of 90 %",
    "two alike, one named",
    "order of 70, 80, 90 % found",
)


def answers(draw: np.random.Generator, truth: float, difficulty: np.ndarray, seeds: int, spread: float, alike: float):
    """Statistics of one method, (seeds, rows, 2): right or wrong, and one row."""
    quality = np.clip(truth + spread * draw.standard_normal(seeds), 0.01, 0.99)
    own = draw.standard_normal((seeds, len(difficulty)))
    chance = ndtr(alike**0.5 * difficulty + (1 - alike) ** 0.5 * own)
    right = (chance < quality[:, None]).astype(float)
    return np.stack([right, np.ones_like(right)], -1)


def once(
    draw: np.random.Generator, truths: dict[str, float], rows: int, seeds: int, spread: float = 0.01, alike: float = 0.7
):
    """One comparison; methods cost the more the later they stand."""
    difficulty = draw.standard_normal(rows)
    scores = [
        Scores(name, answers(draw, truth, difficulty, seeds, spread, alike), (float(place),))
        for place, (name, truth) in enumerate(truths.items())
    ]
    return rank(scores, ACCURACY, MARGIN)


def named_although_worse(
    rows: int,
    repetitions: int,
    *,
    top: float = 0.9,
    seeds: int = 3,
    spread: float = 0.01,
    alike: float = 0.7,
    others: int = 0,
) -> float:
    """Share of comparisons in which the cheap method, truly 10 points worse, is named."""
    draw = np.random.default_rng(rows)
    truths = {"worse": top - 0.1, "best": top, **{f"also{place}": top for place in range(others)}}
    found = [once(draw, truths, rows, seeds, spread, alike) for _ in range(repetitions)]
    return sum(one.cheapest_adequate == "worse" for one in found) / repetitions


def named_where_alike(rows: int, repetitions: int) -> float:
    """Share of comparisons of two methods truly alike in which one is named."""
    draw = np.random.default_rng(rows)
    found = [once(draw, {"one": 0.9, "other": 0.9}, rows, 3) for _ in range(repetitions)]
    return sum(one.cheapest_adequate is not None for one in found) / repetitions


def order_found(rows: int, repetitions: int) -> float:
    """Share of comparisons of 70, 80 and 90 % in which the methods stand in their true order."""
    draw = np.random.default_rng(rows)
    found = [once(draw, {"low": 0.7, "middle": 0.8, "high": 0.9}, rows, 3) for _ in range(repetitions)]
    return sum([s.method for s in one.standings] == ["high", "middle", "low"] for one in found) / repetitions


def table(repetitions: int) -> str:
    """The figures as Markdown."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for rows in SIZES:
        shares = [
            named_although_worse(rows, repetitions),
            named_although_worse(rows, repetitions, top=0.6),
            named_although_worse(rows, repetitions, seeds=1, spread=0.0, alike=0.95),
            named_although_worse(rows, repetitions, others=4),
            named_where_alike(rows, repetitions),
            order_found(rows, repetitions),
        ]
        lines.append(f"| {rows:,} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    figures = table(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}", encoding="utf-8")
