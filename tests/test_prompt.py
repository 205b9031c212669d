"""Searched prompts: what is scored is what is saved and served, nothing is paid for twice, and stages go on from them."""

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SMALL, in_this_process, save_bert, save_llama, save_t5
from transformers import AutoModelForCausalLM

import tailor
from tailor.bases.loading import find
from tailor.bases.shared_prefix import ending_nats, whole_rows
from tailor.core.contracts import Answer, ExampleSeat, Question, Reply
from tailor.core.errors import BaseError, BudgetSpent, Interrupted, RecipeError, RunError, TailorError
from tailor.core.examples import Conversation, Message, Origin
from tailor.core.nearest import Nearest
from tailor.core.prompts import Demonstration, Prompt, from_dict, read_prompt
from tailor.core.reporting import Reporter
from tailor.engine import prompt_loop
from tailor.engine import search as searching
from tailor.engine.loop import SearchSpace
from tailor.evaluation import proof
from tailor.evaluation.generators import Kept, Local
from tailor.evaluation.scorers import resolve
from tailor.objectives.choice import Choice
from tailor.objectives.multiple_choice import MultipleChoice
from tailor.recipe.base import BaseOptions
from tailor.recipe.evaluate import EvaluateOptions
from tailor.recipe.many import parse_any
from tailor.recipe.methods import PromptOptions
from tailor.recipe.objectives import ChoiceOptions, MultipleChoiceOptions
from tailor.recipe.recipe import parse
from tailor.verbs.talk import model_of

QUIET = Reporter(quiet=True)
SMALL_SEARCH: dict[str, Any] = {"name": "prompt", "candidates": 5, "demonstrations": 2, "rows": 16}
COLOURS = ("red", "blue")
ANY = Question((), (), "")


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh process is waited for once, where a prompt has been edited."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_llama(tmp_path_factory.mktemp("base") / "llama"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"text": f"stone {number} is {colour}", "label": colour} for number in range(40) for colour in COLOURS]
    return written(tmp_path_factory.mktemp("data") / "colours.jsonl", rows)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        {"prompt": f"the {colour} stone {number}", "completion": colour} for number in range(30) for colour in COLOURS
    ]
    return written(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def run(llama: str, colours: str, tmp_path_factory: pytest.TempPathFactory) -> tailor.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof.subprocess, "run", in_this_process)
        return searched(llama, colours, tmp_path_factory.mktemp("run") / "run")


