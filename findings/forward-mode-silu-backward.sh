#!/usr/bin/env bash
# torch 2.13.0: a Hessian-vector product of SiLU, Mish or GroupNorm by torch.autograd.forward_ad is refused, by torch.func not.
#
# Forward over reverse is one product with two spellings: torch.func.jvp over torch.func.grad, or torch.autograd.grad of a
# loss that was computed on dual tensors within forward_ad.dual_level(). One would expect the same operations to have it.
# The backward passes of these three have no forward derivative, so that the second spelling raises NotImplementedError,
# on every network with SiLU (Llama and its like); torch.func computes them in other steps, and its product is right. GELU
# and LayerNorm have both. Products by tangents here (teleport/_tangents) compute the three in torch's own smaller steps.
#
# Seen, with torch 2.13.0+cpu:
#   SiLU: torch.func differs from double backward by 8.9e-16, forward_ad: NotImplementedError
#   Mish: torch.func differs from double backward by 4.4e-16, forward_ad: NotImplementedError
#   GroupNorm: torch.func differs from double backward by 2.3e-14, forward_ad: NotImplementedError
#   GELU: torch.func differs from double backward by 0.0e+00, forward_ad: the same product
#   LayerNorm: torch.func differs from double backward by 1.8e-15, forward_ad: the same product
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import torch
from torch import nn
from torch.autograd import forward_ad

torch.manual_seed(0)
x, v = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
found = {}
for name, layer in {
    "SiLU": nn.SiLU(), "Mish": nn.Mish(), "GroupNorm": nn.GroupNorm(2, 8), "GELU": nn.GELU(), "LayerNorm": nn.LayerNorm(8),
}.items():
    layer = layer.double()

    def loss(inputs):
        return layer(inputs).sin().sum()

    leaf = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    expected, = torch.autograd.grad((gradient * v).sum(), leaf)
    by_func = torch.func.jvp(torch.func.grad(loss), (x,), (v,))[1]
    try:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), v)
            tangent = forward_ad.unpack_dual(torch.autograd.grad(loss(dual), dual)[0]).tangent
        said = "the same product" if torch.allclose(tangent, expected, rtol=1e-10) else "another product"
    except NotImplementedError as error:
        said = type(error).__name__
    difference = float((by_func - expected).detach().abs().max())
    print(f"{name}: torch.func differs from double backward by {difference:.1e}, forward_ad: {said}")
    assert difference < 1e-12
    found[name] = said
assert found == {
    "SiLU": "NotImplementedError", "Mish": "NotImplementedError", "GroupNorm": "NotImplementedError",
    "GELU": "the same product", "LayerNorm": "the same product",
}, found
PY
"$folder/venv/bin/python" "$folder/check.py"
