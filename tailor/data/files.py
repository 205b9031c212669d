"""A data file, and a row of it that cannot be used."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tailor.core.errors import DataError
from tailor.core.examples import Origin


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it stands, the word it is counted under, and what is wrong in plain words."""

    origin: Origin
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class File:
    """A data file: the name the user gave it, and where it lies."""

    name: str
    path: Path

    def open(self) -> IO[bytes]:
        """The bytes, unpacked if the name ends in `.gz`."""
        return cast(IO[bytes], gzip.open(self.path)) if self.path.suffix == ".gz" else self.path.open("rb")

    def open_seekable(self) -> IO[bytes]:
        """The bytes for formats that jump about; a packed file is unpacked in memory."""
        if self.path.suffix != ".gz":
            return self.path.open("rb")
        with self.open() as handle:
            return io.BytesIO(handle.read())

    def at(self, line: int) -> Origin:
        return Origin(self.name, line)

    def error(self, message: str, *, code: str, fix: str, line: int = 0) -> DataError:
        return DataError(message, where=f"{self.name}:{line}" if line else self.name, fix=fix, code=code)


def kind_of(path: Path) -> str:
    """The ending that says what a file is, without `.gz`: `.jsonl` for `train.jsonl.gz`."""
    return (Path(path.stem) if path.suffix == ".gz" else path).suffix.casefold()