def written(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def searched(base: str, data: str, output: Path, *overrides: str, resume: bool = False, **method: Any) -> tailor.Run:
    return tailor.fit(
        base=base,
        data=data,
        method={**SMALL_SEARCH, **method},
        output=str(output),
        overrides=["evaluate.samples=16", *overrides],
        resume=resume,
        reporter=QUIET,
    )


# --- a prompt as data -----------------------------------------------------------------------------------------------

WORDS = st.text(max_size=20)
PROMPTS = st.builds(
    Prompt,
    instruction=WORDS,
    output_format=WORDS,
    place=st.sampled_from(["system", "user"]),
    input_format=st.sampled_from(["{input}", "Text: {input}\nLabel:", "{input} {input}"]),
    layout=st.sampled_from(["turns", "text"]),
    demonstrations=st.lists(st.builds(Demonstration, WORDS, WORDS), max_size=3).map(tuple),
    nearest=st.integers(0, 2),
    prior=st.dictionaries(WORDS, st.floats(-9, 0), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(PROMPTS, WORDS)
def test_a_prompt_read_back_asks_the_very_same(prompt: Prompt, text: str) -> None:
    again = from_dict(json.loads(prompt.as_json()), "here")
    assert again == prompt
    assert again.as_json() == prompt.as_json()
    turns = (Message("user", text),)
    assert again.apply(turns) == prompt.apply(turns)


def test_where_the_parts_of_a_prompt_stand() -> None:
    shown = (Demonstration("one", "1"), Demonstration("two", "2"))
    prompt = Prompt("Count.", "A digit.", input_format="Word: {input}\nDigit:", demonstrations=shown)
    turns = (Message("system", "Be kind."), Message("user", "three"))
    said = [(turn.role, turn.content) for turn in prompt.apply(turns)]
    assert said == [
        ("system", "Count.\nA digit.\n\nBe kind."),
        ("user", "Word: one\nDigit:"),
        ("assistant", "1"),
        ("user", "Word: two\nDigit:"),
        ("assistant", "2"),
        ("user", "Word: three\nDigit:"),
    ]
    text = Prompt("Count.", place="user", input_format="Word: {input}\nDigit:", layout="text", demonstrations=shown)
    assert [turn.content for turn in text.apply(turns)] == [
        "Be kind.",
        "Count.\n\nWord: one\nDigit: 1\n\nWord: two\nDigit: 2\n\nWord: three\nDigit:",
    ]
    assert [len(turns) for turns in prompt.variants(turns)] == [6, 4, 2]


@pytest.mark.parametrize("place", ["system", "user"])
@pytest.mark.parametrize("layout", ["turns", "text"])
@pytest.mark.parametrize("roles", [("assistant", "user"), ("assistant",), ("user", "assistant", "user"), ()])
def test_no_part_of_a_prompt_is_lost_whoever_speaks_first(place: Any, layout: Any, roles: tuple[Any, ...]) -> None:
    prompt = Prompt("Count.", "A digit.", place, layout=layout, demonstrations=(Demonstration("two", "2"),))
    own = [Message(role, f"turn {number}") for number, role in enumerate(roles)]
    turns = prompt.apply(own)
    said = "\n".join(turn.content for turn in turns)
    assert all(said.count(part) == 1 for part in ("Count.", "A digit.", "two", "\n2", *(one.content for one in own)))
    assert said.index("Count.") < said.index("two")
    assert [turn.role for turn in turns][len(turns) - len(own) :] == list(roles)


def test_shown_answers_are_never_learned() -> None:
    prompt = Prompt("x", demonstrations=(Demonstration("one", "1"),))
    weights = [turn.weight for turn in prompt.apply((Message("user", "two"), Message("assistant", "2")))]
    assert weights == [None, None, 0.0, None, None]


def test_the_nearest_are_shown_and_never_the_question_itself() -> None:
    pool = [Demonstration(text, text[:1]) for text in ("a red stone", "a blue boat", "the red stone", "green cloud")]
    prompt = Prompt(demonstrations=tuple(pool), nearest=2)
    shown = [turn.content for turn in prompt.apply((Message("user", "the red stone"),)) if turn.role == "user"]
    assert shown == ["a blue boat", "a red stone", "the red stone"]
    assert Nearest(["x", "y"]).closest("z", 1) == [0]


def test_a_broken_prompt_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "prompt.json"
    for text in ("{", "{}", json.dumps(Prompt().as_dict() | {"schema": 2})):
        file.write_text(text)
        with pytest.raises(BaseError) as caught:
            read_prompt(file)
        assert caught.value.where == str(file)


# --- likelihoods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_endings_after_shared_prefixes_are_as_likely_as_in_rows_of_their_own(
    llama: str, attention: str, budget: int
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation=attention).eval()
    draw = np.random.default_rng(0)
    ids = lambda count: draw.integers(7, SMALL["vocab_size"] - 4, count).tolist()  # noqa: E731
    shared = ids(20)
    prompts = [shared + ids(count) for count in (1, 7, 3, 7, 2)]
    prompts.append(prompts[1])
    endings = [ids(count) for count in (1, 3, 2, 5)]
    naive = [[alone(model, prompt, ending) for ending in endings] for prompt in prompts]
    found = ending_nats(model, prompts, endings, torch.device("cpu"), budget)
    np.testing.assert_allclose(found, naive, atol=1e-5)
    np.testing.assert_allclose(whole_rows(model, prompts, endings, torch.device("cpu"), budget), naive, atol=1e-5)
    np.testing.assert_allclose(
        ending_nats(model, [ids(4), ids(4)], endings[:1], torch.device("cpu"), budget).shape, (2, 1)
    )


@torch.no_grad()
def alone(model: Any, prompt: list[int], ending: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + ending])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(ending))


