"""A change of basis as a value: the factors of a network's quiver, to apply, undo, compose and keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport._change_of_basis.change_checks import mistake_in
from teleport._change_of_basis.multiplication import Multiplications, multiplications_of
from teleport._change_of_basis.teleported import Teleported, activations_of, broadcasts, unwrapped
from teleport._engine.held_tensors import HeldTensors, move_tensors
from teleport._engine.transaction import Snapshot
from teleport._errors import UnsupportedModel
from teleport._quiver.quiver import Quiver, Scaled, Site
from teleport._quiver.rows import in_rows
from teleport._tracing.functions import function_name, torch_function
from teleport._tracing.replicas import is_sharded

_ANOTHER = "the change of basis is of another model"


@dataclass(eq=False)
class BasisChange:
    """An element of the group that acts on a network's parameters (Armenta et al. 2023, section 3.2).

    Attributes:
        quiver: which parameters carry which classes. Its parameters are those of the traced model; another model is
            matched by their names.
        tau: ``[classes]``, float64 on the CPU, the factor of each class; 1 for class 0.
    """

    quiver: Quiver
    tau: Tensor

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's parameters in place, by multiplication: they keep their identity.

        Args:
            model: the traced model, or one of the same structure. Of one that is sharded over processes, all of these
                call this.

        Returns:
            The model that computes the same function: ``model`` itself, or, if activations need their teleported
            form, a ``Teleported`` around it.

        Raises:
            ValueError: a parameter of the quiver is missing or has another shape.
            UnsupportedModel: activations need their teleported form, and the model is sharded.
        """
        if any(map(is_sharded, model.parameters())):
            if activations_of(self.quiver, self.tau):
                raise UnsupportedModel(
                    "a change of basis with teleported activations is not applied to a sharded model: apply it before "
                    "fully_shard"
                )
            move_tensors(unwrapped(model), self.act)
            return model
        teleported = model if isinstance(model, Teleported) else Teleported(model)
        if not activations_of(self.quiver, self.tau):
            return self.act_on(model)  # one call of torch, which no interrupt parts
        before, form = Snapshot(self._parameters(teleported.module)), teleported.get_extra_state()
        try:
            return self.act_on(teleported)
        except BaseException:
            before.restore()
            teleported.set_extra_state(form)
            raise

    def act(self, held: HeldTensors) -> None:
        """Multiply the parameters of a model as this process holds them; activations stay.

        Raises:
            ValueError: a parameter of the quiver is missing or has another shape.
        """
        for name, each in self.quiver.scaled.items():
            _check_shape(name, held.shape(name), each)
        if not held.group.holds_parts:
            multiplications_of(self.quiver).apply(self.tau, [held.own[name] for name in self.quiver.scaled])
            return
        scaled = in_rows(held.group, self.quiver.scaled)
        rows = Multiplications(scaled, self.quiver.freedom)
        rows.apply(self.tau, [held.own[name] for name in scaled])

    def act_on(self, model: nn.Module) -> nn.Module:
        """As :meth:`apply`, for a caller who restores the model if an exception or interrupt comes in between."""
        parameters = self._parameters(unwrapped(model))
        activations = activations_of(self.quiver, self.tau)
        teleported = model
        if activations and not isinstance(model, Teleported):
            teleported = Teleported(model)
        multiplications_of(self.quiver).apply(self.tau, parameters)
        if activations and isinstance(teleported, Teleported):
            teleported.multiply(activations, self.quiver.calls)
        return teleported

    def inverse(self) -> BasisChange:
        """The inverse change, exact up to rounding."""
        return BasisChange(self.quiver, 1 / self.tau)

    def compose(self, other: BasisChange) -> BasisChange:
        """This one and ``other``, in any order: changes of basis commute.

        Raises:
            ValueError: ``other`` is of another quiver.
        """
        if len(self.tau) != len(other.tau) or list(self.quiver.scaled) != list(other.quiver.scaled):
            raise ValueError("only changes of basis of one quiver compose")
        return BasisChange(self.quiver, self.tau * other.tau)

    @property
    def group(self) -> Mapping[nn.Parameter, Tensor]:
        """The factors of each parameter that changes, for :func:`teleport.transport_state`."""
        return _Factors(self)

    @torch.no_grad()
    def distance(self, model: nn.Module) -> float:
        """``|V - W|`` between the current parameters W and the changed ones V; nothing is changed."""
        squares = 0.0
        for parameter, each in zip(self._parameters(unwrapped(model)), self.quiver.scaled.values(), strict=True):
            factors = each.factors(self.tau).to(parameter.device)
            squares += float((parameter.double() * (factors - 1)).square().sum())
        return float(squares**0.5)

    def state_dict(self) -> dict[str, Any]:
        """The change as plain values and tensors, for ``torch.save``."""
        quiver = self.quiver
        return {
            "tau": self.tau,
            "freedom": quiver.freedom,
            "inverse": quiver.inverse,
            "scaled": {name: (each.output_class, each.input_class) for name, each in quiver.scaled.items()},
            "units": quiver.channel_classes,
            "kinds": quiver.kinds,
            "sites": [
                {
                    "call": site.call,
                    "function": function_name(site.function),
                    "classes": site.classes,
                    "homogeneous": site.homogeneous,
                }
                for site in quiver.sites
            ],
            "reasons": quiver.reasons,
            "calls": quiver.calls,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], model: nn.Module) -> BasisChange:
        """The change of a :meth:`state_dict`, for a model of the same structure.

        Raises:
            ValueError: it is no change of basis, the model lacks a parameter, or a function is not torch's.
        """
        if mistake := mistake_in(state):
            raise ValueError(f"{mistake}, so this is no change of basis")
        named = dict(unwrapped(model).named_parameters(remove_duplicate=False))
        if missing := [name for name in state["scaled"] if name not in named]:
            raise ValueError(f"{_ANOTHER}: this one has no parameter {missing[0]!r}")
        for name, classes in state["scaled"].items():
            shape = named[name].shape
            if any(not broadcasts(each.shape, shape) for each in classes):
                raise ValueError(f"{_ANOTHER}: this one's {name!r} has shape {list(shape)}")
        quiver = Quiver(
            freedom=state["freedom"],
            inverse=state["inverse"],
            scaled={name: Scaled(named[name], *classes) for name, classes in state["scaled"].items()},
            channel_classes=dict(state["units"]),
            kinds=dict(state["kinds"]),
            sites=[Site(**{**site, "function": torch_function(site["function"])}) for site in state["sites"]],
            reasons=dict(state["reasons"]),
            calls=dict(state["calls"]),
        )
        return cls(quiver, state["tau"])

    def _parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters of the model by the names of the quiver's, in their order."""
        modules: dict[str, nn.Module] = {"": model}  # each is looked up once, as a large model has hundreds
        parameters = []
        for name, each in self.quiver.scaled.items():
            path, _, last = name.rpartition(".")
            parameter = _module(path, modules)._parameters.get(last)
            _check_shape(name, None if parameter is None else list(parameter.shape), each)
            assert parameter is not None
            parameters.append(parameter)
        return parameters


