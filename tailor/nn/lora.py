"""A frozen linear layer and what LoRA learns beside it, as one function with a gradient of its own.

By autograd W x + s B A x makes four products and three passes over the outputs, and keeps A's input once more where it is
cast. Here what is kept for the gradient is the layer's input alone. In fp32 the factors are multiplied into a copy of W
where there are more rows than that costs, so that one product does the work of three, and the copy is dropped at once. In
half precision they are not: a small B A would be rounded away beside W.
"""

from typing import Any

import torch
from torch.nn.functional import linear

Factors = tuple[torch.Tensor, torch.Tensor]


def lora_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, factors: Factors, scale: float
) -> torch.Tensor:
    """x W' + bias with W' = W + scale B A (Hu et al. 2021, section 4.1), in the dtype of x and W.

    Args:
        x: (..., in). weight: (out, in), frozen. bias: (out,), frozen.
        factors: A (rank, in) and B (out, rank), in any float dtype; their gradients come in it.

    Returns:
        (..., out).
    """
    found: torch.Tensor = _LoraLinear.apply(x, weight, bias, *factors, scale)  # type: ignore[no-untyped-call]
    return found


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.scale = scale
        ctx.save_for_backward(x, weight, a, b)
        if _merging_pays(x, weight):
            return linear(x, _merged(weight, a, b, scale), bias)
        low = linear(x, a.to(x.dtype)).flatten(0, -2)
        y = linear(x, weight, bias)
        y.view(low.shape[0], -1).addmm_(low, b.to(x.dtype).t(), alpha=scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        scale, dtype = ctx.scale, x.dtype
        dy, rows = grads[0].reshape(-1, weight.shape[0]), x.reshape(-1, weight.shape[1])
        down, up = a.to(dtype), b.to(dtype)
        dlow = dy @ up
        da = (dlow.t() @ rows).to(a.dtype).mul_(scale)
        db = (dy.t() @ (rows @ down.t())).to(b.dtype).mul_(scale)
        dx = None
        if ctx.needs_input_grad[0]:
            if _merging_pays(x, weight):
                dx = dy @ _merged(weight, a, b, scale)
            else:
                dx = (dy @ weight).addmm_(dlow, down, alpha=scale)
            dx = dx.view(x.shape)
        return dx, None, None, da, db, None


def _merging_pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether B A costs less than A and B on every row: rank x in x out against rank x rows x (in + out)."""
    out, width = weight.shape
    rows = x.numel() // width
    return x.dtype == torch.float32 and rows * (width + out) > width * out


def _merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.addmm(weight, b.to(weight.dtype), a.to(weight.dtype), alpha=scale)
