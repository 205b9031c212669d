"""The wire: whatever a server does, an answer is had and paid for once, or one error says why not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import Script, drop, garbled, hang_up, page, serving, silence, status

from tailor.core.contracts import Question
from tailor.core.errors import BudgetSpent, RecipeError, TailorError
from tailor.core.examples import Message, ToolCall
from tailor.recipe.base import BaseOptions, BudgetOptions, EndpointOptions
from tailor.wire import client
from tailor.wire.cache import AnswerCache
from tailor.wire.generator import ApiGenerator, as_sent
from tailor.wire.ledger import Ledger

SECRET = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of each test's own, no key, and short waits."""
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


@pytest.fixture
def script() -> Script:
    return Script(rule=lambda body: f"answer to {body['messages'][-1]['content']}")


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def ask(text: str) -> Question:
    return Question((Message("user", text),), (), "")


def made(url: str, **options: Any) -> ApiGenerator:
    return ApiGenerator.of(EndpointOptions(url=url, model="scripted", **options))


def texts(generator: ApiGenerator, count: int, **how: Any) -> list[str]:
    return [reply.text for reply in generator.reply([ask(f"question {number}") for number in range(count)], **how)]


def expected(count: int) -> list[str]:
    return [f"answer to question {number}" for number in range(count)]


