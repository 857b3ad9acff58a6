#!/usr/bin/env bash
# rebasin 0.0.47: the permuted network is another function if channels of several positions are flattened.
#
# Re-basin permutes the units of one network to those of another and must keep what it computes; rebasin's README demands
# the same output of the permuted model and says that convolutional networks work very well. A convolution of 32 channels of
# four positions each, nn.Flatten and nn.Linear(128, 10), the end of most small convolutional networks, is permuted all the
# same: the 32 channels in one order, the 128 columns in another that keeps no channel together. Nothing is said. With the
# channels pooled to one position the output stays to rounding. The distance of the weights, which the program makes small,
# comes out smaller than by a permutation that keeps the function, so that the result looks better than a right one.
# teleport.match moves the four columns of a channel together (python scripts/compare_matching.py).
#
# Seen, with rebasin 0.0.47, torchview 0.2.7 and torch 2.13.0+cpu:
#   channels pooled to one position: weights permuted, outputs change by 2.9e-16
#   channels of four positions, flattened: weights permuted, outputs change by 6.1e-01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "rebasin==0.0.47" "torchview==0.2.7" "torch==2.13.0" \
    "numpy<3" "scipy<2"
cat > "$folder/check.py" <<'PY'
import copy
import torch
from rebasin import PermutationCoordinateDescent
from torch import nn


def network(pooled):
    reduce = nn.AdaptiveAvgPool2d(1) if pooled else nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        reduce, nn.Flatten(), nn.Linear(32 if pooled else 128, 10),
    ).double()


changes = {}
for pooled in (True, False):
    torch.manual_seed(0)
    a, b = network(pooled), network(pooled)
    inputs = torch.randn(8, 1, 8, 8, dtype=torch.float64)
    moved = copy.deepcopy(b)
    PermutationCoordinateDescent(a, moved, inputs).rebasin()
    same = all(torch.equal(one, two) for one, two in zip(b.parameters(), moved.parameters()))
    change = float((moved(inputs) - b(inputs)).detach().abs().max() / b(inputs).detach().abs().max())
    name = "channels pooled to one position" if pooled else "channels of four positions, flattened"
    print(f"{name}: weights {'unchanged' if same else 'permuted'}, outputs change by {change:.1e}")
    changes[pooled] = change
assert changes[True] < 1e-12, changes
assert changes[False] > 0.1, changes
PY
"$folder/venv/bin/python" "$folder/check.py"
