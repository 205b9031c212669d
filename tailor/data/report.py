"""What loading found out about the data, as it goes into `check`'s answer and a run's data_report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tailor.core.examples import Origin


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person should know of, with the first place it was met and how often it was."""

    severity: Literal["error", "warning", "info"]
    code: str
    message: str
    file: str = ""
    line: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows read, and what became of them: `rows_in` = `used` + the sum of `refused`."""

    rows_in: int
    used: int
    refused: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {"in": self.rows_in, "used": self.used, "refused": dict(self.refused)}


@dataclass(frozen=True, slots=True)
class LeakedPair:
    """A test row whose input also stands in train."""

    test: Origin
    train: Origin
    kind: Literal["exact", "normalised", "near", "overlap"]


@dataclass(frozen=True, slots=True)
class Leakage:
    """Test rows whose input also stands in train: the same, or but for case, space and punctuation; the first few."""

    exact: int = 0
    normalised: int = 0
    pairs: Sequence[LeakedPair] = ()


@dataclass(frozen=True, slots=True)
class DataReport:
    """The data of one run.

    Args:
        form: the form recognised.
        columns: role -> column.
        rows: of the training source.
        held_out: of each source given for dev or test.
        problems: worst first.
        duplicates: within the training source: `exact` and `normalised` count the rows beyond the first of their kind,
            `contradictory` the inputs that stand under different labels.
        leakage: from a test source of its own into train; a split that is drawn here has none.
        splits: examples in each split; raw text counts blocks.
        digests: per split, SHA-256 over the sorted ids of its examples.
    """

    form: str
    columns: Mapping[str, str]
    rows: RowCounts
    held_out: Mapping[str, RowCounts]
    problems: Sequence[Problem]
    duplicates: Mapping[str, int]
    leakage: Leakage
    splits: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `near` is null: near-duplicates have not been looked for."""
        return {
            "form": self.form,
            "columns": dict(self.columns),
            "rows": self.rows.as_dict(),
            "held_out": {name: counts.as_dict() for name, counts in self.held_out.items()},
            "problems": [asdict(problem) for problem in self.problems],
            "duplicates": {"near": None, **self.duplicates},
            "leakage": {"near": None, **asdict(self.leakage), "pairs": [asdict(pair) for pair in self.leakage.pairs]},
            "splits": dict(self.splits),
            "digests": dict(self.digests),
        }
