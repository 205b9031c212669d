"""One reader per kind of file: a file in, rows out, one at a time.

What is wrong with one row comes out as a `BadRow` in its place, so that all of them can be listed at once; what is
wrong with the whole file is a `DataError`.
"""

import csv
import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tailor.core.errors import DataError, MissingExtra
from tailor.core.examples import Origin, Row
from tailor.data.columnar import read_arrow, read_parquet
from tailor.data.files import BadRow, File, kind_of


def read_file(file: File) -> Iterator[Row | BadRow]:
    """The rows of one file, by the kind its name ends in.

    Raises:
        DataError: unknown kind, no rows, or a file that cannot be read as what its name says.
    """
    reader = KINDS.get(kind_of(file.path))
    if reader is None:
        raise file.error(
            f"unknown kind of file ({file.path.suffix or 'no ending'})",
            code="unknown_kind",
            fix=f"known are {', '.join(KINDS)} and .gz of each: rename or convert it",
        )
    empty = True
    try:
        for row in reader(file):
            empty = False
            yield row
    except (OSError, EOFError, zlib.error) as error:
        raise file.error(
            f"cannot be read: {error}", code="unreadable_file", fix="check the file, or fetch it anew"
        ) from error
    if empty:
        what = "holds no rows" if file.path.stat().st_size else "the file is empty"
        raise file.error(what, code="empty_file", fix="give a file with at least one row of data", line=1)


# Text, line by line. Lines end at \n alone: JSON strings and CSV cells may hold U+2028 or \x85, at which
# `str.splitlines` would tear them apart.

_BOM = b"\xef\xbb\xbf"
_ENCODING_FIX = "save it as UTF-8, for example: iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"


