"""The built-in metrics, the user's own scorers, and which of them a task gets by itself.

Every metric is a function of sums over rows (see `core.contracts.Metric`). `Answer.given` is None where the model gave
no answer: that row scores 0 like any wrong one, and is never left out.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from tailor.core import registry
from tailor.core.contracts import Answer, AnswersKind, Metric
from tailor.core.errors import TailorError
from tailor.evaluation import own_scorer, text_scores
from tailor.evaluation.answer_forms import as_calls, as_json, as_plain, as_text, same_json
from tailor.evaluation.margins import margin_row, prefers
from tailor.evaluation.read_scores import (
    best_of,
    entity_f1_row,
    entity_why,
    label_counts,
    macro_f1_value,
    mcc_rows,
    mcc_value,
    micro_f1_row,
    ndcg_at_10,
    nearness,
    number_rows,
    of_rank,
    pearson_value,
    r2_value,
    same_words,
    score_rows,
    subset_accuracy,
    word_accuracy_row,
)
from tailor.evaluation.text_scores import Floats, ratio

SHORT_ANSWER_WORDS = 3
LIKELIHOODS = frozenset({"loss", "perplexity", "bits_per_byte"})
"""Metrics of how likely the reference is, which need no answer."""
LARGEST_EXPONENT = 300.0  # a perplexity of 10^130 says enough, and its square still fits a float


@dataclass(slots=True)
class SumMetric:
    """A metric from its two halves: additive numbers of each answer, and the figure that belongs to their sums.

    Args:
        rows: answers to statistics of shape (n, k).
        formula: summed statistics of shape (..., k) to figures of shape (...).
        why: the reason for a row's score in words.
        alone: how good a row is by itself, larger is better, where the formula says nothing of one row (a correlation).
    """

    name: str
    rows: Callable[[Sequence[Answer]], Floats]
    formula: Callable[[Floats], Floats]
    better: Literal["higher", "lower"] = "higher"
    points: float = 100.0
    why: Callable[[Answer], str] = lambda answer: ""
    alone: Callable[[Answer], float] | None = None

    def statistics(self, answers: Sequence[Answer]) -> Floats:
        """Additive statistics, shape (n, k)."""
        return self.rows(answers)

    def value(self, totals: Floats) -> Floats:
        """The figure of summed statistics, shape (..., k) to (...); 0 where nothing is to be divided by."""
        return self.formula(np.asarray(totals, dtype=np.float64))

    def scores(self, answers: Sequence[Answer]) -> Floats:
        """How good each row is by itself, shape (n,), larger is better."""
        if self.alone is not None:
            return np.array([self.alone(answer) for answer in answers], dtype=np.float64)
        figures = self.value(self.statistics(answers))
        return figures if self.better == "higher" else -figures

    def details(self, answer: Answer) -> str:
        """Why the row scored as it did; empty where there is nothing to add."""
        return self.why(answer)


def _each(row: Callable[[Answer], Sequence[float]]) -> Callable[[Sequence[Answer]], Floats]:
    """Statistics of rows that are scored one by one."""
    return lambda answers: np.array([row(answer) for answer in answers], dtype=np.float64)


def _share(name: str, score: Callable[[Answer], float], why: Callable[[Answer], str] = lambda answer: "") -> SumMetric:
    """The mean of a score between 0 and 1."""
    return SumMetric(name, _each(lambda answer: (score(answer), 1.0)), _first_over_second, why=why)


def _first_over_second(totals: Floats) -> Floats:
    return ratio(totals[..., 0], totals[..., 1])


# --- likelihoods ----------------------------------------------------------------------------------------------------


def _nll(answer: Answer) -> float:
    if answer.nll is None:
        raise TailorError(
            "the likelihood of the reference is not known",
            where=answer.place,
            fix="leave out loss, perplexity and bits_per_byte for models that hide their probabilities",
            code="no_likelihood",
        )
    return answer.nll


def _per_token(answer: Answer) -> tuple[float, float]:
    return _nll(answer), float(answer.tokens)


def _per_byte(answer: Answer) -> tuple[float, float]:
    return _nll(answer) / math.log(2), float(answer.bytes)


def _exp_of_mean(totals: Floats) -> Floats:
    return np.exp(np.minimum(_first_over_second(totals), LARGEST_EXPONENT))


# --- texts and JSON -------------------------------------------------------------------------------------------------


def _exact(answer: Answer) -> float:
    """1 where the texts are the same but for the white space around them; calls and objects are compared as JSON."""
    if as_calls(answer.expected):
        return _tool_call(answer)
    return float(answer.given is not None and as_plain(answer.given) == as_plain(answer.expected))


def _of_texts(score: Callable[[str, str], float]) -> Callable[[Answer], float]:
    """A score of (expected, given) texts; no answer is 0."""
    return lambda answer: 0.0 if answer.given is None else score(as_text(answer.expected), as_text(answer.given))


def _json_error(answer: Answer) -> str:
    try:
        as_json(answer.given)
    except ValueError as error:
        return str(error)
    return ""


def _field_scores(answer: Answer) -> dict[str, bool]:
    """Field of the reference object -> is its value right; a reference that is no object is one field, `value`."""
    parsed = []
    for value in (answer.expected, answer.given):
        try:
            parsed.append(as_json(value))
        except ValueError:
            parsed.append(value)
    expected, given = parsed
    if not isinstance(expected, Mapping) or not expected:
        return {"value": same_json(expected, given)}
    found = given if isinstance(given, Mapping) else {}
    return {field: field in found and same_json(value, found[field]) for field, value in expected.items()}


def _fields_row(answer: Answer) -> tuple[float, float]:
    scores = _field_scores(answer)
    return float(sum(scores.values())), float(len(scores))


def _fields_why(answer: Answer) -> str:
    wrong = [field for field, right in _field_scores(answer).items() if not right]
    return _json_error(answer) or (f"wrong: {', '.join(wrong)}" if wrong else "")


def fields(answers: Sequence[Answer]) -> dict[str, float]:
    """Share of rows, 0..1, in which each field of the JSON reference is right; counted over the rows that have it."""
    scores: dict[str, list[bool]] = {}
    for answer in answers:
        for field, right in _field_scores(answer).items():
            scores.setdefault(field, []).append(right)
    return {field: sum(rights) / len(rights) for field, rights in sorted(scores.items())}


def _tool_call(answer: Answer) -> float:
    """1 where the same functions are called with equal arguments, in any order; or none is wanted and none called."""
    return float(answer.given is not None and same_json(as_calls(answer.expected), as_calls(answer.given)))


def _tool_call_why(answer: Answer) -> str:
    if _tool_call(answer):
        return ""
    wanted, called = (json.dumps(as_calls(value), default=str) for value in (answer.expected, answer.given))
    return f"wanted {wanted}, called {called}"


# --- pictures --------------------------------------------------------------------------------------------------------


def _of_drawings(scorer: str) -> tuple[Callable[[Answer], float], Callable[[Answer], str]]:
    """Whether a drawing of the embedded world shows what its row asks for, and what it shows instead."""
    read = registry.resolve(f"tailor.evaluation.drawings:{scorer}")

    def score(answer: Answer) -> float:
        return 0.0 if answer.given is None else float(read(answer.row, answer.given)["score"])

    def why(answer: Answer) -> str:
        return "no picture" if answer.given is None else str(read(answer.row, answer.given)["why"])

    return score, why


def _likeness(measure: str) -> Callable[[str, str], Metric]:
    """The mean cosine that a model in a folder gives to pictures; loaded when it is first asked for."""

    def metric(name: str, folder: str) -> Metric:
        score = registry.resolve(f"tailor.evaluation.picture_likeness:{measure}")(folder)
        return SumMetric(name, _each(lambda answer: (score(answer), 1.0)), _first_over_second, points=100.0)

    return metric


# --- metrics with an argument ---------------------------------------------------------------------------------------


def _regex(name: str, pattern: str) -> Metric:
    """Share of answers in which the pattern is found (`re.search`; ^ and $ anchor it)."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise TailorError(
            f"not a regular expression: {error}", where=name, fix="see docs.python.org/3/library/re"
        ) from error

    def found(answer: Answer) -> float:
        return float(answer.given is not None and compiled.search(as_text(answer.given)) is not None)

    return _share(name, found, lambda answer: "" if found(answer) else "the pattern is not found")


