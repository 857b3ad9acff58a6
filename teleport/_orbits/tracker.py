"""How far each step of a training goes along the orbit of the network's symmetries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from teleport._orbits.balance import relative
from teleport._orbits.report import OrbitDrift, OrbitStep
from teleport._symmetry_groups.find_symmetries import find_symmetries
from teleport._symmetry_groups.places import trained
from teleport._symmetry_groups.tangents import TangentSpace, norm, smallest_share
from teleport._tracing.outputs import Forward
from teleport._tracing.replicas import check_unsharded


class OrbitTracker:
    """Measures after each step of an optimizer how far it went along the orbit of the network's symmetries.

    The gradient has no component along the orbit, so that a step of gradient descent has none, and what gradient flow
    conserves moves by the square of the rate only. Steps of Adam, Muon and others do have one: they move the network
    between points that compute the same function (Kunin et al. 2021).

    ``tracker.step()`` goes after each ``optimizer.step()``; it costs some passes over the weights and a copy of them::

        tracker = OrbitTracker(model, batch)
        for batch in loader:
            ...
            optimizer.step()
            tracker.step()
        print(tracker.report())

    Args:
        model: any module; its symmetries are found once, by :func:`teleport.find_symmetries`.
        batch: shows the model's structure.
        forward: ``forward(model, batch)``, one evaluation; by default as of ``teleport.ChangeOfBasis``.

    Raises:
        ValueError: the model has no trainable parameter.
        UnsupportedModel: as of ``find_symmetries``, or the parameters are sharded.
    """

    def __init__(self, model: nn.Module, batch: Any, forward: Forward | None = None) -> None:
        symmetries = find_symmetries(model, batch, forward)
        check_unsharded(model)
        self._named = trained(model)
        if not self._named:
            raise ValueError("the model has no trainable parameter")
        self._space = TangentSpace(symmetries, list(self._named))
        self._smallest = smallest_share(self._named.values())
        self._before = self._values()
        self._first = self._moments = self._space.moments(self._before)
        self._sizes = self._space.sizes(self._before)
        self._steps: list[OrbitStep] = []

    @torch.no_grad()
    def step(self) -> OrbitStep:
        """Measure what moved since the last call, or since the tracker was made."""
        space, now, before = self._space, self._values(), self._before
        moves = {name: each - before[name] for name, each in now.items()}
        moments, old = space.moments(now), self._moments
        size, length = norm(before), norm(moves)
        epsilon = max(torch.finfo(each.dtype).eps for each in self._named.values())
        found = OrbitStep(
            step=len(self._steps) + 1,
            update=length / size if size else 0.0,
            tangent=space.share(before, moves, self._smallest),
            rounding=epsilon / 2 * size / length if length else 0.0,
            drift=relative(moments.combined(-1.0, old), self._sizes),
            total_drift=relative(moments.combined(-1.0, self._first), self._sizes),
            imbalance=relative(moments, space.sizes(now)),
        )
        self._before, self._moments = now, moments
        self._steps.append(found)
        return found

    def report(self) -> OrbitDrift:
        """All steps so far."""
        count = sum(each.numel() for each in self._named.values())
        dimension = self._space.dimension
        return OrbitDrift(dimension, (dimension / count) ** 0.5, list(self._steps))

    def _values(self) -> dict[str, Tensor]:
        return {name: each.detach().to(torch.float64, copy=True) for name, each in self._named.items()}
