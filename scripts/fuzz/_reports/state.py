"""What a teleport must leave as it was, recorded, and the differences to what it is later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def bits(tensor: Tensor | None) -> Any:
    """A copy of a tensor's values that compares bit for bit."""
    if tensor is None or tensor.is_meta:
        return None
    with torch.no_grad(), torch.inference_mode(False):
        if tensor.is_nested:
            return tuple(bits(part) for part in tensor.unbind())
        if tensor.is_quantized:
            return tuple(tensor.int_repr().flatten().tolist())
        if tensor.layout is not torch.strided:
            return bits(tensor.to_dense())
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous().clone()
        return (tuple(tensor.shape), str(tensor.dtype), plain.flatten().view(torch.uint8).numpy().tobytes())


class State:
    """A model's parameters, buffers, modes, flags, gradients and hooks, and torch's global settings."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.value_bits = {name: bits(p) for name, p in self.parameters.items()}
        self.rest = dict(self._rest())

    def _rest(self) -> Iterator[tuple[str, Any]]:
        for path, module in self.model.named_modules():
            yield f"mode of {path}", module.training
            for name, tensor in module._buffers.items():
                whose = name == "view_of_it"  # its memory is a parameter's
                yield f"buffer {path}.{name}", (id(tensor), None if whose else bits(tensor))
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks"):
                yield f"{kind} of {path}", len(getattr(module, kind))
            yield f"attributes of {path}", sorted(vars(module))
        for name, p in self.parameters.items():
            layout = (id(p), p.requires_grad, p.stride(), p.data_ptr(), p.dtype, len(p._backward_hooks or ()))
            yield f"parameter {name}", layout
            yield f"gradient of {name}", (id(p.grad), bits(p.grad))
        yield "random state", bits(torch.get_rng_state())
        yield "random state of Python", random.getstate()
        yield "gradient mode", (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        yield "default dtype", torch.get_default_dtype()
        yield "fast path", torch.backends.mha.get_fastpath_enabled()
        yield "math attention", (torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled())
        yield "modes", (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack())
        yield "cudnn", torch.backends.cudnn.enabled
        hooks = nn.modules.module
        yield "global hooks", (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks))

    def changed(self) -> list[str]:
        """What is not as it was, parameters' values aside."""
        now = dict(self._rest())
        return [what for what, value in self.rest.items() if now.get(what, "gone") != value] + [
            what for what in now if what not in self.rest
        ]

    def moved(self) -> set[str]:
        """The names of the parameters with other values; zeros of either sign are one value."""
        differ = self.touched()
        return {name for name in differ if bits(self.parameters[name] + 0) != bits(self.values[name] + 0)}

    def touched(self) -> set[str]:
        """The names of the parameters with other bits."""
        return {name for name, p in self.parameters.items() if bits(p) != self.value_bits[name]}