def _max_words(name: str, limit: str) -> Metric:
    """Share of answers of one to `limit` words."""
    if not limit.isdigit() or int(limit) < 1:
        raise TailorError(f"{limit!r} is not a number of words", where=name, fix="max_words:50, for example")

    def count(answer: Answer) -> int:
        return len(as_text(answer.given).split())

    return _share(name, lambda answer: float(1 <= count(answer) <= int(limit)), lambda answer: f"{count(answer)} words")


# --- the table ------------------------------------------------------------------------------------------------------

Labels = Collection[str]
_TEXT: tuple[AnswersKind, ...] = ("text",)
_NAMES: tuple[AnswersKind, ...] = ("label", "labels", "text")
_ANY: tuple[AnswersKind, ...] = ("text", "label", "labels", "number", "raw", "tags", "span", "margin")
_TOKENS: tuple[AnswersKind, ...] = (*_ANY, "masked")


def _nats(name: str, row: Callable[[Answer], Sequence[float]], formula: Callable[[Floats], Floats]) -> SumMetric:
    return SumMetric(name, _each(row), formula, better="lower", points=1.0)


METRICS: dict[str, tuple[tuple[AnswersKind, ...], Callable[[Labels], Metric]]] = {
    "accuracy": (_NAMES, lambda labels: _share("accuracy", subset_accuracy)),
    "macro_f1": (_NAMES, lambda labels: SumMetric("macro_f1", label_counts(labels), macro_f1_value)),
    "micro_f1": (_NAMES, lambda labels: SumMetric("micro_f1", _each(micro_f1_row), _first_over_second)),
    "mcc": (("label", "text"), lambda labels: SumMetric("mcc", mcc_rows(labels), mcc_value, alone=subset_accuracy)),
    "exact_match": (("text", "label"), lambda labels: _share("exact_match", _exact)),
    "token_f1": (_TEXT, lambda labels: _share("token_f1", _of_texts(text_scores.token_f1))),
    "rouge_l": (_TEXT, lambda labels: _share("rouge_l", _of_texts(text_scores.rouge_l))),
    "chrf": (_TEXT, lambda labels: _counted("chrf", text_scores.chrf_counts, text_scores.chrf_value)),
    "bleu": (_TEXT, lambda labels: _counted("bleu", text_scores.bleu_counts, text_scores.bleu_value)),
    "entity_f1": (
        ("tags",),
        lambda labels: SumMetric("entity_f1", _each(entity_f1_row), _first_over_second, why=entity_why),
    ),
    "word_accuracy": (
        ("tags",),
        lambda labels: SumMetric("word_accuracy", _each(word_accuracy_row), _first_over_second),
    ),
    "span_f1": (("span",), lambda labels: _share("span_f1", best_of(text_scores.token_f1))),
    "span_exact": (("span",), lambda labels: _share("span_exact", best_of(same_words))),
    "ndcg_at_10": (("ranking",), lambda labels: _share("ndcg_at_10", of_rank(ndcg_at_10))),
    "recall_at_1": (("ranking",), lambda labels: _share("recall_at_1", of_rank(lambda rank: float(rank <= 1)))),
    "recall_at_10": (("ranking",), lambda labels: _share("recall_at_10", of_rank(lambda rank: float(rank <= 10)))),
    "mrr": (("ranking",), lambda labels: _share("mrr", of_rank(lambda rank: 1 / rank))),
    "pearson": (("score",), lambda labels: SumMetric("pearson", score_rows, pearson_value, alone=nearness)),
    "reward_accuracy": (("margin",), lambda labels: _share("reward_accuracy", prefers)),
    "reward_margin": (
        ("margin",),
        lambda labels: SumMetric("reward_margin", _each(margin_row), _first_over_second, points=1.0),
    ),
    "json_valid": (
        _TEXT,
        lambda labels: _share("json_valid", lambda answer: float(not _json_error(answer)), _json_error),
    ),
    "json_fields": (
        _TEXT,
        lambda labels: SumMetric("json_fields", _each(_fields_row), _first_over_second, why=_fields_why),
    ),
    "tool_call": (_TEXT, lambda labels: _share("tool_call", _tool_call, _tool_call_why)),
    "loss": ((*_TOKENS, "image"), lambda labels: _nats("loss", _per_token, _first_over_second)),
    "perplexity": (_TOKENS, lambda labels: _nats("perplexity", _per_token, _exp_of_mean)),
    "bits_per_byte": (_ANY, lambda labels: _nats("bits_per_byte", _per_byte, _first_over_second)),
    "subject_drawn": (("image",), lambda labels: _share("subject_drawn", *_of_drawings("subject_drawn"))),
    "drawn_as_asked": (("image",), lambda labels: _share("drawn_as_asked", *_of_drawings("drawn_as_asked"))),
    "mse": (("number",), lambda labels: SumMetric("mse", number_rows, _first_over_second, better="lower", points=1.0)),
    "r2": (("number",), lambda labels: SumMetric("r2", number_rows, r2_value, alone=nearness)),
}
"""Name -> kinds of answers it can score, and the metric for a set of labels."""

