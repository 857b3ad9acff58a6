"""The report of an orbit against closed forms and dense Hessians, and what the measures are invariant to."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import ChangeOfBasis, orbit_report
from tests.teleport.orbits.test_tangents import mlp
from tests.teleport.symmetry_networks import Attention


def loss_fn(model, batch):
    outputs = model(batch[0])
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), batch[1])


def batch_of(*shape: int, classes: int = 3):
    torch.manual_seed(5)
    count = torch.Size(shape[:-1]).numel()
    return torch.randn(shape, dtype=torch.float64), torch.arange(count) % classes


def hessian_of(model: nn.Module, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense, with the parameters in one vector."""
    named = {name: each.detach() for name, each in model.named_parameters()}
    sizes = [each.numel() for each in named.values()]

    def loss(vector):
        parts = zip(named.items(), vector.split(sizes), strict=True)
        moved = {name: part.reshape(each.shape) for (name, each), part in parts}
        return F.cross_entropy(torch.func.functional_call(model, moved, (batch[0],)), batch[1])

    vector = torch.cat([each.flatten() for each in named.values()])
    return torch.autograd.functional.hessian(loss, vector), vector


def of(report, name: str):
    return next(each for each in report.measures if each.name == name)


def test_excess_of_a_hidden_layer_of_relu_is_that_of_the_closed_form():
    """The least of ``t^2 a^2 + b^2 / t^2`` is ``2 a b``."""
    torch.manual_seed(6)
    model, batch = mlp(4, 9, 3).double(), batch_of(8, 4)
    incoming = (model[0].weight.square().sum(1) + model[0].bias.square()).sqrt()
    outgoing, rest = model[2].weight.norm(dim=0), model[2].bias.square().sum()
    least = 2 * (incoming * outgoing).sum() + rest
    whole = sum(each.square().sum() for each in model.parameters())
    found = orbit_report(model, batch, loss_fn, iterations=1, probes=1)
    assert found.excess == pytest.approx(float((whole / least - 1).detach()), rel=1e-9)
    assert found.difference < 1e-14
    assert found.gradient_tangent < 1e-14


def test_excess_of_linear_maps_is_that_of_the_nuclear_norm():
    """The least of ``|A|^2 + |B|^2`` at a product ``B A`` is twice the sum of its singular values."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 3, bias=False), nn.Linear(3, 5, bias=False)).double()
    least = 2 * torch.linalg.svdvals(model[1].weight @ model[0].weight).sum()
    whole = model[0].weight.square().sum() + model[1].weight.square().sum()
    found = orbit_report(model, batch_of(8, 6, classes=5), loss_fn, iterations=1, probes=1)
    assert found.excess == pytest.approx(float((whole / least - 1).detach()), rel=1e-9)
    (vertex,) = found.vertices
    moment = model[0].weight @ model[0].weight.mT - model[1].weight.mT @ model[1].weight
    sides = [(each.mT @ each).norm() for each in (model[0].weight.mT, model[1].weight)]
    assert vertex.imbalance == pytest.approx(float((moment.norm() / sum(sides)).detach()))
    assert vertex.group == "general linear"


@pytest.mark.slow
def test_measures_are_those_of_the_dense_hessian():
    torch.manual_seed(8)
    model, batch = mlp(4, 6, 3).double(), batch_of(12, 4)
    report = orbit_report(model, batch, loss_fn, iterations=500, probes=200)
    hessian, vector = hessian_of(model, batch)
    scaled = vector.abs()[:, None] * hessian * vector.abs()
    for prefix, dense in (("", hessian), ("adaptive ", scaled)):
        values = torch.linalg.eigvalsh(dense)
        largest = values[values.abs().argmax()]
        name = f"{prefix or 'largest '}eigenvalue"
        assert of(report, name).value == pytest.approx(float(largest), rel=1e-2)
        trace = of(report, f"{prefix}trace")
        assert abs(trace.value - float(dense.trace())) < 4 * trace.error


@pytest.mark.slow
@pytest.mark.parametrize("group", ["permutation", "orthogonal", "scaling", "general"])
def test_measures_stay_under_what_they_are_marked_by_and_change_under_the_rest(group):
    """Gradient norms and eigenvalues; of traces the estimates are random."""
    torch.manual_seed(9)
    relu = group == "scaling"
    model, shape = (mlp(5, 8, 4), (12, 5)) if relu else (Attention(norm=False), (2, 3, 5))
    model, batch = model.double(), batch_of(*shape, classes=4)
    options = {"iterations": 600, "probes": 1}
    before = orbit_report(model, batch, loss_fn, **options)
    ChangeOfBasis(group=group, range=0.8, seed=1)(model, [batch], loss_fn)
    after = orbit_report(model, batch, loss_fn, **options)
    word = {
        "permutation": "permutations",
        "orthogonal": "rotations",
        "scaling": "scalings",
        "general": "general matrices",
    }[group]
    for one, other in zip(before.measures, after.measures, strict=True):
        assert one.name == other.name
        if "trace" in one.name:
            continue
        moved = abs(other.value / one.value - 1)
        if word in one.invariant:
            assert moved < 1e-2, one.name
        else:
            assert moved > 2e-2, one.name


def test_the_model_stays_and_the_report_is_plain():
    torch.manual_seed(10)
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(14)), nn.Dropout(0.5)
    )  # 13 vertices
    batch = tuple(each.float() if each.is_floating_point() else each for each in batch_of(6, 5))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    state = torch.get_rng_state()
    found = orbit_report(model, batch, loss_fn, iterations=3, probes=2)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(each.training for each in model.modules())
    assert len(str(found).splitlines()) <= 24
    assert "5 more vertices" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["dimension"] == 65
    assert len(found.to_frame()) == 13
    assert list(found.to_frame("measures")["name"]) == [each.name for each in found.measures]
    with pytest.raises(ValueError, match="vertices"):
        found.to_frame("layers")


def test_an_error_leaves_the_model_as_it_is():
    """Also where it comes at the point of least norm, which is the last."""
    model, batch = mlp(4, 6, 3).double(), batch_of(12, 4)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    calls: list[bool] = []

    def failing(model, batch, last=0):
        calls.append(True)
        if len(calls) == last:
            assert not bool((model.state_dict()["0.weight"] == before["0.weight"]).all())
            raise RuntimeError("at another point")
        return loss_fn(model, batch)

    orbit_report(model, batch, failing, iterations=1, probes=1)
    last = len(calls)
    calls.clear()
    with pytest.raises(RuntimeError, match="at another point"):
        orbit_report(model, batch, lambda *each: failing(*each, last), iterations=1, probes=1)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_mistakes_are_refused():
    model, batch = mlp(4, 6, 3).double(), batch_of(12, 4)
    with pytest.raises(ValueError, match="iterations"):
        orbit_report(model, batch, loss_fn, iterations=0)
    with pytest.raises(ValueError, match="no trainable parameter"):
        orbit_report(model.requires_grad_(False), batch, loss_fn)
