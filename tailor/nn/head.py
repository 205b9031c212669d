"""The output layer, run where something is learned and no sooner than the loss asks for it.

Logits of a large vocabulary are the largest tensor of a step by far. Chunk by chunk they are made, turned into the loss and,
in place, into their own gradient, so that there are never more of them than a chunk, and no second product makes them again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 1 << 25
FEWEST_ROWS = 128
"""Of a chunk: few enough rows for its logits to stay near the processor, enough for products to run at full speed."""


@dataclass(slots=True)
class UnreadRows:
    """Rows whose logits have not been made.

    Args:
        states: (rows, width), what the output layer takes; head: that layer, nothing follows it.
        dtype: of its products under autocast; None: those of its weights.
    """

    states: torch.Tensor
    head: torch.nn.Module
    dtype: torch.dtype | None

    def logits(self) -> torch.Tensor:
        """(rows, vocabulary)."""
        return self._read(self.states)

    def _read(self, states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            found: torch.Tensor = self.head(states)
        return found

    def cross_entropy(self, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the rows' losses in nats, in fp32; targets and weights (rows,)."""
        if type(self.head) is torch.nn.Linear and self.dtype is not torch.float16:
            head = self.head
            dtype = self.dtype or self.states.dtype
            found: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
                self.states, head.weight, head.bias, targets, weights, dtype, torch.is_grad_enabled()
            )
            return found
        chunks = zip(*(part.split(self._rows(targets)) for part in (self.states, targets, weights)), strict=True)
        return torch.stack(
            [checkpoint(self._sum, *chunk, use_reentrant=False, preserve_rng_state=True) for chunk in chunks]
        ).sum()

    def _rows(self, targets: torch.Tensor) -> int:
        return chunk_rows(getattr(self.head, "out_features", CHUNK_BYTES))

    def _sum(self, states: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (cross_entropy(self._read(states).float(), targets, reduction="none") * weights).sum()


def chunk_rows(vocabulary: int) -> int:
    """Rows of a chunk of logits."""
    return max(FEWEST_ROWS, CHUNK_BYTES // (4 * vocabulary))


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward makes the gradient too, for a loss of weight one: the logits are there but once."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        dtype: torch.dtype,
        learns: bool,
    ) -> torch.Tensor:
        cast = weight.to(dtype)
        shift = None if bias is None else bias.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        dstates = torch.empty_like(states) if learns and ctx.needs_input_grad[0] else None
        dweight = torch.zeros_like(weight) if learns and ctx.needs_input_grad[1] else None
        dbias = torch.zeros_like(bias) if learns and bias is not None and ctx.needs_input_grad[2] else None
        rows = chunk_rows(len(weight))
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            own, aim, share = states[part].to(dtype), targets[part, None], weights[part, None].float()
            logs = linear(own, cast, shift).float().log_softmax(-1)
            total -= (logs.gather(1, aim) * share).sum()
            if dstates is None and dweight is None and dbias is None:
                continue
            dlogits = logs.exp_().scatter_add_(1, aim, -torch.ones_like(share))
            if dbias is not None:
                dbias += (dlogits * share).sum(0)
            dlogits = dlogits.to(dtype)
            if dstates is not None:
                dstates[part] = (dlogits @ cast).float() * share
            if dweight is not None:
                dweight += dlogits.t() @ (own * share).to(dtype)
        ctx.grads = dstates, dweight, dbias
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = grads[0]
        parts = [None if part is None else part * scale.to(part.dtype) for part in ctx.grads]
        return (*parts, None, None, None, None)


def before_head(head: torch.nn.Module, forward: Callable[[], Any]) -> torch.Tensor:
    """What a forward gives as logits where its output layer hands on what it is given, in that one's dtype.

    Raises `ValueError` where the output layer is not called exactly once.
    """
    dtypes: list[torch.dtype] = []

    def hand_on(states: torch.Tensor) -> torch.Tensor:
        dtypes.append(states.dtype)
        return states

    own = head.__dict__.get("forward")  # hooks of other libraries set one on the instance
    head.forward = hand_on  # type: ignore[assignment,method-assign]
    try:
        found = forward()
    finally:
        del head.forward
        if own is not None:
            head.forward = own  # type: ignore[method-assign]
    if len(dtypes) != 1:
        raise ValueError(f"the output layer was called {len(dtypes)} times")
    states: torch.Tensor = found.logits
    return states.to(dtypes[0])


def unread_rows(head: torch.nn.Module, states: torch.Tensor) -> UnreadRows:
    """States as rows whose logits an output layer can make, in the precision that is in force now."""
    kind = states.device.type
    return UnreadRows(states, head, torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None)


@torch.no_grad()
def head_is_last(model: Any) -> bool:
    """Whether logits are what the output layer gives and nothing else: no cap, no scale, nothing added behind it.

    What the model makes of its logits is the same then whether the layer ran or its inputs were handed on.
    """
    head = model.get_output_embeddings()
    if head is None:
        return False
    ids = torch.arange(1, 4, device=model.device)[None]
    was_training = model.training
    model.eval()
    taken: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        states = before_head(head, lambda: model(input_ids=ids, use_cache=False))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False
    finally:
        hook.remove()
        model.train(was_training)
    if states.device.type == "meta":  # without values it is told by the tensor itself
        return states is taken[0]
    return states.shape == taken[0].shape and torch.equal(states, taken[0])
