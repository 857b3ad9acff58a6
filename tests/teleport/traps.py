"""Models with a use of a weight by which a null-space move would change the loss, with the parameters to pin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.teleport.networks import WIDTH, Calls, between, cross_entropy, mlp, weight


@dataclass(frozen=True)
class Trap:
    """A model and a loss; ``stays`` maps parameters that must not move to a part of the reason in the report."""

    name: str
    build: Callable[[], nn.Module]
    stays: dict[str, str]
    loss: Callable[[nn.Module, Any], Tensor] = cross_entropy
    batch: tuple[Tensor, Tensor] | None = None

    def __str__(self) -> str:
        return self.name

    def make(self) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
        """The model in double precision with a fixed seed, and one batch."""
        torch.manual_seed(3)
        model = self.build().double().eval()
        return model, self.batch or (torch.randn(4, 6).double(), torch.arange(4) % 3)


class OwnProduct(torch.autograd.Function):
    """``x @ W^T`` with a custom backward pass; the forward pass is in NumPy if ``hidden``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, hidden: bool) -> Tensor:
        ctx.save_for_backward(x, w)
        x = 1.0 * x  # requires no gradient inside the function
        return torch.from_numpy(x.detach().numpy() @ w.detach().numpy().T) if hidden else x @ w.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return gradient @ w, gradient.T @ x, None


@torch.jit.script
def scripted_product(x: Tensor, w: Tensor) -> Tensor:
    return torch.mm(x, w)


def _inferred(net: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        shift = net.used(x.clone())
    return x + shift.clone()


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def square() -> nn.Parameter:
    return weight(WIDTH, WIDTH)


def vector() -> nn.Parameter:
    return weight(WIDTH)


def with_both(use: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """The weight as a plain linear map, and a second time as ``use(inputs, weight)``."""
    return lambda net, x: net.used(x) + use(x, net.used.weight)


def _gradient_penalty(model: nn.Module, batch: Any) -> Tensor:
    inputs = batch[0].clone().requires_grad_()
    loss = F.cross_entropy(model(inputs), batch[1])
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    return loss + gradient.square().sum()


def _tangent_penalty(model: nn.Module, batch: Any) -> Tensor:
    outputs, tangents = torch.func.jvp(model, (batch[0],), (torch.ones_like(batch[0]),))
    return F.cross_entropy(outputs, batch[1]) + tangents.square().sum()


def _functional_gradient(model: nn.Module, batch: Any) -> Tensor:
    def loss(parameters: Any) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (batch[0],)), batch[1])

    gradients = torch.func.grad(loss)(dict(model.named_parameters()))
    return cross_entropy(model, batch) + sum(gradient.square().sum() for gradient in gradients.values())


def _functional_scaled(model: nn.Module, batch: Any) -> Tensor:
    scaled = {name: 1.1 * parameter for name, parameter in model.named_parameters()}
    return F.cross_entropy(torch.func.functional_call(model, scaled, (batch[0],)), batch[1])


