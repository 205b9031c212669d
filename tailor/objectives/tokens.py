"""What the objectives that learn tokens share: the loss, and nothing to learn from the rows beforehand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from tailor.core.contracts import Batch, LossSum, Outputs, OutputSpec
from tailor.nn.losses import cross_entropy_sum
from tailor.recipe.options import Options


class TokenObjective:
    """Cross-entropy on the tokens that carry weight."""

    generates: ClassVar[bool] = True
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def output(self) -> OutputSpec:
        """Next-token logits."""
        return OutputSpec("tokens")

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Nothing to see beforehand."""

    def target(self, example: Any) -> None:
        """The tokens are the target."""
        return

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """Weighted negative log-likelihood in nats, and the weight it sums over."""
        return cross_entropy_sum(outputs.logits, batch.targets, batch.weights)

    def decide(self, scores: Sequence[float]) -> Any:
        """Tokens are generated, not decided."""
        raise TypeError("token objectives answer by generating")
