"""Additive statistics of what is read off a model: labels, tags, spans, numbers, places in a ranking, likeness, preference.

Each function gives a row's numbers, or all rows' numbers of shape (n, k), and `*_value` the figure that belongs to their
sums; `scorers.METRICS` puts the two together.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from tailor.core.contracts import Answer
from tailor.core.errors import TailorError
from tailor.evaluation import text_scores
from tailor.evaluation.answer_forms import as_labels, as_number
from tailor.evaluation.text_scores import Floats, ratio

# --- labels ---------------------------------------------------------------------------------------------------------


def subset_accuracy(answer: Answer) -> float:
    """1 where the set of labels is exactly the expected one: plain accuracy for a single label."""
    return float(answer.given is not None and as_labels(answer.given) == as_labels(answer.expected))


def _universe(labels: Collection[str], answers: Sequence[Answer]) -> dict[str, int]:
    """Label to column, at least one: those known and those expected, so that base and tuned get the same columns."""
    expected = {label for answer in answers for label in as_labels(answer.expected)}
    return {label: column for column, label in enumerate(sorted(expected | set(labels)) or [""])}


def label_counts(labels: Collection[str]) -> Callable[[Sequence[Answer]], Floats]:
    """Per label: right, given, expected; shape (n, 3 labels)."""

    def rows(answers: Sequence[Answer]) -> Floats:
        columns = _universe(labels, answers)
        counts = np.zeros((len(answers), 3, len(columns)))
        for row, answer in zip(counts, answers, strict=True):
            given, expected = as_labels(answer.given), as_labels(answer.expected)
            for part, names in enumerate((given & expected, given, expected)):
                row[part, [columns[name] for name in names if name in columns]] = 1
        return counts.reshape(len(answers), -1)

    return rows


def macro_f1_value(totals: Floats) -> Floats:
    """Mean F1 of the labels that occur among the expected or the given ones, as scikit-learn takes it."""
    right, given, expected = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
    present = (given + expected) > 0
    return ratio(2 * ratio(right, given + expected).sum(-1), present.sum(-1).astype(np.float64))


def micro_f1_row(answer: Answer) -> tuple[float, float]:
    """Twice the labels that are right, and all labels given and expected."""
    given, expected = as_labels(answer.given), as_labels(answer.expected)
    return 2.0 * len(given & expected), float(len(given) + len(expected))


def mcc_rows(labels: Collection[str]) -> Callable[[Sequence[Answer]], Floats]:
    """Right, rows, then per label given and expected; a label that nobody knows has a column of its own."""

    def rows(answers: Sequence[Answer]) -> Floats:
        columns = _universe(labels, answers)
        counts = np.zeros((len(answers), 2, len(columns) + 1))
        for row, answer in zip(counts, answers, strict=True):
            (given,) = as_labels(answer.given) or {""}
            (expected,) = as_labels(answer.expected)
            row[0, columns.get(given, -1)] = 1
            row[1, columns[expected]] = 1
        right = (counts[:, 0] * counts[:, 1]).sum(-1, keepdims=True)
        return np.hstack([right, np.ones_like(right), counts.reshape(len(answers), -1)])

    return rows


def mcc_value(totals: Floats) -> Floats:
    """Matthews correlation for any number of classes (Gorodkin 2004), -1..1; 0 where either side is constant."""
    right, rows = totals[..., 0], totals[..., 1]
    given, expected = np.moveaxis(totals[..., 2:].reshape(*totals.shape[:-1], 2, -1), -2, 0)
    spread = (rows**2 - (given**2).sum(-1)) * (rows**2 - (expected**2).sum(-1))
    return ratio(right * rows - (given * expected).sum(-1), np.sqrt(np.maximum(spread, 0)))


def _entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Kind, first and last word of each name: a B- or another kind begins one, as seqeval's default scheme reads tags."""
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        mark, _, new = tag.partition("-")
        if kind and (mark != "I" or new != kind):
            found.add((kind, start, place - 1))
            kind = ""
        if mark in ("B", "I") and new and not kind:
            start, kind = place, new
    return found


def _units(answer: Answer) -> tuple[set[Any], set[Any]]:
    """Names given and expected; words with their tags, where the tags mark no names (parts of speech)."""
    given, expected = answer.given or (), answer.expected
    if any(tag[:2] in ("B-", "I-") for tag in (*given, *expected)) or set(expected) == {"O"}:
        return _entities(given), _entities(expected)
    return {(place, tag) for place, tag in enumerate(given)}, {(place, tag) for place, tag in enumerate(expected)}


