"""Whether two models have one architecture, as far as their parameters and what was found on them tell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from teleport._symmetry_groups.symmetries import Symmetries


def check_same(a: nn.Module, b: nn.Module) -> None:
    """Refuse models whose parameters differ in name or shape, or have a value that is not finite.

    Raises:
        ValueError: the sentence names the first such parameter.
    """
    first, second = dict(a.named_parameters()), dict(b.named_parameters())
    for one, other, owner, lacking in ((first, second, "a", "b"), (second, first, "b", "a")):
        if missing := [name for name in one if name not in other]:
            raise ValueError(
                f"a and b must have the same architecture: {lacking} has no parameter {missing[0]!r}, which {owner} has"
            )
    for name, held in first.items():
        if held.shape != second[name].shape:
            raise ValueError(
                f"a and b must have the same architecture: {name!r} has shape {list(held.shape)} in a and "
                f"{list(second[name].shape)} in b"
            )
    for owner, named in (("a", first), ("b", second)):
        for name, held in named.items():
            if not bool(torch.isfinite(held).all()):
                raise ValueError(f"'{name}' of {owner} has a value that is not finite, so nothing is near it")


def check_same_symmetries(a: Symmetries, b: Symmetries) -> None:
    """Refuse models that use parameters of one name and shape in different ways.

    Raises:
        ValueError: the sentence names a parameter, if one tells them apart.
    """
    if a.axes == b.axes and a.levels == b.levels and a.companions == b.companions and _same_factors(a, b):
        return
    names = [
        name
        for name in {**a.axes, **b.axes}
        if a.axes.get(name) != b.axes.get(name) or a.pinned.get(name) != b.pinned.get(name)
    ]
    where = f", as of {names[0]!r}" if names else ""
    raise ValueError(f"a and b must have the same architecture: other symmetries were found on a than on b{where}")


def _same_factors(a: Symmetries, b: Symmetries) -> bool:
    def classes(of: Symmetries) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (each.output_class, each.input_class) for name, each in of.quiver.scaled.items()}

    first, second = classes(a), classes(b)
    return (
        list(first) == list(second)
        and torch.equal(a.quiver.freedom.cpu(), b.quiver.freedom.cpu())
        and all(
            torch.equal(one.cpu(), other.cpu())
            for name in first
            for one, other in zip(first[name], second[name], strict=True)
        )
    )
