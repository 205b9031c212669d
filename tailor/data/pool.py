"""The usable rows of one source, with what the splits and the report need to know of each."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tailor.core.errors import DataError, RowRefused, refuse
from tailor.core.examples import Origin, Row
from tailor.data.canonical import class_name, is_missing
from tailor.data.columns import SAMPLE, Form
from tailor.data.files import BadRow, kind_of
from tailor.data.keys import canonical_json, content_key, digest, identity, labels, normalise, place, sides
from tailor.data.report import RowCounts
from tailor.data.split import block_size, blocks
from tailor.data.table import Entry, Store

KEPT_BAD_ROWS = 1000
"""How many refused rows are remembered one by one; the rest are counted."""

WHOLE_TEXTS = 100
"""As many raw texts are divided text by text; fewer are cut into blocks first."""

SHOWN_BAD_ROWS = 20


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that say again, or otherwise, what an earlier one said.

    Args:
        exact: indices of rows beyond the first with the same content.
        normalised: indices of rows that are not the same as an earlier one only in case, space or punctuation.
        contradicted: normalised input (hash) -> the first row that gives it another target than the rows before.
    """

    exact: Sequence[int]
    normalised: Sequence[int]
    contradicted: Mapping[int, int]


class Pool:
    """Rows of one form.

    Beside the store run the ids, hashes (of the inputs, of the normalised inputs, of the whole rows normalised, and of
    what decides the place in a split), groups (if the form has them) and labels. `cut`: the rows are blocks of texts.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self.cut = False
        self.store = Store()
        self.rows_in = 0
        self.refused: Counter[str] = Counter()
        self.bad: list[BadRow] = []
        self.ids: list[str] = []
        self.inputs = array("Q")
        self.normalised_inputs = array("Q")
        self.normalised_rows = array("Q")
        self.places = array("Q")
        self.groups: list[str] = []
        self.labels: list[tuple[str, ...]] = []
        self._seen: Counter[str] = Counter()
        self._label_sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # so that equal ones are one object

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, record: Row | BadRow) -> None:
        """Take a row in, or count why it cannot be used."""
        self.rows_in += 1
        if isinstance(record, BadRow):
            self._refuse(record)
            return
        try:
            row = self.form.canonical(record.values)
            group, line = self._group(record), canonical_json(identity(self.form.name, row))
        except RowRefused as refusal:
            self._refuse(BadRow(record.origin, refusal.reason, refusal.message))
            return
        self.keep(record, row, line, group)

    def _refuse(self, bad: BadRow) -> None:
        self.refused[bad.reason] += 1
        if len(self.bad) < KEPT_BAD_ROWS:
            self.bad.append(bad)

    def _group(self, record: Row) -> str:
        column = self.form.columns.get("group")
        if column is None:
            return ""
        value = record.values.get(column)
        if is_missing(value):
            raise refuse("missing_value", f"{column!r}, by which rows are grouped, has no value")
        return class_name(value, column)

    def keep(self, record: Row, row: dict[str, Any], line: str, group: str = "") -> None:
        """Store a canonical row; `line` is its canonical JSON."""
        form = self.form.name
        given, target = sides(form, row)
        plain, where = normalise(given), place(form, row, given)
        key, near = content_key(line), digest(plain)
        earlier = self._seen[key]
        self._seen[key] += 1
        self.ids.append(f"{key}-{earlier}" if earlier else key)
        self.store.append(Entry(self.ids[-1], row, record.origin, record.values), len(line))
        self.inputs.append(digest(given))
        self.normalised_inputs.append(near)
        self.normalised_rows.append(digest(f"{plain}\n{normalise(target)}"))
        self.places.append(near if where is given else digest(normalise(where)))
        carried = labels(form, row)
        self.labels.append(self._label_sets.setdefault(carried, carried))
        if "group" in self.form.columns:
            self.groups.append(group)

    def repeats(self) -> Repeats:
        """What occurs more than once."""
        exact, normalised = [], []
        contradicted: dict[int, int] = {}
        rows: set[int] = set()
        first: dict[int, int] = {}
        for index, (given, row) in enumerate(zip(self.normalised_inputs, self.normalised_rows, strict=True)):
            if "-" in self.ids[index]:
                exact.append(index)
            elif row in rows:
                normalised.append(index)
            rows.add(row)
            if first.setdefault(given, row) != row:
                contradicted.setdefault(given, index)
        return Repeats(exact, normalised, contradicted)

    def counts(self) -> RowCounts:
        """Rows in = used + refused."""
        return RowCounts(self.rows_in, len(self), dict(self.refused))

    def in_blocks(self) -> "Pool":
        """The same texts cut into contiguous blocks, if they are so few that dividing whole ones would be coarse."""
        if self.form.name != "text" or len(self) >= WHOLE_TEXTS or self.groups:
            return self
        texts = [self.store[index] for index in range(len(self))]
        size = block_size(sum(len(entry.row["text"]) for entry in texts))
        cut = Pool(self.form)
        for entry in texts:
            pieces = list(blocks(entry.row["text"], size))
            cut.cut = cut.cut or len(pieces) > 1
            for line, text in pieces:
                row = {"text": text} if len(pieces) == 1 else {"text": text, "document": False}
                cut.keep(Row({"text": text}, _within(entry.origin, line)), row, canonical_json(row))
        return cut if cut.cut else self


def _within(origin: Origin, line: int) -> Origin:
    """Lines of a text count as the file's only where the text is the file."""
    is_file = kind_of(Path(origin.file)) == ".txt"
    return Origin(origin.file, origin.line + line) if is_file else origin


def fill(records: Iterable[Row | BadRow], recognise: Callable[[Sequence[Row]], Form]) -> Pool:
    """All rows of a source, its form recognised from the first of them.

    Raises:
        DataError: no row can be used.
    """
    stream: Iterator[Row | BadRow] = iter(records)
    head = list(islice(stream, SAMPLE))
    sample = [record for record in head if isinstance(record, Row)]
    if not sample:
        raise bad_rows([record for record in head if isinstance(record, BadRow)], len(head), none_left=True)
    pool = Pool(recognise(sample))
    for record in chain(head, stream):
        pool.add(record)
    if not len(pool):
        raise bad_rows(pool.bad, sum(pool.refused.values()), none_left=True)
    return pool


def bad_rows(bad: Sequence[BadRow], count: int, *, none_left: bool = False) -> DataError:
    """All bad rows in one error, the first twenty spelled out; `none_left`: there are no others."""
    shown = "; ".join(f"{row.origin} {row.reason}: {row.message}" for row in bad[:SHOWN_BAD_ROWS])
    rows = "1 row" if count == 1 else f"{count} rows"
    more = f"; +{count - SHOWN_BAD_ROWS} more" if count > SHOWN_BAD_ROWS else ""
    return DataError(
        f"{'no row can be used' if none_left else f'{rows} cannot be used'}: {shown}{more}",
        where=str(bad[0].origin),
        fix="mend them" if none_left else "mend them, or leave them out with data.on_bad_row=skip",
        code="bad_rows",
    )
