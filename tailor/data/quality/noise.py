"""Label noise by confident learning: out-of-fold predictions on frozen features, judged by cleanlab.

Northcutt, Jiang & Chuang, "Confident Learning" (JAIR 2021). The model that doubts is a logistic regression that has never
seen the row it judges; how many labels are wrong is estimated from its confident disagreements, which ones by the
probability that it gives the label.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedKFold

FOLDS = 5
SCALE = 8.0
"""Length of the features: with C = 1 what cross-validation picks on sentence embeddings and TF-IDF alike."""
TIMES = 5
"""A label is flagged where another is so many times as likely: false alarms of weaker models halve."""
WORDS = 10_000
FEWEST = 50
"""Below so many rows nothing can be told."""
AGREEMENT = 0.5
"""Cohen's kappa between labels and out-of-fold predictions from which the model's doubts count. Measured on sets believed
clean: models below it flag 14 to 65 % of the rows, models above it 0 to 1.5 %."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One row's label as the model sees it: the probability it gives the label, and the label it would give."""

    row: int
    given: str
    suggested: str
    score: float
    flagged: bool


def tfidf(texts: Sequence[str]) -> Any:
    """TF-IDF of the commonest words and word pairs, rows of length 1; for want of a base."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=WORDS, token_pattern=r"(?u)\b\w+\b")
    return words.fit_transform(texts)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every row that could be judged, the most suspect first, and how far the judge agrees with the labels (kappa)."""

    doubts: Sequence[Doubt]
    agreement: float

    @property
    def trusted(self) -> bool:
        """Whether the model knows the task well enough for its doubts to count."""
        return self.agreement >= AGREEMENT


def judge(features: Any, labels: Sequence[str]) -> Judgement:
    """Judge every row whose label has another one; none where there is too little to judge by.

    Args:
        features: (rows, width), dense or sparse, rows of length 1.
        labels: each row's.
    """
    held = Counter(labels)
    usable = [row for row, label in enumerate(labels) if held[label] > 1]
    names = sorted({labels[row] for row in usable})
    if len(usable) < FEWEST or len(names) < 2:
        return Judgement([], 0.0)
    given = np.array([names.index(labels[row]) for row in usable])
    chances = out_of_fold(features[usable], given)
    agreement = float(cohen_kappa_score(given, chances.argmax(1)))
    flagged = _flags(given, chances) if agreement >= AGREEMENT else np.zeros(len(given), dtype=bool)
    own = chances[np.arange(len(given)), given]
    suggested = chances.argmax(1)
    found = [
        Doubt(row, names[given[place]], names[suggested[place]], float(own[place]), bool(flagged[place]))
        for place, row in enumerate(usable)
    ]
    return Judgement(sorted(found, key=lambda doubt: (doubt.score, doubt.row)), agreement)


def out_of_fold(features: Any, given: np.ndarray) -> np.ndarray:
    """(rows, classes) probabilities, each row's from a model that was fitted on the other folds."""
    chances = np.zeros((len(given), int(given.max()) + 1))
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(given).max())), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The least populated class")
        for fit, out in folds.split(np.zeros(len(given)), given):
            model = LogisticRegression(C=1.0, max_iter=100, tol=1e-3)
            model.fit(features[fit] * SCALE, given[fit])
            chances[np.ix_(out, model.classes_)] = model.predict_proba(features[out] * SCALE)
    return chances


def _flags(given: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Which labels are likely wrong: of as many as confident learning estimates, the least likely ones, those that are
    far less likely than another."""
    from cleanlab.filter import find_label_issues  # seconds to import, and needed for labels alone

    own = chances[np.arange(len(given)), given]
    found = np.asarray(find_label_issues(given, chances, filter_by="low_self_confidence", n_jobs=1))
    return np.asarray(found & (chances.max(1) >= TIMES * own))