def entity_f1_row(answer: Answer) -> tuple[float, float]:
    """Twice the names that are right, and all names given and expected."""
    given, expected = _units(answer)
    return 2.0 * len(given & expected), float(len(given) + len(expected))


def entity_why(answer: Answer) -> str:
    """How many names were missed, and how many are wrong."""
    given, expected = _units(answer)
    said = (
        f"{name} {len(units)}" for name, units in (("missed", expected - given), ("wrong", given - expected)) if units
    )
    return ", ".join(said)


def word_accuracy_row(answer: Answer) -> tuple[float, float]:
    """Words with the right tag, and words."""
    given = answer.given or ()
    return float(sum(a == b for a, b in zip(given, answer.expected, strict=False))), float(len(answer.expected))


def _references(answer: Answer) -> list[str]:
    """The answers that count as right; an empty one where the context holds none (SQuAD 2.0)."""
    return [text for text in answer.expected if text_scores.squad_tokens(text)] or [""]


def best_of(score: Callable[[str, str], float]) -> Callable[[Answer], float]:
    """The best score against any reference, as SQuAD takes it; where no answer is right, 1 for an empty one."""
    return lambda answer: max(score(reference, answer.given or "") for reference in _references(answer))


def same_words(expected: str, given: str) -> float:
    """1 where two answers are the same but for case, articles and punctuation, as SQuAD takes it."""
    return float(text_scores.squad_tokens(expected) == text_scores.squad_tokens(given))


# --- numbers --------------------------------------------------------------------------------------------------------


def number_rows(answers: Sequence[Answer]) -> Floats:
    """Squared error, 1, expected, expected squared; expected is centred, which keeps R² exact for large numbers.

    No answer counts as the farthest expected value, so that staying silent on hard rows never helps.
    """
    wanted = [as_number(answer.expected) for answer in answers]
    for answer, number in zip(answers, wanted, strict=True):
        if number is None:
            raise TailorError(f"{answer.expected!r} is not a number", where=answer.place, code="bad_answer")
    expected = np.array(wanted, dtype=np.float64)
    low, high = expected.min(initial=np.inf), expected.max(initial=-np.inf)
    farthest = np.where(expected - low > high - expected, low, high)
    given = np.array([np.nan if (number := as_number(answer.given)) is None else number for answer in answers])
    given = np.where(np.isnan(given), farthest, given)
    centred = expected - expected.mean() if len(expected) else expected
    return np.stack([(given - expected) ** 2, np.ones_like(expected), centred, centred**2], axis=-1)


def nearness(answer: Answer) -> float:
    """Minus the squared error; no answer is as far off as the expected number with the other sign, and 2 at least."""
    expected, given = float(answer.expected), as_number(answer.given)
    error = 2 * max(1.0, abs(expected)) if given is None else given - expected
    return -(error**2)


def r2_value(totals: Floats) -> Floats:
    """Share of the variance that is explained; 0 where there is no variance."""
    error, rows, total, squares = np.moveaxis(totals, -1, 0)
    spread = squares - ratio(total**2, rows)
    return np.where(spread > 0, 1 - ratio(error, spread), 0.0)


# --- vectors ---


def of_rank(score: Callable[[int], float]) -> Callable[[Answer], float]:
    """A score of the place, from 1, at which the right text is found; no answer is 0."""
    return lambda answer: 0.0 if answer.given is None else score(int(answer.given))


def ndcg_at_10(rank: int) -> float:
    """Normalised discounted cumulative gain with one right text: 1 / log2(1 + rank) among the first ten."""
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0


def score_rows(answers: Sequence[Answer]) -> Floats:
    """1, given, expected, their squares and their product, all centred; no answer counts as the mean, so as no order."""
    expected = np.array([answer.expected for answer in answers], dtype=np.float64)
    given = np.array([np.nan if answer.given is None else answer.given for answer in answers], dtype=np.float64)
    mean = float(np.nanmean(given)) if len(given) and not np.isnan(given).all() else 0.0
    x = np.where(np.isnan(given), 0.0, given - mean)
    y = expected - expected.mean() if len(expected) else expected
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def pearson_value(totals: Floats) -> Floats:
    """Correlation, -1..1; 0 where either side is constant."""
    rows, x, y, xx, yy, xy = np.moveaxis(totals, -1, 0)
    spread = np.maximum(rows * xx - x * x, 0) * np.maximum(rows * yy - y * y, 0)
    return ratio(rows * xy - x * y, np.sqrt(spread))