PREFIXED: dict[str, Callable[[str, str], Metric]] = {
    "regex": _regex,
    "max_words": _max_words,
    "prompt_following": _likeness("follows_prompt"),
    "subject_similarity": _likeness("is_like_subject"),
}
PICTURES_ONLY = {"prompt_following", "subject_similarity"}


def _counted(name: str, counts: Callable[[str, str], list[float]], formula: Callable[[Floats], Floats]) -> SumMetric:
    """A corpus score in points, from the counts of each pair of texts."""
    return SumMetric(
        name, _each(lambda answer: counts(as_text(answer.expected), as_text(answer.given))), formula, points=1.0
    )


def resolve(names: Iterable[str], *, labels: Labels = (), answers_kind: AnswersKind) -> list[Metric]:
    """Metrics by name, in order and each once; raises `TailorError` for an unknown or unfit one.

    Args:
        names: built-in names, `regex:PATTERN`, `max_words:N`, or `path/file.py:function` (from the current folder).
        labels: the task's label names, where it has a fixed set.
        answers_kind: what the task's answers are.
    """
    return [_resolve(name, labels, answers_kind) for name in dict.fromkeys(names)]


JOINED = " & "
"""Between metrics that are to hold together."""


def _product(name: str, parts: Sequence[Metric]) -> Metric:
    """Shares that are to hold together, multiplied row by row: a summary that is too long is worth nothing, say."""
    for part in parts:
        if part.points != 100 or getattr(part, "formula", None) is not _first_over_second:
            raise TailorError(
                f"{part.name} is no share of 1 that every row has for itself, so it cannot be joined with others",
                where="evaluate.primary",
                fix="join such as rouge_l, exact_match, max_words:N, regex:PATTERN or your own scorers",
                code="unfit_metric",
            )

    def rows(answers: Sequence[Answer]) -> Floats:
        scores = np.prod([part.value(part.statistics(answers)) for part in parts], axis=0)
        return np.stack([scores, np.ones(len(answers))], 1)

    def why(answer: Answer) -> str:
        return "; ".join(words for part in parts if (words := part.details(answer)))

    return SumMetric(name, rows, _first_over_second, why=why)


