"""Proof of a prompt: in a fresh process, what is saved gives the very requests that were scored, byte for byte.

Usage of the fresh process: python -m tailor.verbs.own_requests QUESTIONS.json OUT.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailor.bases.loading import find
from tailor.core.contracts import Question
from tailor.core.errors import RunError, TailorError
from tailor.core.paths import PACKAGE
from tailor.core.prompts import PROMPT_FILE, read_prompt
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.engine.place import Place
from tailor.engine.search import SCORED
from tailor.evaluation.answering import Asking
from tailor.evaluation.generators import generator_of
from tailor.evaluation.proof import Proof
from tailor.evaluation.written import first_that_fits
from tailor.objectives.chat import as_message
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import load
from tailor.verbs.talk import described

SHOWN = 60
"""Characters around the first difference that a message quotes."""
LONGEST = 300.0
"""Seconds of the fresh process, which loads no weights."""


def main(asked: str, out: str) -> None:
    """Every question as the objective poses it behind the saved prompt, first to fit: the way that scoring goes."""
    values = json.loads(Path(asked).read_text(encoding="utf-8"))
    source = find(BaseOptions(name=values["model"]))
    base, objective = described(source, load(Path(values["recipe"])))
    generator = generator_of(base, Asking(Place("cpu", "fp32", "").device, 0, None), Reporter(quiet=True))
    posed = (first_that_fits(generator, objective.posed(as_question(one))) for one in values["questions"])
    rendered = [None if one is None else generator.request(one) for one in posed]
    Path(out).write_text(json.dumps(rendered), encoding="utf-8")


def as_question(values: Mapping[str, Any]) -> Question:
    """A question as `search/scored.json` holds it: without a prompt."""
    parts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Question(**{**parts, "messages": tuple(as_message(turn) for turn in values["messages"])})


def prove_prompt(folder: RunFolder) -> Proof:
    """Hold a run's saved prompt against the requests that its search recorded; raises where there are none."""
    scored = folder.read(SCORED)
    if scored is None:
        raise TailorError(
            "this prompt's run does not say what was scored", where=str(folder.path / SCORED), fix="name the whole run"
        )
    proof = Proof(True, "tailor", len(scored["rows"]))
    saved = read_prompt(folder.model / PROMPT_FILE)
    if saved.digest() != scored["prompt"]:
        proof.add("the saved prompt is not the one that was scored: prompt.json has been changed")
    if not scored["rows"]:
        proof.add("no request was kept to hold the prompt against: no row fits the context behind it")
    rendered = _in_a_fresh_process(folder, [row["question"] for row in scored["rows"]])
    others = [(row, text) for row, text in zip(scored["rows"], rendered, strict=True) if text != row["request"]]
    if others:
        row, text = others[0]
        proof.add(f"{len(others)} of {proof.rows} requests differ from those scored, first {_difference(row, text)}")
    return proof


def _in_a_fresh_process(folder: RunFolder, questions: list[Any]) -> list[str | None]:
    with tempfile.TemporaryDirectory(prefix="tailor-proof-") as place:
        question, answer = Path(place) / "questions.json", Path(place) / "out.json"
        asked = {"model": str(folder.model), "recipe": str(folder.recipe), "questions": questions}
        question.write_text(json.dumps(asked), encoding="utf-8")
        paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tailor.verbs.own_requests", str(question), str(answer)],
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        except subprocess.TimeoutExpired:
            told = f"a fresh process has not rendered the requests within {LONGEST:g} seconds"
            raise RunError(told, where=str(folder.model), fix=f"tailor prove {folder.path}", code="proof") from None
        if done.returncode or not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            told = f"a fresh process cannot load what was saved: {last[0]}"
            raise RunError(told, where=str(folder.model), code="proof")
        rendered: list[str | None] = json.loads(answer.read_text(encoding="utf-8"))
        return rendered


def _difference(row: Mapping[str, Any], text: str | None) -> str:
    wanted, given = row["request"], text or ""
    place = next(
        (i for i, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b), min(len(wanted), len(given))
    )
    part = slice(max(0, place - SHOWN // 2), place + SHOWN // 2)
    return f"row {row['id']} at character {place}: {given[part]!r} for {wanted[part]!r}"


if __name__ == "__main__":
    main(*sys.argv[1:])
