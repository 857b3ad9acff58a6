#!/usr/bin/env bash
# torch 2.13.0: vector_to_parameters makes the parameters views of the vector and takes its dtype; it copies nothing.
#
# Its documentation says that it copies slices of the vector into the parameters, and its counterpart parameters_to_vector
# does copy. It sets `parameter.data` to a slice instead. Two networks that are set from one vector are one network from
# then on: a step of the first moves the second. A point that a line search keeps in a vector, and goes back to, moves
# with the training that follows, so that the next return goes elsewhere. A vector of float64 turns a float32 network into
# one of float64, and parameters_to_vector joins two dtypes to the wider one: on a network of bfloat16 and float32 the
# round trip, which should change nothing, leaves float32. Nothing is said.
# laplace-torch 0.3 restores a network from the posterior's mean this way: after predictive samples with pred_type="nn"
# the mean of the fitted posterior follows the network's further training, while its precision stays where it was fitted.
# vector_to_parameters(vector.clone(), parameters) of the right dtype is a copy; teleport writes with Tensor.copy_.
#
# Seen, with torch 2.13.0+cpu and laplace-torch 0.3, after a step of length 1:
#   two networks set from one vector, the first one trained: the second moved by 1.00, the vector by 1.00
#   set from clones: the second moved by 0.00, the vector by 0.00
#   a float32 network set from float64: float64; bfloat16 and float32 after the round trip: float32, float32
#   mean of a Laplace posterior after a step of its network: moved by 0.00; after samples and a step: moved by 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "torchvision==0.28.0" \
    "laplace-torch==0.3" "numpy<3"
cat > "$folder/check.py" <<'PY'
import torch

try:
    import torchvision  # laplace-torch imports it
except RuntimeError:  # a wheel of another build: only the schemas of its operators are needed
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
from laplace import Laplace
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
inputs = torch.randn(20, 3)
targets = inputs.sum(1, keepdim=True)


def step(network):
    """A step of gradient descent of length 1."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    nn.functional.mse_loss(network(inputs), targets).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
    for parameter in network.parameters():
        parameter.grad.mul_(1e3)
    optimizer.step()
    optimizer.zero_grad()


def set_from_one_vector(prepare):
    first, second = nn.Linear(3, 1), nn.Linear(3, 1)
    vector = parameters_to_vector(first.parameters()).detach()
    start = vector.clone()
    for network in (first, second):
        vector_to_parameters(prepare(vector), network.parameters())
    step(first)
    return [float((each - start).norm()) for each in (parameters_to_vector(second.parameters()).detach(), vector)]


shared, copied = set_from_one_vector(lambda vector: vector), set_from_one_vector(torch.clone)
for name, moved in (("two networks set from one vector, the first one trained", shared), ("set from clones", copied)):
    print(f"{name}: the second moved by {moved[0]:.2f}, the vector by {moved[1]:.2f}")

single, mixed = nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 3).bfloat16(), nn.Linear(3, 1))
vector_to_parameters(torch.zeros(4, dtype=torch.float64), single.parameters())
vector_to_parameters(parameters_to_vector(mixed.parameters()), mixed.parameters())
dtypes = [str(each.weight.dtype).removeprefix("torch.") for each in (single, *mixed)]
print(f"a float32 network set from float64: {dtypes[0]}; bfloat16 and float32 after the round trip: {dtypes[1]}, {dtypes[2]}")

network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
posterior = Laplace(network, "regression", subset_of_weights="all", hessian_structure="diag")
posterior.fit(DataLoader(TensorDataset(inputs, targets), batch_size=20))
means = [posterior.mean.detach().clone()]
for sampled in (False, True):
    if sampled:
        posterior.predictive_samples(inputs, pred_type="nn", n_samples=2)
    means.append(posterior.mean.detach().clone())
    step(network)
    means.append(posterior.mean.detach().clone())
_, before, after, restored, followed = means
alone, sampled = float((after - before).norm()), float((followed - restored).norm())
print(
    f"mean of a Laplace posterior after a step of its network: moved by {alone:.2f}; after samples and a step: moved by "
    f"{sampled:.2f}"
)
assert max(abs(each - 1) for each in (*shared, sampled)) < 1e-3, (shared, sampled)
assert max(*copied, alone) == 0, (copied, alone)
assert dtypes == ["float64", "float32", "float32"], dtypes
PY
"$folder/venv/bin/python" -W ignore "$folder/check.py"
