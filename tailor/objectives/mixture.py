"""Several tasks' objectives side by side; a batch is one task's, and so is its loss."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tailor.core.contracts import Batch, LossSum, Outputs
from tailor.objectives.plain import PlainObjective


class Mixture(PlainObjective):
    """Dispatches on the batch's task; everything else is asked of each task's own objective."""

    name: ClassVar[str] = "mixture"

    def __init__(self, tasks: Mapping[str, Any]) -> None:
        self.tasks = dict(tasks)

    @property
    def couples(self) -> bool:  # type: ignore[override]
        """Where one task's loss needs its whole batch, no batch is taken in parts."""
        return any(objective.couples for objective in self.tasks.values())

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """The task's own loss."""
        loss: LossSum = self.tasks[batch.task].loss(outputs, batch)
        return loss
