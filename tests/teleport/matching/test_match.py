"""Planted elements are found again, the function stays, and what cannot be matched is refused."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

import teleport
from teleport._matching.assignment import solver
from tests.teleport.symmetry_networks import Adapted, Attention, Images, Packed, Rotatable


def mlp():
    return nn.Sequential(
        *(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    )


class Recurrent(nn.Module):
    """Units that read themselves, so that one element acts on both axes of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.step, self.head = nn.Linear(5, 9), nn.Linear(9, 9), nn.Linear(9, 3)

    def forward(self, x):
        state = torch.tanh(self.read(x[:, 0]))
        for place in range(1, x.shape[1]):
            state = torch.tanh(self.read(x[:, place]) + self.step(state))
        return self.head(state)


class Tied(nn.Module):
    """One weight that embeds words and reads them off."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.down(self.up(x).relu()))


NETWORKS = {
    "mlp": (mlp, (7,)),
    "images": (Images, (3, 6, 6)),
    "attention": (Attention, (4, 5)),
    "grouped queries": (lambda: Attention(4, 2), (3, 5)),
    "rotary": (lambda: Attention(4, 2, rotary=True), (3, 5)),
    "packed": (Packed, (4, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (3, 6)),
    "adapted": (Adapted, (5,)),
    "rotatable": (Rotatable, (5,)),
    "recurrent": (Recurrent, (4, 5)),
}
FAST = {("mlp", "all"), ("images", "all"), ("encoder", "all"), ("packed", "permutation")}
CASES = [
    pytest.param(name, group, marks=() if (name, group) in FAST else pytest.mark.slow)
    for name in NETWORKS
    for group in ("scaling", "permutation", "orthogonal", "general", "all")
]


def norm(model):
    return sum(float(each.detach().double().square().sum()) for each in model.parameters()) ** 0.5


def planted(make, inputs, group, dtype=torch.float64):
    """A network and another one of its orbit, which a random element of the group has moved."""
    torch.manual_seed(0)
    a = make().to(dtype).eval()
    b = copy.deepcopy(a)
    report = teleport.ChangeOfBasis(group=group, seed=3)(b, [inputs])
    assert report.accepted
    return a, b


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize(("name", "group"), CASES)
def test_a_planted_element_is_found(name, group, by):
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    inputs, other = (torch.randn(size, *shape).double() for size in (8, 5))
    a, b = planted(make, inputs, group)
    before = copy.deepcopy(b.state_dict())
    found = teleport.match(a, b, [inputs], group=group, by=by)
    assert found.distance_after <= 1e-13 * norm(a)
    assert found.difference < 1e-13
    for name_of, (one, two) in found.parameters.items():
        apart = (a.get_parameter(name_of) - b.get_parameter(name_of)).detach().norm()
        assert one == pytest.approx(float(apart))
        assert two <= 1e-13 * norm(a)
    with torch.no_grad():
        assert torch.allclose(found.model(other), b(other), rtol=1e-10, atol=1e-12)
    for old, new in zip(before.values(), b.state_dict().values(), strict=True):
        assert torch.equal(old, new)  # a copy was moved
    again = found.change.apply(copy.deepcopy(b))
    for one, two in zip(again.state_dict().values(), found.model.state_dict().values(), strict=True):
        assert torch.allclose(one.double(), two.double(), rtol=1e-9, atol=1e-9)
    back = found.change.inverse().apply(copy.deepcopy(found.model))
    for one, two in zip(back.state_dict().values(), before.values(), strict=True):
        assert torch.allclose(one.double(), two.double(), rtol=1e-8, atol=1e-8)


def test_tied_weights_move_together():
    tokens = torch.randint(11, (3, 5))
    torch.manual_seed(0)
    a = Tied().double()
    b = copy.deepcopy(a)
    teleport.ChangeOfBasis(group="permutation", seed=1)(b, [tokens])
    found = teleport.match(a, b, [tokens])
    assert found.distance_before > 1
    assert found.distance_after == pytest.approx(0, abs=1e-13)
    assert found.model.head.weight is found.model.embed.weight


def test_statistics_of_batch_norm_move_along():
    torch.manual_seed(0)
    inputs = torch.randn(8, 3, 6, 6).double()
    a, b = planted(Images, inputs, "permutation")
    assert not torch.equal(a.norm.running_var, b.norm.running_var)
    found = teleport.match(a, b, [inputs], group="permutation")
    assert torch.equal(a.norm.running_var, found.model.norm.running_var)
    assert torch.equal(a.norm.running_mean, found.model.norm.running_mean)


def test_single_precision_is_matched_to_its_rounding():
    torch.manual_seed(0)
    inputs = torch.randn(8, 7)
    a, b = planted(mlp, inputs, "all", torch.float32)
    found = teleport.match(a, b, [inputs])
    assert found.distance_after < 1e-6 * norm(a)
    assert found.model[0].weight.dtype == torch.float32
    a, b = planted(mlp, inputs, "permutation", torch.float32)
    assert teleport.match(a, b, [inputs], group="permutation").distance_after == 0


def test_roles_are_symmetric():
    """The element from b to a is the inverse of that from a to b, and the distances are the same."""
    torch.manual_seed(0)
    inputs = torch.randn(8, 7).double()
    a, b = planted(mlp, inputs, "permutation")
    there, back = (teleport.match(*pair, [inputs], group="permutation") for pair in ((a, b), (b, a)))
    assert there.distance_before == pytest.approx(back.distance_before, rel=1e-12)
    moved = back.change.apply(there.change.apply(copy.deepcopy(b)))
    for one, two in zip(b.parameters(), moved.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_larger_group_comes_nearer():
    torch.manual_seed(0)
    inputs, a, b = torch.randn(8, 7).double(), mlp().double(), mlp().double()
    found = {group: teleport.match(a, b, [inputs], group=group) for group in ("scaling", "permutation", "all")}
    assert found["all"].distance_after < min(found["scaling"].distance_after, found["permutation"].distance_after)
    for each in found.values():
        assert each.distance_after < each.distance_before == pytest.approx(found["all"].distance_before)
        squares = sum(after**2 for _, after in each.parameters.values())
        assert squares**0.5 == pytest.approx(each.distance_after)


def test_factors_are_those_of_scipys_minimiser():
    """Of one hidden layer the distance is a function of one factor per unit, which scipy minimises from 1, too."""
    from scipy.optimize import minimize

    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double() for _ in range(2))
    first, second = ([each.detach() for each in model.parameters()] for model in (a, b))

    def squared(logarithms):
        tau = torch.tensor(logarithms).exp()
        moved = [second[0] * tau[:, None], second[1] * tau, second[2] / tau, second[3]]
        return float(sum((one - two).square().sum() for one, two in zip(first, moved, strict=True)))

    best = minimize(squared, torch.zeros(4).double().numpy(), method="BFGS", options={"gtol": 1e-9})
    found = teleport.match(a, b, [torch.randn(2, 3).double()], group="scaling")
    assert found.distance_after**2 == pytest.approx(best.fun, rel=1e-7)


def test_the_symmetries_may_be_given_in_place_of_batches():
    torch.manual_seed(0)
    inputs = torch.randn(8, 7).double()
    a, b = planted(mlp, inputs, "permutation")
    found = teleport.match(a, b, symmetries=teleport.find_symmetries(b, inputs), in_place=True)
    assert found.model is b
    assert found.distance_after == pytest.approx(0, abs=1e-13)
    assert str(found).startswith("match: distance ")
    assert found.to_dict()["distance_after"] == found.distance_after


class Other(nn.Module):
    """Parameters of the same names and shapes as of two linear layers, used in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("0", nn.Linear(5, 6))
        self.add_module("2", nn.Linear(6, 2))

    def forward(self, x):
        hidden = self._modules["0"](x)
        return self._modules["2"](hidden.cumsum(-1))


