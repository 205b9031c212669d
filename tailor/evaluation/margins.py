"""By how much a chosen answer is preferred, as rows of figures."""

from tailor.core.contracts import Answer

TIE = 1e-5
"""A margin that is rounding."""


def prefers(answer: Answer) -> float:
    """1 where the chosen answer gained more than the rejected one; a half where both gained alike but for rounding."""
    if answer.given is None:
        return 0.0
    return 0.5 if abs(answer.given) < TIE else float(answer.given > 0)


def margin_row(answer: Answer) -> tuple[float, float]:
    """The margin, and one row."""
    return answer.given or 0.0, 1.0
