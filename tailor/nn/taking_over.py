"""Weights of an adapter that was saved, found again in a model that has the same one laid on."""

from collections.abc import Callable, Collection, Mapping

import torch


def places_of(held: Collection[str], own: Collection[str], prefix: str) -> dict[str, str]:
    """Names in a file -> as a model calls them, whose trunk may have another name or none; what has no place is left out.

    Args:
        held: names of weights, as the model that they were made on calls them.
        own: the model's own names; prefix: what its trunk is called in a model with a head.
    """
    ways: tuple[Callable[[str], str], ...] = (
        lambda name: name,
        lambda name: f"{prefix}.{name}",
        lambda name: name.partition(".")[2],
        lambda name: f"{prefix}.{name.partition('.')[2]}",
    )
    fitting = {name: [way(name) for way in ways if way(name) in own] for name in held}
    return {name: found[0] for name, found in fitting.items() if found}


def taken_over(
    held: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], prefix: str, head: Collection[str]
) -> dict[str, torch.Tensor]:
    """What of an adapter's file a model takes over, by the model's names: all of its layers, and the head where it fits.

    Args:
        held, own: weights of the file, and of the model's own adapter with its head.
        prefix: what the trunk is called in a model with a head.
        head: those of `own` that are a head's, which a model may have otherwise than the file.

    Raises:
        ValueError: a layer has no weight in the file, or one of another shape.
    """
    places = places_of(held, own, prefix)
    found = {new: held[old] for old, new in places.items() if held[old].shape == own[new].shape}
    lacking = sorted(set(own) - set(found) - set(head))
    if lacking:
        raise ValueError(f"{len(lacking)} of its weights have no counterpart, {lacking[0]} among them")
    return found
