#!/usr/bin/env bash
# torch 2.13.0: the second derivative of F.normalize is NaN at a zero vector, though value and first derivative are finite.
#
# F.normalize divides by max(|x|, eps), so near zero it is the linear map x / eps, whose second derivative is zero. Expected
# is zero, or at least a number. The first derivative is 1 / eps, as it should be. The second one is NaN: the derivative of
# the norm's backward pass divides by |x| = 0, and the clamp that keeps the norm out of the value does not keep the NaN out.
#
# Zero vectors are ordinary there: torchvision's Swin V2 zeroes the bias of its keys and pads images to whole windows, so
# the keys of the padding are zero vectors, and on an image that needs padding every Hessian-vector product is NaN, while
# training with first derivatives works.
#
# Seen, with torch 2.13.0+cpu and torchvision's swin_v2_t on an image of 64 x 64:
#   F.normalize at zero: value 0, first derivative 1e+12, second derivative nan
#   swin_v2_t: gradient finite, Hessian-vector product nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "numpy<3"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 pillow
cat > "$folder/check.py" <<'PY'
import torch
import torch.nn.functional as F

x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
value = F.normalize(x, dim=0)
(first,) = torch.autograd.grad(value[0], x, create_graph=True)
(second,) = torch.autograd.grad(first.sum(), x)
print(f"F.normalize at zero: value {value[0]:g}, first derivative {first[0]:g}, second derivative {second[0]:g}")
assert value.eq(0).all() and first[0] == 1e12 and second.isnan().any()

try:
    import torchvision
except RuntimeError:  # a wheel of another build: only the schemas of its operators are needed
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

torch.manual_seed(0)
model = torchvision.models.swin_v2_t(num_classes=10).eval()
parameters = [parameter for name, parameter in model.named_parameters() if "qkv.weight" in name]
loss = F.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([1, 2]))
gradient = torch.autograd.grad(loss, parameters, create_graph=True)
square = sum(each.square().sum() for each in gradient)
product = torch.autograd.grad(square, parameters)
finite = [all(bool(each.isfinite().all()) for each in tensors) for tensors in (gradient, product)]
print("swin_v2_t: gradient", *("finite" if each else "nan" for each in finite[:1]), end=", ")
print("Hessian-vector product", "finite" if finite[1] else "nan")
assert finite == [True, False]
PY
"$folder/venv/bin/python" "$folder/check.py"