class TestAnswers:
    def test_answers_come_in_the_order_of_the_questions_and_within_the_concurrency(
        self, url: str, script: Script
    ) -> None:
        script.rule = lambda body: (
            time.sleep(0.02 * (int(body["messages"][-1]["content"][-1]) % 3))
            or (f"answer to {body['messages'][-1]['content']}")
        )
        script.slow = 0.01
        assert texts(made(url, concurrency=4), 20) == expected(20)
        assert 1 < script.busiest <= 4

    def test_the_request_is_what_the_protocol_asks_for(self, url: str, script: Script) -> None:
        generator = made(url, request={"top_p": 0.5, "max_tokens": None, "max_completion_tokens": 7})
        generator.reply([Question((Message("system", "be brief"), Message("user", "hi")), (), "")])
        assert script.heard == [
            {
                "model": "scripted",
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "temperature": 0.0,
                "top_p": 0.5,
                "max_completion_tokens": 7,
            }
        ]
        generator.reply([ask("hi")], temperature=0.7, seed=3, max_new_tokens=9)
        assert script.heard[-1]["seed"] == 3
        assert script.heard[-1]["temperature"] == 0.7

    def test_completions_get_the_turns_as_text(self, url: str, script: Script) -> None:
        script.rule = lambda body: f" after {body['prompt']}"
        reply = made(url, protocol="completions").reply(
            [Question((Message("system", "a"), Message("user", "b")), (), "")]
        )
        assert reply[0].text == "after a\nb"
        assert script.heard[0]["max_tokens"] == 1024

    def test_tools_calls_and_reasoning(self, url: str, script: Script) -> None:
        call = {"id": "x", "type": "function", "function": {"name": "find", "arguments": '{"id": 3}'}}
        script.rule = lambda body: {"content": None, "tool_calls": [call], "reasoning_content": "hm"}
        tool = {"type": "function", "function": {"name": "find", "parameters": {}}}
        before = (Message("user", "3?"), Message("assistant", "", tool_calls=(ToolCall("find", {"id": 2}),)))
        question = Question((*before, Message("tool", "none"), Message("user", "and 3?")), (tool,), "")
        reply = made(url).reply([question])[0]
        assert reply.calls == ({"name": "find", "arguments": {"id": 3}},)
        assert (reply.text, reply.thinking) == ("", "hm")
        sent = script.heard[0]
        assert sent["tools"] == [tool]
        assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"] == "call_0"
        assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"id": 2}'
        script.rule = lambda body: "<think>so</think>42"
        reply = made(url).reply([ask("sum?")])[0]
        assert (reply.text, reply.thinking) == ("42", "so")

    def test_parts_of_text_are_one_answer(self, url: str, script: Script) -> None:
        parts = [{"type": "text", "text": "<think>so</think>4"}, {"type": "text", "text": "2"}]
        script.rule = lambda body: {"role": "assistant", "content": parts}
        for _ in range(2):  # from the server, and from the cache
            reply = made(url).reply([ask("sum?")])[0]
            assert (reply.text, reply.thinking) == ("42", "so")
        assert len(script.heard) == 1

    @pytest.mark.parametrize("content", [[{"type": "image_url", "image_url": {"url": "x"}}], ["42"], {"a": 1}, 42])
    def test_what_is_no_text_is_an_error_and_is_not_kept(self, url: str, script: Script, content: Any) -> None:
        script.rule = lambda body: {"role": "assistant", "content": content}
        with pytest.raises(TailorError, match="cannot be read: content") as caught:
            made(url).reply([ask("sum?")])
        assert caught.value.code == "unreadable"
        assert len(script.heard) == 1, "it would be so again"
        script.rule = lambda body: "42"
        assert made(url).reply([ask("sum?")])[0].text == "42"

    def test_the_request_as_one_string_says_all_that_is_asked(self, url: str) -> None:
        generator = made(url)
        first, other = generator.request(ask("a")), generator.request(ask("b"))
        assert first != other
        assert json.loads(first) == {"model": "scripted", "messages": [{"role": "user", "content": "a"}]}
        assert as_sent([Message("user", "a", name="me")]) == [{"role": "user", "content": "a", "name": "me"}]


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            status(429, Retry_After="0.05"),
            status(429, retry_after_ms="50"),
            status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
            status(500),
            status(503),
            status(408),
            silence(0.6),
            drop,
            hang_up,
            garbled,
            page,
            lambda handler, body: handler.send(200, {"choices": []}),
            lambda handler, body: handler.send(200, {"error": {"message": "overloaded"}}),
        ],
    )
    def test_what_passes_is_retried(self, url: str, script: Script, fault: Any) -> None:
        script.faults = [fault, fault]
        generator = made(url, timeout=0.3, concurrency=2)
        assert texts(generator, 5) == expected(5)
        assert len(script.heard) == 7
        assert generator.spent()["calls"] == 5 == len({json.dumps(body) for body in script.answered})

    def test_retry_after_keeps_everyone_back(self, url: str, script: Script) -> None:
        script.faults = [status(429, Retry_After="0.5")]
        generator = made(url, concurrency=1)
        begun = time.monotonic()
        assert texts(generator, 3) == expected(3)
        assert 0.5 <= time.monotonic() - begun < 3

    def test_a_server_that_asks_for_no_wait_gets_one_that_doubles(
        self, url: str, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "FIRST_WAIT", 0.1)
        generator = made(url, retries=3)
        generator.reply([ask("a first one, for the client takes its time with it")])
        script.faults = [status(429, Retry_After="0")] * 3
        begun = time.monotonic()
        assert texts(generator, 1) == expected(1)
        assert 0.75 * (0.1 + 0.2 + 0.4) <= time.monotonic() - begun < 5

    @pytest.mark.parametrize("fault", [status(500, "broken"), silence(0.4), drop, hang_up, garbled])
    def test_what_does_not_pass_is_one_error_after_the_retries(self, url: str, script: Script, fault: Any) -> None:
        script.faults = [fault] * 50
        with pytest.raises(TailorError, match="3 times in a row") as caught:
            made(url, timeout=0.2, retries=2).reply([ask("a")])
        assert len(script.heard) == 3
        assert caught.value.where == f"{url}#scripted"

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (status(401, "bad key"), "key_refused"),
            (status(403, "not yours"), "key_refused"),
            (status(404, "no such model"), "no_model"),
            (status(400, "max_tokens is not supported"), "bad_request"),
            (status(422, "no"), "bad_request"),
            (status(429, "insufficient_quota"), "insufficient_quota"),
            (status(429, "tomorrow", Retry_After="86400"), "server"),
        ],
    )
    def test_what_no_retry_mends_is_said_at_once(self, url: str, script: Script, fault: Any, code: str) -> None:
        script.faults = [fault] * 50
        with pytest.raises(TailorError) as caught:
            texts(made(url, concurrency=2), 40)
        assert caught.value.code == code
        assert len(script.heard) <= 3, "the others are not sent any more"

    def test_a_server_that_is_not_there_is_not_waited_for(self, script: Script) -> None:
        with serving(script) as address:
            pass
        with pytest.raises(TailorError, match="cannot be reached") as caught:
            made(address).reply([ask("a")])
        assert caught.value.fix == "start it"

    def test_an_address_that_no_one_knows_is_said_at_once(self) -> None:
        begun = time.monotonic()
        with pytest.raises(TailorError, match="cannot be reached"):
            made("https://there.is.no.such.host.invalid/v1").reply([ask("a")])
        assert time.monotonic() - begun < 10

    def test_a_certificate_that_is_not_trusted_is_not_tried_again(self, script: Script, tmp_path: Path) -> None:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        how = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        if not shutil.which("openssl"):
            pytest.skip("there is no openssl to make a certificate with")
        made_by = ["openssl", "req", *how, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made_by, check=True, capture_output=True)
        with serving(script, (certificate, key)) as address, pytest.raises(TailorError, match="certificate"):
            made(address).reply([ask("a")])
        assert not script.heard

    def test_what_was_answered_before_a_failure_is_kept(self, url: str, script: Script) -> None:
        script.faults = [None, None, None, status(400)]
        with pytest.raises(TailorError):
            texts(made(url, concurrency=1), 10)
        assert len(script.answered) == 3
        script.faults = []
        assert texts(made(url), 10) == expected(10)
        assert len(script.answered) == 10


