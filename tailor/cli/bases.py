"""`tailor bases`."""

from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, table


def bases(
    fits: Annotated[bool, typer.Option("--fits", help="By which methods each can be tuned on this machine.")] = False,
) -> Answer:
    """Embedded bases and data, and good open bases with size and licence."""
    found = api.bases(fits=fits)
    rows = [
        [
            entry["name"],
            entry["family"],
            f"{entry['parameters'] / 1e6:,.1f} M",
            f"{entry['context']:,}",
            "embedded" if entry["path"] else f"{entry['download_bytes'] / 1e6:,.0f} MB",
            entry["licence"],
            *([", ".join(entry["fits"]) or "none"] if fits else []),
            entry["path"] or "",
        ]
        for entry in found["bases"]
    ]
    data = [[entry["name"], str(entry["rows"]), entry["task"], entry["path"]] for entry in found["data"]]
    here = ["fits here"] if fits else []
    text = table(rows, ["base", "family", "parameters", "context", "download", "licence", *here, "folder"])
    return Answer(found, f"{text}\n\n{table(data, ['embedded data', 'rows', 'what it teaches', 'folder'])}")
