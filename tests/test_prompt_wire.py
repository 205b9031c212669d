"""Prompts for a model behind an API: searched, proved and served over real HTTP on loopback."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from api_server import Script, serving

import tailor
from tailor.core.reporting import Reporter

MOODS = {"positive": "superb", "negative": "dreadful"}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def reviews(tmp_path: Path) -> str:
    rows = [
        {"text": f"Visit {number} was {MOODS[mood]}.", "label": mood} for number in range(40) for mood in sorted(MOODS)
    ]
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def needs_demonstrations(body: Mapping[str, Any]) -> str:
    """A model that knows what is meant only once it has seen two answers."""
    turns = body["messages"]
    shown = sum(turn["role"] == "assistant" for turn in turns)
    mood = next((mood for mood, word in MOODS.items() if word in turns[-1]["content"]), "positive")
    return mood if shown >= 2 else "I would say positive."


def test_demonstrations_are_found_where_a_model_needs_them(tmp_path: Path) -> None:
    script = Script(rule=needs_demonstrations)
    with serving(script) as url:
        run = tailor.fit(
            base=f"{url}#m",
            data=reviews(tmp_path),
            method={"name": "prompt", "candidates": 8, "demonstrations": 4},
            output=str(tmp_path / "run"),
            reporter=Reporter(quiet=True),
        )
        task = run.evaluation["tasks"]["default"]
        assert task["metrics"]["accuracy"]["tuned"] == 1.0
        assert task["metrics"]["accuracy"]["base"] <= 0.75
        assert run.proof["passed"]
        assert run.predict(["It was dreadful."]) == ["negative"]
        assert tailor.prove(run)["passed"]
