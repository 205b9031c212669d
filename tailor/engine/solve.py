"""A linear head on a frozen trunk, solved instead of trained: features once, then the exact optimum.

Logistic and ridge regression have one best answer for a given strength of regularisation, which cross-validation on the
training rows chooses; so there is no learning rate, no epoch and no seed to it.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold

from tailor.core.errors import DataError
from tailor.core.examples import Features
from tailor.engine.checkpoint import State
from tailor.engine.logs import Logs
from tailor.engine.loop import Job, Outcome, dev_loss

FOLDS = 5
STRENGTHS = np.logspace(-4, 2, 7)
"""Inverse strengths of regularisation that are tried, on standardised features."""
ITERATIONS = 1000


def fit(job: Job) -> Outcome:
    """Solve the head of a job whose trunk is frozen, and leave it in the model."""
    start = time.perf_counter()
    state, logs = State(step=1), Logs(job.folder, {})
    linear = job.attached.linear
    assert linear is not None, "only a linear head can be solved"
    features, targets = collect(job, linear, job.train, state)
    mean, spread = features.mean(0), features.std(0)
    spread[spread < 1e-6] = 1.0
    weight, bias = SOLVERS[job.objective.answers]((features - mean) / spread, targets, linear.out_features)
    weight = weight / spread
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(weight))
        linear.bias.copy_(torch.as_tensor(bias - weight @ mean))
    state.seconds = time.perf_counter() - start
    state.loss_first = state.loss_last = _loss(job, job.train)
    logs.metrics({"step": 1, "loss": state.loss_last, "lr": 0.0, "tokens": state.tokens})
    if len(job.dev):
        logs.metrics({"step": 1, "dev_loss": dev_loss(job)})
    logs.timing({"step": 1, "seconds": state.seconds, "memory_bytes": job.place.peak_memory()})
    logs.sync()
    logs.close()
    job.trackers.close()
    return Outcome(state, 1)


def _loss(job: Job, features: Sequence[Features]) -> float:
    return dev_loss(replace(job, dev=features))


@torch.no_grad()
def collect(
    job: Job, linear: torch.nn.Linear, features: Sequence[Features], state: State
) -> tuple[np.ndarray, np.ndarray]:
    """What the head is given for every row of outputs, (rows, width) in fp32, and the rows' targets; counted in `state`."""
    job.attached.model.eval()
    seen: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    inputs, targets = [], []
    groups = job.base.micro_batches(features, job.plan.tokens_per_micro_batch)
    try:
        with job.reporter.progress("features", len(groups)) as progress:
            for group in groups:
                batch = job.base.collate([features[index] for index in group], job.output).to(job.place.device)
                with job.place.autocast():
                    job.base.forward(job.attached.model, batch)
                given = seen.pop()
                rows = given[batch.rows[0], batch.rows[1]] if batch.rows.numel() else given
                inputs.append(rows.float().cpu().numpy())
                targets.append(batch.targets.cpu().numpy())
                state.tokens += batch.tokens
                state.computed_tokens += batch.computed_tokens
                state.supervised_tokens += len(batch.targets)
                progress.advance(f"{sum(map(len, targets))} rows")
    finally:
        hook.remove()
    return np.concatenate(inputs).astype(np.float64), np.concatenate(targets)


Solution = tuple[np.ndarray, np.ndarray]


def one_of_several(features: np.ndarray, targets: np.ndarray, count: int) -> Solution:
    """Multinomial logistic regression, (count, width) and (count,); outputs without a row get the lowest score."""
    found = _logistic(features, targets)
    weight, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # scikit-learn gives the second class's log-odds alone
        weight, bias = np.vstack([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    if len(found.classes_) == count:
        return weight, bias
    whole, low = np.zeros((count, weight.shape[1])), np.full(count, bias.min() - 10.0)
    whole[found.classes_], low[found.classes_] = weight, bias
    return whole, low


def several(features: np.ndarray, targets: np.ndarray, count: int) -> Solution:
    """A logistic regression for each label."""
    parts = [_yes_or_no(features, column) for column in targets.T]
    return np.vstack([weight for weight, _ in parts]), np.array([bias for _, bias in parts])


def _yes_or_no(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    if target.min() == target.max():
        return np.zeros(features.shape[1]), 10.0 if target[0] else -10.0
    found = _logistic(features, target.astype(int))
    return found.coef_[0], float(found.intercept_[0])


def number(features: np.ndarray, targets: np.ndarray, count: int) -> Solution:
    """Ridge regression."""
    found = RidgeCV(alphas=1 / STRENGTHS).fit(features, targets)
    return found.coef_[None], np.array([found.intercept_])


SOLVERS: dict[str, Any] = {"label": one_of_several, "labels": several, "number": number, "tags": one_of_several}
"""The kind of answers -> how its head is solved."""


def _logistic(features: np.ndarray, targets: np.ndarray) -> Any:
    """Logistic regression, its strength chosen by likelihood on held-out folds where every class has two rows or more."""
    counts = np.unique(targets, return_counts=True)[1]
    if len(counts) < 2:
        raise DataError("every row has the same label: there is nothing to tell apart", where="data.train")
    folds = min(FOLDS, int(counts.min()))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # at the weak end of the strengths, which is not chosen then
        warnings.simplefilter("ignore", FutureWarning)
        if folds < 2 and len(targets) < 4 * FOLDS:
            return LogisticRegression(C=float(np.median(STRENGTHS)), max_iter=ITERATIONS).fit(features, targets)
        cut: Any = StratifiedKFold(folds, shuffle=True, random_state=0) if folds >= 2 else KFold(FOLDS)
        chosen = LogisticRegressionCV(Cs=list(STRENGTHS), cv=cut, max_iter=ITERATIONS, scoring="neg_log_loss")
        return chosen.fit(features, targets)
