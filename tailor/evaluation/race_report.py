"""report.html of a comparison: what it comes to, quality against cost, the table, and how it was made. Nothing is loaded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tailor.evaluation.race_wording import HEADINGS, cells, duration, sentence
from tailor.evaluation.wording import chance, figure, named

INSTANT = 0.1
"""Seconds that stand for none on an axis of powers of ten."""
WIDTH, HEIGHT = 1000, 420


def render_race(found: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The page as HTML text, everything from the data escaped.

    Args:
        found: compare.json.
        recipe: the recipe's plain values.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = [row for row in found["rows"] if row["value"] is not None]
    return environment.get_template("race.html.jinja").render(
        found=found,
        sentence=sentence(found),
        headings=HEADINGS,
        table=[(row, cells(row)) for row in measured],
        details=[_details(row) for row in measured],
        absent=[row for row in found["rows"] if row["value"] is None],
        plot=_plot(measured, found),
        recipe=yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True),
    )


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    rate = row["learning_rate"]
    return {
        "method": row["method"],
        "rate": "–" if rate is None else f"{rate:g}",
        "seeds": ", ".join(figure(row["metric"], value) for value in row["by_seed"]),
        "chance": "best" if row["p_value"] is None else chance(row["p_value"]),
        "answer": f"{1000 * row['inference_seconds']:.3g} ms",
        "proof": {True: "passed", False: "FAILED", None: "–"}[row["proved"]],
        "runs": row["runs"],
    }


def _plot(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Points in a box of WIDTH x HEIGHT: seconds to the right by powers of ten, better upwards; whiskers are intervals."""
    metric, sign = rows[0]["metric"], 1 if found["better"] == "higher" else -1
    low, high = (choose(bound for row in rows for bound in row["ci95"]) for choose in (min, max))
    costs = [math.log10(max(row["seconds"], INSTANT)) for row in rows]
    first, last = math.floor(min(costs)), math.ceil(max(max(costs), min(costs) + 1))

    def up(value: float) -> float:
        share = (value - low) / ((high - low) or 1.0)
        return float(round(HEIGHT - 30 - (share if sign > 0 else 1 - share) * (HEIGHT - 60), 1))

    points = []
    for row, cost in zip(rows, costs, strict=True):
        left = 40 + (cost - first) / (last - first) * (WIDTH - 160)
        points.append(
            {
                "name": row["method"],
                "x": round(left, 1),
                "y": up(row["value"]),
                "whisker": sorted(up(bound) for bound in row["ci95"]),
                "named": row["method"] == found["cheapest_adequate"],
                "told": f"{row['method']}: {figure(metric, row['value'])}, made in {duration(row['seconds'])}",
            }
        )
    ends = [figure(metric, bound) for bound in ((high, low) if sign > 0 else (low, high))]
    ticks = [
        (
            round(40 + (power - first) / (last - first) * (WIDTH - 160), 1),
            "none" if 10**power <= INSTANT else f"{10**power:g} s",
        )
        for power in range(first, last + 1)
    ]
    return {"points": points, "ends": ends, "ticks": ticks, "title": named(metric)[0], "size": (WIDTH, HEIGHT)}
