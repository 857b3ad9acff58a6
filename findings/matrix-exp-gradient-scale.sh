#!/usr/bin/env bash
# torch 2.13.0: the gradient of torch.linalg.matrix_exp is not linear in the loss; a large factor loses the diagonal of A.
#
# The derivative of exp(A) in a direction G is linear in G, so a loss times 65536, as torch.amp.GradScaler starts with,
# has 65536 times the gradient, to rounding. torch exponentiates the block matrix [[A, G], [0, A]] and chooses the power of two
# that divides it before the series by the norm of the whole. A large G divides A by so much that its diagonal vanishes
# beside the ones of the identity. From about 1e8 in float32 on, the gradient is the one at A without its diagonal: at the
# identity too small by the factor e, and for an A whose diagonal is zero (that of a rotation) nearly right, which hides
# it. Nothing is said. The forward derivative (torch.func.jvp) along a long tangent has it too. Losses that are sums over
# many samples, scaled losses, and the steep places that methods which raise the gradient norm look for are large that way.
# Who needs it right divides the gradient that enters by its norm and multiplies what comes out.
#
# Seen, with torch 2.13.0+cpu, the gradient of factor * trace(exp(A)) at A = I, over factor * e (1 is right):
#   float32: 1.00000 at 1, 1.00000 at 1000, 0.99975 at 65536, 0.36788 at 1e+08
#   float64: 1.00000 at 1, 1.00000 at 1000, 1.00000 at 65536, 1.00000 at 1e+08, 1.00024 at 1e+12, 0.36788 at 1e+16
#   the forward derivative at 1e+08 in float32: 0.36788
#   random A of 4 x 4 in float32, relative error to scipy: 4.9e-07 at 1, 8.0e-03 at 65536, 2.0e-01 at 1e+08
#   the last one beside scipy's gradient at A without its diagonal: 5.0e-05
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy<3" "scipy==1.17.1"
cat > "$folder/check.py" <<'PY'
import math

import torch
from scipy.linalg import expm_frechet


def gradient(matrix, weights, factor):
    leaf = matrix.clone().requires_grad_()
    return torch.autograd.grad(factor * (torch.linalg.matrix_exp(leaf) * weights).sum(), leaf)[0]


found = {}
for dtype, factors in ((torch.float32, (1, 1000, 65536, 1e8)), (torch.float64, (1, 1000, 65536, 1e8, 1e12, 1e16))):
    identity = torch.eye(3, dtype=dtype)
    ratios = {factor: float(gradient(identity, identity, factor)[0, 0]) / factor / math.e for factor in factors}
    name = str(dtype).removeprefix("torch.")
    print(f"{name}: " + ", ".join(f"{ratio:.5f} at {factor:g}" for factor, ratio in ratios.items()))
    found[name] = ratios
identity = torch.eye(3)
tangent = torch.func.jvp(torch.linalg.matrix_exp, (identity,), (1e8 * identity,))[1]
forward = float(tangent[0, 0]) / 1e8 / math.e
print(f"the forward derivative at 1e+08 in float32: {forward:.5f}")

torch.manual_seed(0)
matrix, weights = torch.randn(4, 4) * 0.5, torch.randn(4, 4)


def by_scipy(at):
    return torch.from_numpy(expm_frechet(at.double().numpy().T, weights.double().numpy(), compute_expm=False))


def error(factor, exact):
    return float((gradient(matrix, weights, factor).double() / factor - exact).norm() / exact.norm())


errors = {factor: error(factor, by_scipy(matrix)) for factor in (1, 65536, 1e8)}
hollow = error(1e8, by_scipy(matrix - matrix.diagonal().diag()))
print(
    "random A of 4 x 4 in float32, relative error to scipy: "
    + ", ".join(f"{each:.1e} at {factor:g}" for factor, each in errors.items())
)
print(f"the last one beside scipy's gradient at A without its diagonal: {hollow:.1e}")
single, double = found["float32"], found["float64"]
assert abs(single[1] - 1) < 1e-6 and abs(single[65536] - 1) > 1e-4, single
assert abs(double[65536] - 1) < 1e-9 and abs(double[1e12] - 1) > 1e-5, double
for wrong in (single[1e8], double[1e16], forward):
    assert abs(wrong * math.e - 1) < 1e-3, wrong
assert errors[1] < 1e-5 and errors[65536] > 1e-3 and errors[1e8] > 0.1, errors
assert hollow < 1e-3, hollow
PY
"$folder/venv/bin/python" "$folder/check.py"