def _resolve(name: str, labels: Labels, kind: AnswersKind) -> Metric:
    if JOINED in name:
        return _product(name, [_resolve(part, labels, kind) for part in name.split(JOINED)])
    prefix, _, argument = name.partition(":")
    if prefix in PREFIXED and argument and (prefix in PICTURES_ONLY) == (kind == "image"):
        return PREFIXED[prefix](name, argument)
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        score = own_scorer.load(Path(path), function)
        # Called by its file's own name: an evaluation holds no machine's paths.
        return _share(f"{Path(path).name}:{function}", lambda answer: score(answer)[0], lambda answer: score(answer)[1])
    if name not in METRICS:
        raise _unknown(name)
    kinds, make = METRICS[name]
    if kind not in kinds:
        fitting = [other for other, (accepted, _) in METRICS.items() if kind in accepted]
        raise TailorError(
            f"{name} cannot score answers of kind {kind}",
            where="evaluate.metrics",
            fix=f"one of: {', '.join(fitting)}",
            code="unfit_metric",
        )
    return make(labels)


def _unknown(name: str) -> TailorError:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), [*METRICS, *PREFIXED], n=1, cutoff=0.5)
    offer = f"did you mean {near[0]}? " if near else ""
    others = [*METRICS, "regex:PATTERN", "max_words:N", "prompt_following:FOLDER", "subject_similarity:FOLDER"]
    others += ["path/file.py:function", "several as `one & other`"]
    return TailorError(
        f"no metric is named {name}",
        where="evaluate.metrics",
        fix=f"{offer}There are: {', '.join(others)}",
        code="unknown_metric",
    )


