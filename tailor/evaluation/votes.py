"""Votes between two models' answers: which one is better, by a person or a judge who does not know which is which."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from tailor.core.contracts import Answer
from tailor.core.errors import DataError
from tailor.evaluation.compare import compare
from tailor.evaluation.scorers import resolve

VOTES = "votes.jsonl"
"""Where a run keeps those of `tailor review`."""
Vote = Literal["base", "tuned", "tie"]


def read_votes(file: Path) -> dict[str, Vote]:
    """The last vote on each pair, by its id; none where there is no file yet. A torn last line is no vote."""
    if not file.exists():
        return {}
    votes: dict[str, Vote] = {}
    lines = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            values = json.loads(line)
            key, vote = values["id"], values["vote"]
        except (ValueError, KeyError, TypeError):
            raise DataError("this is no vote", where=f"{file}:{number}", fix="mend or remove the line") from None
        if vote not in get_args(Vote):
            raise DataError(f"{vote!r} is no vote", where=f"{file}:{number}", fix="base, tuned or tie")
        votes[key] = vote
    return votes


def keep_vote(file: Path, key: str, vote: Vote, **told: Any) -> None:
    """Add one vote to the file at once; a line that a crash has torn makes room for it."""
    whole = file.read_bytes() if file.exists() else b""
    with file.open("a", encoding="utf-8") as out:
        out.truncate(whole.rfind(b"\n") + 1)
        out.write(json.dumps({"id": key, "vote": vote, **told}) + "\n")


def win_rate(votes: Mapping[str, Vote]) -> dict[str, Any]:
    """How often the tuned model's answer was better, ties counted half, with a 95 % interval and the test of a fair coin.

    Each vote is a row that one model or none wins: McNemar's exact test, and the interval of Bonett and Price (2012).
    """
    counts = {name: sum(vote == name for vote in votes.values()) for name in get_args(Vote)}
    result: dict[str, Any] = {"votes": len(votes), **counts, "win_rate": None, "ci95": None, "p_value": None}
    if not votes:
        return result
    wins = resolve(["accuracy"], answers_kind="label")[0]
    sides = [
        [Answer(key, {}, "", "won", "won" if vote == side else "") for key, vote in votes.items()]
        for side in ("base", "tuned")
    ]
    found = compare(sides[0], sides[1], wins)
    share = [0.5 + bound / 2 for bound in (found.delta, *found.ci95)]
    return result | {"win_rate": share[0], "ci95": share[1:], "p_value": found.p_value, "verdict": found.verdict}


def agreement(one: Mapping[str, Vote], other: Mapping[str, Vote]) -> dict[str, Any]:
    """On how many pairs two voters say the same, and Cohen's kappa (1960): what is left of it beyond chance.

    Kappa is None where chance alone would agree always.
    """
    shared = sorted(set(one) & set(other))
    if not shared:
        return {"pairs": 0, "share": None, "kappa": None}
    share = sum(one[key] == other[key] for key in shared) / len(shared)
    by_chance = sum(_share(one, shared, name) * _share(other, shared, name) for name in get_args(Vote))
    kappa = None if by_chance == 1 else (share - by_chance) / (1 - by_chance)
    return {"pairs": len(shared), "share": share, "kappa": kappa}


def _share(votes: Mapping[str, Vote], keys: Sequence[str], name: str) -> float:
    return sum(votes[key] == name for key in keys) / len(keys)


def rate_sentence(result: Mapping[str, Any]) -> str:
    """The win rate in words."""
    if not result["votes"]:
        return "No votes yet."
    low, high = (100 * bound for bound in result["ci95"])
    told = f"{result['tuned']} won, {result['base']} lost, {result['tie']} tied"
    return (
        f"The tuned model wins {100 * result['win_rate']:.0f} % of {result['votes']} pairs, ties counted half "
        f"(95 % interval {low:.0f} to {high:.0f} %, p = {result['p_value']:.2g}; {told})."
    )


def judged_sentence(judged: Mapping[str, Any]) -> str:
    """A judge's win rate in words, with what speaks for and against the judge."""
    if not judged["votes"]:
        return "both models answer alike."
    alike = f"{100 * judged['same_when_swapped']:.0f} % of pairs alike with their sides swapped"
    told = f"{rate_sentence(judged)} It judged {alike}"
    people = judged.get("with_people") or {"pairs": 0}
    if people["pairs"]:
        told += f", and {100 * people['share']:.0f} % of {people['pairs']} pairs as people did"
    return f"{told}."