def test_a_model_that_forgets_what_is_far_away_is_run_in_whole_rows(tmp_path: Path) -> None:
    from transformers import MistralConfig

    torch.manual_seed(0)
    config = MistralConfig(**{**SMALL, "sliding_window": 8}, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompts, endings = [[*range(10, 30)], [*range(10, 28), 50, 51]], [[7, 8], [9]]
    naive = [[alone(model, prompt, ending) for ending in endings] for prompt in prompts]
    np.testing.assert_allclose(ending_nats(model, prompts, endings, torch.device("cpu"), 99), naive, atol=1e-5)


def test_choices_are_as_likely_as_the_rows_that_training_would_see(llama: str) -> None:
    model = model_of(llama)
    asked = [Question((Message("system", "s"), Message("user", text)), (), "") for text in ("the red stone", "a boat")]
    found = model.generator.likelihoods(asked, ["red", "blue boat"])
    for row, question in enumerate(asked):
        for column, choice in enumerate(("red", "blue boat")):
            turns = (*question.messages, Message("assistant", choice))
            whole = model.base.chat.encode(Conversation(id="", origin=Origin("x", 1), messages=turns))
            start = next(place for place, weight in enumerate(whole.weights) if weight)
            end = 1 + max(place for place, weight in enumerate(whole.weights) if weight)
            naive = alone(model.base.model, whole.input_ids[:start], whole.input_ids[start:end])
            assert found[row, column] == pytest.approx(naive, abs=1e-5)


# --- choices as written answers -------------------------------------------------------------------------------------


def test_the_choice_that_a_text_gives() -> None:
    choice = Choice(ChoiceOptions())
    choice.adopt(["not sure", "not", "Yes", "!"])
    given = {"yes.": "Yes", "The label is NOT sure": "not sure", "not really, yes": "not", "maybe": None, " ! ": "!"}
    assert {text: choice.answered(text, ANY) for text in given} == given


LANGUAGES = ["C", "C#", "C++", "Go"]
INCOMES = ["<=50K", ">50K"]


@pytest.mark.parametrize(
    ("labels", "given"),
    [
        (INCOMES, {">50K": ">50K", "<=50K": "<=50K", "It is >50K.": ">50K", "'<=50k'": "<=50K", "50K": None}),
        (INCOMES, {"= 50K": None, "income: <=50K, not >50K": "<=50K", "**>50K**": ">50K"}),
        (LANGUAGES, {"C": "C", "C#": "C#", "c++": "C++", "It is C++, I think": "C++", "(C#)": "C#", "Go!": "Go"}),
        (LANGUAGES, {"Written in C.": "C", "C+": None, "a c": None, "go, not C": "Go", "Objective-C": None}),
        (["US", "us", "Them"], {"us": "us", "US": "US", "Us": None, "It is us": "us", "THEM": "Them"}),
        (["-1", "0", "1"], {"-1": "-1", "1": "1", "label: -1": "-1", "It is 1.": "1", "10": None, "1-1": None}),
        (["A", "B", "C"], {"b": "B", "a long text about B": "B", "(C) all": "C", "B.": "B", "Because": None}),
    ],
)
def test_labels_that_their_signs_or_case_tell_apart(labels: list[str], given: dict[str, str | None]) -> None:
    choice = Choice(ChoiceOptions())
    choice.adopt(labels)
    assert {text: choice.answered(text, ANY) for text in given} == given
    assert all(choice.answered(label, ANY) == label for label in labels)


def test_an_instruction_names_labels_by_their_words() -> None:
    choice = Choice(ChoiceOptions())
    choice.adopt(["not", "sure"])
    assert choice.bare("Assured of nothing?").output_format
    assert choice.bare("Is it Sure, or NOT?").output_format == ""
    choice.adopt(INCOMES)
    assert choice.bare("Is it <=50K or >50K?").output_format == ""
    assert choice.bare("Is it above 50K?").output_format


OPTIONS = ("Paris", "a dog", "not Paris", "None of these")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *((letter, letter) for letter in "ABCD"),
        *(("E", None), ("c", "C"), ("B.", "B"), ("(B)", "B"), ("**B) a dog**", "B"), ("B\nfor it barks", "B")),
        *(("The answer is C.", "C"), ("Option (D)", "D"), ("answer: **B**", "B"), ("a dog", "B"), ("A dog.", "B")),
        *(("It is Paris, not A", "A"), ("It is not Paris", "C"), ("none of these!", "D"), ("A cat", "A"), ("", None)),
        *(("I think B", "B"), ("no idea", None), ("The answer is a dog", "B")),
    ],
)
def test_the_option_that_an_answer_names(text: str, letter: str | None) -> None:
    objective = MultipleChoice(MultipleChoiceOptions())
    assert objective.answered(text, Question((), (), "", OPTIONS)) == letter


