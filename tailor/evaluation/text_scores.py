"""How near one text is to another: words, subsequences, n-grams. Texts in, numbers out; nothing here knows of answers.

Scores that are not means over rows (BLEU, chrF) come in two halves: the counts of one pair of texts, which add up over
rows, and the formula that turns summed counts into the score. Resampled rows then get their exact corpus score.
"""

import re
import string
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Chinese and Japanese are written without spaces; taking each character as a word keeps word scores meaningful there.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_CHUNK = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)

CHAR_ORDER = 6
CHRF_BETA_SQUARED = 4.0
BLEU_ORDER = 4


def words(text: str) -> list[str]:
    """Lower-case words of letters and digits of any script."""
    return _WORD.findall(text.lower())


def squad_tokens(text: str) -> list[str]:
    """Lower-case tokens without punctuation and English articles, as SQuAD scores them (Rajpurkar et al. 2016)."""
    kept = "".join(c for c in text.lower() if c not in _PUNCTUATION and not unicodedata.category(c).startswith("P"))
    return _CHUNK.findall(_ARTICLES.sub(" ", kept))


def token_f1(expected: str, given: str) -> float:
    """F1 of the two bags of `squad_tokens`, in 0..1. Where one side has no tokens, 1 if the other has none either."""
    reference, answer = squad_tokens(expected), squad_tokens(given)
    if not reference or not answer:
        return float(reference == answer)
    common = (Counter(reference) & Counter(answer)).total()
    return 2 * common / (len(reference) + len(answer))


def common_subsequence(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Crochemore et al. 2001): one big-integer addition per token of `second` instead of a table row.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | (1 << index)
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def rouge_l(expected: str, given: str) -> float:
    """ROUGE-L F1 in 0..1 (Lin 2004), unstemmed; on ASCII text the figure of the `rouge-score` package.

    Ours, because that package drops every letter outside a-z and takes seconds to import.
    """
    reference, answer = words(expected), words(given)
    if not reference or not answer:
        return 0.0
    return 2 * common_subsequence(reference, answer) / (len(reference) + len(answer))


def chrf_counts(expected: str, given: str) -> list[float]:
    """Per order 1..6: character n-grams of the answer, of the reference, and in both (Popović 2015); 18 counts."""
    reference, answer = "".join(expected.split()), "".join(given.split())
    counts: list[float] = []
    for order in range(1, CHAR_ORDER + 1):
        wanted = Counter(reference[i : i + order] for i in range(len(reference) - order + 1))
        found = Counter(answer[i : i + order] for i in range(len(answer) - order + 1))
        # sacrebleu leaves an answer's n-grams out of an order that the reference is too short for.
        total_found = found.total() if wanted else 0
        counts += [total_found, wanted.total(), (wanted & found).total()]
    return counts


def chrf_value(totals: Floats) -> Floats:
    """chrF2 in 0..100 from summed `chrf_counts`, shape (..., 18) to (...); sacrebleu's `corpus_chrf`."""
    found, wanted, both = (totals[..., part::3] for part in range(3))
    used = (found > 0) & (wanted > 0)
    orders = np.maximum(used.sum(-1), 1)
    precision = (ratio(both, found) * used).sum(-1) / orders
    recall = (ratio(both, wanted) * used).sum(-1) / orders
    return 100 * ratio((1 + CHRF_BETA_SQUARED) * precision * recall, CHRF_BETA_SQUARED * precision + recall)


@cache
def _bleu() -> Any:
    """sacrebleu's scorer. `effective_order` only quiets a warning about sentence scores, which are not used."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


def bleu_counts(expected: str, given: str) -> list[float]:
    """Answer length, reference length, matches of orders 1..4, n-grams of orders 1..4 in sacrebleu's 13a tokens."""
    score = _bleu().sentence_score(given, [expected])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_value(totals: Floats) -> Floats:
    """BLEU in 0..100 from summed `bleu_counts`, shape (..., 10) to (...); sacrebleu's `corpus_bleu` (Post 2018).

    An order without a match gets half the credit of the one before it (exponential smoothing); no match at all is 0.
    """
    answer, reference = totals[..., 0], totals[..., 1]
    matches, grams = totals[..., 2 : 2 + BLEU_ORDER], totals[..., 2 + BLEU_ORDER :]
    missed = matches == 0
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches)
    logs = np.log(smoothed / np.maximum(grams, 1)).mean(-1)
    penalty = np.exp(np.minimum(1 - ratio(reference, answer), 0))
    scorable = ~missed.all(-1) & (grams > 0).all(-1)
    return np.where(scorable, 100 * penalty * np.exp(logs), 0.0)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Elementwise part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole != 0)