class TestNothingIsPaidTwice:
    def test_neither_in_a_batch_nor_later_nor_by_several_threads(self, url: str, script: Script) -> None:
        script.slow = 0.02
        generator, same = made(url), [ask("a")] * 20 + [ask("b")]
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(generator.reply(same))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reply.text for reply in found[0]] == ["answer to a"] * 20 + ["answer to b"]
        assert found.count(found[0]) == 4
        assert len(script.heard) == 2
        again = made(url)
        assert again.reply(same) == found[0]
        assert len(script.heard) == 2, "a new client finds them on disk"
        assert again.spent() == {
            "calls": 2,
            "prompt_tokens": 20,
            "completion_tokens": 10,
            "cost": 0,
            "cached_calls": 2,
            "paid": 0,
        }

    def test_another_question_model_limit_or_seed_is_another_call(self, url: str, script: Script) -> None:
        made(url).reply([ask("a")])
        made(url).reply([ask("a")], max_new_tokens=5)
        made(url).reply([ask("a")], temperature=1.0, seed=1)
        made(url).reply([ask("a")], temperature=1.0, seed=2)
        ApiGenerator.of(EndpointOptions(url=url, model="other")).reply([ask("a")])
        assert len(script.heard) == 5

    def test_without_the_cache_a_new_client_asks_again(self, url: str, script: Script, tmp_path: Path) -> None:
        for _ in range(2):
            generator = made(url, cache=False)
            assert generator.reply([ask("a")]) == generator.reply([ask("a")])
        assert len(script.heard) == 2
        assert not (tmp_path / "cache").exists()

    def test_a_damaged_file_is_no_answer(self, url: str, script: Script, tmp_path: Path) -> None:
        made(url).reply([ask("a")])
        [file] = (tmp_path / "cache" / "answers").rglob("*.json")
        file.write_text(file.read_text()[:20])
        assert made(url).reply([ask("a")])[0].text == "answer to a"
        assert AnswerCache(file.parent.parent).get(file.stem) is not None

    def test_a_killed_run_asks_only_what_is_missing(self, url: str, script: Script) -> None:
        script.slow = 0.02
        code = f"""
            from tailor.core.contracts import Question
            from tailor.core.examples import Message
            from tailor.recipe.base import EndpointOptions
            from tailor.wire.generator import ApiGenerator
            ask = lambda n: Question((Message("user", f"question {{n}}"),), (), "")
            options = EndpointOptions(url={url!r}, model="scripted", concurrency=4)
            ApiGenerator.of(options).reply([ask(n) for n in range(60)])
        """
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=dict(os.environ))
        deadline = time.monotonic() + 60
        while len(script.answered) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        before = len(script.answered)
        assert 20 <= before < 60
        generator = made(url, concurrency=4)
        assert texts(generator, 60) == expected(60)
        spent = generator.spent()
        assert len(script.answered) - before == spent["calls"] - spent["cached_calls"]
        assert len(script.answered) <= 60 + 4, "but for what was on its way when the process died"