def quiz(file: Path, count: int = 60) -> str:
    """Rows with two, three or four options of their own; the right one is that of the stone's colour."""
    draw, rows = np.random.default_rng(0), []
    for number in range(count):
        options = draw.permutation(["red", "blue", "green", "grey"])[: 2 + number % 3].tolist()
        right = int(draw.integers(len(options)))
        answer = (right, options[right], "ABCD"[right])[number % 3]
        rows.append({"question": f"stone {number} is {options[right]}: which?", "choices": options, "answer": answer})
    return written(file, rows)


def test_rows_with_options_of_their_own_are_answered_by_the_likeliest_letter(llama: str, tmp_path: Path) -> None:
    data = quiz(tmp_path / "quiz.jsonl")
    run = searched(llama, data, tmp_path / "run")
    assert run.summary["objective"] == "multiple_choice"
    assert run.proof["passed"]
    assert run.evaluation["tasks"]["default"]["primary"] == "accuracy"
    model = model_of(str(run.path))
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()][:9]
    found = run.predict([(row["question"], *row["choices"]) for row in rows])
    prior = model.objective.prompt.prior
    for row, answered in zip(rows, found, strict=True):
        example = model.objective.blank((row["question"], *row["choices"]), ExampleSeat("", Origin("x", 1)))
        letters = "ABCD"[: len(row["choices"])]
        nats = model.generator.likelihoods(model.objective.questions(example)[:1], letters)[0]
        assert answered == letters[int(np.argmax(nats - [prior.get(letter, 0.0) for letter in letters]))]
    again = tailor.evaluate(run, data=quiz(tmp_path / "more.jsonl", 12), reporter=QUIET)
    assert again["tasks"]["default"]["n"] == 12


def test_letters_can_be_learned_too(llama: str, tmp_path: Path) -> None:
    parts = {"base": llama, "data": quiz(tmp_path / "quiz.jsonl"), "method": "lora", "output": str(tmp_path / "run")}
    run = tailor.fit(**parts, overrides=["train.max_steps=2", "evaluate.samples=8"], reporter=QUIET)
    assert run.proof["passed"]
    assert run.predict([("which?", "red", "blue")])[0] in ("A", "B")


@pytest.mark.parametrize(
    ("labels", "given"),
    [
        (
            [("red", "big"), ("dark red",), ()],
            {"red, big": ("big", "red"), "It is BIG!": ("big",), "dark red": ("dark red",), "None.": (), "huh": None},
        ),
        ([1.5, -2.0], {"1.5": 1.5, "About -2": -2.0, "1,200.5 kg": 1200.5, "v2 none": None, "4/5": 4.0, "3e2": 300.0}),
    ],
)
def test_several_labels_and_numbers_are_read_off_an_answer(labels: list[Any], given: dict[str, Any]) -> None:
    choice = Choice(ChoiceOptions())
    rows = [{"texts": ["x"], "label": label} for label in labels]
    choice.prepare(rows)
    assert {text: choice.answered(text, ANY) for text in given} == given
    for row in rows:
        [question] = choice.questions(choice.read(row, ExampleSeat("", Origin("x", 1))))
        assert question.reference == row["label"]
        found = choice.answered(str(question.expected), question)
        assert found == (row["label"] if isinstance(row["label"], float) else tuple(sorted(row["label"])))


