"""``match``: the element of a network's symmetry group that brings it nearest to another network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_batches, check_call, check_choice, check_positive, check_whole, seeded
from teleport._change_of_basis.common_move import half_tolerance
from teleport._change_of_basis.group_change import GROUPS, GroupName
from teleport._change_of_basis.group_value import GroupChange
from teleport._matching.activations import Place, activation_pairs, symmetries_and_activations
from teleport._matching.assignment import solver
from teleport._matching.groups import Groups, Moved
from teleport._matching.same_architecture import check_same, check_same_symmetries
from teleport._matching.search import Search
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.find_symmetries import find_symmetries, persistent_buffers
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.outputs import Forward, call_model, difference, outputs_of
from teleport._tracing.preconditions import check_model, check_tensors
from teleport._tracing.undisturbed import ModelState, undisturbed


@dataclass
class Match:
    """A network, moved within its orbit as near to another as was found.

    Attributes:
        model: the moved network: a copy of ``b``, or ``b`` itself if that was asked for.
        change: the element that moved it, to apply to another copy, undo or compose.
        distance_before, distance_after: the norm of the difference of all parameters of ``a`` and ``b``.
        parameters: name -> this norm before and after, of each parameter.
        difference: how far the outputs of ``b`` moved on the batches, the largest difference relative to the largest
            output; ``nan`` without batches.
        symmetries: of ``b``.
        seconds: the time of the call.
    """

    model: nn.Module = field(repr=False)
    change: GroupChange = field(repr=False)
    distance_before: float
    distance_after: float
    parameters: dict[str, tuple[float, float]] = field(repr=False)
    difference: float
    symmetries: Symmetries = field(repr=False)
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"match: distance {self.distance_before:.4g} -> {self.distance_after:.4g}, "
            f"outputs moved by {self.difference:.1e}, {self.seconds:.2f} s",
            *(f"  {name}: {before:.4g} -> {after:.4g}" for name, (before, after) in self.parameters.items()),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "distance_before": self.distance_before,
            "distance_after": self.distance_after,
            "parameters": {name: list(each) for name, each in self.parameters.items()},
            "difference": self.difference,
            "seconds": self.seconds,
        }


def match(
    a: nn.Module,
    b: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    by: Literal["weights", "activations"] = "weights",
    group: GroupName = "all",
    forward: Forward | None = None,
    symmetries: Symmetries | None = None,
    restarts: int = 0,
    sweeps: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
    in_place: bool = False,
) -> Match:
    """The element of the symmetry group of ``b`` that brings its parameters nearest to those of ``a``.

    The function of ``b`` stays. Permutations are found by coordinate descent over vertices with the assignment problem
    at each (Ainsworth et al. 2023, Algorithm 1), rotations by Procrustes' problem, heads together with the element
    inside of each, factors and invertible matrices by Newton steps. The descent starts from the identity and from an
    order in which vertices nearest to what is fixed come first; of a larger group also between both networks at their
    least norm. The nearest of what is reached is taken: a local optimum, as the problem is hard.

    Args:
        a: stays as it is.
        b: of the same architecture.
        batches: show the structure (the first), give the activations, and check that the function stays. May be
            ``None`` if ``symmetries`` are given and the match is by weights.
        by: ``"weights"``, or ``"activations"``: permutations and rotations by the correlation of units over samples and
            positions of all batches (Li et al. 2016). Units that a fused function hides, factors and matrices follow by
            weights.
        group: what may act, as of ``teleport.ChangeOfBasis``: ``"permutation"`` (with signs where an odd function
            allows them), ``"scaling"``, ``"orthogonal"``, ``"general"`` or ``"all"``.
        forward: ``forward(model, batch)``, one evaluation; by default as of ``teleport.ChangeOfBasis``.
        symmetries: of ``b``, if they are known.
        restarts: random elements from which the descent starts, too.
        sweeps: the most rounds of one descent.
        tolerance: how far outputs may move, relative to the largest; of a model in half precision at least 16 of its
            rounding errors.
        seed: of the order of updates and of random starts.
        in_place: move ``b`` itself instead of a copy.

    Raises:
        ValueError: the architectures differ, a value is not finite, no batches without ``symmetries``, or the outputs
            moved by more than the tolerance; then ``b`` is as before.
        ModuleNotFoundError: scipy is missing, which finds permutations (``pip install 'teleport-suite[match]'``).
    """
    start = time.perf_counter()
    evaluate, held = forward or call_model, _held(batches)
    _check(a, b, held, by, group, evaluate, symmetries, in_place)
    check_whole(restarts=restarts, sweeps=sweeps)
    check_positive(tolerance=tolerance)
    generator = seeded(seed)
    model = b if in_place else copy.deepcopy(b)
    found, axes = _found(a, model, held, by, evaluate, symmetries)
    named = {name: each for name, each in model.named_parameters() if each.is_floating_point()}
    groups = Groups.of(found, group, list(named))
    if any(kind.assigns for kind in groups.kinds.values()):
        solver()  # which tells that scipy is missing before anything is computed
    first = _values_beside(a, named)
    moving = {**{name: each for name, each in persistent_buffers(model).items() if name in found.axes}, **named}
    second = {name: each.detach().double().clone() for name, each in moving.items()}
    search = Search(groups, first, second, generator, sweeps)
    starts = [_random(found, group, generator) for _ in range(restarts)]
    if by == "activations":
        moved = search.nearest_by(activation_pairs(a, model, held, evaluate, axes, groups.kinds), starts)
    else:
        moved = search.nearest(starts)
    before = _distances(first, named)
    moves = _move(model, moving, moved, held, evaluate, half_tolerance(tolerance, named.values()))
    after = _distances(first, named)
    return Match(
        model=model,
        change=GroupChange(moved.parts),
        distance_before=math.hypot(*before.values()),
        distance_after=math.hypot(*after.values()),
        parameters={name: (before[name], after[name]) for name in first},
        difference=moves,
        symmetries=found,
        seconds=time.perf_counter() - start,
    )


def _held(batches: Iterable[Any] | None) -> list[Any]:
    if batches is None:
        return []
    check_batches("batches", batches)
    return list(batches)


def _check(
    a: nn.Module,
    b: nn.Module,
    held: Sequence[Any],
    by: str,
    group: str,
    evaluate: Forward,
    symmetries: Symmetries | None,
    in_place: bool,
) -> None:
    """Refuse arguments that no match can be made of; see :func:`match`."""
    for each in (a, b):
        check_call(each, held, evaluate)
        check_model(each)
    check_choice("by", by, ("weights", "activations"))
    check_choice("group", group, GROUPS)
    if not isinstance(in_place, bool):
        raise TypeError(f"in_place must be True or False, got {in_place!r}")
    if by == "activations" and (not held or symmetries is not None):
        raise ValueError('by="activations" needs batches, and finds the symmetries itself: leave out symmetries')
    if not held and symmetries is None:
        raise ValueError("match needs a batch that shows the structure of b, or the symmetries of b")
    check_tensors(held)
    check_same(a, b)


def _found(
    a: nn.Module, b: nn.Module, held: Sequence[Any], by: str, evaluate: Forward, symmetries: Symmetries | None
) -> tuple[Symmetries, Mapping[Place, Axes]]:
    """The symmetries of ``b``, which must be those of ``a``, and the axes of its activations."""
    if symmetries is not None:
        return symmetries, {}
    if by == "activations":
        found, axes = symmetries_and_activations(b, held[0], evaluate)
    else:
        found, axes = find_symmetries(b, held[0], evaluate), {}
    check_same_symmetries(find_symmetries(a, held[0], evaluate), found)
    return found, axes


def _values_beside(a: nn.Module, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of ``a`` with these names, float64, on the devices of those of ``b``."""
    return {
        name: each.detach().to(named[name].device, torch.float64)
        for name, each in a.named_parameters()
        if name in named
    }


