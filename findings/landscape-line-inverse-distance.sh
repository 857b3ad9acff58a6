#!/usr/bin/env bash
# loss-landscapes 3.0.6: a random line is shorter the larger its `distance` is, and its directions are all but one.
#
# `random_line(model, metric, distance)` evaluates the model along a random direction, up to `distance`, which its
# documentation calls the maximum distance in parameter space from the start point. The direction is scaled to the norm of
# the parameters divided by `distance`: a line of distance 10 ends a hundred times nearer than one of distance 0.1. A
# minimum looks flatter the farther one asks to look. The random directions are uniform in [0, 1], not symmetric about
# zero: every parameter grows along every line, and the cosine of two independent lines is about 0.75 in place of 0, so that two
# of them show nearly the same one. `random_plane` scales in the same way; it was not run here.
# Where the length of a line matters, draw and scale its direction by hand.
#
# Seen, with loss-landscapes 3.0.6 and torch 2.13.0+cpu, parameters of norm 10:
#   distance 0.1: the line ends 100.00 away
#   distance 1: the line ends 10.00 away
#   distance 10: the line ends 1.00 away
#   cosine of two random lines, without normalization: 0.74; coordinates that grow: 100 %
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "loss-landscapes==3.0.6" "torch==2.13.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import loss_landscapes
import torch
from loss_landscapes.metrics import Metric
from torch import nn


class Moved(Metric):
    """How far the model is from where it started."""

    def __init__(self, model):
        super().__init__()
        self.start = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        self.now = None

    def __call__(self, wrapper):
        self.now = torch.cat([p.detach().flatten() for p in wrapper.get_module_parameters().parameters]) - self.start
        return float(self.now.norm())


def model():
    torch.manual_seed(0)
    network = nn.Linear(100, 50).double()
    with torch.no_grad():
        size = torch.cat([p.flatten() for p in network.parameters()]).norm()
        for parameter in network.parameters():
            parameter.mul_(10 / size)
    return network


def line(seed, **options):
    network = model()
    moved = Moved(network)
    torch.manual_seed(seed)
    lengths = loss_landscapes.random_line(network, moved, steps=20, deepcopy_model=True, **options)
    return lengths[-1], moved.now


ends = {}
for distance in (0.1, 1, 10):
    ends[distance], _ = line(1, distance=distance)
    print(f"distance {distance}: the line ends {ends[distance]:.2f} away")
one, two = (line(seed, distance=1, normalization=None)[1] for seed in (1, 2))
cosine = float(one @ two / one.norm() / two.norm())
grow = float((one > 0).double().mean())
print(f"cosine of two random lines, without normalization: {cosine:.2f}; coordinates that grow: {grow:.0%}".replace("%", " %"))
for distance, end in ends.items():
    assert abs(end * distance / 10 - 1) < 1e-6, ends
assert 0.7 < cosine < 0.8, cosine
assert grow == 1, grow
PY
"$folder/venv/bin/python" "$folder/check.py"
