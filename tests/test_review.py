"""Blind review over real HTTP: what is shown, what is kept, and what the votes come to."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_cli import call

from tailor.core.answers import read_answers, write_answers
from tailor.core.contracts import Answer
from tailor.core.errors import DataError, RunError
from tailor.evaluation.votes import agreement, keep_vote, read_votes, win_rate
from tailor.verbs.review import Review, Serving, address, server

COUNT = 12


def run_folder(path: Path, alike: int = 1) -> Path:
    """A run whose tuned model answers well and whose base does not; on the last `alike` rows they say the same."""
    path.mkdir()
    (path / "recipe.yaml").write_text("base: pocket:gpt\ndata: pocket:support\n")
    base, tuned = [], []
    for i in range(COUNT + alike):
        row = (f"r{i:02d}", {}, f"question {i} \u2028 <b>&</b>", f"answer {i}")
        base.append(Answer(*row, "bad" if i < COUNT else "same"))
        tuned.append(Answer(*row, f"good {i}" if i < COUNT else "same"))
    write_answers(path, base, tuned)
    return path


@pytest.fixture
def sitting(tmp_path: Path) -> Review:
    return Review(run_folder(tmp_path / "run"))


@pytest.fixture
def serving(sitting: Review) -> Iterator[Serving]:
    with server(sitting, 0) as made:
        thread = Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


def test_votes_are_kept_as_they_are_given_and_counted(serving: Serving, sitting: Review) -> None:
    url = address(serving)
    assert url.startswith("http://127.0.0.1:")
    assert "keydown" in ask(url)
    told, firsts = ask(f"{url}next"), []
    for done in range(COUNT):
        assert (told["done"], told["total"]) == (done, COUNT)
        firsts.append(told["1"].startswith("good"))
        assert told["1"].startswith("good") != told["2"].startswith("good")
        assert {"base", "tuned"}.isdisjoint(told), "nothing tells which is which"
        good = "1" if firsts[-1] else "2"
        told = ask(
            f"{url}vote", {"id": told["id"], "vote": "0" if done == 0 else good if done > 1 else "21"[good == "2"]}
        )
        assert len(sitting.file.read_text().splitlines()) == done + 1, "each vote at once"
    assert {True, False} == set(firsts), "sides are drawn"
    assert "wins" in told["result"]
    result = sitting.result()
    assert (result["votes"], result["tuned"], result["base"], result["tie"]) == (COUNT, COUNT - 2, 1, 1)
    assert result["identical"] == 1
    assert result["win_rate"] == pytest.approx((COUNT - 2 + 0.5) / COUNT)


def test_a_review_goes_on_where_it_was_left(sitting: Review) -> None:
    first = sitting.next()
    sitting.vote(first["id"], "1")
    again = Review(sitting.folder)
    assert again.votes == sitting.votes
    assert again.next()["id"] not in again.votes
    assert Review(sitting.folder).next() == again.next(), "the same pair, its sides as they were"


def test_nobody_else_can_vote(serving: Serving, sitting: Review) -> None:
    port, pair = serving.server_address[1], sitting.next()["id"]
    for path in ("/", "/vote", "/guess/vote", "/guess/next"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"http://127.0.0.1:{port}{path}", {"id": pair, "vote": "1"} if "vote" in path else None)
        assert refused.value.code == 404
    for body in ({"id": "unknown", "vote": "1"}, {"id": pair, "vote": "3"}, {"id": pair}, [], "text"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{address(serving)}vote", body)
        assert refused.value.code == 400
    assert not sitting.votes
    assert not sitting.file.exists()


def test_all_votes_given_the_command_tells_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    sitting = Review(run)
    for key in sitting.pairs:
        sitting.vote(key, "0")
    code, out, _ = call(capsys, "review", run, "--json")
    assert code == 0
    assert json.loads(out)["win_rate"] == 0.5
    assert "wins 50 %" in call(capsys, "review", run)[1]


def test_runs_without_answers_or_differences_are_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run / "answers.jsonl").write_text(
        "".join(
            json.dumps({"id": str(i), "prompt": "", "expected": "", "base": "a", "tuned": "a"}) + "\n" for i in range(3)
        )
    )
    with pytest.raises(RunError, match="answer alike"):
        Review(run)
    (run / "answers.jsonl").unlink()
    with pytest.raises(RunError, match="holds no answers"):
        Review(run)


def test_answers_of_any_kind_come_back_as_text(tmp_path: Path) -> None:
    given = ["text\u2028\u0085", ("a", "b"), 0.5, ({"name": "f", "arguments": {"x": 1}},), None]
    rows = [Answer(str(i), {}, "p", "e", value) for i, value in enumerate(given)]
    write_answers(tmp_path, [Answer(str(i), {}, "p", "e", "base") for i in range(len(given))], rows)
    shown = [pair.tuned for pair in read_answers(tmp_path)]
    assert shown == ["text\u2028\u0085", "a, b", "0.5", '[{"name": "f", "arguments": {"x": 1}}]', ""]


def test_a_torn_line_is_no_vote_and_a_false_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"id": "a", "vote": "tuned"}\n{"id": "a", "vote": "base"}\n{"id": "b", "vo')
    assert read_votes(file) == {"a": "base"}, "the last vote counts"
    keep_vote(file, "c", "tie")
    assert read_votes(file) == {"a": "base", "c": "tie"}, "a torn line does not spoil the next"
    file.write_text('{"id": "a", "vote": "tuned"}\n{"id": "b", "vote": "left"}\n')
    with pytest.raises(DataError, match="'left'") as raised:
        read_votes(file)
    assert raised.value.where == f"{file}:2"


def test_the_win_rate_is_a_sign_test() -> None:
    from scipy.stats import binomtest

    votes: dict[str, Any] = {str(i): "tuned" if i < 14 else "base" if i < 18 else "tie" for i in range(22)}
    found = win_rate(votes)
    assert found["win_rate"] == pytest.approx(16 / 22)
    assert found["p_value"] == pytest.approx(binomtest(14, 18).pvalue)
    assert found["ci95"][0] < found["win_rate"] < found["ci95"][1]
    assert win_rate({})["win_rate"] is None


def test_agreement_beyond_chance() -> None:
    from sklearn.metrics import cohen_kappa_score

    one: dict[str, Any] = {str(i): "tuned" if i % 3 else "base" for i in range(30)}
    other: dict[str, Any] = {str(i): "tuned" if i % 4 else "tie" for i in range(40)}
    found = agreement(one, other)
    assert found["pairs"] == 30
    assert found["kappa"] == pytest.approx(
        cohen_kappa_score([one[str(i)] for i in range(30)], [other[str(i)] for i in range(30)])
    )
    assert agreement(one, {})["share"] is None