@pytest.mark.parametrize("method", [SMALL_SEARCH, "lora"])
@pytest.mark.parametrize("kind", ["labels", "number"])
def test_several_labels_and_numbers_can_be_written(llama: str, tmp_path: Path, kind: str, method: Any) -> None:
    label = {"labels": lambda n: [["red"], ["red", "big"], []][n % 3], "number": lambda n: n % 5 + 0.5}[kind]
    data = written(tmp_path / "rows.jsonl", [{"text": f"stone {n} {n % 5}", "label": label(n)} for n in range(60)])
    overrides = ["objective=choice", "evaluate.samples=8", *(["train.max_steps=2"] if method == "lora" else [])]
    parts = {"base": llama, "data": data, "method": method, "output": str(tmp_path / "run"), "reporter": QUIET}
    run = tailor.fit(**parts, overrides=overrides)
    assert run.proof["passed"]
    assert run.evaluation["tasks"]["default"]["primary"] == {"labels": "macro_f1", "number": "mse"}[kind]
    given = run.predict(["stone 3"])[0]
    assert given is None or isinstance(given, {"labels": tuple, "number": float}[kind])
    again = tailor.evaluate(run, reporter=QUIET)
    assert again["tasks"]["default"]["metrics"] == run.evaluation["tasks"]["default"]["metrics"]
    assert tailor.fit(**parts, overrides=overrides, resume=True).summary == run.summary


# --- the search ------------------------------------------------------------------------------------------------------


def test_what_was_scored_is_what_is_saved_and_served(run: tailor.Run) -> None:
    assert run.proof == {**run.proof, "passed": True, "by": "tailor", "rows": 16}
    scored = json.loads((run.path / "search" / "scored.json").read_text())
    model = model_of(str(run.path))
    for row in scored["rows"]:
        turns = tuple(Message(turn["role"], turn["content"]) for turn in row["question"]["messages"])
        asked = model.objective.posed(Question(turns, (), ""))[0]
        assert model.generator.request(asked) == row["request"]
    train = run.summary["train"]
    assert train["steps"] > 5
    assert train["trainable_parameters"] == 0
    assert train["dev_best"] >= train["dev_bare"]
    assert run.predict(["stone 1 is red"])[0] in COLOURS
    assert run.generate("stone 1 is red") in COLOURS


