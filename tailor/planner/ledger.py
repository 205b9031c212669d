"""What a piece of torch code would allocate and compute, found by running it on tensors that have no data.

Every operation passes through `Ledger`, which knows of each storage when it comes and when it goes. Saved activations,
gradients, logits and everything that lives for a moment are counted alike, since what is run is the real code.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

DEVICE_OF = torch.ops.prim.device.default
NUMBER_OF = torch.ops.aten._local_scalar_dense.default
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
HALF = (torch.bfloat16, torch.float16)


class Ledger(TorchDispatchMode):
    """Live bytes after every operation, and the work that was asked for.

    Args:
        held: tensors that are there before, and are not counted.

    `series` holds the live bytes after each operation. `work` counts floating-point operations of products (`products_32`,
    `products_16`) and of attention (`attention`, `attention_backward`), bytes read and written by everything else
    (`bytes`), and operations (`calls`).
    """

    def __init__(self, held: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.series: list[int] = []
        self.work: dict[str, float] = dict.fromkeys(WORK, 0.0)
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            storage = tensor.untyped_storage()
            self._known[id(storage)] = weakref.ref(storage)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and to guard every one of some ten thousand calls against it takes seconds."""
        return False

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operation is DEVICE_OF:
            return args[0].fake_device
        if operation is NUMBER_OF:  # a tensor without data: any number will do, and masks hide nothing
            return args[0].dtype == torch.bool or 1
        found = operation(*args, **kwargs)
        written = sum(self._count(tensor) for tensor in _tensors(found))
        self.series.append(self.live)
        self._add_work(operation, args, kwargs, found, written)
        return found

    def _count(self, tensor: torch.Tensor) -> int:
        """Bytes of a storage that was not there before."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return 0
        self._known[key] = weakref.ref(storage, partial(self._free, key, size))
        self.live += size
        return size

    def _free(self, key: int, size: int, _: Any) -> None:
        self.live -= size
        self._known.pop(key, None)

    def _add_work(self, operation: Any, args: Any, kwargs: Any, found: Any, written: int) -> None:
        in_place = operation._schema.is_mutable
        if not written and not in_place:  # a view
            return
        self.work["calls"] += 1
        kind = ATTENTION_KINDS.get(operation)
        if kind is not None:
            self.work[kind] += _attention_work(operation, args)
            return
        formula = flop_registry.get(operation._overloadpacket)
        if formula is not None:
            half = next(_tensors(found)).dtype in HALF
            self.work["products_16" if half else "products_32"] += formula(*args, **kwargs, out_val=found)
            return
        inputs = sum(tensor.nbytes for tensor in _tensors(args))
        self.work["bytes"] += inputs + (written or next(_tensors(args)).nbytes)


ATTENTION_KINDS = {ATTENTION: "attention", ATTENTION_BACKWARD: "attention_backward"}
WORK = ("products_32", "products_16", "attention", "attention_backward", "bytes", "calls")


def _attention_work(operation: Any, args: Any) -> int:
    """Of the whole square: what causality spares is in the rate that was measured, which is causal too."""
    if operation is ATTENTION:
        query, key, value = args[:3]
        return int(sdpa_flop_count(query.shape, key.shape, value.shape))
    gradient, query, key, value = args[:4]
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def ghosts() -> FakeTensorMode:
    """The mode under which tensors have shape, dtype and device, and no data."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def as_ghost(model: torch.nn.Module, mode: FakeTensorMode, device: str) -> None:
    """Put tensors without data in the place of a model's own; tied ones stay tied."""
    made: dict[int, Any] = {}

    def ghost(value: torch.Tensor) -> Any:
        if id(value) not in made:
            bare = FakeTensor(mode, value.detach().to("meta"), torch.device(device))
            moves = value.requires_grad
            kept = torch.nn.Parameter(bare, moves) if isinstance(value, torch.nn.Parameter) else bare
            made[id(value)] = (kept, value)  # the tensor is kept, so that its id stays its own
        return made[id(value)][0]

    for module in model.modules():
        for table in (module._parameters, module._buffers):
            held: Mapping[str, Any] = dict(table)
            for name, value in held.items():
                if value is not None:
                    table[name] = ghost(value)
