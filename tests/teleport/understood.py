"""Supported models with unusual uses of a weight: their layers move, and the loss is unchanged."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.teleport.networks import between, mlp, weight
from tests.teleport.traps import USED, OwnProduct, Trap, in_one_buffer, linear, square, with_both


def _checkpointed(net: Any, x: Tensor) -> Tensor:
    return checkpoint(lambda y: torch.tanh(net.used(y)), x, use_reentrant=False)


UNDERSTOOD = [
    Trap("one buffer", in_one_buffer, {"2.weight": "", "4.weight": ""}),
    Trap("checkpointed", between(_checkpointed, used=linear), {USED: "", "last.weight": ""}),
    Trap("own function", between(lambda net, x: OwnProduct.apply(x, net.used, False), used=square), {"used": ""}),
    Trap("compiled", lambda: torch.compile(mlp(), backend="eager"), {"_orig_mod.2.weight": ""}),
    Trap(
        "functional call",
        mlp,
        {"2.weight": ""},
        loss=lambda m, b: F.cross_entropy(torch.func.functional_call(m, dict(m.named_parameters()), (b[0],)), b[1]),
    ),
    Trap(
        "attributes read",
        between(
            with_both(lambda x, w: x * w.shape[0] * w.numel() / w.stride(0) if w.is_contiguous() else x), used=linear
        ),
        {USED: ""},
    ),
    Trap("detached", between(with_both(lambda x, w: F.linear(x.sin(), w.detach())), used=linear), {}),
    Trap("stopped gradient", between(lambda net, x: net.used(x.detach()), used=linear), {"last.weight": ""}),
    Trap(
        "a bias of one",
        between(lambda net, x: F.linear(x, net.used, net.b), used=square, b=lambda: weight(1)),
        {"used": ""},
    ),
    Trap("no rows", between(lambda net, x: torch.cat([net.used(x[:0]), x]), used=linear), {"last.weight": ""}),
    Trap(
        "inputs overwritten later",
        between(lambda net, x: net.used(x.clone()) + net.used(x.detach().clone().add_(1)), used=linear),
        {USED: ""},
    ),
    Trap(
        "sparse inputs",
        between(lambda net, x: torch.sparse.mm(x.detach().to_sparse(), net.used), used=square),
        {"last.weight": ""},
    ),
]
