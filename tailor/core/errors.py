"""Errors a user can act on: what happened, where, and how to mend it.

Everything that a user can cause ends in a `TailorError`; the command line prints it as one line and exits with its
`exit_code`. A traceback that reaches a user is a bug of ours.
"""

import contextlib
from collections.abc import Collection, Iterator


class TailorError(Exception):
    """A failure with a remedy.

    Args:
        message: what happened, in one sentence.
        where: `file:LINE`, a recipe key such as `method.rank`, or a path.
        fix: what to do about it, as a command or an edit.
        code: a stable machine-readable word for `--json`.
    """

    exit_code = 2
    kind = "error"
    """The code of an error that is given none of its own."""

    def __init__(self, message: str, *, where: str = "", fix: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.fix = fix
        self.code = code or self.kind

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        fix = f" — {self.fix}" if self.fix else ""
        return f"{where}{self.message}{fix}"

    def as_dict(self) -> dict[str, str]:
        """The `error` object of the JSON answers."""
        return {"code": self.code, "message": self.message, "where": self.where, "fix": self.fix}


class RecipeError(TailorError):
    """A recipe that cannot be understood; `where` is the recipe key."""

    kind = "recipe"


class DataError(TailorError):
    """Data that cannot be used; `where` is `file:LINE` wherever a line is to blame."""

    kind = "data"


class BaseError(TailorError):
    """A base model that cannot be loaded or cannot carry what was asked of it."""

    kind = "base"


class RunError(TailorError):
    """A run that went wrong or whose folder cannot be used; `fix` names the last checkpoint."""

    kind = "run"


class BudgetSpent(TailorError):
    """What a model may be asked for is used up; answers that were paid for are kept."""

    def __init__(self, message: str, where: str, fix: str) -> None:
        super().__init__(message, where=where, fix=fix, code="budget_spent")


class MissingExtra(TailorError):
    """An optional library is absent; `fix` is the exact install command."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"this needs {library}, which is not installed",
            where=library,
            fix=f"pip install 'tailor[{extra}]'",
            code="missing_extra",
        )


class Interrupted(Exception):
    """The user asked to stop; the state has been saved. The command line exits with 130.

    Args:
        message: what was stopped, and where its state lies.
        fix: the command that goes on.
    """

    def __init__(self, message: str = "interrupted", *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def refuse(reason: str, message: str) -> "RowRefused":
    """A refusal of one row, to be raised by readers and encoders; the caller adds file and line."""
    return RowRefused(reason, message)


class RowRefused(Exception):
    """One row that cannot be used. `reason` is the word it is counted under in the data report."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@contextlib.contextmanager
def within(part: str, keys: Collection[str]) -> Iterator[None]:
    """Errors of one part of a recipe, told by their place in the whole: `method` as `stages.2.method`."""
    try:
        yield
    except TailorError as error:
        if error.where.partition(".")[0] in keys:
            error.where = f"{part}.{error.where}"
        raise
