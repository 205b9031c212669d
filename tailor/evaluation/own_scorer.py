"""A user's own scorer: `def score(row, answer) -> float | {"score": float, "why": str}` in a file of theirs.

It runs in this process with the user's rights: it is their code.
"""

import importlib.util
import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tailor.core.contracts import Answer
from tailor.core.errors import TailorError

SIGNATURE = 'def NAME(row, answer): return a number from 0 to 1, or {"score": number, "why": text}'


def load(path: Path, name: str) -> Callable[[Answer], tuple[float, str]]:
    """The scorer of a file as a function from an answer to (score, why).

    The user's function gets the data row as a dict and the model's answer. Higher is better; 0 to 1 is meant, and other
    numbers are taken as they are. A row without an answer scores 0 without a call. Raises `TailorError` where the file
    cannot be imported or has no such function, and, naming the row, where the function fails or returns something else.
    """
    function = _function(path, name)

    def score(answer: Answer) -> tuple[float, str]:
        if answer.given is None:
            return 0.0, "no answer"
        try:
            result = function(dict(answer.row), answer.given)
        except Exception as error:
            raise TailorError(
                f"{name} failed on {answer.place}: {type(error).__name__}: {error}",
                where=_line(path, error),
                fix="mend the scorer",
                code="scorer_failed",
            ) from error
        return _result(result, f"{path}:{name}", answer)

    return score


def _function(path: Path, name: str) -> Callable[[dict[str, Any], Any], Any]:
    if not path.is_file():
        raise TailorError("the scorer's file does not exist", where=str(path), fix="check the path", code="no_scorer")
    spec = importlib.util.spec_from_file_location(f"tailor_scorer_{path.stem}", path)
    assert spec is not None  # as for every .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TailorError(
            f"the scorer cannot be imported: {type(error).__name__}: {error}",
            where=_line(path, error),
            fix="run the file with python by itself",
            code="scorer_import",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise TailorError(
            f"there is no function {name!r}", where=str(path), fix=SIGNATURE.replace("NAME", name), code="no_scorer"
        )
    scorer: Callable[[dict[str, Any], Any], Any] = function
    return scorer


def _line(path: Path, error: BaseException) -> str:
    """`file:LINE` of the last frame in the user's file; a syntax error names its own line."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename or path}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path}:{frames[-1].lineno}" if frames else str(path)


def _result(result: Any, where: str, answer: Answer) -> tuple[float, str]:
    """The function's return value as (score, why)."""
    value: Any = result.get("score") if isinstance(result, Mapping) else result
    why = result.get("why", "") if isinstance(result, Mapping) else ""
    try:
        # float() takes numpy's and torch's scalars; a text that holds a number is more likely a mistake.
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TailorError(
            f"{answer.place} was scored with {result!r}, which is not a finite number",
            where=where,
            fix=SIGNATURE.replace("NAME", where.rpartition(":")[2]),
            code="scorer_result",
        )
    return number, str(why)
