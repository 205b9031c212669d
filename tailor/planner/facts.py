"""What the advice goes by: figures of the data, the base and the user's aim. No torch."""

from dataclasses import dataclass
from typing import Literal

Goal = Literal["task", "facts"]


@dataclass(frozen=True)
class Facts:
    """All that rules may ask.

    Args:
        objective, family: what the data teaches; what kind of base.
        rows, tokens: of the training split.
        labels: how many there are (0: answers are no labels); rarest: rows of the rarest one.
        parameters: of the base, 0 where it is behind an API.
        instructed: the base follows instructions (it has a chat template, or is behind an API).
        weights: they are at hand.
        goal: a task to be done, or facts that answers must contain.
        served: how many models of this base are to be served.
        domain: raw text of the domain is at hand beside the task's rows.
    """

    objective: str
    family: str
    rows: int
    tokens: int = 0
    labels: int = 0
    rarest: int = 0
    parameters: int = 0
    instructed: bool = False
    weights: bool = True
    goal: Goal = "task"
    served: int = 1
    domain: bool = False

    @property
    def written(self) -> bool:
        """Answers are text that the base writes."""
        return self.family in ("causal-lm", "encoder-decoder", "endpoint") and self.objective != "language"