class TestBudgets:
    def test_calls_are_never_more_than_the_budget(self, url: str, script: Script) -> None:
        script.slow = 0.005
        script.faults = [None, status(500), drop, garbled, None, status(429, Retry_After="0.01"), hang_up] * 3
        with pytest.raises(BudgetSpent, match="37 calls is spent") as caught:
            texts(made(url, concurrency=16, budget={"max_calls": 37}), 100)
        assert caught.value.where == "base.endpoint.budget.max_calls"
        assert len(script.answered) == 37
        generator = made(url, concurrency=16, budget={"max_calls": 100})
        assert texts(generator, 100) == expected(100)
        assert len(script.answered) == 100, "raised, it goes on from what is kept"
        assert generator.spent()["cached_calls"] == 37

    def test_what_waits_for_room_is_not_sent_after_a_final_failure(self, url: str, script: Script) -> None:
        script.slow = 0.2  # the second waits for the first one's room meanwhile
        script.faults = [status(400, "no")]
        for _ in range(3):
            with pytest.raises(TailorError) as caught:
                texts(made(url, concurrency=4, budget={"max_calls": 1}), 4)
            assert caught.value.code == "bad_request"
            script.faults = [status(400, "no")]
        assert len(script.heard) == 3

    def test_just_enough_is_enough(self, url: str, script: Script) -> None:
        assert texts(made(url, concurrency=16, budget={"max_calls": 20}), 20) == expected(20)

    def test_cost_is_never_more_than_the_budget(self, url: str, script: Script) -> None:
        script.slow = 0.005
        prices = {"prompt": 10.0, "completion": 100.0}  # 10 and 5 tokens: 0.0006 a call
        generator = made(url, concurrency=16, prices=prices, budget={"max_cost": 0.05})
        with pytest.raises(BudgetSpent) as caught:
            texts(generator, 200, max_new_tokens=5)
        assert caught.value.where == "base.endpoint.budget.max_cost"
        assert generator.spent()["cost"] == pytest.approx(len(script.answered) * 0.0006)
        assert len(script.answered) * 0.0006 <= 0.05
        assert len(script.answered) > 50, "nor is much less asked than it suffices for"

    def test_the_longest_of_two_limits_is_what_an_answer_may_cost(self, url: str, script: Script) -> None:
        more = {"request": {"max_completion_tokens": 1000}, "prices": {"completion": 100.0}}
        with pytest.raises(BudgetSpent, match=r"may cost 0\.1"):
            made(url, **more, budget={"max_cost": 0.05}).reply([ask("a")], max_new_tokens=5)
        assert not script.heard

    @pytest.mark.parametrize("request_", [{"best_of": 4}, {"n": 2}, {"max_tokens": -1}, {"max_completion_tokens": "9"}])
    def test_what_would_cost_more_than_can_be_told_is_refused(self, url: str, request_: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"is not for a recipe to set|is a number of tokens"):
            made(url, request=request_)

    def test_what_may_have_been_billed_is_spent(self, url: str, script: Script) -> None:
        script.faults = [garbled] * 50
        prices = {"completion": 1000.0}
        with pytest.raises(BudgetSpent, match="requests that got no answer"):
            made(url, prices=prices, budget={"max_cost": 0.02}, retries=50).reply([ask("a")], max_new_tokens=5)
        assert len(script.heard) == 4, "0.005 each"

    def test_without_a_count_of_tokens_bytes_are_counted(self, url: str, script: Script) -> None:
        script.usage = False
        generator = made(url, prices={"completion": 1.0})
        generator.reply([ask("a")])
        assert generator.spent()["completion_tokens"] >= len("answer to a")
        assert generator.spent()["cost"] > 0

    def test_a_budget_within_a_budget(self, url: str, script: Script) -> None:
        whole = made(url, budget={"max_calls": 12})
        search = whole.within(Ledger(BudgetOptions(max_calls=8), "method"))
        with pytest.raises(BudgetSpent) as caught:
            texts(search, 10)
        assert caught.value.where == "method.max_calls"
        assert (search.spent()["calls"], whole.spent()["calls"]) == (8, 0)
        with pytest.raises(BudgetSpent) as caught:
            texts(whole, 20)
        assert caught.value.where == "base.endpoint.budget.max_calls"
        assert len(script.answered) == 12

    def test_two_models_share_a_budget(self, url: str, script: Script) -> None:
        shared = Ledger(BudgetOptions(max_calls=7), "method")
        one, other = (ApiGenerator.of(EndpointOptions(url=url, model=name)).within(shared) for name in "ab")
        assert texts(one, 5) == expected(5)
        with pytest.raises(BudgetSpent, match="7 calls"):
            texts(other, 5)
        assert len(script.answered) == 7
        assert (one.spent()["calls"], other.spent()["calls"]) == (5, 2)

    def test_a_run_that_is_made_again_stops_where_it_stopped(self, url: str, script: Script) -> None:
        for _ in range(2):
            generator = made(url, budget={"max_calls": 5})
            assert texts(generator, 5) == expected(5)
            with pytest.raises(BudgetSpent):
                texts(generator, 6)
        assert len(script.answered) == 5

    def test_a_cost_needs_prices_and_bounded_answers(self, url: str) -> None:
        with pytest.raises(ValueError, match="needs prices"):
            made(url, budget={"max_cost": 1.0})
        with pytest.raises(RecipeError, match="prices are known"):
            made(url).within(Ledger(BudgetOptions(max_cost=1.0), "method"))
        with pytest.raises(RecipeError, match="bounded"):
            made(url, prices={"prompt": 1.0}, budget={"max_cost": 1.0}, request={"max_tokens": None})


