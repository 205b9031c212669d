"""`tailor bases`."""

from tailor import api
from tailor.cli.output import Answer, table


def bases() -> Answer:
    """Embedded bases and data, and good open bases with size and licence."""
    found = api.bases()
    rows = [
        [
            entry["name"],
            entry["family"],
            f"{entry['parameters'] / 1e6:,.1f} M",
            f"{entry['context']:,}",
            "embedded" if entry["path"] else f"{entry['download_bytes'] / 1e6:,.0f} MB",
            entry["licence"],
            entry["path"] or "",
        ]
        for entry in found["bases"]
    ]
    data = [[entry["name"], str(entry["rows"]), entry["task"], entry["path"]] for entry in found["data"]]
    text = table(rows, ["base", "family", "parameters", "context", "download", "licence", "folder"])
    return Answer(found, f"{text}\n\n{table(data, ['embedded data', 'rows', 'what it teaches', 'folder'])}")