def _with_penalty(penalty: Callable[[nn.Module], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    return lambda model, batch: cross_entropy(model, batch) + 1e-2 * penalty(model)


def _mlp_with(change: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = mlp()
        change(model)
        return model

    return build


def _recurrent() -> nn.Module:
    return Calls(
        lambda net, x: net.last(torch.tanh(net.cell(x.view(-1, 2, 3))[0][:, -1])),
        cell=nn.LSTM(3, WIDTH, batch_first=True),
        last=nn.Linear(WIDTH, 3),
    )


def _tied_embedding() -> nn.Module:
    return Calls(
        lambda net, x: F.linear(torch.tanh(net.middle(net.embedding(x))), net.embedding.weight),
        embedding=nn.Embedding(5, WIDTH),
        middle=linear(),
    )


def _embedding(**kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: Calls(
        lambda net, x: net.last(torch.tanh(net.middle(torch.tanh(net.embedding(x))))),
        embedding=nn.Embedding(5, WIDTH, **kwargs),
        middle=linear(),
        last=nn.Linear(WIDTH, 3),
    )


def _shared_memory() -> nn.Module:
    model = between(lambda net, x: net.other(torch.tanh(net.used(x))), used=linear, other=linear)()
    model.double()
    model.other.weight.data = model.used.weight.data
    return model


def in_one_buffer() -> nn.Module:
    model = mlp().double()
    model.flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    start = 0
    for parameter in model.parameters():
        parameter.data = model.flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return model


def _clamped(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.used.weight.clamp_(-0.1, 0.1)
    return net.used(x)


ALL = dict.fromkeys(["0.weight", "2.weight", "4.weight"], "")
USED = "used.weight"
TOKENS = (torch.arange(4), torch.arange(4) % 3)

TRAPS = [
    # normalisation, embeddings, other layers
    Trap("layer norm", _mlp_with(lambda m: m.insert(2, nn.LayerNorm(WIDTH))), {"2.weight": "layer_norm"}),
    Trap("batch norm", _mlp_with(lambda m: m.insert(2, nn.BatchNorm1d(WIDTH))), {"2.bias": "batch_norm"}),
    Trap("prelu", _mlp_with(lambda m: m.insert(2, nn.PReLU())), {"2.weight": "prelu"}),
    Trap("embedding", _embedding(), {"embedding.weight": "embedding"}, batch=TOKENS),
    Trap("sparse embedding", _embedding(sparse=True), {"embedding.weight": "embedding"}, batch=TOKENS),
    Trap("bounded embedding", _embedding(max_norm=1.0), {"embedding.weight": "embedding"}, batch=TOKENS),
    Trap("tied embedding", _tied_embedding, {"embedding.weight": "embedding"}, batch=TOKENS),
    Trap("lstm", _recurrent, {"cell.weight_ih_l0": "lstm", "cell.bias_hh_l0": "lstm"}),
    Trap(
        "bilinear",
        between(lambda net, x: net.used(x, x), used=lambda: nn.Bilinear(WIDTH, WIDTH, WIDTH)),
        {USED: "bilinear"},
    ),
    Trap("einsum", between(lambda net, x: torch.einsum("nd,od->no", x, net.used), used=square), {"used": "einsum"}),
    Trap("weights on the left", between(lambda net, x: (net.used @ x.T).T, used=square), {"used": "matmul"}),
    # computed weights
    Trap(
        "weight norm",
        _mlp_with(lambda m: parametrizations.weight_norm(m[2])),
        {"2.parametrizations.weight.original1": ""},
    ),
    Trap(
        "spectral norm",
        _mlp_with(lambda m: parametrizations.spectral_norm(m[2])),
        {"2.parametrizations.weight.original": ""},
    ),
    Trap("pruned", _mlp_with(lambda m: prune.l1_unstructured(m[2], "weight", 0.5)), {"2.weight_orig": "mul"}),
    Trap("clamped as it runs", between(_clamped, used=linear), {USED: "clamp_"}),
    # two uses of one weight
    Trap(
        "transposed too", between(lambda net, x: net.used(x) @ net.used.weight, used=linear), {USED: "different ways"}
    ),
    Trap(
        "transposed by einsum",
        between(with_both(lambda x, w: torch.einsum("nd,do->no", x, w)), used=linear),
        {USED: "einsum"},
    ),
    Trap("as its own input", between(lambda net, x: x @ F.linear(net.used, net.used), used=square), {"used": "linear"}),
    Trap(
        "as its own query",
        between(
            lambda net, x: net.a(net.a.in_proj_weight[:4], x, x)[0] + net.a(x, x, x)[0],
            a=lambda: nn.MultiheadAttention(WIDTH, 4),
        ),
        {"a.in_proj_weight": "multi_head_attention_forward"},
    ),
    Trap(
        "as residual and weight",
        between(lambda net, x: torch.addmm(net.used, x.repeat(6, 1), net.used)[:4], used=square),
        {"used": "addmm"},
    ),
    Trap(
        "two biases",
        between(
            lambda net, x: F.linear(torch.tanh(F.linear(x, net.used, net.b)), net.used, net.c),
            used=square,
            b=vector,
            c=vector,
        ),
        {"used": "different ones", "b": "its weight stays", "c": "its weight stays"},
    ),
    Trap(
        "a bias for two",
        between(
            lambda net, x: F.linear(torch.tanh(F.linear(x, net.a, net.b)), net.c, net.b), a=square, b=vector, c=square
        ),
        {"a": "its bias stays", "b": "different ways", "c": "its bias stays"},
    ),
    Trap(
        "overlapping biases",
        between(
            lambda net, x: F.linear(x, net.a, net.b[:WIDTH]) + F.linear(torch.sin(x), net.c, net.b[1:]),
            a=square,
            b=lambda: weight(WIDTH + 1),
            c=square,
        ),
        {"a": "its bias stays", "c": "its bias stays"},
    ),
    Trap(
        "overlapping columns",
        between(
            lambda net, x: F.linear(x[:, :14], net.used[:, :14]) + F.linear(x[:, 12:].sin(), net.used[:, 12:]),
            used=square,
        ),
        {"used": "different ways"},
    ),
    Trap(
        "a bias used elsewhere",
        between(lambda net, x: net.used(x) * net.used.bias.sum(), used=linear),
        {USED: "its bias stays", "used.bias": "sum"},
    ),
    Trap(
        "expanded",
        between(lambda net, x: F.linear(x, net.used.expand(WIDTH, WIDTH)), used=lambda: weight(1, WIDTH)),
        {"used": "linear"},
    ),
    Trap(
        "a vector as weight",
        between(lambda net, x: x * F.linear(x, net.used)[:, None], used=vector),
        {"used": "linear"},
    ),
    Trap(
        "a bias a sample",
        between(lambda net, x: F.linear(x, net.used, net.b), used=square, b=lambda: weight(4, WIDTH)),
        {"b": "linear"},
    ),
    # values that leave torch, or decide a branch
    Trap("item", between(with_both(lambda x, w: w[0, 0].item() * x), used=linear), {USED: "item"}),
    Trap("tolist", between(with_both(lambda x, w: w[0].tolist()[3] * x), used=linear), {USED: "tolist"}),
    Trap("numpy", between(with_both(lambda x, w: float(w.detach().numpy()[0, 3]) * x), used=linear), {USED: "numpy"}),
    Trap("a branch on it", between(with_both(lambda x, w: x if w[0, 0] > 0 else -x), used=linear), {USED: "Tensor.gt"}),
    Trap("its data", between(with_both(lambda x, w: w.data[0] * x), used=linear), {USED: "mul"}),
    Trap(
        "detached and transposed",
        between(with_both(lambda x, w: x @ w.detach()), used=linear),
        {USED: "different ways"},
    ),
    # below the torch functions
    Trap(
        "scripted product",
        between(with_both(lambda x, w: scripted_product(x, w)), used=linear),
        {USED: "below the torch functions"},
    ),
    Trap("scripted layer", _mlp_with(lambda m: m.__setitem__(2, torch.jit.script(m[2]))), {"2.weight": ""}),
    Trap("scripted model", lambda: torch.jit.script(mlp()), ALL),
    Trap("traced model", lambda: torch.jit.trace(mlp(), torch.randn(4, 6)), ALL),
    Trap("operator", between(with_both(lambda x, w: torch.ops.aten.mm(x, w)), used=linear), {USED: "aten.mm"}),
    Trap(
        "custom function in NumPy",
        between(with_both(lambda x, w: OwnProduct.apply(x, w, True)), used=linear),
        {USED: "numpy"},
    ),
    Trap("inference mode", between(_inferred, used=linear), {USED: "linear"}),
    Trap("vmapped model", mlp, ALL, loss=lambda m, b: F.cross_entropy(torch.vmap(m)(b[0]), b[1])),
    Trap("gradient penalty", mlp, ALL, loss=_gradient_penalty),
    Trap("tangent penalty", mlp, ALL, loss=_tangent_penalty),
    Trap("functional gradient", mlp, ALL, loss=_functional_gradient),
    Trap("functional call on scaled weights", mlp, ALL, loss=_functional_scaled),
    # direct terms of the weights in the loss
    Trap("L2 term", mlp, ALL, loss=_with_penalty(lambda m: sum(p.square().sum() for p in m.parameters()))),
    Trap("L2 term, foreach", mlp, ALL, loss=_with_penalty(lambda m: sum(torch._foreach_norm(list(m.parameters()))))),
    Trap(
        "L2 term, flattened",
        mlp,
        ALL,
        loss=_with_penalty(lambda m: nn.utils.parameters_to_vector(m.parameters()).norm()),
    ),
    # shared memory
    Trap(
        "two parameters, one memory",
        _shared_memory,
        {USED: "shares storage", "other.weight": "shares storage"},
    ),
    Trap("one buffer, used as such", in_one_buffer, ALL, loss=_with_penalty(lambda m: m.flat.square().sum())),
]
