#!/usr/bin/env bash
# transformers 5.24.0: in double precision eager attention makes every output of a left-padded text NaN; in single it does not.
#
# Checks of an exact property, such as that a change of basis keeps outputs, are made in double precision. A padded position
# on the left sees no key. In float32 the mask's smallest number leaves its softmax uniform, and the position is ignored. In
# float64 the model is as valid, but the softmax of eager attention is computed in float32, to which the smallest number of
# float64 is minus infinity: the row is 0/0, and through the values of the next block the whole text, real tokens included.
# The implementation "sdpa" has no such outputs. A largest difference by max() of Python hides it, as nan > x is false; the tests
# here demand finite outputs (tests/teleport/symmetry_groups/test_families.py).
#
# Seen, with transformers 5.24.0 and torch 2.13.0+cpu:
#   GPTNeoX, float32, eager: 0 of 5 real tokens are NaN
#   GPTNeoX, float64, eager: 5 of 5 real tokens are NaN
#   GPTNeoX, float64, sdpa: 0 of 5 real tokens are NaN
#   Qwen2, float32, eager: 0 of 5 real tokens are NaN
#   Qwen2, float64, eager: 5 of 5 real tokens are NaN
#   Qwen2, float64, sdpa: 0 of 5 real tokens are NaN
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "transformers==5.24.0" "numpy<3"
cat > "$folder/check.py" <<'PY'
import torch
import transformers

transformers.logging.set_verbosity_error()
small = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
found = {}
for name, extra in {"GPTNeoX": {}, "Qwen2": {"num_key_value_heads": 2}}.items():
    for dtype, attention in ((torch.float32, "eager"), (torch.float64, "eager"), (torch.float64, "sdpa")):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**small, **extra)
        config._attn_implementation = attention
        model = getattr(transformers, f"{name}ForCausalLM")(config).to(dtype).eval()
        tokens = torch.randint(0, 50, (1, 8))
        mask = torch.ones_like(tokens)
        mask[0, :3] = 0  # padding on the left, as for generation
        with torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=mask).logits[0, 3:]
        bad = int(logits.isnan().any(-1).sum())
        print(f"{name}, {str(dtype).removeprefix('torch.')}, {attention}: {bad} of {len(logits)} real tokens are NaN")
        found[name, dtype, attention] = bad
assert all(bad == (5 if (dtype, attention) == (torch.float64, "eager") else 0)
           for (_, dtype, attention), bad in found.items()), found
PY
"$folder/venv/bin/python" "$folder/check.py"
