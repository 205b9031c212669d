"""A table of embeddings with learned rows behind it."""

from collections.abc import Sequence
from typing import ClassVar

import torch


class GrownTable(torch.nn.Module):
    """A frozen table (vocabulary, width), and new rows in fp32 whose ids follow on, that start as some of the old ones."""

    ROWS: ClassVar[str] = "rows"

    def __init__(self, table: torch.nn.Module, start: Sequence[int]) -> None:
        super().__init__()
        self.table = table
        weight: torch.Tensor = table.weight  # type: ignore[assignment]
        self.rows = torch.nn.Parameter(weight.detach()[list(start)].float().clone())

    @property
    def weight(self) -> torch.Tensor:
        """All rows, (vocabulary + new, width), in the table's dtype."""
        old: torch.Tensor = self.table.weight  # type: ignore[assignment]
        return torch.cat([old, self.rows.to(old.dtype)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of ids, (..., width)."""
        return torch.nn.functional.embedding(ids, self.weight)