def pair(*sizes):
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))


def spoiled():
    model = pair(5, 6, 2)
    with torch.no_grad():
        model[2].weight[1, 3] = torch.nan
    return model


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (lambda: pair(5, 6, 2), lambda: pair(5, 7, 2), r"same architecture: '0.weight' has shape \[6, 5\] in a"),
        (lambda: pair(5, 6, 2), lambda: nn.Sequential(nn.Linear(5, 6)), "b has no parameter '2.weight', which a has"),
        (lambda: nn.Sequential(nn.Linear(5, 6)), lambda: pair(5, 6, 2), "a has no parameter '2.weight', which b has"),
        (lambda: pair(5, 6, 2), Other, "other symmetries were found on a than on b"),
        (spoiled, lambda: pair(5, 6, 2), "'2.weight' of a has a value that is not finite"),
        (lambda: pair(5, 6, 2), spoiled, "'2.weight' of b has a value that is not finite"),
    ],
)
def test_other_architectures_and_values_that_are_not_finite_are_refused(a, b, sentence):
    one, other = a(), b()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=sentence):
        teleport.match(one, other, [torch.randn(2, 5)], in_place=True)
    for old, new in zip(before.values(), other.state_dict().values(), strict=True):
        assert torch.equal(old.nan_to_num(9), new.nan_to_num(9))


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"by": "gradients"}, ValueError, "by must be one of weights, activations"),
        ({"group": "rotation"}, ValueError, "group must be one of"),
        ({"batches": None}, ValueError, "needs a batch that shows the structure"),
        ({"batches": None, "by": "activations"}, ValueError, "needs batches"),
        ({"restarts": -1}, ValueError, "restarts must not be negative"),
        ({"tolerance": 0.0}, ValueError, "tolerance must be above 0"),
        ({"in_place": "yes"}, TypeError, "in_place must be True or False"),
        ({"batches": torch.randn(2, 5)}, TypeError, "batches must be a list"),
    ],
)
def test_mistakes_are_told(options, error, sentence):
    model = pair(5, 6, 2)
    with pytest.raises(error, match=sentence):
        teleport.match(model, model, **{"batches": [torch.randn(2, 5)], **options})


def test_a_move_that_breaks_the_function_is_undone():
    """An element that does not belong to the model: symmetries of a network with ReLU, for one with a sorted layer."""
    torch.manual_seed(0)
    inputs, a = torch.randn(4, 5), pair(5, 6, 2)
    b = nn.Sequential(nn.Linear(5, 6), nn.Softmax(-1), nn.Linear(6, 2))
    before = copy.deepcopy(b.state_dict())
    with pytest.raises(ValueError, match="so b stays as it was"):
        teleport.match(
            a,
            b,
            [inputs],
            group="scaling",
            symmetries=teleport.find_symmetries(a, inputs),
            in_place=True,
            tolerance=1e-6,
        )
    for old, new in zip(before.values(), b.state_dict().values(), strict=True):
        assert torch.equal(old, new)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    solver.cache_clear()
    model = pair(5, 6, 2)
    with pytest.raises(ModuleNotFoundError, match=r"teleport-suite\[match\]"):
        teleport.match(model, model, [torch.randn(2, 5)])
    found = teleport.match(model, model, [torch.randn(2, 5)], group="scaling")  # which needs no assignment
    assert found.distance_after < 1e-6
