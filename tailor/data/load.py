"""From sources to train, dev and test: read, recognise, put into one shape, divide, and report."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from tailor.core.errors import DataError
from tailor.core.examples import Row
from tailor.data.columns import SAMPLE, Form, recognise
from tailor.data.files import BadRow
from tailor.data.pool import Pool, Repeats, bad_rows, fill
from tailor.data.read import read
from tailor.data.report import DataReport, Leakage, LeakedPair, Problem
from tailor.data.split import AUTO, AUTO_SHARE, Share, Splits, as_share, sizes, split
from tailor.data.table import Table

Source = str | Path | Sequence[str | Path]

SHOWN_PAIRS = 20
FEWEST_TO_TELL = 20
"""Rows below which nothing is said about what recurs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Data ready for objectives: entries with a canonical row each, and the report on all of it.

    `source` holds the training source's usable rows, `pools` every source's, raw text in blocks where it is divided so;
    `drawn`, for splits that are drawn from the training source, which of its rows.
    """

    form: Form
    train: Table
    dev: Table
    test: Table
    report: DataReport
    source: Pool
    pools: Mapping[str, Pool]
    drawn: Mapping[str, Sequence[int]]
    shares: Mapping[str, float] = field(default_factory=dict)
    """What was held back for dev and test, where that was no source of its own, as shares that give the same division."""


def peek(train: Source, *, columns: Mapping[str, str] | None = None, root: Path | None = None) -> Form:
    """The form of a source, from its first rows alone.

    Raises:
        DataError: see `read` and `recognise`.
    """
    head = list(islice(read(train, root=root), SAMPLE))
    rows = [record for record in head if isinstance(record, Row)]
    if not rows:
        raise bad_rows([record for record in head if isinstance(record, BadRow)], len(head), none_left=True)
    return recognise(rows, columns)


def load(
    train: Source,
    *,
    dev: Share | Source = AUTO,
    test: Share | Source = AUTO,
    columns: Mapping[str, str] | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    root: Path | None = None,
    seed: int = 0,
    objective: str = "",
) -> Loaded:
    """Load a data set.

    Args:
        train: what to learn from (see `read`).
        dev: what chooses: `auto`, a share of `train` (0: none), or a source of its own.
        test: what reports: likewise.
        columns: role -> column, where recognition needs help; `group` keeps rows with one value together.
        on_bad_row: refuse the data if a row cannot be used, or leave such rows out and count them.
        root: the folder that relative paths start from.
        seed: another seed, another division.
        objective: what the rows are to serve; empty for what their form suggests.

    Raises:
        DataError: data that cannot be read, recognised or divided; bad rows, all at once; a label in a source for dev
            or test that train lacks.
    """
    wishes = {"dev": dev, "test": test}
    shares = {name: as_share(value) if isinstance(value, str | int | float) else None for name, value in wishes.items()}
    main = fill(read(train, root=root), lambda rows: recognise(rows, columns, objective=objective))
    given = _fill_given({name: wishes[name] for name, share in shares.items() if share is None}, main.form, root)
    pools = {"train": main, **given}
    _check_rows(pools, on_bad_row)
    for name, pool in given.items():
        _check_labels(name, pool, main)
    units = {name: pool.in_blocks() if name in given or any(shares.values()) else pool for name, pool in pools.items()}
    settled = _settled(units["train"], shares)
    splits = _divide(units["train"], settled, seed)
    sides = {"train": (units["train"], splits.train), "dev": (units["train"], splits.dev)}
    sides["test"] = (units["train"], splits.test)
    sides |= {name: (units[name], list(range(len(units[name])))) for name in given}
    repeats = main.repeats()
    leakage = _leakage(units["train"], units["test"]) if "test" in given else Leakage()
    report = DataReport(
        form=main.form.name,
        columns=main.form.columns,
        rows=main.counts(),
        held_out={name: pool.counts() for name, pool in given.items()},
        problems=_problems(pools, repeats, splits, leakage),
        duplicates=_duplicates(main, repeats),
        leakage=leakage,
        splits={name: len(indices) for name, (_, indices) in sides.items()},
        digests={name: _digest(pool.ids[index] for index in indices) for name, (pool, indices) in sides.items()},
    )
    tables = {name: Table(pool.store, indices) for name, (pool, indices) in sides.items()}
    drawn = {name: indices for name, (pool, indices) in sides.items() if pool is units["train"]}
    return Loaded(main.form, tables["train"], tables["dev"], tables["test"], report, main, units, drawn, settled)


def _fill_given(sources: Mapping[str, Share | Source], form: Form, root: Path | None) -> dict[str, Pool]:
    """The sources of their own for dev and test, read as what the training data is."""
    alike = replace(form, columns={role: column for role, column in form.columns.items() if role != "group"})
    pools = {}
    for name, source in sources.items():
        assert not isinstance(source, int | float), "a number is a share"
        pools[name] = fill(read(source, root=root), lambda _: alike)
    return pools


def _check_rows(pools: Mapping[str, Pool], on_bad_row: str) -> None:
    count = sum(sum(pool.refused.values()) for pool in pools.values())
    if count and on_bad_row == "error":
        raise bad_rows([row for pool in pools.values() for row in pool.bad], count)


def _settled(pool: Pool, shares: Mapping[str, Share | None]) -> dict[str, float]:
    """Every `auto` as the share that it comes to; what has a source of its own is left out."""
    # 200 rows are wanted so that a difference can be shown; a block of text is worth many rows.
    auto: Share = AUTO_SHARE if pool.cut else AUTO
    wanted = {name: auto if share == AUTO else share for name, share in shares.items() if share is not None}
    counts = dict(zip(("dev", "test"), sizes(len(pool), wanted.get("dev", 0.0), wanted.get("test", 0.0)), strict=True))
    return {name: counts[name] / len(pool) if share == AUTO else float(share) for name, share in wanted.items()}


def _divide(pool: Pool, shares: Mapping[str, float], seed: int) -> Splits:
    dev, test = (shares.get(name, 0.0) for name in ("dev", "test"))
    groups = pool.groups or None
    return split(pool.places, groups=groups, labels=_stratified(pool), dev=dev, test=test, seed=seed)


def _stratified(pool: Pool) -> Sequence[tuple[str, ...]] | None:
    return pool.labels if any(pool.labels) else None


def _check_labels(name: str, pool: Pool, main: Pool) -> None:
    """A label that training never shows can never be predicted, and a score would hide it."""
    known = {label for labels in main.labels for label in labels}
    strange: dict[str, int] = {}
    for index, labels in enumerate(pool.labels):
        for label in labels:
            if label not in known:
                strange.setdefault(label, index)
    if not strange:
        return
    label, index = next(iter(strange.items()))
    more = f" (and {len(strange) - 1} more: {', '.join(list(strange)[1:6])})" if len(strange) > 1 else ""
    raise DataError(
        f"the label {label!r} of the {name} data does not occur in the training data{more}",
        where=str(pool.store[index].origin),
        fix=f"correct the label, or add rows of it to the training data, which has: {', '.join(sorted(known)[:20])}",
        code="unknown_label",
    )


def _duplicates(pool: Pool, repeats: Repeats) -> dict[str, int]:
    return {
        "exact": len(repeats.exact),
        "normalised": len(repeats.normalised),
        "contradictory": len(repeats.contradicted) if _stratified(pool) else 0,
    }


def _leakage(train: Pool, test: Pool) -> Leakage:
    """Test rows whose input the training source holds, be it in the part that trains or in the one that chooses."""
    exact: dict[int, int] = {}
    normalised: dict[int, int] = {}
    for index in range(len(train)):
        exact.setdefault(train.inputs[index], index)
        normalised.setdefault(train.normalised_inputs[index], index)
    counts = {"exact": 0, "normalised": 0}
    pairs: list[LeakedPair] = []
    for index in range(len(test)):
        kind: Literal["exact", "normalised"] = "exact" if test.inputs[index] in exact else "normalised"
        source = exact.get(test.inputs[index], normalised.get(test.normalised_inputs[index]))
        if source is None:
            continue
        counts[kind] += 1
        if len(pairs) < SHOWN_PAIRS:
            pairs.append(LeakedPair(test.store[index].origin, train.store[source].origin, kind))
    return Leakage(counts["exact"], counts["normalised"], pairs)


def _problems(pools: Mapping[str, Pool], repeats: Repeats, splits: Splits, leakage: Leakage) -> list[Problem]:
    """Everything worth saying, worst first."""
    main = pools["train"]
    known = {label for labels in main.labels for label in labels}
    problems = []
    if len(known) == 1 and main.form.label == "class":
        message = f"every row has the same label, {next(iter(known))!r}: there is nothing to tell apart"
        problems.append(Problem("error", "one_label", message, count=len(main)))
    problems += [Problem("warning", "nothing_held_back", note) for note in splits.notes]
    for pool in pools.values():
        for reason, count in pool.refused.items():
            first = next((row for row in pool.bad if row.reason == reason), None)
            message = f"{_rows(count)} left out{f', first: {first.message}' if first else ''}"
            origin = (first.origin.file, first.origin.line) if first else ("", 0)
            problems.append(Problem("warning", reason, message, *origin, count))
    if leakage.pairs:
        first_pair, count = leakage.pairs[0].test, leakage.exact + leakage.normalised
        message = f"{_rows(count)} of the test data {'has' if count == 1 else 'have'} an input that train also has"
        problems.append(Problem("warning", "leakage", message, first_pair.file, first_pair.line, count))
    problems += _swapped(main)
    return problems + _repeat_problems(main, repeats)


def _swapped(pool: Pool) -> list[Problem]:
    """A few inputs, each with ever other answers: rather labels that stand where the texts should."""
    if pool.form.name != "instruction" or len(pool) < FEWEST_TO_TELL:
        return []
    inputs, rows = len(set(pool.normalised_inputs)), len(set(pool.normalised_rows))
    if inputs * 5 > len(pool) or rows * 10 < len(pool) * 9:
        return []
    given, answer = pool.form.columns["prompt"], pool.form.columns["completion"]
    message = (
        f"{len(pool)} rows share {inputs} different inputs and hardly an answer recurs: are they the wrong way round? "
        f"--columns input={answer},output={given}"
    )
    origin = pool.store[0].origin
    return [Problem("warning", "swapped", message, origin.file, origin.line, len(pool))]


def _repeat_problems(main: Pool, repeats: Repeats) -> list[Problem]:
    counts = _duplicates(main, repeats)
    first = {
        "contradictory": next(iter(repeats.contradicted.values()), 0),
        "exact": next(iter(repeats.exact), 0),
        "normalised": next(iter(repeats.normalised), 0),
    }
    rows = sum(given in repeats.contradicted for given in main.normalised_inputs)
    inputs = "one input" if counts["contradictory"] == 1 else f"{counts['contradictory']} inputs"
    messages = {
        "contradictory": f"{_rows(rows)} give {inputs} different labels",
        "exact": f"{_rows(counts['exact'])} repeat an earlier one word for word",
        "normalised": f"{_rows(counts['normalised'])} repeat an earlier one but for case, space or punctuation",
    }
    problems = []
    for kind, message in messages.items():
        if counts[kind]:
            origin = main.store[first[kind]].origin
            problems.append(Problem("warning", f"{kind}_duplicates", message, origin.file, origin.line, counts[kind]))
    return problems


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
