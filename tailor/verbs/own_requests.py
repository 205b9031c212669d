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
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, Question
from tailor.core.errors import RunError, TailorError
from tailor.core.examples import Message, ToolCall
from tailor.core.paths import PACKAGE
from tailor.core.prompts import PROMPT_FILE, read_prompt
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.engine.place import Place
from tailor.engine.search import SCORED
from tailor.evaluation.answering import Asking
from tailor.evaluation.generators import generator_of
from tailor.evaluation.proof import Proof
from tailor.recipe.base import BaseOptions

SHOWN = 60
"""Characters around the first difference that a message quotes."""


def main(asked: str, out: str) -> None:
    """Render every question behind the saved prompt, as evaluation and serving do."""
    values = json.loads(Path(asked).read_text(encoding="utf-8"))
    model = values["model"]
    source = find(BaseOptions(name=model))
    base = registry.load("base", source.family)(source, EncodeOptions())
    place = Place("cpu", "fp32", "")
    generator = generator_of(base, Asking(place.device, 0, None), Reporter(quiet=True))
    prompt = read_prompt(Path(model) / PROMPT_FILE)
    rendered = []
    for question in values["questions"]:
        raw = _question(question)
        posed = [Question(turns, raw.tools, raw.expected) for turns in prompt.variants(raw.messages)]
        fits = getattr(generator, "fits", None)
        rendered.append(next((generator.request(one) for one in posed if fits is None or fits(one)), None))
    Path(out).write_text(json.dumps(rendered), encoding="utf-8")


def _question(values: Mapping[str, Any]) -> Question:
    turns = [
        Message(**{**turn, "tool_calls": tuple(ToolCall(**call) for call in turn["tool_calls"])})
        for turn in values["messages"]
    ]
    expected = values["expected"]
    return Question(tuple(turns), tuple(values["tools"]), expected if isinstance(expected, str) else tuple(expected))


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
    rendered = _in_a_fresh_process(folder.model, [row["question"] for row in scored["rows"]])
    others = [(row, text) for row, text in zip(scored["rows"], rendered, strict=True) if text != row["request"]]
    if others:
        row, text = others[0]
        proof.add(f"{len(others)} of {proof.rows} requests differ from those scored, first {_difference(row, text)}")
    return proof


def _in_a_fresh_process(model: Path, questions: list[Any]) -> list[str | None]:
    with tempfile.TemporaryDirectory(prefix="tailor-proof-") as folder:
        question, answer = Path(folder) / "questions.json", Path(folder) / "out.json"
        question.write_text(json.dumps({"model": str(model), "questions": questions}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "tailor.verbs.own_requests", str(question), str(answer)],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
            },
        )
        if done.returncode or not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RunError(f"a fresh process cannot load what was saved: {last[0]}", where=str(model), code="proof")
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
