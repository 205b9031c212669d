"""The built-in metrics against the libraries they follow, and the user's own scorers."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.core.contracts import Answer
from tailor.core.errors import TailorError
from tailor.core.examples import ToolCall
from tailor.evaluation import scorers, text_scores
from tailor.evaluation.scorers import METRICS, auto, resolve

WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "dog",
    "runs",
    "fast",
    "Hello,",
    "world!",
    "3.5",
    "don't",
    "naïve",
    "東京に行く",
)

LONG = "a longer answer of several words"
CALL = ({"name": "f", "arguments": {}},)


def answers(expected: Sequence[Any], given_: Sequence[Any], **more: Any) -> list[Answer]:
    pairs = zip(expected, given_, strict=True)
    return [Answer(f"{i:04d}", {"i": i}, f"prompt {i}", e, g, **more) for i, (e, g) in enumerate(pairs)]


def value(name: str, rows: Sequence[Answer], kind: Any = "text", labels: Sequence[str] = ()) -> float:
    (metric,) = resolve([name], labels=labels, answers_kind=kind)
    return float(metric.value(metric.statistics(rows).sum(0)))


def score(name: str, expected: Any, given_: Any, kind: Any = "text") -> float:
    return value(name, answers([expected], [given_]), kind)


@pytest.fixture(scope="module")
def texts() -> list[Answer]:
    """300 pairs of texts, some equal, some empty, some near."""
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.choice([0, 1, 2, 3, 5, 9, 20])))

    expected = [sentence() for _ in range(300)]
    near = [e if rng.random() < 0.2 else " ".join(w for w in e.split() if rng.random() < 0.7) for e in expected]
    return answers(expected, [n if rng.random() < 0.5 else f"{n} {sentence()}" for n in near])


@pytest.fixture(scope="module")
def labelled() -> list[Answer]:
    rng = random.Random(1)
    expected = rng.choices("aaabbcd", k=300)
    return answers(expected, [e if rng.random() < 0.6 else rng.choice("abcd") for e in expected])


@pytest.fixture(scope="module")
def many_labels() -> list[Answer]:
    rng = random.Random(2)

    def draw() -> tuple[str, ...]:
        return tuple(sorted(rng.sample("abcd", k=rng.randrange(4))))

    expected = [draw() for _ in range(200)]
    return answers(expected, [e if rng.random() < 0.5 else draw() for e in expected])


# --- against the libraries ---


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_bleu_and_chrf_equal_sacrebleu_on_any_rows(texts: list[Answer], size: int) -> None:
    import sacrebleu

    rows = random.Random(size).choices(texts, k=size)  # with repeats, as in a bootstrap
    wanted, found = [row.expected for row in rows], [row.given for row in rows]
    assert value("bleu", rows) == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score, abs=1e-9)
    assert value("chrf", rows) == pytest.approx(sacrebleu.corpus_chrf(found, [wanted]).score, abs=1e-9)


def test_corpus_scores_of_many_resamples_at_once(texts: list[Answer]) -> None:
    import sacrebleu

    (metric,) = resolve(["bleu"], answers_kind="text")
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(texts), (5, len(texts)))
    counts = np.stack([np.bincount(row, minlength=len(texts)) for row in drawn])
    figures = metric.value(counts @ metric.statistics(texts))
    for row, figure in zip(drawn, figures, strict=True):
        system, reference = [texts[i].given for i in row], [texts[i].expected for i in row]
        assert figure == pytest.approx(sacrebleu.corpus_bleu(system, [reference]).score, abs=1e-9)


def test_rouge_l_equals_rouge_score_on_ascii(texts: list[Answer]) -> None:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"])
    for row in (row for row in texts if (row.expected + row.given).isascii()):
        expected = scorer.score(row.expected, row.given)["rougeL"].fmeasure
        assert text_scores.rouge_l(row.expected, row.given) == pytest.approx(expected, abs=1e-12)


def test_label_metrics_equal_sklearn(labelled: list[Answer]) -> None:
    from sklearn import metrics

    wanted, found = [row.expected for row in labelled], [row.given for row in labelled]
    assert value("accuracy", labelled, "label") == pytest.approx(metrics.accuracy_score(wanted, found))
    assert value("macro_f1", labelled, "label") == pytest.approx(metrics.f1_score(wanted, found, average="macro"))
    assert value("mcc", labelled, "label") == pytest.approx(metrics.matthews_corrcoef(wanted, found))


def test_many_label_metrics_equal_sklearn(many_labels: list[Answer]) -> None:
    from sklearn import metrics
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer(classes=list("abcd"))
    wanted = binarizer.fit_transform([row.expected for row in many_labels])
    found = binarizer.transform([row.given for row in many_labels])
    for average in ("macro", "micro"):
        expected = metrics.f1_score(wanted, found, average=average)
        assert value(f"{average}_f1", many_labels, "labels") == pytest.approx(expected)
    assert value("accuracy", many_labels, "labels") == pytest.approx(metrics.accuracy_score(wanted, found))


def test_numbers_equal_sklearn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    wanted = 1e6 + rng.normal(size=200)
    found = wanted + rng.normal(0, 0.5, size=200)
    rows = answers(wanted.tolist(), found.tolist())
    assert value("mse", rows, "number") == pytest.approx(metrics.mean_squared_error(wanted, found))
    assert value("r2", rows, "number") == pytest.approx(metrics.r2_score(wanted, found), abs=1e-9)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.sampled_from("abc"), max_size=40))
@settings(max_examples=100, deadline=None)
def test_common_subsequence_equals_the_table(first: list[str], second: list[str]) -> None:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert text_scores.common_subsequence(first, second) == table[-1, -1]


# --- one by one ---


@pytest.mark.parametrize(
    ("expected", "given_", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in Paris, France", "Paris", 0.5),
        ("yes", "", 0.0),
        ("the", "", 1.0),
        ("東京", "東", 2 / 3),
        ("one “two”", "one two", 1.0),
    ],
)
def test_token_f1_as_squad(expected: str, given_: str, f1: float) -> None:
    assert score("token_f1", expected, given_) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("expected", "given_", "right"),
    [
        ("Paris", " Paris\n", 1),
        ("Paris", "paris", 0),
        ("caf\u00e9", "cafe\u0301", 1),
        ("", None, 0),
        (({"name": "f", "arguments": '{"a": 1}'},), ({"name": "f", "arguments": {"a": 1.0}},), 1),
    ],
)
def test_exact_match(expected: Any, given_: Any, right: int) -> None:
    assert score("exact_match", expected, given_) == right


def test_likelihoods() -> None:
    rows = answers(["ab", "abcd"], ["", ""], nll=3.0, tokens=2, bytes=4)
    assert value("loss", rows) == pytest.approx(1.5)
    assert value("perplexity", rows) == pytest.approx(np.exp(1.5))
    assert value("bits_per_byte", rows) == pytest.approx(0.75 / np.log(2))
    hopeless = answers([None], [None], nll=1e6, tokens=1)
    assert np.isfinite(value("perplexity", hopeless, "raw"))
    with pytest.raises(TailorError, match="likelihood") as error:
        value("loss", answers(["a"], ["a"]))
    assert error.value.where == "row 0000"


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a": 1}', 1),
        (" [1, 2] ", 1),
        ("3", 1),
        ('```json\n{"a": 1}\n```', 0),
        ('{"a": NaN}', 0),
        ("", 0),
        (None, 0),
        ("[" * 100_000, 0),
        ("9" * 100_000, 0),
    ],
)
def test_json_valid(text: str | None, valid: int) -> None:
    assert score("json_valid", "{}", text) == valid


def test_json_fields_overall_and_by_field() -> None:
    rows = answers(
        ['{"team": "billing", "urgent": true}', '{"team": "sales", "urgent": false, "n": 1}', '{"team": "sales"}'],
        ['{"team": "billing", "urgent": 1}', '{"n": 1.0, "team": "sales", "urgent": false, "x": 0}', "no idea"],
    )
    assert value("json_fields", rows) == pytest.approx(4 / 6)
    assert scorers.fields(rows) == {"n": 1.0, "team": pytest.approx(2 / 3), "urgent": 0.5}
    (metric,) = resolve(["json_fields"], answers_kind="text")
    assert metric.details(rows[0]) == "wrong: urgent"
    assert "Expecting value" in metric.details(rows[2])


@pytest.mark.parametrize(
    ("given_", "right"),
    [
        (({"name": "f", "arguments": '{"b": [2], "a": 1}'}, {"name": "g", "arguments": ""}), 1),
        (({"name": "g", "arguments": {}}, {"name": "f", "arguments": {"a": 1, "b": [2]}}), 1),
        ((ToolCall("f", {"a": 1, "b": [2]}), ToolCall("g", {})), 1),
        (({"name": "f", "arguments": {"a": 1, "b": [2]}},), 0),
        (({"name": "f", "arguments": {"a": True, "b": [2]}}, {"name": "g", "arguments": {}}), 0),
        (({"name": "f", "arguments": "{broken"}, {"name": "g", "arguments": {}}), 0),
        ("I cannot do that", 0),
        ((), 0),
        (None, 0),
    ],
)
def test_tool_call(given_: Any, right: int) -> None:
    expected = [{"name": "f", "arguments": {"a": 1, "b": [2]}}, {"name": "g", "arguments": {}}]
    assert score("tool_call", expected, given_) == right
    (metric,) = resolve(["tool_call"], answers_kind="text")
    assert bool(metric.details(answers([expected], [given_])[0])) != bool(right)


def test_calling_nothing_is_right_where_nothing_is_wanted() -> None:
    assert score("tool_call", "Hello!", "Good day!") == 1
    assert score("tool_call", "Hello!", ({"name": "f", "arguments": {}},)) == 0


def test_regex_and_max_words() -> None:
    rows = answers([""] * 4, ["order 17", "no number", "", None])
    assert value(r"regex:\d+", rows) == 0.25
    assert value("regex:^(a|b):x$", answers([""], ["b:x"])) == 1  # a colon of the pattern's own
    assert value("max_words:2", rows) == 0.5
    for name in ("regex:(", "max_words:none", "max_words:0"):
        with pytest.raises(TailorError) as error:
            resolve([name], answers_kind="text")
        assert error.value.where == name


def test_no_answer_to_a_number_costs_the_most() -> None:
    assert value("mse", answers([0.0, 10.0, 4.0], [0.0, None, "4 stars"]), "number") == pytest.approx((100 + 36) / 3)
    assert value("r2", answers([1.0, 1.0], [1.0, 1.0]), "number") == 0
    with pytest.raises(TailorError, match="not a number"):
        value("mse", answers(["many"], [1.0]), "number")


def test_labels_that_are_unknown_or_missing() -> None:
    rows = answers(["a", "b", "a"], ["a", "zebra", None])
    assert value("accuracy", rows, "label") == pytest.approx(1 / 3)
    assert value("macro_f1", rows, "label") == pytest.approx((2 / 3 + 0) / 2)
    assert -1 <= value("mcc", rows, "label") <= 1
    assert value("mcc", answers(["a", "b"], ["a", "a"]), "label") == 0
    # Known labels that do not occur here change nothing.
    assert value("macro_f1", rows, "label", ["a", "b", "c"]) == value("macro_f1", rows, "label")


@pytest.mark.parametrize("name", [*METRICS, "regex:x", "max_words:3"])
def test_every_metric_survives_empty_and_missing_answers(name: str) -> None:
    kinds: tuple[Any, ...] = METRICS[name][0] if name in METRICS else ("text",)
    for kind in kinds:
        expected: Any = {"number": 1.0, "score": 1.0, "labels": ("hello",), "span": ("hello",), "raw": None}.get(
            kind, "hello"
        )
        if name == "tool_call":
            expected = CALL
        rows = answers(
            [expected] * 3, [None, "" if kind in ("text", "label") else None, None], nll=1.0, tokens=2, bytes=3
        )
        (metric,) = resolve([name], answers_kind=kind)
        statistics = metric.statistics(rows)
        assert statistics.shape[0] == 3
        assert np.isfinite(statistics).all()
        assert np.isfinite(metric.value(statistics)).all()
        if name not in {"loss", "perplexity", "bits_per_byte", "mse"}:
            assert metric.value(statistics.sum(0)) <= 0
        assert isinstance(metric.details(rows[0]), str)


# --- the user's own ---


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    def write(code: str) -> str:
        (tmp_path / "my_scorers.py").write_text(code)
        return f"{tmp_path / 'my_scorers.py'}:polite"

    return write


def test_own_scorer(own: Callable[[str], str]) -> None:
    name = own("def polite(row, answer):\n    return {'score': 'please' in answer, 'why': f'row {row[\"i\"]}'}\n")
    rows = answers(["", "", ""], ["please", "now", None])
    (metric,) = resolve([name], answers_kind="text")
    assert metric.name == "my_scorers.py:polite", "without the folder, which is this machine's own"
    assert metric.value(metric.statistics(rows).sum(0)) == pytest.approx(1 / 3)
    assert [metric.details(row) for row in rows] == ["row 0", "row 1", "no answer"]
    assert value(own("def polite(row, answer):\n    return len(answer)\n"), rows) == 3


@pytest.mark.parametrize(
    ("code", "code_name", "line"),
    [
        ("def rude(row, answer):\n    return 1\n", "no_scorer", ""),
        ("polite = 3\n", "no_scorer", ""),
        ("import nothing_like_it\n", "scorer_import", ":1"),
        ("x = 1\ndef polite(row answer):\n", "scorer_import", ":2"),
        ("raise SystemExit(3)\n", "scorer_import", ":1"),
    ],
)
def test_own_scorer_that_cannot_be_loaded(own: Callable[[str], str], code: str, code_name: str, line: str) -> None:
    name = own(code)
    with pytest.raises(TailorError) as error:
        resolve([name], answers_kind="text")
    assert error.value.code == code_name
    assert error.value.where == name.rpartition(":")[0] + line
    assert error.value.fix


@pytest.mark.parametrize("result", ["'1'", "None", "float('nan')", "{'why': 'x'}", "[1]"])
def test_own_scorer_that_returns_something_else(own: Callable[[str], str], result: str) -> None:
    (metric,) = resolve([own(f"def polite(row, answer):\n    return {result}\n")], answers_kind="text")
    with pytest.raises(TailorError, match="row 0000") as error:
        metric.statistics(answers([""], ["x"]))
    assert error.value.code == "scorer_result"


def test_own_scorer_that_fails_names_row_and_line(own: Callable[[str], str]) -> None:
    name = own("def polite(row, answer):\n    x = 1\n    return row['nothing']\n")
    (metric,) = resolve([name], answers_kind="text")
    with pytest.raises(TailorError, match="row 0000: KeyError: 'nothing'") as error:
        metric.statistics(answers([""], ["x"]))
    assert error.value.where == name.rpartition(":")[0] + ":3"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TailorError, match="does not exist"):
        resolve([f"{tmp_path}/none.py:f"], answers_kind="text")


# --- choosing ---


def test_unknown_and_unfit_names() -> None:
    with pytest.raises(TailorError, match="did you mean macro_f1") as error:
        resolve(["Macro-F"], answers_kind="label")
    assert error.value.code == "unknown_metric"
    with pytest.raises(TailorError, match="cannot score") as error:
        resolve(["mse"], answers_kind="text")
    assert "rouge_l" in error.value.fix
    assert [metric.name for metric in resolve(["loss", "chrf", "loss"], answers_kind="text")] == ["loss", "chrf"]


@pytest.mark.parametrize(
    ("objective", "expected", "names"),
    [
        ("language", [None], ["loss", "perplexity", "bits_per_byte"]),
        ("classification", ["a", "b"], ["accuracy", "macro_f1", "mcc"]),
        ("classification", [("a",), ()], ["macro_f1", "micro_f1", "accuracy"]),
        ("classification", [1.5, 2], ["mse", "r2"]),
        ("instruction", ["yes", "no", LONG], ["exact_match", "token_f1", "chrf"]),
        ("instruction", [LONG, LONG], ["rouge_l", "exact_match", "token_f1", "chrf"]),
        ("chat", ['{"a": 1}', "{}"], ["json_fields", "json_valid", "exact_match", "token_f1", "chrf"]),
        ("chat", ['{"a": 1}', "[1]"], ["exact_match", "token_f1", "chrf"]),
        ("chat", [CALL, list(CALL)], ["tool_call", "exact_match", "token_f1", "chrf"]),
        ("chat", [LONG, None, None], ["rouge_l", "exact_match", "token_f1", "chrf"]),
        ("chat", [None], ["loss", "perplexity", "bits_per_byte"]),
    ],
)
def test_automatic_choice(objective: str, expected: list[Any], names: list[str]) -> None:
    given_ = [None] * len(expected)
    assert auto(objective, answers(expected, given_)) == (names[0], names)


def test_automatic_choice_refuses() -> None:
    with pytest.raises(TailorError):
        auto("juggling", answers(["a"], ["a"]))
    with pytest.raises(TailorError):
        auto("chat", [])


def test_statistics_do_not_depend_on_json_spelling() -> None:
    spellings = [json.dumps({"a": 1, "b": [1, 2]}), '{ "b":[1,2],  "a":1 }']
    assert score("json_fields", spellings[0], spellings[1]) == 1


@pytest.mark.parametrize(
    ("name", "kind", "expected", "given", "order"),
    [
        ("mcc", "label", ("a", "b", "c"), ("a", "a", None), (1.0, 0.0, 0.0)),
        ("macro_f1", "label", ("a", "b", "c"), ("a", "a", None), (1.0, 0.0, 0.0)),
        ("r2", "number", (1.0, 2.0, 3.0), (1.0, 4.0, None), (0.0, -4.0, -36.0)),
        ("pearson", "score", (1.0, 2.0, 3.0), (1.5, 2.0, None), (-0.25, 0.0, -36.0)),
        ("mse", "number", (1.0, 2.0), (1.0, 4.0), (0.0, -4.0)),
        ("accuracy", "label", ("a", "b"), ("a", "a"), (1.0, 0.0)),
    ],
)
def test_every_metric_tells_how_good_a_row_is_by_itself(
    name: str, kind: Any, expected: tuple[Any, ...], given: tuple[Any, ...], order: tuple[float, ...]
) -> None:
    (metric,) = resolve([name], labels=["a", "b", "c"], answers_kind=kind)
    rows = [Answer(str(place), {}, "", *pair) for place, pair in enumerate(zip(expected, given, strict=True))]
    assert tuple(metric.scores(rows)) == order