# --- which metrics a task gets by itself ----------------------------------------------------------------------------


def auto(objective: str, answers: Sequence[Answer]) -> tuple[str, list[str]]:
    """The primary metric and all metrics, primary first, for an objective and its answers.

    One metric, chosen before anything is measured, decides the verdict; the others stand beside it for the reader.
    Raises `TailorError` for an unknown objective and for no answers.
    """
    if objective not in _CHOICES:
        raise TailorError(
            f"no metrics are known for {objective}", where="evaluate.metrics", fix="name them in the recipe"
        )
    if not answers:
        raise TailorError("there are no answers to score", where="evaluate", fix="hold back some rows: data.test")
    names = _CHOICES[objective](answers)
    return names[0], names


def _for_language(answers: Sequence[Answer]) -> list[str]:
    return ["loss", "perplexity", "bits_per_byte"]


def _for_labels(answers: Sequence[Answer]) -> list[str]:
    expected = answers[0].expected
    if isinstance(expected, int | float):
        return ["mse", "r2"]
    if isinstance(expected, str):
        return ["accuracy", "macro_f1", "mcc"]
    return ["macro_f1", "micro_f1", "accuracy"]


def _for_texts(answers: Sequence[Answer]) -> list[str]:
    expected = [answer.expected for answer in answers if answer.expected is not None]
    if not expected:
        return _for_language(answers)
    beside = ["exact_match", "token_f1", "chrf"]
    if all(map(as_calls, expected)):
        return ["tool_call", *beside]
    if all(map(_is_object, expected)):
        return ["json_fields", "json_valid", *beside]
    if median(len(as_text(reference).split()) for reference in expected) <= SHORT_ANSWER_WORDS:
        return beside
    return ["rouge_l", *beside]


def _is_object(expected: Any) -> bool:
    try:
        return isinstance(as_json(expected), Mapping)
    except ValueError:
        return False


_CHOICES: dict[str, Callable[[Sequence[Answer]], list[str]]] = {
    "language": _for_language,
    "classification": _for_labels,
    "choice": _for_labels,
    "multiple_choice": lambda answers: ["accuracy"],
    "instruction": _for_texts,
    "chat": _for_texts,
    "seq2seq": _for_texts,
    "tagging": lambda answers: ["entity_f1", "word_accuracy"],
    "span_qa": lambda answers: ["span_f1", "span_exact"],
    "similarity": lambda answers: (
        ["ndcg_at_10", "recall_at_1", "recall_at_10", "mrr"] if isinstance(answers[0].expected, str) else ["pearson"]
    ),
    "preference": lambda answers: ["loss", "reward_accuracy", "reward_margin"],
    "text_to_image": lambda answers: ["loss"],
}
