"""The tangent space of an orbit against bases written by hand, and the gradient, which has no component in it."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import find_symmetries
from teleport._symmetry_groups.tangents import TangentSpace
from tests.teleport.symmetry_networks import Adapted, Attention, Images, Packed, Rotatable

ROUNDING = 1e-14


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(sizes):
        layers += [nn.Linear(one, other), activation()]
    return nn.Sequential(*layers[:-1])


NETWORKS = {
    "mlp": (lambda: mlp(5, 12, 9, 4), (6, 5)),
    "linear maps": (lambda: mlp(5, 7, 6, 4, activation=nn.Identity), (6, 5)),
    "attention": (Attention, (2, 3, 5)),
    "attention without norm": (lambda: Attention(norm=False), (2, 3, 5)),
    "rotary, grouped": (lambda: Attention(key_heads=1, rotary=True), (2, 3, 5)),
    "packed attention": (Packed, (2, 3, 6)),
    "convolutions": (Images, (2, 3, 6, 6)),
    "low rank": (Adapted, (4, 5)),
    "rotated stream": (Rotatable, (4, 5)),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 3, 8)),
    "torch's attention": (lambda: nn.Sequential(nn.Linear(3, 8), SelfAttention(), nn.Linear(8, 2)), (2, 5, 3)),
}


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def made(name: str):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return make().double().eval(), torch.randn(shape, dtype=torch.float64)


def space_of(model: nn.Module, x: torch.Tensor):
    symmetries = find_symmetries(model, x)
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    return TangentSpace(symmetries, list(named)), {name: each.detach() for name, each in named.items()}, symmetries


def gradient_of(model: nn.Module, x: torch.Tensor, parameters) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    outputs = model(x)
    target = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(
        F.mse_loss(outputs, target), [named[name] for name in parameters], allow_unused=True, materialize_grads=True
    )
    return dict(zip(parameters, found, strict=True))


FEW = ("mlp", "attention without norm")
ALL = [each if each in FEW else pytest.param(each, marks=pytest.mark.slow) for each in NETWORKS]


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_has_no_component_along_the_orbit_and_its_signs_do(name):
    """Of networks that nobody changed for it, in float64. The signs are what Adam's first step is."""
    model, x = made(name)
    space, parameters, symmetries = space_of(model, x)
    gradient = gradient_of(model, x, parameters)
    assert 0 < space.dimension <= symmetries.dimension
    assert space.share(parameters, gradient) < ROUNDING
    signs = {each: of.sign() for each, of in gradient.items()}
    assert space.share(parameters, signs) > 0.01


@pytest.mark.parametrize("name", ALL)
def test_a_move_along_the_orbit_is_a_component_of_itself(name):
    """And that move, taken for a short time, changes the function at second order only."""
    model, x = made(name)
    space, parameters, _ = space_of(model, x)
    random = {each: torch.randn_like(of) for each, of in parameters.items()}
    move = space.tangent(parameters, space.adjoint(parameters, random))
    assert space.share(parameters, move) == pytest.approx(1, abs=1e-5)
    length = sum(each.square().sum() for each in move.values()).sqrt()
    before, differences = model(x), []
    for size in (1e-3, 1e-4):
        moved = {each: of + size / length * move[each] for each, of in parameters.items()}
        differences.append((torch.func.functional_call(model, moved, (x,)) - before).abs().max())
    assert differences[1] < 0.02 * differences[0]


def scalings_of_mlp(parameters: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """How the factor of each hidden unit of a network of two layers moves it."""
    basis = []
    for unit in range(len(parameters["0.bias"])):
        move = {name: torch.zeros_like(each) for name, each in parameters.items()}
        move["0.weight"][unit] = parameters["0.weight"][unit]
        move["0.bias"][unit] = parameters["0.bias"][unit]
        move["2.weight"][:, unit] = -parameters["2.weight"][:, unit]
        basis.append(move)
    return basis


def matrices_of_linear_maps(parameters: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """How each matrix with a single 1 between two linear maps moves them."""
    basis = []
    units = len(parameters["0.bias"])
    for row, column in itertools.product(range(units), repeat=2):
        move = {name: torch.zeros_like(each) for name, each in parameters.items()}
        move["0.weight"][row] = parameters["0.weight"][column]
        move["0.bias"][row] = parameters["0.bias"][column]
        move["2.weight"][:, column] = -parameters["2.weight"][:, row]
        basis.append(move)
    return basis


@pytest.mark.parametrize(
    ("activation", "basis_of"), [(nn.ReLU, scalings_of_mlp), (nn.Identity, matrices_of_linear_maps)]
)
def test_the_share_is_that_of_a_dense_projection(activation, basis_of):
    torch.manual_seed(2)
    model, x = mlp(4, 5, 3, activation=activation).double(), torch.randn(6, 4, dtype=torch.float64)
    space, parameters, _ = space_of(model, x)
    moves = {each: torch.randn_like(of) for each, of in parameters.items()}
    basis = torch.stack([torch.cat([each.flatten() for each in move.values()]) for move in basis_of(parameters)], 1)
    move = torch.cat([each.flatten() for each in moves.values()])
    projected = basis @ torch.linalg.lstsq(basis, move[:, None], driver="gelsd").solution
    assert space.dimension == basis.shape[1]
    assert space.share(parameters, moves) == pytest.approx(float(projected.norm() / move.norm()), rel=1e-5)


def test_moments_are_those_of_both_sides():
    """Squared norms of incoming less outgoing weights of ReLU; of linear maps the difference of the Gram matrices."""
    torch.manual_seed(3)
    x = torch.randn(6, 4, dtype=torch.float64)
    space, parameters, _ = space_of(mlp(4, 5, 3).double(), x)
    first, bias, last = (parameters[name] for name in ("0.weight", "0.bias", "2.weight"))
    found = space.moments(parameters).logarithms
    expected = first.square().sum(1) + bias.square() - last.square().sum(0)
    torch.testing.assert_close(found[found != 0].sort().values, expected.sort().values)
    space, parameters, _ = space_of(mlp(4, 5, 3, activation=nn.Identity).double(), x)
    first, bias, last = (parameters[name] for name in ("0.weight", "0.bias", "2.weight"))
    (found,) = space.moments(parameters).matrices.values()
    torch.testing.assert_close(found[0], first @ first.mT + bias[:, None] * bias - last.mT @ last)


def test_frozen_weights_have_no_share():
    """What is frozen pins its channels."""
    torch.manual_seed(4)
    model, x = mlp(4, 5, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    model[2].requires_grad_(False)
    space, parameters, _ = space_of(model, x)
    assert space.empty
    assert space.share(parameters, parameters) == 0.0
