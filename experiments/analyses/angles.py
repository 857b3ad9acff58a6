"""Angles between micro-teleportations, gradients and random vectors (Armenta et al., section 4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from experiments.analyses.space import angle

PAIRS = ("micro_gradient", "micro_random", "gradient_random", "random_random")


def angles(
    displacements: Iterable[Tensor], gradients: Sequence[Tensor], generator: torch.Generator
) -> Iterator[list[dict[str, float]]]:
    """For each displacement and each gradient the four angles of ``PAIRS``, in degrees.

    A displacement meets one pair of random vectors, standard normal and so uniform in direction, whatever the gradient.

    Args:
        displacements: of micro-teleportations, ``V - W`` [P] each; taken one at a time.
        gradients: [P] each.
        generator: of the random vectors, on the CPU.
    """
    for micro in displacements:
        first, second = (_random(micro, generator) for _ in range(2))
        shared = {"micro_random": angle(micro, first), "random_random": angle(first, second)}
        yield [{"micro_gradient": angle(micro, of), "gradient_random": angle(of, first), **shared} for of in gradients]


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn in single precision, which is as random and much faster."""
    return torch.randn(like.shape, generator=generator).to(like)
