"""`tailor cache`."""

from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, table


def cache(
    kind: Annotated[
        str | None, typer.Argument(help="One kind of what is cached; all of them where none is named.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove it.")] = False,
) -> Answer:
    """What is cached, by kind and size, and where; `--clear [KIND]` removes it."""
    found = api.cache(kind, clear=clear)
    rows = [
        [name, str(entry["files"]), f"{entry['bytes'] / 1e6:,.1f} MB", entry["holds"]]
        for name, entry in found["kinds"].items()
    ]
    total = sum(entry["bytes"] for entry in found["kinds"].values()) / 1e6
    line = f"{'removed' if clear else 'cached'}: {total:,.1f} MB in {found['folder']}"
    return Answer(found, f"{table(rows, ['kind', 'files', 'size', 'what'])}\n{line}")
