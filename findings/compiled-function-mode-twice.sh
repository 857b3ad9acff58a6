#!/usr/bin/env bash
# torch 2.13.0: a compiled module that is called under a TorchFunctionMode applies the mode twice, if the backend calls
# torch functions (backend="eager"); with backend="aot_eager" once, as without a compiler.
#
# Expected: the compiled module computes what the module computes, under a mode as well. Dynamo traces the mode into the graph.
# Seen: the graph of the backend "eager" consists of torch functions, and it runs while the mode is still active, so the
# mode meets the calls again that it made itself. A mode that doubles tanh gives 4 tanh, without an error or a warning.
# Whoever checks a mode with the backend for checking finds a fault that is not there, or gets wrong numbers from its own.
# The last line is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Doubled(TorchFunctionMode):
    """Doubles the results of tanh."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is torch.tanh else result


torch.manual_seed(0)
module, x = nn.Tanh(), torch.randn(5)
plain = module(x)
ratios = {}
for name, model in {
    "not compiled": module,
    "aot_eager": torch.compile(module, backend="aot_eager"),
    "eager": torch.compile(module, backend="eager"),
}.items():
    with Doubled():
        result = model(x)
    ratios[name] = round(float((result / plain).mean()), 6)
    print(f"{name}: {ratios[name]:g} tanh")
assert ratios == {"not compiled": 2, "aot_eager": 2, "eager": 4}, ratios
print("as described")
PYTHON