def _lines(file: File, handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(handle, start=1):
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise _not_utf8(file, "the file is UTF-16, not UTF-8", 1, encoding="UTF-16")
            line = line.removeprefix(_BOM)
        yield number, line


def _not_utf8(file: File, message: str, line: int, *, encoding: str = "ISO-8859-1") -> DataError:
    fix = _ENCODING_FIX.format(name=Path(file.name).name, encoding=encoding)
    return file.error(message, code="not_utf8", line=line, fix=fix)


def _whole_text(file: File) -> str:
    with file.open() as handle:
        raw = b"".join(line for _, line in _lines(file, handle))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _not_utf8(file, f"not UTF-8 (byte 0x{raw[error.start]:02x})", line) from error


def _text(file: File) -> Iterator[Row | BadRow]:
    """A text file is one row with its whole text; cutting it into blocks is the split's business."""
    text = _whole_text(file)
    if text.strip():
        yield Row({"text": text}, file.at(1))


# JSON


def _jsonl(file: File) -> Iterator[Row | BadRow]:
    first = True
    with file.open() as handle:
        for number, raw in _lines(file, handle):
            if not raw.strip():
                continue
            if first and _opens_a_list(raw):
                yield from _json(file)
                return
            first = False
            yield _json_line(file.at(number), raw)


def _opens_a_list(line: bytes) -> bool:
    """Whether a file named as JSON lines is one JSON list of objects instead."""
    if not line.lstrip().startswith(b"["):
        return False
    try:
        value = json.loads(line)
    except ValueError:
        return True  # it goes on over the next lines
    return all(isinstance(item, dict) for item in value)


def _json_line(origin: Origin, raw: bytes) -> Row | BadRow:
    try:
        return _object(origin, json.loads(raw.rstrip().decode("utf-8")))
    except UnicodeDecodeError as error:
        return BadRow(origin, "not_utf8", f"not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})")
    except json.JSONDecodeError as error:
        return BadRow(origin, "broken_json", f"broken JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets in …
        return BadRow(origin, "broken_json", f"JSON that cannot be taken in: {error}")


def _object(origin: Origin, value: Any) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(value, origin)
    kind = {list: "a list", str: "a string", type(None): "null", bool: "true or false"}.get(type(value), "a number")
    return BadRow(origin, "not_an_object", f"{kind}, where an object with named columns should stand")


_SPACE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _json(file: File) -> Iterator[Row | BadRow]:
    text = _whole_text(file)
    start = _skip(text, 0)
    if start == len(text):
        return
    try:
        if text[start] == "[":
            yield from _json_list(file, text, start)
            return
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[start] == "{":
            yield from _jsonl(file)  # JSON lines under a JSON name
            return
        raise file.error(
            f"broken JSON: {error.msg} (column {error.colno})",
            code="broken_json",
            line=error.lineno,
            fix="mend the file at this place; nothing after it can be read",
        ) from error
    except (ValueError, RecursionError) as error:
        raise file.error(f"JSON that cannot be taken in: {error}", code="broken_json", fix="mend the file") from error
    for number, item in enumerate(_rows_within(file, value), start=1):
        yield _object(file.at(number), item)


def _json_list(file: File, text: str, start: int) -> Iterator[Row | BadRow]:
    """The items of a top-level list with the line each begins at; written on one line, with its number in the list."""
    one_line = "\n" not in text.strip()
    line, counted, number = 1, 0, 0
    for position, value in _items(text, start):
        line += text.count("\n", counted, position)
        counted = position
        for flat in _flatten_squad(value):
            number += 1
            yield _object(file.at(number if one_line else line), flat)


def _items(text: str, start: int) -> Iterator[tuple[int, Any]]:
    """(position, value) of each item of the list that opens at `start`, decoded one at a time."""
    decoder = json.JSONDecoder()
    position = _skip(text, start + 1)
    closed = text.startswith("]", position)
    while not closed:
        value, end = decoder.raw_decode(text, position)
        yield position, value
        end = _skip(text, end)
        closed = text.startswith("]", end)
        if not closed and not text.startswith(",", end):
            raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
        position = end if closed else _skip(text, end + 1)
    if _skip(text, position + 1) != len(text):
        raise json.JSONDecodeError("Text after the end of the list", text, _skip(text, position + 1))


_CONTAINERS = ("data", "rows", "examples", "records", "items", "instances", "dataset")
_ONE_ROW = {"messages", "conversations", "turns", "utterances", "tools", "answers"}


def _rows_within(file: File, value: Any) -> Iterator[Any]:
    """The rows of a file that is one JSON object: the list it holds, its values if they are objects, or itself."""
    if not isinstance(value, dict):
        yield value
        return
    lists = {key: item for key, item in value.items() if isinstance(item, list) and item and key not in _ONE_ROW}
    holds_rows = [key for key in lists if all(isinstance(item, dict) for item in lists[key])]
    named = [key for key in _CONTAINERS if key in lists]
    columns = len(lists) == len(value) > 0 and len({len(item) for item in lists.values()}) == 1 and not holds_rows
    if named or len(holds_rows) == 1:
        for item in lists[(named or holds_rows)[0]]:
            yield from _flatten_squad(item)
    elif columns and not any(isinstance(item, list) for items in lists.values() for item in items):
        yield from (dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True))
    elif len(lists) > 1 and (len(holds_rows) > 1 or len(lists) == len(value)):
        raise file.error(
            f"holds several lists ({', '.join(lists)}), and not which one is meant",
            code="several_lists",
            fix="keep each list in a file of its own, as a list of objects with named columns",
        )
    elif len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
        yield from value.values()
    else:
        yield value


def _flatten_squad(article: Any) -> Iterator[Any]:
    """SQuAD's articles -> paragraphs -> questions as one row per question; anything else as it is."""
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    if not isinstance(paragraphs, list) or not all(isinstance(item, dict) and "qas" in item for item in paragraphs):
        yield article
        return
    for paragraph in paragraphs:
        for question in paragraph["qas"]:
            yield {"title": article.get("title"), "context": paragraph.get("context"), **question}


# Tables: CSV, TSV, xlsx


class _CsvLines:
    """Decoded lines for the csv module, and what it hides: how far it has read, and whether it ran off the end."""

    def __init__(self, file: File, handle: IO[bytes]) -> None:
        self._raw = _lines(file, handle)
        self._file = file
        self.number = 0
        self.broken: BadRow | None = None
        self.exhausted = False

    def __iter__(self) -> Iterator[str]:
        for number, raw in self._raw:
            self.number = number
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                message = f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start + 1})"
                self.broken = BadRow(self._file.at(self.number), "not_utf8", message)
                yield raw.decode("utf-8", errors="replace")
        self.exhausted = True


