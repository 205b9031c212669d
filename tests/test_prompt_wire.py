"""Prompts for a model behind an API: searched, proved and served over real HTTP on loopback."""

import json
import re
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_server import Script, serving
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import in_this_process, save_llama

import tailor
import tailor.api
from tailor.cli.fit import summary_answer
from tailor.core.contracts import Question
from tailor.core.errors import BudgetSpent, RunError
from tailor.core.examples import Message
from tailor.core.reporting import Reporter
from tailor.engine.search import FINALISTS, Search
from tailor.engine.search_plan import most_of
from tailor.evaluation import proof
from tailor.objectives.tokens import TokenObjective
from tailor.recipe.base import EndpointOptions
from tailor.verbs import own_requests
from tailor.verbs.served_prompt import _verdict
from tailor.verbs.talk import model_of

FRESH = subprocess.run
MOODS = {"positive": "superb", "negative": "dreadful"}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


def reviews(tmp_path: Path) -> str:
    rows = [
        {"text": f"Visit {number} was {MOODS[mood]}.", "label": mood} for number in range(40) for mood in sorted(MOODS)
    ]
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def needs_demonstrations(body: Mapping[str, Any]) -> str:
    """A model that knows what is meant only once it has seen two answers."""
    turns = body["messages"]
    shown = sum(turn["role"] == "assistant" for turn in turns)
    mood = next((mood for mood, word in MOODS.items() if word in turns[-1]["content"]), "positive")
    return mood if shown >= 2 else "I would say positive."


def test_demonstrations_are_found_where_a_model_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(proof.subprocess, "run", FRESH)  # the rest in a process of its own, as users have it
    assert tailor.prove(run)["passed"], "no server is needed"
    monkeypatch.setattr(own_requests, "LONGEST", 0.05)
    with pytest.raises(RunError, match=r"within 0.05 seconds"):
        tailor.prove(run)
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    posed = TokenObjective.posed
    monkeypatch.setattr(TokenObjective, "posed", lambda self, question: posed(self, question)[1:])
    problem = tailor.prove(run)["problems"][0]
    assert "requests differ from those scored" in problem, "what poses a question decides what is proved"


def says_the_option(body: Mapping[str, Any]) -> str:
    """A model that knows the capital, and names it by letter, by text or in a sentence, once it has been shown how."""
    turns = body["messages"]
    city, number = re.findall(r"of land (\d+)-(\d+)", turns[-1]["content"])[-1]
    if not any(turn["role"] == "assistant" for turn in turns):
        return "I would have to look that up."
    options = dict(re.findall(r"([A-E])\. (.+)", turns[-1]["content"].rpartition("of land")[2]))
    letter = next(letter for letter, option in options.items() if option == f"City {city}")
    return (letter, f"City {city}", f"The answer is {letter}.")[int(number) % 3]


