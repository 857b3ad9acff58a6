"""Adapters of peft as the moved part of a model: the base stays bit for bit, and the merged model computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis, NullSpace, Rescaling
from tests.teleport.vision import torchvision

pytestmark = pytest.mark.slow

METHODS = {
    "null space": (NullSpace, "all data of the batch"),
    "change of basis": (lambda: ChangeOfBasis(sampling="inter"), "all data"),
    "rescaling": (lambda: Rescaling(steps=3), "all data"),
}
"""And where the method promises the same outputs."""

GPT = {"vocab_size": 17, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2, "use_cache": False}


def adapted(trained: bool) -> Any:
    """A GPT-2 of random weights with LoRA beside its linear maps; of an adapter that starts, ``lora_B`` is zero."""
    torchvision()  # which both import
    peft = pytest.importorskip("peft", reason="needs peft: pip install -e '.[peft]'")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[peft]'")
    torch.manual_seed(0)
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT, bos_token_id=0, eos_token_id=0))
    options = peft.LoraConfig(
        r=6,
        target_modules=["c_attn", "c_fc", "c_proj"],
        fan_in_fan_out=True,
        init_lora_weights=not trained,
    )
    return peft.get_peft_model(base, options).double().eval()


def loss_fn(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=tokens).loss


def tokens(number: int) -> Tensor:
    return torch.randint(17, (1, 4), generator=torch.Generator().manual_seed(number))


def logits(model: nn.Module, given: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=given).logits
    return found


@pytest.mark.parametrize("name", METHODS)
def test_adapters_alone_move_and_the_merged_model_computes_the_same(name):
    make, promised = METHODS[name]
    model = adapted(trained=True)
    data = [tokens(0)] if promised == "all data of the batch" else [tokens(0), tokens(1), tokens(2)]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    outputs = [logits(model, each) for each in data]
    report = make()(model, data[:1], loss_fn)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert len(moved) > 8
    assert all("lora_" in name for name in moved)
    assert {each.name for each in report.layers if each.relative_change} <= moved
    merged = model.merge_and_unload()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    for each, right in zip(data, outputs, strict=True):
        torch.testing.assert_close(logits(merged, each), right, atol=1e-9, rtol=1e-9)


def test_adapters_that_start_move_in_the_null_space_of_what_they_read():
    model = adapted(trained=False)
    outputs = logits(model, tokens(0))
    report = NullSpace()(model, [tokens(0)], loss_fn)
    reasons = {each.name: each.reason for each in report.layers if not each.relative_change}
    assert not report.no_op, reasons
    assert report.gradient_norm_after > 1.1 * report.gradient_norm_before
    torch.testing.assert_close(logits(model.merge_and_unload(), tokens(0)), outputs, atol=1e-9, rtol=1e-9)
