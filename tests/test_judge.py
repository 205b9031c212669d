"""A model as a judge, over real HTTP: sides swapped, contradictions told, and held against people's votes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from api_server import Script, serving
from test_cli import call
from tiny import in_this_process, rows_of, write_rows

import tailor
from tailor.core.contracts import Answer
from tailor.core.reporting import Reporter
from tailor.evaluation import proof
from tailor.evaluation.judge import Judged, judge
from tailor.evaluation.votes import keep_vote
from tailor.recipe.base import EndpointOptions
from tailor.recipe.recipe import parse
from tailor.wire.generator import ApiGenerator


def sides(body: Mapping[str, Any]) -> tuple[str, str]:
    """The two answers that a judge is shown."""
    found = re.search(r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\n\nWhich", body["messages"][-1]["content"], re.DOTALL)
    assert found is not None
    return found[1], found[2]


def longer(body: Mapping[str, Any]) -> str:
    first, second = sides(body)
    return "I compared them. A is not B, but: " + (
        "TIE" if len(first) == len(second) else "AB"[len(second) > len(first)]
    )


def judged(rule: Any, tuned: list[str], most: int = 100) -> tuple[Judged, Script]:
    script = Script(rule)
    ids = [f"{i:02d}" for i in range(len(tuned))]
    base = [Answer(one, {}, f"request {one}", "", "short") for one in ids]
    with serving(script) as address:
        generator = ApiGenerator.of(EndpointOptions(url=f"{address}/v1", model="judge"))
        rows = [Answer(one, {}, f"request {one}", "", text) for one, text in zip(ids, tuned, strict=True)]
        return judge(generator, "Longer is better.", base, rows, most), script


def test_a_judge_is_asked_both_ways() -> None:
    found, script = judged(longer, ["much longer"] * 6 + ["no"] * 3 + ["equal"] + ["short"])
    assert len(script.answered) == 20, "equal texts are no pair"
    assert {tuple(sorted(sides(body))) for body in script.answered} >= {("much longer", "short"), ("no", "short")}
    assert all("Longer is better." in body["messages"][-1]["content"] for body in script.answered)
    told = found.as_dict()
    assert (told["tuned"], told["base"], told["tie"], told["same_when_swapped"]) == (6, 3, 1, 1.0)
    assert told["win_rate"] == pytest.approx(0.65)


def test_a_judge_that_prefers_a_place_says_nothing() -> None:
    found, _ = judged(lambda body: "A", ["much longer"] * 10)
    told = found.as_dict()
    assert (told["tie"], told["same_when_swapped"], told["win_rate"]) == (10, 0.0, 0.5)


def test_replies_without_a_verdict_are_counted() -> None:
    found, _ = judged(lambda body: "I cannot say which is better.", ["one", "other"])
    assert (found.unreadable, found.as_dict()["tie"]) == (4, 2)


def test_no_more_rows_than_asked_for_are_judged() -> None:
    found, script = judged(longer, ["much longer"] * 10, most=4)
    assert (sorted(found.votes), len(script.answered)) == (["00", "01", "02", "03"], 8)


def test_a_run_is_judged_and_its_judge_held_against_people(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    data = write_rows(tmp_path / "rows.jsonl", rows_of("instruction", 40))
    with serving(Script(longer)) as address:
        judging = {"base": {"endpoint": {"url": f"{address}/v1", "model": "judge"}}, "rows": 12}
        train = {"max_steps": 10, "learning_rate": 1e-2, "precision": "fp32"}
        values = {"base": str(llama), "data": {"train": str(data), "dev": 0.1, "test": 0.4}, "train": train}
        evaluate = {"judge": judging, "max_new_tokens": 8}
        recipe = parse({**values, "evaluate": evaluate, "output": str(tmp_path / "run")})
        run = tailor.fit(recipe, reporter=Reporter(quiet=True))
        told = run.evaluation["tasks"]["default"]["judge"]
        assert 0 < told["votes"] <= 12
        assert told["same_when_swapped"] == 1.0
        assert f"Judged by {told['model']}" in (run.path / "report.html").read_text()
        pairs = [json.loads(line) for line in (run.path / "answers.jsonl").read_text().splitlines()]
        for pair in pairs:
            keep_vote(run.path / "votes.jsonl", pair["id"], "tie")
        code, out, _ = call(capsys, "evaluate", run.path, "--json", "--quiet")
        people = json.loads(out)["tasks"]["default"]["judge"]["with_people"]
        assert code == 0
        assert people["pairs"] == told["votes"]
        assert people["share"] == pytest.approx(told["tie"] / told["votes"])
        assert "as people did" in call(capsys, "evaluate", run.path, "--quiet")[1]