def test_an_edited_prompt_is_found_out_in_a_fresh_process(
    run: tailor.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    file = copy / "model" / "prompt.json"
    file.write_text(file.read_text().replace("Answer with", "Say"))
    found = tailor.prove(copy)
    assert not found["passed"]
    assert "changed" in found["problems"][0]
    assert "requests differ" in found["problems"][1]


def test_a_finished_run_is_proved_again(run: tailor.Run) -> None:
    assert tailor.prove(run)["passed"]


def test_evaluation_again_gives_the_same_figures(run: tailor.Run) -> None:
    again = tailor.evaluate(run, reporter=QUIET)["tasks"]["default"]
    first = run.evaluation["tasks"]["default"]
    assert again["metrics"] == first["metrics"]


def test_an_interrupted_search_keeps_its_best_and_pays_for_nothing_twice(
    llama: str, colours: str, run: tailor.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    ask, extend, seen = Local._count, searching.Search.extend, [0]

    def count(self: Local, questions: Any, completion: int) -> None:
        computed.extend(self.request(one) for one in questions)
        ask(self, questions, completion)

    def stop_at_fourth(self: Any, one: Any, size: int) -> None:
        seen[0] += 1
        if seen[0] == 4:
            signal.raise_signal(signal.SIGINT)
        extend(self, one, size)

    monkeypatch.setattr(Local, "_count", count)
    monkeypatch.setattr(searching.Search, "extend", stop_at_fourth)
    with pytest.raises(Interrupted, match="--resume"):
        searched(llama, colours, tmp_path / "again")
    assert model_of(str(tmp_path / "again")).predict(["stone 1 is red"])[0] in COLOURS
    computed.clear()
    monkeypatch.setattr(searching.Search, "extend", extend)
    kept = len((tmp_path / "again" / "search" / "answers.jsonl").read_text().splitlines())
    resumed = searched(llama, colours, tmp_path / "again", resume=True)
    assert kept > 0
    whole = (run.path / "search" / "answers.jsonl").read_text().splitlines()
    assert sorted(whole) == sorted((resumed.path / "search" / "answers.jsonl").read_text().splitlines())
    assert (resumed.path / "model" / "prompt.json").read_bytes() == (run.path / "model" / "prompt.json").read_bytes()
    assert resumed.evaluation == {**run.evaluation, "tasks": resumed.evaluation["tasks"]}
    assert resumed.summary["train"]["calls"] == run.summary["train"]["calls"]


def test_the_budget_ends_a_search_with_what_it_has(llama: str, colours: str, tmp_path: Path) -> None:
    run = searched(llama, colours, tmp_path / "run", max_calls=40)
    assert run.summary["train"]["calls"] <= 40
    assert run.proof["passed"]


def test_texts_are_answered_by_writing(llama: str, pairs: str, tmp_path: Path) -> None:
    run = searched(
        llama, pairs, tmp_path / "run", "evaluate.primary=exact_match & max_words:2", instruction="Name the colour."
    )
    table = [json.loads(line) for line in (run.path / "search" / "prompts.jsonl").read_text().splitlines()]
    bare = next(row for row in table if row["origin"] == "bare")
    assert bare["prompt"]["instruction"] == "Name the colour."
    assert run.evaluation["tasks"]["default"]["primary"] == "exact_match & max_words:2"
    assert run.proof["passed"]
    assert isinstance(run.generate("the red stone 1", max_new_tokens=3), str)


def test_an_encoder_decoder_takes_a_prompt_too(pairs: str, tmp_path: Path) -> None:
    run = searched(str(save_t5(tmp_path / "t5")), pairs, tmp_path / "run", candidates=2, ways=["diverse"])
    assert run.proof["passed"]


def test_a_search_needs_dev_rows_and_answers_to_look_at(llama: str, colours: str, pairs: str, tmp_path: Path) -> None:
    with pytest.raises(TailorError, match="dev rows") as caught:
        searched(llama, colours, tmp_path / "run", "data.dev=0")
    assert caught.value.where == "data.dev"
    with pytest.raises(RecipeError, match="loss"):
        searched(llama, colours, tmp_path / "other", "evaluate.primary=loss")
    with pytest.raises(RecipeError, match="looks at none"):
        searched(llama, pairs, tmp_path / "third", "evaluate.primary=loss")


def test_a_prompt_for_another_base_is_refused(run: tailor.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path / "model", tmp_path / "model")
    file = tmp_path / "model" / "base.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "name": run.summary["base"], "digest": "0" * 64}))
    recorded = json.loads((run.path / "model" / "base.json").read_text())
    assert recorded["digest"] == find(BaseOptions(name=str(run.path))).identity()["digest"]
    with pytest.raises(BaseError):
        find(BaseOptions(name=str(tmp_path / "model")))


def test_where_a_prompt_does_not_go(colours: str, llama: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="causal base"):
        searched(str(save_bert(tmp_path / "bert")), colours, tmp_path / "run")
    tasks = {"one": {"data": colours}, "two": {"data": colours}}
    with pytest.raises(RecipeError, match="share weights"):
        parse_any({"base": llama, "tasks": tasks, "method": "prompt"})
    with pytest.raises(BudgetSpent, match=r"method\.max_calls"):
        searched(llama, colours, tmp_path / "other", max_calls=3)


def test_a_model_on_held_out_rows_is_asked_behind_its_prompt(run: tailor.Run, tmp_path: Path) -> None:
    rows = [{"text": f"boat {number} is {colour}", "label": colour} for number in range(6) for colour in COLOURS]
    found = tailor.evaluate(run, data=written(tmp_path / "more.jsonl", rows), reporter=QUIET)
    assert found["tasks"]["default"]["n"] == 12


# --- stages ----------------------------------------------------------------------------------------------------------


def test_a_stage_after_a_prompt_trains_behind_its_instruction(llama: str, colours: str, tmp_path: Path) -> None:
    stage = {"data": {"train": colours}, "evaluate": {"samples": 16}}
    recipe = parse_any(
        {
            "base": llama,
            "stages": [
                {**stage, "method": {**SMALL_SEARCH, "instruction": "Which colour?"}},
                {**stage, "method": "lora", "train": {"max_steps": 2}},
            ],
            "output": str(tmp_path / "run"),
        }
    )
    run = tailor.fit(recipe, reporter=QUIET)
    first, last = (
        read_prompt(tmp_path / "run" / "stages" / name / "model" / "prompt.json") for name in run.summary["stages"]
    )
    assert last == first.instruction_only()
    model = model_of(str(run.path))
    assert model.objective.prompt == last
    question = model.objective.posed(Question((Message("user", "stone"),), (), ""))[0]
    assert last.lead in model.generator.request(question)
    assert run.evaluation["stages"].keys() == set(run.summary["stages"])
    assert run.evaluation["without_earlier_stages"]["default"]["metrics"]["accuracy"]["base"] is not None
    assert parse_any(json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert "Stage 1" in (run.path / "report.html").read_text()


def test_labels_can_be_written_by_any_method(llama: str, colours: str, tmp_path: Path) -> None:
    run = tailor.fit(
        base=llama,
        data=colours,
        method="lora",
        output=str(tmp_path / "run"),
        reporter=QUIET,
        overrides=["objective=choice", "train.max_steps=2", "evaluate.samples=16"],
    )
    assert run.proof["passed"]
    assert run.summary["objective"] == "choice"
    assert run.predict(["stone 1 is red"])[0] in COLOURS


# --- small parts -----------------------------------------------------------------------------------------------------


def test_metrics_that_are_to_hold_together() -> None:
    (both,) = resolve(["exact_match & max_words:2"], answers_kind="text")
    answers = [Answer(str(place), {}, "", "a b", given) for place, given in enumerate(("a b", "a", "a b c"))]
    rows = both.statistics(answers)
    np.testing.assert_array_equal(rows, [[1, 1], [0, 1], [0, 1]])
    assert "words" in both.details(answers[2])
    with pytest.raises(TailorError, match="no share of 1"):
        resolve(["exact_match & bleu"], answers_kind="text")


def test_kept_answers_are_found_by_their_content(llama: str, tmp_path: Path) -> None:
    model = model_of(llama)
    asked = [Question((Message("user", text),), (), "") for text in ("the red stone", "a boat", "the red stone")]
    first = Kept(model.generator, tmp_path / "a.jsonl", "one")
    replies = first.reply(asked, max_new_tokens=3)
    assert first.spent()["calls"] == 2
    before = model.generator.spent()["calls"]
    again = Kept(model.generator, tmp_path / "a.jsonl", "one")
    assert again.reply(asked, max_new_tokens=3) == replies
    assert model.generator.spent()["calls"] == before
    again.reply(asked[:1], max_new_tokens=4)
    Kept(model.generator, tmp_path / "a.jsonl", "other").reply(asked[:1], max_new_tokens=3)
    assert model.generator.spent()["calls"] == before + 2


def test_a_kill_in_mid_write_costs_one_answer_and_other_damage_is_told(llama: str, tmp_path: Path) -> None:
    model, file = model_of(llama), tmp_path / "a.jsonl"
    asked = [Question((Message("user", text),), (), "") for text in ("the red stone", "a boat")]
    first = Kept(model.generator, file, "one").likelihoods(asked, ["red", "blue"])
    whole = file.read_bytes()
    for torn in range(len(whole) - 1, whole.index(b"\n"), -1):
        file.write_bytes(whole[:torn])
        Kept(model.generator, file, "one")
        assert file.read_bytes() == whole[: whole.index(b"\n") + 1]
    again = Kept(model.generator, file, "one").likelihoods(asked, ["red", "blue"])
    np.testing.assert_allclose(again, first, atol=1e-5)
    keys = [json.loads(line)[0] for line in file.read_bytes().splitlines()]
    assert keys == [json.loads(line)[0] for line in whole.splitlines()], "what follows a torn line has its own line"
    file.write_bytes(whole.replace(b"]]", b"]", 1))
    with pytest.raises(RunError, match="damaged") as caught:
        Kept(model.generator, file, "one")
    assert caught.value.where == f"{file}:1"


class Biased:
    """What answers right behind one instruction once its liking for a label is taken off, and proposes that instruction."""

    def __init__(self, truth: Mapping[str, str]) -> None:
        self.truth = truth

    def fits(self, question: Question) -> bool:
        return True

    def request(self, question: Question) -> str:
        return repr(question.messages)

    def spent(self) -> dict[str, float]:
        return {"calls": 0.0, "cost": 0.0, "prompt_tokens": 0.0, "completion_tokens": 0.0}

    def reply(self, questions: Sequence[Question], **_: Any) -> list[Reply]:
        return [Reply("```\nName the label.\n```", (), "", False) for _ in questions]

    def likelihoods(self, questions: Sequence[Question], choices: Sequence[str]) -> np.ndarray:
        found = []
        for question in questions:
            text, said = question.messages[-1].content.strip(), question.messages[0].content
            asked = len(question.messages) == 2 and said.startswith("Classify the text.") and text in self.truth
            found.append([-1.0, -2.0 if self.truth[text] == "beta" else -4.0] if asked else [-1.0, -3.0])
        return np.array(found)


@pytest.mark.parametrize("evolve", [0, 3])
def test_reflection_never_leaves_a_worse_prompt_than_it_found(tmp_path: Path, evolve: int) -> None:
    """The best is the bare prompt, calibrated; reflection begins from its words alone, which are worse."""
    rows = [{"texts": [f"row {number}"], "label": ("alpha", "beta")[number % 2]} for number in range(80)]
    objective = Choice(ChoiceOptions())
    objective.prepare(rows)
    read = [(objective.read(row, ExampleSeat(str(n), Origin("f", n + 1))), row) for n, row in enumerate(rows)]
    generator = Biased({row["texts"][0]: row["label"] for row in rows})
    options = PromptOptions(demonstrations=0, candidates=6, rows=40, calibrate=True, evolve=evolve)
    evaluate = EvaluateOptions(primary="accuracy", max_new_tokens=4)
    job = SimpleNamespace(
        space=SearchSpace(generator, None, {"train": read[:40], "dev": read[40:]}, options, evaluate),
        objective=objective,
        plan=SimpleNamespace(seed=0),
        folder=tmp_path,
        reporter=Reporter(quiet=True),
        attached=SimpleNamespace(prompt=None),
        place=SimpleNamespace(peak_memory=lambda: 0),
    )
    figures = prompt_loop.fit(job).figures  # type: ignore[arg-type]
    assert (figures["dev_bare"], figures["dev_best"], figures["chosen"]) == (0.5, 1.0, "calibrated")
    assert job.attached.prompt.prior


def test_options_of_a_prompt() -> None:
    recipe = parse(
        {"base": "b", "data": "d", "method": {"name": "prompt", "instruction": ["one", "two"], "proposer": "c"}}
    )
    assert recipe.method.instructions == ("one", "two")  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="is empty"):
        parse({"base": "b", "data": "d", "method": {"name": "prompt", "instruction": ["one", " "]}})
