#!/usr/bin/env bash
# torch-cka 0.21: the rows and columns of the exported matrix carry the names of other layers wherever modules are nested.
#
# CKA compares two networks layer by layer; `export()` returns the matrix and the names of its rows and columns. The values
# are right. The rows stand in the order in which forward passes end, the names in that of named_modules(). A module ends
# after its children, and is named before them: every residual block, and the network itself with the default of all
# layers, shifts the names, for a list of `model1_layers` as well, in whatever order it is given. The matrix stays
# symmetric, with ones on the diagonal for a network and its copy, so that no check of that kind tells; a difference of two
# networks is seen in a layer that does not have it. In a plain nn.Sequential the name of the whole comes first, and every
# layer carries the name of the one before it. Layers that are called in another order than they are registered in are
# shifted as well.
# Take the names of the rows from `list(cka.model1_features)`, the dictionary that the hooks fill, after `compare`.
#
# Seen, with torch-cka 0.21 and torch 2.13.0+cpu, a residual network and its copy with other weights in block.one alone:
#   layer      right  exported
#   first      1.00   1.00
#   block      0.98   0.81
#   block.one  0.81   0.67
#   block.two  0.67   0.98
#   last       0.96   0.96
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch-cka==0.21" "torch==2.13.0" "numpy<3" matplotlib tqdm
cat > "$folder/check.py" <<'PY'
import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_cka import CKA

LAYERS = ["first", "block", "block.one", "block.two", "last"]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(30, 30), nn.Linear(30, 30)

    def forward(self, x):
        return x + 0.3 * self.two(self.one(x).tanh())


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(10, 30), Block(), nn.Linear(30, 5)

    def forward(self, x):
        return self.last(self.block(self.first(x)))


def outputs(network, inputs):
    found, modules = {}, dict(network.named_modules())
    for name in LAYERS:
        modules[name].register_forward_hook(lambda module, args, result, name=name: found.update({name: result}))
    network(inputs)
    return found


def dependence(one, two):
    """The unbiased estimate of HSIC of two sets of features, written out as sums over different samples."""
    k, l = (each @ each.T for each in (one.double(), two.double()))
    n = len(k)
    k, l = k.fill_diagonal_(0), l.fill_diagonal_(0)
    pairs = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) * l.sum(0)).sum()
    return pairs / (n * (n - 3))


def similarity(one, two):
    return float(dependence(one, two) / (dependence(one, one) * dependence(two, two)).sqrt())


torch.manual_seed(0)
network, inputs = Network().eval(), torch.randn(100, 10)
other = copy.deepcopy(network)
nn.init.normal_(other.block.one.weight)
with torch.no_grad():
    pair = [outputs(copy.deepcopy(each), inputs) for each in (network, other)]
    right = {name: similarity(pair[0][name], pair[1][name]) for name in LAYERS}
    cka = CKA(network, other, "one", "other", model1_layers=LAYERS, model2_layers=LAYERS)
    cka.compare(DataLoader(TensorDataset(inputs), batch_size=100))
result = cka.export()
assert result["model1_layers"] == result["model2_layers"] and set(result["model1_layers"]) == set(LAYERS)
exported = dict(zip(result["model1_layers"], result["CKA"].diagonal().tolist()))
named = dict(zip(cka.model1_features, result["CKA"].diagonal().tolist()))
print("layer      right  exported")
for name in LAYERS:
    print(f"{name:9}  {right[name]:.2f}   {exported[name]:.2f}")
assert all(abs(right[name] - named[name]) < 1e-3 for name in LAYERS), (right, named)
wrong = [name for name in LAYERS if abs(right[name] - exported[name]) > 0.05]
assert wrong == ["block", "block.one", "block.two"], (right, exported)
PY
"$folder/venv/bin/python" -W ignore "$folder/check.py" 2> "$folder/progress" || { cat "$folder/progress" >&2; exit 1; }