def test_rows_with_options_of_their_own_are_read_off_the_answer(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        names = [f"City {number + step}" for step in range(2 + number % 4)]
        place = number % len(names)
        asked = f"What is the capital of land {number + place}-{number}?"
        options = {"text": names, "label": [*"12345"][: len(names)]}
        rows.append({"question": asked, "choices": options, "answerKey": str(place + 1)})
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    method = {"name": "prompt", "candidates": 4, "demonstrations": 2, "ways": ["diverse"]}
    with serving(Script(rule=says_the_option)) as url:
        parts = {"base": f"{url}#m", "data": str(tmp_path / "quiz.jsonl"), "reporter": Reporter(quiet=True)}
        run = tailor.fit(**parts, method=method, output=str(tmp_path / "run"))
        asked = "What is the capital of land 7-1?"
        assert run.predict([(asked, "City 9", "City 7", "City 8")]) == ["B"]
    accuracy = run.evaluation["tasks"]["default"]["metrics"]["accuracy"]
    assert (accuracy["base"], accuracy["tuned"]) == (0.0, 1.0)
    assert run.proof["passed"]


def measures(body: Mapping[str, Any]) -> str:
    """A model that sees how many stones of which colours there are, and says so once it has been shown how."""
    turns = body["messages"]
    count, colours = re.findall(r"(\d+) stones: ([a-z ]*)", turns[-1]["content"])[-1]
    if not any(turn["role"] == "assistant" for turn in turns):
        return "Well."
    wants_number = any(turn["role"] == "assistant" and turn["content"][0].isdigit() for turn in turns)
    return f"There are {count} of them." if wants_number else " and ".join(colours.split()) or "none"


@pytest.mark.parametrize(("kind", "metric"), [("labels", "accuracy"), ("number", "mse")])
def test_several_labels_and_numbers_are_read_off_the_answer(tmp_path: Path, kind: str, metric: str) -> None:
    sets = [["red"], ["blue", "red"], [], ["blue"]]
    rows = [
        {"text": f"{n} stones: {' '.join(sets[n % 4])}", "label": sets[n % 4] if kind == "labels" else float(n)}
        for n in range(60)
    ]
    (tmp_path / "stones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    method = {"name": "prompt", "candidates": 4, "demonstrations": 2, "ways": ["diverse", "bootstrap"]}
    with serving(Script(rule=measures)) as url:
        parts = {"base": f"{url}#m", "data": str(tmp_path / "stones.jsonl"), "reporter": Reporter(quiet=True)}
        overrides = [f"evaluate.primary={metric}"]
        run = tailor.fit(**parts, method=method, output=str(tmp_path / "run"), overrides=overrides)
        assert run.predict(["7 stones: blue red"]) == [("blue", "red") if kind == "labels" else 7.0]
    found = run.evaluation["tasks"]["default"]["metrics"][metric]
    assert found["tuned"] == (1.0 if kind == "labels" else 0.0)
    assert found["base"] != found["tuned"]
    assert run.proof["passed"]


def shows_how_short(body: Mapping[str, Any]) -> str:
    """A model that says a document again and again, until it has been shown a summary."""
    turns = body["messages"]
    document = turns[-1]["content"].rpartition(":")[2].strip()
    return document.partition(".")[0] if any(turn["role"] == "assistant" for turn in turns) else f"{document} " * 9


def test_a_summary_of_fifty_words_is_both_short_and_like_the_reference(tmp_path: Path) -> None:
    rows = [
        {
            "document": f"Ship {n} reached the harbour. It had {n} crates of tea on board.",
            "summary": f"Ship {n} arrived",
        }
        for n in range(60)
    ]
    (tmp_path / "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    method = {"name": "prompt", "instruction": "Summarize this document in 50 words.", "candidates": 6, "rows": 12}
    metric = ["evaluate.primary=rouge_l & max_words:50", "evaluate.metrics=[rouge_l, max_words:50]"]
    with serving(Script(rule=shows_how_short)) as url:
        parts = {"base": f"{url}#m", "data": str(tmp_path / "news.jsonl"), "reporter": Reporter(quiet=True)}
        run = tailor.fit(**parts, method=method, output=str(tmp_path / "run"), overrides=metric)
    metrics = run.evaluation["tasks"]["default"]["metrics"]
    assert metrics["max_words:50"]["base"] == metrics["rouge_l & max_words:50"]["base"] == 0.0
    assert metrics["rouge_l"]["base"] > 0.0, "long answers alone are like the reference in part"
    assert metrics["max_words:50"]["tuned"] == 1.0
    assert metrics["rouge_l & max_words:50"]["tuned"] == pytest.approx(metrics["rouge_l"]["tuned"])
    assert run.evaluation["tasks"]["default"]["verdict"] == "better"
    assert run.proof["passed"]


def test_rows_that_are_right_are_found_where_a_metric_has_no_score_of_one_row(tmp_path: Path) -> None:
    """Matthews correlation says nothing of one row, and the base gets half of them right."""
    script = Script(rule=lambda body: "positive" if "superb" in body["messages"][-1]["content"] else "neither")
    method = {"name": "prompt", "candidates": 2, "demonstrations": 4, "ways": ["bootstrap"]}
    with serving(script) as url:
        tailor.fit(
            base=f"{url}#m",
            data=reviews(tmp_path),
            method=method,
            output=str(tmp_path / "run"),
            overrides=["evaluate.primary=mcc"],
            reporter=Reporter(quiet=True),
        )
    lines = (tmp_path / "run" / "search" / "prompts.jsonl").read_text().splitlines()
    shown = [one for line in lines for one in json.loads(line)["prompt"]["demonstrations"]]
    assert shown
    assert all("superb" in one["question"] for one in shown)


SCORER = """
def signed(row, answer):
    right = answer.endswith("Lantern desk")
    return {"score": float(right), "why": "" if right else "Every answer must end with the words: Lantern desk."}
"""
RULE = re.compile(r"must end with the words: ([^.\n]+)\.")


def follows(body: Mapping[str, Any]) -> str:
    """A model that does what it is told: it reflects on feedback, and obeys an instruction."""
    said = "\n".join(turn["content"] for turn in body["messages"])
    rule = RULE.search(said)
    if "new instruction for the assistant" in said:
        return f"```\nAnswer the letter; it must end with the words: {rule[1]}.\n```" if rule else "```\nAnswer.\n```"
    return f"It is done. {rule[1]}" if rule else "It is done."


def test_reflection_recovers_a_rule_that_stands_in_the_feedback_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"Letter {number} is late.", "completion": "It is done."} for number in range(60)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "scorer.py").write_text(SCORER)
    script = Script(rule=follows)
    method = {"name": "prompt", "candidates": 6, "demonstrations": 2, "rows": 12}
    with serving(script) as url:
        parts = {"base": f"{url}#m", "data": str(tmp_path / "letters.jsonl"), "reporter": Reporter(quiet=True)}
        metric = [f"evaluate.primary={tmp_path}/scorer.py:signed"]
        seeds = tailor.fit(**parts, method=method, output=str(tmp_path / "seeds"), overrides=metric)
        method |= {"evolve": 4, "proposer": f"{url}#reflector"}
        evolved = tailor.fit(**parts, method=method, output=str(tmp_path / "run"), overrides=metric)
    reflections = {body["model"] for body in script.answered if "new instruction" in body["messages"][-1]["content"]}
    assert reflections == {"reflector"}
    shares = [run.evaluation["tasks"]["default"]["metrics"] for run in (seeds, evolved)]
    assert [next(iter(share.values()))["tuned"] for share in shares] == [0.0, 1.0]
    prompt = json.loads((tmp_path / "run" / "model" / "prompt.json").read_text())
    assert "Lantern desk" in prompt["instruction"]
    assert evolved.summary["train"]["chosen"] == "reflection"
    assert evolved.proof["passed"]


def fitted_within(budget: dict[str, Any], tmp_path: Path, **method: Any) -> tuple[tailor.Run, Script]:
    """A search against a server, under a budget of the endpoint's own."""
    script = Script(rule=needs_demonstrations)
    with serving(script) as url:
        run = tailor.fit(
            base={"endpoint": {"url": url, "model": "m", "prices": {"prompt": 10.0, "completion": 100.0}, **budget}},
            data=reviews(tmp_path),
            method={"name": "prompt", "candidates": 8, "demonstrations": 4, **method},
            overrides=["evaluate.max_new_tokens=5"],
            output=str(tmp_path / "run"),
            reporter=Reporter(quiet=True),
        )
    return run, script


def test_a_search_and_its_test_stay_within_the_budget_of_the_endpoint(tmp_path: Path) -> None:
    run, script = fitted_within({"budget": {"max_calls": 60}}, tmp_path)
    evaluation = run.evaluation
    assert evaluation["tasks"]["default"]["n"] > 4, "the search leaves room for the test"
    assert len(script.answered) <= 60
    counted = run.summary["train"]["calls"] + sum(side["calls"] for side in evaluation["spent"].values())
    assert 50 <= counted <= 60 + 2 * evaluation["tasks"]["default"]["n"], "nor is much less asked than it suffices for"


def test_a_search_and_its_test_stay_within_the_cost_of_the_endpoint(tmp_path: Path) -> None:
    run, script = fitted_within({"budget": {"max_cost": 0.06}}, tmp_path)  # 0.0006 a call
    assert run.evaluation["tasks"]["default"]["n"] > 4
    assert 40 <= len(script.answered) <= 100


def test_no_request_goes_beyond_the_budget_of_the_method(tmp_path: Path) -> None:
    run, script = fitted_within({"budget": {"max_calls": 100}}, tmp_path, max_calls=50)
    assert run.summary["train"]["calls"] <= 50
    assert len(script.answered) <= 50 + 2 * run.evaluation["tasks"]["default"]["n"] <= 100


def test_a_server_is_held_to_the_answers_that_the_prompt_was_scored_by(tmp_path: Path) -> None:
    run, _ = fitted_within({}, tmp_path)
    rules: dict[str, Any] = {
        "": needs_demonstrations,
        "the server ignores the prompt": lambda body: needs_demonstrations({"messages": body["messages"][-1:]}),
        "as they were answered when scored": lambda body: f"{len(body['messages'])} turns",
    }
    for problem, rule in rules.items():
        script = Script(rule=rule)
        with serving(script) as url:  # the base itself is not there any more
            answer = tailor.prove(run, served=url)
        assert answer["passed"] == (not problem)
        assert answer["served"]["prompts"] >= 8
        assert all(problem in said for said in answer["problems"])
        assert len(script.heard) >= 8, "the server itself was asked"
    assert answer["served"]["equal_to_scored"] == 0
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "The prompt that was found" in page
    assert "superb" in page.partition("The prompt that was found")[2].partition("</section>")[0]
    shown = summary_answer(run.summary).text
    assert f"demonstrations ({run.path / 'model' / 'prompt.md'})" in shown
    assert "Answer with one of: negative, positive." in shown


@pytest.mark.parametrize(
    ("changed", "followed", "said"),
    [
        (16, 16, ""),
        (16, 13, ""),
        (3, 3, ""),
        (3, 0, "ignores the prompt"),
        (0, 0, "cannot be told"),
        (16, 0, "ignores the prompt"),
    ],
)
def test_whether_a_server_follows_a_prompt_is_told_by_what_the_prompt_changes(
    changed: int, followed: int, said: str
) -> None:
    wanted = [f"behind {row}" for row in range(16)]
    without = [f"bare {row}" if row < changed else text for row, text in enumerate(wanted)]
    given = [text if row < followed else without[row] for row, text in enumerate(wanted)]
    _, problems = _verdict(EndpointOptions(url="http://localhost:1/v1", model="m"), wanted, given, without)
    assert [said in problem for problem in problems] == ([True] if said else [])


def test_a_spent_budget_is_the_one_of_whoever_spent_it(tmp_path: Path) -> None:
    """What reflects has a budget of its own; raised by its own key, the search goes on."""
    rows = [{"prompt": f"Letter {number} is late.", "completion": "It is done."} for number in range(60)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "scorer.py").write_text(SCORER)
    method: dict[str, Any] = {"name": "prompt", "candidates": 4, "demonstrations": 2, "rows": 12, "evolve": 4}
    with serving(Script(rule=follows)) as url, serving(Script(rule=lambda body: "```\nAnswer it.\n```")) as other:
        parts = {"base": f"{url}#m", "data": str(tmp_path / "letters.jsonl"), "output": str(tmp_path / "run")}
        settings = {"reporter": Reporter(quiet=True), "overrides": [f"evaluate.primary={tmp_path}/scorer.py:signed"]}
        endpoint = {"url": other, "model": "p", "budget": {"max_calls": 1}}
        run = tailor.fit(**parts, **settings, method=method | {"proposer": {"endpoint": endpoint}})
        assert run.summary["train"]["ended_by"] == "method.proposer.endpoint.budget.max_calls"
        endpoint = endpoint | {"budget": {"max_calls": 500}}
        again = tailor.fit(**parts, **settings, method=method | {"proposer": {"endpoint": endpoint}}, resume=True)
    assert again.summary["train"]["ended_by"] is None


@pytest.mark.parametrize("evolve", [0, 3])
def test_no_search_asks_for_more_or_costs_more_than_its_plan_says(tmp_path: Path, evolve: int) -> None:
    script, said = Script(rule=follows if evolve else needs_demonstrations), list[str]()
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    with serving(script) as url:
        endpoint = {"url": url, "model": "m", "prices": {"prompt": 10.0, "completion": 100.0}}
        parts: dict[str, Any] = {
            "base": {"endpoint": endpoint},
            "data": reviews(tmp_path),
            "method": {"name": "prompt", "candidates": 8, "demonstrations": 4, "evolve": evolve},
        }
        plan = tailor.api.plan_fit(tailor.api.make_recipe(**parts))["plan"]
        assert not script.heard, "a plan asks nothing"
        run = tailor.fit(**parts, output=str(tmp_path / "run"), reporter=reporter)
        limited = parts | {"base": {"endpoint": endpoint | {"budget": {"max_calls": 40, "max_cost": 0.5}}}}
        within = tailor.api.plan_fit(tailor.api.make_recipe(**limited))["plan"]
    assert (within["calls_at_most"], within["cost_at_most"]) == (40, 0.5)
    assert len(script.answered) <= plan["calls_at_most"] <= 3 * len(script.answered)
    cost = run.summary["train"]["cost"] + sum(side["cost"] for side in run.evaluation["spent"].values())
    assert cost <= plan["cost_at_most"]
    assert any(f"at most {plan['calls_at_most']:,} calls" in line and "cost at most" in line for line in said)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(8, 400))
