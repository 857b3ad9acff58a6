#!/usr/bin/env bash
# loss-landscapes 3.0.6: `linear_interpolation` leaves the first model at the second, and does not evaluate where it began.
#
# It returns the losses on the straight line between two models. By default it walks the first model's own parameters along
# the line and does not walk back: after the call the trained first network is gone, its weights are those of the second
# (to rounding), and a second call with another metric, as for training and test loss of one picture, is a flat line. Nothing
# is said. `deepcopy_model=True` keeps the model. In both cases the first of the `steps` values is a step behind the start,
# so that the barrier between two networks is measured against one end alone.
# This project's barriers and interpolations (figure=nullspace/barriers, neural/fig5) evaluate both ends, on copies.
#
# Seen, with loss-landscapes 3.0.6 and torch 2.13.0+cpu, a loss of 100 at the first model and 0 at the second:
#   first call, 5 steps: 64.0 36.0 16.0 4.0 0.0
#   second call: 0.0 0.0 0.0 0.0 0.0
#   the first model's loss: 100.0 before, 0.0 after; on a copy: 100.0 after, first value 64.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "loss-landscapes==3.0.6" "torch==2.13.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import loss_landscapes
import torch
from loss_landscapes.metrics import Loss
from torch import nn


def network(weight):
    linear = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(linear.weight, weight)
    return linear


inputs, targets = torch.ones(4, 1, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
loss = Loss(nn.functional.mse_loss, inputs, targets)


def now(model):
    return nn.functional.mse_loss(model(inputs), targets).item()


def words(values):
    return " ".join(f"{abs(value):.1f}" for value in values)


start, end = network(10.0), network(0.0)
before = now(start)
first = loss_landscapes.linear_interpolation(start, end, loss, steps=5)
second = loss_landscapes.linear_interpolation(start, end, loss, steps=5)
kept = network(10.0)
copied = loss_landscapes.linear_interpolation(kept, end, loss, steps=5, deepcopy_model=True)
print(f"first call, 5 steps: {words(first)}")
print(f"second call: {words(second)}")
print(
    f"the first model's loss: {before:.1f} before, {abs(now(start)):.1f} after; on a copy: {now(kept):.1f} after, first "
    f"value {copied[0]:.1f}"
)
assert before == now(kept) == 100
assert now(start) < 1e-12
assert abs(first[0] - 64) < 1e-9 and abs(copied[0] - 64) < 1e-9, (first, copied)
assert max(abs(second)) < 1e-12, second
PY
"$folder/venv/bin/python" "$folder/check.py"
