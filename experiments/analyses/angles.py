"""Angles between micro-teleportations, gradients and random vectors (Armenta et al., section 4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from experiments.analyses.space import angle, unit

PAIRS = ("micro_gradient", "micro_random", "gradient_random", "random_random")


def angles(
    displacements: Iterable[Tensor], gradients: Sequence[Tensor], generator: torch.Generator
) -> Iterator[list[dict[str, float]]]:
    """For each displacement and each gradient the four angles of ``PAIRS``, in degrees.

    A displacement meets one random vector, standard normal and so uniform in direction, whatever the gradient. Two
    random vectors are one and the one before it: neighbouring pairs share a vector, and their angles are independent.

    Args:
        displacements: of micro-teleportations, ``V - W`` [P] each; taken one at a time.
        gradients: at least one, [P] each.
        generator: of the random vectors, on the CPU.
    """
    gradients = [unit(of) for of in gradients]
    before = _random(gradients[0], generator)
    for micro in map(unit, displacements):
        other = _random(micro, generator)
        shared = {"micro_random": angle(micro, other), "random_random": angle(before, other)}
        yield [{"micro_gradient": angle(micro, of), "gradient_random": angle(of, other), **shared} for of in gradients]
        before = other


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """A unit vector, drawn in single precision, which is as random and much faster."""
    drawn = torch.randn(like.shape, generator=generator).to(like)
    return drawn.div_(torch.linalg.vector_norm(drawn))
