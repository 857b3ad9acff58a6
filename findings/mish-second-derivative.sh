#!/usr/bin/env bash
# torch 2.13.0: the second derivative of torch.nn.functional.mish is not a number for float32 inputs above 88.72.
#
# Expected: 0, as for silu, softplus and gelu: mish(x) is x there to all digits, and its first derivative is exactly 1.
# Seen: nan from x = 88.73 on, where exp(x) leaves the range of float32; the first derivative stays 1. One such
# pre-activation makes every Hessian-vector product of a network with Mish (sharpness, curvature, any method that
# differentiates twice) a vector of nan while loss and gradients are finite. The same function composed by hand,
# x * tanh(softplus(x)), has a finite second derivative. The last line of the output is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F


def derivatives(function):
    x = torch.tensor([10.0, 88.0, 88.8, 100.0], requires_grad=True)
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


for name, function in (("mish", F.mish), ("by hand", lambda x: x * torch.tanh(F.softplus(x))), ("silu", F.silu)):
    first, second = derivatives(function)
    print(f"{name:8} first {first.tolist()} second {second.tolist()}")
    assert bool(first.isfinite().all())
    if name != "mish":
        assert bool(second.isfinite().all())
first, second = derivatives(F.mish)
assert second.isnan().tolist() == [False, False, True, True], f"mish differentiates twice now: {second.tolist()}"
print("as described")
PYTHON
