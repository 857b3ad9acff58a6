"""The report of where a model stands on the orbit of its symmetries."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._arguments import check_call, check_generator, check_positive, check_whole
from teleport._engine.batch_loss import BatchLoss
from teleport._engine.contract import LossFn
from teleport._engine.loss_call import scalar
from teleport._engine.transaction import Snapshot, all_or_nothing
from teleport._orbits.balance import vertices_of
from teleport._orbits.least_norm import least_norm, squared_norm
from teleport._orbits.report import OrbitReport
from teleport._orbits.sharpness import measures
from teleport._symmetry_groups.find_symmetries import trace_symmetries
from teleport._symmetry_groups.places import trained
from teleport._symmetry_groups.tangents import TangentSpace, smallest_share
from teleport._tracing.evaluations import modes_of
from teleport._tracing.preconditions import check_model, check_tensors
from teleport._tracing.replicas import check_unsharded
from teleport._tracing.undisturbed import ModelState


def orbit_report(
    model: nn.Module,
    batch: Any,
    loss_fn: LossFn,
    *,
    iterations: int = 50,
    probes: int = 8,
    generator: torch.Generator | None = None,
) -> OrbitReport:
    """Where a model stands on the orbit of its symmetries; the model is as before afterwards.

    The report has the component of the gradient along the orbit, which is zero to rounding for any unmodified network;
    the imbalance of each vertex, which gradient flow keeps; the squared norm above its least value on the orbit; and
    measures of sharpness, each with the symmetries that leave it as it is, of the model and of the point of least norm.

    Args:
        model: any module; in evaluation mode meanwhile.
        batch: what ``loss_fn`` takes.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        iterations: of the power iterations, at most.
        probes: of the estimates of a trace.
        generator: on the CPU, of start vectors and probes; by default of the seed 0.

    Raises:
        ValueError: no trainable parameter, or ``iterations`` or ``probes`` below 1.
        UnsupportedModel: the loss cannot be differentiated twice, or the parameters are sharded.
    """
    _check(model, batch, loss_fn, iterations, probes, generator)
    modes, source = modes_of(model), generator or torch.Generator().manual_seed(0)

    def work(before: Snapshot, state: ModelState) -> OrbitReport:
        @torch.enable_grad()
        def evaluate() -> Tensor:
            return scalar(state.evaluate(partial(loss_fn, model, batch)))

        symmetries = trace_symmetries(model, [evaluate], modes, [batch])
        named = trained(model)
        space = TangentSpace(symmetries, list(named))
        loss = BatchLoss(evaluate, list(named.values()))
        point = loss.point(differentiable=False)
        values = {name: each.detach().double() for name, each in named.items()}
        gradient = dict(zip(named, (_dense(each) for each in point.gradients), strict=True))
        least = least_norm(symmetries, values)
        found = measures(loss, iterations, probes, source, least=False)
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(least[name])
        moved = float(loss.value())
        found += measures(loss, iterations, probes, source, least=True)
        before.restore()
        here = float(point.loss)
        return OrbitReport(
            space.dimension,
            here,
            space.share(values, gradient, smallest_share(named.values())),
            squared_norm(values) / (squared_norm(least) or 1.0) - 1,
            vertices_of(space, values),
            found,
            abs(moved - here) / max(1.0, abs(here)),
        )

    return all_or_nothing(model, work)


def _check(
    model: nn.Module, batch: Any, loss_fn: LossFn, iterations: int, probes: int, generator: torch.Generator | None
) -> None:
    """Refuse arguments that no report can be made of; see :func:`orbit_report`."""
    check_call(model, [batch], loss_fn)
    check_whole(iterations=iterations, probes=probes)
    check_positive(iterations=iterations, probes=probes)
    check_generator(generator)
    check_model(model)
    check_unsharded(model)
    check_tensors([batch])
    if not trained(model):
        raise ValueError("the model has no trainable parameter")


def _dense(gradient: Tensor) -> Tensor:
    return (gradient.to_dense() if gradient.is_sparse else gradient).detach().double()
