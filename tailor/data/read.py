"""From whatever names data — a path, a folder, a glob, a hub id, an embedded set, a list of those — to its rows.

Each row carries the file as the user named it and its line, so that every later complaint can point there.
"""

import difflib
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tailor.core.errors import DataError
from tailor.core.examples import Origin, Row
from tailor.data.columnar import from_columns
from tailor.data.files import BadRow, File, kind_of
from tailor.data.formats import KINDS, read_file

EMBEDDED = Path(__file__).parents[1] / "bases" / "pocket" / "data"
"""Where the embedded data sets lie, one NAME.jsonl each; pictures in folders NAME."""

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_YES = {"1", "TRUE", "YES", "ON"}
_CAPTIONS = ("text", "caption", "prompt")
_BOOKKEEPING = {"state.json", "dataset_info.json", "dataset_dict.json", "dataset_infos.json"}
_SPLITS = {"train", "dev", "valid", "validation", "val", "test"}
"""Names of folders that say what rows are for, not what they are."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.+-]+)?")


def read(source: str | Path | Iterable[str | Path], *, root: Path | None = None) -> Iterator[Row | BadRow]:
    """Stream the rows of `source`, in order.

    Args:
        source: a file (JSONL, JSON, CSV, TSV, Parquet, Arrow, xlsx, txt, `.gz` of each), a folder of those, a folder of
            images, a glob, `pocket:NAME`, a hub id `owner/name` or `owner/name:split`, or several of these. A text file
            is one row, `{"text": the whole of it}`.
        root: the folder that relative paths start from; the current one if None.

    Yields:
        a `Row`, or a `BadRow` in the place of one that cannot be read.

    Raises:
        DataError: a source that does not exist, holds nothing or cannot be read at all.
    """
    for item in [source] if isinstance(source, str | Path) else source:
        yield from _read_one(str(item), root or Path())


def _read_one(name: str, root: Path) -> Iterator[Row | BadRow]:
    path = root / Path(name).expanduser()
    if name.startswith("pocket:"):
        yield from _embedded(name)
    elif path.is_dir():
        yield from _folder(name, path)
    elif path.exists():
        yield from read_file(File(name, path))
    elif glob.has_magic(name):
        yield from _glob(str(Path(name).expanduser()), root)
    elif _HUB_ID.fullmatch(name) and kind_of(path) not in KINDS and not path.parent.is_dir():
        yield from _hub(name)
    else:
        raise _missing(name, path)


def _embedded(name: str) -> Iterator[Row | BadRow]:
    pictures = {folder.parent.name: folder.parent for folder in EMBEDDED.glob("*/metadata.jsonl")}
    there = sorted([*(file.stem for file in EMBEDDED.glob("*.jsonl")), *pictures])
    stem = name.removeprefix("pocket:")
    if stem not in there:
        near = difflib.get_close_matches(stem, there, n=1)
        raise DataError(
            f"there is no embedded data set {stem!r}",
            where=name,
            fix=(f"did you mean pocket:{near[0]}? " if near else "") + f"there are: {', '.join(there) or 'none'}",
            code="missing_file",
        )
    if stem in pictures:
        yield from _images(name, pictures[stem])
        return
    yield from read_file(File(name, EMBEDDED / f"{stem}.jsonl"))


def _glob(name: str, root: Path) -> Iterator[Row | BadRow]:
    found = [match for match in sorted(glob.glob(name, root_dir=root, recursive=True)) if (root / match).is_file()]
    if not found:
        raise DataError("no file matches", where=name, fix="check the pattern", code="missing_file")
    for match in found:
        yield from read_file(File(match, root / match))


def _folder(name: str, folder: Path) -> Iterator[Row | BadRow]:
    """All files of known kinds below a folder, in the order of their names; or its images."""
    if any(file.suffix.casefold() in IMAGES for file in folder.iterdir()):
        yield from _images(name, folder)
        return
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and _is_data(file.relative_to(folder))]
    if not files:
        raise DataError(
            "the folder holds no data file",
            where=name,
            fix=f"known kinds are {', '.join(KINDS)}, .gz of each, and images ({', '.join(sorted(IMAGES))})",
            code="missing_file",
        )
    sorted_texts = _sorted_into_labels(folder, files)
    for file in files:
        for row in read_file(File(str(Path(name) / file.relative_to(folder)), file)):
            if sorted_texts and isinstance(row, Row):
                yield Row({**row.values, "label": file.parent.name}, row.origin)
            else:
                yield row


def _sorted_into_labels(folder: Path, files: Sequence[Path]) -> bool:
    """Whether texts lie one a file in folders that are named as their labels are: `pos/`, `neg/`, each of several."""
    inside = Counter(file.parent.name for file in files)
    direct = all(file.parent.parent == folder and file.suffix.casefold() == ".txt" for file in files)
    return direct and len(inside) > 1 and min(inside.values()) > 1 and not {*inside} <= _SPLITS


def _is_data(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return not hidden and file.name not in _BOOKKEEPING and kind_of(file) in KINDS


def _images(name: str, folder: Path) -> Iterator[Row | BadRow]:
    """Images as `{"image": path, "caption": str or None}`: captions from metadata.jsonl, or from a .txt beside each."""
    metadata = folder / "metadata.jsonl"
    if metadata.exists():
        for row in read_file(File(str(Path(name) / metadata.name), metadata)):
            yield row if isinstance(row, BadRow) else _described_image(row, folder)
        return
    pictures = [file for file in sorted(folder.iterdir()) if file.suffix.casefold() in IMAGES]
    for number, picture in enumerate(pictures, start=1):
        beside = picture.with_suffix(".txt")
        caption = None
        if beside.exists():
            read = next(iter(read_file(File(str(Path(name) / beside.name), beside))))
            caption = read.values["text"].strip() if isinstance(read, Row) else None
        yield Row({"image": str(picture), "caption": caption}, Origin(str(Path(name) / picture.name), number))


def _described_image(row: Row, folder: Path) -> Row | BadRow:
    values = dict(row.values)
    picture = folder / str(values.pop("file_name", ""))
    if not picture.is_file():
        return BadRow(row.origin, "missing_image", f"there is no image {picture.name!r} in the folder")
    caption = next((values[key] for key in _CAPTIONS if values.get(key)), None)
    return Row({**values, "image": str(picture), "caption": caption}, row.origin)


def _hub(name: str) -> Iterator[Row | BadRow]:
    """A data set from the Hugging Face hub, or from its cache on this machine."""
    repository, _, split = name.partition(":")
    import datasets  # slow to import, and needed for hub ids alone

    try:
        table = datasets.load_dataset(repository, split=split or "train")
    except Exception as error:  # the hub client raises anything from OSError to its own HTTP errors
        offline = next((key for key in _OFFLINE if os.environ.get(key, "0").upper() in _YES), "")
        why = f"{offline} is set and the cache does not hold it" if offline else _first_line(error)
        raise DataError(
            f"is no file here, and as a hub id it cannot be fetched: {why}",
            where=name,
            fix=f"give a local path, or unset {offline} and fetch it once"
            if offline
            else "check the name and the split (owner/name:split), or give a local path",
            code="missing_file",
        ) from error
    features = {column: getattr(feature, "feature", feature) for column, feature in table.features.items()}
    classes = {column: {"names": feature.names} for column, feature in features.items() if hasattr(feature, "names")}
    for number, values in enumerate(table, start=1):
        yield Row(from_columns(values, classes), Origin(f"{repository}:{split or 'train'}", number))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _missing(name: str, path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(
            f"there is no folder {str(Path(name).parent)!r}", where=name, fix="check the path", code="missing_file"
        )
    near = difflib.get_close_matches(path.name, sorted(item.name for item in folder.iterdir()), n=1, cutoff=0.5)
    fix = f"did you mean {Path(name).with_name(near[0])}?" if near else "check the path"
    return DataError("there is no such file", where=name, fix=fix, code="missing_file")
