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
    held: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    prefix: str,
    head: Collection[str],
    marks: Collection[str],
    modules: Collection[str],
) -> dict[str, torch.Tensor]:
    """What of an adapter's file a model takes over, by the model's names: all of its layers, and the head where it fits.

    Args:
        held, own: weights of the file, and of the model's own adapter with its head.
        prefix: what the trunk is called in a model with a head.
        head: those of `own` that are a head's, which a model may have otherwise than the file.
        marks: what stands in the name of an adapter's weight behind the name of the module that it adapts.
        modules: names of the model's modules.

    Raises:
        ValueError: a layer has no weight in the file, or one of another shape; or the file adapts a module that the model
            has too and that is not adapted here. What adapts a head that the model does not have is left behind.
    """
    places = places_of(held, own, prefix)
    found = {new: held[old] for old, new in places.items() if held[old].shape == own[new].shape}
    lacking = sorted(set(own) - set(found) - set(head))
    if lacking:
        raise ValueError(f"{len(lacking)} weights of this recipe's layers are not in it, {lacking[0]} among them")
    adapted = [_adapted(name, marks) for name in held if places.get(name) not in found]
    lost = sorted(places_of([name for name in adapted if name is not None], modules, prefix))
    if lost:
        raise ValueError(f"it adapts {len(lost)} modules that this recipe does not, {lost[0]} among them")
    return found


def _adapted(name: str, marks: Collection[str]) -> str | None:
    """The module that a weight adapts; None for a head's own."""
    return next((name.partition(mark)[0] for mark in marks if mark in name), None)