class TestTheKey:
    def test_it_comes_from_the_environment_and_stays_out_of_everything_else(
        self, url: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        script.key = SECRET
        script.rule = lambda body: f"your key is {SECRET}"
        assert made(url, api_key_env="MY_KEY").reply([ask("a")])[0].text == "your key is …"
        assert script.keys == {SECRET}
        files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
        assert files
        assert not any(SECRET in file.read_text() for file in files)

    @pytest.mark.parametrize(
        ("address", "named", "sent"),
        [
            ("https://api.openai.com/v1", None, SECRET),
            ("http://localhost:8000/v1", None, SECRET),
            ("http://[::1]:8000/v1", None, SECRET),
            ("https://api.openai.com.example.org/v1", None, "none"),
            ("http://example.org/v1", None, "none"),
            ("http://192.168.0.7/v1", None, "none"),
            ("https://example.org/v1", "OPENAI_API_KEY", SECRET),
            ("http://192.168.0.7/v1", "OPENAI_API_KEY", SECRET),
            ("http://ollama:11434/v1", "OPENAI_API_KEY", SECRET),
        ],
    )
    def test_a_key_that_no_recipe_names_goes_to_its_owner_alone(
        self, address: str, named: str | None, sent: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        assert made(address, api_key_env=named)._client._client.api_key == sent

    @pytest.mark.parametrize("key", [f"{SECRET}\nsecond line", f"{SECRET}\rx", f"{SECRET} x", f"{SECRET}ü"])
    def test_a_key_that_is_none_is_refused_before_it_is_sent_or_shown(
        self, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(RecipeError, match="MY_KEY") as caught:
            made("https://example.org/v1", api_key_env="MY_KEY")
        assert caught.value.code == "bad_key"
        assert SECRET not in f"{caught.value}{caught.value.fix}"

    @pytest.mark.parametrize(
        "host",
        ["example.org", "8.8.8.8", "localhost.example.org", "[2001:4860:4860::8888]", "134744072", "0x08080808"],
    )
    def test_no_key_goes_over_the_internet_as_plain_text(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        with pytest.raises(RecipeError, match="as plain text") as caught:
            made(f"http://{host}/v1", api_key_env="MY_KEY")
        assert caught.value.where == "base.endpoint.url"
        assert "https" in caught.value.fix
        assert SECRET not in str(caught.value)

    def test_a_server_that_wants_a_key_and_got_none_says_so(self, url: str, script: Script) -> None:
        script.key = "its own"
        with pytest.raises(TailorError, match="none was sent"):
            made(url).reply([ask("a")])

    def test_a_key_that_is_an_ordinary_word_stays_in_answers(
        self, url: str, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
        script.rule = lambda body: "The tank is EMPTY."
        for _ in range(2):  # from the server, and from the cache
            assert made(url).reply([ask("a")])[0].text == "The tank is EMPTY."
        script.faults = [status(400, "EMPTY is not welcome")]
        with pytest.raises(TailorError) as caught:
            made(url).reply([ask("b")])
        assert "EMPTY" not in str(caught.value)

    def test_a_refused_key_is_not_repeated(self, url: str, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        script.key = "another"
        with pytest.raises(TailorError) as caught:
            made(url, api_key_env="MY_KEY").reply([ask("a")])
        assert SECRET not in str(caught.value)
        assert "MY_KEY" in caught.value.fix
        assert caught.value.__cause__ is None

    def test_a_key_that_is_missing_is_said_before_anything_is_sent(self, url: str, script: Script) -> None:
        with pytest.raises(RecipeError, match="no MY_KEY"):
            made(url, api_key_env="MY_KEY")
        assert made(url).reply([ask("a")])[0].text == "answer to a", "a server on one's own machine wants none"

    def test_a_key_in_the_wrong_place_is_not_repeated(self) -> None:
        from tailor.recipe.recipe import checked

        for values in (
            {"url": "http://x/v1", "model": "m", "api_key_env": SECRET},
            {"url": f"http://me:{SECRET}@x/v1", "model": "m"},
            {"url": f"http://x/v1?key={SECRET}", "model": "m"},
            {"url": "http://x/v1", "model": "m", "api_key": SECRET},
        ):
            with pytest.raises(RecipeError) as caught:
                checked(BaseOptions, {"endpoint": values})
            assert SECRET not in str(caught.value)
