#!/usr/bin/env bash
# torch 2.13.0 (CPU): second derivatives of a network with weight_norm are wrong, though loss and gradient are right.
#
# weight_norm computes a weight as g v / |v|, of a magnitude g and a direction v. A Hessian-vector product by two backward
# passes treats the norm |v| that the forward pass saved as a constant: the block of v by v and one of the two blocks
# between g and v lose their terms, and the Hessian is not even symmetric. Nothing is said. Both spellings have it,
# torch.nn.utils.parametrizations.weight_norm and the older torch.nn.utils.weight_norm, for the norm of each row (the
# default) and of each column. With dim=None, one norm for the whole weight, another path is taken and all is right, as it
# is for the same formula written by hand. Sharpness, gradient penalties, or steps up the gradient norm of such a network
# follow another matrix than the Hessian. The entries of H d that belong to other parameters than v are right.
#
# Seen, with torch 2.13.0+cpu in float64, Linear(5, 4), tanh, Linear(4, 2), Hessian H, a random direction d:
#   no weight_norm: H d differs from differences of gradients by 6.8e-10, d H d is 3.845, of the differences 3.845
#   weight_norm: H d differs from differences of gradients by 3.3e-01, d H d is 1.928, of the differences 4.473
#   older weight_norm: H d differs from differences of gradients by 3.3e-01, d H d is 1.928, of the differences 4.473
#   weight_norm, dim=1: H d differs from differences of gradients by 5.7e-01, d H d is 3.471, of the differences 5.558
#   weight_norm, dim=None: H d differs from differences of gradients by 1.3e-09, d H d is 5.592, of the differences 5.592
#   Hessian of one layer: asymmetry 0.50, by hand 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import torch
from torch import nn
from torch.nn.utils import parametrizations


def moved(parameters, direction, length):
    with torch.no_grad():
        for parameter, each in zip(parameters, direction):
            parameter.add_(length * each)


def flat(tensors):
    return torch.cat([each.detach().flatten() for each in tensors])


def products(wrap):
    """The Hessian times a direction by two backward passes and by central differences; the direction; where v is."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(16, 5, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64)
    torch.manual_seed(1)
    first, last = nn.Linear(5, 4).double(), nn.Linear(4, 2).double()
    network = nn.Sequential(wrap(first), nn.Tanh(), wrap(last))
    parameters = list(network.parameters())
    of_v = [name.endswith(("original1", "weight_v")) for name, _ in network.named_parameters()]
    torch.manual_seed(2)
    moved(parameters, [torch.rand_like(each) for each in parameters], 0.3)
    direction = [torch.randn_like(each) for each in parameters]

    def gradient(graph=False):
        return torch.autograd.grad(nn.functional.mse_loss(network(inputs), targets), parameters, create_graph=graph)

    along = sum((one * two).sum() for one, two in zip(gradient(True), direction))
    product = flat(torch.autograd.grad(along, parameters))
    moved(parameters, direction, 1e-5)
    ahead = flat(gradient())
    moved(parameters, direction, -2e-5)
    return product, (ahead - flat(gradient())) / 2e-5, flat(direction), flat(
        torch.full_like(each, is_v) for each, is_v in zip(parameters, of_v)
    ).bool()


def asymmetry(weight):
    """Of the Hessian by magnitude and direction of one layer's loss, relative to the Hessian."""
    torch.manual_seed(0)
    g, v = torch.rand(3, 1, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    inputs = torch.randn(7, 5, dtype=torch.float64)

    def loss(both):
        return (inputs @ weight(both[3:].view(3, 5), both[:3].view(3, 1)).T).tanh().square().mean()

    hessian = torch.autograd.functional.hessian(loss, torch.cat([g.flatten(), v.flatten()]))
    return float((hessian - hessian.T).norm() / hessian.norm())


errors = {}
for name, wrap in {
    "no weight_norm": lambda layer: layer,
    "weight_norm": parametrizations.weight_norm,
    "older weight_norm": nn.utils.weight_norm,
    "weight_norm, dim=1": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight_norm, dim=None": lambda layer: parametrizations.weight_norm(layer, dim=None),
}.items():
    product, differences, direction, of_v = products(wrap)
    assert (product - differences)[~of_v].abs().max() < 1e-7, name
    errors[name] = float((product - differences).norm() / differences.norm())
    print(
        f"{name}: H d differs from differences of gradients by {errors[name]:.1e}, d H d is {direction @ product:.3f}, "
        f"of the differences {direction @ differences:.3f}"
    )
torchs = asymmetry(lambda v, g: torch._weight_norm(v, g, 0))
by_hand = asymmetry(lambda v, g: g * v / v.norm(dim=1, keepdim=True))
print(f"Hessian of one layer: asymmetry {torchs:.2f}, by hand {by_hand:.2f}")
right = {"no weight_norm", "weight_norm, dim=None"}
assert all(error < 1e-7 if name in right else error > 0.1 for name, error in errors.items()), errors
assert torchs > 0.1 and by_hand < 1e-12, (torchs, by_hand)
PY
"$folder/venv/bin/python" -W ignore "$folder/check.py"