def _check_shape(name: str, shape: list[int] | None, scaled: Scaled) -> None:
    """Refuse a model that has no parameter of a name, or one of another shape."""
    if shape is None:
        raise ValueError(f"{_ANOTHER}: this one has no parameter {name!r}")
    if shape != list(scaled.parameter.shape):
        right = list(scaled.parameter.shape)
        raise ValueError(f"{_ANOTHER}: its {name!r} has shape {right}, this one's {shape}")


def _module(path: str, known: dict[str, nn.Module]) -> nn.Module:
    """The module at a path; ``known`` caches the modules found so far."""
    if path not in known:
        parent, _, last = path.rpartition(".")
        module = _module(parent, known)._modules.get(last)
        if module is None:
            raise ValueError(f"{_ANOTHER}: this one has no module {path!r}")
        known[path] = module
    return known[path]


class _Factors(Mapping[nn.Parameter, Tensor]):
    """The factors of parameters, computed on access, because all at once would take much memory."""

    def __init__(self, change: BasisChange) -> None:
        quiver = change.quiver
        moved = [quiver.scaled[name] for name in multiplications_of(quiver).moved(change.tau)]
        self._scaled = {each.parameter: each for each in moved}
        self._tau = change.tau

    def __getitem__(self, parameter: nn.Parameter) -> Tensor:
        return self._scaled[parameter].factors(self._tau).to(parameter.device)

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._scaled)

    def __len__(self) -> int:
        return len(self._scaled)
