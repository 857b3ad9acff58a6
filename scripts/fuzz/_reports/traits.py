"""Awkward traits of a network: sharing, freezing, buffers, hooks, scales, modes."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.fuzz._reports.blocks import parametrized

Trait = Callable[[random.Random, nn.Module], None]


def _parameters(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    return [
        (module, name, p)
        for module in model.modules()
        for name, p in module._parameters.items()
        if p is not None and not type(module).__name__.startswith("Parametrized")
    ]


def tied(draws: random.Random, model: nn.Module) -> None:
    """Two parameters of one shape become one."""
    held = _parameters(model)
    draws.shuffle(held)
    for index, (*_, p) in enumerate(held):
        for module, name, q in held[:index]:
            if q.shape == p.shape and p.dim() > 1 and q is not p:
                setattr(module, name, p)
                return


def aliased(draws: random.Random, model: nn.Module) -> None:
    """A parameter becomes a view: of another's memory, a transpose, or an expanded row."""
    matrices = [each for each in _parameters(model) if each[2].dim() == 2 and each[2].numel()]
    if not matrices:
        return
    module, name, p = draws.choice(matrices)
    how = draws.choice(["transposed", "slice", "expanded", "shared memory", "offset"])
    if how == "transposed":
        p.data = p.data.t().contiguous().t()
    elif how == "slice":
        p.data = torch.cat([p.data, p.data], 1)[:, : p.shape[1]]
    elif how == "offset":
        p.data = torch.cat([p.data, p.data], 0)[len(p) :]
    elif how == "expanded":
        p.data = p.data[:1].expand(p.shape)
    else:
        setattr(module, name, nn.Parameter(p.data))
        module.register_parameter("alias_of_it", nn.Parameter(p.data[: max(1, len(p) // 2)]))


def frozen(draws: random.Random, model: nn.Module) -> None:
    """Some parameters require no gradient, rarely all, or all but one."""
    parameters = list(model.parameters())
    share = draws.choice([0.2, 0.5, 0.9, 1.0])
    for p in parameters:
        if draws.random() < share:
            p.requires_grad_(False)


def integers(draws: random.Random, model: nn.Module) -> None:
    """Parameters of other types that nothing reads."""
    model.register_parameter("count", nn.Parameter(torch.arange(3), requires_grad=False))
    model.register_parameter("flag", nn.Parameter(torch.tensor([True, False]), requires_grad=False))
    model.register_parameter("none", nn.Parameter(torch.zeros(0, 3)))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))


BUFFERS: dict[str, Callable[[], Tensor | None]] = {
    "coo": lambda: torch.eye(4).to_sparse(),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "csc": lambda: torch.eye(4).to_sparse_csc(),
    "bsc": lambda: torch.eye(4).to_sparse_bsc(2),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "meta": lambda: torch.ones(3, device="meta"),
    "none": lambda: None,
    "strided": lambda: torch.arange(12.0).reshape(3, 4).t()[::2],
    "expanded": lambda: torch.ones(1).expand(5),
    "zero size": lambda: torch.zeros(0, 2),
    "integer": lambda: torch.arange(5),
    "bool": lambda: torch.tensor([True, False]),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negative": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "nan": lambda: torch.full((2,), float("nan")),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "channels last": lambda: torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
}


def buffers(draws: random.Random, model: nn.Module) -> None:
    """Buffers of some layouts, one of them made under inference mode, on random modules."""
    modules = list(model.modules())
    for name in draws.sample(list(BUFFERS), 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensor = BUFFERS[name]()
        draws.choice(modules).register_buffer(f"b_{name}".replace(" ", "_"), tensor, persistent=draws.random() < 0.7)
    with torch.inference_mode():
        draws.choice(modules).register_buffer("b_inference", torch.ones(3))


def buffer_of_parameter(draws: random.Random, model: nn.Module) -> None:
    """A buffer that shares the memory of a parameter."""
    held = _parameters(model)
    if held:
        module, _, p = draws.choice(held)
        module.register_buffer("view_of_it", p.detach() if draws.random() < 0.5 else p.data)


def hooks(draws: random.Random, model: nn.Module) -> None:
    """Hooks of each kind on random modules and parameters."""
    modules = list(model.modules())
    for _ in range(3):
        module, kind = draws.choice(modules), draws.randrange(8)
        if kind == 0:
            module.register_forward_hook(lambda m, args, y: y * 1.5 if isinstance(y, Tensor) else y)
        elif kind == 1:
            module.register_forward_pre_hook(lambda m, args: None)
        elif kind == 2:
            module.register_full_backward_hook(lambda m, gi, go: None)
        elif kind == 3:
            module.register_full_backward_pre_hook(lambda m, go: None)
        elif kind == 4:
            module.register_state_dict_post_hook(lambda m, state, prefix, meta: None)
        elif kind == 5:
            module.register_load_state_dict_post_hook(lambda m, keys: None)
        elif kind == 6 and (trainable := [p for p in model.parameters() if p.requires_grad]):
            draws.choice(trainable).register_hook(lambda g: None)
        elif trainable := [p for p in model.parameters() if p.requires_grad]:
            draws.choice(trainable).register_post_accumulate_grad_hook(lambda p: None)


def scales(draws: random.Random, model: nn.Module) -> None:
    """A parameter, or all, of an extreme size, zero or not finite."""
    factor = draws.choice([1e-30, 1e-12, 1e-4, 1e4, 1e12, 1e30, 0.0, 0.0, float("nan"), float("inf")])
    parameters = [p for p in model.parameters() if p.is_floating_point() and 0 not in p.stride()]  # can be written to
    with torch.no_grad():
        for p in parameters if draws.random() < 0.3 else draws.sample(parameters, min(1, len(parameters))):
            p.copy_(p * factor)


def modes(draws: random.Random, model: nn.Module) -> None:
    """Some modules in training mode and some not."""
    for module in model.modules():
        module.training = draws.random() < 0.5


def gradients(draws: random.Random, model: nn.Module) -> None:
    """Gradients of an earlier backward pass."""
    for p in model.parameters():
        if p.requires_grad and draws.random() < 0.7:
            p.grad = torch.full_like(p, 0.5)


def reparametrized(draws: random.Random, model: nn.Module) -> None:
    """A weight of any layer is computed from others."""
    layers = [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv1d, nn.Conv2d) and m.weight.numel()]
    if layers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parametrized(draws, draws.choice(layers))


class Marked(nn.Parameter):
    """A subclass of a parameter."""


def subclassed(draws: random.Random, model: nn.Module) -> None:
    """A parameter of a subclass."""
    held = [each for each in _parameters(model) if each[2].requires_grad]
    if held:
        module, name, p = draws.choice(held)
        setattr(module, name, Marked(p.data))


TRAITS: dict[str, Trait] = {
    "reparametrized": reparametrized,
    "tied": tied,
    "aliased": aliased,
    "frozen": frozen,
    "integers": integers,
    "buffers": buffers,
    "buffer of parameter": buffer_of_parameter,
    "subclassed": subclassed,
    "hooks": hooks,
    "scales": scales,
    "modes": modes,
    "gradients": gradients,
}
