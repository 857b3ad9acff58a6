#!/usr/bin/env bash
# torch 2.13.0: hardsigmoid cannot be differentiated twice, though all other activations of torch.nn.functional can.
#
# Hardswish, relu6 and hardtanh, which are piecewise polynomials of the same kind, have a second derivative, and so has
# hardsigmoid written as relu6(x + 3) / 6. Its own backward operation has no derivative, so a Hessian-vector product, a
# gradient penalty or a curvature estimate of torchvision's MobileNetV3 (whose squeeze-and-excitation blocks use it) ends
# with an error in the second backward pass.
# A null-space teleport needs no such derivative at its fixed forward pass, and multiplies by the first one instead.
#
# Seen, with torch 2.13.0+cpu:
#   no second derivative: hardsigmoid (derivative for aten::hardsigmoid_backward is not implemented)
#   of 19 activations; relu6(x + 3) / 6: fine
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import torch
import torch.nn.functional as F

NAMES = (
    "relu relu6 hardtanh hardsigmoid hardswish elu selu celu gelu silu mish softplus logsigmoid leaky_relu softshrink "
    "hardshrink tanhshrink softsign tanh"
).split()


def twice(function):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    torch.autograd.grad(gradient.square().sum(), x)


failed = {}
for name in NAMES:
    try:
        twice(getattr(F, name))
    except RuntimeError as error:
        failed[name] = str(error).splitlines()[0]
twice(lambda x: F.relu6(x + 3) / 6)
print("no second derivative:", "; ".join(f"{name} ({reason})" for name, reason in failed.items()))
print(f"of {len(NAMES)} activations; relu6(x + 3) / 6: fine")
assert list(failed) == ["hardsigmoid"], failed
assert "hardsigmoid_backward is not implemented" in failed["hardsigmoid"]
PY
"$folder/venv/bin/python" "$folder/check.py"
