"""A model some of whose activations are computed in their teleported form ``tau f(x / tau)`` (Armenta et al. 2023)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._change_of_basis.change_checks import mistake_in_activations
from teleport._quiver.quiver import Quiver
from teleport._tracing.functions import function_name, torch_function


@dataclass
class TeleportedActivation:
    """A call that is computed as ``tau f(x / tau)``.

    Attributes:
        function: f, by its name in torch, as ``torch.nn.functional.relu``.
        call: how many calls of f came before it in an evaluation of the model.
        tau: of a shape that broadcasts to the call's first argument and to its result.
    """

    function: str
    call: int
    tau: Tensor


class Teleported(nn.Module):
    """Runs a module with some of the torch functions that it calls in their teleported form.

    The module and its parameters are shared, not copied, and its parts are reached as those of the module: by
    attribute, index and iteration. Names of parameters have the prefix
    ``module.``. Calls are counted by function, so the module must make the same calls of these functions in every
    evaluation; otherwise an evaluation fails. Calls in a backward pass (activation checkpointing), on other threads
    (``nn.DataParallel``) or in scripted code are not seen. Parts of the module that are compiled run eagerly; what may
    be compiled is the teleported model. The factors are part of the ``state_dict``.

    Args:
        module: any module.

    Attributes:
        module: the module.
        activations: the teleported calls; none at first.
        calls: the number of calls of each of these functions per evaluation.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.activations: list[TeleportedActivation] = []
        self.calls: dict[str, int] = {}
        self.training = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the module with the activations teleported.

        Raises:
            RuntimeError: the module calls other functions than when its basis was changed.
        """
        return self._run(self.module, args, kwargs)

    def _run(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.activations:
            return forward(*args, **kwargs)
        expected = {torch_function(name): count for name, count in self.calls.items()}
        with _compiled_parts_eager(), _Teleporting(expected, self.activations) as mode:
            result = forward(*args, **kwargs)
        for function, count in expected.items():
            if mode.calls[function] != count:
                raise RuntimeError(
                    f"the model called {function_name(function)} {mode.calls[function]} times, but {count} times when "
                    "its basis was changed, so which calls to teleport is not known; evaluate it as it was then"
                )
        return result

    def inside(self, work: Callable[[nn.Module], Any]) -> Any:
        """``work(module)``, with the module's calls computed in the teleported form."""
        if not self.activations:
            return work(self.module)
        attributes, plain = vars(self.module), self.module.forward
        own = {name: attributes[name] for name in ("forward",) if name in attributes}

        def put_back() -> None:
            attributes.pop("forward", None)
            attributes.update(own)

        try:
            attributes["forward"] = lambda *args, **kwargs: self._run(plain, args, kwargs)
            result = work(self.module)
            put_back()
            return result
        except BaseException:
            put_back()
            raise

    def multiply(self, activations: Iterable[TeleportedActivation], calls: Mapping[str, int]) -> None:
        """Change the basis once more: factors are multiplied, and those equal to 1 are dropped."""
        held = {(each.function, each.call): each for each in self.activations}
        for each in activations:
            key = each.function, each.call
            tau = held[key].tau.to(each.tau) * each.tau if key in held else each.tau
            held[key] = TeleportedActivation(*key, tau)
        near = 8 * torch.finfo(torch.float64).eps
        self.activations = [each for each in held.values() if bool(((each.tau - 1).abs() > near).any())]
        named = {each.function for each in self.activations}
        self.calls = {name: count for name, count in {**self.calls, **calls}.items() if name in named}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module" or name.startswith("__"):
                raise
            return getattr(self.module, name)

    def __getitem__(self, index: Any) -> Any:
        return self.module[index]  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.module)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.module)  # type: ignore[call-overload, no-any-return]

    def __contains__(self, item: Any) -> bool:
        return item in self.module  # type: ignore[operator]

    def __bool__(self) -> bool:
        return True

    def get_extra_state(self) -> dict[str, Any]:
        """The factors, for ``state_dict``; of plain values and tensors."""
        return {"activations": [dict(vars(each)) for each in self.activations], "calls": dict(self.calls)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The factors, from a ``state_dict``.

        Raises:
            ValueError: they are none, or of a function that is not torch's; nothing is changed.
        """
        if mistake := mistake_in_activations(state):
            raise ValueError(f"{mistake}, so these are no teleported activations")
        for name in (*state["calls"], *(each["function"] for each in state["activations"])):
            torch_function(name)
        device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
        self.activations = [
            TeleportedActivation(**{**each, "tau": each["tau"].to(device)}) for each in state["activations"]
        ]
        self.calls = dict(state["calls"])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teleported:
        """Factors move between devices with the module; their precision stays."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for each in self.activations:
            each.tau = each.tau.to(fn(torch.empty(0)).device)
        return self


def unwrapped(model: nn.Module) -> nn.Module:
    """The module whose activations a teleported model changes, or the model itself."""
    return model.module if isinstance(model, Teleported) else model


def like_state(model: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """The model in the form of a ``state_dict``: teleported if the state is."""
    extra = state.get("_extra_state")
    teleported = isinstance(extra, Mapping) and set(extra) == {"activations", "calls"}
    return Teleported(model) if teleported and not isinstance(model, Teleported) else model


def activations_of(quiver: Quiver, tau: Tensor) -> list[TeleportedActivation]:
    """The activations that ``tau [classes]`` requires to be teleported.

    Positive factors pass through a homogeneous function unchanged, so only the signs of these remain.
    """
    asked = []
    for site in quiver.sites:
        own = tau[site.classes.cpu()]
        own = own.sign() if site.homogeneous else own
        if bool((own != 1).any()):
            asked.append(TeleportedActivation(function_name(site.function), site.call, own.to(site.classes.device)))
    return asked


def _compiled_parts_eager() -> AbstractContextManager[Any]:
    """Compiled parts of a module run eagerly.

    torch compiles the teleported form into them, and a backend that calls torch functions (``eager``, torch 2.13) then
    teleports these once more. A teleported model that is compiled as a whole is right as it is.
    """
    if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


class _Teleporting(TorchFunctionMode):
    """Counts the calls of some functions, and teleports the given ones."""

    def __init__(self, functions: Iterable[Callable[..., Any]], activations: Iterable[TeleportedActivation]) -> None:
        super().__init__()
        self._asked = {(torch_function(each.function), each.call): each for each in activations}
        self.calls = dict.fromkeys([*functions, *(function for function, _ in self._asked)], 0)

    def __torch_function__(  # the mode itself is off in here
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.calls:
            return func(*args, **kwargs)
        call = self.calls[func]
        self.calls[func] = call + 1
        asked = self._asked.get((func, call))
        return func(*args, **kwargs) if asked is None else _teleported(asked, func, args, kwargs)


def _teleported(
    asked: TeleportedActivation, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``tau f(x / tau)``, written to x itself if f is in place."""
    named = dict(kwargs)
    x = args[0] if args else named.pop("input", None)
    if not isinstance(x, Tensor) or not broadcasts(asked.tau.shape, x.shape):
        shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise RuntimeError(
            f"call {asked.call} of {asked.function} has an input of shape {shape}, which factors of shape "
            f"{list(asked.tau.shape)} do not go with; evaluate the model as it was when its basis was changed"
        )
    precision = torch.promote_types(x.dtype, torch.float32)  # of halves the form is computed in single precision
    tau = asked.tau.to(x.device, precision)
    inner = x.to(precision) / tau
    result = func(inner, *args[1:], **named)
    outer = (tau * result).to(x.dtype)
    return x.copy_(outer) if result is inner else outer


def broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of ``shape`` broadcasts to the shape ``to`` without changing it."""
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, other) for size, other in sizes)
