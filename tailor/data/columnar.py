"""Parquet and Arrow files, batch by batch, and what is odd about rows that come out of columns."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tailor.core.errors import DataError
from tailor.core.examples import Row
from tailor.data.files import File, kind_of


def read_parquet(file: File) -> Iterator[Row]:
    import pyarrow  # slow to import, and needed for such files alone
    from pyarrow import parquet

    with file.open_seekable() as handle:
        try:
            table = parquet.ParquetFile(handle)
        except pyarrow.ArrowException as error:
            raise _broken_columns(file, error) from error
        yield from _batches(file, table.schema_arrow, table.iter_batches(batch_size=1024))


def read_arrow(file: File) -> Iterator[Row]:
    """Arrow IPC, as a file or as a stream (which `datasets` writes)."""
    import pyarrow
    from pyarrow import ipc

    with file.open_seekable() as handle:
        magic = handle.read(6)
        handle.seek(0)
        try:
            if magic == b"ARROW1":
                table = ipc.open_file(handle)
                batches: Iterable[Any] = (table.get_batch(i) for i in range(table.num_record_batches))
            else:
                table = batches = ipc.open_stream(handle)
        except pyarrow.ArrowException as error:
            raise _broken_columns(file, error) from error
        yield from _batches(file, table.schema, batches)


def _broken_columns(file: File, error: Exception) -> DataError:
    fix = "fetch or write the file anew"
    return file.error(f"cannot be read as {kind_of(file.path)}: {error}", code="broken_table", fix=fix)


def _batches(file: File, schema: Any, batches: Iterable[Any]) -> Iterator[Row]:
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            yield Row(from_columns(values, features), file.at(number))


def from_columns(values: dict[str, Any], features: Any) -> dict[str, Any]:
    """A row of a columnar table as its author meant it.

    Such tables give every object all keys that any row has, the absent ones null: those go. Class numbers become the
    names that `features` (of a `datasets` table) holds for them.
    """
    values = {column: _without_padding(value) for column, value in values.items()}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        names = inner.get("names") if isinstance(inner, dict) else None
        if names and values.get(column) is not None:
            values[column] = _names(values[column], names)
    return values


def _without_padding(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_padding(item) for key, item in value.items() if item is not None}
    return [_without_padding(item) for item in value] if isinstance(value, list) else value


def _names(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_names(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None  # -1 says "no label"