def _csv(file: File) -> Iterator[Row | BadRow]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB refuses long documents
    with file.open() as handle:
        lines = _CsvLines(file, handle)
        texts = iter(lines)
        head = next((line for line in texts if line.strip()), "")
        if not head:
            return
        if lines.broken:
            raise _not_utf8(file, lines.broken.message, lines.number)
        # The mark that occurs most in the header parts the cells: spreadsheets of half the world write semicolons.
        delimiter = max(",;\t|", key=head.count)
        reader = csv.reader(itertools.chain([head], texts), delimiter=delimiter)
        yield from _table(file, _csv_records(file, reader, lines))


def _csv_records(file: File, reader: Iterator[list[str]], lines: _CsvLines) -> "Iterator[_Record]":
    line = lines.number
    while True:
        lines.broken = None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise file.error(
                f"not a readable table: {error}", code="broken_table", line=line, fix="mend the file at this place"
            ) from error
        if cells is None:
            return
        if lines.exhausted:
            # The reader only reaches past the last line while it looks for a closing quotation mark.
            yield BadRow(file.at(line), "broken_table", "a quotation mark opens in this record and never closes")
        else:
            yield lines.broken or (line, cells)
        line = lines.number + 1


def _tsv(file: File) -> Iterator[Row | BadRow]:
    """Tab-separated text is written in two ways: plainly, where a quotation mark is a character like any other, and by
    CSV writers, with quoted cells that may run over lines. The number of tabs per line tells which."""
    with file.open() as handle:
        head = [line for _, line in itertools.islice(_lines(file, handle), 1000)]
    tabs = {line.count(b"\t") for line in head if line.strip()}
    if len(tabs) > 1:
        yield from _csv(file)
        return
    with file.open() as handle:
        yield from _table(file, _tsv_records(_CsvLines(file, handle)))


def _tsv_records(lines: _CsvLines) -> "Iterator[_Record]":
    for line in lines:
        yield lines.broken or (lines.number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")])
        lines.broken = None


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks of a CSV writer; marks that are part of the text stay."""
    inner = cell[1:-1]
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"' or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"')


def _xlsx(file: File) -> Iterator[Row | BadRow]:
    """The first sheet of a workbook that holds anything."""
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtra("openpyxl", "xlsx") from error
    with file.open_seekable() as handle:
        try:
            book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
        except Exception as error:  # openpyxl lets zip, XML and key errors through
            raise file.error(
                f"not a readable workbook: {error}", code="broken_table", fix="save it again as .xlsx or as CSV"
            ) from error
        for sheet in book.worksheets:
            rows = _table(file, enumerate((list(cells) for cells in sheet.iter_rows(values_only=True)), start=1))
            first = next(rows, None)
            if first is not None:
                yield first
                yield from rows
                return


_Record = tuple[int, Sequence[Any]] | BadRow
"""The line that a record begins on and its cells; a record may run over several lines."""


def _table(file: File, records: Iterable[_Record]) -> Iterator[Row | BadRow]:
    """Records as rows under the names of the first one; empty records are passed over."""
    header: list[str] = []
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        line, cells = record
        if all(cell is None or cell == "" for cell in cells):
            continue
        elif not header:
            header = _header(file, line, cells)
        elif len(cells) != len(header):
            message = f"{len(cells)} cells, where the header names {len(header)} columns"
            yield BadRow(file.at(line), "wrong_cells", message)
        else:
            yield Row(dict(zip(header, cells, strict=True)), file.at(line))


def _header(file: File, line: int, cells: Sequence[Any]) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise file.error(
            f"two columns have the same name: {', '.join(twice)}",
            code="duplicate_columns",
            line=line,
            fix="give every column in the header a name of its own",
        )
    # A nameless column is usually a spreadsheet's or a data frame's running number.
    return [name or f"column_{number}" for number, name in enumerate(names, start=1)]


KINDS: dict[str, Callable[[File], Iterator[Row | BadRow]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".xlsx": _xlsx,
    ".txt": _text,
}