def _random(symmetries: Symmetries, group: str, generator: torch.Generator) -> Sequence[AxisAction]:
    """A random element that keeps norms."""
    return symmetries.sample(group, generator, (1.0, 1.0)).actions


def _distances(first: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float((each - named[name].detach().double()).norm()) for name, each in first.items()}


def _move(
    model: nn.Module,
    moving: Mapping[str, Tensor],
    moved: Moved,
    batches: Sequence[Any],
    evaluate: Forward,
    tolerance: float,
) -> float:
    """Write the moved values into a model; how far its outputs moved."""

    def outputs() -> list[list[Tensor]]:
        def evaluated(state: ModelState) -> list[list[Tensor]]:
            return [state.evaluate(partial(outputs_of, model, batch, evaluate)) for batch in batches]

        return undisturbed(model, evaluated)

    old = {name: each.detach().clone() for name, each in moving.items()}
    before = outputs()
    try:
        _write(moving, moved.tensors)
        moves = [difference(one, other) for one, other in zip(before, outputs(), strict=True)]
        if any(not each <= tolerance for each in moves):
            raise ValueError(
                f"an output of b moved by {max(moves):.3g} of the largest, more than the tolerance {tolerance:g}, so b "
                "stays as it was"
            )
    except BaseException:
        _write(moving, old)
        raise
    return max(moves, default=math.nan)


@torch.no_grad()
def _write(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, each in tensors.items():
        each.copy_(values[name])