@example(8, 200)
def test_the_bound_of_a_race_holds_for_fewer_runners_too(candidates: int, rows: int) -> None:
    def asked(runners: int) -> int:
        answers, before = 0, 0
        for size in Search._sizes(SimpleNamespace(dev=range(rows)), runners):  # type: ignore[arg-type]
            answers, before = answers + runners * (size - before), size
            runners = min(runners, max(FINALISTS, runners // 2))
        return answers

    options = SimpleNamespace(rows=rows, candidates=candidates, demonstrations=0, evolve=0)
    found = most_of(options, rows, rows, calibrates=False).answers
    assert found == rows + 2 * max(asked(fewer) for fewer in range(1, candidates + 1))
    assert (candidates, rows) != (8, 200) or found == 200 + 2 * 1000, "seven runners ask for more than eight"


def test_two_commands_have_a_budget_each(tmp_path: Path) -> None:
    _, script = fitted_within({"budget": {"max_calls": 60}}, tmp_path)
    first = len(script.answered)
    _, other = fitted_within({"budget": {"max_calls": 60}}, tmp_path / "other")
    assert len(other.answered) == first


def test_the_same_search_over_the_wire_and_here_finds_the_same_prompt(tmp_path: Path) -> None:
    base = str(save_llama(tmp_path / "llama"))
    model, lock = model_of(base), threading.Lock()

    def answer(body: Mapping[str, Any]) -> str:
        turns = tuple(Message(turn["role"], turn["content"]) for turn in body["messages"])
        with lock:
            return model.generator.reply([Question(turns, (), "")], max_new_tokens=body["max_tokens"])[0].text

    rows = [
        {"prompt": f"the {colour} stone {n}", "completion": f"{colour} is"}
        for n in range(20)
        for colour in ("red", "blue")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts: dict[str, Any] = {
        "data": str(tmp_path / "pairs.jsonl"),
        "method": {"name": "prompt", "candidates": 6, "demonstrations": 1, "ways": ["diverse", "bootstrap"]},
        "overrides": ["evaluate.max_new_tokens=4", "evaluate.primary=chrf", "train.precision=fp32"],
        "reporter": Reporter(quiet=True),
    }
    here = tailor.fit(base=base, output=str(tmp_path / "here"), **parts)
    with serving(Script(rule=answer)) as url:
        there = tailor.fit(base=f"{url}#llama", output=str(tmp_path / "there"), **parts)
    assert (here.path / "model" / "prompt.json").read_bytes() == (there.path / "model" / "prompt.json").read_bytes()
    tables = [(run.path / "search" / "prompts.jsonl").read_text() for run in (here, there)]
    assert tables[0] == tables[1]
    figures = [run.evaluation["tasks"]["default"]["metrics"]["chrf"] for run in (here, there)]
    assert figures[0] == figures[1]


def test_a_raised_budget_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    """Spent before the bare prompt is through, spent in the search, and enough; without a cache all the while."""
    script, data, said = Script(rule=needs_demonstrations), reviews(tmp_path), []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    with serving(script) as url:

        def fit(output: str, most: int | None, **endpoint: Any) -> dict[str, Any]:
            return tailor.fit(
                base={"endpoint": {"url": url, "model": "m", "cache": False, **endpoint}},
                data=data,
                method={"name": "prompt", "candidates": 8, "demonstrations": 4, "max_calls": most},
                output=str(tmp_path / output),
                resume=True,
                reporter=reporter,
            ).summary

        with pytest.raises(BudgetSpent):
            fit("run", 12)
        before = len(script.answered)
        part = fit("run", 60, concurrency=2, timeout=9.0, retries=1, prices={"prompt": 1.0})
        assert part["train"]["ended_by"] == "method.max_calls"
        assert fit("run", 60) == part
        assert "stays as it is" in said[-1]
        whole = fit("run", None)
        asked, tested = len(script.answered), whole["evaluation"]["tasks"]["default"]["n"]
        fit("other", None)
    assert "there is nothing at" in said[0]
    assert before <= 12 < part["train"]["calls"] <= 60 < whole["train"]["calls"]
    assert whole["train"]["ended_by"] is None
    assert asked <= whole["train"]["calls"] + 4 * tested, "the search itself asked nothing twice"
    prompts = [(tmp_path / name / "model" / "prompt.json").read_bytes() for name in ("run", "other")]
    assert prompts[0] == prompts[1]
    with pytest.raises(RunError, match=r"made by another recipe: method.candidates was 8, is 9"):
        tailor.fit(tmp_path / "run" / "recipe.yaml", overrides=["method.candidates=9"], resume=True)
