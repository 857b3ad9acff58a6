#!/usr/bin/env bash
# torch 2.13.0: inside one torch.autocast block a forward pass after a change of the weights in place runs on the old ones.
#
# Expected: autocast casts a float32 weight to the lower precision anew once it was written to, because its version counter
# tells (autograd raises an error for a saved tensor that was written to). Seen: the cast of a leaf that requires a
# gradient is kept until the outermost block ends, whatever happens to the leaf: weights that are set to zero still give
# the old output. torch.clear_autocast_cache() or cache_enabled=False gives the new one, and so does a weight that requires
# no gradient. A line search, a guard that compares losses, or an optimizer step inside a block all see a constant
# function. The last line of the output is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/python" - <<'PYTHON'
import torch


def outputs(trained, clear=False, cache=True):
    layer = torch.nn.Linear(2, 1, bias=False).requires_grad_(trained)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
        before = float(layer(x))
        with torch.no_grad():
            layer.weight.zero_()
        if clear:
            torch.clear_autocast_cache()
        return before, float(layer(x))


found = {
    "trained": outputs(True),
    "trained, cache cleared": outputs(True, clear=True),
    "trained, no cache": outputs(True, cache=False),
    "frozen": outputs(False),
}
for name, (before, after) in found.items():
    print(f"{name:24} {before} -> {after}")
assert found.pop("trained") == (2.0, 2.0), "autocast notices a change in place now"
assert all(pair == (2.0, 0.0) for pair in found.values())
print("as described")
PYTHON
